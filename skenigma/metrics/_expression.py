"""How well expression is recovered. Tensors are read in blocks: no temporary of their size is ever built."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.utils import gen_batches

from .._docstrings import filled
from ._checks import check_choice, check_tensors

# Numbers per block of a tensor: a few arrays of this size stay in the cache.
BLOCK_SIZE = 2**17
# A row counts as constant if it varies by less than this multiple of the rounding error of its largest value.
ROUNDING_MARGIN = 8
METHODS = ("pearson", "spearman")
# Entries that the docstrings of this module share.
ENTRIES = {
    "tensors": """cse_true, cse_pred : array-like of shape (n_samples, n_cell_types, n_genes)
    True and estimated cell-type-specific expression, in any units.""",
    "method": """method : {"pearson", "spearman"}, default="pearson"
    Correlation of the values, or of their ranks (ties get the mean of their ranks).""",
    "refusal": """ValueError
    If the tensors are not finite or differ in shape.""",
}


@filled(ENTRIES)
def per_gene_correlation(cse_true: ArrayLike, cse_pred: ArrayLike, *, method: str = "pearson") -> np.ndarray:
    """Correlate estimated with true expression over samples, for every cell type and gene.

    Answers whether an estimate follows a gene from sample to sample within a cell type.

    Parameters
    ----------
    {tensors}
    {method}

    Returns
    -------
    correlation : ndarray of shape (n_cell_types, n_genes)
        NaN where the estimate or the truth does not vary (by more than rounding): there is nothing to correlate.
        :func:`recovery_score` averages such a table, and says what it does with NaN.

    Raises
    ------
    {refusal}

    See Also
    --------
    per_sample_correlation : Over genes, for every sample and cell type.
    recovery_score : The mean.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.metrics import per_gene_correlation
    >>> cohort = make_cohort(n_samples=20, n_genes=30, n_cell_types=3, random_state=0)
    >>> bulk_itself = np.broadcast_to(cohort.bulk[:, None], cohort.cse.shape)
    >>> per_gene_correlation(cohort.cse, bulk_itself).shape
    (3, 30)
    """
    return _correlations(cse_true, cse_pred, 0, method)


@filled(ENTRIES)
def per_sample_correlation(
    cse_true: ArrayLike, cse_pred: ArrayLike, *, method: str = "pearson"
) -> np.ndarray:
    """Correlate estimated with true expression over genes, for every sample and cell type.

    Answers whether an estimate has the right profile. That is the easier question: the reference profile itself,
    the same for all samples, often answers it well.

    Parameters
    ----------
    {tensors}
    {method}

    Returns
    -------
    correlation : ndarray of shape (n_samples, n_cell_types)
        NaN where the estimate or the truth does not vary over genes (by more than rounding).

    Raises
    ------
    {refusal}

    See Also
    --------
    per_gene_correlation : Over samples, for every cell type and gene.
    recovery_score : The mean.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.metrics import per_sample_correlation
    >>> cohort = make_cohort(n_samples=20, n_genes=30, n_cell_types=3, random_state=0)
    >>> reference_itself = np.broadcast_to(cohort.reference, cohort.cse.shape)
    >>> per_sample_correlation(cohort.cse, reference_itself).shape
    (20, 3)
    """
    return _correlations(cse_true, cse_pred, 2, method)


@filled(ENTRIES)
def root_mean_squared_error(
    cse_true: ArrayLike, cse_pred: ArrayLike, *, per: str | None = None
) -> float | np.ndarray:
    """Root of the mean squared difference of estimated and true expression.

    Parameters
    ----------
    cse_true, cse_pred : array-like of shape (n_samples, n_cell_types, n_genes)
        True and estimated cell-type-specific expression, in the same units.
    per : {None, "gene", "sample"}, default=None
        None: over everything. "gene": over samples, for every cell type and gene. "sample": over genes, for every
        sample and cell type.

    Returns
    -------
    error : float or ndarray
        In the units of the expression: a number, or an array of shape (n_cell_types, n_genes) for "gene" and
        (n_samples, n_cell_types) for "sample". Never NaN.

    Raises
    ------
    {refusal}

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.metrics import root_mean_squared_error
    >>> truth = np.zeros((4, 2, 3))
    >>> root_mean_squared_error(truth, truth + 2)
    2.0
    >>> root_mean_squared_error(truth, truth + 2, per="sample").shape
    (4, 2)
    """
    true, pred = check_tensors(cse_true, cse_pred)
    check_choice(per, (None, "gene", "sample"), "per")
    n_samples, n_cell_types, n_genes = true.shape
    by_gene, by_sample = np.zeros((n_cell_types, n_genes)), np.empty((n_samples, n_cell_types))
    for samples in _batches(n_samples, n_cell_types * n_genes):
        difference = np.subtract(true[samples], pred[samples], dtype=np.float64)
        np.square(difference, out=difference)
        by_sample[samples] = difference.mean(axis=2)
        by_gene += difference.sum(axis=0)
    if per == "gene":
        return np.sqrt(by_gene / n_samples)
    return np.sqrt(by_sample) if per == "sample" else float(np.sqrt(by_sample.mean()))


@filled(ENTRIES)
def recovery_score(
    cse_true: ArrayLike,
    cse_pred: ArrayLike,
    *,
    per: str = "gene",
    method: str = "pearson",
    undefined: str = "zero",
) -> float:
    """Mean correlation of estimated with true expression.

    Parameters
    ----------
    {tensors}
    per : {"gene", "sample"}, default="gene"
        What is averaged: :func:`per_gene_correlation` or :func:`per_sample_correlation`.
    method : {"pearson", "spearman"}, default="pearson"
        Kind of correlation.
    undefined : {"zero", "omit", "nan"}, default="zero"
        What an estimate that does not vary counts for. "zero": it says nothing, so it counts 0, and no method gains
        by answering for easy genes only. "omit": it is left out of the mean. "nan": the mean is NaN. Where
        the truth does not vary there is no question, and the entry is always left out.

    Returns
    -------
    score : float
        Between -1 and 1, larger is better; NaN if the truth varies nowhere.

    Raises
    ------
    {refusal}

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.metrics import recovery_score
    >>> cohort = make_cohort(n_samples=20, n_genes=30, n_cell_types=3, random_state=0)
    >>> reference_itself = np.broadcast_to(cohort.reference, cohort.cse.shape)
    >>> recovery_score(cohort.cse, reference_itself, per="gene")
    0.0
    >>> recovery_score(cohort.cse, reference_itself, per="sample") > 0.4
    True
    """
    check_choice(per, ("gene", "sample"), "per")
    check_choice(undefined, ("zero", "omit", "nan"), "undefined")
    correlate = per_gene_correlation if per == "gene" else per_sample_correlation
    found = correlate(cse_true, cse_pred, method=method)
    asked = _varies(np.asarray(cse_true), 0 if per == "gene" else 2)
    found = found[asked]
    if undefined == "zero":
        found = np.nan_to_num(found, nan=0.0)
    elif undefined == "omit":
        found = found[~np.isnan(found)]
    return float(found.mean()) if found.size else np.nan


def _correlations(cse_true, cse_pred, axis, method):
    """Correlations over samples (axis 0) or genes (axis 2), by blocks along the other of the two."""
    true, pred = check_tensors(cse_true, cse_pred)
    check_choice(method, METHODS, "method")
    # each correlation needs all of its own axis, so blocks are cut along the other
    other = 2 - axis
    count = true.shape[other]
    parts = [(slice(None),) * other + (block,) for block in _batches(count, true.size // count)]
    return np.concatenate([_correlate(true[part], pred[part], axis, method) for part in parts], other // 2)


def _batches(count, size):
    """Slices over ``count`` entries of ``size`` numbers each."""
    return gen_batches(count, max(1, BLOCK_SIZE // max(1, size)))


def _correlate(first, second, axis, method):
    """Correlation along an axis; NaN where either does not vary."""
    varies = _varies(first, axis) & _varies(second, axis)
    first, second = _centre(first, axis, method), _centre(second, axis, method)
    # roots before their product, which would leave the range of numbers earlier
    lengths = np.sqrt(_sum_products(first, first, axis)) * np.sqrt(_sum_products(second, second, axis))
    found = np.divide(
        _sum_products(first, second, axis), lengths, out=np.full(varies.shape, np.nan), where=varies
    )
    # rounding can carry a perfect correlation beyond 1
    return np.clip(found, -1, 1, out=found)


def _centre(block, axis, method):
    """Values or ranks minus their mean."""
    if method == "spearman":
        block = rankdata(block, axis=axis)
    return block - block.mean(axis=axis, keepdims=True, dtype=np.float64)


def _sum_products(first, second, axis):
    """Inner products along an axis, without a temporary of their size."""
    axes = "jkg"[: first.ndim]
    return np.einsum(f"{axes},{axes}->{axes.replace(axes[axis], '')}", first, second)


def _varies(block, axis):
    """Whether values vary along an axis by more than rounding."""
    low, high = block.min(axis=axis), block.max(axis=axis)
    precision = np.finfo(block.dtype).eps if block.dtype.kind == "f" else 0
    # in their own type, the difference of small integers could overflow
    spread = np.subtract(high, low, dtype=np.float64)
    return spread > ROUNDING_MARGIN * precision * np.maximum(np.abs(low), np.abs(high))
