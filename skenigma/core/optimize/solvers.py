"""The solvers behind one call, and the fitted maps that repeat a fit for samples never seen."""

from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from math import hypot, sqrt

import numpy as np

from . import splitting
from .frame import Frame
from .in_place import InPlace
from .mixture import Expression, Samples, gradient_step, observe
from .partitions import in_one_piece
from .passes import cut_factors
from .penalties import Norms, Terms, loss_record
from .start import Start
from .states import FramedState, Span, SpanState
from .steps import Iterated, StepSizes, gradient_scales, look_ahead
from .stopping import Progress
from .trajectory import Trajectory

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
    place : callable
        Where the samples are, see :mod:`.partitions` ("proximal" of the maximum-L2-norm model).
    ahead : tuple of int
        How many iterations to look ahead for directions, where to read the bulk is what takes the time: the first
        time, the second, and so on, the last number from then on. Empty reads it for those of each iteration.
    known : ndarray of shape (n_known, n_dimensions), or None
        Directions that are known to be needed, such as the mean of the bulk.
    followed_by : callable, or None
        Problem and settings of a run that follows, on the same samples, from the gradient norms of this one.
        Directions are then looked ahead for both, and all that is wanted of the solution is the frame, in which the
        next begins.
    frame : Frame or None
        That of the run before.
    """

    parameter: float | None
    epsilon: float
    max_iter: int
    renorm_size: float | None = None
    resolution: float = 128 * np.finfo(np.float64).eps
    place: object = in_one_piece
    ahead: tuple = ()
    known: np.ndarray | None = None
    followed_by: object = None
    frame: object = None

    def rescale(self, norm, scale):
        """Factor for a gradient with this norm, computed from terms of size ``scale``.

        The first gradient of the reconstruction term is zero up to rounding, because the start reproduces
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
    state : callable, or None
        Makes the cohort's expression, a :mod:`skenigma.core.optimize.states` form over genes, from its bulk. None of
        a run whose frame is what is wanted of it.
    fitted_map : callable, or None
        Makes the map that repeats the fit for other samples, over genes. None likewise.
    losses : object
        Its ``values`` are the loss rows, shape (n_iter, 3), which some solvers only form when asked for.
    delta : ndarray of shape (n_iter, n_cell_types)
    converged : bool
    gradient_norm : ndarray of shape (n_iter - 1, 2), or None
        Norms of both gradients before rescaling, of each applied update; None for solvers without gradients.
    frame : Frame or None
        For the run that follows, if there is one and the solver hands it on.
    """

    state: object
    fitted_map: object
    losses: object
    delta: np.ndarray
    converged: bool
    gradient_norm: np.ndarray | None = None
    frame: object = None

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


@dataclass
class GradientTrajectory(Trajectory):
    """That of :func:`proximal_gradient`.

    Attributes
    ----------
    factors : ndarray of shape (n_updates,)
        Step along θ_jk e_j.
    """

    factors: np.ndarray

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
def proximal_gradient(problem, settings, monitor, basis=None):
    """Published proximal-gradient iteration, of a penalty that depends on the norms of samples only.

    Parameters
    ----------
    problem : skenigma.core.optimize.problem.Problem
        Its penalty has ``caps(norms, step)``, its start is shared by all samples.
    settings : Settings
    monitor : callable
        Called with the delta row after each evaluation; a true answer ends the iteration. One that never ends it says
        so by an attribute ``only_watches``, and may be called of several evaluations one after the other.
    basis : SpanBasis, optional
        Of the problem: where directions keep joining, the iteration goes on in one of shorter rows.

    Returns
    -------
    frame : Frame
        With the expression that went into the last iteration; back at the start where another run follows.
    trajectory : GradientTrajectory
    progress : Progress
    losses : LossTerms
    gradient_norm : ndarray of shape (n_iter - 1, 2)

    Raises
    ------
    FloatingPointError
        If the change becomes infinite, or keeps growing far beyond the size of the data.
    """
    frame = settings.frame or Frame(
        problem.bulk,
        problem.reference,
        problem.proportions,
        problem.start or Start(),
        settings.place,
        settings.known,
    )
    square, *squares = frame.begin()
    steps = StepSizes(problem, settings, gradient_scales(problem, frame.n_samples, *squares))
    size, count = len(problem.reference) * squares[0], problem.proportions.size
    longest = _longest(frame)
    if InPlace.suits(frame, steps):
        iterate = InPlace(frame, steps, getattr(monitor, "only_watches", False))
    else:
        iterate = _InFrame(frame, steps, basis)
    progress = Progress(settings.epsilon, settings.max_iter, size, monitor)
    factors, caps, gradients, losses = [], [], [], []
    while True:
        # at zero, the samples give the scale to which rounding is compared
        typical_norm = sqrt((square or size) / count)
        found = iterate(square, typical_norm, gradients)
        losses.append((*found.terms, longest))
        square, longest = found.square, found.longest
        if progress.ends(found.change):
            break
        factors.append(found.factor)
        caps.append(found.caps)
        gradients.append(found.gradient)
        frame.record(found.shift)
        iterate.accept()
    if settings.followed_by is None:
        iterate.finish()
        frame.reduce(typical_norm, always=True)
    else:  # what this run has dropped in the end the next may need
        frame.restart()
    shape = (-1, len(problem.reference))
    found = GradientTrajectory(
        frame.vectors, frame.shifts(), np.reshape(caps, shape), frame.start, np.array(factors)
    )
    losses = LossTerms(problem.penalty, problem.alpha, losses)
    return frame, found, progress, losses, np.reshape(gradients, (-1, 2))


class _InFrame:
    """Iterations within a frame that directions join and leave.

    Parameters
    ----------
    frame : Frame
    steps : StepSizes
    basis : SpanBasis or None
    """

    def __init__(self, frame, steps, basis):
        self._frame, self._steps, self._basis = frame, steps, basis

    def __call__(self, square, typical_norm, gradients):
        """The next iteration, from an expression of this ``square``, see :class:`Iterated`."""
        frame, settings = self._frame, self._steps.settings
        frame.reduce(typical_norm)
        if _should_move(frame, self._basis, settings):
            frame.move(self._basis.shorter)
        factor, shift, terms, gradient = _evaluate(frame, self._steps, square, typical_norm, gradients)
        caps = self._steps.problem.penalty.caps(frame.step(factor, shift), settings.parameter)
        return Iterated(factor, shift, terms, gradient, caps, *frame.cut(caps))

    def accept(self):
        """Make the result the current expression."""
        self._frame.accept()

    def finish(self):
        """Leave the current expression to the frame, all factors applied."""
        self._frame.parts.all("apply_sizes")


def _should_move(frame, basis, settings):
    """Whether readings have come to take as long as it takes to find a basis in which they are short."""
    if basis is None or frame.basis is not None or settings.place is not in_one_piece:
        return False
    return frame.n_joins >= basis.n_joins_worth and basis.shorter is not None


def _longest(frame):
    """Largest norm of the expression in every cell type."""
    return np.max(frame.parts.all("longest"), axis=0)


def _evaluate(frame, steps, square, typical_norm, gradients):
    """Step factor, shared shift, terms of the loss row and gradient norms at the frame's expression."""
    settings = steps.settings
    look, outside = frame.look()
    residual, _, offset_square, along = look.sums
    # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖r_k‖² − 2⟨mean_k, r_k⟩): nothing of it is beyond the frame
    distance = square - frame.n_samples * along
    offset, offset_size = look.offset, sqrt(offset_square)
    if settings.ahead and outside is not None:
        # what matters of the mean joins before its length is needed
        shift_factor, _ = steps.shift_factor(hypot(offset_size, outside.estimate))
        joined = frame.widen(
            outside, shift_factor, typical_norm, partial(look_ahead, frame, steps, gradients)
        )
        if joined.size:
            offset, outside = np.hstack([offset, joined]), None
            offset_size = sqrt(np.vdot(offset, offset))
    if outside is not None:
        offset_size = hypot(offset_size, outside.length(NEGLIGIBLE * offset_size))
    shift_factor, reference_gradient = steps.shift_factor(offset_size)
    if not settings.ahead:
        joined = frame.widen(outside, shift_factor, typical_norm)
        offset = np.hstack([offset, joined]) if joined.size else offset
    factor, gradient = steps.factor(look.sums)
    return factor, shift_factor * offset, (residual, offset_size**2, distance), (gradient, reference_gradient)


@dataclass
class FramedMap:
    """A fitted trajectory over genes.

    Attributes
    ----------
    trajectory : GradientTrajectory
        With vectors over genes.
    """

    trajectory: GradientTrajectory

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


def _in_one_piece(frame):
    """Samples and expression of all parts, which are let go."""
    found = frame.parts.all("held")
    frame.parts.close()
    if len(found) == 1:
        return found[0]
    samples, expression = zip(*found, strict=True)
    proportions, rows = ([getattr(part, name) for part in samples] for name in ("proportions", "rows"))
    samples = Samples(np.concatenate(proportions), np.concatenate(rows))
    return samples, Expression(np.concatenate([part.rows for part in expression]))


def solve_framed(problem, basis, settings, monitor):
    """Run :func:`proximal_gradient`, and take its result to genes."""
    frame, found, progress, losses, gradient_norm = proximal_gradient(problem, settings, monitor, basis)
    told = {
        "losses": losses,
        "delta": progress.delta,
        "converged": progress.converged,
        "gradient_norm": gradient_norm,
    }
    if settings.followed_by is not None:
        return Solution(state=None, fitted_map=None, frame=frame, **told)
    found_in = frame.basis or basis  # not the frame itself, whose memory would stay with the model
    vectors = cache(lambda: found_in.to_genes(found.vectors))
    samples, expression = _in_one_piece(frame)
    return Solution(
        state=lambda bulk: FramedState(bulk, samples, expression, vectors()),
        fitted_map=lambda: FramedMap(replace(found, vectors=vectors())),
        **told,
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
