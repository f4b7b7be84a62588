"""The variational factor model on arrays: formulas, exact answers where there are some, and what never may happen."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi2, multivariate_normal
from scipy.stats import t as student

from skenigma.core.posterior import factor, factor_effects, factor_step
from skenigma.core.posterior.factor import fit_factors
from skenigma.core.posterior.factor_effects import (
    deviations_from_reference,
    explained_by_known,
    known_effects,
)
from skenigma.core.posterior.factor_loadings import maximise_prior
from skenigma.core.posterior.factor_map import FactorMap
from skenigma.core.posterior.factor_step import Genes
from skenigma.core.posterior.factor_variances import SampleVariances
from skenigma.datasets import make_cohort


def residual(cohort):
    return cohort.bulk - cohort.proportions @ cohort.reference


def columns(n_samples, *more):
    return np.column_stack([np.ones(n_samples), *more])


def random_covariance(rng, size):
    root = rng.normal(size=(size, size))
    return root @ root.T / size + 0.1 * np.eye(size)


@pytest.fixture(scope="module")
def tiny():
    """A problem small enough for loops, and a state of it that no step has led to."""
    rng = np.random.default_rng(0)
    n_samples, n_types, n_genes, n_factors = 7, 2, 5, 2
    theta = rng.dirichlet(np.ones(n_types), n_samples)
    y = rng.normal(size=(n_samples, n_genes))
    fit = factor.Search(Genes(y), theta, columns(n_samples), max_iter=1, tol=1e-6)
    scores = np.column_stack([np.ones(n_samples), rng.normal(size=(n_samples, n_factors))])
    spread = np.stack([random_covariance(rng, n_factors) for _ in range(n_samples)])
    prior = rng.uniform(0.5, 2, n_types * (1 + n_factors))
    state = factor_step.State(scores, spread, np.array([0.4, 0.9]), 0.3, prior)
    return y, theta, fit, state


class TestBound:
    def test_equals_the_expectation_term_by_term(self, tiny):
        """E log p(y, b, f) + entropies, in loops over samples, genes and factors."""
        y, theta, fit, state = tiny
        parts = factor_step.Parts(fit, state)
        n_samples, n_genes = y.shape
        means, covariance = parts.covariance @ parts.information, parts.covariance
        p = len(covariance)
        expected = 0.0
        for j in range(n_samples):
            variance = theta[j] ** 2 @ state.own + state.noise
            # E (y - z b)^2 by the moments of the scores: E z z' = (m m' + S) x theta theta'
            moment = np.outer(state.scores[j], state.scores[j])
            moment[1:, 1:] += state.spread[j]
            products = np.kron(moment, np.outer(theta[j], theta[j]))
            z = np.kron(state.scores[j], theta[j])
            for g in range(n_genes):
                square = y[j, g] ** 2 - 2 * y[j, g] * (z @ means[:, g])
                square += np.sum(products * (np.outer(means[:, g], means[:, g]) + covariance))
                expected += -0.5 * np.log(2 * np.pi * variance) - square / (2 * variance)
        for g in range(n_genes):
            second = np.outer(means[:, g], means[:, g]) + covariance
            expected -= 0.5 * (np.log(state.prior).sum() + np.sum(np.diagonal(second) / state.prior))
            expected += 0.5 * (np.linalg.slogdet(covariance)[1] + p)
        for j in range(n_samples):
            spread, mean = state.spread[j], state.scores[j, 1:]
            expected += 0.5 * (np.linalg.slogdet(spread)[1] + len(mean) - np.trace(spread) - mean @ mean)
        expected -= n_genes / 2 * fit.variances.penalty(state.own, state.noise)
        assert_allclose(parts.bound, expected, rtol=1e-10)  # rounding

    @pytest.mark.parametrize("n_samples", [10, 60])
    @pytest.mark.parametrize("n_genes", [30, 400])
    @pytest.mark.parametrize("n_factors", [None, 3])
    def test_never_falls(self, n_samples, n_genes, n_factors):
        cohort = make_cohort(n_samples, n_genes, 4, random_state=1)
        fit = fit_factors(residual(cohort), cohort.proportions, columns(n_samples), n_factors=n_factors)
        bound, number = fit.history.T
        rises = np.diff(bound)
        assert len(rises) >= 5
        # rounding of sums over samples and genes
        assert (rises[np.diff(number) == 0] >= -1e-10 * np.abs(bound).max()).all()

    @pytest.mark.parametrize("seed", range(3))
    def test_a_single_step_never_lowers_it(self, tiny, seed):
        """Each of prior, factors and variances on its own, from a state far from the optimum."""
        _, _, fit, state = tiny
        rng = np.random.default_rng(seed)
        state = replace(state, own=rng.uniform(0, 5, 2), noise=float(rng.uniform(0.01, 5)))
        before = factor_step.Parts(fit, state)
        with_prior = factor_step.Parts(fit, state, fit_prior=True)
        assert with_prior.bound > before.bound
        assert factor_step.Parts(fit, with_prior.step()).bound > with_prior.bound

    def test_is_the_evidence_where_nothing_is_approximated(self):
        """Without factors the posterior is exact: the bound is the density of y, less the pull on the variances."""
        cohort = make_cohort(12, 9, 3, random_state=0)
        y, theta = residual(cohort), cohort.proportions
        fit = factor.Search(Genes(y), theta, columns(12), max_iter=5, tol=1e-12)
        state = fit.state
        covariance = theta @ np.diag(state.prior) @ theta.T + np.diag(theta**2 @ state.own + state.noise)
        evidence = multivariate_normal(np.zeros(12), covariance).logpdf(y.T).sum()
        penalty = 9 / 2 * fit.variances.penalty(state.own, state.noise)
        assert_allclose(factor_step.Parts(fit, state).bound, evidence - penalty, rtol=1e-10)  # rounding


class TestExactAnswers:
    def test_loadings_by_conditioning_where_factors_are_known(self):
        """Known columns: y and the loadings are jointly Gaussian, and conditioning needs no approximation."""
        cohort = make_cohort(20, 50, 3, random_state=0)
        y, theta = residual(cohort), cohort.proportions
        known = columns(20, cohort.phenotype, np.linspace(-1, 1, 20))
        fit = fit_factors(y, theta, known, n_factors=0)
        z = np.einsum("ja,jk->jak", known, theta).reshape(20, -1)
        prior = np.diag(fit.prior)
        variance = z @ prior @ z.T + np.diag(theta**2 @ fit.own + fit.noise)
        gain = np.linalg.solve(variance, z @ prior).T
        # y is divided by the scale of its genes in place
        assert_allclose(fit.loadings.reshape(9, -1), gain @ y, atol=1e-9)  # rounding, of loadings up to 5
        assert_allclose(fit.covariance, prior - gain @ z @ prior, atol=1e-10)  # as above

    def test_expression_by_conditioning(self):
        """Mean and variance of the expression of one sample, given its factors, from the joint density."""
        rng = np.random.default_rng(0)
        n_types, n_genes = 3, 4
        own, noise, theta = np.array([0.5, 1.0, 2.0]), 0.7, np.array([[0.5, 0.3, 0.2]])
        reference, shift = rng.normal(size=(2, n_types, n_genes))
        scale = np.array([1.0, 2.0, 0.5, 1.0])
        uncertain = random_covariance(rng, n_types)
        fitted = FactorMap(reference, shift[None], uncertain, own, noise, scale)
        bulk = rng.normal(size=(1, n_genes))
        state = fitted.replay(bulk, theta)
        # p = r + scale (b + u): the covariance of p is that of b plus that of u; b is not updated by this sample
        for g in range(n_genes):
            prior = np.diag(own)
            total = theta[0] @ prior @ theta[0] + noise
            gain = prior @ theta[0] / total
            rest = (bulk[0, g] - theta[0] @ reference[:, g]) / scale[g] - theta[0] @ shift[:, g]
            mean = reference[:, g] + scale[g] * (shift[:, g] + gain * rest)
            keep = np.eye(n_types) - np.outer(gain, theta[0])
            variance = prior - np.outer(gain, theta[0] @ prior) + keep @ uncertain @ keep.T
            assert_allclose(state.expand()[0, :, g], mean, rtol=1e-12)  # rounding
            assert_allclose(state.deviations()[0, :, g], scale[g] * np.sqrt(np.diag(variance)), rtol=1e-12)

    def test_uncertain_factors_by_sampling(self):
        """The variance that uncertain factors and loadings add, against draws of both."""
        cohort = make_cohort(8, 40, 2, random_state=3)
        fit = fit_factors(residual(cohort), cohort.proportions, columns(8), n_factors=1)
        fitted = FactorMap.of(fit, cohort.reference)
        state = fitted.replay(cohort.bulk, cohort.proportions)
        rng = np.random.default_rng(0)
        root = np.linalg.cholesky(fit.covariance + 1e-12 * np.eye(4))
        theta, draws = cohort.proportions[0], []
        for _ in range(4000):
            b = (fitted.flat_loadings + root @ rng.normal(size=(4, 40))).reshape(2, 2, 40)
            f = np.array([1.0, state.scores[0, 1] + np.sqrt(state.spread[0, 0, 0]) * rng.normal()])
            profile = np.einsum("a,akg->kg", f, b)
            gain = theta * fit.own / (theta**2 @ fit.own + fit.noise)
            draws.append(profile - gain[:, None] * (theta @ profile))
        spread = np.var(draws, axis=0).mean(axis=1)
        own = fit.own * (1 - theta**2 * fit.own / (theta**2 @ fit.own + fit.noise))
        assert_allclose(state.variances()[0], spread + own, rtol=0.01)  # error of 4,000 draws of 40 genes


class TestPrior:
    @staticmethod
    def evidence(prior, precision, moments):
        system = np.eye(len(prior)) + np.diag(prior) @ precision
        covariance = np.linalg.solve(system, np.diag(prior))
        return (np.sum(moments * covariance) - np.linalg.slogdet(system)[1]) / 2

    @pytest.mark.parametrize("seed", range(4))
    def test_no_change_of_a_variance_is_better(self, seed):
        rng = np.random.default_rng(seed)
        precision, moments = 4 * random_covariance(rng, 4), 9 * random_covariance(rng, 4)
        prior = np.zeros(4)
        for _ in range(500):
            prior = maximise_prior(prior, precision, moments)
        reached = self.evidence(prior, precision, moments)
        for a in range(4):
            for change in (-0.5, -0.01, 0.01, 0.5):
                changed = prior.copy()
                changed[a] = max(0, changed[a] + change)
                assert self.evidence(changed, precision, moments) <= reached + 1e-10  # rounding

    def test_every_sweep_raises_the_evidence(self):
        rng = np.random.default_rng(1)
        precision, moments = random_covariance(rng, 5), 5 * random_covariance(rng, 5)
        prior, reached = np.zeros(5), 0.0
        for _ in range(20):
            prior = maximise_prior(prior, precision, moments)
            assert self.evidence(prior, precision, moments) >= reached - 1e-12  # rounding
            reached = self.evidence(prior, precision, moments)

    def test_what_the_data_do_not_see_has_no_prior(self):
        precision, moments = np.diag([1.0, 0.0]), np.diag([3.0, 0.0])
        assert_allclose(maximise_prior(np.ones(2), precision, moments), [2.0, 0.0], atol=1e-12)  # (3 - 1) / 1


class TestVariances:
    def test_are_found(self):
        rng = np.random.default_rng(0)
        theta = rng.dirichlet(np.ones(3), 4000)
        own, noise = np.array([1.0, 2.0, 0.0]), 0.5
        variances = SampleVariances(theta, 1e-9)
        expected = (theta**2 @ own + noise) * rng.chisquare(50, 4000) / 50
        found = np.full(3, 1.0), 1.0
        for _ in range(50):
            found = variances.update(*found, expected)
        # statistical error, and the pull to one value, which is 5 % of the information
        assert_allclose(found[0], own, atol=0.2)
        assert_allclose(found[1], noise, atol=0.03)

    def test_a_step_never_raises_the_loss(self):
        rng = np.random.default_rng(1)
        theta = rng.dirichlet(np.ones(4), 12)
        variances = SampleVariances(theta, 1e-9)
        for _ in range(50):
            own, noise, expected = rng.exponential(size=4), rng.exponential(), rng.exponential(size=12) ** 3
            before = variances._loss(np.append(own, noise), expected)
            after = variances._loss(np.append(*variances.update(own, noise, expected)), expected)
            assert after <= before

    def test_are_relative_to_the_unit_of_the_data(self):
        theta = np.random.default_rng(2).dirichlet(np.ones(3), 10)
        variances = SampleVariances(theta, 1e-9)
        own = np.array([0.1, 2.0, 0.4])
        assert_allclose(variances.penalty(own, 0.5), variances.penalty(1e4 * own, 5e3), rtol=1e-12)


class TestEffects:
    @staticmethod
    def fit(cohort, **changes):
        group = cohort.phenotype
        return fit_factors(
            residual(cohort), cohort.proportions, columns(len(group), 1 - group, group), **changes
        )

    def test_weights_combine_the_loadings(self):
        """Without a shift, mean and deviation are those of the posterior of the loadings."""
        cohort = make_cohort(60, 300, 3, random_state=0)
        fit = self.fit(cohort)
        found = known_effects(fit, np.array([[0.0, -1.0, 1.0]]))
        assert_array_equal(found.shifted, 0)
        assert_allclose(
            found.mean[0], (fit.loadings[2] - fit.loadings[1]) * fit.scale, atol=1e-12
        )  # rounding
        first, second = (slice(3 * m, 3 * m + 3) for m in (1, 2))
        covariance = fit.covariance
        variance = covariance[first, first] + covariance[second, second] - covariance[first, second] * 2
        expected = np.sqrt(np.diagonal(variance))[:, None] * fit.scale
        assert_allclose(found.deviation[0], expected, rtol=1e-6)  # a difference of squares
        statistic = found.mean[0] / found.deviation[0]
        expected = 2 * student.sf(np.abs(statistic), fit.degrees)
        assert_allclose(found.p_value, expected, rtol=1e-4, atol=1e-12)  # as above

    def test_a_shift_by_conditioning(self):
        """A possibility of a shift is the same posterior under a prior that allows for it."""
        cohort = make_cohort(30, 100, 3, random_state=0)
        fit = self.fit(cohort)
        shifts = factor_effects._Shifts(fit)
        variance = 3.0
        shifts._variance = variance
        gain = 1 + variance * shifts._information
        shifts._weight = np.ones((3, 100)) / 3
        shifts._mean, shifts._left = variance * shifts._found / gain[:, None], variance / gain
        for k, (_, loadings, covariance) in enumerate(list(shifts.possibilities())[1:]):
            prior = np.diag(fit.prior).copy()
            prior[k, k] += variance
            expected = np.linalg.solve(np.eye(len(prior)) + prior @ fit.precision, prior)
            assert_allclose(covariance, expected, atol=1e-10)  # rounding
            assert_allclose(loadings, expected @ fit.information, atol=1e-9)

    def test_shifted_genes_are_found(self):
        cohort = make_cohort(100, 600, 3, random_state=0)
        genes = np.arange(20)
        cohort.reference[0, genes] += 4.8
        found = known_effects(self.fit(cohort), np.array([[0.0, -1.0, 1.0]]))
        assert found.shifted[genes].mean() > 0.6
        assert found.shifted[20:].mean() < 0.02

    def test_a_reference_that_fits_has_none(self):
        cohort = make_cohort(100, 600, 3, random_state=0)
        assert_array_equal(known_effects(self.fit(cohort), np.array([[0.0, -1.0, 1.0]])).shifted, 0)

    def test_several_effects_at_once(self):
        """The statistic of two effects, against their joint density."""
        cohort = make_cohort(60, 100, 3, random_state=0)
        third = np.arange(60) % 3
        known = columns(60, *(third == c for c in range(3)))
        fit = fit_factors(residual(cohort), cohort.proportions, known, n_factors=0)
        weights = np.array([[0.0, -1, 1, 0], [0, -1, 0, 1]])
        found = known_effects(fit, weights)
        select = np.kron(weights, np.eye(3)[1])
        mean, covariance = select @ fit.loadings.reshape(12, -1), select @ fit.covariance @ select.T
        if np.linalg.eigvalsh(covariance)[0] > 1e-8:
            statistic = np.sum(mean * np.linalg.solve(covariance, mean), axis=0)
            assert_allclose(found.p_value[1], chi2.sf(statistic, 2), rtol=1e-6)

    def test_no_effect_has_no_evidence(self):
        """Priors of unchanged cell types go to 0, and p to 1."""
        cohort = make_cohort(60, 300, 3, effect=0, random_state=0)
        assert np.median(known_effects(self.fit(cohort), np.array([[0.0, -1.0, 1.0]])).p_value) > 0.9

    def test_deviation_from_the_reference(self):
        cohort = make_cohort(100, 600, 3, random_state=0)
        found = deviations_from_reference(self.fit(cohort)) ** 2
        # a tenth of the genes is 4.8 away in cases, none in controls
        assert_allclose(found[cohort.phenotype == 1].mean(), 0.1 * 4.8**2, rtol=0.15)
        assert found[cohort.phenotype == 0].mean() < 0.05

    def test_factors_that_go_with_known_columns(self):
        rng = np.random.default_rng(0)
        cohort = make_cohort(80, 400, 3, random_state=0)
        for strength, low, high in ((0.0, 0.0, 0.15), (2.0, 0.25, 1.0)):
            batch = rng.normal(size=80) + strength * cohort.phenotype
            loadings = rng.normal(size=(3, 400))
            y = residual(cohort) + batch[:, None] * (cohort.proportions @ loadings) * 2
            group = cohort.phenotype
            share, p_value = explained_by_known(
                fit_factors(y, cohort.proportions, columns(80, 1 - group, group))
            )
            assert low <= share.max() <= high
            assert (p_value.min() < 1e-3) == (strength > 0)


class TestScale:
    def test_genes_of_one_variance_have_one_scale(self):
        cohort = make_cohort(50, 300, 3, effect=0, random_state=0)
        fit = fit_factors(residual(cohort), cohort.proportions, columns(50))
        assert_allclose(fit.scale / np.median(fit.scale), 1, atol=0.1)

    def test_is_found(self):
        cohort = make_cohort(50, 300, 3, effect=0, random_state=0)
        truth = np.exp(np.random.default_rng(0).normal(size=300))
        y = residual(cohort) * truth
        kept = y.copy()
        fit = fit_factors(y, cohort.proportions, columns(50))
        relative = np.log(fit.scale / truth)
        # a standard deviation on 50 degrees of freedom has a relative error of 0.1
        assert np.std(relative) < 0.13
        assert fit.n_factors == 0
        assert_allclose(y, kept / fit.scale, rtol=1e-12)  # as promised, in place

    @pytest.mark.slow
    def test_without_it_noisy_genes_pass_for_factors(self):
        """What the scales are for."""
        cohort = make_cohort(50, 300, 3, effect=0, random_state=0)
        y = residual(cohort) * np.exp(np.random.default_rng(0).normal(size=300))
        fit = factor.Search(Genes(y), cohort.proportions, columns(50), 1000, 1e-6)
        fit.search(10, True)
        assert fit.state.spread.shape[1] > 3


class TestNumberOfFactors:
    @pytest.mark.parametrize("n_true", [0, 1, 3])
    def test_is_found(self, n_true):
        rng = np.random.default_rng(n_true)
        n_samples, n_types, n_genes = 80, 4, 500
        theta = rng.dirichlet(np.ones(n_types), n_samples)
        f, b = rng.normal(size=(n_samples, n_true)), rng.normal(size=(n_true, n_types, n_genes))
        p = np.einsum("jm,mkg->jkg", f, b) + rng.normal(size=(n_samples, n_types, n_genes))
        y = np.einsum("jk,jkg->jg", theta, p) + rng.normal(size=(n_samples, n_genes))
        fit = fit_factors(y, theta, columns(n_samples))
        assert fit.n_factors == n_true
        if n_true:
            span = np.linalg.lstsq(columns(n_samples, fit.scores[:, 1:]), f, rcond=None)[0]
            assert np.var(f - columns(n_samples, fit.scores[:, 1:]) @ span) < 0.1

    def test_is_what_was_asked_for(self):
        cohort = make_cohort(30, 100, 3, random_state=0)
        for n_factors in (0, 2, 4):
            fit = fit_factors(residual(cohort), cohort.proportions, columns(30), n_factors=n_factors)
            assert fit.scores.shape == (30, 1 + n_factors)


class TestDegenerate:
    @pytest.mark.parametrize("shape", [(2, 40, 3), (3, 1, 2), (10, 5, 1), (30, 20, 40), (40, 6, 3)])
    def test_any_shape(self, shape):
        n_samples, n_genes, n_types = shape
        rng = np.random.default_rng(0)
        theta = rng.dirichlet(np.ones(n_types), n_samples)
        fit = fit_factors(rng.normal(size=(n_samples, n_genes)), theta, columns(n_samples))
        assert np.isfinite(fit.loadings).all()
        assert np.isfinite(fit.history).all()
        assert fit.noise > 0

    def test_nothing_but_zeros(self):
        theta = np.full((6, 2), 0.5)
        fit = fit_factors(np.zeros((6, 8)), theta, columns(6))
        assert_array_equal(fit.loadings, 0)
        assert fit.n_factors == 0

    def test_constant_genes_and_absent_types(self):
        cohort = make_cohort(20, 60, 3, random_state=0)
        y, theta = residual(cohort), cohort.proportions.copy()
        y[:, :5] = 0
        theta[:, 0] += theta[:, 2]
        theta[:, 2] = 0
        fit = fit_factors(y, theta, columns(20))
        assert np.isfinite(fit.loadings).all()
        assert_array_equal(fit.loadings[:, 2], 0)
        assert_allclose(fit.loadings[:, :, :5], 0, atol=1e-12)

    def test_an_exact_mixture(self):
        rng = np.random.default_rng(0)
        theta = rng.dirichlet(np.ones(3), 15)
        shift = rng.normal(size=(3, 50))
        fit = fit_factors(theta @ shift, theta, columns(15))
        # nothing is left to noise but what the model leaves to it
        assert_allclose(fit.loadings[0] * fit.scale, shift, atol=0.01)

    def test_more_genes_than_samples_or_fewer_is_the_same_computation(self, monkeypatch):
        cohort = make_cohort(30, 30, 3, random_state=0)
        wide = fit_factors(residual(cohort), cohort.proportions, columns(30))
        monkeypatch.setattr(factor_step.Genes, "__init__", _without_gram)
        tall = fit_factors(residual(cohort), cohort.proportions, columns(30))
        assert_allclose(tall.history[-1], wide.history[-1], rtol=1e-9)  # rounding
        assert tall.n_factors == wide.n_factors


def _without_gram(self, residual):
    self.number, self.residual, self._gram = residual.shape[1], residual, None
    self.squares = np.einsum("ng,ng->n", residual, residual) / self.number
