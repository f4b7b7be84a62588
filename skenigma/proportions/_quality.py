"""How well a reference, mixed by proportions, reproduces bulk samples."""

import numpy as np
import pandas as pd

from .._by_genes import laid_out
from .._docstrings import filled
from .._transformers import ReferenceTransformer
from .._typing import Table
from ..checks.entries import check_nonnegative
from ..checks.labels import row_labels
from ..checks.names import row_names
from ..checks.validation import check_proportions
from ..cohort import is_lazy, open_bulk
from ..core.blocks import each_block
from ..core.profiles import standardize
from ..core.regress.generalized import gene_blocks

# Before logarithms, in units of the mean of a sample.
OFFSET = 0.01
# Divides a sample that expresses nothing: its logarithms are those of the offset, not NaN.
TINY = 1e-300
# Entries that the docstrings of this module share.
ENTRIES = {
    "mixture": """reference : DataFrame or array-like of shape (n_cell_types, n_genes)
    Expression profile of every cell type. Genes are matched as in :class:`~skenigma.ProportionEstimator`.
proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
    From wherever they come. Named rows and columns are matched to samples and cell types.""",
}


@filled(ENTRIES)
def fit_quality(X: Table, reference: Table, proportions: Table) -> pd.DataFrame:
    r"""How well a reference, mixed by proportions, reproduces every bulk sample.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, samples as rows.
    {mixture}

    Returns
    -------
    quality : DataFrame of shape (n_samples, 5)
        One row per sample, in the order of X and with its row names. With sample x, mixture
        :math:`m = \sum_k \theta_k r_k` and scale c, over the genes that X and reference share:

        - "r2" : :math:`1 - \sum_g (x_g - c\,m_g)^2 / \sum_g (x_g - \bar x)^2`. 1 is perfect, 0 no better than one
          number for all genes; negative is worse than that.
        - "rmse" : root mean square of :math:`x_g - c\,m_g`, in units of X.
        - "correlation" : Pearson correlation of x and m.
        - "scale" : the c that reproduces x best, by least squares, and at least 0. About 1 if X and reference
          are on one scale.
        - "explained" : :math:`c \sum_g m_g / \sum_g x_g`, the share of the sample's total that the scaled mixture
          makes up. A diagnostic, and not the share of known cells: where no type is missing it can be far from 1 in
          either direction, because platforms differ, and a missing type can be explained by its relatives.

    Raises
    ------
    ValueError
        If X, reference and proportions do not fit together; the message names the first offenders.

    See Also
    --------
    ProportionEstimator : Whose ``quality_`` and ``quality`` are these figures for its own proportions.

    Notes
    -----
    Proportions do not depend on how deeply a sample was sequenced, so the mixture is scaled before it is
    compared. An X that is not in memory is read twice by blocks of samples, for checks and for these figures.

    A sample that is the same in all genes has no "r2" and no "correlation" (NaN), nor has a mixture that is a
    "correlation"; a sample whose total is not above 0 has no "explained"; nothing else is NaN.

    A sample that scores much worse than the others is not a mixture of these profiles: it may contain a cell
    type that the reference lacks, come from another platform or batch, be on another scale (for instance
    logarithmic), or be of low quality. Do not trust its proportions or its cell-type-specific expression. The
    reverse does not hold: on a linear scale a few highly expressed genes dominate these figures, and similar
    cell types can be exchanged with hardly any effect on them.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.proportions import fit_quality
    >>> cohort = make_cohort(n_samples=10, n_genes=200, random_state=0, as_frame=True)
    >>> quality = fit_quality(cohort.bulk, cohort.reference, cohort.proportions)
    >>> list(quality.columns)
    ['r2', 'rmse', 'correlation', 'scale', 'explained']
    >>> bool((quality["r2"] < 1).all())
    True
    """
    X, genes = open_bulk(X), _Genes(reference)
    bulk = genes.align(X)
    shares = check_proportions(proportions, genes.cell_types_, len(bulk), row_labels(X))
    return as_quality(figures(bulk, genes.reference_, shares), X)


class _Genes(ReferenceTransformer):
    """Matches genes, and nothing else."""

    def __init__(self, reference):
        self.reference = reference

    def align(self, X):
        """X on the genes that it shares with the reference."""
        return self._fit_genes(X)


def as_quality(found, X):
    """The table of :func:`fit_quality` of its figures; X gives the names of the samples."""
    index = getattr(X, "index", None)
    columns = ["r2", "rmse", "correlation", "scale", "explained"]
    return pd.DataFrame(found, index=index if isinstance(index, pd.Index) else None, columns=columns)


def figures(bulk, reference, proportions):
    """Figures of :func:`fit_quality` of aligned arrays, shape (n_samples, 5); one reading of a bulk by rows."""
    found = [_compare(block, proportions[rows] @ reference) for rows, block in each_block(bulk)]
    return np.concatenate(found)


def _compare(samples, mixtures):
    """Figures of :func:`fit_quality`, one row per sample."""
    # so that the products below are summed in double precision, whatever the bulk is in
    mixtures = mixtures.astype(np.float64)
    size = np.einsum("jg,jg->j", mixtures, mixtures)
    # a factor below 0 would turn the mixture upside down
    scale = np.maximum(np.einsum("jg,jg->j", samples, mixtures), 0)
    scale = np.divide(scale, size, out=np.zeros_like(scale), where=size > 0)
    error = np.mean((samples - scale[:, None] * mixtures) ** 2, axis=1)
    shape, mixed_shape = standardize(samples), standardize(mixtures)
    varies = shape.any(axis=1)
    correlation = np.einsum("jg,jg->j", shape, mixed_shape) / max(samples.shape[1] - 1, 1)
    # what does not vary is 0 when standardised, and would pass for uncorrelated
    correlation[~(varies & mixed_shape.any(axis=1))] = np.nan
    variance = np.where(varies, samples.var(axis=1), np.nan)
    totals = samples.sum(axis=1)
    explained = np.full(len(samples), np.nan)
    np.divide(scale * mixtures.sum(axis=1), totals, out=explained, where=totals > 0)
    return np.column_stack([1 - error / variance, np.sqrt(error), correlation, scale, explained])


@filled(ENTRIES)
def unexplained_genes(
    X: Table, reference: Table, proportions: Table, *, minimum: float = 1.0
) -> pd.DataFrame:
    r"""Genes that samples express and a mixture of the reference does not, and the cell types that they resemble.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, at least 0 and on the linear scale.
    {mixture}
    minimum : float, default=1.0
        Least excess of the genes that are listed.

    Returns
    -------
    genes : DataFrame
        One row per gene, the largest excess first:

        - "gene" : its name, or number if it has none.
        - "excess" : median over samples of :math:`\log_2((x + c)/(m + c))` less the sample's median over genes; 1 is
          twice as much as the mixture has. x and mixture m are over their means, c = 0.01.
        - "samples" : share of samples with an excess of ``minimum`` or more.
        - "expression" : mean of X.
        - "resembles" : the cell type with the highest profile in this gene.
        - "resemblance" : its part of the sum of all profiles, 1 / n_cell_types for a gene that tells nothing.

    Raises
    ------
    ValueError
        If X, reference and proportions do not fit together, or are negative; the message names the first offenders.

    See Also
    --------
    fit_quality : Which samples are reproduced badly.

    Notes
    -----
    A type that the reference lacks shows as an excess of its genes in the samples that contain it. The genes
    that it shares with a type in the reference show which type its share is credited to. Differences between
    platforms and donors have the same effect, so the list is a hint at what to look for, not proof of a
    missing type, and it does not tell how much of that type there is.

    An X that is not in memory is read twice by blocks of samples; the ratios are laid out by genes in a temporary
    file, 8 bytes × samples × genes.

    Examples
    --------
    >>> from skenigma.proportions import unexplained_genes
    >>> reference = [[10.0, 1.0, 5.0, 5.0, 1.0], [1.0, 10.0, 5.0, 5.0, 2.0]]
    >>> table = unexplained_genes([[5.0, 5.0, 5.0, 5.0, 30.0]], reference, [[0.5, 0.5]])
    >>> table[["gene", "resembles"]].to_numpy().tolist()
    [['x4', 'celltype1']]
    """
    X, genes = open_bulk(X), _Genes(reference)
    bulk = genes.align(X)
    reason = "Logarithms need expression of at least 0: pass values as they were before centring."
    check_nonnegative(bulk, "X", row_names(X), genes.gene_names_, reason)
    check_nonnegative(genes.reference_, "reference", genes.cell_types_, genes.gene_names_, reason)
    shares = check_proportions(proportions, genes.cell_types_, len(bulk), row_labels(X))
    parts = ((rows, _log_ratios(block, shares[rows] @ genes.reference_)) for rows, block in each_block(bulk))
    ratios = laid_out(bulk.shape, parts) if is_lazy(bulk) else np.concatenate([block for _, block in parts])
    columns = gene_blocks(bulk.shape[1], len(bulk))
    # the median over samples, so that a single odd one does not list a gene
    excess = np.concatenate([np.median(ratios[:, some], axis=0) for some in columns])
    samples = np.concatenate([np.mean(ratios[:, some] >= minimum, axis=0) for some in columns])
    listed = np.argsort(-excess, kind="stable")
    listed = listed[excess[listed] >= minimum]
    profiles = genes.reference_[:, listed]
    totals = profiles.sum(axis=0)
    part = np.divide(profiles.max(axis=0), totals, out=np.zeros_like(totals), where=totals > 0)
    return pd.DataFrame(
        {
            "gene": genes.gene_names_[listed],
            "excess": excess[listed],
            "samples": samples[listed],
            "expression": bulk.mean(axis=0)[listed],
            "resembles": genes.cell_types_[profiles.argmax(axis=0)],
            "resemblance": part,
        }
    )


def _log_ratios(samples, mixtures):
    """Log ratios of samples and mixtures, one row per sample, of median 0."""
    ratios = _logarithms(samples) - _logarithms(mixtures)
    # what all genes share is depth, and no excess of any
    return ratios - np.median(ratios, axis=1, keepdims=True)


def _logarithms(rows):
    return np.log2(rows / np.maximum(rows.mean(axis=1, keepdims=True, dtype=np.float64), TINY) + OFFSET)
