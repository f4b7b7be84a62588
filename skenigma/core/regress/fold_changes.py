r"""Log2 fold changes per cell type, from the bulk with the reference as the design.

With the expected bulk :math:`M = \Theta R`, :math:`L_{jg} = \log_2(x_{jg} + 1) - \log_2(M_{jg} + 1)`, and the share
:math:`w_{jkg} = \theta_{jk} r_{kg} / (M_{jg} + 1)` of a gene's expected bulk that is a cell type's,

.. math:: L_{jg} = a_g + c_g m_{jg} + z_j^T \gamma_g + \sum_k w_{jkg}\, y_j \delta_{kg} + \varepsilon_{jg} ,
          \qquad \delta_{kg} \sim N(0, \tau_k) ,

m being :math:`\log_2(M + 1)` less its mean over samples, z covariates and hidden factors. Variances are moderated,
and :math:`\tau_k` comes from the second moments of the least-squares estimates over genes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .contrasts import equations
from .generalized import gene_blocks
from .hidden import Residuals
from .moderation import VariancePrior
from .permutation import calibrate, quantile_groups
from .weighting import clipped, null_fit, sample_weights

# A type that gives less of a gene's expected bulk than this is not tested there.
MIN_SHARE = 0.01
# Squared estimates beyond this quantile are brought down to it for the moments of the prior.
HIGHEST = 0.99
# Smallest prior variance: fold changes of 1 %.
SMALLEST_VARIANCE = 1e-4
# Groups of genes by their share, within which null scores are pooled.
SHARE_GROUPS = 3
# p-value of the association with the phenotype below which a hidden factor is left in the data.
PROTECTED = 0.1
# Logarithm of the smallest p-value that is told apart from 0.
SMALLEST_LOG = np.log(np.finfo(float).tiny)
# Points at which the mixture of null distributions over genes is evaluated, and genes that stand for all.
GRID_POINTS, MIXTURE_GENES = 256, 400


@dataclass
class FoldChanges:
    """Tests of K cell types in g genes, for m columns of the phenotype.

    Attributes
    ----------
    effect, error : ndarray of shape (K, m, g)
        Posterior mean and deviation of the log2 fold change.
    statistic : ndarray of shape (K, g)
        Posterior mean over deviation; for several columns F.
    p_value : ndarray of shape (K, g)
        NaN where the share is below ``MIN_SHARE``.
    share : ndarray of shape (K, g)
        Mean over samples of the shares w.
    prior_variance : ndarray of shape (K,)
    degrees_of_freedom : float
        Of the moderated variances.
    n_factors : int
        Hidden factors that were adjusted for.
    sample_weights : ndarray of shape (n,)
    """

    effect: np.ndarray
    error: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    share: np.ndarray
    prior_variance: np.ndarray
    degrees_of_freedom: float
    n_factors: int
    sample_weights: np.ndarray


class FoldChangeModel:
    """Everything of the model that does not know the phenotype.

    Parameters
    ----------
    bulk : ndarray of shape (n, g)
        Not negative.
    proportions : ndarray of shape (n, K)
    reference : ndarray of shape (K, g)
    covariates : ndarray of shape (n, c)
        Centred.
    n_factors : int
        Hidden factors to look for at most.
    robust : bool
        Whether to weight samples and to bring outlying values back.
    empty : callable
        Makes an array of a shape, of the residuals of many samples; see :class:`.hidden.Residuals`.
    """

    def __init__(self, bulk, proportions, reference, covariates, n_factors=0, robust=True, *, empty=np.empty):
        self._bulk, self._theta, self._reference, self._covariates = bulk, proportions, reference, covariates
        self.n_samples, self.n_genes = bulk.shape
        self.n_types, self._robust = len(reference), robust
        self._blocks = gene_blocks(self.n_genes, self.n_samples * (self.n_types + 4))
        self.share = np.hstack([self._weights(block).mean(axis=0) for block in self._blocks])
        self.weights, self.factors = np.ones(self.n_samples), np.empty((self.n_samples, 0))
        if robust or n_factors:
            self._look_at_residuals(Residuals(self.n_samples, self.n_genes, n_factors, empty))

    def degrees_of_freedom(self, n_coded, factors):
        """Residual degrees of freedom."""
        return self.n_samples - 2 - self._covariates.shape[1] - len(factors) - self.n_types * n_coded

    def _weights(self, block):
        expected = self._theta @ self._reference[:, block] + 1.0
        return self._theta[:, :, None] * self._reference[:, block] / expected[:, None]

    def _columns(self, block):
        """Response and nuisance columns of a block of genes, before any weight or factor."""
        expected = np.log2(self._theta @ self._reference[:, block] + 1.0)
        response = np.log2(self._bulk[:, block] + 1.0) - expected
        mixture = expected - expected.mean(axis=0)
        # a gene whose expected bulk does not vary has no such column
        flat = np.ptp(expected, axis=0) <= 1e-9 * (1.0 + expected.max(axis=0))
        mixture[:, flat] = 0.0
        common = np.column_stack([np.ones(self.n_samples), self._covariates])
        nuisance = np.empty((self.n_samples, common.shape[1] + 1, response.shape[1]))
        nuisance[:, :-1] = common[:, :, None]
        nuisance[:, -1] = mixture
        fitted = null_fit(response, nuisance)
        return (clipped(response, fitted) if self._robust else response), nuisance, fitted

    def _look_at_residuals(self, residuals):
        """Weights of samples and hidden factors, from residuals without the phenotype."""
        for block in self._blocks:
            response, _, fitted = self._columns(block)
            residual = response - fitted
            spread = np.sqrt(np.einsum("ng,ng->g", residual, residual))
            varies = spread > 1e-9 * (1.0 + np.abs(response).max(axis=0))
            residuals.add(residual[:, varies] / spread[varies] * np.sqrt(self.n_samples))
        # values that were brought back are orthogonal to nothing
        values, self.factors = residuals.factors(0 if self._robust else 1 + self._covariates.shape[1])
        if self._robust and residuals.count:
            rest = residuals.squares / residuals.count - self.factors**2 @ values
            absorbed = 2 + self._covariates.shape[1] + len(values)
            self.weights = sample_weights(rest, np.full(self.n_samples, absorbed / self.n_samples))

    def kept(self, coded):
        """Factors that a phenotype, shape (n, m), does not explain: a tuple of their positions."""
        if not self.factors.shape[1]:
            return ()
        common = np.column_stack([np.ones(self.n_samples), self._covariates])
        basis = np.linalg.qr(common)[0]
        rest = coded - basis @ (basis.T @ coded)
        factors = self.factors - basis @ (basis.T @ self.factors)
        explained = np.sum((np.linalg.qr(rest)[0].T @ factors) ** 2, axis=0) / np.sum(factors**2, axis=0)
        m, rest_degrees = coded.shape[1], self.n_samples - common.shape[1] - coded.shape[1]
        f = explained / m * rest_degrees / np.maximum(1.0 - explained, 1e-12)
        return tuple(np.flatnonzero(stats.f.sf(f, m, rest_degrees) >= PROTECTED))

    def equations(self, block, coded, factors):
        """Normal equations of phenotypes that all keep the same factors."""
        response, nuisance, _ = self._columns(block)
        if factors:
            hidden = np.broadcast_to(
                self.factors[:, list(factors), None], (self.n_samples, len(factors), response.shape[1])
            )
            nuisance = np.concatenate([nuisance, hidden], axis=1)
        root = np.sqrt(self.weights)[:, None]
        return equations(
            root * response, root[:, None] * self._weights(block), root[:, None] * nuisance, coded
        )


def fold_change_tests(model, coded, permuted, min_share=MIN_SHARE):
    """Test every cell type and gene.

    Parameters
    ----------
    model : FoldChangeModel
    coded : ndarray of shape (n, m)
        The phenotype; 0 in the samples that the reference describes.
    permuted : ndarray of shape (B, n, m)
        Phenotypes without effect; none leave the parametric p-values.
    min_share : float

    Returns
    -------
    FoldChanges
    """
    tests = _Tests(model, coded, min_share)
    p_value, score = tests.observed()
    if len(permuted):
        null = tests.null_scores(permuted)
        for k in range(model.n_types):
            tested = np.isfinite(score[k])
            groups = np.zeros(model.n_genes, dtype=int)
            groups[tested] = quantile_groups(model.share[k, tested], SHARE_GROUPS)
            p_value[k] = calibrate(p_value[k], score[k], null[:, k], groups)
    return tests.result(p_value)


class _Tests:
    """The model with one phenotype, whose variances and prior then also serve its permutations."""

    def __init__(self, model, coded, min_share):
        self.model, self.coded = model, coded
        self.factors = model.kept(coded)
        self.degrees = model.degrees_of_freedom(coded.shape[1], self.factors)
        self.tested = model.share >= min_share
        self._fit_priors()

    def _fit_priors(self):
        shape = self.model.n_genes, self.model.n_types, self.coded.shape[1]
        estimate, scale, squares = np.empty(shape), np.empty(shape), np.empty(self.model.n_genes)
        for block in self.model._blocks:
            found, inverse, rest = self.model.equations(block, self.coded[None], self.factors).least_squares()
            estimate[block] = found[0].reshape(-1, *shape[1:])
            scale[block] = np.einsum("gpp->gp", inverse[0]).reshape(-1, *shape[1:])
            squares[block] = rest[0]
        self.variance_prior = VariancePrior.fit(squares / self.degrees, self.degrees)
        self.variance = self._moderated(squares)
        self.total_degrees = self.degrees + self.variance_prior.degrees
        errors = scale * self.variance[:, None, None]
        self.prior_variance = np.array(
            [_second_moment(estimate[of, k], errors[of, k]) for k, of in enumerate(self.tested)]
        )
        # differences from a common class are correlated by one half, as differences of equal variances are
        between = (np.eye(shape[2]) + 1.0) / 2.0
        self._precision = np.kron(np.diag(1.0 / self.prior_variance), np.linalg.inv(between))

    def _moderated(self, squares):
        variance = self.variance_prior.moderate(squares / self.degrees, self.degrees)
        return np.maximum(variance, 1e-12)

    def observed(self):
        """p-values and scores, each (K, g); effects and errors are kept."""
        shape = self.model.n_types, self.coded.shape[1], self.model.n_genes
        self.effect, self.error = np.empty(shape), np.empty(shape)
        score = np.full((shape[0], shape[2]), np.nan)
        information = np.empty_like(score)
        for block in self.model._blocks:
            mean, covariance = self.model.equations(block, self.coded[None], self.factors).posterior(
                self.variance[None, block], self._precision
            )
            self.effect[:, :, block] = mean[0].T.reshape(*shape[:2], -1)
            deviation = np.sqrt(np.einsum("gpp->pg", covariance[0]))
            self.error[:, :, block] = deviation.reshape(*shape[:2], -1)
            score[:, block] = self._score(mean, covariance)[0]
            information[:, block] = deviation.reshape(*shape[:2], -1)[:, 0] ** 2
        score[~self.tested] = np.nan
        self.score = score
        return self._p_values(score, information), score

    def _score(self, mean, covariance):
        """Scores of shape (B, K, g): |z|, or F of the estimates without their prior."""
        m, n_types = self.coded.shape[1], self.model.n_types
        if m == 1:
            return np.abs(mean / np.sqrt(np.einsum("bgpp->bgp", covariance))).transpose(0, 2, 1)
        score = np.empty((len(mean), n_types, mean.shape[1]))
        for k in range(n_types):
            own = slice(k * m, (k + 1) * m)
            precision = np.linalg.inv(covariance[..., own, own])
            moment = np.einsum("bgpq,bgq->bgp", precision, mean[..., own])
            # what the data say beside the prior; nearly nothing where the two precisions are equal
            likelihood = precision - self._precision[own, own]
            floor = 1e-9 * np.einsum("bgpp->bg", precision)[..., None, None] * np.eye(m)
            explained = np.einsum(
                "bgp,bgp->bg", moment, np.linalg.solve(likelihood + floor, moment[..., None])[..., 0]
            )
            score[:, k] = explained / m
        return score

    def _p_values(self, score, deviation):
        m = self.coded.shape[1]
        if m > 1:
            return stats.f.sf(score, m, self.total_degrees)
        return np.stack(
            [
                mixture_p(score[k], deviation[k], self.prior_variance[k], self.total_degrees)
                for k in range(len(score))
            ]
        )

    def null_scores(self, permuted):
        """Scores under permuted phenotypes, shape (B, K, g), in single precision."""
        scores = np.empty((len(permuted), *self.model.share.shape), dtype=np.float32)
        kept = [self.model.kept(coded) for coded in permuted]
        for factors in set(kept):
            rows = np.array([one == factors for one in kept])
            phenotypes = permuted[rows]
            size = self.model.n_types * self.coded.shape[1]
            degrees = self.model.degrees_of_freedom(self.coded.shape[1], factors)
            for block in gene_blocks(
                self.model.n_genes, len(phenotypes) * size**2 + self.model.n_samples * size
            ):
                found = self.model.equations(block, phenotypes, factors)
                squares = found.residual_squares() * (self.degrees / degrees)
                posterior = found.posterior(self._moderated(squares), self._precision)
                scores[rows, :, block] = self._score(*posterior)
        return scores

    def result(self, p_value):
        """The tests with these p-values."""
        statistic = self.score.copy()
        if self.coded.shape[1] == 1:
            statistic = np.copysign(statistic, self.effect[:, 0])
        return FoldChanges(
            self.effect,
            self.error,
            statistic,
            p_value,
            self.model.share,
            self.prior_variance,
            self.total_degrees,
            len(self.factors),
            self.model.weights,
        )


def _second_moment(estimate, error):
    """Variance of true effects over genes, from estimates and their variances, shape (g, m)."""
    if not estimate.size:
        return SMALLEST_VARIANCE
    squares = estimate**2
    squares = np.minimum(squares, np.quantile(squares, HIGHEST, axis=0))
    # poor estimates count less, by the square of their variance; 0.1 keeps single genes from leading
    moment = np.average(squares - error, weights=1.0 / (error + 0.1) ** 2)
    return max(float(moment), SMALLEST_VARIANCE)


def mixture_p(score, posterior_variance, prior_variance, degrees):
    r"""p-values of posterior z-scores, against their null distribution over genes.

    Without an effect, and with those of the other types drawn from their priors, z is
    :math:`\sqrt{\tau / (\tau + s_g^2)}` times a t-variable, :math:`s_g^2` being the variance of the generalised
    least-squares estimate: :math:`1/s_g^2 = 1/v_g - 1/\tau` with the posterior variance v. Its distribution over the
    genes of a type is the mixture. Genes that say little cannot reach high scores, and do not weigh down the others.

    Parameters
    ----------
    score, posterior_variance : ndarray of shape (g,)
        NaN scores are not tested.
    prior_variance, degrees : float

    Returns
    -------
    ndarray of shape (g,)
    """
    p_value = np.full_like(score, np.nan)
    tested = np.isfinite(score)
    if not tested.any():
        return p_value
    information = np.maximum(1.0 / posterior_variance[tested] - 1.0 / prior_variance, 1e-12)
    widening = np.sqrt(1.0 + 1.0 / (information * prior_variance))
    if len(widening) > MIXTURE_GENES:
        widening = np.quantile(widening, (np.arange(MIXTURE_GENES) + 0.5) / MIXTURE_GENES)
    grid = np.linspace(0.0, max(score[tested].max(), 1.0), GRID_POINTS)
    logs = np.maximum(stats.t.logsf(grid[:, None] * widening, degrees), SMALLEST_LOG)
    top = logs.max(axis=1)
    mixed = np.log(2.0 * np.exp(logs - top[:, None]).mean(axis=1)) + top
    p_value[tested] = np.exp(np.interp(score[tested], grid, mixed))
    return np.minimum(p_value, 1.0)
