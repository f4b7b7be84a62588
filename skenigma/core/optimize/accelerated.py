"""Accelerated proximal gradient for penalties of the norms of samples, with a certificate of optimality.

Minimises, over the expression P (samples × cell types × dimensions),

    F(P) = c/2 · [ α Σ_j ‖x_j − Σ_k θ_jk p_jk‖² + (1−α) Σ_k ‖mean_j(p_jk) − r_k‖² ] + penalty(norms of the p_jk)

**Metric.** A step of length 1/L is as short as the purest sample demands, in all samples and cell types. Here every
sample takes its own step 1/w_jk in every cell type, with

    w_jk = c [ α θ_jk Σ_i θ_ji + (1−α)/n ].

By the Cauchy-Schwarz inequality θ_j θ_jᵀ ≤ diag(θ_jk Σ_i θ_ji), so that w bounds the Hessian of the smooth part as L
does; the bound is met with equality by moving all of them alike. The proximal operator stays exact: whatever the
weights, the row that is nearest to v_jk with norm at most t is v_jk cut to t, and the penalty's ``weighted_caps``
finds the best t.

**Start.** Where a step from P = 0 leads, a mixture of the sample and the reference: the gradient at 0 needs no
evaluation, and it points to where strong penalties end, as the bulk itself does not. Where the iteration starts makes
no difference to the minimum, and with β > 0 there is one minimiser unless e_j and mean_k − r_k are parallel.

**Momentum.** Each step starts at y = p + ω (p − p_before), see :mod:`skenigma.core.optimize.momentum`.

**Certificate.** The gradients u_j = cα e_j and y_k = c(1−α)(mean_k − r_k) at any expression bound F from below by
Fenchel duality, as for the splitting algorithms (:mod:`skenigma.core.optimize.splitting`). The iteration ends when
F(P) minus the largest bound, over all iterations so far, is at most epsilon · F(P).

Momentum, step and metric of a row need nothing but the row and a few numbers per cohort, so samples never seen are
moved as those of the cohort were.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..blocks import row_products
from . import passes
from .frame import Frame
from .mixture import Expression, reconstruction_gradient_norm, reference_gradient_norm
from .momentum import Momentum
from .penalties import Norms, Terms, loss_record
from .rows import LEAST_WEIGHT
from .solvers import FramedMap, Recorded, Solution, replay_by_blocks
from .start import Start
from .states import FramedState
from .stopping import Certificate, Progress


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

    def pull(self, proportions):
        """Factor of the residual in the gradient of every row, shape (n_samples, n_cell_types)."""
        return self.reconstruction_weight * proportions

    def weights(self, proportions):
        """Weight of every row, shape (n_samples, n_cell_types)."""
        return self.pull(proportions) * proportions.sum(axis=1, keepdims=True) + self.reference_weight


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
class Step:
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
    Step
    """
    theta = samples.proportions
    squares, gradients, residual = passes.fastest().step_beyond(
        *pair.position,
        theta,
        momentum,
        metric.pull(theta),
        metric.weights(theta),
        np.pad(shift, ((0, 0), (1, 0))),  # what is a sample's own is not shifted
    )
    return Step(np.sqrt(squares), np.sqrt(gradients), residual)


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
class AcceleratedTrajectory:
    """The cohort-level quantities of every applied update: all that other samples need to repeat them.

    Attributes
    ----------
    vectors : ndarray of shape (n_directions, n_dimensions)
        Orthonormal directions along which all samples move.
    metric : Metric
    momenta : ndarray of shape (n_updates,)
        How far beyond the current expression the update started.
    shifts : ndarray of shape (n_updates, n_cell_types, n_directions)
        Gradient of the reference term.
    caps : ndarray of shape (n_updates, n_cell_types)
        Largest norm left by the proximal operator.
    start : Start
        Its profiles as coordinates along the directions.
    """

    vectors: np.ndarray
    metric: Metric
    momenta: np.ndarray
    shifts: np.ndarray
    caps: np.ndarray
    start: Start

    def replay(self, samples):
        """Expression of ``samples``, each moved exactly as the fitted cohort was."""
        return replay_by_blocks(samples, self._replay_block)

    def _replay_block(self, samples):
        pair = Pair(samples, self.start)
        for momentum, shift, caps in zip(self.momenta, self.shifts, self.caps, strict=True):
            step = take_step(samples, pair, momentum, self.metric, shift)
            pair.cut(passes.cut_factors(step.norms, caps))
            pair.swap()
        return pair.release()


@dataclass
class Update:
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
        self.pair = Pair(self.frame.samples, self.frame.start)
        self.frame.hold(self.pair.expression)
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
        return np.sqrt(squares or np.vdot(self.problem.bulk, self.problem.bulk) / len(self.norms))

    def _step(self, momentum, shift):
        """Propose, as the other expression of the pair, a gradient step.

        Returns
        -------
        step : Step
        caps : ndarray of shape (n_cell_types,)
        factors : ndarray of shape (n_samples, n_cell_types)
            Of the cut that it still needs.
        """
        step = take_step(self.frame.samples, self.pair, momentum, self.metric, shift)
        caps = self.problem.penalty.weighted_caps(step.norms, self.weights)
        return step, caps, passes.cut_factors(step.norms, caps)

    def evaluate(self):
        """Make the next :class:`Update`, without applying it."""
        typical_norm = self._typical_norm()
        self.frame.reduce(typical_norm)
        offset, target = self._offsets(typical_norm)
        shift = self._reference_weight * target
        step, caps, factors = self._step(self.momentum.value, shift)
        squares = row_products(step.residual, step.residual)
        samples = self.frame.samples
        change = cut_and_compare(samples, self.pair, step, factors)
        terms = self._terms(offset, change.at_rest.sum())
        return Update(
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
        mean, outside = self.frame.mean()
        n_directions = len(self.frame.vectors)
        reach = self._reference_weight / self.metric.reference_weight
        if outside is not None:
            outside = self.pair.extrapolate(outside, 0, self.momentum.value)
        self.frame.widen(self.frame.outside(outside), reach, typical_norm)
        if len(self.frame.vectors) > n_directions:
            mean = self.frame.mean()[0]
        self.pair.expression = self.frame.expression
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
        along = alpha * np.vdot(step.residual, self.frame.samples.rows)
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
        half = self.frame.expression  # the update not applied must not claim directions
        half.rows[:, self.pair.other] = half.rows[:, self.pair.current]
        self.frame.reduce(self._typical_norm(), always=True)
        self.pair.expression = self.frame.expression
        shape = (-1, self.norms.shape[1])
        trajectory = AcceleratedTrajectory(
            self.frame.vectors,
            self.metric,
            np.array(self.momenta),
            self.frame.shifts(),
            np.reshape(self.caps, shape),
            self.frame.start,
        )
        return self.frame.samples, self.pair.release(), trajectory


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def accelerated_gradient(problem, settings, monitor):
    """Minimise the objective of a penalty of norms to a certified accuracy.

    Parameters
    ----------
    problem : skenigma.core.optimize.problem.Problem
        Its penalty has ``weighted_caps`` and ``conjugate``.
    settings : skenigma.core.optimize.solvers.Settings
        ``epsilon`` is the accuracy: the iteration ends when F exceeds its minimum by at most this share of F,
        as the duality gap proves. It has no units. With β = 0 the minimum may be 0, and the share is that of
        F without any expression, α Σ_j ‖x_j‖² + (1−α) Σ_k ‖r_k‖². ``parameter`` is not used: the steps follow from
        the proportions.
    monitor : callable
        Called with the delta row after each evaluation; a true answer ends the iteration.

    Returns
    -------
    descent : Descent
        With the expression that went into the last evaluation as its current one.
    progress : Progress
    losses : list of ndarray of shape (3,)

    Raises
    ------
    ValueError
        If ``settings`` ask for rescaled gradients, which are those of no objective.
    FloatingPointError
        If the change becomes infinite.
    """
    if settings.renorm_size is not None:
        raise ValueError("solver='accelerated' minimises the objective as it is: renorm_size must be None")
    descent = Descent(problem)
    certificate = Certificate(settings.epsilon, problem.value_of_nothing())
    size = problem.proportions.shape[1] * np.vdot(problem.bulk, problem.bulk)
    progress = Progress(0.0, settings.max_iter, size, monitor)  # 0: the length of the change decides nothing
    losses = []
    while True:
        update = descent.evaluate()
        losses.append(update.loss)
        ended = progress.ends(update.delta)
        progress.converged = bool(certificate.gap(update.value, update.bound) <= 1.0)
        if ended or progress.converged:
            return descent, progress, losses
        descent.apply(update)


def solve_accelerated(problem, basis, settings, monitor):
    """Run :func:`accelerated_gradient`, and take its result to genes.

    Parameters
    ----------
    problem : skenigma.core.optimize.problem.Problem
    basis : skenigma.core.optimize.basis.SpanBasis
    settings : skenigma.core.optimize.solvers.Settings
    monitor : callable

    Returns
    -------
    Solution

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.optimize.accelerated import solve_accelerated
    >>> from skenigma.core.optimize.basis import SpanBasis
    >>> from skenigma.core.optimize.penalties import MaxL2Norm
    >>> from skenigma.core.optimize.solvers import Settings
    >>> from skenigma.core.optimize.problem import Problem
    >>> rng = np.random.default_rng(0)
    >>> proportions, reference = rng.dirichlet(np.ones(2), 6), rng.random((2, 8))
    >>> bulk = proportions @ reference
    >>> basis = SpanBasis(bulk, reference)
    >>> problem = Problem(basis.bulk, basis.reference, proportions, 0.5, MaxL2Norm(1.0))
    >>> settings = Settings(parameter=1.0, epsilon=1e-8, max_iter=500)
    >>> solution = solve_accelerated(problem, basis, settings, lambda delta: False)
    >>> solution.converged, solution.state(bulk).expand().shape
    (True, (6, 2, 8))
    """
    descent, progress, losses = accelerated_gradient(problem, settings, monitor)
    samples, expression, found = descent.finish()
    vectors = cache(lambda: basis.to_genes(found.vectors))
    return Solution(
        state=lambda bulk: FramedState(bulk, samples, expression, vectors()),
        fitted_map=lambda: FramedMap(replace(found, vectors=vectors())),
        losses=Recorded(losses),
        delta=progress.delta,
        converged=progress.converged,
        gradient_norm=np.reshape(descent.gradient_norms, (-1, 2)),
    )
