"""Covariates of samples, coded as columns of numbers in the same way for the samples of a fit and for others."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .labels import match_rows
from .names import listing


@dataclass(frozen=True)
class Coding:
    """How covariates become columns: numbers as they are, categories as indicators of all but the first.

    Attributes
    ----------
    categories : dict
        Per covariate, in order, its categories; None for numbers.
    """

    categories: dict

    @classmethod
    def fit(cls, frame):
        """From the covariates of a fit; a ValueError if one does not vary."""
        constant = frame.columns[(frame.nunique() < 2).to_numpy()]
        if len(constant):
            raise ValueError(
                f"covariates have the same value in every sample: {listing(list(constant))}. Drop them."
            )
        return cls({name: _categories(frame[name]) for name in frame.columns})

    def apply(self, frame):
        """Columns of any samples, shape (n_samples, n_columns)."""
        if list(frame.columns) != list(self.categories):
            raise ValueError(
                f"covariates are {listing(list(frame.columns))}, but the model was fitted with "
                f"{listing(list(self.categories))}."
            )
        columns = []
        for name, categories in self.categories.items():
            if categories is None:
                columns.append(frame[name].to_numpy(dtype=np.float64))
                continue
            unknown = ~frame[name].isin(categories)
            if unknown.any():
                raise ValueError(
                    f"covariate '{name}' has values that it did not have in the fit: "
                    f"{listing(sorted(map(str, frame[name][unknown].unique())))}."
                )
            columns += [(frame[name] == category).to_numpy(dtype=np.float64) for category in categories[1:]]
        return np.column_stack(columns) if columns else np.empty((len(frame), 0))


def _categories(column):
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return None if numeric else sorted(column.unique(), key=str)


def read_covariates(covariates, n_samples, samples):
    """Covariates as a table with a row per sample, in their order; None stays None.

    Parameters
    ----------
    covariates : DataFrame, Series, or array-like of shape (n_samples,) or (n_samples, n_covariates), or None
        Rows of a table are matched by their labels, see :mod:`.labels`.
    n_samples : int
    samples : ndarray of str, RangeIndex, or None
        Labels of the samples.

    Returns
    -------
    frame : DataFrame, or None
    """
    if covariates is None:
        return None
    given = covariates
    if isinstance(covariates, pd.Series):
        covariates = covariates.to_frame("covariate" if covariates.name is None else covariates.name)
    if not isinstance(covariates, pd.DataFrame):
        values = np.asarray(covariates)
        if values.ndim not in (1, 2):
            raise ValueError(
                f"covariates must be a table, samples × covariates, got the shape {values.shape}."
            )
        values = values.reshape(len(values), -1)
        covariates = pd.DataFrame(values, columns=[f"covariate{i}" for i in range(values.shape[1])])
    frame = covariates.iloc[match_rows(given, samples, "rows of covariates")].infer_objects()
    if len(frame) != n_samples:
        raise ValueError(f"covariates have {len(frame)} rows, but there are {n_samples} samples.")
    frame.columns = [str(name) for name in frame.columns]
    numbers = frame.select_dtypes("number")
    missing = frame.isna().any() | np.isinf(numbers).any().reindex(frame.columns, fill_value=False)
    if missing.any():
        raise ValueError(
            f"covariates have missing or infinite values: {listing(list(frame.columns[missing]))}. Drop these "
            f"samples or covariates."
        )
    return frame
