"""Profiles of a reference that tell nothing: without expression, flat, or alike."""

import numpy as np

from .names import listing
from .units import FEWEST_GENES, Finding

# One minus the cosine of two profiles up to which they are the same up to rounding and a factor: 1e-3 and more
# between any two types of the real references at hand.
ALIKE = 1e-6


def profile_findings(reference, cell_types):
    """What speaks against the profiles of a reference.

    Parameters
    ----------
    reference : ndarray of shape (n_cell_types, n_genes)
        Finite, on the genes in use.
    cell_types : ndarray of str, shape (n_cell_types,)

    Returns
    -------
    findings : list of Finding
        Named "empty", "flat" or "alike".
    """
    if reference.shape[1] < FEWEST_GENES:
        return []
    values = reference.astype(np.float64, copy=False)
    products = values @ values.T
    empty = products.diagonal() == 0
    low, high = values.min(axis=1), values.max(axis=1)
    flat = ~empty & (high - low <= ALIKE * np.maximum(high, -low))
    found = []
    if empty.any():
        names = listing(cell_types[empty].tolist())
        message = (
            f"Profiles of the reference are zero in every gene in use: {names}. Leave these cell types out."
        )
        found.append(Finding("empty", message))
    if flat.any():
        names = listing(cell_types[flat].tolist())
        message = (
            f"Profiles of the reference have one value in every gene in use: {names}. A flat profile absorbs "
            f"background and does not describe a cell type: leave it out."
        )
        found.append(Finding("flat", message))
    pairs = _alike(products[~empty][:, ~empty], cell_types[~empty])
    if pairs:
        message = (
            f"Profiles of the reference are the same up to a factor: {listing(pairs)}. Their shares "
            f"cannot be told apart: keep one of them, or treat the sum of their shares as one cell type."
        )
        found.append(Finding("alike", message))
    return found


def _alike(products, cell_types):
    """Pairs of profiles that point in one direction, by their inner products."""
    sizes = np.sqrt(products.diagonal())
    near = np.triu(products / sizes / sizes[:, None] >= 1 - ALIKE, k=1)
    return [_Pair(cell_types[k], cell_types[other]) for k, other in np.argwhere(near)]


class _Pair:
    def __init__(self, first, second):
        self.first, self.second = first, second

    def __str__(self):
        return f"'{self.first}' and '{self.second}'"
