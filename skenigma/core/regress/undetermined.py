"""Shares of cell types whose profiles, or mixtures of whose profiles, are the same: what the data leave open."""

import numpy as np

# Eigenvalue of the information, scaled to a diagonal of ones, up to which a direction counts as open. Chosen on
# simulated pairs of profiles: below it two standard errors of the sandwich held .25 to .79 of the true shares, from
# 6e-3 on .79 to .99. The smallest eigenvalue of 14 real sets is 3e-3.
DETERMINED = 1e-3
# Entry of the projector on these directions from which on two cell types belong together.
TOGETHER = 0.01


def undetermined_groups(information):
    """Which cell types can take each other's place in a sample.

    Parameters
    ----------
    information : ndarray of shape (n_samples, n_cell_types, n_cell_types)
        Of the coefficients, without a ridge.

    Returns
    -------
    ndarray of bool, shape (n_samples, n_cell_types, n_cell_types)
        Symmetric: the group of each cell type; all False for those that the data determine.
    """
    sizes = np.sqrt(np.einsum("nkk->nk", information))
    # a cell type without any information is open by itself, and is not mistaken for another
    sizes = np.where(sizes > 0, sizes, np.inf)
    scaled = information / sizes[:, :, None] / sizes[:, None, :]
    values, vectors = np.linalg.eigh(scaled)
    open_ways = vectors * (values <= DETERMINED)[:, None, :]
    groups = np.abs(open_ways @ open_ways.swapaxes(1, 2)) > TOGETHER
    # who can take the place of one can take that of all whom that one can replace
    for _ in range(int(np.ceil(np.log2(groups.shape[1] + 1)))):
        groups = groups @ groups
    return groups & (groups.sum(axis=2) > 1)[:, :, None]


def attainable_spread(coefficients, totals, groups):
    r"""Mean squared distance of every share from the shares that fit as well.

    Parameters
    ----------
    coefficients : ndarray of shape (n_samples, n_cell_types)
        At least 0; divided by their sum they are the shares.
    totals : ndarray of shape (n_cell_types,)
        What a coefficient of 1 adds up to over the genes.
    groups : ndarray of bool, shape (n_samples, n_cell_types, n_cell_types)
        From :func:`undetermined_groups`.

    Returns
    -------
    ndarray of shape (n_samples, n_cell_types)
        NaN where all coefficients are zero.

    Notes
    -----
    Mixtures that are the same have the same total, so what a group makes up of it, :math:`t = \sum_k m_k b_k` for
    totals m, is known, and :math:`b_k` is anywhere from 0 to :math:`t / m_k` (exactly so for profiles that are
    multiples of one another, at most so for others). The share is then within limits l and h; those of the cell types
    outside have limits as well where the totals differ, since the sum of all coefficients changes. For a share that
    is uniform between its limits, the mean squared distance from the estimate e is
    :math:`(h - l)^2 / 12 + ((h + l) / 2 - e)^2`. Twice its root reaches both limits, wherever between them e is.
    """
    inside = groups.any(axis=2)
    known = np.einsum("nkl,nl->nk", groups, coefficients * totals)
    # all of a group in one cell type
    most = known / totals
    size = np.maximum(groups.sum(axis=2), 1)
    least_sum = np.where(groups, most[:, None, :], np.inf).min(axis=2, initial=np.inf)
    most_sum = np.where(groups, most[:, None, :], 0.0).max(axis=2, initial=0.0)
    least_sum, most_sum = np.where(inside, least_sum, 0.0), np.where(inside, most_sum, 0.0)
    rest = np.where(inside, 0.0, coefficients).sum(axis=1, keepdims=True)
    # each group counts once, though all of its members name it
    lowest = rest + (least_sum / size).sum(axis=1, keepdims=True)
    highest = rest + (most_sum / size).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(inside, 0.0, coefficients / highest)
        high = np.where(inside, most / (lowest - least_sum + most), coefficients / lowest)
        estimate = coefficients / coefficients.sum(axis=1, keepdims=True)
    return (high - low) ** 2 / 12 + ((high + low) / 2 - estimate) ** 2
