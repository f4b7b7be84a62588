"""Expression as an object that knows samples, cell types and genes by name."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .._docstrings import filled
from .._pickles import VersionedPickle
from ..checks.names import check_selection, numbered, refuse_repeats
from ..checks.optional import import_optional
from ._rows import sample_and_type
from ._sources import Held

# Entries that the docstrings of this class share.
ENTRIES = {
    "part": """samples, cell_types, genes : None, slice, or array-like of str, int or bool, default=None
    Which of them, as in :meth:`values`.""",
    "sample_names": """sample_names : array-like of str of shape (n_samples,), default=None
    Names of the samples. None takes those of the bulk, or numbers them.""",
}


@filled(ENTRIES)
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
    def reads_rows(self):
        """Whether values are built from a bulk that is read by rows, anew whenever they are asked for."""
        return self.source.reads_rows

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
        {part}

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
        {part}

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
            Whether to return the standard deviations in place of the values.

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
        {sample_names}

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

    def to_zarr(self, store, *, resume=True, sample_names=None, bulk=None, max_bytes=2**26):
        """Write the expression as an AnnData in a Zarr store, in bounded memory.

        While it is written it lies in a folder beside its place, ``NAME.unfinished``, with a journal of the blocks
        that are complete. These are kept whatever ends the process, a full disk among others, and the same call goes
        on from there.

        Parameters
        ----------
        store : str or path-like
            The folder to write: a free name, or that of a store which this method wrote.
        resume : bool, default=True
            Whether to go on with an unfinished store of this result; a whole one is left as it is. False begins anew
            and, in the end, takes the place of an earlier store, whatever result that holds.
        {sample_names}
        bulk : DataFrame or array-like of shape (n_samples, n_genes), default=None
            Written as ``X``. None writes no ``X``.
        max_bytes : int, default=67108864
            About as much as the values of one block may take; a block has at least one sample. Writing takes three to
            six times that beside the expression itself.

        Raises
        ------
        ValueError
            If the store, or the unfinished one, holds another result; names that repeat, or do not fit.
        FileExistsError
            If anything else is there, or a store that was changed since: neither is ever replaced.
        OSError
            If it cannot be written; the message says how many blocks are kept.
        ImportError
            If zarr or anndata is not installed.

        Notes
        -----
        The store holds what :func:`skenigma.anndata.deconvolve` writes of the expression: for each cell type a layer
        ``cse_<type>`` of values, and where there are standard deviations ``cse_std_<type>``, with ``|`` in the place
        of a slash; ``obsm["proportions"]``; and the names in ``uns["skenigma"]``, where ``model`` and ``shares_of``
        are "", because the expression alone does not know them. Displays and
        :func:`~skenigma.anndata.cse_to_anndata` take it. ``anndata.read_zarr`` reads all of it,
        ``anndata.experimental.read_lazy`` what is asked for. The format of Zarr is the one that AnnData writes.

        What is unfinished is taken for this result if a checksum of all that decides it is the same: proportions,
        state of the model, names, scale, and the version of skenigma. To take it, the state, which may hold the bulk,
        is read once. Whatever goes on reads the blocks that are complete, and writes those again that are not as they
        were written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import anndata
        >>> from skenigma import FactorDeconvolver
        >>> from skenigma.datasets import make_cohort
        >>> cohort = make_cohort(n_samples=12, n_genes=60, n_cell_types=2, random_state=0, as_frame=True)
        >>> expression = FactorDeconvolver(cohort.reference).fit(cohort.bulk).expression_
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = pathlib.Path(folder, "expression.zarr")
        ...     expression.to_zarr(store)
        ...     adata = anndata.read_zarr(store)
        >>> adata.shape
        (12, 60)
        >>> sorted(adata.layers)
        ['cse_celltype1', 'cse_celltype2', 'cse_std_celltype1', 'cse_std_celltype2']
        """
        from ..io._stores import plan_of, write_store

        plan = plan_of(self, sample_names=sample_names, bulk=bulk)
        how = {} if resume else {"same": "replace", "other": "replace"}
        write_store(plan, store, max_bytes=max_bytes, **how)

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
