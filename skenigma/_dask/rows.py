"""The products that solvers need of the rows of a dask array, formed where the rows are."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..core.blocks import RowSource
from .workers import Workers

# Partitions of a thread: with more than one, those of a lost worker are shared out among several threads.
PARTS_PER_THREAD = 2


class WorkerRows(RowSource):
    """Rows on the workers of a cluster, in partitions; only sums and coordinates come here.

    Parameters
    ----------
    workers : Workers
        With partitions that are a :class:`~skenigma.core.blocks.RowSource` each.
    bounds : ndarray of int, shape (n_parts + 1,)
        Where they begin and end.
    n_columns : int
    count : callable
        Told of every number of rows that was read.
    """

    def __init__(self, workers, bounds, n_columns, count):
        self._workers, self._count = workers, count
        self._parts = [slice(start, stop) for start, stop in pairwise(bounds)]
        self.shape = int(bounds[-1]), n_columns
        self.size = self.shape[0] * n_columns

    @cached_property
    def squares(self):
        """Squared norms of the rows, shape (n_rows,)."""
        return self._rows_of("squared_norms")

    def whole(self):
        """All of it as a float64 array, for few columns."""
        return self._rows_of("whole")

    def take(self, mask):
        """The rows of a mask, in float64."""
        return np.concatenate(self._workers.each("take", [(mask[part],) for part in self._parts]))

    def taken(self, mask):
        """The same with the positions of the rows."""
        if mask.any():
            yield np.flatnonzero(mask), self.take(mask)

    def observe(self, few):
        """The same as ``along``, and the ``squares`` in passing."""
        self._count(len(self))
        along, squares = zip(*self._workers.all("observed", few), strict=True)
        self.squares = np.concatenate(squares)
        return np.concatenate(along)

    def along(self, few):
        """``rows @ few.T``: coordinates along few vectors."""
        return self._rows_of("along", few)

    def combine(self, weights):
        """``weights @ rows``: few combinations."""
        self._count(len(self))
        # in the order of the partitions, whichever worker has them: the same sum every time
        return sum(self._workers.each("combine", [(weights[:, part],) for part in self._parts]))

    def _rows_of(self, method, *args):
        self._count(len(self))
        return np.concatenate(self._workers.all(method, *args))


class Part(RowSource):
    """The rows of one partition, on its worker."""

    def squared_norms(self):
        """Squared norms of the rows, shape (n_rows,)."""
        return self.squares

    def observed(self, few):
        """Coordinates along few vectors, and the squared norms."""
        return self.observe(few), self.squares


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


@dataclass(frozen=True)
class Recipe:
    """How a partition is made of its chunks."""

    matrix: object
    sizes: tuple
    n_columns: int
    dtype: np.dtype


def make_part(source):
    """A partition, on its worker."""
    recipe, chunks = source
    return Part(recipe.matrix.over(Chunks(chunks, recipe.sizes, recipe.n_columns, recipe.dtype)))


def worker_rows(client, matrix, store, count):
    """The rows of a lazy matrix on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
    matrix : LazyMatrix
        Of the genes in use.
    store : dask.array.Array
        What it reads, chunked by rows.
    count : callable
        Told of every number of rows that was read.

    Returns
    -------
    WorkerRows
    """
    sizes = store.chunks[0]
    starts = np.cumsum([0, *sizes])
    n_parts = min(len(sizes), PARTS_PER_THREAD * max(1, sum(client.nthreads().values())))
    # adjoining chunks, about as many rows in every partition
    ends = np.unique(np.searchsorted(starts, np.linspace(0, starts[-1], n_parts + 1)))
    chunks = list(_chunks(client, store))
    sources = []
    for first, last in pairwise(ends):
        part = matrix.rows(starts[first], starts[last]).over(None)
        recipe = Recipe(part, tuple(sizes[first:last]), store.shape[1], store.dtype)
        sources.append((recipe, chunks[first:last]))
    return WorkerRows(Workers(client, make_part, sources), starts[ends], matrix.shape[1], count)


def _chunks(client, store):
    """Every chunk: its part of the graph; a future where it, or what it is made of, lies on workers already."""
    from distributed import futures_of

    graph, held = store.__dask_graph__(), bool(futures_of(store))
    for number, (key,) in enumerate(store.__dask_keys__()):
        yield client.compute(store.blocks[number]) if held else Chunk(dict(graph.cull({key})), key)
