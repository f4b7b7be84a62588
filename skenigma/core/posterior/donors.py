"""Variance between the donors behind a reference, moderated by what genes of one level have in common."""

import numpy as np

from ..regress.moderation import VariancePrior

# Groups of genes of about one level, over which the trend is drawn.
N_GROUPS = 20
# A variance this far below the median of its type is one of rounding.
SMALLEST_SHARE = 1e-4


def moderated_variance(profiles):
    """Moderated variance between donors of the expression of one cell type.

    Parameters
    ----------
    profiles : ndarray of shape (n_donors, n_genes)
        Profiles of at least two donors, on the log scale.

    Returns
    -------
    variance : ndarray of shape (n_genes,)
        Pulled to the trend over the level, with the strength that the genes' spread about it asks for.
    """
    variance, degrees = profiles.var(axis=0, ddof=1), len(profiles) - 1
    usable = variance > 0
    if usable.sum() < 2:
        return variance
    trend = _trend(profiles.mean(axis=0), variance, usable)
    prior = VariancePrior.fit(variance[usable] / trend[usable], degrees)
    return trend * prior.moderate(variance / trend, degrees)


def _trend(level, variance, usable):
    """Typical variance of the genes of a level: geometric means of groups, joined by lines, constant beyond."""
    order = np.flatnonzero(usable)[np.argsort(level[usable], kind="stable")]
    logs = np.log(np.maximum(variance, SMALLEST_SHARE * np.median(variance[usable])))
    groups = np.array_split(order, min(N_GROUPS, len(order)))
    middles = [level[group].mean() for group in groups]
    return np.exp(np.interp(level, middles, [logs[group].mean() for group in groups]))
