"""How well changed genes are found."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from sklearn.utils import check_random_state

from .._docstrings import filled
from .._typing import Seed, Table
from ..checks.names import listing
from ._checks import check_tables

# The original calls genes by p < threshold, and wants those of p = 1 called in the end.
LARGEST_P_VALUE = 0.99
# Entries that the docstrings of this module share.
ENTRIES = {
    "changed": """changed : array-like or DataFrame of shape (n_cell_types, n_genes)
    The truth: 1 for genes that go up, -1 down, 0 unchanged.""",
}


@filled(ENTRIES)
def detection_auprc(
    changed: Table,
    p_values: Table,
    effect: Table,
    *,
    levels: ArrayLike | None = None,
    n_levels: int = 10_000,
    random_state: Seed = None,
) -> np.ndarray:
    """Area under the precision-recall curve of detected changed genes, by the original's definition.

    Thresholds are quantiles of a cell type's p-values at random levels. At each, the genes with a smaller p-value
    are called changed in the direction of their effect; a call is right if the gene did change, that way. The
    area lies under precision against recall, by the trapezoid rule, between the smallest and the largest
    threshold [1]_.

    Parameters
    ----------
    {changed}
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


@filled(ENTRIES)
def detection_average_precision(changed: Table, scores: Table, effect: Table | None = None) -> np.ndarray:
    """Average precision of a ranking of genes by their evidence of change, per cell type.

    Parameters
    ----------
    {changed}
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
    rows = zip(*_check_detection(changed, scores, effect), strict=True)
    return np.array([_average_precision(*row) for row in rows])


def _area_under_calls(changed, p_values, effect, levels):
    """Area under precision against recall of one cell type."""
    # NaN is never called, and has no part in the quantiles
    tested = ~np.isnan(p_values)
    if not tested.any() or not changed.any():
        return np.nan
    thresholds = _fifteen_digits(np.quantile(p_values[tested], levels))
    p_values = np.where(p_values == 1, LARGEST_P_VALUE, p_values)[tested]
    order = np.argsort(p_values)
    right = (np.sign(effect) == changed)[tested][order] & (changed[tested][order] != 0)
    # a p-value equal to the threshold is not below it, and not called
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


def _check_detection(changed, values, effect):
    """Truth, values and effects of detection as arrays (n_cell_types, n_genes)."""
    signs, values = check_tables(changed, values, "changed", "the table of values", allow_nan=True)
    _, effect = check_tables(changed, effect, "changed", "effect", allow_nan=True)
    wrong = np.setdiff1d(signs, [-1, 0, 1])
    if len(wrong):
        raise ValueError(f"changed must hold 1, -1 and 0 only, but it holds {listing(list(wrong))}.")
    return signs, values, effect
