"""Entries of a matrix, dense or sparse: what is not finite, negative or of extreme magnitude is refused by place."""

import numpy as np
from scipy.sparse import issparse

from .names import SHOWN, listing, name_at
from .numbers import check_magnitude


def _refuse_entries(bad, kind, what, rows, columns, remedy, first_row=0):
    """Raise a ValueError that names the first entries where ``bad`` (dense or sparse) holds."""
    found = np.transpose(bad.nonzero())
    if len(found):
        first = [_Place(name_at(rows, first_row + i), name_at(columns, j)) for i, j in found[:SHOWN]]
        places = listing(first, total=len(found))
        raise ValueError(f"{what} contains {kind} in {len(found)} place(s): {places}. {remedy}")


class _Place:
    def __init__(self, row, column):
        self.row, self.column = row, column

    def __str__(self):
        return f"(row {self.row}, column {self.column})"


def check_finite(values, what, rows, columns, remedy="Impute or drop these samples or genes first."):
    """Refuse NaN and infinity in a dense or compressed sparse matrix, naming the first, and extreme magnitudes."""
    refuse_infinite(values, what, rows, columns, remedy)
    check_magnitude(stored(values), what)


def refuse_infinite(
    values, what, rows, columns, remedy="Impute or drop these samples or genes first.", first_row=0
):
    """Refuse NaN and infinity, naming the first; ``first_row`` is where a block of rows begins."""
    with np.errstate(over="ignore", invalid="ignore"):
        # one pass, no temporary: the rule for clean data
        clean = np.isfinite(np.sum(stored(values)))
    if not clean:
        _refuse_entries(_elementwise(np.isnan, values), "NaN", what, rows, columns, remedy, first_row)
        if np.isneginf(stored(values)).any():
            remedy = (
                "Minus infinity is the logarithm of 0: pass the values as they were before, take log(x + 1), or drop "
                "these samples or genes."
            )
        infinite = _elementwise(np.isinf, values)
        _refuse_entries(infinite, "infinity (inf)", what, rows, columns, remedy, first_row)


def check_nonnegative(values, what, rows, columns, reason):
    """Refuse negative entries of a dense or compressed sparse matrix, naming the first."""
    entries = stored(values)
    if entries.size and entries.min() < 0:
        for first_row, block in _parts(values):
            negative = _elementwise(lambda entry: entry < 0, block)
            _refuse_entries(negative, "negative values", what, rows, columns, reason, first_row)


def _parts(values):
    """A matrix as it is, or, where it is not in memory, its blocks; each with its first row."""
    if not hasattr(values, "block_rows"):
        return ((0, values),)
    return ((rows.start, block) for rows, block in values.blocks())


def stored(values):
    """The entries that are held in memory: all of a dense matrix, the explicit ones of a sparse one."""
    return values.data if issparse(values) else values


def _elementwise(function, values):
    """Where a function that is false at 0 holds, as a matrix of the same kind."""
    if not issparse(values):
        return function(values)
    return type(values)((function(values.data), values.indices, values.indptr), shape=values.shape)
