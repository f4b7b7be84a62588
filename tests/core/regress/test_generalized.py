"""Batched regressions: against statistics from elsewhere, one gene at a time, and exact separability."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.optimize import linprog

from skenigma.core.regress.generalized import (
    SharedDesign,
    gene_blocks,
    linear_tests,
    logistic_tests,
    multivariate_tests,
    wide_gene_blocks,
)

# Two ways of solving the same well-conditioned systems in double precision.
ROUNDING = 1e-10


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def cohort(rng, n_genes=6, n_samples=30, n_cell_types=3, effect=0.8):
    """Expression of some genes, two classes of which the first cell type goes with, and an intercept."""
    classes = np.repeat([0.0, 1.0], [n_samples // 2, n_samples - n_samples // 2])
    expression = rng.standard_normal((n_genes, n_samples, n_cell_types))
    expression[:, :, 0] += effect * classes
    return expression, classes, np.ones((n_samples, 1))


def sum_of_squares(design, target):
    return np.sum((target - design @ np.linalg.lstsq(design, target, rcond=None)[0]) ** 2)


class TestSharedDesign:
    def test_single_column_is_the_t_test(self, rng):
        targets = rng.standard_normal((20, 4))
        classes = np.repeat([0.0, 1.0], [8, 12])
        tests = SharedDesign(np.column_stack([np.ones(20), classes])).test(targets, [[1]])
        expected = stats.ttest_ind(targets[8:], targets[:8])
        assert_allclose(tests.statistic[0], expected.statistic, rtol=ROUNDING)
        assert_allclose(tests.p_value[0], expected.pvalue, rtol=ROUNDING)
        assert_allclose(
            tests.coefficients[1], targets[8:].mean(axis=0) - targets[:8].mean(axis=0), rtol=1e-10
        )

    def test_set_of_columns_is_the_analysis_of_variance(self, rng):
        targets = rng.standard_normal((20, 4))
        groups = np.repeat([0, 1, 2], [6, 6, 8])
        design = SharedDesign(np.column_stack([np.ones(20), groups == 1, groups == 2]))
        tests = design.test(targets, [[1, 2]])
        expected = stats.f_oneway(*(targets[groups == group] for group in range(3)))
        assert_allclose(tests.statistic[0], expected.statistic, rtol=ROUNDING)
        assert_allclose(tests.p_value[0], expected.pvalue, rtol=ROUNDING)

    def test_set_of_columns_among_others(self, rng):
        design, target = rng.standard_normal((25, 6)), rng.standard_normal(25)
        tests = SharedDesign(design).test(target[:, None], [[1, 4]])
        full, reduced = sum_of_squares(design, target), sum_of_squares(design[:, [0, 2, 3, 5]], target)
        expected = (reduced - full) / 2 / (full / 19)
        assert_allclose(tests.statistic[0, 0], expected, rtol=ROUNDING)
        assert_allclose(tests.p_value[0, 0], stats.f.sf(expected, 2, 19), rtol=ROUNDING)

    def test_scale_of_columns_does_not_matter(self, rng):
        design, targets = rng.standard_normal((15, 3)), rng.standard_normal((15, 2))
        sets, scales = [[0], [1, 2]], np.array([1e9, 1.0, 1e-9])
        plain, scaled = (SharedDesign(columns).test(targets, sets) for columns in (design, design * scales))
        assert_allclose(scaled.statistic, plain.statistic, rtol=ROUNDING)
        assert_allclose(scaled.coefficients * scales[:, None], plain.coefficients, rtol=ROUNDING)

    def test_dependent_columns_leave_the_others_alone(self, rng):
        free, twice, target = rng.standard_normal((3, 15, 1))
        design = SharedDesign(np.hstack([free, twice, -2 * twice, np.zeros((15, 1))]))
        assert [design.estimable([column]) for column in range(4)] == [True, False, False, False]
        assert design.degrees_of_freedom == 13
        tests = design.test(target, [[0], [1], [0, 3]])
        assert_array_equal(np.isnan(tests.p_value[:, 0]), [False, True, True])
        without = SharedDesign(np.hstack([free, twice])).test(target, [[0]])
        assert_allclose(tests.statistic[0], without.statistic[0], rtol=ROUNDING)


class TestLogistic:
    def test_maximum_of_the_likelihood(self, rng):
        """At the maximum the score vanishes; errors are those of Fisher's information there."""
        expression, classes, common = cohort(rng)
        tests = logistic_tests(expression, classes, common)
        for own, statistic in zip(expression, tests.statistic, strict=True):
            design = np.hstack([common, own])
            coefficients = np.zeros(4)
            for _ in range(50):
                chance = 1 / (1 + np.exp(-design @ coefficients))
                information = design.T * (chance * (1 - chance)) @ design
                coefficients += np.linalg.solve(information, design.T @ (classes - chance))
            expected = coefficients / np.sqrt(np.diag(np.linalg.inv(information)))
            # R's rule stops when the deviance has settled to 1e-8, and the weights are one step older
            assert_allclose(statistic, expected[1:], rtol=1e-4)
        assert_allclose(tests.p_value, 2 * stats.norm.sf(np.abs(tests.statistic)))
        assert not (tests.singular | tests.separated).any()

    @pytest.mark.slow
    @pytest.mark.parametrize("n_samples", [14, 20])
    @pytest.mark.parametrize("kind", ["normal", "ties", "heavy tails"])
    def test_separated_exactly_where_a_plane_separates(self, rng, n_samples, kind):
        """Linear programming decides: is there a plane with no sample strictly on the wrong side?"""
        expression, classes, common = cohort(rng, 120, n_samples, effect=2.5)
        if kind == "ties":
            expression = np.round(expression)
        if kind == "heavy tails":  # an outlier's linear predictor still moves when the fit has settled
            expression = rng.standard_t(1.0, expression.shape)
            expression[:, :, 0] += 5.0 * classes
            expression /= np.abs(expression).max(axis=1, keepdims=True)  # which the test does not notice
        tests = logistic_tests(expression, classes, common)
        separable = []
        for own in expression:
            sided = np.hstack([common, own]) * (2 * classes - 1)[:, None]
            plane = linprog(-sided.sum(axis=0), A_ub=-sided, b_ub=np.zeros(n_samples), bounds=(-1, 1))
            separable.append(-plane.fun > 1e-7)
        regular = ~tests.singular
        assert 10 < np.sum(separable) < 110
        assert_array_equal(tests.separated[regular], np.array(separable)[regular])

    def test_singular(self, rng):
        expression, classes, common = cohort(rng)
        expression[2, :, 1] = 3 - expression[2, :, 0]
        tests = logistic_tests(expression, classes, common)
        assert_array_equal(tests.singular, np.arange(6) == 2)
        assert_array_equal(np.isnan(tests.p_value).all(axis=1), tests.singular)
        assert_array_equal(np.isnan(tests.p_value).any(axis=1), tests.singular)

    def test_a_gene_does_not_depend_on_the_others(self, rng):
        expression, classes, common = cohort(rng, 20, 16)
        together = logistic_tests(expression, classes, common)
        alone = [logistic_tests(own[None], classes, common).p_value[0] for own in expression]
        assert together.separated.any()
        assert not together.separated.all()
        assert_allclose(together.p_value, alone, rtol=1e-6)  # separated genes amplify rounding


class TestLinear:
    def test_against_the_shared_design(self, rng):
        expression, _, common = cohort(rng)
        response = rng.standard_normal(30)
        tests = linear_tests(expression, response, common)
        for own, statistic, p_value in zip(expression, tests.statistic, tests.p_value, strict=True):
            design = SharedDesign(np.hstack([common, own]))
            expected = design.test(response[:, None], [[1], [2], [3]])
            assert_allclose(statistic, expected.statistic[:, 0], rtol=ROUNDING)
            assert_allclose(p_value, expected.p_value[:, 0], rtol=ROUNDING)

    def test_singular(self, rng):
        expression, _, common = cohort(rng)
        expression[2, :, 1] = 3 - expression[2, :, 0]
        tests = linear_tests(expression, rng.standard_normal(30), common)
        assert_array_equal(tests.singular, np.arange(6) == 2)
        assert_array_equal(np.isnan(tests.p_value).all(axis=1), tests.singular)


class TestMultivariate:
    def test_two_groups_are_hotellings_test(self, rng):
        expression, classes, _ = cohort(rng)
        p_value = multivariate_tests(expression, classes, np.empty((30, 0)))
        for own, found in zip(expression, p_value, strict=True):
            first, second = own[classes == 0], own[classes == 1]
            pooled = (np.cov(first.T) * 14 + np.cov(second.T) * 14) / 28
            shift = second.mean(axis=0) - first.mean(axis=0)
            squared = 7.5 * shift @ np.linalg.solve(pooled, shift)
            assert_allclose(found, stats.f.sf(squared * 26 / (28 * 3), 3, 26), rtol=ROUNDING)

    def test_covariates_lower_the_residuals_only(self, rng):
        """Sequential sums of squares, phenotype first: with one response, the classical table."""
        expression, classes, _ = cohort(rng, n_cell_types=1)
        covariate = classes + rng.standard_normal(30)
        p_value = multivariate_tests(expression, classes, covariate[:, None])
        one = np.ones(30)
        for own, found in zip(expression[:, :, 0], p_value, strict=True):
            total, with_classes, full = (
                sum_of_squares(np.column_stack(columns), own)
                for columns in ([one], [one, classes], [one, classes, covariate])
            )
            assert_allclose(found, stats.f.sf((total - with_classes) / (full / 27), 1, 27), rtol=ROUNDING)

    def test_dependent_responses(self, rng):
        expression, classes, _ = cohort(rng)
        expression[4, :, 2] = expression[4, :, 0] + 2 * classes  # dependent but for what the classes explain
        p_value = multivariate_tests(expression, classes, np.empty((30, 0)))
        assert_array_equal(np.isnan(p_value), np.arange(6) == 4)


@pytest.mark.parametrize(("n_genes", "size"), [(0, 10), (1, 10), (7, 2**16), (7, 2**40), (7, 0)])
def test_blocks_cover_all_genes_once(n_genes, size):
    blocks = gene_blocks(n_genes, size)
    assert_array_equal(
        np.concatenate([np.arange(n_genes)[block] for block in blocks] or [[]]), np.arange(n_genes)
    )
    assert all(1 <= block.stop - block.start <= max(1, 2**18 // max(size, 1)) for block in blocks)


def test_however_many_samples_wide_blocks_have_enough_genes():
    sizes = [
        [block.stop - block.start for block in wide_gene_blocks(70, samples)] for samples in (2**40, 2**12)
    ]
    assert sizes == [[32, 32, 6], [64, 6]]
