"""Cohorts that are not in memory: what is stored on disk, or computed in pieces, as a matrix that is read by rows.

Estimators take, wherever they take a bulk, whatever gives slices of rows: ``numpy.memmap``, datasets of h5py, arrays
of Zarr, dask arrays chunked by rows, and AnnData whose ``X`` is one of these or is backed by a file, dense or CSR.
They read it as a :class:`LazyMatrix`, a few blocks of samples at a time. The packages of these inputs are recognised
by the names of their modules, and never imported for anything else.
"""

from ._matrix import BLOCK_BYTES, LazyMatrix
from ._open import is_lazy, lazy_matrix, open_bulk

__all__ = ["BLOCK_BYTES", "LazyMatrix", "is_lazy", "lazy_matrix", "open_bulk"]
