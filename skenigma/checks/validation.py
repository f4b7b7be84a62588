"""Checks of what users pass in, and the one place that imports scikit-learn's private helpers."""

import threading
from contextlib import contextmanager

import numpy as np
import pandas as pd
from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.parallel import _get_threadpool_controller
from sklearn.utils.parallel import _threadpool_controller_decorator as limit_blas_threads
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .annotation import refuse_annotation
from .entries import check_finite, check_nonnegative
from .genes import Profiles
from .labels import column_labels, match_cell_types, match_rows
from .names import (
    SHOWN,
    column_names,
    listing,
    name_at,
    numbered,
    refuse_repeats,
    row_names,
)
from .numbers import refuse_masked
from .tables import as_pandas, check_table, homogeneous_values, is_as_asked, refuse_anndata, text_named

__all__ = [
    "HasMethods",
    "Interval",
    "StrOptions",
    "check_bulk",
    "check_deconvolver",
    "check_lazy_bulk",
    "check_profiles",
    "check_proportions",
    "few_blas_threads",
    "fit_context",
    "limit_blas_threads",
]

# Published tables of proportions are rounded; rows further than this from 1 are a mistake.
SUM_TOLERANCE = 0.05


_here = threading.local()


@contextmanager
def few_blas_threads(few):
    """Context in which the BLAS runs on one thread, if ``few``."""
    if not few or getattr(_here, "is_limited", False):  # to ask the libraries once more takes 0.1 ms
        yield
        return
    with _get_threadpool_controller().limit(limits=1, user_api="blas"):
        _here.is_limited = True
        try:
            yield
        finally:
            _here.is_limited = False


def check_deconvolver(model):
    """Refuse what is no fitted model of cell-type-specific expression."""
    check_is_fitted(model)
    if not hasattr(model, "cell_type_expression"):
        raise ValueError(
            f"{type(model).__name__} does not estimate cell-type-specific expression: pass a fitted deconvolver, "
            f"which may be a step of a Pipeline or the best_estimator_ of a search."
        )


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
    refuse_anndata(X, "X")
    refuse_masked(X, "X")
    X = as_pandas(X)
    names = column_names(X, "X")
    rows = row_names(X)
    if reset:
        refuse_repeats(names, "Genes of X", "Sum, average or drop the repeated columns first.")
    checks = {
        "dtype": [np.float64, np.float32],
        "ensure_all_finite": False,
        "ensure_min_samples": min_samples,
    }
    values = X if is_as_asked(X, **checks) else homogeneous_values(X)
    with text_named(X, "X"), _other_genes(estimator):
        if values is X:
            validate_data(estimator, X, reset=reset, skip_check_array=True)
        elif values is None:
            values = validate_data(estimator, X, reset=reset, **checks)
        else:
            values = check_array(values, estimator=estimator, input_name="X", **checks)
            validate_data(estimator, X, reset=reset, skip_check_array=True)
    refuse_annotation(rows, values, "X", "sample")
    check_finite(values, "X", rows, names)
    return values


def check_lazy_bulk(estimator, X, *, reset, min_samples=1):
    """The same of a matrix that is not in memory, but for its values, which :func:`examine` sees to.

    Parameters
    ----------
    estimator, reset, min_samples
        As of :func:`check_bulk`.
    X : LazyMatrix
    """
    names, rows = column_names(X, "X"), row_names(X)
    if reset:
        refuse_repeats(names, "Genes of X", "Sum, average or drop the repeated columns first.")
    if len(X) < min_samples or not X.shape[1]:
        raise ValueError(
            f"X has {X.shape[0]} sample(s) and {X.shape[1]} gene(s), and needs at least {min_samples} and 1."
        )
    described = np.broadcast_to(0.0, X.shape)  # scikit-learn looks at nothing but names and shape
    if names is not None:
        described = pd.DataFrame(np.empty((0, X.shape[1])), columns=names)
    with _other_genes(estimator):
        validate_data(estimator, described, reset=reset, skip_check_array=True)
    refuse_annotation(rows, X, "X", "sample")


@contextmanager
def _other_genes(estimator):
    """Say how to bring columns into the order of the fit, where scikit-learn refuses them."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("The feature names should match"):
            raise
        other = ""
        if hasattr(estimator, "predict_expression"):
            other = ", or predict_expression(X), which finds the genes by name, in any order"
        raise ValueError(f"{str(error).rstrip()}\nPass X[model.feature_names_in_]{other}.") from None


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
    refuse_anndata(reference, "reference")
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
    refuse_annotation(cell_types, values, "reference", "cell type")
    check_finite(values, "reference", cell_types, genes)
    if cell_types is None:
        cell_types = numbered("celltype", len(values))
    return Profiles(values, cell_types, genes)


def _cell_types(reference):
    """Names of the rows; None for arrays and for rows numbered 0, 1, 2, ..."""
    index = getattr(reference, "index", None)
    if isinstance(index, pd.RangeIndex) and not index.equals(pd.RangeIndex(len(index))):
        return np.array([str(number) for number in index], dtype=object)
    return row_names(reference)


def check_proportions(proportions, cell_types, n_samples, samples):
    """Proportions as an array (n_samples, n_cell_types), in the order of ``samples`` and ``cell_types``.

    Columns and rows of a frame are matched by their labels, see :mod:`.labels`, those of an array by position.

    Parameters
    ----------
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
    cell_types : ndarray of str
    n_samples : int
    samples : ndarray of str, RangeIndex, or None
        Labels of the bulk samples, as from ``row_labels``.

    Returns
    -------
    proportions : ndarray of shape (n_samples, n_cell_types)
    """
    proportions = as_pandas(proportions)
    columns, rows = column_labels(proportions), row_names(proportions)
    refuse_repeats(columns, "Cell types in the columns of proportions", "Names must be unique.")
    values = check_table(proportions, "proportions", dtype=[np.float64, np.float32], ensure_all_finite=False)
    order = match_cell_types(columns, cell_types, "columns of proportions")
    matched = match_rows(proportions, samples, "rows of proportions")
    values = values[:, order][matched]
    if values.shape != (n_samples, len(cell_types)):
        raise ValueError(
            f"proportions have shape {values.shape}, but X and reference need {(n_samples, len(cell_types))}: "
            f"one row per sample of X and one column per cell type ({listing(cell_types)})."
        )
    rows, columns = None if rows is None else rows[matched], cell_types
    check_finite(values, "proportions", rows, columns)
    check_nonnegative(values, "proportions", rows, columns, "Proportions must be at least 0.")
    sums = values.sum(axis=1)
    off = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(off):
        shown = ", ".join(f"{name_at(rows, j)}: {sums[j]:.4g}" for j in off[:SHOWN])
        raise ValueError(
            f"proportions of {len(off)} sample(s) do not sum to 1 ({shown}). Divide every row by its sum, or "
            f"add the cell types that are missing."
        )
    return values
