"""Weights of samples and of single values, from residuals of a model that does not know the phenotype.

None of them sees the phenotype, so a permutation of it leaves them as they are, and a test that uses them remains a
test of the phenotype alone.
"""

import numpy as np
from scipy.optimize import nnls

# Robust standard deviations beyond which a residual is brought back to that distance.
CLIP = 3.0
# Range of the weights of samples, around a geometric mean of 1.
LARGEST_WEIGHT = 20.0
# Steps of the reweighted fit of the mean-variance law; it converges in a few.
LAW_STEPS = 10


def null_fit(response, nuisance):
    """Values that the nuisance columns, shape (n, q, g), explain of the response, shape (n, g)."""
    basis = np.linalg.qr(nuisance.transpose(2, 0, 1))[0]
    fitted = basis @ (basis.swapaxes(1, 2) @ response.T[:, :, None])
    return fitted[:, :, 0].T


def clipped(response, fitted, clip=CLIP):
    """Response with every residual within ``clip`` robust standard deviations of its gene's."""
    residual = response - fitted
    centre = np.median(residual, axis=0)
    spread = 1.4826 * np.median(np.abs(residual - centre), axis=0)
    # a gene of mostly equal values has no such spread, and is left as it is
    reach = np.where(spread > 0, clip * spread, np.inf)
    return fitted + np.clip(residual, centre - reach, centre + reach)


def sample_weights(squares, leverage, power=1.0):
    """Weights of samples, inverse to their mean squared standardised residual, or a power of it.

    Parameters
    ----------
    squares : ndarray of shape (n,)
        Mean over genes of squared residuals over the gene's variance.
    leverage : ndarray of shape (n,)
        Mean over genes of the share of a sample's variance that its own fit absorbs.
    power : float, default=1
        1 weighs as if the samples' variances were known; less is nearer to equal weights.
    """
    variance = squares / np.maximum(1.0 - leverage, 1e-2)
    positive = variance > 0
    if not positive.all():
        return np.ones(len(variance))
    weight = (np.exp(np.log(variance).mean()) / variance) ** power
    return np.clip(weight, 1.0 / LARGEST_WEIGHT, LARGEST_WEIGHT)


def mean_variance_law(mean, variance):
    """Coefficients (of 1, μ, μ²), none negative, of the variance of a gene as a function of its mean.

    Parameters
    ----------
    mean, variance : ndarray of shape (g,)
        Of every gene: not negative, and with a positive variance in some.

    Returns
    -------
    ndarray of shape (3,)

    Notes
    -----
    Least squares of the ratio of variance and law, reweighted by the law: constant, Poisson and biological variance
    in one, as in counts.
    """
    usable = np.isfinite(variance) & (variance > 0) & (mean > 0)
    mean, variance = mean[usable], variance[usable]
    powers = np.column_stack([np.ones_like(mean), mean, mean**2])
    fitted = variance
    for _ in range(LAW_STEPS):
        # half way between ratios of values and of logarithms: single genes of large variance do not lead
        weight = 1.0 / np.sqrt(fitted * np.maximum(variance, fitted))
        law = nnls(powers * weight[:, None], variance * weight)[0]
        fitted = np.maximum(powers @ law, np.finfo(float).tiny)
    return law


def law_at(law, mean):
    """Variance by the law at any mean, negative ones counting as 0."""
    mean = np.maximum(mean, 0.0)
    return law[0] + mean * (law[1] + mean * law[2])
