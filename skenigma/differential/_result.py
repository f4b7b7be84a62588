"""The table of a test: effects, statistics, p-values, flags and false discovery rates."""

import warnings

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from ..checks.names import listing

COLUMNS = ("cell_type", "gene", "effect", "statistic", "p_value", "q_value", "flag", "contrast")
# Spread relative to the largest value, in units of rounding, up to which values count as one and the same.
CONSTANT = 64
# Samples with a proportion worth speaking of that a cell type needs for a test.
MIN_SAMPLES = 5
REASONS = {
    "constant": "values do not vary",
    "singular": "the design does not determine the effect",
    "rare": "the cell type is too rare",
    "low_share": "the cell type contributes too little of the gene's bulk",
}


class Result:
    """Tests of every cell type and gene, as they are computed."""

    def __init__(self, cell_types, genes, study):
        self._cell_types, self._genes, self._study = cell_types, genes, study
        shape = len(cell_types), len(genes)
        self.effect, self.statistic, self.p_value = (np.full(shape, np.nan) for _ in range(3))
        self._flag = np.full(shape, "", dtype=object)

    def store(self, genes, effect, tests):
        """Keep effects and tests of some genes in all cell types."""
        self.effect[:, genes] = effect
        self.statistic[:, genes] = tests.statistic.reshape(effect.shape)
        self.p_value[:, genes] = tests.p_value.reshape(effect.shape)

    def flag(self, reason, where, genes=slice(None)):
        """Note the first reason for which a row is to be read with care."""
        part = self._flag[:, genes]
        part[np.broadcast_to(where, part.shape) & (part == "")] = reason

    def drop(self, reason, where, genes=slice(None)):
        """Flag rows and take their test away."""
        self.flag(reason, where, genes)
        for values in (self.statistic[:, genes], self.p_value[:, genes]):
            values[np.broadcast_to(where, values.shape)] = np.nan

    def table(self, q_value, contrast=None, **more):
        """The tidy table, smallest p-value first; ``more`` are columns after the effect, each (K, g)."""
        n_cell_types, n_genes = self.p_value.shape
        self.flag("zero_mean", ~np.isfinite(self.effect))
        self._warn()
        columns = {
            "cell_type": np.repeat(self._cell_types, n_genes),
            "gene": np.tile(self._genes, n_cell_types),
            "effect": self.effect.ravel(),
            **{name: values.ravel() for name, values in more.items()},
            "statistic": self.statistic.ravel(),
            "p_value": self.p_value.ravel(),
            "q_value": q_value.ravel(),
            "flag": self._flag.ravel(),
        }
        # the statistic ranks p-values that are equal, as at the end of the range of numbers
        order = np.lexsort((-np.abs(self.statistic.ravel()), self.p_value.ravel()))
        table = pd.DataFrame({name: values[order] for name, values in columns.items()})
        return table.assign(contrast=self._study.contrast if contrast is None else contrast)

    def _warn(self):
        """Say which cell types have no test at all: an empty list of calls would pass for an answer."""
        untested = np.isnan(self.p_value).all(axis=1)
        if not untested.any():
            return
        sizes = self._study.class_sizes()
        small = [f"'{level}' ({size})" for level, size in sizes.items() if size < MIN_SAMPLES]
        reasons = sorted(set(self._flag[untested].ravel()) - {""})
        said = ", ".join(REASONS.get(reason, reason) for reason in reasons)
        hint = f" Classes of few samples: {', '.join(small)}; choose classes by levels." if small else ""
        warnings.warn(
            f"No gene could be tested in {listing(list(self._cell_types[untested]))}: {said}.{hint}",
            UserWarning,
            stacklevel=5,
        )


def untested(table: pd.DataFrame) -> dict[str, int]:
    """Numbers of tests without p-value, by their reason: they are no negative answers.

    Parameters
    ----------
    table : DataFrame
        From :func:`differential_expression` or one of the tests.

    Returns
    -------
    counts : dict of str to int
        By flag, the most frequent first; empty where every test has a p-value.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import interaction_test, untested
    >>> cohort = make_cohort(n_genes=50, random_state=0, as_frame=True)
    >>> cohort.bulk["gene3"] = 1.0
    >>> untested(interaction_test(cohort.bulk, cohort.proportions, cohort.phenotype))
    {'constant': 5}
    """
    return table.flag[table.p_value.isna()].replace("", "not computed").value_counts().to_dict()


def too_rare(proportions, min_proportion):
    """Which cell types, of proportions (n, K), are too rare to be tested."""
    enough = np.sum(proportions >= max(min_proportion, np.finfo(float).tiny), axis=0) >= MIN_SAMPLES
    return (proportions.mean(axis=0) < min_proportion) | (~enough & (min_proportion > 0))


def is_constant(values):
    """Whether values are the same in every sample but for rounding in their type."""
    low, high = values.min(axis=0), values.max(axis=0)
    return high - low <= CONSTANT * np.finfo(values.dtype).eps * np.maximum(np.abs(low), np.abs(high))


def benjamini_hochberg(p_value):
    """False discovery rates along the last axis; NaN stays and does not count."""
    q_value = np.full_like(p_value, np.nan)
    for row, q in zip(np.atleast_2d(p_value), np.atleast_2d(q_value), strict=True):
        there = ~np.isnan(row)
        if there.any():
            q[there] = false_discovery_control(row[there])
    return q_value
