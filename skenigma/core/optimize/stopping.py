"""When an iteration ends, and the history it leaves."""

from itertools import pairwise
from math import isfinite, log

import numpy as np

# Growth of a step beyond this multiple of the data's squared norm is divergence, not oscillation.
DIVERGENCE_FACTOR = 1e3
DIVERGENCE_WINDOW = 5
# A certificate is not looked for before this many iterations.
FIRST_CHECK = 3


class Progress:
    """History of an iteration, and the decision to end it.

    Parameters
    ----------
    epsilon : float
        The iteration has converged when the squared change of every cell type is below this.
    max_iter : int
        Largest number of evaluations.
    size : float
        Squared norm of the start, to tell divergence by.
    monitor : callable
        Called with the delta row of each evaluation; a true answer ends the iteration.

    Attributes
    ----------
    converged : bool
    """

    def __init__(self, epsilon, max_iter, size, monitor):
        self._epsilon, self._max_iter, self._monitor = epsilon, max_iter, monitor
        self._limit = DIVERGENCE_FACTOR * size
        self._deltas, self._largest = [], []
        self.converged = False

    @property
    def delta(self):
        """Squared change per cell type, shape (n_iter, n_cell_types)."""
        return np.array(self._deltas)

    def ends(self, delta):
        """Record one evaluation; whether it is the last.

        Raises
        ------
        FloatingPointError
            If the change became infinite, or keeps growing far beyond the size of the data.
        """
        self._deltas.append(delta)
        changes = delta.tolist()  # so few that NumPy takes longer to find the largest
        self._largest.append(max(changes) if all(map(isfinite, changes)) else float("inf"))
        self._refuse_divergence()
        self.converged = self._largest[-1] < self._epsilon
        stopped = self._monitor(delta)
        return bool(self.converged or stopped or len(self._deltas) == self._max_iter)

    def _refuse_divergence(self):
        count, last = len(self._deltas), self._largest[-1]
        if not isfinite(last):
            raise FloatingPointError(f"the change became infinite in iteration {count}")
        if last > self._limit and count >= DIVERGENCE_WINDOW:
            recent = self._largest[-DIVERGENCE_WINDOW:]
            if all(before < after for before, after in pairwise(recent)):
                raise FloatingPointError(f"the change kept growing, to {last:.3g} in iteration {count}")


class Certificate:
    """How far the objective is proven to be from its minimum.

    Parameters
    ----------
    epsilon : float
        Share of the objective that is asked for.
    value_of_nothing : float
        The objective without any expression, of which it is a share where the penalty is 0: the minimum may then be
        0, of which no share is left.

    Attributes
    ----------
    lower_bound : float
        Largest lower bound so far.
    """

    def __init__(self, epsilon, value_of_nothing):
        self._epsilon, self._value_of_nothing = epsilon, value_of_nothing
        self.lower_bound = 0.0

    def gap(self, value, bound):
        """Distance of ``value`` from the largest bound, in units of what is allowed.

        Parameters
        ----------
        value : float
            Objective of the current expression.
        bound : float or None
            A lower bound of it; None where none can be proven but 0.
        """
        self.lower_bound = max(self.lower_bound, 0.0 if bound is None else bound)
        allowed = self._epsilon * (self._value_of_nothing if bound is None else value)
        excess = value - self.lower_bound
        if allowed > 0:
            return excess / allowed
        return 0.0 if excess <= allowed else np.inf


class CheckSchedule:
    """When to look at something costly whose decline is roughly geometric: seldom while it is far away."""

    def __init__(self):
        self._count, self._due = 0, FIRST_CHECK
        self._last = None

    def is_due(self):
        """Whether to look in this iteration, the next one after the last for which this was asked."""
        self._count += 1
        return self._count >= self._due

    def note(self, gap):
        """Take account of what was seen: ``gap``, in units of what is allowed."""
        wait = max(self._count // 2, 1)
        if self._last is not None and isfinite(gap) and gap > 1.0:
            count, before = self._last
            if gap < before:
                rate = log(before / gap) / (self._count - count)
                # most of the way: the decline quickens as often as it slows down
                wait = min(wait, max(int(0.7 * log(gap) / rate), 1))
        self._last = self._count, gap
        self._due = self._count + wait


class Proof:
    """Whether an accelerated iteration is proven to be near its minimum; looked for only when that can be expected.

    Parameters
    ----------
    iteration : AcceleratedIteration
    epsilon : float
        Share of F.
    """

    def __init__(self, iteration, epsilon):
        self._iteration = iteration
        self._certificate, self._schedule = (
            Certificate(epsilon, iteration.problem.value_of_nothing()),
            CheckSchedule(),
        )

    def holds(self, expression, at_last):
        """Whether ``expression``, from which the last update started, is within epsilon of the minimum.

        What that takes, a decomposition per cell type, is as long as half an iteration, so it waits until the
        shrinking of the gap so far makes success likely; ``at_last`` does not wait.
        """
        if not (self._schedule.is_due() or at_last):
            return False
        value = self._iteration.problem.objective(expression)
        gap = self._certificate.gap(value, self._iteration.lower_bound())
        self._schedule.note(gap)
        return bool(gap <= 1.0)
