"""Phenotype and covariates of a cohort: checked, coded, and the design that they ask for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..checks.labels import match_rows
from ..checks.names import listing, row_names
from ..checks.numbers import check_magnitude, refuse_masked
from ..checks.warning import warn
from ..core.regress.generalized import SharedDesign
from ..exceptions import SampleWarning

# Share of a column that must lie beyond the columns before it; less is dependence but for rounding.
DEPENDENT = 1e-7
# Residual degrees of freedom below which a variance, and with it every p-value, is a guess.
MIN_DEGREES = 5
# Mean proportion below which a cell type is too rare to be tested.
MIN_PROPORTION = 0.01
# Share of texts that look like numbers above which a variable is taken for a quantity with typing errors in it.
MOSTLY_NUMBERS = 0.5
# What clinical tables write for a missing value, and how many different numbers are grades, not a measurement.
MISSING_WORDS = frozenset(
    (
        "na", "n/a", "nan", "null", "missing", "unknown", "unk", "not reported", "not available", "not applicable",
        "not evaluated", "not done", "indeterminate", "discrepancy", "pending",
    )
)  # fmt: skip
MISSING_NUMBERS = (9, 99, 999, 9999, 77, 88, 777, 888, -9, -99, -999, -9999)
MOST_GRADES = 6
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
BOUND = re.compile(r"[<>]=?|[≤≥~]")


@dataclass(frozen=True)
class Options:
    """How a phenotype is read and compared; see :func:`~skenigma.differential.differential_expression`."""

    fold_change: bool = False
    levels: Sequence | None = None
    reference_level: object = None
    missing: str = "raise"


class Study:
    """Phenotype and covariates of a cohort, checked and coded.

    Parameters
    ----------
    phenotype, covariates : array-like
        See :func:`~skenigma.differential.differential_expression`.
    n_samples : int
        Samples of the cohort.
    samples : ndarray of str, RangeIndex, or None
        Their labels.
    options : Options, default=Options()
        Which samples and classes take part, and how they are compared.

    Attributes
    ----------
    used : ndarray of int, or slice
        Samples of the cohort that are tested.
    n_samples : int
        How many these are.
    classes : list, or None
        The level of reference first; None for a quantity.
    coded : ndarray of shape (n_samples, n_columns)
        An indicator of each class but the first, or the centred quantity.
    covariates : ndarray of shape (n_samples, n_covariates)
        Centred, each of size 1.
    covariate_names : list of str
    """

    def __init__(self, phenotype, covariates, n_samples, samples, options=None):
        options = Options() if options is None else options
        values = _phenotype_series(phenotype, n_samples, samples)
        if row_names(phenotype) is not None:  # and else the samples may have no names: covariates go by these
            samples = row_names(values)
        _refuse_dates(values, "phenotype")
        frame = _matched_covariates(covariates, n_samples, samples)
        values, self.used = _taking_part(values, options, _incomplete(frame, samples, options))
        self.name = "phenotype" if values.name is None else str(values.name)
        self.n_samples, self.fold_change = len(values), options.fold_change
        self.classes = _classes(values, options)
        if self.classes is None:
            quantity = values.to_numpy(dtype=np.float64)
            self.coded = (quantity - quantity.mean())[:, None]
        else:
            self._members = np.array([values == label for label in self.classes], dtype=np.float64)
            self.coded = self._members[1:].T
            self._warn_of_single()
        if self.fold_change and (self.classes is None or len(self.classes) > 2):
            found = "is a quantity" if self.classes is None else f"has {len(self.classes)} classes"
            raise ValueError(
                f"fold_change=True compares two classes, but the phenotype {found}: pass fold_change=False."
            )
        self.covariates, self.covariate_names = _coded_covariates(frame, self.used)
        if frame is None:
            self.covariates = np.empty((self.n_samples, 0))

    @property
    def contrast(self):
        """What an effect compares, in words."""
        if self.classes is None:
            return f"per unit of {self.name}"
        if len(self.classes) > 2:
            return f"largest - smallest mean of {self.name}"
        return f"{self.classes[1]} {'/' if self.fold_change else '-'} {self.classes[0]}"

    def class_sizes(self):
        """Numbers of samples by class; empty for a quantity."""
        return (
            {}
            if self.classes is None
            else dict(zip(self.classes, self._members.sum(axis=1).astype(int), strict=True))
        )

    def _warn_of_single(self):
        """A class of one sample has no spread of its own, and whatever is special to that sample is its effect."""
        single = [label for label, size in self.class_sizes().items() if size == 1]
        # a class or so per sample is refused as soon as the test asks for its design
        if single and self.n_samples >= len(self.classes) + MIN_DEGREES:
            warn(
                f"phenotype has a single sample of {listing(single)}: what changes with such a class cannot be "
                f"told from what is special to its sample, whose spread is taken from the other classes. Compare "
                f"classes of several samples, chosen by levels.",
                SampleWarning,
            )

    def effects(self, values):
        """Effect on each column of ``values``, shape (n_samples, m), not adjusted for covariates."""
        if self.classes is None:
            direction = self.coded[:, 0] / np.sum(self.coded**2)
            return direction @ values
        if self.fold_change:
            # estimates below 0 would give ratios without a meaning
            values = np.maximum(values, 0)
        return self.compare(self._members / self._members.sum(axis=1, keepdims=True) @ values)

    def compare(self, means):
        """Effects from the means of each class, shape (n_classes, m)."""
        if self.fold_change:
            # a mean of 0 is flagged in the table
            with np.errstate(divide="ignore", invalid="ignore"):
                return means[1] / means[0]
        return means[1] - means[0] if len(means) == 2 else np.ptp(means, axis=0)

    def design(self, base, what):
        """SharedDesign of ``base`` columns and the covariates, which must add to its rank one by one."""
        self.need(base.shape[1] + len(self.covariate_names))
        # one by one, so that the message can name those that add nothing
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
                f"Drop them; the effect of a covariate that follows the phenotype so closely cannot be "
                f"separated from it."
            )
        return SharedDesign(columns)

    def need(self, n_columns):
        """Refuse cohorts that leave too little to judge by."""
        if self.n_samples < n_columns + MIN_DEGREES:
            raise ValueError(
                f"{self.n_samples} samples cannot estimate {n_columns} coefficients and an error: this test needs "
                f"at least {n_columns + MIN_DEGREES} samples, {MIN_DEGREES} more than coefficients. Use fewer "
                f"covariates, classes or cell types."
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
    values = pd.Series(phenotype).iloc[match_rows(phenotype, samples, "rows of phenotype")].infer_objects()
    if len(values) != n_samples:
        raise ValueError(
            f"phenotype has {len(values)} values, but there are {n_samples} samples: it must have one per sample."
        )
    return values


def _taking_part(values, options, incomplete=False):
    """The phenotype of the samples that are tested, and which these are; ``incomplete`` ones are left out."""
    if options.missing not in ("raise", "drop"):
        raise ValueError(f"missing must be 'raise' or 'drop', got {options.missing!r}.")
    missing = values.isna().to_numpy()
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        missing = missing | ~np.isfinite(numbers)
        check_magnitude(numbers[~missing], "phenotype")
    if missing.any() and options.missing == "raise":
        raise ValueError(
            f"phenotype is NaN or infinite in {missing.sum()} sample(s): {listing(list(values.index[missing]))}. "
            f"Drop these samples from the test by missing='drop', or give them a value."
        )
    used = ~(missing | incomplete)
    if options.levels is not None:
        unknown = [level for level in options.levels if not (values[used] == level).any()]
        if unknown:
            there = list(pd.unique(values[used]))
            raise ValueError(f"No sample has the level {listing(unknown)}; phenotype has {listing(there)}.")
        used &= values.isin(list(options.levels)).to_numpy()
    values = values[used]
    return values, slice(None) if used.all() else np.flatnonzero(used)


def _refuse_broken_numbers(values, what):
    """Refuse texts of which most are numbers, but not all: an age of ">=90" is no class of its own."""
    if pd.api.types.is_numeric_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype):
        return
    texts = [value.strip() for value in values if isinstance(value, str)]
    # a decimal comma is meant as a number, but read as a text
    plain = [text for text in texts if NUMBER.fullmatch(text) and "," not in text]
    like = [text for text in texts if NUMBER.fullmatch(BOUND.sub("", text).strip())]
    others = sorted({text for text in texts if text not in set(plain)})
    if others and len(like) > MOSTLY_NUMBERS * len(texts):
        raise ValueError(
            f"{what} holds numbers, but also {listing(others)}: write numbers with a decimal point, and leave "
            f"unknown ones empty. If they are classes, make them a pandas Categorical."
        )


def _refuse_spellings(classes):
    """Refuse classes that differ only in case or spaces, of which one is a typing error."""
    spelt = {}
    for label in classes:
        if isinstance(label, str):
            spelt.setdefault(" ".join(label.split()).lower(), []).append(label)
    alike = [label for labels in spelt.values() if len(labels) > 1 for label in labels]
    if alike:
        raise ValueError(
            f"phenotype has classes that differ only in case or spaces: {listing(alike)}. Use one spelling."
        )


def _warn_of_codes(values, classes):
    """Warn of classes, or numbers, that seem to stand for a missing value."""
    codes = [
        label
        for label in classes
        if isinstance(label, str) and label.strip(" []()_.").lower() in MISSING_WORDS
    ]
    numbers = np.array([label for label in classes if not isinstance(label, (str, bool, np.bool_))])
    if len(numbers) == len(classes) and 2 < len(classes) <= MOST_GRADES:
        # beside 0 and 1, or grades
        others = numbers[~np.isin(numbers, MISSING_NUMBERS)]
        if len(others) > 1 and np.ptp(others) < len(numbers) + 1:
            beyond = others.max() + np.ptp(others) + 1
            codes = [label for label in classes if label in MISSING_NUMBERS and not -1 < label < beyond]
    if codes:
        count = int(values.isin(codes).sum())
        warn(
            f"phenotype is {listing(codes)} in {count} sample(s), which seems to stand for a missing value, and is "
            f"treated as {'a number' if len(numbers) else 'a class'} like the others. Make it NaN and pass "
            f"missing='drop', or choose classes by levels."
        )


def _classes(values, options):
    """Classes, that of reference first, or None for a quantity."""
    _refuse_broken_numbers(values, "phenotype")
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
    _refuse_spellings(classes)
    _warn_of_codes(values, classes)
    quantity = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    first = options.reference_level
    if quantity and len(classes) > 2:
        if first is not None:
            raise ValueError(
                f"reference_level={first!r} names a class, but phenotype is a quantity: make it a Categorical."
            )
        return None
    if options.levels is not None:
        # in the order in which they are named: the first is what others are compared with
        classes = [level for level in options.levels if level in classes]
    if first is None:
        return classes
    if first not in classes:
        raise ValueError(
            f"reference_level={first!r} is not a class of phenotype, which has {listing(classes)}."
        )
    return [first, *(level for level in classes if level != first)]


def _matched_covariates(covariates, n_samples, samples):
    """The covariates in the order of the samples, as a table; None where there are none."""
    if covariates is None:
        return None
    frame = _covariate_frame(covariates)
    frame = frame.iloc[match_rows(covariates, samples, "rows of covariates")]
    if len(frame) != n_samples:
        raise ValueError(f"covariates have {len(frame)} rows, but there are {n_samples} samples.")
    frame = frame.infer_objects()
    frame.columns = [str(name) for name in frame.columns]
    for name, column in frame.items():
        _refuse_dates(column, f"covariate '{name}'")
    return frame


def _incomplete(frame, samples, options):
    """Which samples lack a covariate; refused unless they are to be left out."""
    if frame is None:
        return False
    lacking = frame.isna() | frame.isin([np.inf, -np.inf])
    rows = lacking.any(axis=1).to_numpy()
    if rows.any() and options.missing == "raise":
        names = np.flatnonzero(rows) if row_names(frame) is None else row_names(frame)[rows]
        raise ValueError(
            f"covariates contain NaN or infinity in column {listing(list(frame.columns[lacking.any()]))}, of "
            f"{rows.sum()} sample(s): {listing(list(names))}. Leave these samples out of the test by missing='drop', "
            f"or give them a value."
        )
    return rows


def _coded_covariates(frame, used):
    """Centred columns of size 1 and their names; categories one-hot encoded without the first."""
    if frame is None:
        return np.empty((0, 0)), []
    frame = frame.iloc[used].infer_objects()
    names = frame.columns
    constant = names[(frame.nunique() == 1).to_numpy()]
    if len(constant):
        raise ValueError(
            f"Collinear covariates: {listing(list(constant))} have the same value in every sample. Drop them."
        )
    for name in names:
        _refuse_broken_numbers(frame[name], f"covariate '{name}'")
    coded = pd.get_dummies(frame.apply(_without_unused), drop_first=True, dtype=np.float64)
    values, names = coded.to_numpy(dtype=np.float64), list(coded.columns)
    for name, column in zip(names, values.T, strict=True):
        check_magnitude(column, f"covariate '{name}'")
    values = values - values.mean(axis=0)
    # whatever the unit of a covariate, the design stays well conditioned
    return values / np.abs(values).max(axis=0), names


def _refuse_dates(column, what):
    """Refuse dates and durations: as numbers they have no natural unit."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise ValueError(
            f"{what} holds dates or durations: pass numbers, such as days, (dates - dates.min()).dt.days, or classes "
            f"as texts."
        )


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
