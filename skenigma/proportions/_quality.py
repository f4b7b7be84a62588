"""How well a reference, mixed by proportions, reproduces bulk samples."""

import numpy as np
import pandas as pd

from .._transformers import ReferenceTransformer
from ..checks.validation import check_proportions, row_names
from ..core.blocks import row_blocks
from ..core.profiles import standardize


def fit_quality(X, reference, proportions):
    r"""How well a reference, mixed by proportions, reproduces every bulk sample.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, samples as rows.
    reference : DataFrame or array-like of shape (n_cell_types, n_genes)
        Expression profile of every cell type. Genes are matched as in :class:`~skenigma.ProportionEstimator`.
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
        From wherever they come. Named rows and columns are matched to samples and cell types.

    Returns
    -------
    quality : DataFrame of shape (n_samples, 4)
        One row per sample, in the order of X and with its row names. With sample x, mixture
        :math:`m = \sum_k \theta_k r_k` and scale c, over the genes that X and reference share:

        - "r2" : :math:`1 - \sum_g (x_g - c\,m_g)^2 / \sum_g (x_g - \bar x)^2`. 1 is perfect, 0 no better than one
          number for all genes; negative is worse than that.
        - "rmse" : root mean square of :math:`x_g - c\,m_g`, in units of X.
        - "correlation" : Pearson correlation of x and m.
        - "scale" : the c that reproduces x best, by least squares, and at least 0. About 1 if X and reference
          are on one scale.

    Raises
    ------
    ValueError
        If X, reference and proportions do not fit together; the message names the first offenders.

    See Also
    --------
    ProportionEstimator : Whose ``quality_`` and ``quality`` are these figures for its own proportions.

    Notes
    -----
    Proportions say nothing of how deeply a sample was sequenced, so the mixture is scaled before it is compared.
    A sample that is the same in all genes has no "r2" and no "correlation" (NaN), nor has a mixture that is a
    "correlation"; nothing else is NaN.

    A sample that falls behind the others is not a mixture of these profiles: it may hold a cell type that the
    reference lacks, come from another platform or batch, be on another scale (logarithmic, say), or be of low
    quality. Its proportions deserve little trust, and so does its cell-type-specific expression. The reverse does
    not hold: on a linear scale a few highly expressed genes decide these figures, and cell types that resemble
    each other can be exchanged with hardly a loss.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.proportions import fit_quality
    >>> cohort = make_cohort(n_samples=10, n_genes=200, random_state=0, as_frame=True)
    >>> quality = fit_quality(cohort.bulk, cohort.reference, cohort.proportions)
    >>> list(quality.columns)
    ['r2', 'rmse', 'correlation', 'scale']
    >>> bool((quality["r2"] < 1).all())
    True
    """
    genes = _Genes(reference)
    bulk = genes._fit_genes(X)
    shares = check_proportions(proportions, genes.cell_types_, len(bulk), row_names(X))
    return compare(X, bulk, genes.reference_, shares)


class _Genes(ReferenceTransformer):
    """Matches genes, and nothing else."""

    def __init__(self, reference):
        self.reference = reference


def compare(X, bulk, reference, proportions):
    """:func:`fit_quality` of aligned arrays; X gives the names of the samples."""
    found = [_compare(bulk[rows], proportions[rows] @ reference) for rows in row_blocks(bulk)]
    index = getattr(X, "index", None)
    columns = ["r2", "rmse", "correlation", "scale"]
    return pd.DataFrame(
        np.concatenate(found), index=index if isinstance(index, pd.Index) else None, columns=columns
    )


def _compare(samples, mixtures):
    """Figures of :func:`fit_quality`, one row per sample."""
    samples, mixtures = samples.astype(np.float64), mixtures.astype(np.float64)
    size = np.einsum("jg,jg->j", mixtures, mixtures)
    scale = np.maximum(np.einsum("jg,jg->j", samples, mixtures), 0)
    scale = np.divide(scale, size, out=np.zeros_like(scale), where=size > 0)
    error = np.mean((samples - scale[:, None] * mixtures) ** 2, axis=1)
    shape, mixed_shape = standardize(samples), standardize(mixtures)
    varies = shape.any(axis=1)
    correlation = np.einsum("jg,jg->j", shape, mixed_shape) / max(samples.shape[1] - 1, 1)
    correlation[~(varies & mixed_shape.any(axis=1))] = np.nan
    variance = np.where(varies, samples.var(axis=1), np.nan)
    return np.column_stack([1 - error / variance, np.sqrt(error), correlation, scale])
