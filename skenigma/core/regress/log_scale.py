"""Regression of many samples on one set of profiles, by their distance on the logarithmic scale.

Mixtures add up on the linear scale, but errors of expression are relative: the mixture is compared with the sample
after a logarithm, gene by gene. All samples of a block are iterated together.
"""

from typing import NamedTuple

import numpy as np

from .nonnegative import nonnegative_quadratic

# Residuals beyond a factor of two count by their size, not by its square.
THRESHOLD = np.log(2.0)
# Power of the log ratio of two profiles by which their genes are weighted, and bounds of the offset before the
# logarithm, in units of the mean of the sample or of the profiles.
POWER = 3
OFFSET_BOUNDS = 0.01, 1.0
# Ridge, relative to the mean diagonal of the start's Gram matrix: identical profiles share evenly.
RIDGE = 1e-5
# Curvature of a gene below this share of that of a perfectly fitted gene is raised to it.
LEAST_CURVATURE = 0.02
# Samples that are iterated together, and genes that pass through the cache with them.
BLOCK_ROWS, BLOCK_GENES = 256, 512
# The first iterations see this many genes, those of the largest weights.
FIRST_GENES = 2048
# Sufficient decrease, and halvings of a step before it counts as nothing.
DECREASE, HALVINGS = 1e-4, 30
ROUNDING = 1e-12


class LogScaleModel(NamedTuple):
    """Profiles prepared for the fit.

    Attributes
    ----------
    genes : ndarray of int, shape (n_used,)
        Genes in use: those above zero in a profile.
    profiles : ndarray of shape (n_cell_types, n_used)
        Profiles over the mean of all their entries.
    weights : ndarray of shape (n_used,)
        Gene weights, of mean 1.
    ridge : float
        Weight of half the sum of squared coefficients in the objective.
    """

    genes: np.ndarray
    profiles: np.ndarray
    weights: np.ndarray
    ridge: float


class LogScaleFit(NamedTuple):
    """What :func:`log_scale_regression` found, one row per sample.

    Attributes
    ----------
    coefficients : ndarray of shape (n_samples, n_cell_types)
    objective : ndarray of shape (n_samples,)
    n_iter : ndarray of int, shape (n_samples,)
    converged : ndarray of bool, shape (n_samples,)
    """

    coefficients: np.ndarray
    objective: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


def log_scale_model(profiles, offset):
    r"""Weigh the genes of profiles by how well they tell pairs of cell types apart.

    With :math:`d^{kl}_g = |\log((r_{kg} + c) / (r_{lg} + c))|` a gene weighs
    :math:`\sum_{k<l} (d^{kl}_g)^3 / \overline{(d^{kl})^3}`: every pair of cell types has the same total weight, spent
    on the genes that tell the two apart.

    Parameters
    ----------
    profiles : ndarray of shape (n_cell_types, n_genes)
        At least 0.
    offset : float
        c, in units of the mean of the profiles over the genes in use.

    Returns
    -------
    LogScaleModel
        The profiles, weighted.
    """
    genes = np.flatnonzero(profiles.max(axis=0) > 0)
    used = profiles[:, genes].astype(np.float64)
    used /= used.mean()
    weights, apart = pair_weights(np.log(used + offset))
    if not apart.any():
        weights = np.ones_like(weights)
    start = weights / (used.mean(axis=0) + OFFSET_BOUNDS[0]) ** 2
    ridge = RIDGE * float(np.mean((used**2) @ start))
    return LogScaleModel(genes, used, weights, ridge)


def pair_weights(logs, variances=None, n_errors=0.0):
    """Weights of genes by the pairs of profiles that they tell apart, each pair with the same total.

    Parameters
    ----------
    logs : ndarray of shape (n_cell_types, n_genes)
        Logarithms of profiles.
    variances : ndarray of shape (n_cell_types, n_genes), default=None
        Squared standard errors of these. None takes them for exact.
    n_errors : float, default=0
        Standard errors of the difference of two profiles that it is reduced by, to no less than 0.

    Returns
    -------
    weights : ndarray of shape (n_genes,)
        Of mean 1; all 0 where no pair of profiles differs.
    apart : ndarray of bool, shape (n_cell_types, n_cell_types)
        Which pairs differ.
    """
    weights, apart = np.zeros(logs.shape[1]), np.zeros((len(logs), len(logs)), dtype=bool)
    for k, one in enumerate(logs):
        for other in range(k):
            distance = np.abs(one - logs[other])
            if variances is not None:
                distance -= n_errors * np.sqrt(variances[k] + variances[other])
                np.maximum(distance, 0, out=distance)
            largest = distance.max(initial=0)
            if largest > 0:
                apart[k, other] = apart[other, k] = True
                # over the largest, so that no power over- or underflows
                powers = (distance / largest) ** POWER
                weights += powers / powers.mean()
    return weights / (weights.mean() if apart.any() else 1.0), apart


def sample_offsets(targets, genes):
    """Offset of every sample: half its smallest positive value over its mean, within ``OFFSET_BOUNDS``."""
    smallest, totals = np.full(len(targets), np.inf), np.zeros(len(targets))
    for block in gene_blocks(genes):
        values = targets[:, block].astype(np.float64)
        totals += values.sum(axis=1)
        smallest = np.minimum(smallest, np.where(values > 0, values, np.inf).min(axis=1))
    means = totals / len(genes)
    return means, offsets(smallest, means)


def offsets(smallest, means):
    """The same from the smallest positive values and the means."""
    half = np.divide(smallest, 2 * means, out=np.zeros_like(means), where=means > 0)
    return np.clip(half, *OFFSET_BOUNDS)


def log_scale_regression(model, targets, *, max_iter=300, tol=1e-4):
    r"""Coefficients of at least zero whose mixture is nearest to each sample on the logarithmic scale.

    Minimises, with x the sample over its mean and r the profiles over theirs,

    .. math:: \sum_g w_g\, \rho\bigl(\log(x_g + c) - \log(\textstyle\sum_k b_k r_{kg} + c)\bigr)
        + \tfrac{\lambda}{2} \sum_k b_k^2,

    :math:`\rho` being Huber's loss with threshold log 2.

    Parameters
    ----------
    model : LogScaleModel
        From :func:`log_scale_model`.
    targets : ndarray of shape (n_samples, n_genes)
        Samples, at least 0 and each with a positive value among the genes in use. Any real dtype.
    max_iter : int, default=300
        Largest number of steps per sample.
    tol : float, default=1e-4
        A sample is done when the next step would change no coefficient by more than this share of the largest.

    Returns
    -------
    LogScaleFit
        Coefficients and how they were reached. A row does not depend on the other rows.

    Notes
    -----
    The objective is not convex, so the start matters: non-negative least squares with weights
    :math:`w / (\bar r + c)^2`. From there projected Newton steps, each the minimiser of a quadratic model over
    :math:`b \ge 0`, with the curvature of every gene kept positive, halved until the objective falls. The first of
    them look at the genes of the largest weights only, which leaves a step or two for all genes. Beside the samples
    it holds a fixed number of blocks.
    """
    n_samples, n_types = len(targets), len(model.profiles)
    found = LogScaleFit(
        np.empty((n_samples, n_types)),
        np.empty(n_samples),
        np.zeros(n_samples, dtype=int),
        np.zeros(n_samples, dtype=bool),
    )
    order = np.argsort(-model.weights, kind="stable")[:FIRST_GENES]
    first = np.sort(order) if len(model.genes) > 2 * FIRST_GENES else None
    for start in range(0, n_samples, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        block = targets[rows]
        scales, offsets = sample_offsets(block, model.genes)
        coefficients = _start(model, block, scales)
        n_iter = 0
        if first is not None:
            some = Objective(model, block, scales, offsets, first, np.float32)
            coefficients, _, n_iter, _ = _minimize(some, coefficients, max_iter, tol)
        whole = Objective(model, block, scales, offsets, slice(None))
        coefficients, value, steps, converged = _minimize(whole, coefficients, max_iter, tol)
        for into, part in zip(found, (coefficients, value, n_iter + steps, converged), strict=True):
            into[rows] = part
    return found


def gene_blocks(genes):
    """Genes by the block, as slices where they are neighbours: those need no copy."""
    for start in range(0, len(genes), BLOCK_GENES):
        block = genes[start : start + BLOCK_GENES]
        together = block[-1] - block[0] == len(block) - 1
        yield slice(int(block[0]), int(block[-1]) + 1) if together else block


def _start(model, targets, scales):
    """Weighted non-negative least squares on the linear scale."""
    weights = model.weights / (model.profiles.mean(axis=0) + OFFSET_BOUNDS[0]) ** 2
    weighted = model.profiles * weights
    gram = weighted @ model.profiles.T
    right = np.zeros((len(targets), len(gram)))
    for block, start in zip(gene_blocks(model.genes), range(0, len(model.genes), BLOCK_GENES), strict=True):
        right += targets[:, block] @ weighted[:, start : start + BLOCK_GENES].T
    gram[np.diag_indices_from(gram)] += model.ridge
    return nonnegative_quadratic(np.broadcast_to(gram, (len(right), *gram.shape)), right / scales[:, None])


class Objective:
    """The objective of a block of samples, over some of the genes.

    The curvature is of type ``dtype``: it decides how fast the minimum is reached, not where that is, but the last
    step carries its rounding.
    """

    def __init__(self, model, targets, scales, offsets, some, dtype=np.float64):
        self.dtype = dtype
        self.targets, self.scales, self.offsets = targets, scales, offsets
        self.genes, self.weights = model.genes[some], model.weights[some]
        self.profiles = np.ascontiguousarray(model.profiles[:, some])
        # a part of the weights stands for all of them
        self.weights = self.weights * (model.weights.sum() / self.weights.sum())
        self.ridge = model.ridge
        self.pairs = np.triu_indices(len(self.profiles))

    def __call__(self, rows, coefficients):
        """Value, gradient and curvature (kept positive) of some rows."""
        value = np.zeros(len(rows))
        gradient = np.zeros_like(coefficients)
        packed = np.zeros((len(rows), len(self.pairs[0])), dtype=self.dtype)
        targets, scales, offsets = self.targets[rows], self.scales[rows, None], self.offsets[rows, None]
        for number, block in enumerate(gene_blocks(self.genes)):
            here = slice(number * BLOCK_GENES, (number + 1) * BLOCK_GENES)
            profiles, weights = self.profiles[:, here], self.weights[here]
            inverse = coefficients @ profiles
            inverse += offsets
            np.reciprocal(inverse, out=inverse)
            residual = targets[:, block] / scales
            residual += offsets
            residual *= inverse
            np.log(residual, out=residual)
            clipped = np.clip(residual, -THRESHOLD, THRESHOLD)
            curvature = self._curvature(residual, clipped, inverse)
            packed += curvature @ self._products(profiles, weights).T
            residual -= 0.5 * clipped
            residual *= clipped
            value += residual @ weights
            clipped *= inverse
            gradient -= clipped @ (profiles * weights).T
        return self._with_ridge(value, gradient, packed, coefficients)

    def _curvature(self, residual, clipped, inverse):
        curvature = clipped.astype(self.dtype)
        curvature += residual == clipped
        np.maximum(curvature, LEAST_CURVATURE, out=curvature)
        inverse = inverse.astype(self.dtype)
        curvature *= inverse
        curvature *= inverse
        return curvature

    def _products(self, profiles, weights):
        """Weighted products of all pairs of profiles."""
        profiles = (profiles * np.sqrt(weights)).astype(self.dtype)
        products = np.empty((len(self.pairs[0]), profiles.shape[1]), dtype=self.dtype)
        stop = 0
        for k, profile in enumerate(profiles):
            start, stop = stop, stop + len(profiles) - k
            np.multiply(profiles[k:], profile, out=products[start:stop])
        return products

    def _with_ridge(self, value, gradient, packed, coefficients):
        curvature = np.empty((*coefficients.shape, coefficients.shape[1]))
        first, second = self.pairs
        curvature[:, first, second] = curvature[:, second, first] = packed
        np.einsum("nkk->nk", curvature)[...] += self.ridge
        gradient += self.ridge * coefficients
        value += 0.5 * self.ridge * np.einsum("nk,nk->n", coefficients, coefficients)
        return value, gradient, curvature


def _minimize(objective, coefficients, max_iter, tol):
    """Projected Newton steps from given coefficients; also the values, numbers of steps, and who is done."""
    n = len(coefficients)
    best, value = coefficients.copy(), np.full(n, np.inf)
    step, slope = np.zeros_like(best), np.zeros(n)
    length, n_iter, halved = np.ones(n), np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    converged = np.zeros(n, dtype=bool)
    live = np.arange(n)
    for _ in range(max_iter):
        trial = np.maximum(best[live] + length[live, None] * step[live], 0.0)
        values, gradient, curvature = objective(live, trial)
        n_iter[live] += 1
        noise = ROUNDING * np.abs(values)
        accepted = values <= value[live] + DECREASE * length[live] * slope[live] + noise
        good = live[accepted]
        best[good], value[good] = trial[accepted], values[accepted]
        right = np.einsum("nkl,nl->nk", curvature[accepted], best[good]) - gradient[accepted]
        step[good] = nonnegative_quadratic(curvature[accepted], right, best[good] > 0) - best[good]
        slope[good] = np.einsum("nk,nk->n", gradient[accepted], step[good])
        length[good], halved[good] = 1.0, 0
        poor = live[~accepted]
        length[poor] *= 0.5
        halved[poor] += 1
        small = -slope[live] <= noise
        small |= length[live] * np.abs(step[live]).max(axis=1) <= tol * np.abs(best[live]).max(axis=1)
        converged[live] = small
        live = live[~small & (halved[live] < HALVINGS)]
        if not len(live):
            break
    # the last step is small, and right to second order: taken unseen, it leaves less than it is long
    best[converged] = np.maximum(best + length[:, None] * step, 0.0)[converged]
    return best, value, n_iter, converged
