"""The solvers behind one call, and the fitted maps that repeat a fit for samples never seen."""

from dataclasses import dataclass, replace
from functools import cache
from math import hypot, sqrt

import numpy as np

from ..blocks import BLOCK_SIZE, row_blocks
from . import splitting
from .frame import Cohort
from .mixture import (
    Expression,
    Point,
    gradient_step,
    observe,
    reconstruction_gradient_norm,
    reference_gradient_norm,
)
from .passes import cut_factors
from .states import FramedState, Span, SpanState
from .stopping import Progress

# Share of a length to which something at right angles adds 5e-13: an estimate of it that is off by an eighth will do.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Settings:
    """How a solver runs.

    Attributes
    ----------
    parameter : float or None
        Step length τ of "proximal", γ of the ADMM solvers, on the scale of the objective; "accelerated" needs none.
    epsilon : float
        Iterations end when the squared change of every cell type, summed over samples and genes, is below it.
    max_iter : int
        Largest number of evaluations.
    renorm_size : float or None
        Norm to which both gradients are rescaled in every iteration ("proximal" of the maximum-L2-norm model).
    resolution : float
        Relative rounding error of the data: a gradient this small is zero.
    """

    parameter: float | None
    epsilon: float
    max_iter: int
    renorm_size: float | None = None
    resolution: float = 128 * np.finfo(np.float64).eps

    def rescale(self, norm, scale):
        """Factor for a gradient with this norm, computed from terms of size ``scale``.

        The first gradient of the reconstruction term is zero but for rounding, because the start reproduces
        the bulk. Blown up to ``renorm_size`` it would move everything along noise, so it counts as zero.
        """
        if self.renorm_size is None:
            return 1.0
        return self.renorm_size / norm if norm > self.resolution * scale else 0.0


@dataclass
class Solution:
    """What a solver returns.

    Attributes
    ----------
    state : callable
        Makes the cohort's expression, a :mod:`skenigma.core.optimize.states` form over genes, from its bulk.
    fitted_map : callable
        Makes the map that repeats the fit for other samples, over genes.
    loss : ndarray of shape (n_iter, 3)
    delta : ndarray of shape (n_iter, n_cell_types)
    converged : bool
    gradient_norm : ndarray of shape (n_iter - 1, 2), or None
        Norms of both gradients before rescaling, of each applied update; None for solvers without gradients.
    """

    state: object
    fitted_map: object
    loss: np.ndarray
    delta: np.ndarray
    converged: bool
    gradient_norm: np.ndarray | None = None


def replay_by_blocks(samples, replay):
    """Expression of ``samples``, all updates of one block after the other: it stays in the cache."""
    n_samples, n_cell_types = samples.proportions.shape
    rows = np.empty((n_samples, n_cell_types + 1, samples.rows.shape[1]))
    for some in row_blocks(rows, 4 * BLOCK_SIZE):
        rows[some] = replay(samples.select(some)).rows
    return Expression(rows)


@dataclass
class Trajectory:
    """The cohort-level quantities of every applied update: all that other samples need to repeat them.

    Attributes
    ----------
    vectors : ndarray of shape (n_directions, n_dimensions)
        Orthonormal directions along which all samples move.
    factors : ndarray of shape (n_updates,)
        Step along θ_jk e_j.
    shifts : ndarray of shape (n_updates, n_cell_types, n_directions)
        Step that all samples share.
    caps : ndarray of shape (n_updates, n_cell_types)
        Largest norm left by the proximal operator.
    """

    vectors: np.ndarray
    factors: np.ndarray
    shifts: np.ndarray
    caps: np.ndarray

    def replay(self, samples):
        """Expression of ``samples``, each moved exactly as the fitted cohort was."""
        return replay_by_blocks(samples, self._replay_block)

    def _replay_block(self, samples):
        expression, sizes = samples.start(), np.ones(samples.proportions.shape)
        moved = expression.empty_like()
        for factor, shift, caps in zip(self.factors, self.shifts, self.caps, strict=True):
            step = gradient_step(samples, expression, sizes, factor, shift, moved)
            sizes = cut_factors(step.norms, caps)
            expression, moved = moved, expression
        expression.scale_by(sizes)
        return expression


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def proximal_gradient(problem, settings, monitor):
    """Published proximal-gradient iteration of the maximum-L2-norm model.

    Parameters
    ----------
    problem : skenigma.core.optimize.splitting.Problem
        Its penalty depends on norms only: it has ``caps(norms, step)``.
    settings : Settings
    monitor : callable
        Called with the loss row and the delta row after each evaluation; a true answer ends the iteration.

    Returns
    -------
    cohort : Cohort
        With the expression that went into the last iteration.
    trajectory : Trajectory
    progress : Progress
    gradient_norm : ndarray of shape (n_iter - 1, 2)

    Raises
    ------
    FloatingPointError
        If the change becomes infinite, or keeps growing far beyond the size of the data.
    """
    cohort = Cohort(problem.bulk, problem.reference, problem.proportions)
    scales = _gradient_scales(problem, cohort.samples)
    point = Point.of(cohort.expression)
    progress = Progress(settings.epsilon, settings.max_iter, point.total, monitor)
    factors, caps, gradients = [], [], []
    while True:
        typical_norm = sqrt(point.total / point.norms.size)
        cohort.reduce(typical_norm)
        factor, shift, loss, gradient = _evaluate(
            cohort, problem.alpha, settings, point, typical_norm, scales
        )
        proposal = cohort.spare()
        step = gradient_step(
            cohort.samples, cohort.expression, point.sizes, factor, shift, proposal, point.norms
        )
        new_caps = problem.penalty.caps(step.norms, settings.parameter)
        point, change = step.cut(new_caps)
        if progress.ends(loss, change):
            break
        factors.append(factor)
        caps.append(new_caps)
        gradients.append(gradient)
        cohort.record(shift)
        cohort.advance(proposal, point.sizes)
    cohort.settle()
    cohort.reduce(typical_norm, always=True)
    trajectory = Trajectory(cohort.vectors, np.array(factors), cohort.shifts(), np.array(caps))
    return cohort, trajectory, progress, np.reshape(gradients, (-1, 2))


def _gradient_scales(problem, samples):
    """Norms that both gradients would have if nothing cancelled in them: their rounding is relative to these."""
    bulk, reference = problem.bulk, problem.reference
    squares = np.einsum("jd,jd->j", bulk, bulk)
    means = np.sqrt(len(reference) * np.mean(squares)) + np.linalg.norm(reference)
    return reconstruction_gradient_norm(samples, squares), reference_gradient_norm(means, len(bulk))


def _evaluate(cohort, alpha, settings, point, typical_norm, scales):
    """Step factor, shared shift, loss row and gradient norms at the cohort's expression."""
    n_samples, reference = cohort.n_samples, cohort.reference
    mean, weights, squares = cohort.survey()
    outside = cohort.outside(weights)
    offset = mean - reference
    # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖r_k‖² − 2⟨mean_k, r_k⟩): nothing of it is beyond the frame
    reference_loss = point.total - n_samples * np.vdot(reference, mean + offset)
    offset_size = sqrt(np.vdot(offset, offset))
    if outside is not None:
        offset_size = hypot(offset_size, outside.length(NEGLIGIBLE * offset_size))
    reference_gradient = reference_gradient_norm(offset_size, n_samples)
    reach = settings.rescale(reference_gradient, scales[1])
    reach *= settings.parameter * (1.0 - alpha) * 2.0 / n_samples
    joined = cohort.follow(outside, reach, typical_norm)
    shift = reach * (np.hstack([offset, joined]) if joined.size else offset)

    gradient = reconstruction_gradient_norm(cohort.samples, squares)
    factor = settings.rescale(gradient, scales[0]) * 2.0 * settings.parameter * alpha

    loss = np.array([squares.sum(), reference_loss, np.vdot(point.longest, point.longest)])
    return factor, shift, loss, (gradient, reference_gradient)


@dataclass
class FramedMap:
    """A fitted trajectory over genes.

    Attributes
    ----------
    trajectory : Trajectory
        With vectors over genes.
    """

    trajectory: Trajectory

    def replay(self, bulk, proportions):
        """Expression of samples (n_samples, n_genes), each moved exactly as the fitted cohort was."""
        vectors = self.trajectory.vectors
        samples = observe(bulk, vectors, proportions)
        return FramedState(bulk, samples, self.trajectory.replay(samples), vectors)


@dataclass
class SpanMap:
    """A fitted splitting iteration, with the span of the cohort over genes.

    Attributes
    ----------
    iteration : skenigma.core.optimize.splitting.Replay
    span : Span
    """

    iteration: splitting.Replay
    span: Span

    def replay(self, bulk, proportions):
        """Expression of samples (n_samples, n_genes), each moved exactly as the fitted cohort was."""
        coordinates, outside = self.span.split(bulk)
        if outside is None:
            inside, scale = self.iteration(coordinates, proportions), np.zeros(proportions.shape)
        else:
            # what lies outside the span is only scaled: its length stands for it
            length = np.sqrt(np.einsum("jg,jg->j", outside, outside))[:, None]
            found = self.iteration(np.hstack([coordinates, length]), proportions)
            inside, scaled = found[:, :, :-1], found[:, :, -1]
            scale = np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
        return SpanState(coordinates, outside, proportions, inside, scale, self.span, bulk.dtype)


def solve_framed(problem, basis, settings, monitor):
    """Run :func:`proximal_gradient`, and take its result to genes."""
    cohort, found, progress, gradient_norm = proximal_gradient(problem, settings, monitor)
    vectors = cache(lambda: basis.to_genes(found.vectors))
    return Solution(
        state=lambda bulk: FramedState(bulk, cohort.samples, cohort.expression, vectors()),
        fitted_map=lambda: FramedMap(replace(found, vectors=vectors())),
        loss=progress.loss,
        delta=progress.delta,
        converged=progress.converged,
        gradient_norm=gradient_norm,
    )


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def solve_split(problem, basis, settings, monitor, *, solver):
    """Run :func:`skenigma.core.optimize.splitting.solve`, and take its result to genes."""
    fit = splitting.solve(
        problem,
        problem.method(solver, settings.parameter),
        epsilon=settings.epsilon,
        max_iter=settings.max_iter,
        monitor=monitor,
    )
    span = cache(basis.span)
    none = np.zeros(problem.proportions.shape)
    return Solution(
        state=lambda bulk: SpanState(
            problem.bulk, None, problem.proportions, fit.expression, none, span(), bulk.dtype
        ),
        fitted_map=lambda: SpanMap(fit.replay, span()),
        loss=fit.loss,
        delta=fit.delta,
        converged=fit.converged,
    )
