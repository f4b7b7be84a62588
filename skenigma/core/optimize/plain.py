"""The published iteration over genes: for what does not commute with a change of basis.

A start that every sample has for itself leaves no span to compress to, and neither does a mask. With a mask, the
expression of a gene is held at 0 in the samples whose bulk is 0 there: both gradients are 0 in these entries before
their norms are taken, so that with m_jg = 1 where x_jg ≠ 0 and else 0

    G1_jk = 2 θ_jk m_j e_j                 G2_jk = (2/n) m_j (mean_k − r_k)
    ‖G1‖² = 4 Σ_j (Σ_k θ_jk²) ‖m_j e_j‖²    ‖G2‖² = (4/n²) Σ_g (Σ_j m_jg) Σ_k (mean_kg − r_kg)²

and everything else is as in :func:`skenigma.core.optimize.solvers.proximal_gradient`. What a sample needs of the
cohort are the same three things, the step factor, the shift and the caps, and its own mask.

One tensor is kept, the expression, and every step is computed twice, block by block: once for the norms that decide
the caps and for the change, and once to be applied. The last step is not applied, so that the tensor is the result.
"""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np

from ..blocks import row_blocks, row_products
from .mixture import reconstruction_gradient_norm, reference_gradient_norm
from .passes import cut_factors
from .penalties import Norms, Terms, loss_record
from .problem import Problem
from .solvers import Recorded, Solution
from .start import Start
from .states import Span, SpanState
from .stopping import Progress

# Numbers of the expression that a block holds: the step and its parts stay in the cache.
BLOCK = 2**18


@dataclass(frozen=True)
class GeneRows:
    """Samples over genes.

    Attributes
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    masked : bool
        Whether the expression is 0 where the bulk is.
    """

    bulk: np.ndarray
    proportions: np.ndarray
    masked: bool

    def select(self, some):
        """Some of the samples, given as a slice."""
        return GeneRows(self.bulk[some], self.proportions[some], self.masked)

    @cached_property
    def kept(self):
        """Where the expression may differ from 0, (n_samples, 1, n_genes); 1 everywhere without a mask."""
        return (self.bulk != 0)[:, None] if self.masked else np.ones((1, 1, 1), dtype=bool)

    @cached_property
    def theta_squares(self):
        """Sum of the squares of the proportions of a sample, (n_samples,)."""
        return row_products(self.proportions, self.proportions)

    def start(self, start):
        """Expression (n_samples, n_cell_types, n_genes) at a start."""
        begun = np.ascontiguousarray(start.of(self.bulk, self.proportions.shape[1]).swapaxes(0, 1))
        return np.multiply(begun, self.kept, out=begun)

    def residual(self, expression):
        """Reconstruction minus bulk; 0 where the mask is, as both are."""
        return np.matmul(self.proportions[:, None], expression)[:, 0] - self.bulk

    def step(self, expression, factor, shift):
        """What is added by a step along both gradients."""
        added = (-factor * self.proportions)[:, :, None] * self.residual(expression)[:, None]
        added -= shift
        # the residual is 0 where the mask is
        return np.multiply(added, self.kept, out=added) if self.masked else added


@dataclass
class PlainMap:
    """The cohort-level quantities of every applied update: all that other samples need to repeat them.

    Attributes
    ----------
    factors : list of float
        Step along θ_jk e_j.
    shifts : list of ndarray of shape (n_cell_types, n_genes)
        Step that all samples share, but for their masks.
    caps : list of ndarray of shape (n_cell_types,)
        Largest norm left by the proximal operator.
    start : Start
    masked : bool
    """

    factors: list
    shifts: list
    caps: list
    start: Start
    masked: bool

    def replay(self, bulk, proportions, own=None):
        """Expression of samples (n_samples, n_genes), each moved exactly as the fitted cohort was."""
        rows = GeneRows(bulk.astype(np.float64, copy=False), proportions, self.masked)
        start = self.start if own is None else Start(own=own)
        expression = rows.start(start)
        for some in row_blocks(expression, BLOCK):
            self._move(rows.select(some), expression[some])
        return state_of(rows, expression, bulk.dtype)

    def _move(self, rows, expression):
        for factor, shift, caps in zip(self.factors, self.shifts, self.caps, strict=True):
            expression += rows.step(expression, factor, shift)
            expression *= cut_factors(_norms(expression), caps)[:, :, None]


def state_of(rows, expression, dtype):
    """Expression (n_samples, n_cell_types, n_genes) as a state over genes."""
    span = Span(None, expression.shape[2])
    return SpanState(
        rows.bulk, None, rows.proportions, expression, np.zeros(expression.shape[:2]), span, dtype
    )


def _norms(expression):
    return np.sqrt(row_products(expression, expression))


@dataclass
class Survey:
    """Sums over the samples of a cohort, at one expression.

    Attributes
    ----------
    mean : ndarray of shape (n_cell_types, n_genes)
    residuals : ndarray of shape (n_samples,)
        Squared norms of the residuals.
    norms : ndarray of shape (n_samples, n_cell_types)
        Of the expression.
    """

    mean: np.ndarray
    residuals: np.ndarray
    norms: np.ndarray


class GeneCohort:
    """The samples of a fit, and their expression.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.rows = GeneRows(problem.bulk, problem.proportions, problem.masked)
        self.start = problem.start or Start()
        self.expression = self.rows.start(self.start)
        # a sample whose bulk is 0 in a gene has no gradient there
        self.counts = self.rows.kept.sum(axis=0)[0] * (1 if problem.masked else len(problem.bulk))
        self.blocks = [(some, self.rows.select(some)) for some in row_blocks(self.expression, BLOCK)]

    def survey(self, factor=0.0, shift=0.0, sizes=None):
        """Sums at the expression, after a step that is cut by ``sizes`` (n_samples, n_cell_types), if given."""
        n_samples, n_types, n_genes = self.expression.shape
        found = Survey(np.zeros((n_types, n_genes)), np.empty(n_samples), np.empty((n_samples, n_types)))
        for some, rows in self.blocks:
            expression = self.expression[some]
            if sizes is not None:
                expression += rows.step(expression, factor, shift)
                expression *= sizes[some, :, None]
            residual = rows.residual(expression)
            found.residuals[some] = row_products(residual, residual)
            found.norms[some] = _norms(expression)
            found.mean += expression.sum(axis=0)
        found.mean /= n_samples
        return found

    def look(self, factor, shift):
        """Norms after a step, its products with itself and with where it leads, each (n_samples, n_cell_types)."""
        norms, squares, along = np.empty((3, *self.expression.shape[:2]))
        for some, rows in self.blocks:
            step = rows.step(self.expression[some], factor, shift)
            ahead = self.expression[some] + step
            norms[some], squares[some] = _norms(ahead), row_products(step, step)
            along[some] = row_products(ahead, step)
        return norms, squares, along


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def solve_plain(problem, basis, settings, monitor):
    """Run the published iteration over genes.

    Parameters
    ----------
    problem : Problem
        Over genes. Its penalty has ``caps(norms, step)``.
    basis : SpanBasis
        Not compressed.
    settings : Settings
    monitor : callable
        Called with the delta row after each evaluation; a true answer ends the iteration.

    Returns
    -------
    Solution

    Raises
    ------
    FloatingPointError
        If the change becomes infinite, or keeps growing far beyond the size of the data.
    """
    cohort = GeneCohort(problem)
    scales = _scales(cohort)
    # where each sample of the cohort starts is no start for others
    found = PlainMap([], [], [], cohort.start if cohort.start.is_shared else Start(), problem.masked)
    size = len(problem.reference) * np.vdot(problem.bulk, problem.bulk)
    progress = Progress(settings.epsilon, settings.max_iter, size, monitor)
    losses, gradients = [], []
    survey = cohort.survey()
    while True:
        losses.append(_losses(problem, survey))
        factor, shift, gradient = _gradients(cohort, survey, settings, scales)
        norms, squares, along = cohort.look(factor, shift)
        caps = problem.penalty.caps(norms, settings.parameter)
        sizes = cut_factors(norms, caps)
        # from p to s q, with q = p + d: (s − 1) q + d, of which no digits cancel
        change = (sizes - 1.0) ** 2 * norms**2 + 2.0 * (sizes - 1.0) * along + squares
        if progress.ends(change.sum(axis=0)):
            break
        for kept, value in zip((found.factors, found.shifts, found.caps), (factor, shift, caps), strict=True):
            kept.append(value)
        gradients.append(gradient)
        survey = cohort.survey(factor, shift, sizes)
    return Solution(
        state=lambda bulk: state_of(cohort.rows, cohort.expression, bulk.dtype),
        fitted_map=lambda: found,
        losses=Recorded(losses),
        delta=progress.delta,
        converged=progress.converged,
        gradient_norm=np.reshape(gradients, (-1, 2)),
    )


def _scales(cohort):
    """Norms that both gradients would have if nothing cancelled in them: their rounding is relative to these."""
    problem, half = cohort.problem, 0.5 * cohort.problem.penalty.curvature
    squares = row_products(problem.bulk, problem.bulk)
    means = sqrt(len(problem.reference) * np.mean(squares)) + np.linalg.norm(problem.reference)
    return (
        half * reconstruction_gradient_norm(cohort.rows, squares),
        half * reference_gradient_norm(means, len(squares)),
    )


def _gradients(cohort, survey, settings, scales):
    """Step factor, shared shift, and both norms of the gradients."""
    problem, n_samples = cohort.problem, len(cohort.problem.bulk)
    curvature, step = problem.penalty.curvature, settings.parameter
    offset = survey.mean - problem.reference
    # of data terms without 1/2, as the original prints them
    norms = (
        0.5 * curvature * reconstruction_gradient_norm(cohort.rows, survey.residuals),
        curvature * sqrt(np.sum(cohort.counts * offset**2)) / n_samples,
    )
    factors = [settings.rescale(norm, scale) for norm, scale in zip(norms, scales, strict=True)]
    factor = factors[0] * curvature * step * problem.alpha
    shift = factors[1] * curvature * step * (1.0 - problem.alpha) / n_samples * offset
    return factor, shift, norms


def _losses(problem, survey):
    """Row of the loss record."""
    offset = survey.mean - problem.reference
    squares = np.vdot(offset, offset)
    # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖mean − r‖² − ‖mean‖²)
    distance = np.vdot(survey.norms, survey.norms)
    distance += len(problem.bulk) * (squares - np.vdot(survey.mean, survey.mean))
    terms = Terms(survey.residuals.sum(), squares, distance, Norms(survey.norms))
    return loss_record(problem.penalty, terms, problem.alpha)
