"""Iterations of samples that are in one piece, in a frame of the whole space: on one state, several in a call."""

from dataclasses import replace

import numpy as np

from . import passes
from .mixture import SMALL_DISTANCE
from .penalties import MaxL2Norm
from .steps import Iterated

# Numbers that are passed over before anybody is told of it: about a millisecond.
TOGETHER = 2**20


class InPlace:
    """Iterations within a frame that is the whole space, compiled as a whole.

    Parameters
    ----------
    frame : Frame
        Its samples are one part, of which the expression is written to.
    steps : StepSizes
    only_watched : bool
        Whether nobody but the solver ends the iteration, so that several may be made before the first is reported.
    """

    def __init__(self, frame, steps, only_watched):
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
            rule, noise, weight, SMALL_DISTANCE, settings.epsilon,
        )  # fmt: skip
        self._room = (
            np.stack([part.sizes, part.point.norms]), np.empty((shape[1], n_columns)), np.empty(len(rows)),
            np.empty((3, *shape)),
        )  # fmt: skip
        # the first call has no step to take
        self._shift, self._factor = np.zeros(reference.shape), 0.0
        self._left, self._made = settings.max_iter, iter(())
        self._together = max(1, TOGETHER // rows.size) if only_watched else 1

    @staticmethod
    def suits(frame, steps):
        """Whether the iterations of a run are of this kind, and numba is there."""
        caps = getattr(type(steps.problem.penalty), "caps", None)
        whole = frame.is_whole and len(getattr(frame.parts, "parts", ())) == 1
        return whole and caps is MaxL2Norm.caps and passes.fastest() is not passes

    def __call__(self, square, typical_norm, gradients):
        """The next iteration, see :class:`Iterated`; the one before has been accepted."""
        made = next(self._made, None)
        if made is None:
            self._made = self._more()
            made = next(self._made)
        shift, caps, (longest, change, (new_square, *_)), (factor, residual, offset, along, *norms) = made
        terms = residual, offset, square - self._n_samples * along
        return Iterated(factor, shift, terms, norms, caps, change, float(new_square), longest)

    def _more(self):
        """Further iterations, made together: shift, caps, sums and numbers of each."""
        count, shape = min(self._together, self._left), self._shift.shape
        shifts, caps = np.empty((1 + count, *shape)), np.empty((count, shape[0]))
        sums, numbers = np.empty((count, 3, shape[0])), np.empty((1 + count, 6))
        shifts[0], numbers[0, 0] = self._shift, self._factor
        self._iterate(*self._state, *self._room, shifts, caps, sums, numbers)
        (_, count, *_), *numbers = numbers.tolist()
        count = int(count)
        self._left -= count
        self._shift, self._factor = shifts[count], numbers[count - 1][0]
        return zip(shifts[1 : count + 1], caps[:count], sums[:count], numbers[:count], strict=True)

    def accept(self):
        """Make the result the current expression: the next call does, if there is one."""

    def finish(self):
        """Leave the current expression to the frame: it is there, with no factors to be applied."""
