r"""Variances of many genes, estimated together: moderation by what genes have in common.

A variance :math:`s_g^2` on ν degrees of freedom is taken for a draw of :math:`\sigma_g^2 \chi^2_\nu / \nu` with
:math:`1/\sigma_g^2 \sim \chi^2_{d_0} / (d_0 s_0^2)` over genes (Smyth 2004, Linear models and empirical Bayes methods
for assessing differential expression in microarray experiments). :math:`d_0` and :math:`s_0` come from mean and
variance of :math:`\log s_g^2`; the moderated variance is :math:`(d_0 s_0^2 + \nu s_g^2) / (d_0 + \nu)` on
:math:`d_0 + \nu`.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

# A variance this far below the median is one of rounding or of a constant gene, and no logarithm of it is asked.
SMALLEST_SHARE = 1e-8
# Prior degrees of freedom beyond which all genes have one variance.
MOST_DEGREES = 1e5


@dataclass(frozen=True)
class VariancePrior:
    """Inverse-gamma prior of the genes' variances.

    Attributes
    ----------
    variance : float
        :math:`s_0^2`.
    degrees : float
        :math:`d_0`.
    """

    variance: float
    degrees: float

    @classmethod
    def fit(cls, variance, degrees):
        """From variances of shape (g,) on ``degrees`` degrees of freedom, a number or one per gene."""
        variance, degrees = np.broadcast_arrays(variance, np.asarray(degrees, dtype=float))
        usable = np.isfinite(variance) & (variance > 0) & (degrees > 0)
        if usable.sum() < 2:
            return cls(1.0, 0.0)
        variance, degrees = variance[usable], degrees[usable]
        floored = np.maximum(variance, SMALLEST_SHARE * np.median(variance))
        logs = np.log(floored) - digamma(degrees / 2) + np.log(degrees / 2)
        excess = logs.var(ddof=1) - polygamma(1, degrees / 2).mean()
        prior = _degrees(excess)
        return cls(float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))), prior)

    def moderate(self, variance, degrees):
        """Moderated variances."""
        return (self.degrees * self.variance + degrees * variance) / (self.degrees + degrees)


def _degrees(excess):
    """The d with trigamma(d/2) = ``excess``, at most ``MOST_DEGREES``."""
    if excess <= polygamma(1, MOST_DEGREES / 2):
        return MOST_DEGREES
    return 2.0 * brentq(lambda half: polygamma(1, half) - excess, 1e-4, MOST_DEGREES / 2)
