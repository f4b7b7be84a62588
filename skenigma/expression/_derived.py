"""Expression made of another: normalised, or held in memory."""

from dataclasses import replace

from ..normalization import fit_normalization
from ._sources import Held, Normalized


def output_expression(model):
    """Expression of a fitted model as its ``transform`` returns it: normalised, if it was asked to."""
    return getattr(model, "expression_normalized_", model.expression_)


def fit_normalized(expression, method):
    """Normalisation of a cohort, fitted one cell type at a time.

    Returns
    -------
    fitted : list
        One per cell type, for :func:`normalized`.
    """
    n_cell_types = len(expression.cell_types)
    by_type = (expression.values(cell_types=slice(k, k + 1))[:, 0] for k in range(n_cell_types))
    return fit_normalization(method, by_type, expression.proportions)


def normalized(expression, fitted):
    """The same expression, normalised."""
    source = Normalized(expression.source, fitted, expression.proportions)
    return replace(expression, source=source, level=None)


def materialized(expression):
    """The same expression, its tensor held in memory."""
    # the compact form is let go unless deviations are built from it
    source = expression.source if expression.has_std else None
    return replace(expression, source=Held(expression.values(), source))
