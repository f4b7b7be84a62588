"""How well proportions are estimated."""

import numpy as np

from .._typing import Table
from ._checks import check_tables


def concordance(proportions_true: Table, proportions_pred: Table) -> np.ndarray:
    """Lin's concordance correlation coefficient of estimated with true proportions, per cell type.

    2·s_xy / (s_x² + s_y² + (x̄ − ȳ)²) over samples, with moments over n: 1 only if the estimates lie on the
    line of equality [1]_. Unlike a correlation, it is lower if the estimates of a cell type are too high or
    vary too little.

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
    true, pred = check_tables(proportions_true, proportions_pred, "proportions_true", "proportions_pred")
    centre_true, centre_pred = true.mean(axis=0), pred.mean(axis=0)
    shared = np.mean((true - centre_true) * (pred - centre_pred), axis=0)
    total = true.var(axis=0) + pred.var(axis=0) + (centre_true - centre_pred) ** 2
    return np.divide(2 * shared, total, out=np.full_like(total, np.nan), where=total > 0)
