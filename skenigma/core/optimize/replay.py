"""What repeats a fitted splitting iteration: for samples never seen, and for its own loss rows."""

from functools import cached_property

import numpy as np

from .iteration import iteration_of
from .penalties import loss_record
from .start import Start


class Record:
    """Updates of a cohort, kept until they outgrow ``limit`` bytes."""

    def __init__(self, limit):
        self._limit = limit
        self.nbytes = 0
        self.updates = []

    def append(self, update):
        """Keep one update, or let go of all."""
        if self.updates is None:
            return
        self.nbytes += update.nbytes
        if self.nbytes > self._limit:
            self.updates, self.nbytes = None, 0
        else:
            self.updates.append(update)


class Replay:
    """The fitted iteration, for rows never seen.

    Parameters
    ----------
    method : Method
    n_updates : int
        Updates that the fitted expression has gone through.
    updates : list of Update, or None
        Recorded updates; None to repeat the cohort's iteration.
    problem : Problem or None
        The cohort, needed where ``updates`` is None.
    """

    def __init__(self, method, n_updates, updates, problem):
        self.method, self.n_updates = method, n_updates
        self._updates = updates
        self._problem = problem if updates is None else None

    @property
    def nbytes(self):
        """Memory held, in bytes."""
        if self._updates is None:
            problem = self._problem
            return problem.bulk.nbytes + problem.reference.nbytes + problem.proportions.nbytes
        return sum(update.nbytes for update in self._updates)

    def updates(self):
        """Every update in turn."""
        if self._updates is not None:
            yield from self._updates
            return
        iteration = iteration_of(self._problem, self.method)
        for _ in range(self.n_updates):
            yield iteration.advance()[0]

    def __call__(self, bulk, proportions, own=None):
        """Expression of samples moved exactly as the fitted cohort was.

        Parameters
        ----------
        bulk : ndarray of shape (n_samples, n_columns)
            Coordinates of the samples: first the cohort's dimensions, then any number of columns for what lies
            outside their span, in any orthonormal basis. One column with the norm of that part is enough: the
            part itself is only ever scaled.
        proportions : ndarray of shape (n_samples, n_cell_types)
        own : ndarray of shape (n_samples, n_cell_types, n_columns), optional
            Where these samples start, if each sample of the cohort had a start of its own.

        Returns
        -------
        expression : ndarray of shape (n_samples, n_cell_types, n_columns)
        """
        rows = self.method.start_rows(bulk, proportions, None if own is None else Start(own=own))
        for update in self.updates():
            rows.apply(update)
        return np.ascontiguousarray(rows.expression.swapaxes(0, 1))


class Losses:
    """Loss rows of a fit, made by repeating its iteration when they are first asked for.

    Those of the trace norm would take a quarter of the time of every fit.

    Parameters
    ----------
    problem : Problem
    replay : Replay
    """

    def __init__(self, problem, replay):
        self._problem, self._replay = problem, replay

    @cached_property
    def values(self):
        """Of every iteration, shape (n_iter, 3)."""
        problem, replay = self._problem, self._replay
        rows = replay.method.start_rows(problem.bulk, problem.proportions)
        found = [self._row(rows)]
        for update in replay.updates():
            rows.apply(update)
            found.append(self._row(rows))
        return np.array(found)

    def _row(self, rows):
        problem = self._problem
        return loss_record(problem.penalty, problem.terms(rows.expression), problem.alpha)
