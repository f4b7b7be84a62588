"""What builds the values and deviations of an expression: the state of a model, or a tensor."""

from dataclasses import dataclass

import numpy as np

from ..checks.scales import SCALES
from ..core.blocks import row_blocks
from ..normalization import apply_normalization

ALL = slice(None)
# Genes up to which a tensor is mixed as it lies in memory: to pick a tenth of them out of it takes longer.
MIXED_WHOLE = 20_000
# Numbers of a tensor that are mixed at a time.
MIXED = 2**18


@dataclass(frozen=True)
class Conversion:
    """The way from the scale of a model to that of X, the same for the cohort and for new samples.

    Attributes
    ----------
    preprocess : {None, "sqrt", "log"}
        Scale of the model.
    positive : bool
        Whether negative values are clipped to 0.
    absent : ndarray of bool, shape (n_cell_types,)
        Cell types that no sample of the cohort holds.
    reference : ndarray of shape (n_cell_types, n_genes)
        Profiles on the scale of X: the answer for absent cell types.
    factors : ndarray of shape (n_cell_types,), or None
        What the expression of every cell type is multiplied by in the end.
    """

    preprocess: str | None
    positive: bool
    absent: np.ndarray
    reference: np.ndarray
    factors: np.ndarray | None = None

    @property
    def is_linear(self):
        """Whether combinations of what it makes of values are what it makes of combinations."""
        return not self.positive and self.preprocess is None

    def to_bulk_scale(self, values):
        """``values`` of a model, changed in place: clipped and transformed back."""
        if self.is_linear:
            return values
        restore = SCALES[self.preprocess].restore
        # by the block, so that both passes over it find it in the cache
        for rows in row_blocks(values):
            block = values[rows]
            if self.positive:
                np.maximum(block, 0, out=block)
            restore(block)
        return values

    def values(self, state, samples=ALL, cell_types=ALL, genes=ALL):
        """Expression on the scale of X that a model's state stands for."""
        values = self.to_bulk_scale(state.expand(samples, cell_types, genes))
        if self.factors is not None:
            values *= self.factors[cell_types][:, None].astype(values.dtype, copy=False)
        absent = self.absent[cell_types]
        values[:, absent] = self.reference[cell_types][absent][:, genes]
        return values

    def mixed(self, state, weights, samples, genes):
        """Σ_k w_jk p_jk of these values, float64 (n_samples, n_genes): without the tensor where that can be."""
        if not (self.is_linear and hasattr(state, "mixed")):
            n_genes = np.arange(self.reference.shape[1])[genes].size
            return mixed(weights, samples, n_genes, lambda some: self.values(state, some, ALL, genes))
        factors = 1.0 if self.factors is None else self.factors
        found = state.mixed(np.where(self.absent, 0.0, weights * factors), samples, genes)
        if self.absent.any():  # the answer for these is their profile
            found += weights[:, self.absent] @ self.reference[self.absent][:, genes]
        return found


def mixed(weights, samples, n_genes, values, genes=ALL):
    """Σ_k w_jk p_jk of a tensor, a block of samples at a time.

    Parameters
    ----------
    weights : ndarray of shape (n_samples, n_cell_types)
    samples : slice
        Which samples these are.
    n_genes : int
        Of the tensor.
    values : callable
        Makes the tensor of a slice of samples.
    genes : slice or ndarray of int, default=slice(None)
        Which of its genes are wanted.
    """
    found = []
    for rows in row_blocks(np.broadcast_to(0.0, (*weights.shape, n_genes)), MIXED):
        some = slice(samples.start + rows.start, min(samples.start + rows.stop, samples.stop))
        found.append(np.matmul(weights[rows, None], values(some))[:, 0, genes])
    return np.concatenate(found)


@dataclass(frozen=True)
class Converted:
    """Expression built from the state of a model whenever it is asked for.

    Attributes
    ----------
    state : object
        Answers ``expand(samples, cell_types, genes)``, a new array on the scale of the model. It may answer
        ``deviations(samples, cell_types, genes)``, standard deviations of a normal distribution on that scale, and
        ``interval(level, samples, cell_types, genes)``, two arrays there, where normal quantiles would not do. What
        has deviations is taken for a posterior, and its values for posterior means, unless ``is_posterior_mean`` is
        False.
    conversion : Conversion
    dtype : dtype
        Of the bulk, and so of the expression.
    unchanged : Unchanged or None, default=None
        Refuses samples of a bulk that is not the model's own where it was written to.
    """

    state: object
    conversion: Conversion
    dtype: np.dtype
    unchanged: object = None

    @property
    def has_std(self):
        return hasattr(self.state, "deviations")

    @property
    def reads_rows(self):
        return hasattr(getattr(self.state, "bulk", None), "block_rows")

    @property
    def is_posterior_mean(self):
        return getattr(self.state, "is_posterior_mean", self.has_std)

    @property
    def std_scale(self):
        """Scale on which the deviations are those of a normal distribution."""
        return getattr(self.state, "std_scale", self.conversion.preprocess)

    def _check(self, samples=ALL, *others):
        if self.unchanged is not None:
            self.unchanged.check(samples)

    def values(self, *part):
        self._check(*part)
        return self.conversion.values(self.state, *part).astype(self.dtype, copy=False)

    def mixed(self, weights, samples, genes):
        """Σ_k w_jk p_jk of a slice of samples, see :meth:`Conversion.mixed`."""
        self._check(samples)
        return self.conversion.mixed(self.state, weights, samples, genes)

    def std(self, *part):
        self._check(*part)
        deviations = self.state.deviations(*part)
        if self.conversion.preprocess is None:
            return deviations.astype(self.dtype, copy=False)
        # half of what one deviation either way becomes: near 0 a derivative would be 0 on the scale of roots
        middle = self.state.expand(*part)
        backward = SCALES[self.conversion.preprocess].backward
        low, high = middle - deviations, middle + deviations
        backward(low)
        backward(high)
        return ((high - low) / 2).astype(self.dtype, copy=False)

    def interval(self, level, *part):
        self._check(*part)
        # quantiles keep their meaning when they are transformed back, means and deviations do not
        bounds = self._interval(level, *part)
        return tuple(self.conversion.to_bulk_scale(bound).astype(self.dtype, copy=False) for bound in bounds)

    def _interval(self, level, *part):
        if hasattr(self.state, "interval"):
            return self.state.interval(level, *part)
        from scipy.special import ndtri

        middle, reach = self.state.expand(*part), ndtri(0.5 + level / 2) * self.state.deviations(*part)
        return middle - reach, middle + reach


@dataclass(frozen=True)
class Held:
    """Expression whose values are held as a tensor; ``source`` knows the deviations, if there are any."""

    tensor: np.ndarray
    source: Converted | None = None

    reads_rows = False

    @property
    def has_std(self):
        return self.source is not None

    @property
    def is_posterior_mean(self):
        return self.source is not None and self.source.is_posterior_mean

    @property
    def std_scale(self):
        return None if self.source is None else self.source.std_scale

    def values(self, samples, cell_types, genes):
        """The tensor or a view of it where slices are asked for, else a copy."""
        if all(isinstance(part, slice) and part == ALL for part in (samples, cell_types, genes)):
            return self.tensor
        return self.tensor[samples][:, cell_types][:, :, genes]

    def mixed(self, weights, samples, genes):
        """Σ_k w_jk p_jk of a slice of samples, float64 of shape (n_samples, n_genes)."""
        n_genes = self.tensor.shape[2]
        if n_genes <= MIXED_WHOLE:
            return mixed(weights, samples, n_genes, self.tensor.__getitem__, genes)
        n_chosen = np.arange(n_genes)[genes].size
        return mixed(weights, samples, n_chosen, lambda some: self.values(some, ALL, genes))

    def std(self, *part):
        return self.source.std(*part)

    def interval(self, level, *part):
        return self.source.interval(level, *part)


@dataclass(frozen=True)
class Normalized:
    """Expression of another source, normalised whenever it is asked for.

    Attributes
    ----------
    source : Converted or Held
    fitted : list
        A fitted normalisation per cell type.
    proportions : ndarray of shape (n_samples, n_cell_types)
    """

    source: object
    fitted: list
    proportions: np.ndarray

    @property
    def is_posterior_mean(self):
        return self.source.is_posterior_mean

    @property
    def reads_rows(self):
        return self.source.reads_rows

    has_std = False  # a normalisation is fitted to the values: what it makes of their errors is not known
    std_scale = None

    def values(self, samples, cell_types, genes):
        # of all genes, because a sample is normalised as a whole
        values = np.array(self.source.values(samples, cell_types, ALL))
        chosen = [self.fitted[k] for k in np.arange(len(self.fitted))[cell_types]]
        return apply_normalization(chosen, values, self.proportions[samples][:, cell_types])[:, :, genes]
