"""Penalties that skenigma does not have, for the tests of its solvers."""

from dataclasses import dataclass

import numpy as np

from skenigma.core.optimize.penalties import CapMap, Conjugate, Norms, Penalty
from skenigma.core.optimize.states import Tensor


class MaxNorm(Penalty):
    """β Σ_k max_j ‖p_jk‖: the maximum norm without its square."""

    curvature = 1.0

    def __init__(self, beta):
        self.beta = beta

    def value(self, expression):
        return self.beta * float(np.sum(np.max(expression.norms(), axis=0)))

    def summarise(self, rows):
        return Norms(Tensor(rows).norms())

    def maps(self, summary, step):
        norms = summary.values
        caps = self.weighted_caps(norms, np.broadcast_to(1.0 / np.asarray(step, dtype=float), norms.shape))
        return tuple(CapMap(float(cap)) for cap in caps)

    def caps(self, norms, step):
        return self.weighted_caps(norms, np.full(norms.shape, 1.0 / step))

    def weighted_caps(self, norms, weights):
        """The t_k ≥ 0 that minimise β t + Σ_j w_jk/2 max(0, v_jk − t)²."""
        order = np.argsort(-norms, axis=0)
        longest_first, ordered = (np.take_along_axis(array, order, axis=0) for array in (norms, weights))
        totals = np.cumsum(ordered * longest_first, axis=0) - self.beta
        return np.maximum(np.max(totals / np.cumsum(ordered, axis=0), axis=0), 0.0)

    def conjugate(self, gradient):
        return Conjugate(0.0, self.beta / float(gradient.norms().sum(axis=0).max()))


@dataclass(frozen=True)
class ScaleMap:
    factor: float
    nbytes = 8

    def apply(self, rows, out):
        np.multiply(rows, self.factor, out=out)


class GroupLasso(Penalty):
    """β Σ_k ‖P_k‖_F: every cell type is one group. Summaries are squared norms, which add up."""

    curvature = 1.0

    def __init__(self, beta):
        self.beta = beta

    def value(self, expression):
        return self.beta * float(np.sum(np.sqrt(np.sum(expression.norms() ** 2, axis=0))))

    def summarise(self, rows):
        return np.einsum("kjd,kjd->k", rows, rows)

    def maps(self, summary, step):
        sizes = np.sqrt(summary)
        left = np.maximum(sizes - step * self.beta, 0.0)
        return tuple(
            ScaleMap(float(f)) for f in np.divide(left, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        )

    def conjugate(self, gradient):
        return Conjugate(0.0, self.beta / float(np.sqrt(np.sum(gradient.norms() ** 2, axis=0)).max()))


class Ridge(Penalty):
    """β/2 Σ_k ‖P_k‖_F². Its operator needs to know nothing of the samples."""

    curvature = 1.0

    def __init__(self, beta):
        self.beta = beta

    def value(self, expression):
        return 0.5 * self.beta * float(np.sum(expression.norms() ** 2))

    def summarise(self, rows):
        return np.zeros(len(rows))

    def maps(self, summary, step):
        factors = 1.0 / (1.0 + np.broadcast_to(step, len(summary)) * self.beta)
        return tuple(ScaleMap(float(factor)) for factor in factors)

    def conjugate(self, gradient):
        return Conjugate(float(np.sum(gradient.norms() ** 2)) / (2.0 * self.beta), np.inf)
