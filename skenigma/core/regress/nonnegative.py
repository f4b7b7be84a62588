"""Least squares with unknowns of at least zero, for many small systems at once."""

import numpy as np

# Rounds of full exchanges without progress after which only one unknown is exchanged at a time.
PATIENCE = 3
ROUNDS_PER_UNKNOWN = 20
# A gradient within this many units of rounding, relative to what it is the sum of, is zero.
ROUNDING = 64 * np.finfo(np.float64).eps


def nonnegative_quadratic(grams, right, support=None):
    r"""Minimisers of :math:`\tfrac12 b^T A b - c^T b` over :math:`b \ge 0`, for a batch of systems.

    Parameters
    ----------
    grams : ndarray of shape (n, K, K)
        Symmetric positive definite matrices A.
    right : ndarray of shape (n, K)
        Vectors c.
    support : ndarray of bool, shape (n, K), default=None
        Guess of which unknowns are positive. None starts with all of them.

    Returns
    -------
    ndarray of shape (n, K)
        The minimisers: exactly zero outside their support.

    Notes
    -----
    Block principal pivoting (Portugal, Judice and Vicente 1994; Kim and Park 2011): solve with the unknowns of the
    support, move every unknown with the wrong sign of value or gradient to the other side, and repeat; where the
    number of wrong signs stops falling, move the last one alone, which cannot cycle. All systems are solved together,
    each in rounds of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.regress.nonnegative import nonnegative_quadratic
    >>> nonnegative_quadratic(np.eye(2)[None], np.array([[2.0, -1.0]]))
    array([[2., 0.]])
    """
    size = np.sqrt(np.einsum("nkk->nk", grams))
    size[size == 0] = 1.0
    grams, right = grams / size[:, :, None] / size[:, None, :], right / size
    support = np.ones(right.shape, dtype=bool) if support is None else support.copy()
    found = np.zeros_like(right)
    fewest = np.full(len(right), right.shape[1] + 1)
    patience = np.full(len(right), PATIENCE)
    left = np.arange(len(right))
    for _ in range(ROUNDS_PER_UNKNOWN * right.shape[1]):
        values, wrong = _solve_on(support[left], grams[left], right[left])
        found[left] = np.maximum(values, 0.0)
        left, wrong = left[wrong.any(axis=1)], wrong[wrong.any(axis=1)]
        if not len(left):
            break
        support[left] ^= _exchanges(wrong, left, fewest, patience)
    return found / size


def _solve_on(support, grams, right):
    """Values on the support and zero elsewhere, and which unknowns have the wrong sign of value or gradient."""
    both = support[:, :, None] & support[:, None, :]
    diagonal = np.eye(support.shape[1], dtype=bool)
    system = np.where(both, grams, diagonal)
    values = np.linalg.solve(system, np.where(support, right, 0.0)[:, :, None])[:, :, 0]
    gradient = np.einsum("nkl,nl->nk", grams, values) - right
    rounding = ROUNDING * (np.abs(right) + np.abs(values).max(axis=1, keepdims=True))
    return values, np.where(support, values < 0, gradient < -rounding)


def _exchanges(wrong, left, fewest, patience):
    """Which unknowns change sides; keeps count, in place, of progress."""
    number = wrong.sum(axis=1)
    better = number < fewest[left]
    fewest[left] = np.minimum(fewest[left], number)
    patience[left] = np.where(better, PATIENCE, patience[left] - 1)
    alone = patience[left] < 0
    last = wrong.shape[1] - 1 - np.argmax(wrong[alone, ::-1], axis=1)
    wrong[alone] = False
    wrong[alone, last] = True
    return wrong
