"""Log fold changes per cell type: the arrays by their formulas, the public test by what users rely on."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

from skenigma.core.regress import fold_changes, generalized
from skenigma.core.regress.contrasts import CommonColumns, equations
from skenigma.core.regress.fold_changes import FoldChangeModel, fold_change_tests, mixture_p
from skenigma.core.regress.interactions import InteractionModel, interaction_tests
from skenigma.core.regress.moderation import VariancePrior
from skenigma.core.regress.permutation import calibrate, permuted_phenotypes, quantile_groups
from skenigma.core.regress.weighting import clipped, law_at, mean_variance_law, sample_weights
from skenigma.differential import differential_expression, interaction_test, log_fold_change_test
from skenigma.exceptions import SampleWarning

# A dense computation in another order of operations; Gram matrices square the condition of designs of about 100.
ROUNDING = 1e-7
NONE = np.empty((40, 0))


def counts(n_samples=40, n_genes=120, n_changed=15, fold=4.0, seed=0):
    """Counts per million of three cell types, the first of which changes; proportions, profiles, phenotype."""
    rng = np.random.default_rng(seed)
    reference = rng.lognormal(4, 1.5, (3, n_genes))
    reference *= 1e6 / reference.sum(axis=1, keepdims=True)
    theta = rng.dirichlet([4, 3, 2], n_samples)
    sick = np.arange(n_samples) % 2
    expression = np.repeat(reference[None], n_samples, axis=0)
    expression[sick == 1, 0, :n_changed] *= fold
    bulk = np.einsum("jk,jkg->jg", theta, expression) * rng.lognormal(0, 0.2, (n_samples, n_genes))
    return bulk * 1e6 / bulk.sum(axis=1, keepdims=True), theta, reference, sick


def framed(n_samples=40, **options):
    bulk, theta, reference, sick = counts(n_samples, **options)
    samples, types = [f"donor{j}" for j in range(n_samples)], ["B", "T", "NK"]
    genes = [f"gene{g}" for g in range(bulk.shape[1])]
    return (
        pd.DataFrame(bulk, samples, genes),
        pd.DataFrame(theta, samples, types),
        pd.Series(np.where(sick, "sick", "healthy"), samples, name="state"),
        pd.DataFrame(reference, types, genes),
    )


def call(*given, reference, **options):
    return log_fold_change_test(*given, reference=reference, **{"n_permutations": 10} | options)


def in_order(table):
    return table.sort_values(["cell_type", "gene"], ignore_index=True)


# ------------------------------------------------------------------------------------- normal equations


class TestEquations:
    @pytest.fixture
    def problem(self):
        rng = np.random.default_rng(1)
        response, weights = rng.normal(size=(20, 5)), rng.uniform(size=(20, 3, 5))
        nuisance, coded = rng.normal(size=(20, 2, 5)), rng.normal(size=(4, 20, 2))
        return response, weights, nuisance, coded

    def test_least_squares_of_the_dense_design(self, problem):
        response, weights, nuisance, coded = problem
        estimate, inverse, squares = equations(*problem).least_squares()
        for b in range(4):
            for g in range(5):
                products = (weights[:, :, None, g] * coded[b][:, None]).reshape(20, 6)
                design = np.column_stack([products, nuisance[:, :, g]])
                expected, rest, *_ = np.linalg.lstsq(design, response[:, g], rcond=None)
                assert_allclose(estimate[b, g], expected[:6], rtol=ROUNDING)
                assert_allclose(squares[b, g], rest[0], rtol=ROUNDING)
                assert_allclose(inverse[b, g], np.linalg.inv(design.T @ design)[:6, :6], atol=1e-8)
        assert_allclose(equations(*problem).residual_squares(), squares, rtol=ROUNDING)

    def test_posterior_of_the_dense_design(self, problem):
        """With a flat prior on the nuisance columns: their precision is 0."""
        response, weights, nuisance, coded = problem
        variance, precision = np.full((4, 5), 0.7), np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        mean, covariance = equations(*problem).posterior(variance, precision)
        padded = np.zeros((8, 8))
        padded[:6, :6] = precision
        products = (weights[:, :, None, 2] * coded[1][:, None]).reshape(20, 6)
        design = np.column_stack([products, nuisance[:, :, 2]])
        expected = np.linalg.inv(design.T @ design / 0.7 + padded)
        assert_allclose(covariance[1, 2], expected[:6, :6], rtol=ROUNDING)
        assert_allclose(mean[1, 2], (expected @ design.T @ response[:, 2] / 0.7)[:6], rtol=ROUNDING)

    def test_a_type_without_weight_has_no_effect_and_spoils_no_other(self, problem):
        response, weights, nuisance, coded = problem
        weights[:, 1, 3] = 0.0
        estimate = equations(response, weights, nuisance, coded).least_squares()[0]
        assert_array_equal(estimate[:, 3, 2:4], 0.0)
        kept = equations(response, weights[:, [0, 2]], nuisance, coded).least_squares()[0]
        assert_allclose(estimate[:, 3, [0, 1, 4, 5]], kept[:, 3], rtol=ROUNDING)


class TestCommonColumns:
    """Columns that all genes share, with weights of values, against designs that are built."""

    @pytest.fixture
    def problem(self, monkeypatch):
        monkeypatch.setattr(generalized, "BLOCK_ENTRIES", 100)  # blocks of 4 to 16 of the samples
        rng = np.random.default_rng(2)
        weights, response = rng.uniform(0.2, 3, (20, 5)), rng.normal(size=(20, 5))
        return weights, response, np.linalg.qr(rng.normal(size=(20, 3)))[0], rng.normal(size=(4, 20, 6))

    def test_least_squares_of_the_dense_design(self, problem):
        weights, response, nuisance, designs = problem
        columns = CommonColumns(weights, response, nuisance)
        estimate, inverse, squares = columns.equations(designs).least_squares()
        for b in range(4):
            coefficients = columns.coefficients(designs[b], estimate[b].T)
            for g in range(5):
                root = np.sqrt(weights[:, [g]])
                design = root * np.column_stack([designs[b], nuisance])
                expected, rest, *_ = np.linalg.lstsq(design, root[:, 0] * response[:, g], rcond=None)
                assert_allclose(estimate[b, g], expected[:6], rtol=ROUNDING)
                assert_allclose(coefficients[:, g], expected[6:], rtol=ROUNDING)
                assert_allclose(squares[b, g], rest[0], rtol=ROUNDING)
                assert_allclose(inverse[b, g], np.linalg.inv(design.T @ design)[:6, :6], atol=1e-8)

    def test_a_column_that_the_nuisance_columns_span_has_no_effect(self, problem):
        weights, response, nuisance, designs = problem
        designs[0, :, 2] = nuisance @ [1.0, -2.0, 0.5]
        columns = CommonColumns(weights, response, nuisance)
        estimate = columns.equations(designs[:1]).least_squares()[0]
        assert_array_equal(estimate[0, :, 2], 0.0)
        kept = columns.equations(np.delete(designs[:1], 2, axis=2)).least_squares()[0]
        assert_allclose(np.delete(estimate, 2, axis=2), kept, rtol=ROUNDING)


# ------------------------------------------------------------------------------------- the model of fold changes


def dense_posterior(bulk, theta, reference, y, gene, variance, prior):
    """δ of one gene by the formula, from a design that is built; and its least squares, for the variance."""
    expected = theta @ reference + 1
    response = np.log2(bulk + 1) - np.log2(expected)
    mixture = np.log2(expected) - np.log2(expected).mean(axis=0)
    shares = theta * reference[:, gene] / expected[:, [gene]]
    design = np.column_stack([shares * y[:, None], np.ones(len(y)), mixture[:, gene]])
    rest = np.linalg.lstsq(design, response[:, gene], rcond=None)[1]
    if variance is None:
        return rest[0]
    precision = np.zeros((5, 5))
    precision[:3, :3] = np.diag(1 / prior)
    covariance = np.linalg.inv(design.T @ design / variance + precision)
    return (covariance @ design.T @ response[:, gene] / variance)[:3], np.sqrt(np.diag(covariance)[:3])


class TestModel:
    def test_posterior_is_that_of_the_formula(self):
        bulk, theta, reference, sick = counts(n_genes=30)
        y = sick.astype(float)
        model = FoldChangeModel(bulk, theta, reference, NONE, robust=False)
        tests = fold_change_tests(model, y[:, None], np.empty((0, 40, 1)))
        squares = np.array([dense_posterior(bulk, theta, reference, y, g, None, None) for g in range(30)])
        degrees = 40 - 2 - 3
        prior = VariancePrior.fit(squares / degrees, degrees)
        variance = prior.moderate(squares / degrees, degrees)
        for g in range(30):
            expected = dense_posterior(bulk, theta, reference, y, g, variance[g], tests.prior_variance)
            assert_allclose(tests.effect[:, 0, g], expected[0], rtol=ROUNDING)
            assert_allclose(tests.error[:, 0, g], expected[1], rtol=ROUNDING)
        tested = tests.share >= fold_changes.MIN_SHARE
        assert_allclose(tests.statistic[tested], (tests.effect / tests.error)[:, 0][tested], rtol=ROUNDING)
        assert np.isnan(tests.statistic[~tested]).all()
        assert_allclose(tests.degrees_of_freedom, degrees + prior.degrees, rtol=ROUNDING)

    def test_prior_variance_finds_the_spread_of_true_fold_changes(self):
        """On data that follow the model, with many genes."""
        rng = np.random.default_rng(3)
        bulk, theta, reference, sick = counts(n_samples=100, n_genes=2000, n_changed=0)
        expected = theta @ reference + 1
        shares = theta[:, :, None] * reference / expected[:, None]
        true = rng.normal(size=(3, 2000)) * np.sqrt([[1.0], [0.25], [0.0]])
        logs = (
            np.log2(expected) + np.einsum("jkg,kg,j->jg", shares, true, sick) + rng.normal(0, 0.2, bulk.shape)
        )
        model = FoldChangeModel(2**logs - 1, theta, reference, np.empty((100, 0)), robust=False)
        tests = fold_change_tests(model, sick[:, None].astype(float), np.empty((0, 100, 1)))
        # the estimates of 2,000 genes have a relative standard error of 3 %, and those of small share more
        assert_allclose(tests.prior_variance, [1.0, 0.25, 0.0], rtol=0.15, atol=0.02)

    def test_covariates_are_columns_on_the_scale_of_logarithms(self):
        bulk, theta, reference, sick = counts()
        batch = np.random.default_rng(5).normal(size=40)
        shifted = (bulk + 1) * 2 ** np.outer(batch, np.linspace(-1, 1, 120)) - 1
        centred = (batch - batch.mean())[:, None]
        options = {"coded": sick[:, None].astype(float), "permuted": np.empty((0, 40, 1))}
        plain = fold_change_tests(FoldChangeModel(bulk, theta, reference, centred, robust=False), **options)
        moved = fold_change_tests(
            FoldChangeModel(shifted, theta, reference, centred, robust=False), **options
        )
        assert_allclose(moved.effect, plain.effect, rtol=ROUNDING, atol=1e-9)

    def test_hidden_factors_are_found_and_taken_out(self):
        bulk, theta, reference, sick = counts(n_samples=80, n_genes=400)
        rng = np.random.default_rng(6)
        hidden = rng.normal(size=80)
        hidden -= hidden @ (sick - 0.5) / 20 * (sick - 0.5)  # the phenotype explains nothing of it
        shifted = bulk * 2 ** np.outer(hidden, rng.normal(0, 0.7, 400))
        nothing = np.empty((80, 0))
        model = FoldChangeModel(shifted, theta, reference, nothing, n_factors=2)
        assert model.factors.shape[1] == 1
        assert abs(np.corrcoef(model.factors[:, 0], hidden)[0, 1]) > 0.95
        coded, none = sick[:, None].astype(float), np.empty((0, 80, 1))
        with_factor = fold_change_tests(model, coded, none)
        without = fold_change_tests(FoldChangeModel(shifted, theta, reference, nothing), coded, none)
        assert with_factor.n_factors == 1
        first = slice(0, 15)
        gain = np.nanmedian(np.abs(with_factor.statistic[0, first] / without.statistic[0, first]))
        assert gain > 1.2

    def test_a_factor_that_the_phenotype_explains_stays(self):
        bulk, theta, reference, sick = counts(n_samples=80, n_genes=400)
        shifted = bulk * 2 ** np.outer(sick - 0.5, np.random.default_rng(6).normal(0, 2, 400))
        model = FoldChangeModel(shifted, theta, reference, np.empty((80, 0)), n_factors=2)
        assert model.factors.shape[1] >= 1
        assert model.kept(sick[:, None].astype(float)) == ()
        other = np.random.default_rng(0).permutation(sick)[:, None].astype(float)
        assert 0 in model.kept(other)

    def test_an_outlying_sample_loses_weight(self):
        bulk, theta, reference, _ = counts()
        bulk[7] *= np.random.default_rng(2).lognormal(0, 1.5, 120)
        weights = FoldChangeModel(bulk, theta, reference, NONE).weights
        assert weights.argmin() == 7
        assert weights[7] < 0.2 * np.median(weights)

    def test_without_noise_p_values_are_uniform(self):
        """Errors of one variance and no effect: the model is true, and its own p-values hold."""
        rng = np.random.default_rng(8)
        bulk, theta, reference, sick = counts(n_genes=3000, n_changed=0)
        expected = theta @ reference + 1
        noise = 2 ** (np.log2(expected) + rng.normal(0, 0.3, bulk.shape)) - 1
        coded = sick[:, None].astype(float)
        model = FoldChangeModel(noise, theta, reference, NONE, robust=False)
        p_value = fold_change_tests(model, coded, np.empty((0, 40, 1))).p_value
        share = np.nanmean(p_value < 0.05, axis=1)  # of 3,000 genes: standard error 0.4 %
        assert np.all(share < 0.065)


@pytest.mark.slow
def test_mixture_of_null_distributions():
    """Against draws: z of genes with unlike information, all without effect."""
    rng = np.random.default_rng(0)
    prior, errors = 0.5, rng.uniform(0.05, 2.0, 300)
    posterior = 1 / (1 / prior + 1 / errors)
    draws = stats.t.rvs(9, size=(4000, 300), random_state=1) * np.sqrt(prior / (prior + errors))
    score = np.quantile(np.abs(draws), np.linspace(0.02, 0.999, 300))
    expected = [np.mean(np.abs(draws) >= s) for s in score]
    # 1.2 million draws: a share of 0.001 is known to 3 %; the grid adds less than that
    assert_allclose(mixture_p(score, posterior, prior, 9), expected, rtol=0.1)


# ------------------------------------------------------------------------------------- permutations and weights


class TestPermutation:
    def test_without_covariates_values_are_permuted(self):
        coded = np.arange(12.0)[:, None]
        permuted = permuted_phenotypes(coded, np.empty((12, 0)), 7, np.random.default_rng(0))
        assert permuted.shape == (7, 12, 1)
        for one in permuted:
            assert_array_equal(np.sort(one, axis=0), coded)

    def test_what_covariates_explain_stays(self):
        rng = np.random.default_rng(0)
        covariate = rng.normal(size=(50, 1))
        covariate -= covariate.mean(axis=0)
        coded = 2 * covariate + rng.normal(size=(50, 1))
        permuted = permuted_phenotypes(coded, covariate, 200, rng)
        slopes = np.einsum("nc,bnc->b", covariate, permuted) / np.sum(covariate**2)
        observed = covariate[:, 0] @ coded[:, 0] / np.sum(covariate**2)
        assert_allclose(slopes.mean(), observed, atol=0.1)  # a standard error of 1/√50/√200

    def test_share_of_null_scores(self):
        null = np.arange(1.0, 101.0).reshape(50, 2)
        p_value = calibrate(np.array([0.5, 1e-6]), np.array([91.0, 50.5]), null, np.zeros(2, dtype=int))
        assert_allclose(p_value, [0.5, 51 / 101])
        p_value = calibrate(np.array([0.01, np.nan]), np.array([91.0, np.nan]), null, np.zeros(2, dtype=int))
        # only the first gene's null scores 1, 3, ..., 99 count: five of fifty reach 91
        assert_allclose(p_value, [6 / 51, np.nan])

    def test_beyond_all_null_scores_the_order_is_the_models(self):
        null = np.zeros((9, 3))
        p_value = calibrate(
            np.array([1e-8, 1e-4, 1e-6]), np.array([9.0, 5.0, 7.0]), null, np.zeros(3, dtype=int)
        )
        assert_allclose(p_value, np.array([1e-4, 1.0, 1e-2]) / 28)

    def test_groups_of_like_size(self):
        groups = quantile_groups(np.array([5.0, 1.0, 3.0, 2.0, 4.0, 0.0]), 3)
        assert_array_equal(groups, [2, 0, 1, 1, 2, 0])


class TestWeights:
    def test_law_of_negative_binomial_counts(self):
        rng = np.random.default_rng(0)
        mean = rng.lognormal(3, 2, 4000)
        samples = rng.negative_binomial(5, 5 / (5 + mean), (60, 4000))
        law = mean_variance_law(samples.mean(axis=0), samples.var(axis=0, ddof=1))
        assert_allclose(law_at(law, 1000.0), 1000 + 1000**2 / 5, rtol=0.1)
        assert_allclose(law_at(law, 2.0), 2 + 4 / 5, rtol=0.3)

    def test_a_sample_of_four_times_the_variance_has_a_quarter_of_the_weight(self):
        weights = sample_weights(np.array([1.0, 1.0, 4.0, 1.0]), np.full(4, 0.2))
        assert_allclose(weights / weights[0], [1, 1, 0.25, 1])

    def test_outlying_values_are_brought_back(self):
        values = np.random.default_rng(0).normal(size=(50, 3))
        values[4, 1] = 40.0
        tamed = clipped(values, np.zeros((50, 3)))
        assert tamed[4, 1] < 5
        inside = np.abs(values) < 2
        assert_array_equal(tamed[inside], values[inside])


def test_interaction_without_a_law_is_moderated_least_squares():
    """Signed values, weights of samples set to 1 and no outliers: t of least squares with moderated variances."""
    rng = np.random.default_rng(4)
    theta = rng.dirichlet([3, 3, 3], 30)
    bulk, y = rng.normal(size=(30, 50)), (np.arange(30) % 2).astype(float)
    model = InteractionModel(bulk, theta, np.empty((30, 0)))
    assert_array_equal(model.law, [1, 0, 0])
    model.sample_weights = np.ones(30)
    tests = interaction_tests(model, y[:, None], np.empty((0, 30, 1)))
    tamed = np.hstack([model._null(block)[0] for block in model.blocks])
    design = np.hstack([theta, theta * y[:, None]])
    coefficients, squares, *_ = np.linalg.lstsq(design, tamed, rcond=None)
    prior = VariancePrior.fit(squares / 24, 24)
    errors = np.sqrt(np.outer(np.diag(np.linalg.inv(design.T @ design)), prior.moderate(squares / 24, 24)))
    assert_allclose(tests.statistic, (coefficients / errors)[3:], rtol=ROUNDING, atol=ROUNDING)
    assert_allclose(tests.p_value, 2 * stats.t.sf(np.abs(tests.statistic), 24 + prior.degrees), rtol=ROUNDING)
    assert_allclose(tests.means, coefficients[:3], rtol=ROUNDING, atol=ROUNDING)


# ------------------------------------------------------------------------------------- the public test


class TestLogFoldChange:
    def test_finds_the_changes_and_their_type(self):
        *given, reference = framed()
        table = log_fold_change_test(*given, reference=reference)
        called = table[table.q_value < 0.05]
        assert len(called) >= 10
        assert (called.cell_type == "B").mean() > 0.9
        assert called.gene.isin([f"gene{g}" for g in range(15)]).mean() > 0.9
        assert (called.effect > 0).mean() > 0.9
        assert (table.contrast == "log2(sick / healthy)").all()

    def test_effects_are_log2_fold_changes(self):
        """Shrunken a little where the data say much."""
        *given, reference = framed(n_samples=200, n_genes=300, n_changed=60, fold=2.0)
        table = call(*given, reference=reference)
        changed = table[(table.cell_type == "B") & table.gene.isin([f"gene{g}" for g in range(60)])]
        weight = 1 / changed.standard_error**2
        assert_allclose(np.average(changed.effect, weights=weight), 1.0, atol=0.15)

    def test_pure_noise_is_not_called(self):
        *given, reference = framed(n_changed=0)
        for seed in range(3):
            given[2] = given[2].sample(frac=1, random_state=seed).set_axis(given[2].index)
            assert not (call(*given, reference=reference, n_permutations=60).q_value < 0.05).any()

    def test_is_repeatable_and_depends_on_the_seed(self):
        *given, reference = framed()
        plain = call(*given, reference=reference)
        assert_frame_equal(call(*given, reference=reference), plain)
        assert not in_order(call(*given, reference=reference, random_state=1)).p_value.equals(
            in_order(plain).p_value
        )

    def test_order_of_samples_genes_and_types(self):
        bulk, theta, state, reference = framed()
        options = {"n_permutations": 0}
        plain = in_order(call(bulk, theta, state, reference=reference, **options))
        shuffled = np.random.default_rng(0).permutation(40)
        moved = call(
            bulk.iloc[shuffled, ::-1], theta.iloc[:, ::-1], state[::-1], reference=reference, **options
        )
        for column in ("effect", "statistic", "p_value", "q_value"):
            assert_allclose(in_order(moved)[column], plain[column], rtol=1e-6)

    def test_depth_of_samples_does_not_matter(self):
        bulk, theta, state, reference = framed()
        plain = call(bulk, theta, state, reference=reference)
        deeper = bulk.mul(np.linspace(1, 30, 40), axis=0)
        assert_allclose(call(deeper, theta, state, reference=reference).effect, plain.effect, rtol=1e-6)

    def test_blocks_do_not_matter(self, monkeypatch):
        *given, reference = framed()
        plain = call(*given, reference=reference)
        monkeypatch.setattr(generalized, "BLOCK_ENTRIES", 1000)
        assert_frame_equal(call(*given, reference=reference), plain, check_exact=False, rtol=ROUNDING)

    def test_genes_that_a_type_hardly_expresses(self):
        bulk, theta, state, reference = framed()
        reference.loc["T", "gene50"] = 0.0
        table = call(bulk, theta, state, reference=reference)
        row = table[(table.cell_type == "T") & (table.gene == "gene50")].iloc[0]
        assert row.flag == "low_share"
        assert np.isnan([row.p_value, row.q_value]).all()

    def test_rare_type(self):
        bulk, theta, state, reference = framed()
        theta["NK"] *= 0.02
        theta = theta.div(theta.sum(axis=1), axis=0)
        with pytest.warns(UserWarning, match="No gene could be tested in 'NK': the cell type is too rare"):
            table = call(bulk, theta, state, reference=reference)
        assert_array_equal(table.flag == "rare", table.cell_type == "NK")
        assert table.p_value[table.cell_type != "NK"].notna().sum() > 200

    def test_three_classes(self):
        bulk, theta, _, reference = framed(n_changed=0)
        groups = pd.Series(np.arange(40) % 3, bulk.index).map({0: "a", 1: "b", 2: "c"})
        factor = np.where(groups == "c", 5.0, 1.0)[:, None] * theta[["B"]].to_numpy()
        part = factor * reference.loc["B"].to_numpy()[:15]
        bulk = bulk.copy()
        bulk.iloc[:, :15] = part + (
            theta[["T", "NK"]].to_numpy() @ reference.loc[["T", "NK"]].to_numpy()[:, :15]
        )
        table = call(bulk, theta, groups, reference=reference)
        assert (table.cell_type[:5] == "B").all()
        assert table.gene[:5].isin(bulk.columns[:15]).all()
        assert (table.q_value[:5] < 0.05).all()
        assert (table.contrast == "log2(largest / smallest) over phenotype").all()

    def test_quantity(self):
        bulk, theta, _, reference = framed(n_changed=0)
        dose = pd.Series(np.random.default_rng(1).uniform(0, 4, 40), bulk.index, name="dose")
        mixed = theta.to_numpy()[:, :, None] * reference.to_numpy()
        mixed[:, 0, :10] *= 2 ** dose.to_numpy()[:, None]
        bulk = pd.DataFrame(mixed.sum(axis=1), bulk.index, bulk.columns)
        table = call(bulk, theta, dose, reference=reference)
        assert (table.contrast == "log2 fold change per unit of dose").all()
        changed = table[(table.cell_type == "B") & table.gene.isin([f"gene{g}" for g in range(10)])]
        assert (changed.effect > 0.2).mean() > 0.8

    @pytest.mark.parametrize("test", ["fold", "interaction"])
    def test_swapped_level_of_reference(self, test):
        bulk, theta, state, reference = framed()
        if test == "fold":
            table = call(bulk, theta, state, reference=reference, reference_level="sick")
            assert (table.contrast == "log2(healthy / sick)").all()
        else:
            table = interaction_test(bulk, theta, state, reference_level="sick")
            assert (table.contrast == "healthy - sick").all()
            plain = interaction_test(bulk, theta, state)
            assert_allclose(in_order(table).effect, -in_order(plain).effect, rtol=1e-6)
            assert_allclose(in_order(table).p_value, in_order(plain).p_value, rtol=1e-6)
        best = table[table.cell_type == "B"].iloc[:5]
        assert (best.effect < 0).all()

    def test_samples_without_phenotype_can_be_left_out(self):
        bulk, theta, state, reference = framed()
        partly = state.astype(object)
        partly.iloc[[3, 8]] = [None, np.nan]
        with pytest.raises(ValueError, match=r"2 sample.*'donor3', 'donor8'.*missing='drop'"):
            call(bulk, theta, partly, reference=reference)
        kept = [name for name in bulk.index if name not in ("donor3", "donor8")]
        table = call(bulk, theta, partly, reference=reference, missing="drop")
        assert_frame_equal(table, call(bulk.loc[kept], theta.loc[kept], state[kept], reference=reference))

    def test_levels(self):
        bulk, theta, state, reference = framed()
        third = state.copy()
        third.iloc[:4] = "not reported"
        table = call(bulk, theta, third, reference=reference, levels=["sick", "healthy"])
        assert (table.contrast == "log2(healthy / sick)").all()
        kept = bulk.index[4:]
        expected = call(
            bulk.loc[kept], theta.loc[kept], state[kept], reference=reference, reference_level="sick"
        )
        assert_frame_equal(table, expected)
        with pytest.raises(ValueError, match="No sample has the level 'ill'"):
            call(bulk, theta, state, reference=reference, levels=["ill", "healthy"])


class TestRefusals:
    @pytest.mark.parametrize("what", ["bulk", "reference"])
    def test_negative_values(self, what):
        bulk, theta, state, reference = framed()
        table = {"bulk": bulk, "reference": reference}[what]
        table.iloc[1, 4] = -1.0
        with pytest.raises(ValueError, match=f"{what}.*negative.*'gene4'"):
            call(bulk, theta, state, reference=reference)

    def test_genes_and_types_that_the_reference_lacks(self):
        bulk, theta, state, reference = framed()
        with pytest.raises(ValueError, match="columns of reference do not name gene 'gene7'"):
            call(bulk, theta, state, reference=reference.drop(columns="gene7"))
        with pytest.raises(ValueError, match="rows of reference do not name cell type 'T'"):
            call(bulk, theta, state, reference=reference.drop(index="T"))

    def test_too_few_samples(self):
        bulk, theta, state, reference = framed()
        with pytest.raises(ValueError, match=r"9 samples cannot estimate 5 coefficients.*at least 10"):
            call(bulk[:9], theta[:9], state[:9], reference=reference)
        assert len(call(bulk[:10], theta[:10], state[:10], reference=reference)) == 360

    def test_a_sample_without_counts(self):
        bulk, theta, state, reference = framed()
        bulk.iloc[2] = 0.0
        with pytest.raises(ValueError, match="no counts in sample"):
            call(bulk, theta, state, reference=reference)

    def test_classes_by_a_typing_error(self):
        bulk, theta, state, _ = framed()
        third = state.copy()
        third.iloc[5] = "not reported"
        with (
            pytest.warns(UserWarning, match="'not reported' in 1 sample.*seems to stand for a missing value"),
            pytest.warns(SampleWarning, match="phenotype has a single sample of 'not reported'"),
            pytest.warns(UserWarning, match=r"No gene could be tested.*'not reported' \(1\)"),
        ):
            table = interaction_test(bulk, theta, third)
        assert (table.flag == "singular").all()

    @pytest.mark.parametrize("broken", ["--", ">=90", "61,5"])
    def test_ages_that_are_not_all_numbers(self, broken):
        bulk, theta, state, reference = framed()
        age = pd.Series([str(20 + j) for j in range(40)], bulk.index, name="age")
        age.iloc[7] = broken
        with pytest.raises(ValueError, match=f"phenotype holds numbers, but also '{broken}'"):
            call(bulk, theta, age, reference=reference)
        with pytest.raises(ValueError, match=f"covariate 'age' holds numbers, but also '{broken}'"):
            call(bulk, theta, state, reference=reference, covariates=age.to_frame())

    def test_groups_named_none_and_na(self):
        bulk, theta, state, reference = framed()
        named = state.map({"sick": "NA", "healthy": "None"})
        with pytest.warns(UserWarning, match="'NA' in 20 sample.*seems to stand for a missing value"):
            found = call(bulk, theta, named, reference=reference)
        assert (found.contrast == "log2(None / NA)").all()


def test_default_of_a_fitted_model():
    """Log fold changes on counts, the interaction test on anything else."""
    from skenigma import L2MaxDeconvolver

    bulk, theta, state, reference = framed()
    model = L2MaxDeconvolver(reference, renorm_size="auto").fit(bulk, proportions=theta)
    assert "standard_error" in differential_expression(model, state, X=bulk)
    assert "standard_error" not in differential_expression(model, state, X=bulk, fold_change=True)
    signed = bulk - bulk.mean()
    centred = L2MaxDeconvolver(reference - reference.mean(), renorm_size=None).fit(signed, proportions=theta)
    assert "standard_error" not in differential_expression(centred, state, X=signed)


def test_constants_of_the_door_are_those_of_the_arrays():
    assert fold_changes.MIN_SHARE == 0.01
