"""Where the rows of a dask array are, and how a partition on a worker reads its own."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from .workers import Workers

# Partitions of a thread: with more than one, those of a lost worker are shared out among several threads.
PARTS_PER_THREAD = 2


@dataclass(frozen=True)
class Chunk:
    """A chunk of a dask array with no more of its graph than it takes to compute it."""

    graph: dict
    key: tuple

    def compute(self):
        """Its values, computed by the thread that asks."""
        import dask

        return dask.get(self.graph, self.key)


class Chunks:
    """Chunks of adjoining rows, as the source of a :class:`~skenigma.cohort.LazyMatrix`.

    Parameters
    ----------
    chunks : list of Chunk or array
        What is an array is in the memory of the worker.
    sizes : tuple of int
        Rows of each.
    n_columns : int
    dtype : dtype
    """

    def __init__(self, chunks, sizes, n_columns, dtype):
        self._chunks, self._bounds = chunks, np.cumsum([0, *sizes])
        self.shape, self.dtype = (int(self._bounds[-1]), n_columns), dtype
        self.chunk_rows = max(sizes)
        self._last = None, None

    def check(self):
        """Nothing: a chunk that cannot be computed says so."""

    def read(self, start, stop):
        """Rows as a dense array."""
        first, last = np.searchsorted(self._bounds, [start + 1, stop]) - 1
        found = []
        for number in range(first, last + 1):
            begin = self._bounds[number]
            found.append(self._values(number)[max(start - begin, 0) : stop - begin])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _values(self, number):
        if self._last[0] != number:  # blocks may be smaller than chunks
            chunk = self._chunks[number]
            values = chunk.compute() if isinstance(chunk, Chunk) else chunk
            self._last = number, values.toarray() if hasattr(values, "toarray") else np.asarray(values)
        return self._last[1]


class OnWorkers:
    """Places the samples of a dask array in partitions on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
    store : dask.array.Array
        Chunked by rows; what the rows to be placed are read from.
    """

    def __init__(self, client, store):
        self._client, self._store = client, store

    def __call__(self, make, rows, proportions, asking=()):
        """Place the samples, see :mod:`skenigma.core.optimize.partitions`.

        Parameters
        ----------
        make : callable
            Makes a partition of its rows and their proportions.
        rows : LazyMatrix or RowSource
            Of the store.
        proportions : ndarray of shape (n_samples, n_cell_types)
        asking : collection of str, default=()
            Methods that change nothing of a partition.

        Returns
        -------
        workers : Workers
        """
        matrix, sizes = getattr(rows, "values", rows), self._store.chunks[0]
        starts = np.cumsum([0, *sizes])
        n_parts = min(len(sizes), PARTS_PER_THREAD * max(1, sum(self._client.nthreads().values())))
        # adjoining chunks, about as many rows in every partition
        ends = np.unique(np.searchsorted(starts, np.linspace(0, starts[-1], n_parts + 1)))
        chunks = list(_chunks(self._client, self._store))
        width, dtype = self._store.shape[1], self._store.dtype
        sources = []
        for first, last in pairwise(ends):
            start, stop = starts[[first, last]]
            part = matrix.rows(start, stop).over(None)
            made_of = partial(Chunks, sizes=sizes[first:last], n_columns=width, dtype=dtype)
            sources.append([part, proportions[start:stop], made_of, chunks[first:last]])
        return Workers(self._client, partial(_made, make), sources, asking)


def _made(make, source):
    """A partition, on its worker."""
    matrix, proportions, made_of, chunks = source
    return make((matrix.over(made_of(chunks)), proportions))


def _chunks(client, store):
    """Every chunk: its part of the graph; a future where it, or what it is made of, lies on workers already."""
    from distributed import futures_of

    graph, held = store.__dask_graph__(), bool(futures_of(store))
    for number, (key,) in enumerate(store.__dask_keys__()):
        yield client.compute(store.blocks[number]) if held else Chunk(dict(graph.cull({key})), key)
