"""The current expression, the one before and a step from beyond, of :mod:`skenigma.core.optimize.accelerated`."""

from dataclasses import dataclass

import numpy as np

from . import passes
from .mixture import Expression
from .rows import LEAST_WEIGHT
from .trajectory import Trajectory


@dataclass(frozen=True)
class Metric:
    """Curvature bound of the smooth part, for any sample.

    Attributes
    ----------
    reconstruction_weight : float
        c α, with the curvature c of the data terms.
    reference_weight : float
        Part of every row's weight that bounds the reference term.
    """

    reconstruction_weight: float
    reference_weight: float

    @classmethod
    def of(cls, problem):
        """The metric of a cohort."""
        curvature, alpha = problem.penalty.curvature, problem.alpha
        return cls(curvature * alpha, max(curvature * (1.0 - alpha) / len(problem.bulk), LEAST_WEIGHT))

    def gradient_factors(self, proportions):
        """Factor of the residual in the gradient of every row, shape (n_samples, n_cell_types)."""
        return self.reconstruction_weight * proportions

    def weights(self, proportions):
        """Weight of every row, shape (n_samples, n_cell_types)."""
        return (
            self.gradient_factors(proportions) * proportions.sum(axis=1, keepdims=True)
            + self.reference_weight
        )


class Pair:
    """Two expressions of the same samples, the current one and that before it, stored as one.

    The frame in which they live takes them for an expression of twice as many cell types, and so turns and widens
    both alike.

    Parameters
    ----------
    samples : Samples
    start : Start
        Where both start.

    Attributes
    ----------
    expression : Expression
        Rows of both, and the sample itself after them. May be replaced by one in another frame.
    """

    def __init__(self, samples, start):
        n_samples, n_cell_types = samples.proportions.shape
        rows = np.empty((n_samples, 2 * n_cell_types + 1, samples.rows.shape[1]))
        rows[:, n_cell_types:] = samples.start(start).rows
        rows[:, :n_cell_types] = rows[:, n_cell_types:-1]
        self.expression = Expression(rows)
        self._n_cell_types, self._first_is_current = n_cell_types, True

    @property
    def current(self):
        """Positions of the current expression among the rows of a sample."""
        return self._half(self._first_is_current)

    @property
    def other(self):
        """Positions of the expression before it, which the next step replaces."""
        return self._half(not self._first_is_current)

    def _half(self, first):
        return slice(0, self._n_cell_types) if first else slice(self._n_cell_types, 2 * self._n_cell_types)

    @property
    def position(self):
        """Rows of both, and where among those of a sample the current expression and the other one begin."""
        return self.expression.rows, self.current.start, self.other.start

    def cut(self, factors):
        """Scale the other expression by ``factors`` (n_samples, n_cell_types)."""
        self.expression.rows[:, self.other] *= factors[:, :, None]

    def swap(self):
        """Make the other expression the current one."""
        self._first_is_current = not self._first_is_current

    def extrapolate(self, values, axis, momentum):
        """Current plus ``momentum`` times its change, of anything with an entry per row along ``axis``."""
        current, other = (values[(slice(None),) * axis + (half,)] for half in (self.current, self.other))
        return current + momentum * (current - other)

    def release(self):
        """The current expression by itself."""
        return Expression(self.expression.rows[:, np.r_[self.current, -1]])


@dataclass
class MomentumStep:
    """What a gradient step met on its way.

    Attributes
    ----------
    norms : ndarray of shape (n_samples, n_cell_types)
        Norms of the rows where it ended.
    gradients : ndarray of shape (n_samples, n_cell_types)
        Norms of the rows of the gradient where it started.
    residual : ndarray of shape (n_samples, 1 + n_directions)
        Residual e_j where it started.
    """

    norms: np.ndarray
    gradients: np.ndarray
    residual: np.ndarray


def take_step(samples, pair, momentum, metric, shift):
    """Replace the other expression of ``pair`` by a gradient step from beyond the current one.

    Parameters
    ----------
    samples : Samples
    pair : Pair
        Its other expression is written.
    momentum : float
        How far beyond.
    metric : Metric
    shift : ndarray of shape (n_cell_types, n_directions)
        Gradient of the reference term, the same for every sample.

    Returns
    -------
    MomentumStep
    """
    theta = samples.proportions
    squares, gradients, residual = passes.fastest().step_beyond(
        *pair.position,
        theta,
        momentum,
        metric.gradient_factors(theta),
        metric.weights(theta),
        np.pad(shift, ((0, 0), (1, 0))),  # what is a sample's own is not shifted
    )
    return MomentumStep(np.sqrt(squares), np.sqrt(gradients), residual)


@dataclass
class Change:
    """How the other expression of a pair differs from the current one.

    Attributes
    ----------
    squared : ndarray of shape (n_samples, n_cell_types)
        Squared length of the difference.
    radial : ndarray of shape (n_samples, n_cell_types)
        Its inner product with the other expression.
    mixed : float
        That of its mixture with the residual.
    shared : ndarray of shape (n_cell_types, n_directions)
        Its sum over samples, along the directions.
    at_rest : ndarray of shape (n_samples,)
        Squared norms of the residuals of the current expression.
    """

    squared: np.ndarray
    radial: np.ndarray
    mixed: float
    shared: np.ndarray
    at_rest: np.ndarray


def cut_and_compare(samples, pair, step, factors):
    """Scale where ``step`` ended by ``factors`` (n_samples, n_cell_types); returns the :class:`Change`."""
    squared, radial, mixed, shared, at_rest = passes.fastest().cut_and_compare(
        *pair.position, samples.proportions, factors, step.residual
    )
    return Change(squared, radial, mixed, shared[:, 1:], at_rest)


@dataclass
class AcceleratedTrajectory(Trajectory):
    """That of :mod:`skenigma.core.optimize.accelerated`; its shifts are gradients of the reference term.

    Attributes
    ----------
    metric : Metric
    momenta : ndarray of shape (n_updates,)
        How far beyond the current expression the update started.
    """

    metric: Metric
    momenta: np.ndarray

    def _replay_block(self, samples):
        pair = Pair(samples, self.start)
        for momentum, shift, caps in zip(self.momenta, self.shifts, self.caps, strict=True):
            step = take_step(samples, pair, momentum, self.metric, shift)
            pair.cut(passes.cut_factors(step.norms, caps))
            pair.swap()
        return pair.release()
