"""p-values that hold on real data: what permuted phenotypes give, pooled over like genes.

Parametric p-values trust the model: independent errors of one variance. Real cohorts have hidden structure and heavy
tails, and then a phenotype without any effect still has small p-values. Permutations of the phenotype have them as
well, and show how often.
"""

import numpy as np


def permuted_phenotypes(coded, covariates, n_permutations, rng):
    """Phenotypes without effect that go with the covariates as the observed one does.

    What the covariates explain of the phenotype stays, and the rest is permuted over samples; without covariates
    that is the permuted phenotype.

    Parameters
    ----------
    coded : ndarray of shape (n, m)
    covariates : ndarray of shape (n, c)
        Centred.
    n_permutations : int
    rng : numpy.random.Generator or RandomState

    Returns
    -------
    ndarray of shape (n_permutations, n, m)
    """
    orders = np.array([rng.permutation(len(coded)) for _ in range(n_permutations)], dtype=int)
    orders = orders.reshape(n_permutations, len(coded))
    if not covariates.shape[1]:
        return coded[orders]
    common = np.column_stack([np.ones(len(coded)), covariates])
    explained = common @ np.linalg.lstsq(common, coded, rcond=None)[0]
    return explained + (coded - explained)[orders]


def calibrate(p_value, score, null, groups):
    """The larger of a parametric p-value and the share of null scores that reach the observed one.

    Parameters
    ----------
    p_value, score : ndarray of shape (g,)
        Of one cell type; p falls with the score. NaN where there is no test.
    null : ndarray of shape (B, g)
        Scores under permuted phenotypes.
    groups : ndarray of int, shape (g,)
        Genes whose null scores are pooled.

    Returns
    -------
    ndarray of shape (g,)

    Notes
    -----
    Above all N null scores of a group the share is at most 1/(N + 1), and falls on as the parametric p-value does, so
    that the order of the genes is kept there.
    """
    calibrated = p_value.copy()
    for group in np.unique(groups[np.isfinite(score)]):
        members = np.flatnonzero((groups == group) & np.isfinite(score))
        pooled = np.sort(null[:, members], axis=None)
        reached = len(pooled) - np.searchsorted(pooled, score[members], side="left")
        share = (1.0 + reached) / (1.0 + len(pooled))
        beyond = reached == 0
        if beyond.any():
            own = p_value[members[beyond]]
            share[beyond] *= own / max(own.max(), np.finfo(float).tiny)
        calibrated[members] = np.maximum(p_value[members], share)
    return calibrated


def quantile_groups(values, n_groups):
    """Numbers of the groups of like size that values fall into, by their order."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return ranks * n_groups // max(1, len(values))
