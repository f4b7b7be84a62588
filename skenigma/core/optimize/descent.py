"""The iteration of a cohort, of :mod:`skenigma.core.optimize.accelerated`."""

from dataclasses import dataclass

import numpy as np

from ..blocks import row_products
from . import passes
from .frame import Frame
from .mixture import reconstruction_gradient_norm, reference_gradient_norm
from .momentum import Momentum
from .pair import AcceleratedTrajectory, Metric, Pair, cut_and_compare, take_step
from .penalties import Norms, Terms, loss_record
from .start import Start


@dataclass
class Evaluation:
    """One evaluation: what is recorded of it, and what applying it takes.

    Attributes
    ----------
    value : float
        Objective F of the current expression.
    loss : ndarray of shape (3,)
        Its loss row, as the published solver records it.
    bound : float or None
        What the gradient where the step started proves of F, see :class:`~skenigma.core.optimize.problem.Problem`.
    delta : ndarray of shape (n_cell_types,)
        Squared change per cell type.
    gradient_norm : tuple of float
        Norms of the gradients of both smooth terms, where the step started.
    shift : ndarray of shape (n_cell_types, n_directions)
        Gradient of the reference term.
    caps : ndarray of shape (n_cell_types,)
    norms : ndarray of shape (n_samples, n_cell_types)
        Norms of the proposed expression.
    length : float
        Length of the change in the metric.
    uphill : bool
        Whether the change goes against the step.
    """

    value: float
    loss: np.ndarray
    bound: float | None
    delta: np.ndarray
    gradient_norm: tuple
    shift: np.ndarray
    caps: np.ndarray
    norms: np.ndarray
    length: float
    uphill: bool


class Descent:
    """The iteration on one cohort: it determines the quantities that its rows, and any others, then follow.

    Parameters
    ----------
    problem : skenigma.core.optimize.problem.Problem
        Its penalty has ``weighted_caps`` and ``conjugate``.
    """

    def __init__(self, problem):
        self.problem = problem
        self.metric = Metric.of(problem)
        self.momentum = Momentum()
        start = problem.start or Start(0.0)
        self.frame = Frame(problem.bulk, problem.reference, problem.proportions, start)
        self.pair = Pair(self.frame.part.samples, self.frame.start)
        self.frame.part.hold(self.pair.expression)
        self.norms = self.pair.release().norms()
        self.weights = self.metric.weights(problem.proportions)
        self.momenta, self.caps, self.gradient_norms = [], [], []
        if problem.start is None:
            self._leave_zero()

    def _leave_zero(self):
        """Take a step from P = 0, where the gradient needs no evaluation."""
        shift = -self._reference_weight * self.frame.reference
        step, caps, factors = self._step(0.0, shift)
        self.pair.cut(factors)
        norms = np.minimum(step.norms, caps)
        self._accept(shift, caps, norms, length=np.sqrt(np.vdot(self.weights, norms**2)), uphill=False)

    @property
    def _reference_weight(self):
        """Factor of mean minus reference in the gradient."""
        return self.problem.penalty.curvature * (1.0 - self.problem.alpha) / self.frame.n_samples

    def _typical_norm(self):
        squares = np.mean(self.norms**2)  # at zero, the samples give the scale to which rounding is compared
        return np.sqrt(squares or self.frame.part.bulk.total / len(self.norms))

    def _step(self, momentum, shift):
        """Propose, as the other expression of the pair, a gradient step.

        Returns
        -------
        step : MomentumStep
        caps : ndarray of shape (n_cell_types,)
        factors : ndarray of shape (n_samples, n_cell_types)
            Of the cut that it still needs.
        """
        step = take_step(self.frame.part.samples, self.pair, momentum, self.metric, shift)
        caps = self.problem.penalty.weighted_caps(step.norms, self.weights)
        return step, caps, passes.cut_factors(step.norms, caps)

    def evaluate(self):
        """Make the next :class:`Evaluation`, without applying it."""
        typical_norm = self._typical_norm()
        self.frame.reduce(typical_norm)
        offset, target = self._offsets(typical_norm)
        shift = self._reference_weight * target
        step, caps, factors = self._step(self.momentum.value, shift)
        squares = row_products(step.residual, step.residual)
        samples = self.frame.part.samples
        change = cut_and_compare(samples, self.pair, step, factors)
        terms = self._terms(offset, change.at_rest.sum())
        return Evaluation(
            value=self._value(terms),
            loss=loss_record(self.problem.penalty, terms, self.problem.alpha),
            bound=self._bound(step, target, squares.sum()),
            delta=change.squared.sum(axis=0),
            gradient_norm=(
                reconstruction_gradient_norm(samples, squares),
                reference_gradient_norm(np.linalg.norm(target), self.frame.n_samples),
            ),
            shift=shift,
            caps=caps,
            norms=np.minimum(step.norms, caps),
            length=np.sqrt(np.vdot(self.weights, change.squared)),
            uphill=self._ascent(change, factors, shift) > 0,
        )

    def _offsets(self, typical_norm):
        """Mean minus reference, of the current expression and where the step starts.

        Lets what they hold beyond the frame join it, so that nothing worth counting is left there.
        """
        mean, outside = self.frame.part.mean(), self.frame.part.mean_scale()
        n_directions = len(self.frame.vectors)
        reach = self._reference_weight / self.metric.reference_weight
        if outside is not None:
            outside = self.pair.extrapolate(outside, 0, self.momentum.value)
        self.frame.widen(self.frame.outside(outside), reach, typical_norm)
        if len(self.frame.vectors) > n_directions:
            mean = self.frame.part.mean()
        self.pair.expression = self.frame.part.expression
        start = self.pair.extrapolate(mean, 0, self.momentum.value)
        current, reference = self.pair.current, self.frame.reference
        return mean[current] - reference, start - reference

    def _terms(self, offset, residual):
        """What the loss row of the current expression is made of."""
        offset_square = np.vdot(offset, offset)
        # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖m_k‖² − ‖mean_k‖²), and beyond the frame the last two are equal
        mean = offset + self.frame.reference
        distance = np.sum(self.norms**2) + self.frame.n_samples * np.sum((offset - mean) * (offset + mean))
        return Terms(residual, offset_square, distance, Norms(self.norms))

    def _value(self, terms):
        """Objective of the current expression."""
        alpha, penalty = self.problem.alpha, self.problem.penalty
        smooth = alpha * terms.residual + (1.0 - alpha) * terms.offset
        return float(0.5 * penalty.curvature * smooth + penalty.value(terms.expression))

    def _bound(self, step, offset, squared_residual):
        """Lower bound of the objective that the gradient of ``step`` proves."""
        alpha, penalty = self.problem.alpha, self.problem.penalty
        squares = alpha * squared_residual + (1.0 - alpha) * np.vdot(offset, offset)
        along = alpha * np.vdot(step.residual, self.frame.part.samples.rows)
        along += (1.0 - alpha) * np.vdot(offset, self.frame.reference)
        conjugate = penalty.conjugate(Norms(step.gradients))
        return conjugate.bound(0.5 * penalty.curvature * squares, penalty.curvature * along)

    def _ascent(self, change, factors, shift):
        """Inner product of the change with the step taken: positive uphill.

        The step, in the metric, is the gradient where it started plus the pull w (1/factor − 1) p of the cut.
        """
        pull = self.weights * (1.0 / factors - 1.0)
        gradient = self.metric.reconstruction_weight * change.mixed + np.vdot(shift, change.shared)
        return np.vdot(pull, change.radial) + gradient

    def apply(self, update):
        """Make the proposal of ``update``, the last one evaluated, the current expression."""
        self.gradient_norms.append(update.gradient_norm)
        self._accept(update.shift, update.caps, update.norms, update.length, update.uphill)

    def _accept(self, shift, caps, norms, length, uphill):
        """Make what was proposed the current expression, and record what it takes to repeat that."""
        self.momenta.append(self.momentum.value)
        self.caps.append(caps)
        self.frame.record(shift)
        self.norms = norms
        self.momentum.update(length, uphill)
        self.pair.swap()

    def finish(self):
        """Reduce the frame to what the current expression needs.

        Returns
        -------
        samples : Samples
        expression : Expression
        trajectory : AcceleratedTrajectory
        """
        half = self.frame.part.expression  # the update not applied must not claim directions
        half.rows[:, self.pair.other] = half.rows[:, self.pair.current]
        self.frame.reduce(self._typical_norm(), always=True)
        self.pair.expression = self.frame.part.expression
        shape = (-1, self.norms.shape[1])
        trajectory = AcceleratedTrajectory(
            self.frame.vectors,
            self.frame.shifts(),
            np.reshape(self.caps, shape),
            self.frame.start,
            self.metric,
            np.array(self.momenta),
        )
        return self.frame.part.samples, self.pair.release(), trajectory
