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

from dataclasses import replace
from functools import cache

import numpy as np

from .descent import Descent
from .solvers import FramedMap, Recorded, Solution
from .states import FramedState
from .stopping import Certificate, Progress


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
    size = problem.proportions.shape[1] * descent.frame.part.bulk.total
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
