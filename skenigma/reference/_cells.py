"""Annotated cells, from AnnData or from a matrix and labels, as one validated object that is never densified."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_array

from ..checks.entries import check_finite, check_nonnegative, stored
from ..checks.labels import match_rows, row_labels
from ..checks.names import Noted, column_names, listing, refuse_repeats, row_names
from ..checks.numbers import refuse_masked
from ..checks.scales import LOG_SCALE_MAXIMUM
from ..checks.tables import is_anndata
from ..checks.warning import warn

# Entries held as float64 at a time: 32 MB.
BLOCK_SIZE = 2**22


@dataclass(frozen=True)
class Cells:
    """Expression of single cells, each of a known type.

    Attributes
    ----------
    values : ndarray or csr matrix of shape (n_cells, n_genes)
        In the type they came in.
    codes : ndarray of int, shape (n_cells,)
        Position in ``cell_types``.
    cell_types : ndarray of str
        Types that occur, in the order of the categories where the labels have one, else sorted.
    genes : ndarray of str, or None
        None where the cells carry no gene names.
    """

    values: object
    codes: np.ndarray
    cell_types: np.ndarray
    genes: np.ndarray | None

    def mean_totals(self):
        """Mean total of the cells of each type, if they are counts, else NaN."""
        if not whole(self.values):
            return np.full(len(self.cell_types), np.nan)
        totals = np.asarray(self.values.sum(axis=1), dtype=np.float64).ravel()
        labelled = self.codes >= 0
        sums = np.bincount(self.codes[labelled], totals[labelled], minlength=len(self.cell_types))
        return sums / np.maximum(self.counts(), 1)

    def counts(self):
        """Number of cells of every type."""
        return np.bincount(self.codes, minlength=len(self.cell_types))

    def frequent(self, min_cells):
        """Which types have enough cells; warns of the others, and refuses to go on without any."""
        counts = self.counts()
        kept = counts >= min_cells
        rare = [Noted(*pair) for pair in zip(self.cell_types[~kept], counts[~kept], strict=True)]
        if not kept.any():
            raise ValueError(
                f"No cell type has min_cells={min_cells} cells: {listing(rare)}. Merge types, or lower min_cells."
            )
        if rare:
            warn(
                f"Cell types with fewer than min_cells={min_cells} cells are left out: {listing(rare)}. Their share "
                f"of a bulk sample will go to the others: merge them with a related type, or lower min_cells.",
            )
        return kept


def read_cells(cells, labels, *, layer=None, gene_names=None):
    """Cells and their types, checked.

    Parameters
    ----------
    cells : AnnData, DataFrame, array or sparse matrix of shape (n_cells, n_genes)
        Expression on the linear scale.
    labels : array-like of shape (n_cells,), or str
        Type of each cell. A Series is matched to named cells by its index. A str is a column of ``obs``.
    layer : str, default=None
        Layer of the AnnData, or "raw" for its ``raw``. None is ``X``.
    gene_names : array-like of str, default=None
        Names of the genes, where the cells do not carry them.

    Returns
    -------
    Cells
    """
    matrix, genes = _take_apart(cells, layer)
    if gene_names is not None:
        genes = np.array([str(name) for name in gene_names], dtype=object)
    values = _as_matrix(matrix)
    if genes is not None and len(genes) != values.shape[1]:
        raise ValueError(
            f"gene_names has {len(genes)} names, but cells has {values.shape[1]} columns. Cells must be "
            f"cells × genes: transpose a genes × cells matrix."
        )
    barcodes = cell_names(cells)
    refuse_repeats(
        barcodes, "Cells", "Two cells cannot have one barcode: drop copies, or call obs_names_make_unique()."
    )
    refuse_repeats(
        genes, "Genes of cells", "Sum the repeated columns, or call var_names_make_unique(), first."
    )
    codes, cell_types = encode(cells, labels, values.shape[0], "labels")
    check_finite(values, "cells", barcodes, genes, "Drop these cells or genes first.")
    check_linear(cells, values, layer, barcodes, genes, "cells")
    return Cells(values, codes, cell_types, genes)


def cell_names(cells):
    """Names of the cells, or None."""
    return np.asarray(cells.obs_names, dtype=object) if is_anndata(cells) else row_names(cells)


def _take_apart(cells, layer):
    """Matrix and gene names."""
    if is_anndata(cells):
        return choose_layer(cells, layer)
    if layer is not None:
        raise ValueError(f"layer='{layer}' needs cells in an AnnData, got {type(cells).__name__}.")
    return cells, column_names(cells, "cells")


def choose_layer(data, layer):
    """One matrix of an AnnData in memory, and the names of its columns."""
    if layer is None:
        matrix, genes = _main_matrix(data), data.var_names
    elif layer in data.layers:
        matrix, genes = data.layers[layer], data.var_names
    elif layer == "raw" and data.raw is not None:
        matrix, genes = data.raw.X, data.raw.var_names
    else:
        raise ValueError(f"The AnnData has no layer '{layer}'. It has: {_other_layers(data)}.")
    if matrix is None:
        raise ValueError(f"The AnnData has no X: choose a layer. It has: {_other_layers(data)}.")
    in_memory = getattr(matrix, "to_memory", None)
    return matrix if in_memory is None else in_memory(), np.array([str(name) for name in genes], dtype=object)


def _main_matrix(data):
    """X, or None: one that is read from a file as needed fails where the file has none."""
    try:
        return data.X
    except KeyError:
        return None


def _other_layers(data):
    raw = [] if data.raw is None else ["raw"]
    return listing([*layer_names(data), *raw]) or "no layer, and no raw"


def layer_names(data):
    """Names of the layers of an AnnData; newer versions count X among them, without a name."""
    return [str(name) for name in data.layers if name is not None]


def _obs_column(data, column):
    if column not in data.obs:
        turned = " The AnnData looks transposed: it must be cells × genes." if column in data.var else ""
        others = listing([str(name) for name in data.obs]) or "none"
        raise ValueError(f"obs has no column '{column}'. It has {others}.{turned}")
    return data.obs[column]


def _as_matrix(matrix):
    """The numbers of any kind of table, dense, or by rows where sparse."""
    refuse_masked(matrix, "cells")
    try:
        # finite or not is left to check_finite, which names cells and genes
        return check_array(
            matrix, accept_sparse="csr", dtype="numeric", ensure_all_finite=False, input_name="cells"
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"cells must be a table of numbers, cells × genes: {error}") from error


def encode(cells, labels, n_cells, what):
    """Code of every cell and the names that the codes stand for.

    Parameters
    ----------
    cells : AnnData, DataFrame, array or sparse matrix
    labels : array-like of shape (n_cells,), or str
        A str is a column of ``obs``; a Series is matched to named cells by its index.
    n_cells : int
    what : str
        Name of the labels, for messages.

    Returns
    -------
    codes : ndarray of int, shape (n_cells,)
    names : ndarray of str
        In the order of the categories, where there are any, else sorted.
    """
    barcodes = cell_names(cells)
    if isinstance(labels, str):
        if not is_anndata(cells):
            raise ValueError(
                f"{what}='{labels}' names a column of obs, which needs cells in an AnnData, got "
                f"{type(cells).__name__}: pass one label per cell."
            )
        labels = _obs_column(cells, labels)
    if isinstance(labels, pd.DataFrame):
        labels = _one_column(labels, what)
    if isinstance(labels, pd.Series):
        # labels may be those of all cells, of which some were filtered out since
        wanted = barcodes if barcodes is not None else row_labels(cells)
        labels = labels.iloc[
            match_rows(labels, wanted, f"rows of {what}", "cell", other="cells", superset=True)
        ]
    labels = labels if isinstance(labels, pd.Categorical) else pd.Series(labels)
    # a category that no cell has would be a cell type without a profile
    categorical = pd.Categorical(labels).remove_unused_categories()
    if len(categorical) != n_cells:
        raise ValueError(
            f"{what} has {len(categorical)} entries, but there are {n_cells} cells: one per cell."
        )
    missing = np.flatnonzero(categorical.codes < 0)
    if len(missing):
        named = listing(missing[:5] if barcodes is None else barcodes[missing[:5]], total=len(missing))
        raise ValueError(
            f"{what} of {len(missing)} cell(s) are missing (NaN): {named}. Drop or label these cells."
        )
    names = np.array([str(name) for name in categorical.categories], dtype=object)
    kind = "Cell types of labels" if what == "labels" else f"Names of {what}"
    refuse_repeats(names, f"{kind}, as strings,", "Use one type of label.")
    return categorical.codes.astype(np.intp), names


def _one_column(frame, what):
    if frame.shape[1] != 1:
        raise ValueError(
            f"{what} is a table of {frame.shape[1]} columns ({listing([str(name) for name in frame])}): pass one of "
            f"them."
        )
    return frame.iloc[:, 0]


def check_linear(source, values, layer, rows, genes, what):
    """Refuse what is certainly not linear expression, and warn of what is probably not.

    Parameters
    ----------
    source : object
        What the values were taken from; an AnnData knows more of them.
    values : ndarray or compressed sparse matrix
    layer : str or None
        The layer that was chosen.
    rows, genes : ndarray of str, or None
        Names, for messages.
    what : str
        Name of the values, for messages.
    """
    others = ""
    if is_anndata(source) and (layer_names(source) or source.raw is not None):
        others = f" Another layer may hold them (layer=, --layer): {_other_layers(source)}."
    reason = (
        "Means, mixtures and totals need expression on the linear scale (counts, or counts per 10,000 or per "
        "million): pass values before scaling or taking logarithms." + others
    )
    check_nonnegative(values, what, rows, genes, reason)
    entries = stored(values)
    maximum = entries.max() if entries.size else 0
    if not maximum:
        raise ValueError(f"{what} are all zero: nothing is expressed.")
    # counts of shallow cells are as small as logarithms, but whole
    if maximum >= LOG_SCALE_MAXIMUM or whole(values):
        return
    # scanpy notes its logarithm of X here; it says nothing about a layer
    if layer is None and "log1p" in getattr(source, "uns", ()):
        raise ValueError(f"uns['log1p'] says that X of {what} holds logarithms. {reason}")
    warn(
        f"The largest value of {what} is {maximum:.3g}: is this the logarithm of expression? {reason}",
    )


def whole(values):
    """Whether all values are whole numbers: counts, however small."""
    if values.dtype.kind in "biu":
        return True
    entries = stored(values).reshape(-1)
    blocks = (entries[start : start + BLOCK_SIZE] for start in range(0, entries.size, BLOCK_SIZE))
    return all(np.array_equal(block, np.floor(block)) for block in blocks)


def cell_blocks(values, rows):
    """Some rows of a matrix, a few at a time: (slice into ``rows``, float64 block)."""
    entries = values.nnz if sparse.issparse(values) else values.size
    # by stored entries, of which sparse rows have few
    step = max(1, int(BLOCK_SIZE / max(entries / values.shape[0], 1)))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        yield part, values[rows[part]].astype(np.float64)


def weighted_sums(values, rows, weights, power=1):
    """``weights @ values[rows] ** power``, without a copy of ``values``.

    Parameters
    ----------
    values : ndarray or csr matrix of shape (n_cells, n_genes)
    rows : ndarray of int, shape (n_rows,)
    weights : sparse matrix of shape (n_sums, n_rows)
    power : {1, 2}, default=1

    Returns
    -------
    sums : ndarray of shape (n_sums, n_genes)
    """
    sums = np.zeros((weights.shape[0], values.shape[1]))
    # each block takes the columns of its cells
    weights = weights.tocsc()
    for part, block in cell_blocks(values, rows):
        if power != 1:  # sparse power sums entries that are stored in parts first
            block = block.power(power) if sparse.issparse(block) else block**power
        product = weights[:, part].tocsr() @ block  # in the format of the block, which is not converted
        sums += product.toarray() if sparse.issparse(product) else product
    return sums


def library_sizes(values, rows):
    """Total expression of each of some cells."""
    totals = np.empty(len(rows))
    for part, block in cell_blocks(values, rows):
        totals[part] = np.asarray(block.sum(axis=1)).ravel()
    return totals


@dataclass(frozen=True)
class Members:
    """The cells of the types in use.

    Attributes
    ----------
    rows : ndarray of int, shape (n_members,)
        Position among all cells.
    codes : ndarray of int, shape (n_members,)
        Position of the type among those in use.
    counts : ndarray of int, shape (n_cell_types,)
        Number of cells per type.
    scale : ndarray of shape (n_members,)
        Factor that brings each cell to its library size.
    """

    rows: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, cells, kept, normalize):
        """The cells of the types that are kept."""
        rows = np.flatnonzero(kept[cells.codes])
        # numbered anew, without the types that are left out
        codes = (np.cumsum(kept) - 1)[cells.codes[rows]]
        return cls(rows, codes, np.bincount(codes), library_scale(cells.values, rows, normalize))

    def sums(self, values, weights, power=1):
        """Weighted sums of the cells of each type, over the number of them."""
        indicator = sparse.csr_matrix(
            (weights / self.counts[self.codes], (self.codes, np.arange(len(self.rows)))),
            shape=(len(self.counts), len(self.rows)),
        )
        return weighted_sums(values, self.rows, indicator, power)

    def variances(self, values, means):
        """Variance per type and gene; types of one cell take that of the others."""
        squares = self.sums(values, self.scale**2, power=2)
        # a difference of large numbers may fall below 0 by rounding
        spread = np.maximum(squares - means**2, 0) * self.counts[:, None]
        # a single cell tells nothing of its type's variance
        freedom = self.counts - 1
        pooled = spread.sum(axis=0) / max(freedom.sum(), 1)
        return np.where(freedom[:, None] > 0, spread / np.maximum(freedom, 1)[:, None], pooled)


def library_scale(values, rows, normalize):
    """Factor of each cell that gives it the total asked for."""
    if normalize is None:
        return np.ones(len(rows))
    if normalize != "median":
        check_scalar(normalize, "normalize", Real, min_val=0, include_boundaries="neither")
    totals = library_sizes(values, rows)
    empty = rows[totals == 0]
    if len(empty):
        raise ValueError(
            f"{len(empty)} cell(s) express no gene and cannot be normalized: rows {listing(empty.tolist())}. Drop "
            f"them first."
        )
    return (np.median(totals) if normalize == "median" else normalize) / totals
