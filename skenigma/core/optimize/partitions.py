"""Partitions of a cohort, wherever they are, called together.

An iteration over samples needs sums over all of them, and a few numbers in return. So the samples may lie in several
partitions, objects of one class with methods of small arguments and small answers; who runs the iteration asks all of
them and adds up what they answer. Where the partitions are is known to an *executor* only:

- it is made by ``executor(make, sources, asking)``: ``make(source)`` makes a partition of a source, something that
  knows its rows; ``asking`` are the names of the methods that change nothing of a partition, which one that is made
  again need not follow;
- ``all(method, *arguments)`` calls a method of every partition, and returns the answers in the order of the sources;
- ``close()`` lets the partitions go.

``make``, the sources, the arguments and the answers can be pickled, so that an executor may keep its partitions in
other processes. Answers are arrays of the size of the directions that samples share, or a few numbers per sample;
never rows of the bulk. Two executors are here, :class:`Serial` and :class:`Threads`.

A function that places partitions, ``place(make, rows, proportions, asking)``, decides where the rows of a cohort are
cut, and returns an executor: :func:`in_one_piece`, or :func:`in_threads` with a number of threads.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from ..blocks import RowSource


class Serial:
    """Partitions in this process, one after the other.

    Parameters
    ----------
    make : callable
        Makes a partition of a source.
    sources : list
    asking : collection of str, default=()
        Not needed here: no partition is ever lost.
    """

    def __init__(self, make, sources, asking=()):
        self.parts = [make(source) for source in sources]

    def all(self, method, *arguments):
        """Answers of a method of every partition, in their order."""
        return [getattr(part, method)(*arguments) for part in self.parts]

    def close(self):
        """Let the partitions go."""
        self.parts = []


class Threads(Serial):
    """Partitions in this process, each in a thread of its own while it is asked.

    Parameters
    ----------
    make, sources, asking
        As of :class:`Serial`.
    """

    def __init__(self, make, sources, asking=()):
        self._pool = ThreadPoolExecutor(max(1, len(sources)))
        self.parts = self._map(make, sources)

    def all(self, method, *arguments):
        """Answers of a method of every partition, in their order."""
        return self._map(lambda part: getattr(part, method)(*arguments), self.parts)

    def _map(self, function, things):
        def quiet(thing):  # what overflows is refused as divergence; threads have settings of their own
            with np.errstate(over="ignore", invalid="ignore"):
                return function(thing)

        return list(self._pool.map(quiet, things))

    def close(self):
        """Let the partitions go, and the threads."""
        super().close()
        self._pool.shutdown()


def in_one_piece(make, rows, proportions, asking=()):
    """All samples as one partition."""
    return Serial(make, [(rows, proportions)], asking)


class in_threads:  # noqa: N801 - used as a function, and can be pickled
    """Samples in as many partitions of adjoining rows as there are threads.

    Parameters
    ----------
    n_threads : int
    """

    def __init__(self, n_threads):
        self.n_threads = n_threads

    def __call__(self, make, rows, proportions, asking=()):
        """Place the samples."""
        rows = rows.values if isinstance(rows, RowSource) else rows
        sources = [(cut(rows, some), proportions[some]) for some in stretches(rows, self.n_threads)]
        return (Threads if len(sources) > 1 else Serial)(make, sources, asking)


def stretches(rows, count):
    """Slices of adjoining rows, ``count`` or fewer, of whole blocks where rows are read by blocks.

    Parameters
    ----------
    rows : ndarray or LazyMatrix of shape (n_rows, n_columns)
    count : int

    Returns
    -------
    slices : list of slice
    """
    step = getattr(rows, "block_rows", 1)
    n_blocks = -(-len(rows) // step)
    ends = np.linspace(0, n_blocks, min(count, n_blocks) + 1).round().astype(int) * step
    return [slice(start, min(stop, len(rows))) for start, stop in pairwise(ends)]


def cut(rows, some):
    """A stretch of rows, which is not read where it is not in memory."""
    return rows.rows(some.start, some.stop) if hasattr(rows, "block_rows") else rows[some]


def total(answers):
    """Sum of the answers of all partitions: arrays or numbers, or tuples of them."""
    first, *others = answers
    if isinstance(first, tuple):
        return tuple(total(column) for column in zip(*answers, strict=True))
    for other in others:
        first = first + other
    return first
