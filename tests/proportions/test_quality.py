"""Quality of the fit of every sample: plain formulas, what it shows, and where it has no value."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import pearsonr

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.proportions import fit_quality

CELL_TYPES = ["B cell", "monocyte", "NK cell", "T cell"]
SAMPLES = [f"donor{j}" for j in range(12)]
GENES = [f"gene{i}" for i in range(80)]
COLUMNS = ["r2", "rmse", "correlation", "scale", "explained"]


@pytest.fixture(scope="module")
def reference():
    values = np.random.default_rng(0).gamma(1, 100, (len(CELL_TYPES), len(GENES)))
    return pd.DataFrame(values, index=CELL_TYPES, columns=GENES)


class TestFormula:
    def test_by_hand(self, bulk, reference, truth):
        found = fit_quality(bulk, reference, truth)
        assert list(found.columns) == COLUMNS
        assert list(found.index) == SAMPLES
        for name in SAMPLES:
            x, m = bulk.loc[name].to_numpy(), (truth.loc[name] @ reference).to_numpy()
            scale = np.linalg.lstsq(m[:, None], x, rcond=None)[0][0]
            residual = x - scale * m
            r2 = 1 - np.sum(residual**2) / np.sum((x - x.mean()) ** 2)
            explained = scale * m.sum() / x.sum()
            expected = [r2, np.sqrt(np.mean(residual**2)), pearsonr(x, m).statistic, scale, explained]
            assert_allclose(found.loc[name], expected, rtol=1e-10)  # rounding

    def test_exact_mixture(self, reference, truth):
        found = fit_quality(truth @ reference, reference, truth)
        assert_allclose(found[["r2", "correlation", "scale"]], 1, rtol=1e-12)  # rounding
        assert found["rmse"].max() < 1e-12 * reference.to_numpy().max()

    def test_depth_is_scale_alone(self, bulk, reference, truth):
        found, deep = (fit_quality(X, reference, truth) for X in (bulk, 1000 * bulk))
        same = ["r2", "correlation"]
        assert_allclose(deep[same], found[same], rtol=1e-12)  # rounding
        assert_allclose(deep[["rmse", "scale"]], 1000 * found[["rmse", "scale"]], rtol=1e-12)  # as above

    def test_many_blocks_of_rows(self, reference, truth):
        """Blocks hold 2^15 numbers: more samples than that are compared in several."""
        wide = pd.concat([truth] * 60, ignore_index=True)
        X = (wide @ reference).to_numpy() + np.random.default_rng(3).gamma(1, 5, (len(wide), len(GENES)))
        whole = fit_quality(X, reference.to_numpy(), wide.to_numpy())
        assert whole.shape == (720, 5)
        alone = fit_quality(X[700:705], reference.to_numpy(), wide.to_numpy()[700:705])
        assert_allclose(whole[700:705], alone, rtol=1e-12)  # rounding

    def test_opposite_sample_is_not_reproduced_by_a_negative_mixture(self, reference, truth):
        found = fit_quality(-(truth @ reference), reference, truth)
        assert_array_equal(found["scale"], 0)
        assert (found["r2"] < 0).all()
        assert_allclose(found["correlation"], -1, rtol=1e-12)  # rounding


class TestWhatItShows:
    def test_a_sample_that_is_no_mixture_falls_behind(self, bulk, reference, truth):
        strange = bulk.copy()
        strange.loc["donor4"] = np.random.default_rng(5).permutation(strange.loc["donor4"])
        quality = ProportionEstimator(reference).fit(strange).quality_
        others = quality.drop("donor4")
        for column in ("r2", "correlation"):
            assert quality.loc["donor4", column] < others[column].min() - 0.3
        assert quality.loc["donor4", "rmse"] > 2 * others["rmse"].max()

    def test_a_cell_type_that_the_reference_lacks(self, reference, truth):
        full = ProportionEstimator(reference, method="nnls").fit(truth @ reference).quality_
        lacking = ProportionEstimator(reference.drop("T cell"), method="nnls").fit(truth @ reference).quality_
        assert (lacking["r2"] < full["r2"]).all()
        # the more of it a sample holds, the worse
        assert np.corrcoef(truth["T cell"], lacking["r2"])[0, 1] < -0.8

    def test_wrong_proportions(self, bulk, reference, truth):
        right, wrong = (fit_quality(bulk, reference, shares) for shares in (truth, truth.to_numpy()[::-1]))
        assert right["r2"].min() > 0.85 > wrong["r2"].mean() + 0.1


class TestNoValue:
    def test_constant_sample(self, bulk, reference, truth):
        flat = bulk.copy()
        flat.loc["donor3"] = 0.1  # whose mean is not exact
        found = fit_quality(flat, reference, truth)
        assert found.loc["donor3", ["r2", "correlation"]].isna().all()
        assert np.isfinite(found.loc["donor3", ["rmse", "scale"]]).all()
        others = found.drop("donor3")
        assert_allclose(others, fit_quality(bulk, reference, truth).drop("donor3"), rtol=1e-12)  # rounding

    def test_empty_sample(self, bulk, reference, truth):
        found = fit_quality(bulk * 0, reference, truth)
        assert found[["r2", "correlation"]].isna().all(axis=None)
        assert_array_equal(found[["rmse", "scale"]], 0)

    def test_constant_mixture(self, bulk, truth):
        flat = np.full((len(CELL_TYPES), len(GENES)), 0.1)
        found = fit_quality(bulk.to_numpy(), flat, truth.to_numpy())
        assert found["correlation"].isna().all()
        assert np.isfinite(found[["r2", "rmse", "scale"]]).all(axis=None)

    def test_empty_mixture(self, bulk, truth):
        found = fit_quality(bulk.to_numpy(), np.zeros((len(CELL_TYPES), len(GENES))), truth.to_numpy())
        assert found["correlation"].isna().all()
        assert_array_equal(found["scale"], 0)
        assert_allclose(found["rmse"], np.sqrt((bulk**2).mean(axis=1)), rtol=1e-12)  # rounding


@pytest.mark.parametrize("method", ["rlm", "nnls", "nusvr"])
class TestEstimator:
    def test_of_the_fitted_samples(self, bulk, reference, method):
        fitted = ProportionEstimator(reference, method=method).fit(bulk)
        expected = fit_quality(bulk, reference, fitted.proportions_)
        pd.testing.assert_frame_equal(fitted.quality_, expected)
        pd.testing.assert_frame_equal(fitted.quality(bulk), expected, rtol=1e-12)  # batches are summed alike

    def test_of_new_samples(self, bulk, reference, method):
        fitted = ProportionEstimator(reference, method=method).fit(bulk.iloc[:8])
        before = fitted.quality_.copy()
        new = fitted.quality(bulk.iloc[8:])
        assert list(new.index) == SAMPLES[8:]
        whole = ProportionEstimator(reference, method=method).fit(bulk).quality_
        assert_allclose(new, whole.iloc[8:], rtol=1e-10)  # batches of another size
        pd.testing.assert_frame_equal(fitted.quality_, before)

    def test_on_the_shared_genes(self, bulk, reference, method):
        wide = bulk.assign(other=1e6)
        shuffled = reference.sample(frac=1, axis=1, random_state=0)
        quality = ProportionEstimator(shuffled, method=method).fit(wide).quality_
        pd.testing.assert_frame_equal(
            quality, ProportionEstimator(reference, method=method).fit(bulk).quality_
        )

    def test_learned_profiles(self, bulk, method):
        fitted = ProportionEstimator(method=method, n_components=3).fit(bulk)
        assert np.isfinite(fitted.quality_).all(axis=None)

    def test_float32(self, bulk, reference, method):
        single = ProportionEstimator(reference, method=method).fit(bulk.astype(np.float32)).quality_
        double = ProportionEstimator(reference, method=method).fit(bulk).quality_
        assert (single.dtypes == np.float64).all()
        # 1e-7 of input precision, times the condition; libsvm stops at 1e-4
        assert_allclose(single, double, rtol=1e-2 if method == "nusvr" else 1e-4)


class TestFrames:
    def test_arrays_are_numbered(self, bulk, reference, truth):
        found = fit_quality(bulk.to_numpy(), reference.to_numpy(), truth.to_numpy())
        assert list(found.index) == list(range(len(SAMPLES)))
        listed = ProportionEstimator(reference.to_numpy()).fit(bulk.to_numpy().tolist())
        assert list(listed.quality_.index) == list(range(len(SAMPLES)))

    def test_index_is_kept_as_it_is(self, bulk, reference):
        numbered = bulk.set_axis(range(100, 112))
        assert list(ProportionEstimator(reference).fit(numbered).quality_.index) == list(range(100, 112))

    def test_proportions_are_matched_by_name(self, bulk, reference, truth):
        shuffled = truth.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=1)
        expected = fit_quality(bulk, reference, truth)
        pd.testing.assert_frame_equal(fit_quality(bulk, reference, shuffled), expected)

    def test_proportions_of_a_deconvolver(self, bulk, reference):
        model = L2MaxDeconvolver(reference, tao_k=0.1, preprocess="log").fit(bulk)
        expected = ProportionEstimator(reference).fit(bulk).quality_
        pd.testing.assert_frame_equal(fit_quality(bulk, reference, model.proportions_), expected)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda table: table * 100, "do not sum to 1"),
            (lambda table: table.iloc[:5], r"do not name sample .donor5"),
            (lambda table: table.rename(columns={"T cell": "T"}), "'T cell'"),
        ],
        ids=["percentages", "rows", "names"],
    )
    def test_bad_proportions(self, bulk, reference, truth, change, message):
        with pytest.raises(ValueError, match=message):
            fit_quality(bulk, reference, change(truth))

    def test_pickles(self, bulk, reference):
        fitted = ProportionEstimator(reference).fit(bulk)
        pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(fitted)).quality_, fitted.quality_)

    def test_refit_replaces_it(self, bulk, reference):
        fitted = ProportionEstimator(reference).fit(bulk).fit(bulk.iloc[:3])
        assert len(fitted.quality_) == 3


def test_default_deconvolver_does_not_pay_for_it(bulk, reference):
    model = L2MaxDeconvolver(reference, tao_k=0.1, preprocess="log").fit(bulk)
    assert not hasattr(model.proportion_estimator_, "quality_")
