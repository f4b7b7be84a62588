"""Checks of what users pass in, and the one place that imports scikit-learn's private helpers."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.parallel import _get_threadpool_controller
from sklearn.utils.parallel import _threadpool_controller_decorator as limit_blas_threads
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .numbers import (
    RESCALE,
    check_magnitude,
    of_objects,
    quoted,
    refuse_masked,
    shortened,
    unconvertible,
)
from .warning import warn

__all__ = [
    "HasMethods",
    "Integral",
    "Interval",
    "Noted",
    "Profiles",
    "Real",
    "StrOptions",
    "check_bulk",
    "check_deconvolver",
    "check_finite",
    "check_nonnegative",
    "check_profiles",
    "check_proportions",
    "check_selection",
    "check_table",
    "few_blas_threads",
    "fit_context",
    "limit_blas_threads",
    "listing",
    "match_genes",
    "names_of",
    "numbered",
    "refuse_repeats",
    "row_names",
    "sample_order",
    "stored",
]

# Published tables of proportions are rounded; rows further than this from 1 are a mistake.
SUM_TOLERANCE = 0.05
SHOWN = 5

# Panels of genes from two platforms share more than this part of the smaller one.
LOW_SHARE = 0.25
SAME_IDENTIFIERS = "Use the same kind of gene identifier in both, and genes as columns."
TRANSPOSED_REFERENCE = " The reference looks transposed: it must be cell types × genes, so pass reference.T."
TRANSPOSED_BULK = " X looks transposed: it must be samples × genes, so pass X.T."
IDENTIFIERS = {
    "Ensembl gene identifiers": r"(?i)ENS[A-Z]*G\d{6,}(\.\d+)?",
    "Ensembl transcript identifiers": r"(?i)ENS[A-Z]*T\d{6,}(\.\d+)?",
    "numbers as of Entrez": r"\d+",
}
# Ways in which identifiers of one kind differ, and how to even them out.
SPELLINGS = {
    "spaces around the names": lambda names: names.str.strip(),
    "version suffixes such as '.12'": lambda names: names.str.replace(r"\.\d+$", "", regex=True),
    "case": lambda names: names.str.upper(),
    "genome prefixes such as 'GRCh38_'": lambda names: names.str.replace(
        r"^(GRCh\d+|GRCm\d+|hg\d+|mm\d+)_+", "", regex=True
    ),
    "what follows '|'": lambda names: names.str.replace(r"\|.*$", "", regex=True),
}


@dataclass(frozen=True)
class Profiles:
    """A reference: expression per cell type, with names where it had them.

    Attributes
    ----------
    values : ndarray of shape (n_cell_types, n_genes)
    cell_types : ndarray of str, shape (n_cell_types,)
    genes : ndarray of str, shape (n_genes,), or None
        None where the reference carries no gene names.
    """

    values: np.ndarray
    cell_types: np.ndarray
    genes: np.ndarray | None


def few_blas_threads(few):
    """Context in which the BLAS runs on one thread, if ``few``."""
    return _get_threadpool_controller().limit(limits=1, user_api="blas") if few else nullcontext()


def listing(names, shown=SHOWN, total=None):
    """The first few names, quoted, and how many more there are (of ``total``, where not all are given)."""
    total = len(names) if total is None else total
    names = [f"'{shortened(name)}'" if isinstance(name, str) else str(name) for name in names[:shown]]
    more = f" and {total - shown} more" if total > shown else ""
    return ", ".join(names) + more


def row_names(frame):
    """String row names of a pandas frame, or None where rows have no names of their own."""
    index = getattr(frame, "index", None)
    if not isinstance(index, pd.Index) or not len(index):
        return None
    return _strings(index)


def _strings(labels):
    return (
        np.asarray(labels, dtype=object)
        if len(labels) and all(isinstance(label, str) for label in labels)
        else None
    )


def column_names(frame, what):
    """String column names of a frame, or None for arrays and for frames numbered 0, 1, 2, ...

    Raises
    ------
    ValueError
        If the columns have names that are not strings: matching such genes by position would go wrong in
        silence, and matching them by name would depend on their type.
    """
    columns = getattr(frame, "columns", None)
    if columns is None or isinstance(frame, np.ndarray):
        return None
    names = _strings(columns)
    if names is None and list(columns) != list(range(len(columns))):
        raise ValueError(
            f"The column names of {what} are not strings (the first are {listing(list(columns))}). Gene names "
            f"must be strings: use columns.astype(str), or pass an array to match genes by position."
        )
    return names


def numbered(prefix, count, start=0):
    """Names for what has none."""
    return np.array([f"{prefix}{number}" for number in range(start, start + count)], dtype=object)


def names_of(frame, what, prefix):
    """Column names of a frame; numbered ones of what has none."""
    names = column_names(frame, what)
    return numbered(prefix, np.shape(frame)[-1]) if names is None else names


def refuse_repeats(names, what, remedy):
    """Refuse names that stand more than once."""
    repeated = pd.Index(names)[pd.Index(names).duplicated()].unique() if names is not None else ()
    if len(repeated):
        raise ValueError(f"{what} named more than once: {listing(repeated)}. {remedy}")


def _refuse_entries(bad, kind, what, rows, columns, remedy):
    """Raise a ValueError that names the first entries where ``bad`` (dense or sparse) holds."""
    found = np.transpose(bad.nonzero())
    if len(found):
        first = [_Place(_name(rows, i), _name(columns, j)) for i, j in found[:SHOWN]]
        places = listing(first, total=len(found))
        raise ValueError(f"{what} contains {kind} in {len(found)} place(s): {places}. {remedy}")


class _Place:
    def __init__(self, row, column):
        self.row, self.column = row, column

    def __str__(self):
        return f"(row {self.row}, column {self.column})"


def _name(names, position):
    return position if names is None else f"'{names[position]}'"


def check_deconvolver(model):
    """Refuse what is no fitted model of cell-type-specific expression."""
    check_is_fitted(model)
    if not hasattr(model, "cell_type_expression"):
        raise ValueError(
            f"{type(model).__name__} does not estimate cell-type-specific expression: pass a fitted deconvolver, "
            f"which may be a step of a Pipeline or the best_estimator_ of a search."
        )


def check_finite(values, what, rows, columns, remedy="Impute or drop these samples or genes first."):
    """Refuse NaN and infinity in a dense or compressed sparse matrix, naming the first, and extreme magnitudes."""
    with np.errstate(over="ignore", invalid="ignore"):
        # one pass, no temporary: the rule for clean data
        clean = np.isfinite(np.sum(stored(values)))
    if not clean:
        _refuse_entries(_elementwise(np.isnan, values), "NaN", what, rows, columns, remedy)
        _refuse_entries(_elementwise(np.isinf, values), "infinity (inf)", what, rows, columns, remedy)
    check_magnitude(stored(values), what)


def check_nonnegative(values, what, rows, columns, reason):
    """Refuse negative entries of a dense or compressed sparse matrix, naming the first."""
    entries = stored(values)
    if entries.size and entries.min() < 0:
        _refuse_entries(
            _elementwise(lambda entry: entry < 0, values), "negative values", what, rows, columns, reason
        )


def stored(values):
    """The entries that are held in memory: all of a dense matrix, the explicit ones of a sparse one."""
    return values.data if issparse(values) else values


def _elementwise(function, values):
    """Where a function that is false at 0 holds, as a matrix of the same kind."""
    if not issparse(values):
        return function(values)
    return type(values)((function(values.data), values.indices, values.indptr), shape=values.shape)


def check_bulk(estimator, X, *, reset, min_samples=1):
    """Bulk samples as a float array; sets or checks the feature attributes of ``estimator``.

    Parameters
    ----------
    estimator : estimator
        Whose ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    X : array-like of shape (n_samples, n_features)
    reset : bool
        True in ``fit``.
    min_samples : int, default=1
        Fewest samples accepted.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        float32 if it was, else float64.
    """
    refuse_masked(X, "X")
    X = _as_pandas(X)
    names = column_names(X, "X")
    rows = row_names(X)
    if reset:
        refuse_repeats(names, "Genes of X", "Sum, average or drop the repeated columns first.")
    checks = {
        "dtype": [np.float64, np.float32],
        "ensure_all_finite": False,
        "ensure_min_samples": min_samples,
    }
    values = _homogeneous_values(X)
    with _text_named(X, "X"):
        if values is None:
            values = validate_data(estimator, X, reset=reset, **checks)
        else:
            values = check_array(values, estimator=estimator, input_name="X", **checks)
            validate_data(estimator, X, reset=reset, skip_check_array=True)
    check_finite(values, "X", rows, names)
    return values


def _as_pandas(frame):
    """Other frames with named columns (polars) as pandas, whose names every scikit-learn knows."""
    if isinstance(frame, pd.DataFrame) or not (hasattr(frame, "columns") and hasattr(frame, "to_numpy")):
        return frame
    return pd.DataFrame(frame.to_numpy(), columns=list(frame.columns))


def _homogeneous_values(frame):
    """Values of a pandas frame of one NumPy type, dense or sparse, else None.

    scikit-learn looks at the type of every column, which for a frame of genes takes longer than a fit.
    """
    if not isinstance(frame, pd.DataFrame):
        return None
    if not frame.shape[1]:
        return np.empty(frame.shape)
    first = frame.dtypes.iloc[0]
    numpy_type = isinstance(first, (np.dtype, pd.SparseDtype))
    return frame.to_numpy() if numpy_type and np.all(frame.dtypes == first) else None


def check_table(table, what, **checks):
    """``check_array`` of a table, which names columns of text and takes sparse frames."""
    refuse_masked(table, what)
    values = _homogeneous_values(table)
    with _text_named(table, what):
        return check_array(table if values is None else values, input_name=what, **checks)


@contextmanager
def _text_named(frame, what):
    """Name the columns of text where a frame is no table of numbers."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        text = _text_columns(frame)
        if text:
            raise ValueError(
                f"{what} has {len(text)} column(s) that are not numbers: {listing(text)}. Names of rows must stand "
                f"in the index: read the table with index_col=0. Drop or convert other columns."
            ) from error
        if isinstance(error, OverflowError):
            raise ValueError(f"{what} holds integers that no float can hold: {error}. {RESCALE}") from error
        raise


def _text_columns(frame):
    """Columns of a frame with an entry that is no number."""
    frame = _as_pandas(frame)
    if not isinstance(frame, pd.DataFrame):
        return []
    found = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if of_objects(column) and (text := list(islice(unconvertible(column), 1))):
            found.append(Noted(name, quoted(text[0])))
    return found


@dataclass(frozen=True)
class Noted:
    """A name and what to say of it, for a listing."""

    name: str
    note: object

    def __str__(self):
        return f"'{self.name}' ({self.note})"


def check_profiles(reference, dtype):
    """Reference profiles with their names.

    Parameters
    ----------
    reference : array-like or DataFrame of shape (n_cell_types, n_genes)
    dtype : dtype
        Type to compute in.

    Returns
    -------
    Profiles
    """
    genes = column_names(reference, "reference")
    refuse_repeats(genes, "Genes of reference", "Sum, average or drop the repeated columns first.")
    cell_types = _cell_types(reference)
    refuse_repeats(
        cell_types, "Cell types of reference", "Give every row of the reference a name of its own."
    )
    try:
        values = check_table(reference, "reference", dtype=dtype, ensure_all_finite=False)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The reference must be a table of numbers, cell types × genes, with names in the index: {error}"
        ) from error
    check_finite(values, "reference", cell_types, genes)
    if cell_types is None:
        cell_types = numbered("celltype", len(values))
    return Profiles(values, cell_types, genes)


def _cell_types(reference):
    """Names of the rows, numbers made strings; None for arrays and for rows numbered 0, 1, 2, ..."""
    index = getattr(reference, "index", None)
    if not isinstance(index, pd.Index) or index.equals(pd.RangeIndex(len(index))):
        return None
    return np.array([str(label) for label in index], dtype=object)


def match_genes(profiles, names, shape, samples=None):
    """Positions of the genes that bulk and reference share, in the order of the bulk.

    Parameters
    ----------
    profiles : Profiles
    names : ndarray of str, or None
        Gene names of the bulk.
    shape : tuple
        Numbers of samples and genes of the bulk.
    samples : ndarray of str, default=None
        Names of its samples, to tell if it was turned the wrong way round.

    Returns
    -------
    in_bulk, in_reference : ndarray of int, shape (n_shared,)

    Raises
    ------
    ValueError
        If too few genes are shared, or widths differ and names do not help.

    Warns
    -----
    UserWarning
        If less than a quarter of the smaller side is shared.
    """
    n_cell_types, width = profiles.values.shape
    n_features = shape[1]
    if names is None or profiles.genes is None:
        if width != n_features:
            raise ValueError(_unnamed_mismatch(profiles, names, shape))
        in_bulk = in_reference = np.arange(n_features)
    else:
        position = pd.Index(profiles.genes).get_indexer(pd.Index(names))
        in_bulk = np.flatnonzero(position >= 0)
        in_reference = position[in_bulk]
    if len(in_bulk) < n_cell_types:
        raise ValueError(_too_few(profiles, names, len(in_bulk), samples))
    if names is not None and profiles.genes is not None:
        _warn_of_few_shared(names, profiles.genes, len(in_bulk))
    return in_bulk, in_reference


def _unnamed_mismatch(profiles, names, shape):
    n_cell_types, width = profiles.values.shape
    n_samples, n_features = shape
    nameless = " and ".join(
        side for side, missing in (("X", names is None), ("reference", profiles.genes is None)) if missing
    )
    message = (
        f"X has {n_features} genes (n_features = {n_features}), but reference has {width}, and without gene names on "
        f"{nameless} they can only be matched by position. Give both string column names, or the same genes in the "
        f"same order."
    )
    if n_cell_types == n_features:
        message += TRANSPOSED_REFERENCE
    elif width == n_samples:
        message += TRANSPOSED_BULK
    return message


def _too_few(profiles, names, n_shared, samples):
    n_cell_types, width = profiles.values.shape
    if names is None or profiles.genes is None:
        return (
            f"{n_cell_types} cell types cannot be told apart by {width} gene(s): give at least as many genes as "
            f"cell types (n_features = {width})."
        )
    message = (
        f"X and reference share {n_shared} gene(s), which is too few for {n_cell_types} cell types. X has "
        f"{listing(names)}; reference has {listing(profiles.genes)}."
    )
    if np.isin(profiles.cell_types, names).sum() > n_shared:
        return message + TRANSPOSED_REFERENCE
    if samples is not None and np.isin(profiles.genes, samples).sum() > n_shared:
        return message + TRANSPOSED_BULK
    if samples is not None and np.isin(profiles.cell_types, samples).sum() > n_shared:
        return message + TRANSPOSED_BULK + TRANSPOSED_REFERENCE
    return f"{message} {_cause(names, profiles.genes, n_shared)}{SAME_IDENTIFIERS}"


def _warn_of_few_shared(names, genes, n_shared):
    """Warn if so few genes are shared that their identifiers can hardly be meant to match."""
    fewer = min(len(names), len(genes))
    if n_shared < LOW_SHARE * fewer:
        warn(
            f"X and reference share only {n_shared} genes, of {len(names)} in X and {len(genes)} in reference. X has "
            f"{listing(names)}; reference has {listing(genes)}. {_cause(names, genes, n_shared)}{SAME_IDENTIFIERS}",
        )


def _cause(names, genes, n_shared):
    """The likely reason why gene identifiers do not match, as a sentence, or nothing."""
    names, genes = pd.Index(names), pd.Index(genes)
    kinds = _identifier_kind(names), _identifier_kind(genes)
    if kinds[0] != kinds[1]:
        return f"X seems to have {kinds[0]}, but reference {kinds[1]}: translate one of them. "
    found = {what: len(change(names).intersection(change(genes))) for what, change in SPELLINGS.items()}
    what = max(found, key=found.get)
    # twice as many is not chance
    if found[what] <= 2 * n_shared:
        return ""
    return f"Without regard to {what} they share {found[what]}: spell them alike. "


def _identifier_kind(names):
    """What most of some gene identifiers are."""
    for kind, pattern in IDENTIFIERS.items():
        if np.mean(names.str.fullmatch(pattern)) > 0.5:
            return kind
    return "gene symbols"


def check_proportions(proportions, cell_types, n_samples, samples):
    """Proportions as an array (n_samples, n_cell_types), in the order of ``samples`` and ``cell_types``.

    Columns and rows of a named frame are matched by name, others by position.

    Parameters
    ----------
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
    cell_types : ndarray of str
    n_samples : int
    samples : ndarray of str, or None
        Names of the bulk samples.

    Returns
    -------
    proportions : ndarray of shape (n_samples, n_cell_types)
    """
    columns, rows = column_names(proportions, "proportions"), row_names(proportions)
    refuse_repeats(columns, "Cell types in the columns of proportions", "Names must be unique.")
    values = check_table(proportions, "proportions", dtype=[np.float64, np.float32], ensure_all_finite=False)
    order = (
        None if columns is None else _positions(cell_types, columns, "cell type", "columns of proportions")
    )
    if values.shape != (n_samples, len(cell_types)):
        raise ValueError(
            f"proportions have shape {values.shape}, but X and reference need {(n_samples, len(cell_types))}: "
            f"one row per sample of X and one column per cell type ({listing(cell_types)})."
        )
    if columns is not None:
        values, columns = values[:, order], cell_types
    if rows is not None and samples is not None:
        values = values[_positions(samples, rows, "sample", "rows of proportions")]
        rows = samples
    check_finite(values, "proportions", rows, columns)
    check_nonnegative(values, "proportions", rows, columns, "Proportions must be at least 0.")
    sums = values.sum(axis=1)
    off = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(off):
        shown = ", ".join(f"{_name(rows, j)}: {sums[j]:.4g}" for j in off[:SHOWN])
        raise ValueError(
            f"proportions of {len(off)} sample(s) do not sum to 1 ({shown}). Divide every row by its sum, or "
            f"add the cell types that are missing."
        )
    return values


def check_selection(selection, names, count, kind):
    """Positions that ``selection`` asks for along an axis, as a slice or an array.

    Parameters
    ----------
    selection : None, slice, str, int, or array-like of str, int or bool
        None is everything; names need ``names``.
    names : ndarray of str, or None
    count : int
        Length of the axis.
    kind : str
        What stands along the axis, for messages: "gene".

    Returns
    -------
    positions : slice or ndarray of int
    """
    if selection is None:
        return slice(None)
    if isinstance(selection, slice):
        return selection
    refuse_masked(selection, f"The selection of {kind}s")
    chosen = np.atleast_1d(np.asarray(selection))
    if chosen.dtype.kind == "b":
        if len(chosen) != count:
            raise ValueError(f"The mask of {kind}s has length {len(chosen)}: there are {count}.")
        return np.flatnonzero(chosen)
    if chosen.dtype.kind in "iu":
        beyond = chosen[(chosen < -count) | (chosen >= count)]
        if len(beyond):
            raise ValueError(f"There is no {kind} at position {listing(beyond.tolist())}: there are {count}.")
        return chosen
    if names is None:
        raise ValueError(
            f"{kind}s have no names here: select them by position, slice or mask of length {count}."
        )
    refuse_repeats(names, f"{kind.capitalize()}s", "Select them by position, slice or mask.")
    position = pd.Index(names).get_indexer(pd.Index(chosen.astype(object)))
    unknown = chosen[position < 0]
    if len(unknown):
        raise ValueError(f"There is no {kind} named {listing(unknown.tolist())}. There are {listing(names)}.")
    return position


def _positions(wanted, names, kind, where):
    """Where each wanted name stands among ``names``; a ValueError if one is missing or repeated."""
    refuse_repeats(names, f"In the {where}, {kind}s", "Names must be unique.")
    position = pd.Index(names).get_indexer(pd.Index(wanted))
    missing = np.asarray(wanted, dtype=object)[position < 0]
    if len(missing):
        raise ValueError(
            f"The {where} do not name {kind} {listing(missing)}; they are {listing(names)}. Rename them, or pass "
            f"an array to match by position."
        )
    return position


def sample_order(frame, samples, what):
    """Positions of the rows of a frame in the order of ``samples``; as they stand if either has no names.

    Parameters
    ----------
    frame : DataFrame, Series or array-like
    samples : ndarray of str, or None
    what : str
        What the frame holds: for the message of the ValueError if it does not name a sample.

    Returns
    -------
    positions : ndarray of int, or slice
    """
    names = row_names(frame)
    if names is None or samples is None or np.array_equal(names, samples):
        return slice(None)
    return _positions(samples, names, "sample", what)
