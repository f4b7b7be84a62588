"""The estimator of the factor model: accuracy, intervals, attributes, and what it says of data it is not for."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from skenigma import FactorDeconvolver
from skenigma.datasets import make_cohort
from skenigma.exceptions import SampleWarning, ScaleWarning
from skenigma.metrics import per_gene_correlation, per_sample_correlation, root_mean_squared_error


def fitted(cohort, **parameters):
    model = FactorDeconvolver(cohort.reference, **parameters)
    return model.fit(cohort.bulk, proportions=cohort.proportions)


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(60, 200, 4, random_state=0, as_frame=True)


@pytest.fixture(scope="module")
def model(cohort):
    return fitted(cohort)


class TestAccuracy:
    @pytest.mark.parametrize(("n_samples", "error"), [(10, 1.38), (20, 1.32), (100, 1.17), (300, 1.06)])
    def test_figures_of_the_design(self, n_samples, error):
        """Published recipe. A cohort has 1,000 genes: its error is known to about 0.003."""
        cohort = make_cohort(n_samples, random_state=0)
        assert root_mean_squared_error(cohort.cse, fitted(cohort).cse_) <= error + 0.005

    def test_correlation_and_coverage(self):
        cohort = make_cohort(100, random_state=0)
        model = fitted(cohort)
        # two decimals of the figures to reach: .21 per gene, .74 per sample
        assert np.nanmean(per_gene_correlation(cohort.cse, model.cse_)) > 0.205
        assert np.nanmean(per_sample_correlation(cohort.cse, model.cse_)) > 0.735
        for level, nominal in ((0.5, 0.49), (0.8, 0.79), (0.95, 0.94)):
            low, high = model.expression_.interval(level)
            covered = np.mean((low <= cohort.cse) & (cohort.cse <= high))
            assert_allclose(covered, nominal, atol=0.01)

    @pytest.mark.parametrize("effect", [0, 1.5])
    def test_reliability_is_the_correlation_to_expect(self, effect):
        cohort = make_cohort(100, effect=effect, random_state=0)
        model = fitted(cohort)
        found = per_gene_correlation(cohort.cse, model.cse_)
        # few types' own parts are told apart well; 5,000 correlations average out their own error
        assert_allclose(model.reliability_.mean(), np.nanmean(found), atol=0.02)

    def test_reliability_tells_genes_apart(self):
        cohort = make_cohort(100, random_state=0)
        model = fitted(cohort)
        found = per_gene_correlation(cohort.cse, model.cse_)
        assert np.corrcoef(found.ravel(), model.reliability_.ravel())[0, 1] > 0.7

    def test_genes_of_many_scales(self):
        """Standard deviations in a ratio of 1 to 50: intervals still hold, gene by gene."""
        cohort = make_cohort(80, 300, 4, effect=0, random_state=0)
        scale = np.geomspace(0.1, 5, 300)
        expected = cohort.proportions @ cohort.reference
        bulk = expected + scale * (cohort.bulk - expected)
        truth = cohort.reference + scale * (cohort.cse - cohort.reference)
        model = FactorDeconvolver(cohort.reference).fit(bulk, proportions=cohort.proportions)
        low, high = model.expression_.interval(0.8)
        covered = np.mean((low <= truth) & (truth <= high), axis=(0, 1))
        # 320 values per gene, in 10 groups of genes
        assert_allclose(covered.reshape(10, -1).mean(axis=1), 0.8, atol=0.04)


class TestAttributes:
    def test_shapes(self, model):
        n_factors = model.n_factors_
        assert model.scores_.shape == model.scores_std_.shape == (60, n_factors)
        assert model.loadings_.shape == model.loadings_std_.shape == (n_factors, 4, 200)
        assert model.shift_.shape == model.shift_std_.shape == model.reliability_.shape == (4, 200)
        assert model.evidence_history_.shape == (model.n_iter_, 2)
        assert model.cse_std_.shape == model.cse_.shape == (60, 4, 200)
        assert model.converged_

    def test_evidence_rises_to_the_end(self, model):
        bound, n_factors = model.evidence_history_.T
        assert (np.diff(bound)[np.diff(n_factors) == 0] >= -1e-10 * np.abs(bound).max()).all()
        assert n_factors[-1] == model.n_factors_

    def test_the_factor_is_the_phenotype_that_nobody_told_it(self, cohort, model):
        assert model.n_factors_ == 1
        assert abs(np.corrcoef(model.scores_[:, 0], cohort.phenotype)[0, 1]) > 0.95

    def test_loadings_find_changed_genes(self, cohort, model):
        strength = np.abs(model.loadings_[0] / model.loadings_std_[0])
        changed = cohort.changed.to_numpy() != 0
        assert np.median(strength[changed]) > 5 * np.median(strength[~changed])

    def test_number_of_factors_is_fixed(self, cohort):
        for n_factors in (0, 3):
            assert fitted(cohort, n_factors=n_factors).n_factors_ == n_factors


class TestMap:
    def test_transform_is_fit_transform(self, cohort, model):
        whole = model.transform(cohort.bulk, proportions=cohort.proportions)
        assert_allclose(whole.reshape(model.cse_.shape), model.cse_, atol=1e-12)  # rounding

    def test_rows_stand_alone(self, cohort, model):
        some = [7, 3]
        part = model.predict_expression(cohort.bulk.iloc[some], proportions=cohort.proportions.iloc[some])
        assert_allclose(part.values(), model.cse_[some], atol=1e-10)  # products of another shape
        assert_allclose(part.std(), model.cse_std_[some], atol=1e-10)

    def test_new_samples_are_as_well_covered(self):
        cohort = make_cohort(200, 400, 4, random_state=1)
        seen, new = slice(0, None, 2), slice(1, None, 2)
        model = FactorDeconvolver(cohort.reference).fit(
            cohort.bulk[seen], proportions=cohort.proportions[seen]
        )
        found = model.predict_expression(cohort.bulk[new], proportions=cohort.proportions[new])
        low, high = found.interval(0.8)
        assert_allclose(np.mean((low <= cohort.cse[new]) & (cohort.cse[new] <= high)), 0.8, atol=0.02)

    def test_compact_and_whole_agree(self, cohort, model):
        compact = fitted(cohort, materialize=False)
        part = compact.expression_.values(samples=[2, 5], cell_types=[1], genes=slice(10, 20))
        assert_allclose(part, model.cse_[[2, 5]][:, [1], 10:20], atol=1e-12)  # rounding

    def test_score_is_larger_for_the_right_proportions_and_number_of_factors(self, cohort):
        seen, new = slice(0, None, 2), slice(1, None, 2)
        theta = cohort.proportions
        scores = {}
        for n_factors in (0, 1, 8):
            model = FactorDeconvolver(cohort.reference, n_factors=n_factors)
            model.fit(cohort.bulk[seen], proportions=theta[seen])
            scores[n_factors] = model.score(cohort.bulk[new], proportions=theta[new])
            assert model.score(cohort.bulk[new], proportions=theta[new].to_numpy()[::-1]) < scores[n_factors]
        assert scores[1] > max(scores[0], scores[8])

    def test_order_of_samples_does_not_matter(self, cohort, model):
        order = np.random.default_rng(0).permutation(60)
        other = FactorDeconvolver(cohort.reference).fit(
            cohort.bulk.iloc[order], proportions=cohort.proportions.iloc[order]
        )
        # rounding, as far as it grows until the fit has converged
        assert_allclose(other.cse_, model.cse_[order], atol=1e-3)

    def test_unit_of_the_values_does_not_matter(self, cohort, model):
        other = FactorDeconvolver(cohort.reference * 1e3).fit(
            cohort.bulk * 1e3, proportions=cohort.proportions
        )
        assert_allclose(other.cse_ / 1e3, model.cse_, atol=1e-3)  # as above
        assert_allclose(other.cse_std_ / 1e3, model.cse_std_, atol=1e-3)

    def test_single_precision_stays_so(self, cohort, model):
        single = FactorDeconvolver(cohort.reference.astype(np.float32))
        single.fit(cohort.bulk.astype(np.float32), proportions=cohort.proportions)
        assert single.cse_.dtype == single.cse_std_.dtype == np.float32
        assert_allclose(single.cse_, model.cse_, atol=1e-3)


class TestDegenerate:
    @pytest.mark.filterwarnings("ignore:X has 12 samples for 40")
    @pytest.mark.parametrize("n_types", [1, 40])
    def test_number_of_cell_types(self, n_types):
        cohort = make_cohort(12, 60, n_types, random_state=0)
        assert np.isfinite(fitted(cohort).cse_).all()

    def test_two_samples(self):
        cohort = make_cohort(2, 60, 3, random_state=0)
        with pytest.warns(SampleWarning, match="2 samples for 3 cell types"):
            model = fitted(cohort)
        assert np.isfinite(model.cse_).all()
        assert np.isfinite(model.cse_std_).all()
        assert model.n_factors_ == 0

    def test_absent_cell_type_is_the_reference(self, cohort):
        theta = cohort.proportions.copy()
        theta.iloc[:, 0] += theta.iloc[:, 1]
        theta.iloc[:, 1] = 0
        with pytest.warns(UserWarning, match="'celltype2' is 0 in every sample"):
            model = FactorDeconvolver(cohort.reference).fit(cohort.bulk, proportions=theta)
        expected = np.broadcast_to(cohort.reference.iloc[1], (60, 200))
        assert_allclose(model.cse_[:, 1], expected, atol=1e-12)
        assert np.isfinite(model.cse_std_).all()
        assert (model.cse_std_[:, 1] > 0).all()

    def test_constant_genes(self, cohort):
        bulk = cohort.bulk.copy()
        bulk.iloc[:, :3] = 0.25
        model = FactorDeconvolver(cohort.reference).fit(bulk, proportions=cohort.proportions)
        assert np.isfinite(model.cse_).all()

    def test_nothing_but_zeros(self):
        model = FactorDeconvolver(np.zeros((2, 10))).fit(np.zeros((6, 10)), proportions=np.full((6, 2), 0.5))
        assert_array_equal(model.cse_, 0)
        assert np.isfinite(model.cse_std_).all()


@pytest.mark.filterwarnings("ignore:X has no negative value")
class TestUndetermined:
    """What the data leave open is decided by a rule, not by rounding, which single precision changes."""

    def test_own_parts_and_noise_of_a_cohort_of_one_type(self):
        """θ² is 1 in every sample, like the coefficient of the noise: they share the variance."""
        rng = np.random.default_rng(1)
        reference = rng.gamma(1.0, 100.0, (2, 30))
        theta = np.column_stack([np.full(8, 1e-9), np.full(8, 1 - 1e-9)])
        bulk = theta @ reference * rng.gamma(20.0, 0.05, (8, 30))
        model = FactorDeconvolver(reference, n_factors=0).fit(bulk, proportions=theta)
        # with a common own variance t of the types, v = t + noise, and the tie is t = noise
        assert_allclose(model.own_variance_, model.noise_variance_, rtol=1e-3)
        single = FactorDeconvolver(reference.astype(np.float32), n_factors=0)
        single.fit(bulk.astype(np.float32), proportions=theta.astype(np.float32))
        assert_allclose(
            single.cse_, model.cse_, atol=1e-4 * model.cse_.max()
        )  # 6e-8 times a condition of 1,000

    def test_genes_that_the_reference_explains_but_for_rounding(self):
        rng = np.random.default_rng(2)
        reference = rng.gamma(1.0, 100.0, (3, 30))
        theta = rng.dirichlet(np.full(3, 2.0), 8)
        bulk = theta @ reference * rng.gamma(20.0, 0.05, (8, 30))
        bulk[:, :2] = reference[:, :2] = 50.0
        model = FactorDeconvolver(reference).fit(bulk, proportions=theta)
        single = FactorDeconvolver(reference.astype(np.float32))
        single.fit(bulk.astype(np.float32), proportions=theta.astype(np.float32))
        assert_allclose(single.cse_, model.cse_, atol=1e-4 * model.cse_.max())

    def test_few_samples(self, cohort):
        with pytest.warns(SampleWarning, match="4 samples for 4 cell types"):
            FactorDeconvolver(cohort.reference).fit(cohort.bulk[:4], proportions=cohort.proportions[:4])

    def test_repeated_samples_are_named(self, cohort):
        bulk = cohort.bulk.iloc[:6].copy()
        bulk.iloc[4] = bulk.iloc[1]
        with pytest.warns(SampleWarning, match=f"1 sample.*{bulk.index[1]} and {bulk.index[4]}"):
            FactorDeconvolver(cohort.reference).fit(bulk, proportions=cohort.proportions[:6])


class TestWarnings:
    def test_counts_per_million(self, cohort):
        bulk, reference = np.exp2(cohort.bulk) * 50, np.exp2(cohort.reference) * 50
        with pytest.warns(UserWarning, match="Use EmpiricalBayesDeconvolver"):
            FactorDeconvolver(reference).fit(bulk, proportions=cohort.proportions)

    @pytest.mark.parametrize("change", [lambda x: x, lambda x: x + 10, lambda x: 1000 * x])
    def test_signed_or_logarithmic_values_do_not_warn(self, cohort, change):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ScaleWarning)  # of logarithms, which are no mixtures
            FactorDeconvolver(change(cohort.reference)).fit(
                change(cohort.bulk), proportions=cohort.proportions
            )

    def test_no_convergence(self, cohort):
        with pytest.warns(ConvergenceWarning, match="did not converge in 2 steps"):
            model = fitted(cohort, max_iter=2)
        assert not model.converged_

    def test_verbose_prints_the_evidence(self, cohort, capsys):
        fitted(cohort, verbose=1)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("step 1: evidence -")
        assert lines[-1].endswith("1 factors")

    def test_n_factors_must_be_a_number(self, cohort):
        with pytest.raises(ValueError, match="n_factors"):
            fitted(cohort, n_factors="many")


def test_proportions_are_estimated_by_what_the_data_are(cohort):
    model = FactorDeconvolver(cohort.reference).fit(cohort.bulk)
    assert model.proportion_estimator_.method == "auto"
    assert isinstance(model.cell_type_expression("celltype1"), pd.DataFrame)
