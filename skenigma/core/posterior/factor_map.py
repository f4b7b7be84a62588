"""Expression of every cell type by a fitted factor model: of any samples, each on its own."""

from dataclasses import dataclass

import numpy as np

from ..blocks import MANY_BLOCK, row_blocks
from .factor_step import update_scores

ALL = slice(None)
# Share of a variance below which a difference from it is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class FactorMap:
    """What a fit keeps for any samples. All but the reference is on genes divided by their scale.

    Attributes
    ----------
    reference : ndarray of shape (n_cell_types, n_genes)
    loadings : ndarray of shape (1 + n_factors, n_cell_types, n_genes)
        Posterior means; those of the intercept first.
    covariance : ndarray of shape (p, p)
        Of the loadings of any gene, p = (1 + n_factors) * n_cell_types.
    own : ndarray of shape (n_cell_types,)
    noise : float
    scale : ndarray of shape (n_genes,)
    """

    reference: np.ndarray
    loadings: np.ndarray
    covariance: np.ndarray
    own: np.ndarray
    noise: float
    scale: np.ndarray

    @classmethod
    def of(cls, posterior, reference):
        """From a :class:`FactorPosterior` whose only known column is the intercept."""
        found = posterior
        return cls(reference, found.loadings, found.covariance, found.own, found.noise, found.scale)

    @property
    def flat_loadings(self):
        """Shape (p, n_genes)."""
        return self.loadings.reshape(-1, self.loadings.shape[2])

    def second_moment(self):
        """Mean over genes of the loadings' products, (p, p)."""
        flat = self.flat_loadings
        return flat @ flat.T / flat.shape[1] + self.covariance

    def variance(self, proportions):
        """Variance of what the factors leave of each sample, at a scale of 1."""
        return proportions**2 @ self.own + self.noise

    def replay(self, bulk, proportions):
        """State of samples: their own factors, given the loadings."""
        proportions = np.asarray(proportions, dtype=np.float64)
        state = FactorState(self, bulk, proportions, None, None)
        products, crossed = state.fitted()
        weight = bulk.shape[1] / self.variance(proportions)
        scores, spread = update_scores(products, crossed, weight, np.ones((len(bulk), 1)))
        return FactorState(self, bulk, proportions, scores, spread)


@dataclass(frozen=True)
class FactorState:
    """Expression of some samples, built where it is asked for.

    Attributes
    ----------
    map : FactorMap
    bulk : ndarray of shape (n_samples, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    scores : ndarray of shape (n_samples, 1 + n_factors)
        The intercept, then posterior means of the factors.
    spread : ndarray of shape (n_samples, n_factors, n_factors)
        Their covariances.
    """

    map: FactorMap
    bulk: np.ndarray
    proportions: np.ndarray
    scores: np.ndarray
    spread: np.ndarray

    def residual(self, samples=ALL, genes=ALL):
        """Bulk minus what the reference says of it, over the scale of the genes."""
        expected = self.proportions[samples] @ self.map.reference[:, genes]
        return (self.bulk[samples][:, genes] - expected) / self.map.scale[genes]

    def fitted(self):
        """Moments of the loadings as the factors of each sample meet them, mean over genes: (n, C, C) and (n, C)."""
        n_columns, n_types, n_genes = self.map.loadings.shape
        second = self.map.second_moment().reshape(n_columns, n_types, n_columns, n_types)
        crossed = np.empty((len(self.bulk), n_columns * n_types))
        for some in row_blocks(self.bulk, MANY_BLOCK):
            np.matmul(self.residual(some), self.map.flat_loadings.T, out=crossed[some])
        crossed /= n_genes
        products = np.einsum("akbl,jk,jl->jab", second, self.proportions, self.proportions, optimize=True)
        return products, np.einsum("jk,jak->ja", self.proportions, crossed.reshape(-1, n_columns, n_types))

    def expand(self, samples=ALL, cell_types=ALL, genes=ALL):
        """Posterior mean of the expression."""
        proportions, scores = self.proportions[samples], self.scores[samples]
        loadings, scale = self.map.loadings[:, :, genes], self.map.scale[genes]
        design = (scores[:, :, None] * proportions[:, None]).reshape(len(scores), -1)
        rest = self.residual(samples, genes) - design @ loadings.reshape(design.shape[1], -1)
        gain = self._gain(proportions)
        positions = np.arange(proportions.shape[1])[cell_types]
        found = np.empty((len(scores), len(positions), len(scale)))
        for place, k in enumerate(positions):
            np.matmul(scores, loadings[:, k], out=found[:, place])
            found[:, place] += gain[:, k, None] * rest
            found[:, place] *= scale
            found[:, place] += self.map.reference[k, genes]
        return found

    def deviations(self, samples=ALL, cell_types=ALL, genes=ALL):
        """Posterior standard deviation of the expression."""
        variances = self.variances(samples, cell_types)
        return np.sqrt(variances)[:, :, None] * self.map.scale[genes]

    def variances(self, samples=ALL, cell_types=ALL):
        """Posterior variances at a scale of 1, the same for all genes, shape (n_samples, n_cell_types)."""
        proportions, scores, spread = self.proportions[samples], self.scores[samples], self.spread[samples]
        n_columns, n_types, _ = self.map.loadings.shape
        gain, unit = self._gain(proportions), np.eye(n_types)
        latent = self.map.second_moment().reshape(n_columns, n_types, n_columns, n_types)[1:, :, 1:]
        positions = np.arange(n_types)[cell_types]
        found = np.empty((len(scores), len(positions)))
        for place, k in enumerate(positions):
            # what the loadings do to the expression, less what the own part takes back of it
            weights = unit[k] - gain[:, k, None] * proportions
            design = (scores[:, :, None] * weights[:, None]).reshape(len(scores), -1)
            found[:, place] = self.map.own[k] * (1 - gain[:, k] * proportions[:, k])
            found[:, place] += np.einsum("ja,ja->j", design @ self.map.covariance, design)
            found[:, place] += np.einsum("jab,jk,jl,akbl->j", spread, weights, weights, latent, optimize=True)
        return np.maximum(found, 0)

    def _gain(self, proportions):
        """Share of a sample's rest that is each cell type's own."""
        return proportions * self.map.own / self.map.variance(proportions)[:, None]

    def bound(self):
        """Lower bound of the log evidence of each sample, given the posterior of the loadings, shape (n_samples,)."""
        n_genes, variance = self.bulk.shape[1], self.map.variance(self.proportions)
        products, crossed = self.fitted()
        squares = np.einsum("jg,jg->j", *[self.residual()] * 2) / n_genes
        latent = slice(1, None)
        expected = squares - 2 * np.einsum("ja,ja->j", self.scores, crossed)
        expected += np.einsum("ja,jab,jb->j", self.scores, products, self.scores, optimize=True)
        expected += np.einsum("jab,jab->j", self.spread, products[:, latent, latent])
        likelihood = -n_genes / 2 * (np.log(2 * np.pi * variance) + expected / variance)
        traces = np.trace(self.spread, axis1=1, axis2=2) + np.sum(self.scores[:, latent] ** 2, axis=1)
        n_factors = self.spread.shape[1]
        prior = (np.linalg.slogdet(self.spread)[1] + n_factors - traces) / 2 if n_factors else 0.0
        return likelihood + prior - np.log(self.map.scale).sum()


def reliability(states, n_samples):
    """Expected correlation of the posterior mean with the truth over samples, per cell type and gene.

    The root of the share of the variance over samples that the posterior mean explains, by the law of total variance.

    Most genes may have no part in a factor, while the model takes all loadings for draws of one distribution. So what
    errors of the loadings alone would make the mean vary by is not counted as explained.

    Parameters
    ----------
    states : iterable of FactorState
        Of all samples, a few at a time.
    n_samples : int
        Of all of them.

    Returns
    -------
    reliability : ndarray of shape (n_cell_types, n_genes)
    """
    scores, left, count, mean, squares = [], 0.0, 0, 0.0, 0.0
    for state in states:
        scores.append(state.scores)
        left = left + state.variances().sum(axis=0) / n_samples
        expression = state.expand()
        here, more = expression.mean(axis=0), len(expression)
        apart = here - mean
        # as in Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance
        squares = squares + expression.var(axis=0) * more + apart**2 * (count * more / (count + more))
        count += more
        mean = mean + apart * (more / count)
    factors = state.map
    doubtful = _doubtful(factors, np.concatenate(scores)) * factors.scale**2
    variance = squares / n_samples
    explained = variance - doubtful
    # where the factors are all that varies, the difference is rounding
    explained[explained <= ROUNDING * variance] = 0.0
    total = explained + left[:, None] * factors.scale**2
    return np.sqrt(explained / np.where(total > 0, total, 1.0))


def _doubtful(factors, scores):
    """Variance over samples of what the factors say, as far as errors of the loadings would make up for it."""
    n_columns, n_types, _ = factors.loadings.shape
    covariance = factors.covariance.reshape(n_columns, n_types, n_columns, n_types)
    spread = np.atleast_2d(np.cov(scores, rowvar=False, bias=True))
    noise = np.einsum("akbk,ab->k", covariance, spread)
    signal = np.einsum("akg,ab,bkg->kg", factors.loadings, spread, factors.loadings, optimize=True)
    return np.minimum(noise[:, None], signal)
