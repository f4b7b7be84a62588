"""The iteration of a cohort, of :mod:`skenigma.core.optimize.splitting`: it sets what its rows then follow."""

from dataclasses import replace
from functools import partial

import numpy as np

from .momentum import Momentum
from .rows import Update, outer
from .states import Tensor


class Iteration:
    """The rows of one fit: they determine the shared quantities that they then follow.

    Parameters
    ----------
    problem : Problem
    method : Method
    """

    def __init__(self, problem, method):
        self.problem = problem
        self.rows = method.start_rows(problem.bulk, problem.proportions)

    @property
    def expression(self):
        """Current expression, shape (n_cell_types, n_samples, n_dimensions)."""
        return self.rows.expression

    def advance(self):
        """Make one update.

        Returns
        -------
        update : Update
        delta : ndarray of shape (n_cell_types,)
            Squared change of every cell type.
        """
        before, update = self.expression, self._update()
        change = self.expression - before
        return update, np.einsum("kjd,kjd->k", change, change)

    def _update(self):
        rows, penalty = self.rows, self.problem.penalty
        proposal = rows.reconstruction_step()
        shift = rows.reference_shift(self.problem.reference, proposal)
        rows.apply_shift(proposal, shift)
        return Update(shift, rows.proximal_step(proposal, partial(penalty.prox, rows.step)))


class AcceleratedIteration(Iteration):
    """The same with momentum."""

    def __init__(self, problem, method):
        super().__init__(problem, method)
        self._momentum = Momentum()
        self._weights = method.parameter

    def advance(self):
        """Make one update, and choose the momentum of the next."""
        rows = self.rows
        rows.momentum = self._momentum.value
        update = self._update()
        change = rows.expression - rows.before
        delta = np.einsum("kjd,kjd->k", change, change)
        # uphill: the change goes against the step, from where it started to where it ended
        ascent = self._weights @ np.einsum("kjd,kjd->k", rows.origin, change)
        ascent -= self._weights @ np.einsum("kjd,kjd->k", rows.expression, change)
        self._momentum.update(float(np.sqrt(self._weights @ delta)), bool(ascent > 0))
        return replace(update, momentum=rows.momentum), delta

    def lower_bound(self):
        """Lower bound of F from the gradient along which the last update stepped, see :class:`Problem`."""
        problem, rows = self.problem, self.rows
        curvature, n_samples = problem.penalty.curvature, len(problem.bulk)
        gradient = outer(curvature * problem.alpha * problem.proportions, rows.residual)
        gradient += (curvature * (1.0 - problem.alpha) / n_samples * rows.offset)[:, None]
        return problem.lower_bound(rows.residual, rows.offset, Tensor(gradient))


def iteration_of(problem, method):
    """The iteration of a problem by a method."""
    kind = AcceleratedIteration if method.rows.has_weights else Iteration
    return kind(problem, method)
