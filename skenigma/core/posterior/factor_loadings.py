"""Prior covariances of the loadings of a factor model, at the maximum of the evidence."""

import numpy as np

# Eigenvalues of an information matrix below this share of the largest are directions that the data do not see.
RANK_TOLERANCE = 1e-12


def maximise_prior(prior, precision, moments, blocks):
    r"""Prior covariances of the loadings, each block maximising the evidence given the others, in one sweep.

    Per gene, the information :math:`h_g` on the coefficients has the covariance :math:`A + A T A`, A the precision,
    T the prior. With :math:`D = (A^{-1} + T)^{-1}` and :math:`W = D A^{-1} N A^{-1} D`, N the moments, the block a of
    T has the maximum, given all others, at

    .. math:: L^{-T} (L^{-1} Q L^{-T} - I)_+ L^{-1} , \qquad L L^T = s ,

    where s and Q are the blocks of D and W without the block's own prior, and + drops negative eigenvalues [1]_.

    Parameters
    ----------
    prior, precision : ndarray of shape (p, p)
    moments : ndarray of shape (p, p)
        Mean over genes of :math:`h_g h_g^T`.
    blocks : list of ndarray of int
        Positions of the coefficients that share a covariance; between blocks it is 0.

    Returns
    -------
    prior : ndarray of shape (p, p)

    References
    ----------
    .. [1] Tipping, Faul (2003), Fast marginal likelihood maximisation for sparse Bayesian models. AISTATS. There for
       blocks of one coefficient.
    """
    prior = prior.copy()
    solved = np.linalg.inv(np.eye(len(prior)) + precision @ prior)
    inside = solved @ precision
    inside = (inside + inside.T) / 2
    spread = solved @ moments @ solved.T
    for block in blocks:
        if len(block) == 1:
            _maximise_variance(prior, inside, spread, block[0])
            continue
        own = np.ix_(block, block)
        unit = np.eye(len(block))
        without = np.linalg.inv(unit - inside[own] @ prior[own])
        best = _best_covariance(without @ inside[own], without @ spread[own] @ without.T)
        change = best - prior[own]
        update = np.linalg.solve(unit + change @ inside[own], change)
        column = inside[:, block] @ update
        # both matrices are multiplied by (1 - column e_block') from the left, the second also from the right
        spread -= column @ spread[block]
        spread -= spread[:, block] @ column.T
        inside -= column @ inside[block]
        prior[own] = best
    return prior


def _maximise_variance(prior, inside, spread, a):
    """The same, in place, for a block of one coefficient, which most are."""
    information, old = inside[a, a], prior[a, a]
    share = 1 - information * old
    information, moment = information / share, spread[a, a] / share**2
    prior[a, a] = max(0.0, (moment - information) / information**2) if information > 0 else 0.0
    change = prior[a, a] - old
    column = inside[:, a] * (change / (1 + change * inside[a, a]))
    spread -= column[:, None] * spread[a]
    spread -= spread[:, a, None] * column
    inside -= column[:, None] * inside[a]


def _best_covariance(information, spread):
    """Covariance T of most evidence for estimates with this information whose scores have this second moment."""
    values, vectors = np.linalg.eigh((information + information.T) / 2)
    there = values > RANK_TOLERANCE * max(values[-1], 0)
    if not there.any():
        return np.zeros_like(information)
    whiten = vectors[:, there] / np.sqrt(values[there])
    values, vectors = np.linalg.eigh(whiten.T @ spread @ whiten)
    half = whiten @ (vectors * np.sqrt(np.maximum(values - 1, 0)))
    return half @ half.T
