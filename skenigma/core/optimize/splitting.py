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

from dataclasses import dataclass

import numpy as np

from .iteration import iteration_of
from .problem import Problem
from .replay import Losses, Record, Replay
from .rows import ROWS, AcceleratedRows, AdmmRows, GradientRows, JacobiRows, mixture
from .stopping import Progress, Proof

__all__ = [
    "ROWS",
    "AcceleratedRows",
    "AdmmRows",
    "Fit",
    "GradientRows",
    "JacobiRows",
    "Problem",
    "iteration_of",
    "mixture",
    "solve",
]

# Memory for recorded updates beyond which replay repeats the cohort's iteration instead.
RECORD_LIMIT = 128 * 2**20


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
