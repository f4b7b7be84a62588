"""The solvers behind one call, and the fitted maps that repeat a fit for samples never seen."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import hypot, sqrt

import numpy as np

from ..blocks import BLOCK_SIZE, row_blocks
from . import splitting
from .frame import Frame
from .mixture import (
    Expression,
    Point,
    gradient_step,
    observe,
    reconstruction_gradient_norm,
    reference_gradient_norm,
)
from .passes import cut_factors
from .penalties import Norms, Terms, loss_record
from .start import Start
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
    losses : object
        Its ``values`` are the loss rows, shape (n_iter, 3), which some solvers only form when asked for.
    delta : ndarray of shape (n_iter, n_cell_types)
    converged : bool
    gradient_norm : ndarray of shape (n_iter - 1, 2), or None
        Norms of both gradients before rescaling, of each applied update; None for solvers without gradients.
    """

    state: object
    fitted_map: object
    losses: object
    delta: np.ndarray
    converged: bool
    gradient_norm: np.ndarray | None = None

    @property
    def loss(self):
        """Loss rows, shape (n_iter, 3)."""
        return self.losses.values


class Recorded:
    """Loss rows that were formed on the way.

    Parameters
    ----------
    rows : list of ndarray of shape (3,)
    """

    def __init__(self, rows):
        self.values = np.array(rows)


class LossTerms:
    """Loss rows of which the terms were recorded: formed when they are first asked for, if ever.

    Parameters
    ----------
    penalty : object
    alpha : float
    terms : list of tuple
        Of every iteration the first three of :class:`~skenigma.core.optimize.penalties.Terms`, and the largest norm
        in every cell type, which is all of an expression that a penalty with ``caps`` depends on.
    """

    def __init__(self, penalty, alpha, terms):
        self._penalty, self._alpha, self._terms = penalty, alpha, terms

    @cached_property
    def values(self):
        """Of every iteration, shape (n_iter, 3)."""
        terms = (Terms(*sums, Norms(longest[None])) for *sums, longest in self._terms)
        return np.array([loss_record(self._penalty, found, self._alpha) for found in terms])


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
    start : Start
        Its profiles as coordinates along the directions.
    """

    vectors: np.ndarray
    factors: np.ndarray
    shifts: np.ndarray
    caps: np.ndarray
    start: Start

    def replay(self, samples):
        """Expression of ``samples``, each moved exactly as the fitted cohort was."""
        return replay_by_blocks(samples, self._replay_block)

    def _replay_block(self, samples):
        expression, sizes = samples.start(self.start), np.ones(samples.proportions.shape)
        moved = expression.empty_like()
        for factor, shift, caps in zip(self.factors, self.shifts, self.caps, strict=True):
            step = gradient_step(samples, expression, sizes, factor, shift, moved)
            sizes = cut_factors(step.norms, caps)
            expression, moved = moved, expression
        expression.scale_by(sizes)
        return expression


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def proximal_gradient(problem, settings, monitor):
    """Published proximal-gradient iteration, of a penalty that depends on the norms of samples only.

    Parameters
    ----------
    problem : skenigma.core.optimize.problem.Problem
        Its penalty has ``caps(norms, step)``, its start is shared by all samples.
    settings : Settings
    monitor : callable
        Called with the delta row after each evaluation; a true answer ends the iteration.

    Returns
    -------
    frame : Frame
        With the expression that went into the last iteration.
    trajectory : Trajectory
    progress : Progress
    losses : LossTerms
    gradient_norm : ndarray of shape (n_iter - 1, 2)

    Raises
    ------
    FloatingPointError
        If the change becomes infinite, or keeps growing far beyond the size of the data.
    """
    frame = Frame(problem.bulk, problem.reference, problem.proportions, problem.start or Start())
    scales = _gradient_scales(problem, frame)
    point = Point.of(frame.expression)
    size = len(problem.reference) * frame.bulk.total
    progress = Progress(settings.epsilon, settings.max_iter, size, monitor)
    factors, caps, gradients, losses = [], [], [], []
    while True:
        # at zero, the samples give the scale to which rounding is compared
        typical_norm = sqrt((point.square or size) / point.norms.size)
        frame.reduce(typical_norm)
        factor, shift, terms, gradient = _evaluate(frame, problem, settings, point, typical_norm, scales)
        losses.append((*terms, point.longest))
        proposal = frame.spare()
        step = gradient_step(
            frame.samples, frame.expression, point.sizes, factor, shift, proposal, point.norms
        )
        new_caps = problem.penalty.caps(step.norms, settings.parameter)
        point, change = step.cut(new_caps)
        if progress.ends(change):
            break
        factors.append(factor)
        caps.append(new_caps)
        gradients.append(gradient)
        frame.record(shift)
        frame.replace(proposal, point.sizes)
    frame.apply_sizes()
    frame.reduce(typical_norm, always=True)
    shape = (-1, len(problem.reference))
    found = Trajectory(frame.vectors, np.array(factors), frame.shifts(), np.reshape(caps, shape), frame.start)
    losses = LossTerms(problem.penalty, problem.alpha, losses)
    return frame, found, progress, losses, np.reshape(gradients, (-1, 2))


def _gradient_scales(problem, frame):
    """Norms that both gradients would have if nothing cancelled in them: their rounding is relative to these."""
    reference, squares = problem.reference, frame.bulk.squares
    means = np.sqrt(len(reference) * np.mean(squares)) + np.linalg.norm(reference)
    half = 0.5 * problem.penalty.curvature
    return (
        half * reconstruction_gradient_norm(frame.samples, squares),
        half * reference_gradient_norm(means, frame.n_samples),
    )


def _evaluate(frame, problem, settings, point, typical_norm, scales):
    """Step factor, shared shift, terms of the loss row and gradient norms at the frame's expression."""
    alpha, curvature = problem.alpha, problem.penalty.curvature
    n_samples = frame.n_samples
    offset, weights, (residual, weighted_residual, offset_square, along) = frame.compare()
    outside = frame.outside(weights)
    # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖r_k‖² − 2⟨mean_k, r_k⟩): nothing of it is beyond the frame
    distance = point.square - n_samples * along
    offset_size = sqrt(offset_square)
    if outside is not None:
        offset_size = hypot(offset_size, outside.length(NEGLIGIBLE * offset_size))
    # the norms of the gradients are those of data terms without 1/2, as the original prints them
    reference_gradient = 0.5 * curvature * reference_gradient_norm(offset_size, n_samples)
    reach = settings.rescale(reference_gradient, scales[1])
    reach *= settings.parameter * (1.0 - alpha) * curvature / n_samples
    joined = frame.widen(outside, reach, typical_norm)
    shift = reach * (np.hstack([offset, joined]) if joined.size else offset)

    gradient = curvature * sqrt(weighted_residual)
    factor = settings.rescale(gradient, scales[0]) * curvature * settings.parameter * alpha
    return factor, shift, (residual, offset_size**2, distance), (gradient, reference_gradient)


@dataclass
class FramedMap:
    """A fitted trajectory over genes.

    Attributes
    ----------
    trajectory : Trajectory
        With vectors over genes.
    """

    trajectory: Trajectory

    def replay(self, bulk, proportions, own=None):
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

    def replay(self, bulk, proportions, own=None):
        """Expression of samples (n_samples, n_genes), each moved exactly as the fitted cohort was.

        ``own`` (n_samples, n_cell_types, n_genes) is where they start, if each sample of the cohort had a start of
        its own; the span is then that of all genes.
        """
        coordinates, outside = self.span.split(bulk)
        if outside is None:
            inside, scale = self.iteration(coordinates, proportions, own), np.zeros(proportions.shape)
        else:
            # what lies outside the span is only scaled: its length stands for it
            length = np.sqrt(np.einsum("jg,jg->j", outside, outside))[:, None]
            found = self.iteration(np.hstack([coordinates, length]), proportions)
            inside, scaled = found[:, :, :-1], found[:, :, -1]
            scale = np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
        return SpanState(coordinates, outside, proportions, inside, scale, self.span, bulk.dtype)


def solve_framed(problem, basis, settings, monitor):
    """Run :func:`proximal_gradient`, and take its result to genes."""
    frame, found, progress, losses, gradient_norm = proximal_gradient(problem, settings, monitor)
    vectors = cache(lambda: basis.to_genes(found.vectors))
    return Solution(
        state=lambda bulk: FramedState(bulk, frame.samples, frame.expression, vectors()),
        fitted_map=lambda: FramedMap(replace(found, vectors=vectors())),
        losses=losses,
        delta=progress.delta,
        converged=progress.converged,
        gradient_norm=gradient_norm,
    )


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def solve_split(problem, basis, settings, monitor, *, rows):
    """Run :func:`skenigma.core.optimize.splitting.solve` with a kind of rows, and take its result to genes.

    Raises
    ------
    ValueError
        If ``settings`` ask for rescaled gradients, which only the framed iteration has.
    """
    if settings.renorm_size is not None:
        raise ValueError(
            "renorm_size rescales gradients in the iteration for starts that all samples share: with a start for "
            "every sample, renorm_size must be None."
        )
    fit = splitting.solve(
        problem,
        problem.method(rows, settings.parameter),
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
        losses=fit.losses,
        delta=fit.delta,
        converged=fit.converged,
    )
