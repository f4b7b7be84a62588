"""Iterations of samples that are in one piece, in a frame of the whole space: a call each, on one state."""

from dataclasses import replace

import numpy as np

from . import passes
from .mixture import SMALL_DISTANCE
from .penalties import MaxL2Norm
from .steps import Iterated


class InPlace:
    """Iterations within a frame that is the whole space, compiled as a whole.

    Parameters
    ----------
    frame : Frame
        Its samples are one part, of which the expression is written to.
    steps : StepSizes
    """

    def __init__(self, frame, steps):
        from .compiled_in_place import iterate

        part, problem, settings = frame.part, steps.problem, steps.settings
        rows, samples = part.expression.rows, part.samples
        shape, n_columns = samples.proportions.shape, rows.shape[2]
        self._iterate, self._n_samples = iterate, len(rows)
        # steps and norms for lengths of 1, without rescaling
        unscaled = replace(steps, settings=replace(settings, renorm_size=None))
        size = np.nan if settings.renorm_size is None else settings.renorm_size
        rule = np.array([size, *unscaled.factor([0.0, 1.0]), *unscaled.shift_factor(1.0)])
        noise = settings.resolution * np.array(steps.scales)
        weight = settings.parameter * problem.penalty.beta
        reference = np.ascontiguousarray(frame.reference)
        self._state = (
            rows, np.zeros((len(rows), n_columns)), samples.proportions, samples.theta_squares, reference,
            rule, noise, weight, SMALL_DISTANCE,
        )  # fmt: skip
        self._room = (
            np.stack([part.sizes, part.point.norms]), np.empty((shape[1], n_columns)), np.empty(len(rows)),
            np.empty((3, *shape)),
        )  # fmt: skip
        # the first call has no step to take
        self._shift, self._numbers = np.zeros(reference.shape), np.zeros(6)

    @staticmethod
    def suits(frame, steps):
        """Whether the iterations of a run are of this kind, and numba is there."""
        settings, caps = steps.settings, getattr(type(steps.problem.penalty), "caps", None)
        alone = settings.followed_by is None and settings.frame is None
        whole = frame.is_whole and len(getattr(frame.parts, "parts", ())) == 1
        return alone and whole and caps is MaxL2Norm.caps and passes.fastest() is not passes

    def __call__(self, square, typical_norm, gradients):
        """The next iteration, see :class:`Iterated`; the one before has been accepted."""
        n_cell_types = len(self._shift)
        before, self._shift = self._shift, np.empty(self._shift.shape)
        caps, sums = np.empty(n_cell_types), np.empty((3, n_cell_types))
        self._iterate(*self._state, before, *self._room, self._shift, caps, sums, self._numbers)
        factor, residual, offset, along, *norms = self._numbers.tolist()
        terms = residual, offset, square - self._n_samples * along
        return Iterated(factor, self._shift, terms, norms, caps, sums[1], sums.item(2, 0), sums[0])

    def accept(self):
        """Make the result the current expression: the next call does, if there is one."""

    def finish(self):
        """Leave the current expression to the frame: it is there, with no factors to be applied."""
