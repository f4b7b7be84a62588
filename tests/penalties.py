"""Penalties that skenigma does not have, for the tests of its solvers."""

import importlib.util
import pathlib

import numpy as np

from skenigma.core.optimize.penalties import CapMap, Conjugate, Norms, Penalty
from skenigma.core.optimize.states import Tensor

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def extending_example():
    """The module whose code the pages "Add a penalty" and "Add a solver" show."""
    spec = importlib.util.spec_from_file_location("extending_example", DOCS / "extending_example.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = extending_example()
GroupLasso = EXAMPLE.CertifiedGroupLasso


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
        return tuple(EXAMPLE.ScaleMap(float(factor)) for factor in factors)

    def conjugate(self, gradient):
        return Conjugate(float(np.sum(gradient.norms() ** 2)) / (2.0 * self.beta), np.inf)
