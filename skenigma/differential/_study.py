"""Phenotype and covariates of a cohort: checked, coded, and the design that they ask for."""

import numpy as np
import pandas as pd

from ..checks.numbers import check_magnitude, refuse_masked
from ..checks.validation import listing, row_names, sample_order
from ..core.regress.generalized import SharedDesign
from ._names import refuse_nonfinite

# Share of a column that must lie beyond the columns before it; less is dependence but for rounding.
DEPENDENT = 1e-7


class Study:
    """Phenotype and covariates of a cohort, checked and coded.

    Attributes
    ----------
    classes : list, or None
        None for a quantity.
    coded : ndarray of shape (n_samples, n_columns)
        An indicator of each class but the first, or the centred quantity.
    covariates : ndarray of shape (n_samples, n_covariates)
        Centred.
    covariate_names : list of str
    """

    def __init__(self, phenotype, covariates, n_samples, samples, fold_change):
        values = _phenotype_series(phenotype, n_samples, samples)
        samples = row_names(values) if samples is None else samples
        self.classes = _classes(values)
        if self.classes is None:
            quantity = values.to_numpy(dtype=np.float64)
            self.coded = (quantity - quantity.mean())[:, None]
        else:
            self._members = np.array([values == label for label in self.classes], dtype=np.float64)
            self.coded = self._members[1:].T
        self.n_samples, self.fold_change = n_samples, fold_change
        if fold_change and (self.classes is None or len(self.classes) > 2):
            found = "is a quantity" if self.classes is None else f"has {len(self.classes)} classes"
            raise ValueError(
                f"fold_change=True compares two classes, but the phenotype {found}: pass fold_change=False."
            )
        self.covariates, self.covariate_names = _covariates(covariates, n_samples, samples)

    def effects(self, values):
        """Effect on each column of ``values``, shape (n_samples, m), not adjusted for covariates."""
        if self.classes is None:
            direction = self.coded[:, 0] / np.sum(self.coded**2)
            return direction @ values
        if self.fold_change:
            values = np.maximum(values, 0)
        return self.compare(self._members / self._members.sum(axis=1, keepdims=True) @ values)

    def compare(self, means):
        """Effects from the means of each class, shape (n_classes, m)."""
        if self.fold_change:
            with np.errstate(divide="ignore", invalid="ignore"):
                return means[1] / means[0]
        return means[1] - means[0] if len(means) == 2 else np.ptp(means, axis=0)

    def design(self, base, what):
        """SharedDesign of ``base`` columns and the covariates, which must add to its rank one by one."""
        self.need(base.shape[1] + len(self.covariate_names))
        columns, collinear = base, []
        for name, column in zip(self.covariate_names, self.covariates.T, strict=True):
            rest = SharedDesign(columns).residuals(column)
            if np.linalg.norm(rest) <= DEPENDENT * np.linalg.norm(column):
                collinear.append(name)
            else:
                columns = np.column_stack([columns, column])
        if collinear:
            raise ValueError(
                f"Collinear covariates: {listing(collinear)} can be computed from {what} and the other covariates. "
                f"Drop them; what goes with the phenotype that closely cannot be told apart from it."
            )
        return SharedDesign(columns)

    def need(self, n_columns):
        """Refuse cohorts that leave no residual."""
        if self.n_samples <= n_columns:
            raise ValueError(
                f"{self.n_samples} samples cannot estimate {n_columns} coefficients and an error: this test needs "
                f"at least {n_columns + 1} samples. Use fewer covariates, classes or cell types."
            )


def _phenotype_series(phenotype, n_samples, samples):
    """Phenotype in the order of the samples, complete and of the right length."""
    refuse_masked(phenotype, "phenotype")
    if isinstance(phenotype, pd.DataFrame) and phenotype.shape[1] == 1:
        phenotype = phenotype.iloc[:, 0]
    if np.ndim(phenotype) != 1:
        raise ValueError(
            f"phenotype must have one value per sample, got the shape {np.shape(phenotype)}: pass a single column."
        )
    values = pd.Series(phenotype)
    if len(values) != n_samples:
        raise ValueError(
            f"phenotype has {len(values)} values, but there are {n_samples} samples: it must have one per sample."
        )
    values = values.iloc[sample_order(values, samples, "index of phenotype")].infer_objects()
    missing = values.isna().to_numpy()
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        missing = missing | ~np.isfinite(numbers)
        check_magnitude(numbers[~missing], "phenotype")
    if missing.any():
        raise ValueError(
            f"phenotype is NaN or infinite in {missing.sum()} sample(s): {listing(list(values.index[missing]))}. "
            f"Drop these samples before the fit, or give them a value."
        )
    return values


def _classes(values):
    """Classes in order, or None for a quantity."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        classes = list(values.cat.remove_unused_categories().cat.categories)
    else:
        try:
            classes = sorted(values.unique().tolist())
        except TypeError as error:
            raise ValueError(
                f"phenotype mixes types that have no order ({error}): make all of them strings or numbers."
            ) from error
    if len(classes) < 2:
        raise ValueError(
            f"phenotype has only one class, {listing(classes)}: there is nothing to compare it with."
        )
    quantity = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return None if quantity and len(classes) > 2 else classes


def _covariates(covariates, n_samples, samples):
    """Centred columns and their names; categories one-hot encoded without the first."""
    if covariates is None:
        return np.empty((n_samples, 0)), []
    frame = _covariate_frame(covariates)
    if len(frame) != n_samples:
        raise ValueError(f"covariates have {len(frame)} rows, but there are {n_samples} samples.")
    frame = frame.iloc[sample_order(frame, samples, "index of covariates")].infer_objects()
    frame.columns = names = np.array([str(name) for name in frame.columns], dtype=object)
    refuse_nonfinite(frame.isna().any(axis=0).to_numpy(), names, "covariates", "column")
    constant = names[(frame.nunique() == 1).to_numpy()]
    if len(constant):
        raise ValueError(
            f"Collinear covariates: {listing(constant)} have the same value in every sample. Drop them."
        )
    coded = pd.get_dummies(frame.apply(_without_unused), drop_first=True, dtype=np.float64)
    values, names = coded.to_numpy(dtype=np.float64), coded.columns.to_numpy()
    refuse_nonfinite(~np.isfinite(values).all(axis=0), names, "covariates", "column")
    for name, column in zip(names, values.T, strict=True):
        check_magnitude(column, f"covariate '{name}'")
    return values - values.mean(axis=0), list(names)


def _without_unused(column):
    """A column without the categories that it does not take: their indicators would be 0."""
    return column.cat.remove_unused_categories() if isinstance(column.dtype, pd.CategoricalDtype) else column


def _covariate_frame(covariates):
    if isinstance(covariates, pd.DataFrame):
        return covariates
    if isinstance(covariates, pd.Series):
        return covariates.to_frame("covariate" if covariates.name is None else covariates.name)
    refuse_masked(covariates, "covariates")
    values = np.asarray(covariates)
    if values.ndim not in (1, 2):
        raise ValueError(f"covariates must be a table, samples × covariates, got the shape {values.shape}.")
    values = values.reshape(len(values), -1)
    counted = [f"covariate{i}" for i in range(values.shape[1])]
    return pd.DataFrame(
        values, columns=getattr(covariates, "columns", counted)
    )  # other frames have names too
