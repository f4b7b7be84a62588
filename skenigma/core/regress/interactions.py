r"""Regression of the bulk on proportions and on their products with a phenotype, for data of unequal variances.

.. math:: x_j = \sum_k \theta_{jk} m_k + \sum_k \theta_{jk}\, y_j \delta_k + c_j^T \gamma + \varepsilon_j

Least squares assumes errors of one variance. Those of counts grow with the mean, and the samples that are rich in a
rare type have leverage and variances of their own. Here every value has the weight that the law of variance and mean
gives it at its fitted value (the idea of voom: Law et al. 2014, Genome Biology 15), samples have weights too, and the
genes' variances are moderated.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .contrasts import CommonColumns
from .generalized import gene_blocks, wide_gene_blocks
from .moderation import VariancePrior
from .permutation import calibrate, quantile_groups
from .weighting import clipped, law_at, mean_variance_law, sample_weights

# Groups of genes by their mean, within which null scores are pooled.
MEAN_GROUPS = 3
# Robust standard deviations beyond which a residual is brought back to that distance.
CLIP = 2.0
# Ratio of the largest weight of a gene's values to their geometric mean, and of this to the smallest.
LARGEST_RATIO = 3.0
# Arrays of the size of a block's values that are held at a time.
ARRAYS = 4
# Power of the weights of samples, see ``sample_weights``: with few residuals they are known poorly.
POWER = 0.5


@dataclass
class InteractionTests:
    """Tests of K cell types in g genes, for m columns of the phenotype.

    Attributes
    ----------
    means : ndarray of shape (K, g)
        Coefficients of the proportions.
    changes : ndarray of shape (K, m, g)
        Coefficients of their products with the phenotype.
    statistic, p_value : ndarray of shape (K, g)
        t, or F for several columns.
    """

    means: np.ndarray
    changes: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray


class InteractionModel:
    """Everything of the model that does not know the phenotype: weights of values and samples.

    Parameters
    ----------
    bulk : ndarray of shape (n, g)
    proportions : ndarray of shape (n, K)
    covariates : ndarray of shape (n, c)
    """

    def __init__(self, bulk, proportions, covariates):
        self.bulk, self.theta = bulk, proportions
        self.nuisance = np.column_stack([proportions, covariates])
        left, values, _ = np.linalg.svd(self.nuisance, full_matrices=False)
        self.basis = left[:, values > 1e-10 * values[0]]
        self.n_samples, self.n_genes = bulk.shape
        self.blocks = wide_gene_blocks(self.n_genes, ARRAYS * self.n_samples)
        self.sample_weights = np.ones(self.n_samples)
        self._find_law()
        self._weigh_samples()

    def _null(self, block):
        """Bulk with outlying values brought back, and what proportions and covariates explain of it."""
        values = self.bulk[:, block].astype(np.float64, copy=False)
        fitted = self.basis @ (self.basis.T @ values)
        return clipped(values, fitted, CLIP), fitted

    def _find_law(self):
        mean, variance, lowest = np.empty(self.n_genes), np.empty(self.n_genes), np.inf
        degrees = self.n_samples - self.basis.shape[1]
        for block in self.blocks:
            values, fitted = self._null(block)
            mean[block] = values.mean(axis=0)
            variance[block] = np.einsum("ng,ng->g", values - fitted, values - fitted) / max(degrees, 1)
            lowest = min(lowest, self.bulk[:, block].min(initial=np.inf))
        self.mean = mean
        # centred values tell nothing of the mean, and keep equal weights
        counts = lowest >= 0 and np.sum((mean > 0) & (variance > 0)) > 3
        self.law = mean_variance_law(mean, variance) if counts else np.array([1.0, 0.0, 0.0])

    def _weights(self, fitted):
        """Weights of values, shape (n, g)."""
        variance = law_at(self.law, np.maximum(fitted, 0.0)) + np.finfo(float).tiny
        logs = np.log(variance)
        ratio = np.exp(logs - logs.mean(axis=0))
        return self.sample_weights[:, None] / np.clip(ratio, 1.0 / LARGEST_RATIO, LARGEST_RATIO)

    def _weigh_samples(self):
        total, count = np.zeros(self.n_samples), 0
        for block in self.blocks:
            values, fitted = self._null(block)
            squares = (values - fitted) ** 2 * self._weights(fitted)
            variance = squares.mean(axis=0)
            varies = variance > 1e-18 * (1.0 + np.abs(values).max(axis=0)) ** 2
            total += squares[:, varies] @ (1.0 / variance[varies])
            count += varies.sum()
        if count:
            self.sample_weights = sample_weights(total / count, np.sum(self.basis**2, axis=1), POWER)

    def columns(self, block):
        """What the equations of any phenotype need of a block of genes, and what proportions explain of it."""
        values, fitted = self._null(block)
        # less what the nuisance columns explain without weights, so that no digit is lost to it
        return CommonColumns(self._weights(fitted), values - fitted, self.basis), fitted

    def designs(self, coded):
        """Products of the proportions and of phenotypes, (B, n, m), type slowest: shape (B, n, K·m)."""
        products = self.theta[None, :, :, None] * coded[:, :, None, :]
        return products.reshape(*coded.shape[:2], -1)

    def means(self, of_basis):
        """Coefficients (K, g) of the proportions, from the basis'; the shortest where they are not unique."""
        return (np.linalg.pinv(self.nuisance) @ self.basis @ of_basis)[: self.theta.shape[1]]


def interaction_tests(model, coded, permuted):
    """Test every cell type and gene.

    Parameters
    ----------
    model : InteractionModel
    coded : ndarray of shape (n, m)
    permuted : ndarray of shape (B, n, m)
        Phenotypes without effect; none leave the parametric p-values.

    Returns
    -------
    InteractionTests
    """
    n_types, m = model.theta.shape[1], coded.shape[1]
    degrees = model.n_samples - model.basis.shape[1] - n_types * m
    means, changes = np.empty((n_types, model.n_genes)), np.empty((n_types, m, model.n_genes))
    inverses, squares = np.empty((model.n_genes, n_types * m, n_types * m)), np.empty(model.n_genes)
    (design,) = model.designs(coded[None])
    for block in model.blocks:
        columns, fitted = model.columns(block)
        estimate, inverse, rest = columns.equations(design[None]).least_squares()
        squares[block], inverses[block] = rest[0], inverse[0]
        changes[:, :, block] = estimate[0].T.reshape(n_types, m, -1)
        rest = columns.coefficients(design, estimate[0].T)
        means[:, block] = model.means(model.basis.T @ fitted + rest)
    prior = VariancePrior.fit(squares / degrees, degrees)
    variance = np.maximum(prior.moderate(squares / degrees, degrees), np.finfo(float).tiny)
    score = _scores(changes.reshape(n_types * m, -1).T[None], inverses[None], variance[None], m)[0]
    total = degrees + prior.degrees
    p_value = 2.0 * stats.t.sf(score, total) if m == 1 else stats.f.sf(score, m, total)
    if len(permuted):
        null = _null_scores(model, permuted, prior, degrees)
        groups = quantile_groups(model.mean, MEAN_GROUPS)
        p_value = np.stack([calibrate(p_value[k], score[k], null[:, k], groups) for k in range(n_types)])
    statistic = np.copysign(score, changes[:, 0]) if m == 1 else score
    return InteractionTests(means, changes, statistic, p_value)


def _null_scores(model, permuted, prior, degrees):
    n_types, m = model.theta.shape[1], permuted.shape[2]
    scores = np.empty((len(permuted), n_types, model.n_genes), dtype=np.float32)
    for block in gene_blocks(model.n_genes, len(permuted) * (n_types * m) ** 2 + ARRAYS * model.n_samples):
        columns, _ = model.columns(block)
        estimate, inverse, rest = columns.equations(model.designs(permuted)).least_squares()
        variance = np.maximum(prior.moderate(rest / degrees, degrees), np.finfo(float).tiny)
        scores[:, :, block] = _scores(estimate, inverse, variance, m)
    return scores


def _scores(estimate, inverse, variance, m):
    """|t| or F of every type, shape (B, K, g), of estimates (B, g, K·m)."""
    if m == 1:
        errors = np.sqrt(np.einsum("bgpp->bgp", inverse) * variance[..., None])
        return np.abs(estimate / errors).transpose(0, 2, 1)
    scores = []
    for start in range(0, estimate.shape[-1], m):
        own = slice(start, start + m)
        solved = np.linalg.solve(inverse[..., own, own], estimate[..., own, None])[..., 0]
        scores.append(np.einsum("bgp,bgp->bg", estimate[..., own], solved) / (m * variance))
    return np.stack(scores, axis=1)
