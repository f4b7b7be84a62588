"""When an iteration ends, and the histories it leaves."""

from itertools import pairwise
from math import isfinite

import numpy as np

# Growth of a step beyond this multiple of the data's squared norm is divergence, not oscillation.
DIVERGENCE_FACTOR = 1e3
DIVERGENCE_WINDOW = 5


class Progress:
    """Histories of an iteration, and the decision to end it.

    Parameters
    ----------
    epsilon : float
        The iteration has converged when the squared change of every cell type is below this.
    max_iter : int
        Largest number of evaluations.
    size : float
        Squared norm of the start, to tell divergence by.
    monitor : callable
        Called with loss row and delta row of each evaluation; a true answer ends the iteration.

    Attributes
    ----------
    converged : bool
    """

    def __init__(self, epsilon, max_iter, size, monitor):
        self._epsilon, self._max_iter, self._monitor = epsilon, max_iter, monitor
        self._limit = DIVERGENCE_FACTOR * size
        self._losses, self._deltas, self._largest = [], [], []
        self.converged = False

    @property
    def loss(self):
        """Loss rows, shape (n_iter, 3)."""
        return np.array(self._losses)

    @property
    def delta(self):
        """Squared change per cell type, shape (n_iter, n_cell_types)."""
        return np.array(self._deltas)

    def ends(self, loss, delta):
        """Record one evaluation; whether it is the last.

        Raises
        ------
        FloatingPointError
            If the change became infinite, or keeps growing far beyond the size of the data.
        """
        self._losses.append(loss)
        self._deltas.append(delta)
        self._largest.append(float(delta.max()))
        self._refuse_divergence()
        self.converged = self._largest[-1] < self._epsilon
        stopped = self._monitor(loss, delta)
        return bool(self.converged or stopped or len(self._deltas) == self._max_iter)

    def _refuse_divergence(self):
        count, last = len(self._deltas), self._largest[-1]
        if not isfinite(last):
            raise FloatingPointError(f"the change became infinite in iteration {count}")
        if last > self._limit and count >= DIVERGENCE_WINDOW:
            recent = self._largest[-DIVERGENCE_WINDOW:]
            if all(before < after for before, after in pairwise(recent)):
                raise FloatingPointError(f"the change kept growing, to {last:.3g} in iteration {count}")
