"""Samples that are not in memory, on their way through a fitted model: a block of them after the other."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..checks.labels import match_rows, row_labels
from ..checks.memory import check_result
from ..checks.validation import check_proportions
from ..cohort import is_lazy
from ..core.blocks import row_blocks


def parts(model, X, proportions, given):
    """Blocks of new samples as a fitted model takes them, each read once.

    Parameters
    ----------
    model : BaseDeconvolver
        Fitted.
    X : LazyMatrix
    proportions : array-like of shape (n_samples, n_cell_types), or None
    given : dict
        What else the model is told of the samples.

    Yields
    ------
    rows : slice
        Which ones.
    part : LazyMatrix
        Of these rows only, with their names.
    bulk : ndarray of shape (n_rows, n_genes)
        The genes in use, checked.
    proportions : ndarray, or None
        Of these rows.
    given : dict
        Of these rows.
    """
    check_is_fitted(model)
    labels = row_labels(X)
    if proportions is not None:
        proportions = check_proportions(proportions, model.cell_types_, len(X), labels)
    given = {name: _in_order(value, labels, name) for name, value in given.items() if value is not None}
    for rows in row_blocks(X):
        part = X.rows(rows.start, rows.stop)
        with X.held(rows):
            bulk = model._new_bulk(part)[:]
            told = {name: value[rows] for name, value in given.items()}
            yield rows, part, bulk, None if proportions is None else proportions[rows], told


def _in_order(table, labels, name):
    """A table with a row per sample, in the order of the samples: its rows are sliced."""
    found = match_rows(table, labels, f"rows of {name}")
    return table.iloc[found] if hasattr(table, "iloc") else np.asarray(table)[found]


def transform_by_rows(model, X, proportions, given):
    """``transform`` of samples that are not in memory; the result is."""
    found, shape = None, (len(X), len(model.cell_types_[model._outcome.output_types]), len(model.gene_names_))
    check_result(shape, X.itemsize)
    for rows, *part in parts(model, X, proportions, given):
        block = model._transform_bulk(*part)
        if found is None:
            found = np.empty((len(X), block.shape[1]), dtype=block.dtype)
        found[rows] = block
    return found


def replay(fitted_map, bulk, proportions, **given):
    """State of samples, in memory or not, each moved as the fitted cohort was."""
    theta = proportions.astype(np.float64, copy=False)
    if is_lazy(bulk):
        return Replayed(fitted_map, bulk, theta, given)
    return fitted_map.replay(bulk, theta, **given)


class Sums:
    """What an objective takes of an expression whose samples are seen in blocks.

    Parameters
    ----------
    n_samples : int
        Of all blocks.
    """

    def __init__(self, n_samples):
        self._n_samples, self._mean = n_samples, 0.0
        self._norms, self._residuals = [], []

    def add(self, state):
        """Take account of the state of a block."""
        self._norms.append(state.norms())
        self._residuals.append(state.squared_residuals())
        self._mean = self._mean + state.mean() * (len(self._norms[-1]) / self._n_samples)

    def norms(self):
        """Norm of every sample in every cell type, shape (n_samples, n_cell_types)."""
        return np.concatenate(self._norms)

    def squared_residuals(self):
        """Squared norm of reconstruction minus sample, shape (n_samples,)."""
        return np.concatenate(self._residuals)

    def mean(self):
        """Mean over samples, shape (n_cell_types, n_genes)."""
        return self._mean

    def grams(self):
        """Refuse what no sum of blocks gives."""
        raise ValueError(
            "The trace norm of an expression needs all of its samples at once: score an X that is in memory."
        )


class Replayed:
    """State of samples that are not in memory: whatever is asked for is read, and replayed through the map.

    Parameters
    ----------
    fitted_map : object
        Of the model, see :class:`skenigma.deconvolution.Estimate`.
    bulk : LazyMatrix
        On the scale of the model.
    proportions : ndarray of shape (n_samples, n_cell_types)
    given : dict
        What else the map takes: arrays or tables with a row per sample, or None.
    """

    def __init__(self, fitted_map, bulk, proportions, given):
        self._map, self.bulk, self._proportions, self._given = fitted_map, bulk, proportions, given
        first = self._of(np.array([0]))
        self._offers = {name for name in OFFERED if hasattr(first, name)}

    def _of(self, samples):
        given = {name: _rows_of(value, samples) for name, value in self._given.items()}
        return self._map.replay(self.bulk[samples], self._proportions[samples], **given)

    def _blocks(self, samples):
        """What is asked for, by as many samples as are read together."""
        positions = np.arange(len(self.bulk))[samples]
        for some in range(0, len(positions), self.bulk.block_rows):
            chosen = positions[some : some + self.bulk.block_rows]
            adjoining = len(chosen) and np.array_equal(chosen, np.arange(chosen[0], chosen[0] + len(chosen)))
            yield slice(chosen[0], chosen[-1] + 1) if adjoining else chosen

    def _each(self, samples, answer):
        found = [answer(self._of(some)) for some in self._blocks(samples)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def expand(self, samples=slice(None), *part):
        """Expression, of what is asked for."""
        return self._each(samples, lambda state: state.expand(slice(None), *part))

    def __getattr__(self, name):
        # the scale of deviations is not noted by itself: notes count in the checksum of an unfinished result
        noted = "deviations" if name == "std_scale" else name
        if noted not in OFFERED or noted not in self.__dict__.get("_offers", ()):
            raise AttributeError(name)
        if name in ("is_posterior_mean", "std_scale"):
            return getattr(self._of(np.array([0])), name)
        return getattr(self, f"_{name}")

    def _deviations(self, samples=slice(None), *part):
        return self._each(samples, lambda state: state.deviations(slice(None), *part))

    def _interval(self, level, samples=slice(None), *part):
        bounds = self._each(
            samples, lambda state: np.stack(state.interval(level, slice(None), *part), axis=1)
        )
        return bounds[:, 0], bounds[:, 1]


def _rows_of(table, samples):
    """Rows of an array or a table with a row per sample; None where there is none."""
    return table if table is None else getattr(table, "iloc", table)[samples]


# What a state may offer besides its values.
OFFERED = ("deviations", "interval", "is_posterior_mean")
