"""Cohorts that are not in memory: what is stored on disk, or computed in pieces, as a matrix that is read by rows.

Estimators take, wherever they take a bulk, whatever gives slices of rows: ``numpy.memmap``, datasets of h5py, arrays
of Zarr, dask arrays chunked by rows, and AnnData whose ``X`` is one of these or is backed by a file, dense or CSR.
They read it as a :class:`LazyMatrix`, a few blocks of samples at a time. The packages of these inputs are recognised
by the names of their modules, and never imported for anything else.
"""

import os
import threading
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import numpy as np
import pandas as pd
from joblib import cpu_count

from ._dask import active_client
from .checks.memory import check_memory
from .checks.names import name_at
from .checks.optional import import_optional
from .checks.tables import is_anndata
from .core.optimize.partitions import in_threads

__all__ = ["LazyMatrix", "lazy_matrix"]

# Bytes of a block of rows, in float64.
BLOCK_BYTES = 2**25
# Blocks grow to whole chunks of the store up to this many times their size: a chunk is decompressed as a whole.
LARGEST_CHUNK = 8
# Bytes from which on a memory map is read by rows. A smaller one is an array like any other.
MAPPED_BYTES = 2**26
# Columns by which a change of a sample is noticed: whoever rescales, overwrites or deletes it changes most of them.
WATCHED = 64
# Rows that are picked one by one where fewer than this share of a stretch is asked for.
PICKED = 0.25


class LazyMatrix:
    """A bulk that is read by blocks of samples whenever it is needed, and is never in memory as a whole.

    Made by :func:`lazy_matrix`. Slices of rows are arrays; a choice of columns is as lazy as the matrix.

    Parameters
    ----------
    source : object
        Answers ``read(start, stop)``, rows as a dense array, and ``check()``, and has ``shape``, ``dtype`` and
        ``chunk_rows``, the number of rows that are stored together.
    index, columns : Index or None
        Names of samples and genes; None where there are none.
    block_bytes : int
        Size of the blocks in which it is read, in bytes of float64 values.

    Attributes
    ----------
    dtype : dtype
        float32 if the source is, else float64: what rows are converted to as they are read.
    block_rows : int
        Rows of a block: whole chunks of the store where a chunk is not much larger than ``block_bytes``.
    readings : float
        How often the source has been read so far: rows read, over rows there are. Selections of one matrix count
        together.

    Raises
    ------
    ValueError
        When rows are read: if the source is gone, cannot be read, or has changed since it was first read. The
        message names the samples.
    """

    ndim = 2

    def __init__(self, source, *, index=None, columns=None, block_bytes=BLOCK_BYTES):
        self._source = source
        self.index, self.columns = index, columns
        self.dtype = np.dtype(np.float32 if source.dtype == np.float32 else np.float64)
        self._genes, self._function, self._start = None, None, 0
        self._n_rows, self._n_columns = source.shape
        self._seen = _Seen(source.shape)
        self.facts = None
        step = max(1, int(block_bytes) // max(1, 8 * source.shape[1]))
        chunk = source.chunk_rows
        if chunk <= LARGEST_CHUNK * step:
            step = max(1, step // chunk) * chunk
        self.block_rows = step

    @property
    def shape(self):
        """Numbers of samples and genes."""
        return self._n_rows, self._n_columns

    @property
    def size(self):
        """Number of entries."""
        return self._n_rows * self._n_columns

    @property
    def itemsize(self):
        """Bytes of an entry as it is read."""
        return self.dtype.itemsize

    @property
    def nbytes(self):
        """Bytes of all entries."""
        return self.size * self.itemsize

    @property
    def first_row(self):
        """Where the first of its rows stands in the source."""
        return self._start

    @property
    def readings(self):
        """How often the source has been read."""
        return self._seen.n_rows_read / max(1, self._source.shape[0])

    def __len__(self):
        return self._n_rows

    def __repr__(self):
        return f"LazyMatrix(shape={self.shape}, dtype={self.dtype}, block_rows={self.block_rows})"

    def select(self, genes):
        """The same matrix of some of its genes.

        Parameters
        ----------
        genes : None or ndarray of int
            Positions, in the order wanted; None is all.

        Returns
        -------
        matrix : LazyMatrix
            Of these.
        """
        if genes is None:
            return self
        if self._function is not None:
            raise ValueError("Genes are selected before a matrix is transformed.")
        chosen = self._derived()
        chosen._genes = genes if self._genes is None else self._genes[genes]
        chosen._n_columns = len(genes)
        chosen.columns = None if self.columns is None else self.columns[genes]
        return chosen

    def rows(self, start, stop):
        """The same matrix of a stretch of its rows.

        Parameters
        ----------
        start, stop : int
            Which ones.

        Returns
        -------
        matrix : LazyMatrix
            Of these.
        """
        part = self._derived()
        part._start, part._n_rows = self._start + start, max(0, min(stop, self._n_rows) - start)
        part.index = None if self.index is None else self.index[start:stop]
        return part

    def over(self, source):
        """The same rows, read from another source.

        Parameters
        ----------
        source : object or None
            Which holds these rows and no other, or None: then they cannot be read, and are small to send.

        Returns
        -------
        matrix : LazyMatrix
            That does not know what this one has seen.
        """
        moved = self._derived()
        if moved.index is None:  # messages call them by their number in the cohort
            moved.index = pd.RangeIndex(self._start, self._start + self._n_rows)
        moved._source, moved._start = source, 0
        moved._seen = None if source is None else _Seen(source.shape)
        return moved

    def place(self):
        """Where the partitions of a fit are to be, see :mod:`skenigma.core.optimize.partitions`.

        Returns
        -------
        place : callable
            On the workers of the active client, for a dask array; else in threads.
        """
        return self._on_workers() or in_threads(cpu_count())

    def _on_workers(self):
        """The workers of the active client, for a whole dask array; else None."""
        store = getattr(self._source, "store", None)
        client = active_client() if _package(store) == "dask" and len(store) == len(self) else None
        if client is None:
            return None
        from ._dask.rows import OnWorkers

        return OnWorkers(client, store)

    def apply(self, function):
        """The same matrix with every block sent through a function that changes values, not the shape.

        Parameters
        ----------
        function : callable
            New array from an array.

        Returns
        -------
        matrix : LazyMatrix
            Of what it answers.
        """
        changed, before = self._derived(), self._function
        changed._function = function if before is None else lambda block: function(before(block))
        return changed

    def _derived(self):
        derived = copy(self)
        derived.facts = None
        return derived

    @contextmanager
    def held(self, rows):
        """Context in which a stretch of rows is read once, however often it, or a part of it, is asked for.

        Parameters
        ----------
        rows : slice
            Which ones.
        """
        start, stop = self._start + rows.start, self._start + rows.stop
        whole = self._read(rows.start, rows.stop)
        before, self._seen.held = self._seen.held, (start, stop, whole)
        try:
            yield
        finally:
            self._seen.held = before

    def blocks(self):
        """Read all of it.

        Yields
        ------
        rows : slice
            Which ones.
        block : ndarray of shape (n_rows, n_columns)
            Their values.
        """
        for start in range(0, self._n_rows, self.block_rows):
            rows = slice(start, min(start + self.block_rows, self._n_rows))
            yield rows, self[rows]

    def whole_blocks(self):
        """Read all of it with the genes that are not selected, for checks of the source as it is.

        Yields
        ------
        rows : slice
            Which ones.
        whole : ndarray of shape (n_rows, n_columns_of_the_source)
            All their values, before any function.
        block : ndarray of shape (n_rows, n_columns)
            Those of this matrix.
        """
        for start in range(0, self._n_rows, self.block_rows):
            rows = slice(start, min(start + self.block_rows, self._n_rows))
            whole = self._read(rows.start, rows.stop)
            yield rows, whole, self._chosen(whole)

    def each(self, function):
        """Answers of a function of every block, computed where the blocks are read.

        Parameters
        ----------
        function : callable
            Of the rows of a block as a slice, their names or numbers, and what :meth:`whole_blocks` has of them. Its
            answers are small; both can be pickled.

        Yields
        ------
        rows : slice
            Which ones.
        answer : object
            Of the function.
        """
        place = self._on_workers()
        if place is None:
            yield from _visited(self, function)
            return
        with place(_Visited, self, np.arange(self._n_rows)) as parts:
            for answers in parts.all("visit", function):
                yield from answers

    def __getitem__(self, key):
        if isinstance(key, tuple):
            rows, columns = key
            if columns is Ellipsis:  # as scikit-learn has them
                return self[rows]
            if np.ndim(rows) == 2:  # as numpy.ix_ has them
                rows, columns = np.ravel(rows), np.ravel(columns)
            elif np.ndim(rows) and np.ndim(columns):
                raise IndexError("A lazy matrix takes positions along one axis at a time: use numpy.ix_.")
            return self[rows][..., columns]
        if isinstance(key, slice):
            start, stop, step = key.indices(self._n_rows)
            if step == 1:
                return self._chosen(self._read(start, max(start, stop)))
            key = np.arange(start, stop, step)
        if np.ndim(key) == 0:
            position = range(self._n_rows)[key]
            return self[position : position + 1][0]
        return self._picked(np.arange(self._n_rows)[np.asarray(key)])

    def __array__(self, dtype=None, copy=None):
        check_memory(
            self.nbytes,
            f"A bulk of {self.shape[0]:,} samples and {self.shape[1]:,} genes as one array",
            FEWER,
        )
        values = self[:]
        return values if dtype is None else values.astype(dtype, copy=False)

    def _picked(self, positions):
        """Rows at any positions, in this order."""
        what = f"{len(positions):,} samples of a bulk that is read by rows, as one array,"
        check_memory(len(positions) * self._n_columns * self.itemsize, what, FEWER)
        found = np.empty((len(positions), self._n_columns), dtype=self.dtype)
        known = {} if self.facts is None else self.facts.spaced
        seen = np.array([position in known for position in positions], dtype=bool)
        for place in np.flatnonzero(seen):
            found[place] = known[positions[place]]
        block = positions // self.block_rows
        for number in np.unique(block[~seen]):
            where = np.flatnonzero((block == number) & ~seen)
            asked = positions[where]
            first, last = asked.min(), asked.max() + 1
            if len(asked) >= PICKED * (last - first):
                found[where] = self[first:last][asked - first]
            else:
                self._pick(asked, where, found)
        return found

    def _pick(self, positions, where, found):
        """Few rows that lie apart, written where they belong: what a chunk of the source has of them at a time."""
        chunk = (self._start + positions) // self._source.chunk_rows
        for number in np.unique(chunk):
            here = chunk == number
            first, last = positions[here].min(), positions[here].max() + 1
            found[where[here]] = self[first:last][positions[here] - first]

    def _chosen(self, whole):
        """Genes in use of whole rows, on the scale of this matrix."""
        block = whole if self._genes is None else whole[:, self._genes]
        return block if self._function is None else self._function(block)

    def _read(self, start, stop):
        """All columns of these rows, counted and compared with what they held before."""
        start, stop = self._start + start, self._start + stop
        if stop <= start:
            return np.empty((0, self._source.shape[1]), dtype=self.dtype)
        if self._seen.held is not None and self._seen.held[0] <= start and stop <= self._seen.held[1]:
            return self._seen.held[2][start - self._seen.held[0] : stop - self._seen.held[0]]
        try:
            self._source.check()
            block = np.asarray(self._source.read(start, stop))
        except ChangedError as error:
            raise ValueError(f"X {error}: {NOT_KEPT}") from error
        except Exception as error:
            raise ValueError(
                f"X could not be read at samples {self._named(start)} to {self._named(stop - 1)}, it is gone or "
                f"damaged: {type(error).__name__}: {error}"
            ) from error
        if block.shape != (stop - start, self._source.shape[1]):
            raise ValueError(f"X has changed its shape: {NOT_KEPT}")
        block = block.astype(self.dtype, copy=False)
        changed = self._seen.changed(start, block)
        if changed is not None:
            raise ValueError(f"X has changed, at least in sample {self._named(start + changed)}: {NOT_KEPT}")
        return block

    def _named(self, row):
        row -= self._start
        return name_at(self.index, row)

    # what has been found out when it was read for the first time: see skenigma.checks.facts

    def min(self):
        """Smallest entry."""
        return self._known().minimum

    def max(self, axis=None):
        """Largest entry, or that of every sample."""
        return self._known().maximum if axis is None else self._known().largest

    def sum(self, dtype=None):
        """Sum of all entries."""
        return self._known().totals.sum()

    def any(self, axis):
        """Whether a sample has an entry other than 0."""
        return self._known().filled

    def mean(self, axis, dtype=None):
        """Mean of every gene."""
        return self._known().mean

    def _known(self):
        if self.facts is None:
            raise ValueError("This matrix has not been examined yet.")
        return self.facts


FEWER = "What reads all of it at once needs fewer samples or genes."
NOT_KEPT = (
    "it is read again and again, during a fit and for expression that is built later. Leave it as it is."
)


class _Visited:
    """A stretch of rows with their positions, that is visited block by block on the worker where it is read."""

    def __init__(self, source):
        self._matrix, self._positions = source

    def visit(self, function):
        """Which rows, and what a function answers of them, for each block."""
        return list(_visited(self._matrix, function, self._positions[0]))


def _visited(matrix, function, first=0):
    names = np.arange(matrix.first_row, matrix.first_row + len(matrix))
    names = names if matrix.index is None else np.asarray(matrix.index)
    for some, whole, block in matrix.whole_blocks():
        rows = slice(first + some.start, first + some.stop)
        yield rows, function(rows, names[some], whole, block)


class ChangedError(Exception):
    """A source is no longer what it was."""


class _Seen:
    """What the rows of a source held when they were first read, at a few columns, and how many rows were read."""

    def __init__(self, shape):
        self._columns = slice(None, None, max(1, shape[1] // WATCHED))
        self._marks = np.zeros(shape[0], dtype=np.uint64)
        self._known = np.zeros(shape[0], dtype=bool)
        self._lock = threading.Lock()
        self.held = None  # first and last row of what is in memory for now, and the rows themselves
        self.n_rows_read = 0

    def count(self, n_rows):
        """Take note of rows that were read."""
        with self._lock:
            self.n_rows_read += n_rows

    def changed(self, start, block):
        """First row of a block that is not what it was; None if all are, or are new."""
        self.count(len(block))
        # bits as whole numbers: their sum, modulo 2^64, depends on no order
        bits = np.ascontiguousarray(block[:, self._columns]).view(f"u{block.itemsize}")
        marks = (bits.astype(np.uint64) * np.arange(1, 2 * bits.shape[1], 2, dtype=np.uint64)).sum(axis=1)
        rows = slice(start, start + len(block))
        differs = self._known[rows] & (self._marks[rows] != marks)
        if differs.any():
            return int(np.flatnonzero(differs)[0])
        self._marks[rows], self._known[rows] = marks, True
        return None

    def __getstate__(self):
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock())


class _Array:
    """Rows of anything that is sliced like an array; blocks may be sparse or still to be computed."""

    def __init__(self, store, chunk_rows=1, path=None):
        self.store, self.path = store, path
        self.shape, self.dtype = tuple(store.shape), np.dtype(store.dtype)
        self.chunk_rows = max(1, int(chunk_rows))
        self._stamp = self._stat()

    def _stat(self):
        if self.path is None or not os.path.isfile(self.path):
            return None
        found = os.stat(self.path)
        return found.st_size, found.st_mtime_ns

    def __getstate__(self):
        # what is in a file is opened again where this arrives, whose file may be a copy
        return {**self.__dict__, "store": _in_file(self.store), "_stamp": None}

    def __setstate__(self, state):
        store = state["store"]
        self.__dict__.update(state, store=store.open() if isinstance(store, InFile) else store)
        self._stamp = self._stat()

    def check(self):
        """Refuse a file that is no longer what it was."""
        if self._stamp is not None and self._stat() != self._stamp:
            raise ChangedError(
                f"is gone ({self.path})" if self._stat() is None else f"has been written to ({self.path})"
            )

    def read(self, start, stop):
        """Rows as a dense array."""
        block = self.store[start:stop]
        if hasattr(block, "compute"):  # dask
            block = block.compute()
        return block.toarray() if hasattr(block, "toarray") else block


@dataclass(frozen=True)
class InFile:
    """Where a matrix is in a file, in the place of what reads it, which cannot be sent or kept.

    Attributes
    ----------
    kind : {"memmap", "h5py", "anndata"}
    place : tuple
    """

    kind: str
    place: tuple

    def open(self):
        """What reads it."""
        if self.kind == "memmap":
            path, dtype, shape, offset, order = self.place
            return np.memmap(path, dtype, "r", offset, shape, order)
        path, name = self.place
        found = import_optional("h5py", "anndata", "A bulk in HDF5").File(path, "r")[name]
        if self.kind == "h5py":
            return found
        return import_optional("anndata.io", "anndata", "A sparse bulk in a file").sparse_dataset(found)


def _in_file(store):
    """A store as it can be pickled."""
    if isinstance(store, np.memmap) and isinstance(store.base, mmap):  # no view of another one
        order = "F" if store.flags.f_contiguous and not store.flags.c_contiguous else "C"
        return InFile("memmap", (store.filename, store.dtype, store.shape, store.offset, order))
    kind = _package(store)
    if kind == "h5py":
        return InFile(kind, (store.file.filename, store.name))
    group = getattr(store, "group", None) if kind == "anndata" else None
    if hasattr(group, "file"):
        return InFile(kind, (group.file.filename, group.name))
    return store


def lazy_matrix(X: Any, *, block_bytes: int = BLOCK_BYTES) -> LazyMatrix:
    """A bulk that is read by blocks of samples, to be passed to estimators in the place of what it reads.

    Estimators do this themselves with the inputs named here; it is for another size of blocks, and to count
    readings.

    Parameters
    ----------
    X : array of shape (n_samples, n_genes) that is sliced by rows
        ``numpy.memmap``, a dataset of h5py, an array of Zarr (version 2 or 3), a dask array chunked by rows, a
        sparse CSR dataset of anndata, an AnnData whose ``X`` is one of these, or an array in memory. Of an AnnData
        the names of samples and genes are taken, too.
    block_bytes : int, default=33554432
        About how much of X is in memory at a time, in bytes of float64 values; methods need a few times that. Chunks
        of a store are read as a whole where they are not more than eight times as large.

    Returns
    -------
    matrix : LazyMatrix
        Which knows how often it was read.

    Raises
    ------
    ValueError
        If X is none of these, or cannot be read by rows, such as CSC, or a dask array chunked by columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.cohort import lazy_matrix
    >>> matrix = lazy_matrix(np.arange(12.0).reshape(4, 3))
    >>> matrix[1:3]
    array([[3., 4., 5.],
           [6., 7., 8.]])
    >>> matrix.readings
    0.5
    """
    if isinstance(X, LazyMatrix):
        return X
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return LazyMatrix(_Array(X, path=getattr(X, "filename", None)), block_bytes=block_bytes)
    names = {}
    store = X
    if is_anndata(X):
        store = X.X
        names = {"index": pd.Index(X.obs_names).astype(str), "columns": pd.Index(X.var_names).astype(str)}
    kind = _package(store)
    if kind not in KINDS or not _is_matrix(store):
        raise ValueError(
            f"{type(X).__name__} cannot be read by rows: pass a memory-mapped array, a matrix of h5py or Zarr, a "
            f"dask array chunked by rows, or an AnnData that is backed by a file."
        )
    return LazyMatrix(KINDS[kind](store), block_bytes=block_bytes, **names)


def is_lazy(X):
    """Whether a bulk is read by blocks of rows."""
    return isinstance(X, LazyMatrix)


def open_bulk(X):
    """X itself if it is in memory, else the :class:`LazyMatrix` that reads it."""
    if isinstance(X, LazyMatrix):
        return X
    if isinstance(X, np.memmap) and X.ndim == 2 and X.nbytes >= MAPPED_BYTES:
        return lazy_matrix(X)
    store = X.X if is_anndata(X) else X
    return lazy_matrix(X) if _package(store) in KINDS and _is_matrix(store) else X


def _is_matrix(store):
    return len(getattr(store, "shape", ())) == 2 and hasattr(store, "dtype")


def _package(store):
    """The package that a type comes from, of those whose arrays are read by rows."""
    for kind in type(store).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in KINDS:
            return package
    return None


def _of_h5py(store):
    return _Array(store, store.chunks[0] if store.chunks else 1, store.file.filename)


def _of_zarr(store):
    return _Array(store, (getattr(store, "shards", None) and store.shards[0]) or store.chunks[0])


def _of_dask(store):
    if np.isnan(store.shape[0]):
        raise ValueError(
            "X is a dask array that does not know its number of rows: call X.compute_chunk_sizes()."
        )
    if store.numblocks[1] > 1:
        raise ValueError(
            f"X is a dask array with {store.numblocks[1]} chunks along the genes: a sample must lie in one chunk. "
            f"Pass X.rechunk({{0: 'auto', 1: -1}})."
        )
    return _Array(store, max(store.chunks[0], default=1))


def _of_anndata(store):
    if getattr(store, "format", "csr") != "csr":
        raise ValueError(
            "X is stored by genes (CSC): reading a few samples would read all of it. Write it by samples: "
            "adata.X = adata.X.tocsr() before adata.write_h5ad(...)."
        )
    group = getattr(store, "group", None)
    return _Array(store, path=getattr(getattr(group, "file", None), "filename", None))


KINDS = {"h5py": _of_h5py, "zarr": _of_zarr, "dask": _of_dask, "anndata": _of_anndata}
