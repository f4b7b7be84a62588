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

**Replay.** Everything by which the samples of a cohort influence one another is in these equations: the shift s (one
vector per cell type), and what the proximal operator does to a row: a cap of its length, or the linear map
v ↦ v Vᵀ diag(max(0, 1 − t/σ)) V. Given the shifts and the maps of every iteration, each row follows on its own. A row
with a part outside the span of the cohort carries it as further columns, in any orthonormal basis: shifts are zero
there, a cap scales it and thresholding drops it.

Shifts and caps are small and are kept. The maps of the trace norm are not: each holds up to n·d numbers. They are
kept as long as they fit a limit; beyond, the cohort itself (n·d numbers in all) is kept, and replay repeats its
iteration side by side with the new rows. Both give the same numbers to rounding.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from .states import Span, SpanState, objective
from .stopping import Progress

# Memory for recorded updates beyond which replay repeats the cohort's iteration instead.
RECORD_LIMIT = 128 * 2**20


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
    """

    bulk: np.ndarray
    reference: np.ndarray
    proportions: np.ndarray
    alpha: float
    penalty: object

    def method(self, solver, parameter, start=1.0):
        """How ``solver`` (a key of :data:`SOLVERS`) moves the rows of this problem; see :class:`Method`."""
        return Method(solver, parameter, self.alpha, self.penalty.curvature, start)

    def residual(self, expression):
        """Reconstruction minus bulk, shape (n_samples, n_dimensions)."""
        return mixture(self.proportions, expression) - self.bulk

    def objective(self, expression):
        """F of the module's docstring at ``expression`` (n_cell_types, n_samples, n_dimensions)."""
        inside = expression.swapaxes(0, 1)
        span = Span(None, self.bulk.shape[1])
        nothing = np.zeros(self.proportions.shape)
        state = SpanState(self.bulk, None, self.proportions, inside, nothing, span, self.bulk.dtype)
        return objective(state, self.reference, self.alpha, self.penalty)


def mixture(proportions, expression):
    """Σ_k θ_jk p_jk for ``expression`` of shape (n_cell_types, n_samples, n_dimensions)."""
    mixed = proportions[:, 0, None] * expression[0]
    scratch = np.empty_like(mixed)
    for weights, rows in zip(proportions.T[1:], expression[1:], strict=True):
        mixed += np.multiply(weights[:, None], rows, out=scratch)
    return mixed


class Rows:
    """Samples on their way through an iteration; each moves by itself once the shared quantities are given.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_columns)
    proportions : ndarray of shape (n_samples, n_cell_types)
    method : Method

    Attributes
    ----------
    expression : ndarray of shape (n_cell_types, n_samples, n_columns)
        Every update makes a new array.
    step : float
        Step length of the proximal operator.
    """

    def __init__(self, bulk, proportions, method):
        self.bulk, self.proportions, self.alpha = bulk, proportions, method.alpha
        self.expression = np.repeat(method.start * bulk[None], proportions.shape[1], axis=0)
        self._prepare(method.curvature, method.parameter)

    def follow(self, shift, maps):
        """Make one update with given shared quantities."""
        draft = self.draft()
        self.move(draft, shift)
        self.settle(draft, partial(_apply, maps))


def _apply(maps, expression, out):
    for row_map, rows, target in zip(maps, expression, out, strict=True):
        row_map.apply(rows, target)


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


SOLVERS = {"proximal": GradientRows, "admm": AdmmRows, "admm_fast": JacobiRows}


@dataclass(frozen=True)
class Method:
    """How rows move: everything but the data; made by :meth:`Problem.method`.

    Attributes
    ----------
    solver : {"proximal", "admm", "admm_fast"}
    parameter : float
        Step length τ for "proximal", γ for the others; both on the scale of F.
    alpha : float
        Weight of the reconstruction.
    curvature : float
        Factor c of the data terms.
    start : float
        Everything starts at this multiple of the bulk.
    """

    solver: str
    parameter: float
    alpha: float
    curvature: float
    start: float = 1.0

    def enter(self, bulk, proportions):
        """Rows at the start of the iteration."""
        return SOLVERS[self.solver](bulk, proportions, self)


class Cohort:
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
        shift : ndarray of shape (n_cell_types, n_dimensions)
        maps : tuple
            One map of rows per cell type.
        """
        rows, penalty = self.rows, self.problem.penalty
        draft = rows.draft()
        shift = rows.pull(self.problem.reference, draft)
        rows.move(draft, shift)
        return shift, rows.settle(draft, partial(penalty.prox, rows.step))

    def losses(self):
        """Loss row of the current expression."""
        problem = self.problem
        residual = problem.residual(self.expression)
        return problem.penalty.losses(residual, self.expression, problem.reference, problem.alpha)


class Record:
    """Updates of a cohort, kept until they outgrow ``limit`` bytes."""

    def __init__(self, limit):
        self._limit = limit
        self.nbytes = 0
        self.updates = []

    def append(self, shift, maps):
        """Keep one update, or let go of all."""
        if self.updates is None:
            return
        self.nbytes += shift.nbytes + sum(row_map.nbytes for row_map in maps)
        if self.nbytes > self._limit:
            self.updates, self.nbytes = None, 0
        else:
            self.updates.append((shift, maps))


class Replay:
    """The fitted iteration, for rows never seen.

    Parameters
    ----------
    method : Method
    n_updates : int
        Updates that the fitted expression has gone through.
    updates : list of (shift, maps) or None
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
        return sum(shift.nbytes + sum(m.nbytes for m in maps) for shift, maps in self._updates)

    def _shared(self):
        if self._updates is not None:
            yield from self._updates
            return
        cohort = Cohort(self._problem, self.method)
        for _ in range(self.n_updates):
            yield cohort.advance()

    def __call__(self, bulk, proportions):
        """Expression of samples moved exactly as the fitted cohort was.

        Parameters
        ----------
        bulk : ndarray of shape (n_samples, n_columns)
            Coordinates of the samples: first the cohort's dimensions, then any number of columns for what lies
            outside their span, in any orthonormal basis. One column with the norm of that part is enough: the
            part itself is only ever scaled.
        proportions : ndarray of shape (n_samples, n_cell_types)

        Returns
        -------
        expression : ndarray of shape (n_samples, n_cell_types, n_columns)
        """
        rows = self.method.enter(bulk, proportions)
        for shift, maps in self._shared():
            rows.follow(shift, maps)
        return np.ascontiguousarray(rows.expression.swapaxes(0, 1))


@dataclass(frozen=True)
class Fit:
    """What :func:`solve` returns.

    Attributes
    ----------
    expression : ndarray of shape (n_samples, n_cell_types, n_dimensions)
        The expression that went into the last iteration.
    replay : Replay
    loss : ndarray of shape (n_iter, 3)
    delta : ndarray of shape (n_iter, n_cell_types)
        Squared change of each cell type.
    converged : bool
    """

    expression: np.ndarray
    replay: Replay
    loss: np.ndarray
    delta: np.ndarray
    converged: bool


def solve(problem, method, *, epsilon, max_iter, monitor=None, record_limit=RECORD_LIMIT):
    """Iterate until the expression of no cell type changes by ``epsilon`` or more.

    Parameters
    ----------
    problem : Problem
    method : Method
        Solver, its γ or step length, and where it starts: ``problem.method("admm", 0.5)``.
    epsilon : float
        Bound on the squared change, summed over samples and dimensions. For the mean over samples and genes as in
        the original's trace-norm model, multiply by n_samples · n_genes.
    max_iter : int
        Largest number of iterations, at least 1.
    monitor : callable, optional
        Called with loss row and delta row of each iteration; a true answer ends the iteration.
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
    cohort, record = Cohort(problem, method), Record(record_limit)
    size = len(problem.reference) * np.vdot(problem.bulk, problem.bulk)
    progress = Progress(epsilon, max_iter, size, monitor or (lambda loss, delta: False))
    while True:
        loss, expression = cohort.losses(), cohort.expression
        update = cohort.advance()
        change = cohort.expression - expression
        if progress.ends(loss, np.einsum("kjd,kjd->k", change, change)):
            break
        record.append(*update)
    return Fit(
        expression=np.ascontiguousarray(expression.swapaxes(0, 1)),
        replay=Replay(method, len(progress.delta) - 1, record.updates, problem),
        loss=progress.loss,
        delta=progress.delta,
        converged=progress.converged,
    )
