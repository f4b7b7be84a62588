"""How far an iteration of the published kind goes, and where the next ones would need to go."""

from dataclasses import dataclass
from functools import partial
from math import hypot, isfinite, sqrt
from typing import NamedTuple

import numpy as np

from .mixture import reference_gradient_norm


def gradient_scales(problem, n_samples, squares, weighted):
    """Norms that both gradients would have if nothing cancelled in them: their rounding is relative to these.

    ``squares`` of all samples, and the same ``weighted`` by those of their proportions.
    """
    reference = problem.reference
    means = sqrt(len(reference) * squares / n_samples) + np.linalg.norm(reference)
    curvature = problem.penalty.curvature
    return curvature * sqrt(weighted), 0.5 * curvature * reference_gradient_norm(means, n_samples)


class Iterated(NamedTuple):
    """What an iteration has come to.

    Attributes
    ----------
    factor : float
        Step along θ_jk e_j.
    shift : ndarray of shape (n_cell_types, n_directions)
        Step that all samples share.
    terms : tuple of float
        The first three of :class:`~skenigma.core.optimize.penalties.Terms`, where it started.
    gradient : sequence of float
        Norms of both gradients there.
    caps : ndarray of shape (n_cell_types,)
    change : ndarray of shape (n_cell_types,)
        Squared change of the expression.
    square : float
        Its squared norm.
    longest : ndarray of shape (n_cell_types,)
        Its largest norms.
    """

    factor: float
    shift: np.ndarray
    terms: tuple
    gradient: tuple
    caps: np.ndarray
    change: np.ndarray
    square: float
    longest: np.ndarray


@dataclass
class StepSizes:
    """Step factor and shift of an iteration, from what a look at the samples has told.

    Attributes
    ----------
    problem : Problem
    settings : Settings
    scales : tuple of float
        Of :func:`gradient_scales`.
    """

    problem: object
    settings: object
    scales: tuple

    def factor(self, sums):
        """Step along θ_jk e_j, and the norm of the gradient of the reconstruction."""
        problem, settings = self.problem, self.settings
        # the norms of the gradients are those of data terms without 1/2, as the original prints them
        gradient = problem.penalty.curvature * sqrt(sums[1])
        step = problem.penalty.curvature * settings.parameter * problem.alpha
        return settings.rescale(gradient, self.scales[0]) * step, gradient

    def shift_factor(self, offset_size):
        """Step along mean minus reference, whose length is given, and the norm of the gradient of that term."""
        problem, settings = self.problem, self.settings
        n_samples, curvature = len(problem.proportions), problem.penalty.curvature
        gradient = 0.5 * curvature * reference_gradient_norm(offset_size, n_samples)
        step = settings.parameter * (1.0 - problem.alpha) * curvature / n_samples
        return settings.rescale(gradient, self.scales[1]) * step, gradient

    def ahead(self, frame, gradients):
        """One iteration within the frame as it is, lengths beyond it estimated; whether the fit would go on.

        The norms of its gradients are appended to ``gradients`` if it does.
        """
        look, outside = frame.look()
        shift_factor, reference_gradient = self.shift_factor(hypot(sqrt(look.sums[2]), outside.estimate))
        factor, gradient = self.factor(look.sums)
        norms = frame.step(factor, shift_factor * look.offset)
        change, _, _ = frame.cut(self.problem.penalty.caps(norms, self.settings.parameter))
        frame.accept()
        largest = np.max(change)
        if not isfinite(largest) or largest < self.settings.epsilon:
            return False
        gradients.append((gradient, reference_gradient))
        return True


def look_ahead(frame, steps, gradients):
    """Directions that the next iterations need, and the first ones of a run that follows.

    Parameters
    ----------
    frame : Frame
    steps : StepSizes
    gradients : list of tuple
        Norms of both gradients in the iterations so far.

    Returns
    -------
    vectors : ndarray of shape (n_found, n_dimensions)
    """
    numbers = steps.settings.ahead
    return frame.look_ahead(
        _runs(frame, steps, gradients), numbers[min(frame.n_looks_ahead, len(numbers) - 1)]
    )


def _runs(frame, steps, gradients):
    """A move of this run, then one of the run that follows as far as this one can tell by then what it will be."""
    gradients, follow = list(gradients), steps.settings.followed_by
    yield partial(steps.ahead, frame, gradients)
    if follow is not None and gradients:
        yield partial(StepSizes(*follow(np.array(gradients)), steps.scales).ahead, frame, [])
