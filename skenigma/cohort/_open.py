"""What is passed as a bulk: an array or a table in memory, or what is read by rows."""

from typing import Any

import numpy as np
import pandas as pd

from ..checks.tables import is_anndata
from ._matrix import BLOCK_BYTES, LazyMatrix
from ._sources import KINDS, MappedRows, Rows, package_of

# Bytes from which on a memory map is read by rows. A smaller one is an array like any other.
MAPPED_BYTES = 2**26


def lazy_matrix(X: Any, *, block_bytes: int = BLOCK_BYTES) -> LazyMatrix:
    """A bulk that is read by blocks of samples, to be passed to estimators in place of what it reads.

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
        return LazyMatrix(MappedRows(X) if isinstance(X, np.memmap) else Rows(X), block_bytes=block_bytes)
    names = {}
    store = X
    if is_anndata(X):
        store = X.X
        names = {"index": pd.Index(X.obs_names).astype(str), "columns": pd.Index(X.var_names).astype(str)}
    kind = package_of(store)
    if kind not in KINDS or not _is_matrix(store):
        raise ValueError(
            f"{type(X).__name__} cannot be read by rows: pass a memory-mapped array, a matrix of h5py or Zarr, a "
            f"dask array chunked by rows, or an AnnData that is backed by a file."
        )
    return LazyMatrix(KINDS[kind](store), block_bytes=block_bytes, **names)


def is_lazy(X: Any) -> bool:
    """Whether a bulk is read by blocks of rows."""
    return isinstance(X, LazyMatrix)


def open_bulk(X: Any) -> Any:
    """X itself if it is in memory, else the :class:`LazyMatrix` that reads it."""
    if isinstance(X, LazyMatrix):
        return X
    if isinstance(X, np.memmap) and X.ndim == 2 and X.nbytes >= MAPPED_BYTES:
        return lazy_matrix(X)
    store = X.X if is_anndata(X) else X
    return lazy_matrix(X) if package_of(store) in KINDS and _is_matrix(store) else X


def _is_matrix(store):
    return len(getattr(store, "shape", ())) == 2 and hasattr(store, "dtype")
