"""Splitting algorithms for a quadratic model with a penalty per cell type, and their replay for unseen samples.

All minimise, over the expression P (cell types × samples × dimensions),

    F(P) = c/2 · [ α Σ_j ‖x_j − Σ_k θ_jk p_jk‖² + (1−α) Σ_k ‖mean_j(p_jk) − r_k‖² ] + penalty(P)

where the curvature c belongs to the model: 1 for the trace norm, 2 for the maximum-L2 norm.

**The alternating direction method** keeps a copy Y of P that the penalty has shrunk, and the scaled dual U:

    P ← argmin of the quadratic part + γ/2 ‖P − (Y − U)‖²
    Y ← prox of penalty/γ at P + U
    U ← P + U − Y

The minimisation is a linear system of size n·K. It is block diagonal over the samples, plus rank K through the
means, and its blocks are a multiple of the identity plus rank one. With g = γ/c, h = Y − U and the Sherman-Morrison
weights w_j = α/(g + α‖θ_j‖²), a sample for which the mean m of the new expression is known has

    q_jk = h_jk + s_k,   s = (1−α)/(g·n) · (R − m)
    p_jk = q_jk − w_j θ_jk (Σ_i θ_ji q_ji − x_j)

and averaging over the samples gives m in terms of s, hence, with p̄⁰ the mean at s = 0, N = I − (1/n) Σ_j w_j θ_j θ_jᵀ
and κ = (1−α)/(g·n),

    s = κ (I + κN)⁻¹ (R − p̄⁰).

Each iteration costs O(n·K·d) and the proximal operator.

**Accelerated proximal gradient** (FISTA with restart) takes, in every cell type, a step of its own length 1/w_k with

    w_k = c · [ α s max_j θ_jk + (1−α)/n ],   s = max_j Σ_k θ_jk² / max_i θ_ik,

which bounds the Hessian of the quadratic part: θ_j θ_jᵀ ≤ diag(v) exactly if Σ_k θ_jk²/v_k ≤ 1. It starts at P = 0
rather than at the bulk, which is further from where the penalty leads. It ends when the gradient of the quadratic
part, scaled into the domain of the penalty's conjugate, proves by Fenchel duality that F is within a share epsilon of
its minimum. With u_j = cα e_j, y_k = c(1−α)(mean_k − r_k) and G_jk = θ_jk u_j + y_k/n, for any λ ≥ 0,

    min F ≥ −λ² [ c/2 (α Σ_j ‖e_j‖² + (1−α) Σ_k ‖mean_k − r_k‖²) ] − λ [ Σ_j u_jᵀx_j + Σ_k y_kᵀr_k ] − penalty*(−λG).

**Replay.** Everything by which the samples of a cohort influence one another is in these equations: the shift s (one
vector per cell type), and what the proximal operator does to a row: a cap of its length, or the linear map
v ↦ v Vᵀ diag(max(0, 1 − t/σ)) V. Given the shifts and the maps of every iteration, each row follows on its own. A row
with a part outside the span of the cohort carries it as further columns, in any orthonormal basis: shifts are zero
there, a cap scales it and thresholding drops it.

Shifts and caps are small and are kept. The maps of the trace norm are not: each holds up to n·d numbers. They are
kept as long as they fit a limit; beyond, the cohort itself (n·d numbers in all) is kept, and replay repeats its
iteration side by side with the new rows. Both give the same numbers to rounding.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from .mixture import lipschitz_constant
from .momentum import Momentum
from .penalties import Terms, apply_maps, loss_record
from .start import Start
from .states import Span, SpanState, Tensor, objective
from .stopping import Certificate, CheckSchedule, Progress

# Memory for recorded updates beyond which replay repeats the cohort's iteration instead.
RECORD_LIMIT = 128 * 2**20
# Least weight of a cell type, proportions being of size 1: without it, α = 1 would leave one that is absent from
# every sample without a finite step.
LEAST_WEIGHT = 1e-8


@dataclass(frozen=True)
class Problem:
    """One cohort and its model.

    Attributes
    ----------
    bulk : ndarray of shape (n_samples, n_dimensions)
        Samples, in any orthonormal basis of a space that holds samples and profiles.
    reference : ndarray of shape (n_cell_types, n_dimensions)
    proportions : ndarray of shape (n_samples, n_cell_types)
    alpha : float
        Weight of the reconstruction; the reference has 1 − alpha.
    penalty : object
        See :mod:`skenigma.core.optimize.penalties`.
    start : Start or None, default=None
        None is the bulk itself, or what the solver prefers.
    """

    bulk: np.ndarray
    reference: np.ndarray
    proportions: np.ndarray
    alpha: float
    penalty: object
    start: Start | None = None

    def method(self, rows, parameter=None):
        """How ``rows``, a subclass of :class:`Rows` or its name in :data:`ROWS`, move; see :class:`Method`."""
        rows = ROWS.get(rows, rows)
        parameter = rows.weights(self) if rows.has_weights else parameter
        return Method(rows, parameter, self.alpha, self.penalty.curvature, self.start or rows.usual_start)

    def residual(self, expression):
        """Reconstruction minus bulk, shape (n_samples, n_dimensions)."""
        return mixture(self.proportions, expression) - self.bulk

    def terms(self, expression):
        """What the loss record of ``expression`` (n_cell_types, n_samples, n_dimensions) is made of."""
        residual, mean = self.residual(expression), expression.mean(axis=1)
        offset = np.vdot(mean - self.reference, mean - self.reference)
        # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖mean − r‖² − ‖mean‖²)
        squares = np.einsum("kjd,kjd->", expression, expression)
        distance = squares + len(self.bulk) * (offset - np.vdot(mean, mean))
        return Terms(np.vdot(residual, residual), offset, distance, Tensor(expression))

    def objective(self, expression):
        """F of the module's docstring at ``expression`` (n_cell_types, n_samples, n_dimensions)."""
        inside = expression.swapaxes(0, 1)
        span = Span(None, self.bulk.shape[1])
        nothing = np.zeros(self.proportions.shape)
        state = SpanState(self.bulk, None, self.proportions, inside, nothing, span, self.bulk.dtype)
        return objective(state, self.reference, self.alpha, self.penalty)

    def lower_bound(self, residual, offset, gradient):
        """Largest lower bound of F that one gradient of the quadratic part proves.

        Parameters
        ----------
        residual : ndarray of shape (n_samples, n_dimensions)
            e_j at any expression.
        offset : ndarray of shape (n_cell_types, n_dimensions)
            mean_k − r_k there.
        gradient : object
            The gradient there, anything with ``norms()`` and ``grams()``.

        Returns
        -------
        bound : float or None
            None where the penalty is 0 whatever the expression, so that no gradient proves anything.
        """
        c, alpha = self.penalty.curvature, self.alpha
        squares = alpha * np.vdot(residual, residual) + (1.0 - alpha) * np.vdot(offset, offset)
        along = alpha * np.vdot(residual, self.bulk) + (1.0 - alpha) * np.vdot(offset, self.reference)
        return self.penalty.conjugate(gradient).bound(0.5 * c * squares, c * along)

    def lipschitz_constant(self):
        """Bound on the curvature of the quadratic part: c (α·max_j‖θ_j‖² + (1−α)/n)."""
        return 0.5 * self.penalty.curvature * lipschitz_constant(self.proportions, self.alpha)

    def value_of_nothing(self):
        """F at P = 0."""
        bulk, reference = np.vdot(self.bulk, self.bulk), np.vdot(self.reference, self.reference)
        return 0.5 * self.penalty.curvature * (self.alpha * bulk + (1.0 - self.alpha) * reference)


def mixture(proportions, expression):
    """Σ_k θ_jk p_jk for ``expression`` of shape (n_cell_types, n_samples, n_dimensions)."""
    mixed = proportions[:, 0, None] * expression[0]
    scratch = np.empty_like(mixed)
    for weights, rows in zip(proportions.T[1:], expression[1:], strict=True):
        mixed += np.multiply(weights[:, None], rows, out=scratch)
    return mixed


@dataclass(frozen=True)
class Update:
    """What one update takes from the cohort: with it, every row moves by itself.

    Attributes
    ----------
    shift : ndarray of shape (n_cell_types, n_dimensions)
    maps : tuple
        What the proximal operator does to a row, per cell type.
    momentum : float
        How far beyond the current expression the update starts; 0 for solvers without momentum.
    """

    shift: np.ndarray
    maps: tuple
    momentum: float = 0.0

    @property
    def nbytes(self):
        """Memory held, in bytes."""
        return self.shift.nbytes + sum(row_map.nbytes for row_map in self.maps)


class Rows:
    """Samples on their way through an iteration; each moves by itself once the shared quantities are given.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_columns)
    proportions : ndarray of shape (n_samples, n_cell_types)
    method : Method
    start : Start, optional
        In the place of the method's.

    Attributes
    ----------
    expression : ndarray of shape (n_cell_types, n_samples, n_columns)
        Every update makes a new array.
    step : float or ndarray of shape (n_cell_types,)
        Step length of the proximal operator.
    momentum : float
        How far beyond the current expression the next update starts.
    """

    # whether the step lengths follow from the proportions of the cohort, by ``weights``
    has_weights = False
    usual_start = Start()

    def __init__(self, bulk, proportions, method, start=None):
        self.bulk, self.proportions, self.alpha = bulk, proportions, method.alpha
        self.expression = (start or method.start).of(bulk, proportions.shape[1])
        self.momentum = 0.0
        self._prepare(method.curvature, method.parameter)

    def follow(self, update):
        """Make one update with given shared quantities."""
        self.momentum = update.momentum
        draft = self.draft()
        self.move(draft, update.shift)
        self.settle(draft, partial(apply_maps, update.maps))


class GradientRows(Rows):
    """Proximal gradient: P ← prox of τ·penalty at P − τ·(gradient of the quadratic part)."""

    def _prepare(self, curvature, parameter):
        self.step = parameter
        self._rate = curvature * parameter

    def draft(self):
        """Expression after the step along the gradient of the reconstruction."""
        residual = mixture(self.proportions, self.expression) - self.bulk
        return self.expression - _outer(self._rate * self.alpha * self.proportions, residual)

    def pull(self, reference, draft):
        """Shift towards the reference that the cohort as a whole calls for."""
        pull = self._rate * (1.0 - self.alpha) / len(self.bulk)
        return pull * (reference - self.expression.mean(axis=1))

    def move(self, draft, shift):
        """Add the shift, in place."""
        draft[:, :, : shift.shape[1]] += shift[:, None]

    def settle(self, draft, prox):
        """Apply the proximal operator and make the result the current expression."""
        maps = prox(draft, draft)
        self.expression = draft
        return maps


class AcceleratedRows(GradientRows):
    """The same from beyond the current expression, with a step of its own length in every cell type."""

    has_weights = True
    usual_start = Start(0.0)

    @staticmethod
    def weights(problem):
        """Weight w_k of every cell type; see the module's docstring."""
        theta = problem.proportions
        purest = np.maximum(theta.max(axis=0), LEAST_WEIGHT)
        purest *= np.max((theta**2 / purest).sum(axis=1))
        weights = problem.alpha * purest + (1.0 - problem.alpha) / len(theta)
        return problem.penalty.curvature * np.maximum(weights, LEAST_WEIGHT)

    def _prepare(self, curvature, parameter):
        self.step = 1.0 / parameter
        self._rate = curvature * self.step
        self.before = self.expression

    def draft(self):
        """Expression after the step along the gradient of the reconstruction, from beyond the current one."""
        self.origin = self.expression
        if self.momentum:
            self.origin = self.expression - self.before
            self.origin *= self.momentum
            self.origin += self.expression
        self.residual = mixture(self.proportions, self.origin) - self.bulk
        draft = _outer(-self._rate * self.alpha * self.proportions, self.residual)
        draft += self.origin
        return draft

    def pull(self, reference, draft):
        """Shift towards the reference that the cohort as a whole calls for."""
        self.offset = self.origin.mean(axis=1) - reference
        return (-self._rate * (1.0 - self.alpha) / len(self.bulk))[:, None] * self.offset

    def settle(self, draft, prox):
        """Apply the proximal operator and make the result the current expression."""
        self.before = self.expression
        return super().settle(draft, prox)


class AdmmRows(Rows):
    """Alternating direction method of multipliers with the exact solution of the quadratic part."""

    def _prepare(self, curvature, parameter):
        self.step = 1.0 / parameter
        self._gamma = parameter / curvature
        self._shrunk = self.expression.copy()
        self._dual = self.expression / self._gamma
        self._factorise()

    def _factorise(self):
        squares = np.einsum("jk,jk->j", self.proportions, self.proportions)
        weights = self.alpha / (self._gamma + self.alpha * squares)
        self._weighted = weights[:, None] * self.proportions

    def draft(self):
        """Solution of the quadratic part if the reference had no pull."""
        draft = self._shrunk - self._dual
        draft -= _outer(self._weighted, mixture(self.proportions, draft) - self.bulk)
        return draft

    def response(self):
        """Mean change of the expression per unit of shift (N of the module's docstring)."""
        return np.eye(self.proportions.shape[1]) - self._weighted.T @ self.proportions / len(self.bulk)

    def pull(self, reference, draft):
        """Shift towards the reference, such that it is consistent with the mean it leads to."""
        strength = (1.0 - self.alpha) / (self._gamma * len(self.bulk))
        system = np.eye(len(reference)) + strength * self.response()
        return strength * np.linalg.solve(system, reference - draft.mean(axis=1))

    def move(self, draft, shift):
        """Let the shift act on the solution, in place."""
        inside = draft[:, :, : shift.shape[1]]
        inside += shift[:, None]
        inside -= _outer(self._weighted, self.proportions @ shift)

    def settle(self, draft, prox):
        """Update auxiliary variable and dual, and make the draft the current expression."""
        self.expression = draft
        self._dual += draft
        maps = prox(self._dual, self._shrunk)
        self._dual -= self._shrunk
        return maps


class JacobiRows(AdmmRows):
    """The same with one system per cell type, all others held at their old expression (``admm_fast``).

    The system α diag(θ_jk²) + (1−α)/n² · 11ᵀ + γI of cell type k is diagonal plus rank one.
    """

    def _factorise(self):
        diagonal = self._gamma + self.alpha * self.proportions**2
        self._keep = self._gamma / diagonal
        self._weighted = self.alpha * self.proportions / diagonal

    def draft(self):
        """Solution per cell type if the reference had no pull."""
        residual = mixture(self.proportions, self.expression) - self.bulk
        draft = (self._weighted * self.proportions).T[:, :, None] * self.expression
        draft -= _outer(self._weighted, residual)
        draft += self._keep.T[:, :, None] * (self._shrunk - self._dual)
        return draft

    def response(self):
        """Mean change of the expression per unit of shift."""
        return np.diag(self._keep.mean(axis=0))

    def move(self, draft, shift):
        """Let the shift act on the solution, in place."""
        draft[:, :, : shift.shape[1]] += _outer_shared(self._keep, shift)


def _outer(weights, rows):
    """Rows times each column of ``weights``, shape (n_cell_types, n_samples, n_dimensions)."""
    return weights.T[:, :, None] * rows


def _outer_shared(weights, vectors):
    return weights.T[:, :, None] * vectors[:, None]


ROWS = {
    "proximal": GradientRows,
    "admm": AdmmRows,
    "admm_fast": JacobiRows,
    "accelerated": AcceleratedRows,
}


@dataclass(frozen=True)
class Method:
    """How rows move: everything but the data; made by :meth:`Problem.method`.

    Attributes
    ----------
    rows : type
        Subclass of :class:`Rows`.
    parameter : float or ndarray of shape (n_cell_types,)
        Step length τ of "proximal", γ of the ADMM solvers, both on the scale of F; the weights of "accelerated".
    alpha : float
        Weight of the reconstruction.
    curvature : float
        Factor c of the data terms.
    start : Start
    """

    rows: type
    parameter: object
    alpha: float
    curvature: float
    start: Start

    def enter(self, bulk, proportions, start=None):
        """Rows at the start of the iteration."""
        return self.rows(bulk, proportions, self, start)


class Iteration:
    """The rows of one fit: they determine the shared quantities that they then follow.

    Parameters
    ----------
    problem : Problem
    method : Method
    """

    def __init__(self, problem, method):
        self.problem = problem
        self.rows = method.enter(problem.bulk, problem.proportions)

    @property
    def expression(self):
        """Current expression, shape (n_cell_types, n_samples, n_dimensions)."""
        return self.rows.expression

    def advance(self):
        """Make one update.

        Returns
        -------
        update : Update
        delta : ndarray of shape (n_cell_types,)
            Squared change of every cell type.
        """
        before, update = self.expression, self._update()
        change = self.expression - before
        return update, np.einsum("kjd,kjd->k", change, change)

    def _update(self):
        rows, penalty = self.rows, self.problem.penalty
        draft = rows.draft()
        shift = rows.pull(self.problem.reference, draft)
        rows.move(draft, shift)
        return Update(shift, rows.settle(draft, partial(penalty.prox, rows.step)))


class AcceleratedIteration(Iteration):
    """The same with momentum."""

    def __init__(self, problem, method):
        super().__init__(problem, method)
        self._momentum = Momentum()
        self._weights = method.parameter

    def advance(self):
        """Make one update, and choose the momentum of the next."""
        rows = self.rows
        rows.momentum = self._momentum.value
        update = self._update()
        change = rows.expression - rows.before
        delta = np.einsum("kjd,kjd->k", change, change)
        # uphill: the change goes against the step, from where it started to where it ended
        ascent = self._weights @ np.einsum("kjd,kjd->k", rows.origin, change)
        ascent -= self._weights @ np.einsum("kjd,kjd->k", rows.expression, change)
        self._momentum.update(float(np.sqrt(self._weights @ delta)), bool(ascent > 0))
        return replace(update, momentum=rows.momentum), delta

    def lower_bound(self):
        """Lower bound of F from the gradient along which the last update stepped, see :class:`Problem`."""
        problem, rows = self.problem, self.rows
        curvature, n_samples = problem.penalty.curvature, len(problem.bulk)
        gradient = _outer(curvature * problem.alpha * problem.proportions, rows.residual)
        gradient += (curvature * (1.0 - problem.alpha) / n_samples * rows.offset)[:, None]
        return problem.lower_bound(rows.residual, rows.offset, Tensor(gradient))


class Record:
    """Updates of a cohort, kept until they outgrow ``limit`` bytes."""

    def __init__(self, limit):
        self._limit = limit
        self.nbytes = 0
        self.updates = []

    def append(self, update):
        """Keep one update, or let go of all."""
        if self.updates is None:
            return
        self.nbytes += update.nbytes
        if self.nbytes > self._limit:
            self.updates, self.nbytes = None, 0
        else:
            self.updates.append(update)


class Replay:
    """The fitted iteration, for rows never seen.

    Parameters
    ----------
    method : Method
    n_updates : int
        Updates that the fitted expression has gone through.
    updates : list of Update, or None
        Recorded updates; None to repeat the cohort's iteration.
    problem : Problem or None
        The cohort, needed where ``updates`` is None.
    """

    def __init__(self, method, n_updates, updates, problem):
        self.method, self.n_updates = method, n_updates
        self._updates = updates
        self._problem = problem if updates is None else None

    @property
    def nbytes(self):
        """Memory held, in bytes."""
        if self._updates is None:
            problem = self._problem
            return problem.bulk.nbytes + problem.reference.nbytes + problem.proportions.nbytes
        return sum(update.nbytes for update in self._updates)

    def updates(self):
        """Every update in turn."""
        if self._updates is not None:
            yield from self._updates
            return
        iteration = iteration_of(self._problem, self.method)
        for _ in range(self.n_updates):
            yield iteration.advance()[0]

    def __call__(self, bulk, proportions, own=None):
        """Expression of samples moved exactly as the fitted cohort was.

        Parameters
        ----------
        bulk : ndarray of shape (n_samples, n_columns)
            Coordinates of the samples: first the cohort's dimensions, then any number of columns for what lies
            outside their span, in any orthonormal basis. One column with the norm of that part is enough: the
            part itself is only ever scaled.
        proportions : ndarray of shape (n_samples, n_cell_types)
        own : ndarray of shape (n_samples, n_cell_types, n_columns), optional
            Where these samples start, if each sample of the cohort had a start of its own.

        Returns
        -------
        expression : ndarray of shape (n_samples, n_cell_types, n_columns)
        """
        rows = self.method.enter(bulk, proportions, None if own is None else Start(own=own))
        for update in self.updates():
            rows.follow(update)
        return np.ascontiguousarray(rows.expression.swapaxes(0, 1))


def iteration_of(problem, method):
    """The iteration of a problem by a method."""
    kind = AcceleratedIteration if method.rows.has_weights else Iteration
    return kind(problem, method)


class Losses:
    """Loss rows of a fit, made by repeating its iteration when they are first asked for.

    Those of the trace norm would take a quarter of the time of every fit.

    Parameters
    ----------
    problem : Problem
    replay : Replay
    """

    def __init__(self, problem, replay):
        self._problem, self._replay = problem, replay

    @cached_property
    def values(self):
        """Of every iteration, shape (n_iter, 3)."""
        problem, replay = self._problem, self._replay
        rows = replay.method.enter(problem.bulk, problem.proportions)
        found = [self._row(rows)]
        for update in replay.updates():
            rows.follow(update)
            found.append(self._row(rows))
        return np.array(found)

    def _row(self, rows):
        problem = self._problem
        return loss_record(problem.penalty, problem.terms(rows.expression), problem.alpha)


@dataclass(frozen=True)
class Fit:
    """What :func:`solve` returns.

    Attributes
    ----------
    expression : ndarray of shape (n_samples, n_cell_types, n_dimensions)
        The expression that went into the last iteration.
    replay : Replay
    losses : Losses
    delta : ndarray of shape (n_iter, n_cell_types)
        Squared change of each cell type.
    converged : bool
    """

    expression: np.ndarray
    replay: Replay
    losses: Losses
    delta: np.ndarray
    converged: bool

    @property
    def loss(self):
        """Loss rows, shape (n_iter, 3)."""
        return self.losses.values


def solve(problem, method, *, epsilon, max_iter, monitor=None, record_limit=RECORD_LIMIT):
    """Iterate until the expression of no cell type changes by ``epsilon`` or more.

    Parameters
    ----------
    problem : Problem
    method : Method
        Solver, and its γ or step length: ``problem.method("admm", 0.5)``.
    epsilon : float
        Bound on the squared change, summed over samples and dimensions. For the mean over samples and genes as in
        the original's trace-norm model, multiply by n_samples · n_genes. Of "accelerated": the share of F by which it
        may exceed its minimum, as the duality gap proves.
    max_iter : int
        Largest number of iterations, at least 1.
    monitor : callable, optional
        Called with the delta row of each iteration; a true answer ends the iteration.
    record_limit : int, default=128 MiB
        Memory for the quantities that replay needs; beyond it, replay repeats the iteration.

    Returns
    -------
    Fit
        The update of the last iteration is not applied, as in the original.

    Raises
    ------
    FloatingPointError
        If the expression becomes infinite, or its change keeps growing far beyond the data.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.optimize.splitting import Problem, solve
    >>> from skenigma.core.optimize.penalties import TraceNorm
    >>> rng = np.random.default_rng(0)
    >>> proportions, reference = rng.dirichlet(np.ones(2), 6), rng.random((2, 8))
    >>> bulk = proportions @ reference
    >>> problem = Problem(bulk, reference, proportions, 0.5, TraceNorm(0.1, proportions.mean(axis=0)))
    >>> fit = solve(problem, problem.method("admm", 1.0), epsilon=1e-8, max_iter=500)
    >>> fit.converged, fit.expression.shape
    (True, (6, 2, 8))
    >>> bool(np.allclose(fit.replay(bulk[:2], proportions[:2]), fit.expression[:2]))
    True
    """
    iteration, record = iteration_of(problem, method), Record(record_limit)
    size = len(problem.reference) * np.vdot(problem.bulk, problem.bulk)
    # an epsilon of 0 asks for nothing that could be proven
    proof = Proof(iteration, epsilon) if method.rows.has_weights and epsilon > 0 else None
    progress = Progress(
        0.0 if method.rows.has_weights else epsilon, max_iter, size, monitor or (lambda delta: False)
    )
    while True:
        expression = iteration.expression
        update, delta = iteration.advance()
        ended = progress.ends(delta)
        if proof:
            progress.converged = proof.holds(expression, at_last=ended)
        if ended or progress.converged:
            break
        record.append(update)
    replay = Replay(method, len(progress.delta) - 1, record.updates, problem)
    return Fit(
        expression=np.ascontiguousarray(expression.swapaxes(0, 1)),
        replay=replay,
        losses=Losses(problem, replay),
        delta=progress.delta,
        converged=progress.converged,
    )


class Proof:
    """Whether an accelerated iteration is proven to be near its minimum; looked for only when that can be expected.

    Parameters
    ----------
    iteration : AcceleratedIteration
    epsilon : float
        Share of F.
    """

    def __init__(self, iteration, epsilon):
        self._iteration = iteration
        self._certificate, self._schedule = (
            Certificate(epsilon, iteration.problem.value_of_nothing()),
            CheckSchedule(),
        )

    def holds(self, expression, at_last):
        """Whether ``expression``, from which the last update started, is within epsilon of the minimum.

        What that takes, a decomposition per cell type, is as long as half an iteration, so it waits until the
        shrinking of the gap so far makes success likely; ``at_last`` does not wait.
        """
        if not (self._schedule.is_due() or at_last):
            return False
        value = self._iteration.problem.objective(expression)
        gap = self._certificate.gap(value, self._iteration.lower_bound())
        self._schedule.note(gap)
        return bool(gap <= 1.0)
