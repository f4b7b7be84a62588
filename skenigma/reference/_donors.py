"""How much the profiles of a reference vary between the donors of its cells."""

from dataclasses import replace

import numpy as np

from ..checks.names import Noted, listing
from ..checks.warning import warn
from ..core.posterior.donors import moderated_variance


def variance_between(cells, members, donors, min_cells, cell_types):
    """Moderated variance between donors of the profile of every type, and the number of donors behind it.

    Parameters
    ----------
    cells : Cells
    members : Members
    donors : ndarray of int, shape (n_cells,)
        Donor of every cell, as a number.
    min_cells : int
        A donor with fewer cells of a type does not count for it.
    cell_types : ndarray of str
        Types in use.

    Returns
    -------
    variance : ndarray of shape (n_cell_types, n_genes)
        Of log2(x + 1).
    n_donors : ndarray of int, shape (n_cell_types,)
    """
    variance = np.full((len(cell_types), cells.values.shape[1]), np.nan)
    n_donors = np.zeros(len(cell_types), dtype=int)
    of_members = donors[members.rows]
    for k in range(len(cell_types)):
        profiles = _profiles(cells, members, members.codes == k, of_members, min_cells)
        n_donors[k] = len(profiles)
        if len(profiles) > 1:
            # on the scale on which EmpiricalBayesDeconvolver takes its reference_variance
            variance[k] = moderated_variance(np.log2(profiles + 1))
    few = n_donors < 2
    if few.all():
        raise ValueError(
            f"No cell type has two donors with min_cells={min_cells} cells each: the variance between donors is not "
            f"known. Lower min_cells, or leave donors out."
        )
    if few.any():
        noted = [Noted(*pair) for pair in zip(cell_types[few], n_donors[few], strict=True)]
        warn(
            f"Cell types with fewer than two donors of min_cells={min_cells} cells get the mean variance of the "
            f"others: {listing(noted)}.",
        )
        variance[few] = variance[~few].mean(axis=0)
    return variance, n_donors


def _profiles(cells, members, chosen, of_members, min_cells):
    """Mean expression of the cells of one type, per donor with enough of them."""
    names, codes = np.unique(of_members[chosen], return_inverse=True)
    counts = np.bincount(codes, minlength=len(names))
    enough = counts >= min_cells
    rows = np.flatnonzero(chosen)[enough[codes]]
    # numbered anew, without donors of too few cells
    codes = (np.cumsum(enough) - 1)[codes[enough[codes]]]
    part = replace(
        members, rows=members.rows[rows], codes=codes, counts=counts[enough], scale=members.scale[rows]
    )
    return part.sums(cells.values, part.scale) if enough.any() else np.empty((0, cells.values.shape[1]))
