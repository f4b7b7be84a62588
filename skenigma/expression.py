"""What every model returns: expression of cell types in samples, by name, with deviations where the model has them.

A model works on a scale of its own and knows nothing of clipping, of cell types that no sample holds, or of
normalisation. All of that happens here, once for all models and for everything that reads expression.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ._pickles import VersionedPickle
from .checks.names import check_selection, numbered, refuse_repeats
from .checks.optional import import_optional
from .checks.scales import SCALES
from .core.blocks import row_blocks
from .normalization import apply_normalization, fit_normalization

__all__ = ["CellTypeExpression"]

ALL = slice(None)


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

    def to_bulk_scale(self, values):
        """``values`` of a model, changed in place: clipped and transformed back."""
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
    def is_posterior_mean(self):
        return getattr(self.state, "is_posterior_mean", self.has_std)

    def _check(self, samples=ALL, *others):
        if self.unchanged is not None:
            self.unchanged.check(samples)

    def values(self, *part):
        self._check(*part)
        return self.conversion.values(self.state, *part).astype(self.dtype, copy=False)

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

    @property
    def has_std(self):
        return self.source is not None

    @property
    def is_posterior_mean(self):
        return self.source is not None and self.source.is_posterior_mean

    def values(self, samples, cell_types, genes):
        """The tensor or a view of it where slices are asked for, else a copy."""
        if all(isinstance(part, slice) and part == ALL for part in (samples, cell_types, genes)):
            return self.tensor
        return self.tensor[samples][:, cell_types][:, :, genes]

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

    has_std = False  # a normalisation is fitted to the values: what it makes of their errors is not known

    def values(self, samples, cell_types, genes):
        # of all genes, because a sample is normalised as a whole
        values = np.array(self.source.values(samples, cell_types, ALL))
        chosen = [self.fitted[k] for k in np.arange(len(self.fitted))[cell_types]]
        return apply_normalization(chosen, values, self.proportions[samples][:, cell_types])[:, :, genes]


@dataclass(frozen=True, eq=False)
class CellTypeExpression(VersionedPickle):
    """Expression of every cell type in every sample, by name: what all models return and everything else reads.

    Fitted models have it as ``expression_``, and ``predict_expression`` makes it of new samples. Unless the fit kept
    the tensor (``materialize=True``), it is in a compact form about as large as the bulk, and only what is asked for
    is built.

    Parameters
    ----------
    source : object
        What builds the values; models make it.
    proportions : ndarray of shape (n_samples, n_cell_types)
        Proportions in use.
    cell_types : ndarray of str, shape (n_cell_types,)
        Names of the cell types.
    gene_names : ndarray of str, shape (n_genes,)
        Names of the genes.
    sample_names : ndarray of str, shape (n_samples,), or None
        Names of the samples; None where the bulk had none.
    scale : {None, "sqrt", "log"}, default=None
        Scale on which the model was fitted. Values are on the scale of the bulk whatever it is.
    level : ndarray of shape (n_samples,), or None
        How large the mixture m = Σ_k θ_k p_k of each sample is against its bulk x: Σ|m| / Σ s x over genes, with s
        the sign of m (where m is 0, that of x). Of values of at least 0 it is the ratio of the totals, the share of
        the bulk that the mixture makes up. Of signed values it is how large the mixture is against the bulk along
        it: noise that a model leaves out does not lower it. 1 is right; NaN where a sample is 0 in every gene.
        Measured on the 2,000 genes with most of the bulk; None where it was not, as for normalised expression.

    See Also
    --------
    skenigma.anndata.deconvolve : The expression as layers of an AnnData.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> expression = L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk).expression_
    >>> expression.shape
    (40, 5, 200)
    >>> expression.values(samples=["sample1"], cell_types=["celltype2"]).shape
    (1, 1, 200)
    >>> expression.to_frame("celltype2", genes=["gene1", "gene2"]).shape
    (40, 2)
    >>> expression.has_std
    False
    """

    source: object = field(repr=False)
    proportions: np.ndarray = field(repr=False)
    cell_types: np.ndarray
    gene_names: np.ndarray = field(repr=False)
    sample_names: np.ndarray | None = field(default=None, repr=False)
    scale: str | None = None
    level: np.ndarray | None = field(default=None, repr=False)

    @property
    def shape(self):
        """Numbers of samples, cell types and genes."""
        return (*self.proportions.shape, len(self.gene_names))

    @property
    def has_std(self):
        """Whether there are standard deviations and intervals beside the values."""
        return self.source.has_std

    @property
    def is_posterior_mean(self):
        """Whether values are means of a posterior: the model is in them, and no test of them is valid."""
        return self.source.is_posterior_mean

    @property
    def is_materialized(self):
        """Whether the tensor is held in memory as a whole."""
        return isinstance(self.source, Held)

    def values(self, samples=None, cell_types=None, genes=None):
        """Expression on the scale of the bulk.

        Parameters
        ----------
        samples, cell_types, genes : None, slice, or array-like of str, int or bool, default=None
            Which of them: names, positions or a mask; None is all.

        Returns
        -------
        values : ndarray of shape (n_samples, n_cell_types, n_genes)
            Of what was asked for. Where the tensor is held this may be a view of it: copy before you write into it.

        Raises
        ------
        ValueError
            If a sample, cell type or gene is not there; the message names the first.
        """
        return self.source.values(*self._part(samples, cell_types, genes))

    def std(self, samples=None, cell_types=None, genes=None):
        """Standard deviation of the values, on the scale of the bulk.

        Parameters
        ----------
        samples, cell_types, genes : None, slice, or array-like of str, int or bool, default=None
            Which of them, as in :meth:`values`.

        Returns
        -------
        std : ndarray of shape (n_samples, n_cell_types, n_genes)
            Before clipping to 0. After a fit on another scale it is half the distance of what one deviation up and
            one down become.

        Raises
        ------
        ValueError
            If the model has none.
        """
        self._need_std()
        return self.source.std(*self._part(samples, cell_types, genes))

    def interval(self, level=0.95, samples=None, cell_types=None, genes=None):
        """Central interval that holds the expression with a probability, on the scale of the bulk.

        Parameters
        ----------
        level : float in (0, 1), default=0.95
            The probability, according to the model.
        samples, cell_types, genes : None, slice, or array-like of str, int or bool, default=None
            Which of them, as in :meth:`values`.

        Returns
        -------
        low, high : ndarray of shape (n_samples, n_cell_types, n_genes)
            Quantiles, on the scale of the model transformed back and clipped like the values.

        Raises
        ------
        ValueError
            If the model has none, or the level is no probability.
        """
        self._need_std()
        if not 0 < level < 1:
            raise ValueError(f"level must be a probability between 0 and 1, got {level!r}.")
        return self.source.interval(level, *self._part(samples, cell_types, genes))

    def blocks(self, max_bytes=2**26):
        """Walk through the samples in bounded memory.

        Parameters
        ----------
        max_bytes : int, default=67108864
            About as much as the values of one block may take; a block has at least one sample.

        Yields
        ------
        samples : slice
            Which samples.
        values : ndarray of shape (n_samples_of_the_block, n_cell_types, n_genes)
            Their expression.
        """
        n_samples, n_cell_types, n_genes = self.shape
        step = max(1, int(max_bytes / (8 * n_cell_types * n_genes)))
        for start in range(0, n_samples, step):
            samples = slice(start, min(start + step, n_samples))
            yield samples, self.values(samples)

    def to_frame(self, cell_type, *, samples=None, genes=None, std=False):
        """Expression of one cell type as a table.

        Parameters
        ----------
        cell_type : str or int
            Name of a cell type, or its position.
        samples, genes : None, slice, or array-like of str, int or bool, default=None
            Which of them, as in :meth:`values`.
        std : bool, default=False
            Whether to return the standard deviations in the place of the values.

        Returns
        -------
        frame : DataFrame of shape (n_samples, n_genes)
            Rows are numbered where samples have no names.
        """
        rows, _, columns = self._part(samples, None, genes)
        build = self.std if std else self.values
        values = build(rows, [cell_type], columns)[:, 0]
        index = pd.RangeIndex(self.shape[0]) if self.sample_names is None else pd.Index(self.sample_names)
        return pd.DataFrame(values, index=index[rows], columns=pd.Index(self.gene_names)[columns])

    def to_tidy(self, *, samples=None, cell_types=None, genes=None, level=0.95):
        """Expression as a table with a row per value.

        Parameters
        ----------
        samples, cell_types, genes : None, slice, or array-like of str, int or bool, default=None
            Which of them, as in :meth:`values`. A row takes some 60 bytes: choose.
        level : float in (0, 1), default=0.95
            Probability of the interval, where the model has one.

        Returns
        -------
        table : DataFrame
            ``sample``, ``cell_type``, ``gene`` and ``value``, and where there are deviations ``std``, ``lower`` and
            ``upper``. The gene is the fastest, the sample the slowest.
        """
        part = self._part(samples, cell_types, genes)
        names = self.sample_names if self.sample_names is not None else np.arange(self.shape[0])
        axes = (names[part[0]], self.cell_types[part[1]], self.gene_names[part[2]])
        table = pd.MultiIndex.from_product(axes, names=["sample", "cell_type", "gene"]).to_frame(index=False)
        found = {"value": self.values(*part)}
        if self.has_std:
            lower, upper = self.interval(level, *part)
            found |= {"std": self.std(*part), "lower": lower, "upper": upper}
        return table.assign(**{name: values.reshape(-1) for name, values in found.items()})

    def to_anndata(self, sample_names=None):
        """Expression as an AnnData with one row per sample and cell type.

        Parameters
        ----------
        sample_names : array-like of str of shape (n_samples,), default=None
            Names of the samples. None takes those of the bulk, or numbers them.

        Returns
        -------
        adata : AnnData of shape (n_samples * n_cell_types, n_genes)
            Rows are named "sample:cell type", the cell type fastest; ``obs`` has ``sample``, ``cell_type`` and
            ``proportion``, and ``layers["std"]`` the standard deviations where there are any.

        Raises
        ------
        ImportError
            If anndata is not installed.
        """
        anndata = import_optional("anndata", "anndata", "Expression as an AnnData")
        names = self.sample_names if sample_names is None else sample_names
        if names is None:
            names = numbered("sample", self.shape[0], start=1)
        refuse_repeats(names, "Samples", "Give sample_names that differ.")
        samples = pd.DataFrame(index=pd.Index(names, dtype=object))
        obs = sample_and_type(samples, self.cell_types, self.proportions)
        var = pd.DataFrame(index=pd.Index(self.gene_names, dtype=object))
        layers = {"std": self.std().reshape(len(obs), -1)} if self.has_std else None
        return anndata.AnnData(self.values().reshape(len(obs), -1), obs, var, layers=layers)

    def _part(self, samples, cell_types, genes):
        """What is asked for as positions along each axis."""
        n_samples, n_cell_types, n_genes = self.shape
        return (
            check_selection(samples, self.sample_names, n_samples, "sample"),
            check_selection(cell_types, self.cell_types, n_cell_types, "cell type"),
            check_selection(genes, self.gene_names, n_genes, "gene"),
        )

    def _need_std(self):
        if not self.has_std:
            raise ValueError(
                "There are no standard deviations here: the model does not estimate them, or its values were "
                "normalised, which leaves none."
            )


def output_expression(model):
    """Expression of a fitted model as its ``transform`` returns it: normalised, if it was asked to."""
    return getattr(model, "expression_normalized_", model.expression_)


def fit_normalized(expression, method):
    """Normalisation of a cohort, fitted one cell type at a time.

    Returns
    -------
    fitted : list
        One per cell type, for :func:`normalized`.
    """
    n_cell_types = len(expression.cell_types)
    by_type = (expression.values(cell_types=slice(k, k + 1))[:, 0] for k in range(n_cell_types))
    return fit_normalization(method, by_type, expression.proportions)


def normalized(expression, fitted):
    """The same expression, normalised."""
    source = Normalized(expression.source, fitted, expression.proportions)
    return replace(expression, source=source, level=None)


def materialized(expression):
    """The same expression, its tensor held in memory."""
    # the compact form is let go unless deviations are built from it
    source = expression.source if expression.has_std else None
    return replace(expression, source=Held(expression.values(), source))


def sample_and_type(samples, cell_types, proportions):
    """One row per sample and cell type, the cell type fastest, for ``obs`` of an AnnData.

    Parameters
    ----------
    samples : DataFrame
        A row per sample, whose columns are repeated for each cell type; one named like a column of the result gets
        the suffix "_of_bulk".
    cell_types : ndarray of str, shape (n_cell_types,)
    proportions : ndarray of shape (n_samples, n_cell_types)

    Returns
    -------
    obs : DataFrame of n_samples × n_cell_types rows
    """
    n_samples, n_types = proportions.shape
    own = {
        "sample": pd.Categorical(
            np.repeat(samples.index.astype(str), n_types), list(samples.index.astype(str))
        ),
        "cell_type": pd.Categorical(np.tile(cell_types, n_samples), list(cell_types)),
        "proportion": proportions.reshape(-1),
    }
    rows = samples.iloc[np.repeat(np.arange(n_samples), n_types)]
    rows = rows.rename(columns={name: f"{name}_of_bulk" for name in own})
    names = [f"{sample}:{kind}" for sample in samples.index for kind in cell_types]
    return pd.concat([pd.DataFrame(own, index=names), rows.set_axis(names)], axis=1)
