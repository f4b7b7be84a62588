"""Expression in AnnData files and stores that are not read into memory, but by blocks of samples."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..checks.names import listing
from ..checks.optional import import_optional
from ..cohort import LazyMatrix, lazy_matrix
from ._anndata import layer_refusal
from ._expression import named, refuse_repeats
from ._kinds import find_kind
from ._stores import check_complete, is_store, open_group, read_element

SPARSE, BY_ROWS = ("csr_matrix", "csc_matrix"), ("array", "csr_matrix")


def open_annotated(path):
    """The group of HDF5 or Zarr at the root of an AnnData, None where a path leads to anything else."""
    path = Path(path)
    check_complete(path)
    if path.is_dir():
        return open_group(path) if is_store(path) else None
    if not path.is_file() or find_kind(path).name != "h5ad":
        return None
    return import_optional("h5py", "anndata", f"Reading {path}").File(path, "r")


def shape_of(group, choices):
    """Numbers of samples and genes of the matrix that is asked for; None where the file does not tell."""
    element = _element(group, choices)
    kind = None if element is None else element.attrs.get("encoding-type")
    if kind == "array":
        return tuple(element.shape)
    return tuple(int(size) for size in element.attrs["shape"]) if kind in SPARSE else None


def is_by_rows(group, choices):
    """Whether samples of that matrix lie in one piece, so that some can be read without the others."""
    return _element(group, choices).attrs["encoding-type"] in BY_ROWS


def _element(group, choices):
    name = {None: "X", "X": "X", "raw": "raw/X"}.get(choices.layer, f"layers/{choices.layer}")
    if choices.layer == "raw" and "layers/raw" in group:
        name = "layers/raw"
    return group.get(name)


def read_rows(group, path, choices, notes, block_bytes):
    """Bulk in an AnnData as a matrix that is read by blocks of samples, with the names of samples and genes.

    Parameters
    ----------
    group : Group
        Of :func:`open_annotated`, of a matrix that has a shape by :func:`shape_of`.
    path : Path
    choices : Choices
    notes : list of str
        Takes a line for everything that is done besides reading.
    block_bytes : int
        Size of a block, in bytes of float64 values.

    Returns
    -------
    bulk : LazyMatrix
    """
    choices.refuse(path, "a matrix with annotation", "quantity", "strandedness")
    element = _element(group, choices)
    if element.attrs["encoding-type"] == "csr_matrix":
        element = _sparse(element)
    matrix = lazy_matrix(element, block_bytes=block_bytes)
    others = listing(list(group.get("layers", ()))) or "no layer"
    refusal = layer_refusal(path, choices.layer, "log1p" in group.get("uns", ()), others)
    if refusal is not None and not _is_whole(matrix):
        raise ValueError(refusal)
    raw = choices.layer == "raw" and "layers/raw" not in group
    samples, var = (
        _names(read_element(group["obs"]).index, path),
        read_element(group["raw/var" if raw else "var"]),
    )
    refuse_repeats(samples, path, "sample")
    matrix.index, matrix.columns = samples, _names(var.index, path)
    if choices.gene_column is not None:
        matrix = _named_by(matrix, var, path, choices.gene_column, notes)
    if matrix.columns.has_duplicates:
        repeated = list(matrix.columns[matrix.columns.duplicated()].unique())
        raise ValueError(
            f"{path} has {len(repeated)} genes named more than once, which reading by blocks of samples does not "
            f"join: {listing(repeated)}. Rename or sum them in the file."
        )
    notes.append(
        f"is read by blocks of {matrix.block_rows:,} samples: {matrix.shape[0]:,} × {matrix.shape[1]:,} values are "
        f"not held in memory"
    )
    return matrix


def _sparse(element):
    try:
        from anndata.io import sparse_dataset
    except ImportError:  # before version 0.11
        from anndata.experimental import sparse_dataset
    return sparse_dataset(element)


def _is_whole(matrix):
    some = matrix[: min(len(matrix), matrix.block_rows)]
    return np.array_equal(some, np.rint(some))


def _names(index, path):
    return named(pd.DataFrame(index=index), path).index


def _named_by(matrix, var, path, column, notes):
    """The matrix on the genes that a column names, by these names."""
    if column not in var:
        raise ValueError(
            f"{path}: var has no column '{column}'. It has {listing(list(map(str, var))) or 'none'}."
        )
    names = var[column].astype(object)
    has_name = (names.notna() & (names.astype(str).str.strip() != "")).to_numpy()
    notes.append(f"took the names of genes from var column '{column}'")
    if not has_name.all():
        notes.append(f"left out {int((~has_name).sum()):,} genes without a name there")
    chosen = matrix.select(np.flatnonzero(has_name))
    chosen.columns = pd.Index(names[has_name].astype(str).str.strip().to_numpy(), dtype=object)
    return chosen


class Prepared:
    """Rows of a matrix, brought to the scale of a fit as they are read: a source of :class:`LazyMatrix`.

    Parameters
    ----------
    matrix : LazyMatrix
    lengths : ndarray of shape (n_genes,), default=None
        By which the genes are divided.
    total : float, default=None
        To which every sample is brought, after that.
    dtype : dtype, default=None
        Of the result; None is that of the matrix.
    """

    def __init__(self, matrix, *, lengths=None, total=None, dtype=None):
        self._matrix, self._lengths, self._total = matrix, lengths, total
        self.shape, self.chunk_rows = matrix.shape, matrix.block_rows
        self.dtype = np.dtype(matrix.dtype if dtype is None else dtype)

    def check(self):
        """Nothing to do: the matrix looks after itself."""

    def read(self, start, stop):
        """Rows as a dense array."""
        # rows that lie in one piece add up in one order, whatever rows are read with them
        block = np.ascontiguousarray(self._matrix[start:stop])
        if self._lengths is not None:
            block = block / self._lengths
        if self._total is not None:
            block = block * (self._total / block.sum(axis=1, dtype=np.float64))[:, None]
        return block.astype(self.dtype, copy=False)


def prepared(matrix, **how):
    """A matrix on the scale of a fit, with its names; see :class:`Prepared`."""
    found = LazyMatrix(Prepared(matrix, **how), index=matrix.index, columns=matrix.columns)
    found.block_rows = matrix.block_rows
    return found
