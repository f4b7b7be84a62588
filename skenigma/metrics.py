"""How well cell-type-specific expression, proportions and changed genes are recovered, where the truth is known.

Tensors of expression are samples × cell types × genes. They are read in blocks, so that no temporary of their size
is ever built, and arrays that repeat themselves (:func:`numpy.broadcast_to`) cost no memory.
"""

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state, gen_batches

from .checks.names import listing
from .checks.numbers import check_magnitude, refuse_masked

__all__ = [
    "concordance",
    "detection_auprc",
    "detection_average_precision",
    "per_gene_correlation",
    "per_sample_correlation",
    "recovery_score",
    "recovery_scorer",
    "root_mean_squared_error",
]

# Numbers per block of a tensor: a few arrays of this size stay in the cache.
BLOCK_SIZE = 2**17
# A row counts as constant if it varies by less than this multiple of the rounding error of its largest value.
ROUNDING_MARGIN = 8
METHODS = ("pearson", "spearman")
# The original calls genes by p < threshold, and wants those of p = 1 called in the end.
LARGEST_P_VALUE = 0.99


def per_gene_correlation(cse_true, cse_pred, *, method="pearson"):
    """Correlate estimated with true expression over samples, for every cell type and gene.

    Answers whether an estimate follows a gene from sample to sample within a cell type.

    Parameters
    ----------
    cse_true, cse_pred : array-like of shape (n_samples, n_cell_types, n_genes)
        True and estimated cell-type-specific expression, in any units.
    method : {"pearson", "spearman"}, default="pearson"
        Correlation of the values, or of their ranks (ties get the mean of their ranks).

    Returns
    -------
    correlation : ndarray of shape (n_cell_types, n_genes)
        NaN where the estimate or the truth does not vary (by more than rounding): there is nothing to correlate.
        :func:`recovery_score` averages such a table, and says what it does with NaN.

    Raises
    ------
    ValueError
        If the tensors are not finite or differ in shape.

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
    true, pred = _check_tensors(cse_true, cse_pred)
    _check_choice(method, METHODS, "method")
    n_samples, n_cell_types, n_genes = true.shape
    result = np.empty((n_cell_types, n_genes))
    for genes in _batches(n_genes, n_samples * n_cell_types):
        result[:, genes] = _correlate(true[:, :, genes], pred[:, :, genes], 0, method)
    return result


def per_sample_correlation(cse_true, cse_pred, *, method="pearson"):
    """Correlate estimated with true expression over genes, for every sample and cell type.

    Answers whether an estimate has the right profile. That is the easier question: the reference profile itself,
    the same for all samples, often answers it well.

    Parameters
    ----------
    cse_true, cse_pred : array-like of shape (n_samples, n_cell_types, n_genes)
        True and estimated cell-type-specific expression, in any units.
    method : {"pearson", "spearman"}, default="pearson"
        Correlation of the values, or of their ranks (ties get the mean of their ranks).

    Returns
    -------
    correlation : ndarray of shape (n_samples, n_cell_types)
        NaN where the estimate or the truth does not vary over genes (by more than rounding).

    Raises
    ------
    ValueError
        If the tensors are not finite or differ in shape.

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
    true, pred = _check_tensors(cse_true, cse_pred)
    _check_choice(method, METHODS, "method")
    n_samples, n_cell_types, n_genes = true.shape
    result = np.empty((n_samples, n_cell_types))
    for samples in _batches(n_samples, n_cell_types * n_genes):
        result[samples] = _correlate(true[samples], pred[samples], 2, method)
    return result


def root_mean_squared_error(cse_true, cse_pred, *, per=None):
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
    ValueError
        If the tensors are not finite or differ in shape.

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
    true, pred = _check_tensors(cse_true, cse_pred)
    _check_choice(per, (None, "gene", "sample"), "per")
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


def recovery_score(cse_true, cse_pred, *, per="gene", method="pearson", undefined="zero"):
    """Mean correlation of estimated with true expression.

    Parameters
    ----------
    cse_true, cse_pred : array-like of shape (n_samples, n_cell_types, n_genes)
        True and estimated cell-type-specific expression, in any units.
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
    ValueError
        If the tensors are not finite or differ in shape.

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
    _check_choice(per, ("gene", "sample"), "per")
    _check_choice(undefined, ("zero", "omit", "nan"), "undefined")
    correlate = per_gene_correlation if per == "gene" else per_sample_correlation
    found = correlate(cse_true, cse_pred, method=method)
    asked = _varies(np.asarray(cse_true), 0 if per == "gene" else 2)
    found = found[asked]
    if undefined == "zero":
        found = np.nan_to_num(found, nan=0.0)
    elif undefined == "omit":
        found = found[~np.isnan(found)]
    return float(found.mean()) if found.size else np.nan


def concordance(proportions_true, proportions_pred):
    """Lin's concordance correlation coefficient of estimated with true proportions, per cell type.

    2·s_xy / (s_x² + s_y² + (x̄ − ȳ)²) over samples, with moments over n: 1 only if the estimates lie on the line of
    equality [1]_. Unlike a correlation it sees that a cell type is estimated too high or too narrow throughout.

    Parameters
    ----------
    proportions_true, proportions_pred : array-like or DataFrame of shape (n_samples, n_cell_types)
        True and estimated proportions. Two frames are matched by their names.

    Returns
    -------
    concordance : ndarray of shape (n_cell_types,)
        In the order of ``proportions_true``. 0 for an estimate that does not vary; NaN if neither varies and
        both are equal.

    Raises
    ------
    ValueError
        If the tables are not finite, differ in shape, or name different samples or cell types.

    References
    ----------
    .. [1] Lin (1989), A concordance correlation coefficient to evaluate reproducibility. Biometrics 45.

    Examples
    --------
    >>> from skenigma.metrics import concordance
    >>> truth = [[0.2, 0.8], [0.4, 0.6], [0.6, 0.4]]
    >>> concordance(truth, truth).round(12).tolist()
    [1.0, 1.0]
    >>> concordance(truth, [[0.3, 0.7], [0.5, 0.5], [0.7, 0.3]]).round(3).tolist()
    [0.842, 0.842]
    """
    true, pred = _check_tables(proportions_true, proportions_pred, "proportions_true", "proportions_pred")
    centre_true, centre_pred = true.mean(axis=0), pred.mean(axis=0)
    shared = np.mean((true - centre_true) * (pred - centre_pred), axis=0)
    total = true.var(axis=0) + pred.var(axis=0) + (centre_true - centre_pred) ** 2
    return np.divide(2 * shared, total, out=np.full_like(total, np.nan), where=total > 0)


def detection_auprc(changed, p_values, effect, *, levels=None, n_levels=10_000, random_state=None):
    """Area under the precision-recall curve of detected changed genes, by the original's definition.

    Thresholds are quantiles of a cell type's p-values at random levels. At each, the genes with a smaller p-value
    are called changed in the direction of their effect; a call is right if the gene did change, that way. The
    area lies under precision against recall, by the trapezoid rule, between the smallest and the largest
    threshold [1]_.

    Parameters
    ----------
    changed : array-like or DataFrame of shape (n_cell_types, n_genes)
        The truth: 1 for genes that go up, -1 down, 0 unchanged.
    p_values : array-like or DataFrame of the same shape
        The p-values or q-values. NaN, a gene that could not be tested, is never called.
    effect : array-like or DataFrame of the same shape
        Estimated effects; only their signs count.
    levels : array-like of shape (n_cell_types, n_levels) or (n_levels,), default=None
        Levels of the thresholds, between 0 and 1. None draws ``n_levels`` uniform ones per cell type.
    n_levels : int, default=10000
        Number of levels to draw.
    random_state : int, RandomState instance or None, default=None
        Of the drawn levels.

    Returns
    -------
    auprc : ndarray of shape (n_cell_types,)
        NaN where the smallest threshold calls nothing (the smallest p-values are tied): precision is 0/0 there,
        as in the original. NaN also where no gene changed, or none was tested.

    Raises
    ------
    ValueError
        If the tables differ in shape or names, or a level lies outside of [0, 1].

    See Also
    --------
    detection_average_precision : Without random thresholds; prefer it where numbers of the original do not matter.

    Notes
    -----
    Thresholds are compared to 15 significant digits, p-values of 1 count as 0.99, as in the original.

    References
    ----------
    .. [1] Wang et al., ENIGMA: dEcoNvolutIon method based on reGularized MAtrix completion.

    Examples
    --------
    >>> from skenigma.metrics import detection_auprc
    >>> changed = [[1, -1, 0, 0, 0]]
    >>> auprc = detection_auprc(changed, [[0.001, 0.01, 0.2, 0.5, 0.9]], [[2, -3, 1, 0.1, 0]], random_state=0)
    >>> auprc.shape
    (1,)
    """
    changed, p_values, effect = _check_detection(changed, p_values, effect)
    if levels is None:
        levels = check_random_state(random_state).uniform(size=(len(changed), n_levels))
    levels = np.broadcast_to(np.asarray(levels, dtype=float), (len(changed), np.shape(levels)[-1]))
    if not np.all((levels >= 0) & (levels <= 1)):
        raise ValueError("levels must lie between 0 and 1: they are levels of quantiles.")
    rows = zip(changed, p_values, effect, levels, strict=True)
    return np.array([_area_under_calls(*row) for row in rows])


def detection_average_precision(changed, scores, effect=None):
    """Average precision of a ranking of genes by their evidence of change, per cell type.

    Parameters
    ----------
    changed : array-like or DataFrame of shape (n_cell_types, n_genes)
        The truth: 1 for genes that go up, -1 down, 0 unchanged.
    scores : array-like or DataFrame of the same shape
        Evidence, larger is more: the absolute statistic, or minus the p-value. NaN ranks behind all others.
    effect : array-like or DataFrame of the same shape, default=None
        Estimated effects. If given, a gene counts as found only if its sign is right; a changed gene with the wrong
        sign is a false call at its rank, and never found.

    Returns
    -------
    average_precision : ndarray of shape (n_cell_types,)
        Between 0 and 1; NaN where no gene changed. A random ranking has about the share of changed genes (half of
        it with ``effect``).

    Raises
    ------
    ValueError
        If the tables differ in shape or names.

    See Also
    --------
    detection_auprc : The original's definition.

    Examples
    --------
    >>> from skenigma.metrics import detection_average_precision
    >>> changed, t = [[1, -1, 0, 0]], [[3.0, 2.0, 1.0, 0.5]]
    >>> detection_average_precision(changed, t).tolist()
    [1.0]
    >>> detection_average_precision(changed, t, effect=t).tolist()
    [0.5]
    """
    effect = changed if effect is None else effect
    changed, scores, effect = _check_detection(changed, scores, effect)
    return np.array([_average_precision(*row) for row in zip(changed, scores, effect, strict=True)])


def recovery_scorer(kind="per_gene", *, method="pearson", undefined="zero"):
    """Make a scorer for scikit-learn's model selection that takes the true expression as ``y``.

    Parameters
    ----------
    kind : {"per_gene", "per_sample", "neg_rmse"}, default="per_gene"
        :func:`recovery_score` per gene or per sample, or minus :func:`root_mean_squared_error`. Per gene needs
        several samples in every test fold.
    method : {"pearson", "spearman"}, default="pearson"
        Kind of correlation; not for "neg_rmse".
    undefined : {"zero", "omit", "nan"}, default="zero"
        What an estimate that does not vary counts for, see :func:`recovery_score`; not for "neg_rmse".

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)``, larger is better, for the parameter ``scoring`` of
        :class:`~sklearn.model_selection.GridSearchCV` and its like. ``estimator`` is a deconvolver, or a Pipeline
        that ends in one; y is the truth for the rows of X, of shape (n_samples, n_cell_types, n_genes)
        or flattened to (n_samples, n_cell_types * n_genes). Columns of a frame are matched by name
        ("cell type:gene"), others by position.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.metrics import recovery_scorer
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0)
    >>> search = GridSearchCV(
    ...     L2MaxDeconvolver(reference=cohort.reference, renorm_size=None),
    ...     {"alpha": [0.1, 0.9]},
    ...     scoring=recovery_scorer("per_gene"),
    ...     cv=2,
    ... )
    >>> search.fit(cohort.bulk, cohort.cse).best_params_
    {'alpha': 0.1}
    """
    _check_choice(kind, ("per_gene", "per_sample", "neg_rmse"), "kind")
    _check_choice(method, METHODS, "method")
    _check_choice(undefined, ("zero", "omit", "nan"), "undefined")
    return _RecoveryScorer(kind, method, undefined)


class _RecoveryScorer:
    """Scorer of :func:`recovery_scorer`; a class, so that it can be pickled and shows its settings."""

    def __init__(self, kind, method, undefined):
        self.kind, self.method, self.undefined = kind, method, undefined

    def __repr__(self):
        return f"recovery_scorer({self.kind!r}, method={self.method!r}, undefined={self.undefined!r})"

    def __call__(self, estimator, X, y):
        found = estimator.transform(X)
        names = getattr(found, "columns", None)
        found = np.asarray(found)
        final = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        if isinstance(y, pd.DataFrame):
            y = _match_columns(y, final.get_feature_names_out() if names is None else names)
        shape = (len(found), -1, len(final.gene_names_))
        truth = np.asarray(y)
        if truth.ndim == 2 and truth.shape == found.shape:
            truth = truth.reshape(shape)
        return self.score(truth, found.reshape(shape))

    def score(self, cse_true, cse_pred):
        """Score of an estimate, larger is better."""
        if self.kind == "neg_rmse":
            return -root_mean_squared_error(cse_true, cse_pred)
        per = self.kind.removeprefix("per_")
        return recovery_score(cse_true, cse_pred, per=per, method=self.method, undefined=self.undefined)


def _batches(count, size):
    """Slices over ``count`` entries of ``size`` numbers each."""
    return gen_batches(count, max(1, BLOCK_SIZE // max(1, size)))


def _correlate(first, second, axis, method):
    """Correlation along an axis; NaN where either does not vary."""
    varies = _varies(first, axis) & _varies(second, axis)
    first, second = _centre(first, axis, method), _centre(second, axis, method)
    lengths = np.sqrt(_sum_products(first, first, axis)) * np.sqrt(_sum_products(second, second, axis))
    found = np.divide(
        _sum_products(first, second, axis), lengths, out=np.full(varies.shape, np.nan), where=varies
    )
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
    spread = np.subtract(high, low, dtype=np.float64)
    return spread > ROUNDING_MARGIN * precision * np.maximum(np.abs(low), np.abs(high))


def _area_under_calls(changed, p_values, effect, levels):
    """Area under precision against recall of one cell type."""
    tested = ~np.isnan(p_values)
    if not tested.any() or not changed.any():
        return np.nan
    thresholds = _fifteen_digits(np.quantile(p_values[tested], levels))
    p_values = np.where(p_values == 1, LARGEST_P_VALUE, p_values)[tested]
    order = np.argsort(p_values)
    right = (np.sign(effect) == changed)[tested][order] & (changed[tested][order] != 0)
    n_called = np.searchsorted(p_values[order], thresholds, side="left")
    n_right = np.r_[0, np.cumsum(right)][n_called]
    if n_called[0] == 0:
        return np.nan
    return float(trapezoid(n_right / n_called, n_right / np.count_nonzero(changed)))


def _fifteen_digits(values):
    """Sorted distinct values after rounding to 15 significant digits."""
    return np.unique([float(f"{value:.15g}") for value in values])


def _average_precision(changed, scores, effect):
    if not changed.any():
        return np.nan
    right = (np.sign(effect) == np.sign(changed)) & (changed != 0)
    if not right.any():
        return 0.0
    ranks = rankdata(np.where(np.isnan(scores), -np.inf, scores))
    # precision at the found genes, of which changed genes of the wrong sign are never one
    return average_precision_score(right, ranks) * right.sum() / np.count_nonzero(changed)


def _check_choice(value, choices, name):
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def _check_tensors(cse_true, cse_pred):
    """Both tensors as arrays of numbers, of one shape and finite."""
    for name, tensor in (("cse_true", cse_true), ("cse_pred", cse_pred)):
        refuse_masked(tensor, name)
    tensors = [np.asarray(cse_true), np.asarray(cse_pred)]
    for name, tensor in zip(("cse_true", "cse_pred"), tensors, strict=True):
        if tensor.ndim != 3 or not tensor.size:
            raise ValueError(
                f"{name} has shape {tensor.shape}; samples × cell types × genes are needed, at least one of each. "
                f"Reshape what transform returns to (n_samples, n_cell_types, -1)."
            )
    true, pred = tensors
    if true.shape != pred.shape:
        raise ValueError(
            f"cse_true has shape {true.shape}, cse_pred {pred.shape} (samples × cell types × genes): they must be "
            f"equal. Compare the genes in use (gene_names_) only."
        )
    for name, tensor in (("cse_true", true), ("cse_pred", pred)):
        _refuse_nonfinite(tensor, name)
        check_magnitude(tensor, name)
    return tensors


def _refuse_nonfinite(array, name):
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(array)):  # one pass, no temporary: the rule
            return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        places = listing([tuple(map(int, place)) for place in bad])
        raise ValueError(f"{name} is not finite in {len(bad)} place(s): {places}.")


def _check_tables(first, second, first_name, second_name, allow_nan=False):
    """Two tables as float arrays of one shape, the second in the order of the first where both are named."""
    if isinstance(first, pd.DataFrame) and isinstance(second, pd.DataFrame):
        for axis in ("index", "columns"):
            missing = getattr(first, axis).difference(getattr(second, axis))
            if len(missing):
                raise ValueError(f"{second_name} does not name {listing(list(missing))} in its {axis}.")
        second = second.loc[first.index, first.columns]
    refuse_masked(first, first_name)
    refuse_masked(second, second_name)
    tables = [np.atleast_2d(np.asarray(table, dtype=float)) for table in (first, second)]
    if tables[0].shape != tables[1].shape:
        raise ValueError(
            f"{first_name} has shape {tables[0].shape}, {second_name} {tables[1].shape}: they must be equal."
        )
    _refuse_nonfinite(tables[0], first_name)
    if not allow_nan:
        _refuse_nonfinite(tables[1], second_name)
    return tables


def _check_detection(changed, values, effect):
    """Truth, values and effects of detection as arrays (n_cell_types, n_genes)."""
    signs, values = _check_tables(changed, values, "changed", "the table of values", allow_nan=True)
    _, effect = _check_tables(changed, effect, "changed", "effect", allow_nan=True)
    wrong = np.setdiff1d(signs, [-1, 0, 1])
    if len(wrong):
        raise ValueError(f"changed must hold 1, -1 and 0 only, but it holds {listing(list(wrong))}.")
    return signs, values, effect


def _match_columns(frame, names):
    missing = pd.Index(names).difference(frame.columns)
    if len(missing):
        raise ValueError(
            f"y does not name {listing(list(missing))} of what transform returns: name its columns "
            f"'cell type:gene', or pass an array to match by position."
        )
    return frame.loc[:, list(names)]
