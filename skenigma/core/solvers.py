"""The iterations, and the trajectory that lets one be repeated for samples never seen."""

from dataclasses import dataclass

import numpy as np

from .frame import Cohort
from .mixture import (
    Expression,
    cut,
    gradient_step,
    reconstruction_gradient_norm,
    reference_gradient_norm,
    squared_residuals,
)

# Growth of a step beyond this multiple of the data's squared norm is divergence, not oscillation.
DIVERGENCE_FACTOR = 1e3
DIVERGENCE_WINDOW = 5


class DivergenceError(ArithmeticError):
    """The iteration left the range in which its numbers mean anything."""


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
        expression = samples.start()
        moved = expression.empty_like()
        for factor, shift, caps in zip(self.factors, self.shifts, self.caps, strict=True):
            norms = gradient_step(samples, expression, factor, shift, moved)
            cut(samples, moved, norms, caps)
            expression, moved = moved, expression
        return expression


@dataclass
class Solution:
    """What a solver returns.

    Attributes
    ----------
    expression : Expression
        State that went into the last iteration.
    trajectory : Trajectory
    loss : ndarray of shape (n_iter, 3)
    gradient_norm : ndarray of shape (n_iter - 1, 2)
    delta : ndarray of shape (n_iter, n_cell_types)
    converged : bool
    """

    expression: Expression
    trajectory: Trajectory
    loss: np.ndarray
    gradient_norm: np.ndarray
    delta: np.ndarray
    converged: bool


@dataclass(frozen=True)
class Settings:
    """Settings of the published proximal-gradient iteration.

    Attributes
    ----------
    alpha : float
        Weight of the reconstruction term; the reference term has 1 − alpha.
    step : float
        Step length τ.
    renorm_size : float or None
        Norm to which both gradients are rescaled in every iteration.
    epsilon : float
        Iterations end when every cell type's squared change is below it.
    max_iter : int
        Largest number of evaluations.
    resolution : float
        Relative rounding error of the data: a gradient this small is zero.
    """

    alpha: float
    step: float
    renorm_size: float | None
    epsilon: float
    max_iter: int
    resolution: float

    def rescale(self, norm, scale):
        """Factor for a gradient with this norm, computed from terms of size ``scale``.

        The first gradient of the reconstruction term is zero but for rounding, because the start reproduces
        the bulk. Blown up to ``renorm_size`` it would move everything along noise, so it counts as zero.
        """
        if self.renorm_size is None:
            return 1.0
        return self.renorm_size / norm if norm > self.resolution * scale else 0.0


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as divergence
def proximal_gradient(bulk, reference, proportions, penalty, settings, monitor):
    """Published proximal-gradient iteration of the maximum-L2-norm model.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_dimensions)
        Samples, in any orthonormal basis of a space that holds samples and profiles.
    reference : ndarray of shape (n_cell_types, n_dimensions)
        Profiles in the same basis.
    proportions : ndarray of shape (n_samples, n_cell_types)
    penalty : object with ``caps(norms, step)``
        Penalty that depends on the norms of the samples only.
    settings : Settings
    monitor : callable
        Called with the loss row and the delta row after each evaluation; a true answer ends the iteration.

    Returns
    -------
    Solution

    Raises
    ------
    DivergenceError
        If the change becomes infinite, or keeps growing far beyond the size of the data.
    """
    cohort = Cohort(bulk, reference, proportions)
    scales = _gradient_scales(bulk, reference, proportions)
    norms = cohort.expression.norms(cohort.samples)
    limit = DIVERGENCE_FACTOR * np.sum(norms**2)
    factors, caps, losses, gradients, deltas = [], [], [], [], []
    proposal = None
    for iteration in range(settings.max_iter):
        typical_norm = np.sqrt(np.mean(norms**2))
        cohort.reduce(typical_norm)
        factor, shift, loss, gradient = _evaluate(cohort, settings, norms, typical_norm, scales)
        proposal = cohort.spare(proposal)
        norms = gradient_step(cohort.samples, cohort.expression, factor, shift, proposal)
        new_caps = penalty.caps(norms, settings.step)
        losses.append(loss)
        deltas.append(cut(cohort.samples, proposal, norms, new_caps, cohort.expression))
        _refuse_divergence(deltas, limit)
        converged = bool(np.max(deltas[-1]) < settings.epsilon)
        stopped = monitor(loss, deltas[-1])
        if converged or stopped or iteration + 1 == settings.max_iter:
            break
        factors.append(factor)
        cohort.record(shift)
        caps.append(new_caps)
        gradients.append(gradient)
        cohort.expression, proposal = proposal, cohort.expression
        norms = np.minimum(norms, new_caps)
    cohort.reduce(typical_norm, always=True)
    return Solution(
        expression=cohort.expression,
        trajectory=Trajectory(cohort.vectors, np.array(factors), cohort.shifts(), np.array(caps)),
        loss=np.array(losses),
        gradient_norm=np.reshape(gradients, (-1, 2)),
        delta=np.array(deltas),
        converged=converged,
    )


def _gradient_scales(bulk, reference, proportions):
    """Norms that both gradients would have if nothing cancelled in them: their rounding is relative to these."""
    squares = np.einsum("jd,jd->j", bulk, bulk)
    means = np.sqrt(len(reference) * np.mean(squares)) + np.linalg.norm(reference)
    return reconstruction_gradient_norm(proportions, squares), reference_gradient_norm(means, len(bulk))


def _evaluate(cohort, settings, norms, typical_norm, scales):
    """Step factor, shared shift, loss row and gradient norms at the cohort's expression."""
    n_samples = cohort.n_samples
    mean, beyond = cohort.mean()
    offset = mean - cohort.reference
    offset_size = np.hypot(np.linalg.norm(offset), np.linalg.norm(beyond))
    # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖m_k‖² − ‖mean_k‖²), and beyond the frame the last two are equal
    reference_loss = np.sum(norms**2) + n_samples * np.sum((offset - mean) * (offset + mean))
    reference_gradient = reference_gradient_norm(offset_size, n_samples)
    reach = settings.rescale(reference_gradient, scales[1])
    reach *= settings.step * (1.0 - settings.alpha) * 2.0 / n_samples
    shift = reach * np.hstack([offset, cohort.follow(beyond, reach, typical_norm)])

    residuals = squared_residuals(cohort.samples, cohort.expression)
    gradient = reconstruction_gradient_norm(cohort.samples.proportions, residuals)
    factor = settings.rescale(gradient, scales[0]) * 2.0 * settings.step * settings.alpha

    loss = np.array([residuals.sum(), reference_loss, np.sum(norms.max(axis=0) ** 2)])
    return factor, shift, loss, (gradient, reference_gradient)


def _refuse_divergence(deltas, limit):
    newest = deltas[-1]
    if not np.all(np.isfinite(newest)):
        raise DivergenceError(f"the change became infinite in iteration {len(deltas)}")
    largest = [np.max(row) for row in deltas[-DIVERGENCE_WINDOW:]]
    if len(deltas) >= DIVERGENCE_WINDOW and largest[-1] > limit and np.all(np.diff(largest) > 0):
        raise DivergenceError(f"the change kept growing, to {largest[-1]:.3g} in iteration {len(deltas)}")
