"""Stores that give slices of rows: what is told of each kind, and whether it is still what it was."""

import os
import threading
from dataclasses import dataclass
from mmap import ALLOCATIONGRANULARITY, mmap

import numpy as np

from ..checks.optional import import_optional

# Columns by which a change of a sample is noticed: whoever rescales, overwrites or deletes it changes most of them.
WATCHED = 64


class ChangedError(Exception):
    """A source is no longer what it was."""


class Seen:
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


class Rows:
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
        return {**self.__dict__, "store": _in_file(self.store)}

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


class MappedRows(Rows):
    """Rows of a memory map, read from its file: a map whose file is cut short ends the process when it is touched."""

    def __init__(self, store):
        super().__init__(store, path=store.filename)

    def read(self, start, stop):
        """Rows as a dense array."""
        first = _first_byte(self.store) if self.path is not None else None
        if first is None or not os.path.isfile(self.path):
            return self.store[start:stop]
        n_columns, n_rows = self.shape[1], stop - start
        offset = first + start * n_columns * self.dtype.itemsize
        found = np.fromfile(self.path, self.dtype, n_rows * n_columns, offset=offset)
        if len(found) < n_rows * n_columns:
            raise ChangedError(f"has been cut short ({self.path})")
        return found.reshape(n_rows, n_columns)


def _first_byte(mapped):
    """Where a map begins in its file; None where its rows do not lie there one after the other."""
    base = mapped
    while isinstance(base, np.ndarray):
        base = base.base
    # what is written to a copy of pages is in no file
    if mapped.mode == "c" or not mapped.flags.c_contiguous or not isinstance(base, mmap):
        return None
    pages = np.frombuffer(base, np.uint8).ctypes.data
    return mapped.ctypes.data - pages + mapped.offset - mapped.offset % ALLOCATIONGRANULARITY


@dataclass(frozen=True)
class InFile:
    """Where a matrix is in a file, in place of what reads it, which cannot be sent or kept.

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
    # no view of another map, and none whose changes are in no file
    if isinstance(store, np.memmap) and store.mode != "c" and isinstance(store.base, mmap):
        order = "F" if store.flags.f_contiguous and not store.flags.c_contiguous else "C"
        return InFile("memmap", (store.filename, store.dtype, store.shape, store.offset, order))
    kind = package_of(store)
    if kind == "h5py":
        return InFile(kind, (store.file.filename, store.name))
    group = getattr(store, "group", None) if kind == "anndata" else None
    if hasattr(group, "file"):
        return InFile(kind, (group.file.filename, group.name))
    return store


def package_of(store):
    """The package that a type comes from, of those whose arrays are read by rows."""
    for kind in type(store).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in KINDS:
            return package
    return None


def _of_h5py(store):
    return Rows(store, store.chunks[0] if store.chunks else 1, store.file.filename)


def _of_zarr(store):
    return Rows(store, (getattr(store, "shards", None) and store.shards[0]) or store.chunks[0])


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
    return Rows(store, max(store.chunks[0], default=1))


def _of_anndata(store):
    if getattr(store, "format", "csr") != "csr":
        raise ValueError(
            "X is stored by genes (CSC): reading a few samples would read all of it. Write it by samples: "
            "adata.X = adata.X.tocsr() before adata.write_h5ad(...)."
        )
    group = getattr(store, "group", None)
    return Rows(store, path=getattr(getattr(group, "file", None), "filename", None))


KINDS = {"h5py": _of_h5py, "zarr": _of_zarr, "dask": _of_dask, "anndata": _of_anndata}
