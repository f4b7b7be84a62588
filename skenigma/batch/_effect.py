"""A batch effect per gene, on the scale log2(x + 1), and the checks of what it is estimated from."""

import numpy as np

from ..checks.entries import check_nonnegative
from ..checks.names import listing
from ..checks.scales import LOG_SCALE_MAXIMUM, SCALES
from ..checks.warning import warn
from ..core.blocks import row_blocks

LOG = SCALES["log"]
LINEAR = "Batch effects are removed on the scale log2(x + 1): pass expression on the linear scale."
NEGATIVE = f"Negative values in data cannot be expression. {LINEAR}"
# Numbers of which there are logarithms at a time: 4 MB in double precision.
LOGS_AT_ONCE = 2**19
# Ratio of mean totals beyond which bulk and reference are not in the same units.
FAR_APART = 10


def apply_effect(values, slope, intercept):
    """Expression through affine maps of its logarithms; what would fall below 0 is 0."""
    corrected = np.empty(values.shape, dtype=values.dtype)
    for some in row_blocks(values, LOGS_AT_ONCE):
        logs = slope * LOG.forward(values[some]) + intercept
        np.maximum(logs, 0, out=logs)
        LOG.backward(logs)
        corrected[some] = logs
    return corrected


def check_expression(values, what, rows, genes):
    """Refuse negative values; warn of rows without any expression, which distort what is fitted."""
    check_nonnegative(values, what, rows, genes, NEGATIVE)
    empty = np.flatnonzero(_totals(values) <= 0)
    if len(empty) == len(values):
        raise ValueError(f"{what} has no expression at all on the {len(genes)} gene(s) in use.")
    if len(empty):
        names = listing(list(empty if rows is None else rows[empty]))
        warn(
            f"{what} has no expression in {len(empty)} row(s): {names}. Drop them: they distort the correction.",
        )


def warn_of_logarithms(bulk):
    """Warn where values are as small as those of logarithms."""
    maximum = bulk.max()
    if maximum < LOG_SCALE_MAXIMUM:
        warn(
            f"The largest value of X is {maximum:.3g}: is this the logarithm of expression? {LINEAR}",
        )


def warn_of_units(bulk, reference):
    """Warn where units differ so much that it cannot be a matter of platforms."""
    totals = [_totals(values).mean() for values in (bulk, reference)]
    if max(totals) > FAR_APART * min(totals):
        warn(
            f"On the shared genes, the mean total of X is {totals[0]:.3g} and that of reference {totals[1]:.3g}: "
            f"scale both to the same total first, or the correction will treat the difference in units as a "
            f"batch effect.",
        )


def _totals(values):
    """Sum of every row; of a matrix that is read by rows it is known."""
    return values.sum(axis=1, dtype=np.float64) if isinstance(values, np.ndarray) else values.facts.totals
