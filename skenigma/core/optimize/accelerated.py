"""Accelerated proximal gradient for the maximum-L2-norm model, with a certificate of optimality.

Minimises, over the expression P (samples × cell types × dimensions),

    F(P) = α Σ_j ‖x_j − Σ_k θ_jk p_jk‖² + (1−α) Σ_k ‖mean_j(p_jk) − r_k‖² + β/2 Σ_k max_j ‖p_jk‖²

**Metric.** A step of length 1/L is as short as the purest sample demands, in all samples and cell types. Here every
sample takes its own step 1/w_jk in every cell type, with

    w_jk = 2α θ_jk Σ_i θ_ji + 2(1−α)/n.

By the Cauchy-Schwarz inequality θ_j θ_jᵀ ≤ diag(θ_jk Σ_i θ_ji), so that w bounds the Hessian of the smooth part as L
does; the bound is met with equality by moving all of them alike. The proximal operator stays exact: whatever the
weights, the row that is nearest to v_jk with norm at most t is v_jk cut to t, and the best t solves
β t = Σ_j w_jk max(0, ‖v_jk‖ − t); see :func:`weighted_caps`.

**Start.** Where a step from P = 0 leads, a mixture of the sample and the reference: the gradient at 0 needs no
evaluation, and it points to where strong penalties end, as the bulk itself does not. Where the iteration starts makes
no difference to the minimum, and with β > 0 there is one minimiser unless e_j and mean_k − r_k are parallel.

**Momentum.** Each step starts at y = p + ω (p − p_before). ω follows Nesterov's sequence as in FISTA [1]_, restarts
where the step leads uphill, the gradient scheme of [2]_, and never exceeds the square of the ratio by which the last
step was shorter than the one before: where plain steps converge within a few iterations, momentum would overshoot.

**Certificate.** The gradients u_j = 2α e_j and y_k = 2(1−α)(mean_k − r_k) at any expression bound F from below by
Fenchel duality, with g_jk = θ_jk u_j + y_k/n:

    D(u, y) = −Σ_j (‖u_j‖²/(4α) + u_jᵀx_j) − Σ_k (‖y_k‖²/(4(1−α)) + y_kᵀr_k) − Σ_k (Σ_j ‖g_jk‖)²/(2β) ≤ min F.

The iteration ends when F(P) − max D, over all iterations so far, is at most epsilon · F(P).

Momentum, step and metric of a row need nothing but the row and a few numbers per cohort, so samples never seen are
moved as those of the cohort were.

References
----------
.. [1] A. Beck and M. Teboulle (2009). A fast iterative shrinkage-thresholding algorithm for linear inverse problems.
   SIAM Journal on Imaging Sciences 2(1), 183-202.
.. [2] B. O'Donoghue and E. Candès (2015). Adaptive restart for accelerated gradient schemes. Foundations of
   Computational Mathematics 15, 715-732.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..blocks import row_products
from . import passes
from .frame import Cohort
from .mixture import Expression, reconstruction_gradient_norm, reference_gradient_norm
from .solvers import FramedMap, Solution, replay_by_blocks
from .states import FramedState
from .stopping import Progress

# Least weight of a row, proportions being of size 1: without it, α = 1 would leave cell types that a sample does
# not contain without a finite step.
LEAST_WEIGHT = 1e-8


def weighted_caps(norms, weights, beta):
    """Largest norm that the proximal operator of β/2 · max² leaves, per cell type, in a metric with row weights.

    Parameters
    ----------
    norms : ndarray of shape (n_samples, n_cell_types)
        Norm v_jk of every sample in every cell type.
    weights : ndarray of shape (n_samples, n_cell_types)
        Weight w_jk > 0 of its squared distance.
    beta : float
        Weight β of the penalty, at least 0.

    Returns
    -------
    caps : ndarray of shape (n_cell_types,)
        The t_k that minimise β/2 t² + Σ_j w_jk/2 max(0, v_jk − t)².

    Notes
    -----
    With equal weights 1/τ these are the caps of the original R function ``cell_deconvolve`` ("squash").

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.optimize.accelerated import weighted_caps
    >>> weighted_caps(np.array([[3.0], [1.0]]), np.array([[2.0], [1.0]]), 1.0)
    array([2.])
    """
    order = np.argsort(-norms, axis=0)
    longest_first = np.take_along_axis(norms, order, axis=0)
    ordered_weights = np.take_along_axis(weights, order, axis=0)
    totals = np.cumsum(ordered_weights * longest_first, axis=0)
    # whichever rows are cut, their balance β t = Σ w (v − t) gives no more than the right ones do
    return np.max(totals / (np.cumsum(ordered_weights, axis=0) + beta), axis=0)


@dataclass(frozen=True)
class Metric:
    """Curvature bound of the smooth part, for any sample.

    Attributes
    ----------
    alpha : float
        Weight of the reconstruction.
    reference_weight : float
        Part of every row's weight that bounds the reference term.
    """

    alpha: float
    reference_weight: float

    @classmethod
    def of(cls, problem):
        """The metric of a cohort."""
        return cls(problem.alpha, max(2.0 * (1.0 - problem.alpha) / len(problem.bulk), LEAST_WEIGHT))

    def pull(self, proportions):
        """Factor of the residual in the gradient of every row, shape (n_samples, n_cell_types)."""
        return 2.0 * self.alpha * proportions

    def weights(self, proportions):
        """Weight of every row, shape (n_samples, n_cell_types)."""
        return self.pull(proportions) * proportions.sum(axis=1, keepdims=True) + self.reference_weight


class Momentum:
    """How far each step starts beyond the current expression.

    Attributes
    ----------
    value : float
        Factor ω of the last change.
    """

    def __init__(self):
        self.value = 0.0
        self._age, self._length = 1.0, 0.0

    def update(self, length, uphill):
        """Set the value for the next step.

        Parameters
        ----------
        length : float
            Length of the last change.
        uphill : bool
            Whether the change went against the step: momentum then starts anew.
        """
        contraction = min(1.0, length / self._length) if self._length > 0 else 0.0
        self._length = length
        self._age = 1.0 if uphill else _older(self._age)
        self.value = min((self._age - 1.0) / _older(self._age), contraction**2)


def _older(age):
    """Next term of Nesterov's sequence."""
    return 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * age**2))


class Pair:
    """Two expressions of the same samples, the current one and that before it, stored as one.

    The frame in which they live takes them for an expression of twice as many cell types, and so turns and widens
    both alike.

    Parameters
    ----------
    samples : Samples

    Attributes
    ----------
    expression : Expression
        Rows of both, and the sample itself after them. May be replaced by one in another frame.
    """

    def __init__(self, samples):
        n_samples, n_cell_types = samples.proportions.shape
        rows = np.zeros((n_samples, 2 * n_cell_types + 1, samples.rows.shape[1]))
        rows[:, -1] = samples.rows
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
    def whereabouts(self):
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
    squares, gradients, residual = passes.fastest().leap(
        *pair.whereabouts,
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
    squared, radial, mixed, shared, at_rest = passes.fastest().land(
        *pair.whereabouts, samples.proportions, factors, step.residual
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
    """

    vectors: np.ndarray
    metric: Metric
    momenta: np.ndarray
    shifts: np.ndarray
    caps: np.ndarray

    def replay(self, samples):
        """Expression of ``samples``, each moved exactly as the fitted cohort was."""
        return replay_by_blocks(samples, self._replay_block)

    def _replay_block(self, samples):
        pair = Pair(samples)
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
    loss : ndarray of shape (3,)
        Loss row of the current expression, as the published solver records it.
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

    loss: np.ndarray
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
    problem : skenigma.core.optimize.splitting.Problem
        With the maximum-L2-norm penalty.

    Attributes
    ----------
    lower_bound : float
        Largest lower bound of the objective so far.
    value : float
        Objective F of the current expression.
    """

    def __init__(self, problem):
        self.problem = problem
        self.metric = Metric.of(problem)
        self.momentum = Momentum()
        self.cohort = Cohort(problem.bulk, problem.reference, problem.proportions)
        self.pair = Pair(self.cohort.samples)
        self.cohort.hold(self.pair.expression)
        self.norms = np.zeros(problem.proportions.shape)
        self.weights = self.metric.weights(problem.proportions)
        self.momenta, self.caps, self.gradient_norms = [], [], []
        self.lower_bound = 0.0
        bulk, reference, alpha = problem.bulk, problem.reference, problem.alpha
        self._value_of_nothing = alpha * np.vdot(bulk, bulk) + (1.0 - alpha) * np.vdot(reference, reference)
        self._start()

    def _start(self):
        """Take a step from P = 0."""
        shift = -self._reference_weight * self.cohort.reference
        step, caps, factors = self._step(0.0, shift)
        self.pair.cut(factors)
        norms = np.minimum(step.norms, caps)
        self._accept(shift, caps, norms, length=np.sqrt(np.vdot(self.weights, norms**2)), uphill=False)

    @property
    def _reference_weight(self):
        """Factor of mean minus reference in the gradient."""
        return 2.0 * (1.0 - self.problem.alpha) / self.cohort.n_samples

    def _step(self, momentum, shift):
        """Propose, as the other expression of the pair, a gradient step.

        Returns
        -------
        step : Step
        caps : ndarray of shape (n_cell_types,)
        factors : ndarray of shape (n_samples, n_cell_types)
            Of the cut that it still needs.
        """
        step = take_step(self.cohort.samples, self.pair, momentum, self.metric, shift)
        caps = weighted_caps(step.norms, self.weights, self.problem.penalty.beta)
        return step, caps, passes.cut_factors(step.norms, caps)

    def evaluate(self):
        """Make the next :class:`Update`, without applying it."""
        typical_norm = np.sqrt(np.mean(self.norms**2))
        self.cohort.reduce(typical_norm)
        offset, target = self._offsets(typical_norm)
        shift = self._reference_weight * target
        step, caps, factors = self._step(self.momentum.value, shift)
        squares = row_products(step.residual, step.residual)
        self.lower_bound = max(self.lower_bound, self._bound(step, target, squares.sum()))
        samples = self.cohort.samples
        change = cut_and_compare(samples, self.pair, step, factors)
        return Update(
            loss=self._losses(offset, change.at_rest.sum()),
            delta=change.squared.sum(axis=0),
            gradient_norm=(
                reconstruction_gradient_norm(samples, squares),
                reference_gradient_norm(np.linalg.norm(target), self.cohort.n_samples),
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
        mean, outside = self.cohort.mean()
        n_directions = len(self.cohort.vectors)
        reach = self._reference_weight / self.metric.reference_weight
        if outside is not None:
            outside = self.pair.extrapolate(outside, 0, self.momentum.value)
        self.cohort.follow(self.cohort.outside(outside), reach, typical_norm)
        if len(self.cohort.vectors) > n_directions:
            mean = self.cohort.mean()[0]
        self.pair.expression = self.cohort.expression
        start = self.pair.extrapolate(mean, 0, self.momentum.value)
        current, reference = self.pair.current, self.cohort.reference
        return mean[current] - reference, start - reference

    def _losses(self, offset, residual):
        """Loss row of the current expression; sets its objective."""
        alpha, penalty = self.problem.alpha, self.problem.penalty
        longest = np.sum(self.norms.max(axis=0) ** 2)
        self.value = alpha * residual + (1.0 - alpha) * np.vdot(offset, offset) + 0.5 * penalty.beta * longest
        # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖m_k‖² − ‖mean_k‖²), and beyond the frame the last two are equal
        mean = offset + self.cohort.reference
        distance = np.sum(self.norms**2) + self.cohort.n_samples * np.sum((offset - mean) * (offset + mean))
        return np.array([residual, distance, longest])

    def _bound(self, step, offset, squared_residual):
        """Lower bound of the objective that the gradient of ``step`` proves."""
        samples, alpha, beta = self.cohort.samples, self.problem.alpha, self.problem.penalty.beta
        if beta == 0:  # no bound but 0, unless the gradient vanishes
            return 0.0
        along = np.vdot(step.residual, samples.rows)
        bound = -alpha * (squared_residual + 2.0 * along)
        bound -= (1.0 - alpha) * np.vdot(offset, offset + 2.0 * self.cohort.reference)
        return bound - np.sum(step.gradients.sum(axis=0) ** 2) / (2.0 * beta)

    def _ascent(self, change, factors, shift):
        """Inner product of the change with the step taken: positive uphill.

        The step, in the metric, is the gradient where it started plus the pull w (1/factor − 1) p of the cut.
        """
        pull = self.weights * (1.0 / factors - 1.0)
        gradient = 2.0 * self.problem.alpha * change.mixed + np.vdot(shift, change.shared)
        return np.vdot(pull, change.radial) + gradient

    def apply(self, update):
        """Make the proposal of ``update``, the last one evaluated, the current expression."""
        self.gradient_norms.append(update.gradient_norm)
        self._accept(update.shift, update.caps, update.norms, update.length, update.uphill)

    def _accept(self, shift, caps, norms, length, uphill):
        """Make what was proposed the current expression, and record what it takes to repeat that."""
        self.momenta.append(self.momentum.value)
        self.caps.append(caps)
        self.cohort.record(shift)
        self.norms = norms
        self.momentum.update(length, uphill)
        self.pair.swap()

    def certified(self, epsilon):
        """Whether the current expression is proven to be optimal but for a share ``epsilon``."""
        share_of = self.value if self.problem.penalty.beta > 0 else self._value_of_nothing
        return bool(self.value - self.lower_bound <= epsilon * share_of)

    def finish(self):
        """Reduce the frame to what the current expression needs.

        Returns
        -------
        samples : Samples
        expression : Expression
        trajectory : AcceleratedTrajectory
        """
        half = self.cohort.expression  # the update not applied must not claim directions
        half.rows[:, self.pair.other] = half.rows[:, self.pair.current]
        self.cohort.reduce(np.sqrt(np.mean(self.norms**2)), always=True)
        self.pair.expression = self.cohort.expression
        shape = (-1, self.norms.shape[1])
        trajectory = AcceleratedTrajectory(
            self.cohort.vectors,
            self.metric,
            np.array(self.momenta),
            self.cohort.shifts(),
            np.reshape(self.caps, shape),
        )
        return self.cohort.samples, self.pair.release(), trajectory


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def accelerated_gradient(problem, settings, monitor):
    """Minimise the objective of the maximum-L2-norm model to a certified accuracy.

    Parameters
    ----------
    problem : skenigma.core.optimize.splitting.Problem
        Its penalty is :class:`skenigma.core.optimize.penalties.MaxL2Norm`.
    settings : skenigma.core.optimize.solvers.Settings
        ``epsilon`` is the accuracy: the iteration ends when F exceeds its minimum by at most this share of F,
        as the duality gap proves. It has no units. With β = 0 the minimum may be 0, and the share is that of
        F without any expression, α Σ_j ‖x_j‖² + (1−α) Σ_k ‖r_k‖². ``parameter`` is not used: the steps follow from
        the proportions.
    monitor : callable
        Called with the loss row and the delta row after each evaluation; a true answer ends the iteration.

    Returns
    -------
    descent : Descent
        With the expression that went into the last evaluation as its current one.
    progress : Progress

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
    size = problem.proportions.shape[1] * np.vdot(problem.bulk, problem.bulk)
    progress = Progress(0.0, settings.max_iter, size, monitor)  # 0: the length of the change decides nothing
    while True:
        update = descent.evaluate()
        ended = progress.ends(update.loss, update.delta)
        progress.converged = descent.certified(settings.epsilon)
        if ended or progress.converged:
            return descent, progress
        descent.apply(update)


def solve_accelerated(problem, basis, settings, monitor):
    """Run :func:`accelerated_gradient`, and take its result to genes.

    Parameters
    ----------
    problem : skenigma.core.optimize.splitting.Problem
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
    >>> from skenigma.core.optimize.splitting import Problem
    >>> rng = np.random.default_rng(0)
    >>> proportions, reference = rng.dirichlet(np.ones(2), 6), rng.random((2, 8))
    >>> bulk = proportions @ reference
    >>> basis = SpanBasis(bulk, reference)
    >>> problem = Problem(basis.bulk, basis.reference, proportions, 0.5, MaxL2Norm(1.0))
    >>> settings = Settings(parameter=1.0, epsilon=1e-8, max_iter=500)
    >>> solution = solve_accelerated(problem, basis, settings, lambda loss, delta: False)
    >>> solution.converged, solution.state(bulk).expand().shape
    (True, (6, 2, 8))
    """
    descent, progress = accelerated_gradient(problem, settings, monitor)
    samples, expression, found = descent.finish()
    vectors = cache(lambda: basis.to_genes(found.vectors))
    return Solution(
        state=lambda bulk: FramedState(bulk, samples, expression, vectors()),
        fitted_map=lambda: FramedMap(replace(found, vectors=vectors())),
        loss=progress.loss,
        delta=progress.delta,
        converged=progress.converged,
        gradient_norm=np.reshape(descent.gradient_norms, (-1, 2)),
    )
