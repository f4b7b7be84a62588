"""Regression of many samples on one shared design: Huber M-estimation and non-negative least squares.

Both functions factorise the design once and then work in an orthonormal basis of its columns. There the
residual changes by exactly as much as the coordinates do, every weighted system is as well conditioned as its
weights, and dependent columns are gone before they can do harm.
"""

import numpy as np
from scipy.optimize import lsq_linear, nnls

# The median of |z| for a standard normal z, with the four digits R uses.
NORMAL_MAD = 0.6745
# R's floor for the sum of squared residuals in the stopping rule.
TINY_SUM_OF_SQUARES = 1e-20
# A scale below this many units of rounding, relative to the target, is the noise of an exact fit.
EXACT_FIT = 64 * np.finfo(np.float64).eps
# Entries of one working array: large enough for efficient matrix products, small enough for the cache.
BLOCK_ENTRIES = 2**19
# Fewer rows than this would not repay the products of columns that each block forms.
MIN_BLOCK_ROWS = 64
NNLS_ITERATIONS_PER_COLUMN = 100


def robust_regression(design, targets, *, max_iter=500, tol=1e-4, k=1.345):
    r"""Huber M-estimates of many targets on one design, as ``MASS::rlm`` computes them.

    Starting at least squares, each step re-estimates the scale from the current residuals,
    :math:`s = \mathrm{median}|r| / 0.6745`, and solves the least-squares problem weighted by
    :math:`w = \min(1, k s / |r|)`. A target is done when its scale is zero or when
    :math:`\sqrt{\sum (r_{old} - r_{new})^2 / \max(10^{-20}, \sum r_{old}^2)} \le tol`.

    Nothing is added to the design and nothing is scaled: intercept and standardisation are the caller's.

    Parameters
    ----------
    design : array-like of shape (g, p)
        Columns to regress on, shared by all targets. Dependent columns, constant columns and ``g < p`` are
        allowed: of all solutions, the one of least norm, measured in columns of unit length, is returned.
    targets : array-like of shape (n, g)
        One target per row. Any real dtype; it is converted block by block, never as a whole.
    max_iter : int, default=500
        Largest number of weighted solves per target; 0 returns least squares.
    tol : float, default=1e-4
        Relative change of the residuals at which a target is done (``acc`` in R).
    k : float, default=1.345
        Huber's tuning constant, in units of the scale; 1.345 is 95 % efficient on normal errors.

    Returns
    -------
    coef : ndarray of shape (n, p), float64
        Coefficients, a row per target. A row does not depend on which other targets are present.
    n_iter : ndarray of shape (n,), int
        Weighted solves made.
    converged : ndarray of shape (n,), bool
        Whether the stopping rule was met within ``max_iter``.

    Raises
    ------
    ValueError
        If the arrays are not two-dimensional, are empty of genes, or disagree on the number of genes.

    Notes
    -----
    The estimator is `rlm(x, y, psi=psi.huber, scale.est="MAD", method="M", init="ls")` of the R package MASS
    (Venables and Ripley, *Modern Applied Statistics with S*, section 6.5; P. J. Huber, *Robust Statistics*,
    1981). In orthonormal coordinates the weighted solve is the update
    :math:`c \leftarrow c + (Q^T W Q)^{-1} Q^T \psi(r)` with :math:`\psi(r) = W r`, and
    :math:`\|r_{old} - r_{new}\|` is the length of that update. :math:`Q^T W Q` of all targets together is one
    matrix product, weights times the pairwise products of the columns of Q.

    Unlike R, a scale within rounding of zero (relative to the target) counts as zero.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.regress.robust import robust_regression
    >>> design = np.column_stack([np.ones(6), np.arange(6.0)])
    >>> line = design @ [1.0, 2.0]
    >>> line[5] += 100.0  # a gross outlier
    >>> coef, n_iter, converged = robust_regression(design, line[None])
    >>> coef.round(1), converged
    (array([[1., 2.]]), array([ True]))
    """
    design, targets = _check_arrays(design, targets)
    basis, to_coef = _factorize(design)
    coordinates = _project(basis, targets)
    n_iter = np.zeros(len(targets), dtype=int)
    converged = np.zeros(len(targets), dtype=bool)

    step = _HuberStep(basis, targets, k)
    active = np.arange(len(targets))
    for _ in range(max_iter):
        for rows in _blocks(active, targets.shape[1]):
            update, residual_norm, exact = step(rows, coordinates[rows])
            coordinates[rows] += update
            n_iter[rows] += ~exact
            converged[rows] = np.linalg.norm(update, axis=1) <= tol * residual_norm
        active = active[~converged[active]]
        if not active.size:
            break
    return coordinates @ to_coef, n_iter, converged


def nonnegative_least_squares(design, targets):
    """Least squares with coefficients of at least zero, for many targets on one design.

    Parameters
    ----------
    design : array-like of shape (g, p)
        Columns to regress on, shared by all targets. May be rank deficient; the minimiser is then not unique.
    targets : array-like of shape (n, g)
        One target per row.

    Returns
    -------
    ndarray of shape (n, p), float64
        For each row of `targets` a minimiser of ``||design @ coef - target||`` over ``coef >= 0``.

    Raises
    ------
    ValueError
        If the arrays are not two-dimensional, are empty of genes, or disagree on the number of genes.

    Notes
    -----
    Lawson and Hanson's active-set method (*Solving Least Squares Problems*, 1974, chapter 23) of
    `scipy.optimize.nnls`, on the p x p problem that is left after one orthogonal factorisation of the design.
    Columns and targets are brought to unit length first, because SciPy's tolerance is absolute: the answer
    follows any change of units.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.regress.robust import nonnegative_least_squares
    >>> nonnegative_least_squares(np.eye(3)[:, :2], [[2.0, -1.0, 5.0]])
    array([[2., 0.]])
    """
    design, targets = _check_arrays(design, targets)
    lengths = _column_lengths(design)
    # QR, not the SVD of _factorize: it keeps a zero column exactly zero. On a column that is zero but for
    # rounding, SciPy's solver returns points that are not optimal.
    basis, reduced = np.linalg.qr(design / lengths)
    coordinates = _project(basis, targets)
    sizes = np.linalg.norm(coordinates, axis=1, keepdims=True)
    coef = np.zeros((len(targets), design.shape[1]))
    for row in np.flatnonzero(sizes):
        coef[row] = _solve_nonnegative(reduced, coordinates[row] / sizes[row])
    return coef * sizes / lengths


def _check_arrays(design, targets):
    design, targets = np.asarray(design, dtype=np.float64), np.asarray(targets)
    if design.ndim != 2 or targets.ndim != 2:
        raise ValueError(f"design and targets must be 2-d, got {design.ndim}-d and {targets.ndim}-d")
    if design.shape[0] != targets.shape[1]:
        raise ValueError(f"design has {design.shape[0]} rows (genes), targets {targets.shape[1]} columns")
    if not design.shape[0]:
        raise ValueError("design and targets have no genes")
    return design, targets


def _factorize(design):
    """Orthonormal basis (g, r) of the design's columns, and the map (r, p) from coordinates to coefficients.

    Columns are brought to unit length before the rank is judged, so that their units have no say in it.
    """
    lengths = _column_lengths(design)
    u, s, vt = np.linalg.svd(design / lengths, full_matrices=False)
    kept = s > s.max(initial=0.0) * max(design.shape) * np.finfo(np.float64).eps
    u, s, vt = u[:, kept], s[kept, None], vt[kept]
    return np.ascontiguousarray(u), vt / s / lengths


def _column_lengths(design):
    lengths = np.linalg.norm(design, axis=0)
    lengths[lengths == 0] = 1.0
    return lengths


def _block_rows(n_genes):
    return max(MIN_BLOCK_ROWS, BLOCK_ENTRIES // n_genes)


def _blocks(rows, n_genes):
    """Cut an index array into pieces whose working arrays stay small."""
    size = _block_rows(n_genes)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _project(basis, targets):
    """Least-squares coordinates of the targets in the basis."""
    coordinates = np.empty((len(targets), basis.shape[1]))
    for rows in _blocks(np.arange(len(targets)), targets.shape[1]):
        coordinates[rows] = targets[rows] @ basis
    return coordinates


def _exact_scale(targets):
    """Per target, the scale below which residuals are nothing but rounding."""
    squares = np.einsum("ij,ij->i", targets, targets, dtype=np.float64)
    return EXACT_FIT * np.sqrt(squares / targets.shape[1])


class _HuberStep:
    """One step of iteratively reweighted least squares for a block of targets, in orthonormal coordinates.

    The working arrays live as long as the object: getting fresh memory for each block from the operating
    system costs as much as the arithmetic.
    """

    def __init__(self, basis, targets, k):
        self.basis, self.targets, self.k = basis, targets, k
        self.exact_scale = _exact_scale(targets)
        n_genes = len(basis)
        shape = min(_block_rows(n_genes), len(targets)), n_genes
        self._residuals, self._sizes, self._scratch = (np.empty(shape) for _ in range(3))
        self._gram = _WeightedGram(basis)

    def __call__(self, rows, coordinates):
        """Return the updates, the norms of the residuals, and which rows fit exactly (their update is 0)."""
        residuals = self._compute_residuals(rows, coordinates)
        residual_norm = np.sqrt(np.maximum(TINY_SUM_OF_SQUARES, np.einsum("ij,ij->i", residuals, residuals)))
        sizes = np.abs(residuals, out=self._sizes[: len(rows)])
        scale = self._median(sizes) / NORMAL_MAD
        exact = scale <= self.exact_scale[rows]
        # any positive limit serves an exact row: its update is dropped
        limits = np.where(exact, 1.0, self.k * scale)[:, None]

        weights = np.divide(limits, np.maximum(sizes, limits, out=sizes), out=sizes)
        right = np.multiply(weights, residuals, out=residuals) @ self.basis
        update = _solve(self._gram(weights), right)
        update[exact] = 0.0
        return update, residual_norm, exact

    def _compute_residuals(self, rows, coordinates):
        fits = np.matmul(coordinates, self.basis.T, out=self._scratch[: len(rows)])
        return np.subtract(self.targets[rows], fits, out=self._residuals[: len(rows)])

    def _median(self, values):
        scratch = self._scratch[: len(values)]
        np.copyto(scratch, values)
        return _row_medians(scratch)


def _row_medians(values):
    """Median of each row; reorders `values`.

    NumPy selects one rank with vector instructions but two at once without, which is several times slower.
    """
    half = values.shape[1] // 2
    values.partition(half, axis=1)
    upper = values[:, half]
    return upper if values.shape[1] % 2 else (values[:, :half].max(axis=1) + upper) / 2


class _WeightedGram:
    """``basis.T @ diag(w) @ basis`` for each row w of the weights: a product with all pairs of basis columns.

    The pairs are formed anew, for as many genes as fit a working array: with many cell types, all of them
    would outgrow the data.
    """

    def __init__(self, basis):
        self._columns = np.ascontiguousarray(basis.T)
        rank, n_genes = self._columns.shape
        self._pairs = np.triu_indices(rank)
        n_pairs = len(self._pairs[0])
        self._scratch = np.empty((n_pairs, min(n_genes, max(1, BLOCK_ENTRIES // max(1, n_pairs)))))

    def __call__(self, weights):
        rank, n_genes = self._columns.shape
        n_pairs, size = self._scratch.shape
        packed = np.zeros((len(weights), n_pairs))
        for start in range(0, n_genes, size):
            products = self._multiply_pairs(self._columns[:, start : start + size])
            packed += weights[:, start : start + size] @ products.T
        grams = np.empty((len(weights), rank, rank))
        first, second = self._pairs
        grams[:, first, second] = grams[:, second, first] = packed
        return grams

    def _multiply_pairs(self, columns):
        products = self._scratch[:, : columns.shape[1]]
        stop = 0
        for i, column in enumerate(columns):
            start, stop = stop, stop + len(columns) - i
            np.multiply(columns[i:], column, out=products[start:stop])
        return products


def _solve(grams, right):
    """Solve each small system; the pseudo-inverse steps in where extreme weights make one singular."""
    right = right[:, :, None]
    try:
        return np.linalg.solve(grams, right)[:, :, 0]
    except np.linalg.LinAlgError:
        return (np.linalg.pinv(grams, hermitian=True) @ right)[:, :, 0]


def _solve_nonnegative(design, target):
    """Solve one small problem; SciPy 1.12 to 1.14 cycles on nearly parallel columns, where BVLS steps in."""
    try:
        return nnls(design, target, maxiter=NNLS_ITERATIONS_PER_COLUMN * design.shape[1])[0]
    except RuntimeError:
        return np.maximum(lsq_linear(design, target, bounds=(0.0, np.inf), method="bvls", tol=1e-14).x, 0.0)
