"""The table of a test: effects, statistics, p-values, flags and false discovery rates."""

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

COLUMNS = ("cell_type", "gene", "effect", "statistic", "p_value", "q_value", "flag")
# Spread relative to the largest value, in units of rounding, up to which values count as one and the same.
CONSTANT = 64


class Result:
    """Tests of every cell type and gene, as they are computed."""

    def __init__(self, cell_types, genes):
        self._cell_types, self._genes = cell_types, genes
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

    def table(self, q_value):
        """The tidy table, smallest p-value first."""
        n_cell_types, n_genes = self.p_value.shape
        self.flag("zero_mean", ~np.isfinite(self.effect))
        columns = [
            np.repeat(self._cell_types, n_genes),
            np.tile(self._genes, n_cell_types),
            *(values.ravel() for values in (self.effect, self.statistic, self.p_value, q_value, self._flag)),
        ]
        order = np.lexsort((-np.abs(self.statistic.ravel()), self.p_value.ravel()))
        return pd.DataFrame({name: values[order] for name, values in zip(COLUMNS, columns, strict=True)})


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
