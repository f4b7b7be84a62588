"""The level of an expression, in the last line of a command."""

import numpy as np

from ..deconvolution._level import HIGHEST, LOWEST


def note_level(job, expression):
    """Record the level of an expression, the mixture over the bulk, which the last line tells."""
    level = expression.level
    known = level[~np.isnan(level)]
    if len(known):
        quantities = {"median": np.median(known), "lowest": known.min(), "highest": known.max()}
        job.result["level"] = {name: float(value) for name, value in quantities.items()}


def level_text(result):
    """What the last line says of the level, "" where there is none."""
    if "level" not in result:
        return ""
    median = result["level"]["median"]
    text = (
        f"; level {median:.3g}: mixed by the proportions, the expression is {100 * median:.3g} % of the bulk"
    )
    if LOWEST <= median <= HIGHEST:
        return f"{text} (median)"
    return f"{text} (median), which must not be used as it is: see the warning"
