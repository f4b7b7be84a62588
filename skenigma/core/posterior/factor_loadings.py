"""Prior variances of the loadings of a factor model, at the maximum of the evidence."""

import numpy as np

# Information below this share of the largest is rounding, or that of a cell type that is all but absent.
UNSEEN = 1e-10


def maximise_prior(prior, precision, moments):
    r"""Prior variances of the loadings, each maximising the evidence given the others, in one sweep.

    Per gene, the information :math:`h_g` on the coefficients has the covariance :math:`A + A T A`, A the precision,
    T the prior. With :math:`D = (A^{-1} + T)^{-1}` and :math:`W = D A^{-1} N A^{-1} D`, N the moments, and s and q
    their diagonal entries without the coefficient's own prior, its variance has the maximum at
    :math:`\max(0, (q - s) / s^2)` [1]_.

    Parameters
    ----------
    prior : ndarray of shape (p,)
    precision : ndarray of shape (p, p)
    moments : ndarray of shape (p, p)
        Mean over genes of :math:`h_g h_g^T`.

    Returns
    -------
    prior : ndarray of shape (p,)

    References
    ----------
    .. [1] Tipping, Faul (2003), Fast marginal likelihood maximisation for sparse Bayesian models. AISTATS.
    """
    prior = prior.copy()
    least = UNSEEN * np.diagonal(precision).max()
    solved = np.linalg.inv(np.eye(len(prior)) + precision * prior)
    inside = solved @ precision
    inside = (inside + inside.T) / 2
    spread = solved @ moments @ solved.T
    for a in range(len(prior)):
        # of the rest's prior only: the own is divided out
        share = 1 - inside[a, a] * prior[a]
        information, moment = inside[a, a] / share, spread[a, a] / share**2
        # what the data do not see has no variance
        best = max(0.0, (moment - information) / information**2) if information > least else 0.0
        change = best - prior[a]
        if change:
            # both matrices are multiplied by 1 - column e_a' from the left, the second also from the right
            column = inside[:, a] * (change / (1 + change * inside[a, a]))
            spread -= column[:, None] * spread[a]
            spread -= spread[:, a, None] * column
            inside -= column[:, None] * inside[a]
        prior[a] = best
    return prior
