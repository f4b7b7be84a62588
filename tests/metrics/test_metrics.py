"""Measures of recovery, against SciPy, the formulas, and the recorded values of the original."""

import json
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skenigma import L2MaxDeconvolver
from skenigma.datasets import make_cohort
from skenigma.metrics import (
    _expression,
    concordance,
    detection_auprc,
    detection_average_precision,
    per_gene_correlation,
    per_sample_correlation,
    recovery_score,
    recovery_scorer,
    root_mean_squared_error,
)

CORRELATIONS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}
METHODS = pytest.mark.parametrize("method", CORRELATIONS)


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((7, 3, 11))
    # rounded, so that ranks are tied
    return truth, np.round(truth + rng.standard_normal(truth.shape), 1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one gene or sample, and a last one that is not full."""
    monkeypatch.setattr(_expression, "BLOCK_SIZE", 50)


# Correlations


@METHODS
@pytest.mark.parametrize("block_size", [1, 50, 2**20])
def test_correlations_are_those_of_scipy(tensors, method, block_size, monkeypatch):
    monkeypatch.setattr(_expression, "BLOCK_SIZE", block_size)
    truth, estimate = tensors
    correlate = CORRELATIONS[method]
    n_samples, n_cell_types, n_genes = truth.shape
    per_gene = [
        [correlate(truth[:, k, g], estimate[:, k, g]).statistic for g in range(n_genes)]
        for k in range(n_cell_types)
    ]
    per_sample = [
        [correlate(truth[j, k], estimate[j, k]).statistic for k in range(n_cell_types)]
        for j in range(n_samples)
    ]
    # sums of a dozen numbers, in another order
    assert_allclose(per_gene_correlation(truth, estimate, method=method), per_gene, rtol=1e-12, atol=1e-14)
    assert_allclose(
        per_sample_correlation(truth, estimate, method=method), per_sample, rtol=1e-12, atol=1e-14
    )


@METHODS
def test_what_does_not_vary_correlates_to_nan(tensors, method):
    truth, estimate = tensors
    estimate[:, 1, 4] = 0.1 + 0.2
    truth[:, 2, 0] = 7
    estimate[3, 0] = -1.5
    per_gene = per_gene_correlation(truth, estimate, method=method)
    assert np.argwhere(np.isnan(per_gene)).tolist() == [[1, 4], [2, 0]]
    per_sample = per_sample_correlation(truth, estimate, method=method)
    assert np.argwhere(np.isnan(per_sample)).tolist() == [[3, 0]]


@METHODS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_no_variation(tensors, method, dtype):
    truth, estimate = (tensor.astype(dtype) for tensor in tensors)
    noise = np.where(np.arange(len(truth)) % 2, 1 + np.finfo(dtype).eps, 1)
    estimate[:, 0, 0] = 3 * noise
    assert np.isnan(per_gene_correlation(truth, estimate, method=method)[0, 0])
    estimate[:, 0, 0] = 3 + 100 * (noise - 1)  # small, but far above rounding
    assert abs(per_gene_correlation(truth, estimate, method=method)[0, 0]) > 0


def test_correlation_ignores_scale_and_offset_and_stays_within_one(tensors):
    truth, _ = tensors
    for function in (per_gene_correlation, per_sample_correlation):
        found = function(truth, 1e6 + 3 * truth)
        assert_allclose(found, 1, rtol=1e-9)  # of 1e6, ten digits are left
        assert found.max() <= 1
        assert_allclose(function(truth, -truth), -1, rtol=1e-14)


def test_integers_and_lists_are_taken():
    truth = np.arange(24).reshape(4, 2, 3) ** 2
    found = per_gene_correlation(truth.tolist(), truth)
    assert_allclose(found, 1, rtol=1e-14)


def test_no_temporary_of_the_size_of_the_tensor():
    shape = (100, 5, 20_000)
    truth = np.broadcast_to(np.random.default_rng(0).standard_normal((100, 1, 20_000)), shape)
    estimate = np.broadcast_to(truth[:, :1], shape)
    for function in (
        per_gene_correlation,
        per_sample_correlation,
        root_mean_squared_error,
        recovery_score,
    ):
        tracemalloc.start()
        function(truth, estimate)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < np.prod(shape) * 8 / 4


# Errors and means


def test_errors_by_their_formula(tensors, small_blocks):
    truth, estimate = tensors
    squares = (truth - estimate) ** 2
    assert_allclose(root_mean_squared_error(truth, estimate), np.sqrt(squares.mean()), rtol=1e-13)
    assert_allclose(
        root_mean_squared_error(truth, estimate, per="gene"), np.sqrt(squares.mean(0)), rtol=1e-13
    )
    assert_allclose(
        root_mean_squared_error(truth, estimate, per="sample"), np.sqrt(squares.mean(2)), rtol=1e-13
    )


@pytest.mark.parametrize(("per", "axis"), [("gene", 0), ("sample", 2)])
def test_mean_says_what_an_undefined_correlation_counts_for(tensors, per, axis):
    truth, estimate = tensors
    (estimate[:, 1, 4], truth[:, 2, 0]) = (0, 0)
    (estimate[1, 1], truth[0, 2]) = (0, 0)
    function = per_gene_correlation if per == "gene" else per_sample_correlation
    found = function(truth, estimate)
    asked = found[truth.std(axis=axis) > 0]
    assert asked.size == found.size - 1
    assert np.isnan(asked).sum() == 1
    assert_allclose(recovery_score(truth, estimate, per=per), np.nansum(asked) / asked.size, rtol=1e-13)
    assert_allclose(recovery_score(truth, estimate, per=per, undefined="omit"), np.nanmean(asked), rtol=1e-13)
    assert np.isnan(recovery_score(truth, estimate, per=per, undefined="nan"))


def test_mean_of_nothing_is_nan(tensors):
    truth, estimate = tensors
    for undefined in ("zero", "omit", "nan"):
        assert np.isnan(recovery_score(np.zeros_like(truth), estimate, undefined=undefined))


def test_concordance_by_its_formula():
    rng = np.random.default_rng(0)
    truth, estimate = rng.dirichlet([1, 2, 3], 30), rng.dirichlet([1, 2, 3], 30)
    expected = []
    for x, y in zip(truth.T, estimate.T, strict=True):
        covariance = np.cov(x, y, ddof=0)
        expected.append(2 * covariance[0, 1] / (np.trace(covariance) + (x.mean() - y.mean()) ** 2))
    assert_allclose(concordance(truth, estimate), expected, rtol=1e-12)
    assert_allclose(concordance(truth, truth), 1, rtol=1e-14)


def test_concordance_of_constants():
    truth, constant = np.array([[0.2], [0.4]]), np.full((2, 1), 0.3)
    assert_array_equal(concordance(truth, constant), [0])
    assert np.isnan(concordance(constant, constant)[0])


def test_concordance_matches_frames_by_name():
    truth = pd.DataFrame([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], ["a", "b", "c"], ["B", "T"])
    assert_allclose(concordance(truth, truth.iloc[::-1, ::-1]), 1, rtol=1e-14)
    with pytest.raises(ValueError, match="columns of proportions_pred do not name cell type 'T'"):
        concordance(truth, truth.rename(columns={"T": "NK"}))
    with pytest.raises(ValueError, match=r"rows of proportions_pred name samples that .* not have: 'd'"):
        concordance(truth, pd.concat([truth, truth.loc[["a"]].rename(index={"a": "d"})]))
    assert_allclose(concordance(truth, truth.reset_index(drop=True)), 1, rtol=1e-14)


# Detection


def recorded_runs(vignette):
    return json.loads(vignette.path("manifest.json").read_text())["runs"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pval", "qval"])
def test_area_of_every_recorded_run(vignette, kind):
    truth = pd.read_csv(vignette.path("deg_truth.csv.gz"))
    changed = np.zeros((5, 1000))
    changed[truth["cell_type"].str[-1].astype(int) - 1, truth["gene_index0"]] = truth["sign"]
    with np.load(vignette.path("auprc_runif_seed1.npz")) as arrays:
        levels = arrays["runif"]
    for name, run in recorded_runs(vignette).items():
        found = vignette.run(name)
        area = detection_auprc(changed, found[f"deg_{kind}"], found["deg_effect"], levels=levels)
        expected = np.array(run["deg"][f"auprc_{kind}"], dtype=float)
        # 15 digits are recorded, of sums of up to 10,000 terms
        assert_allclose(area, expected, rtol=1e-11, err_msg=name)


def plain_area(changed, p_values, effect, levels):
    """The original's definition, threshold by threshold."""
    points = []
    for threshold in np.unique(np.quantile(p_values, levels)):
        called = p_values < threshold
        right = called & (np.sign(effect) == changed) & (changed != 0)
        points.append((right.sum() / np.sum(changed != 0), right.sum() / called.sum()))
    recall, precision = np.array(points).T
    return np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2)


def test_area_by_its_definition():
    rng = np.random.default_rng(0)
    changed = np.sign(rng.integers(-3, 4, (2, 40))) * (rng.uniform(size=(2, 40)) < 0.4)
    effect = changed + rng.standard_normal((2, 40))
    p_values = stats.norm.sf(np.abs(effect))
    levels = rng.uniform(0.05, 1, size=300)
    expected = [plain_area(*rows, levels) for rows in zip(changed, p_values, effect, strict=True)]
    assert_allclose(detection_auprc(changed, p_values, effect, levels=levels), expected, rtol=1e-12)


def test_area_with_drawn_levels_is_reproducible_and_near_the_average_precision():
    rng = np.random.default_rng(0)
    changed = np.sign(rng.standard_normal((3, 2000))) * (rng.uniform(size=(3, 2000)) < 0.1)
    effect = 3 * changed + rng.standard_normal((3, 2000))
    p_values = stats.norm.sf(np.abs(effect))
    first, second, other = (
        detection_auprc(changed, p_values, effect, random_state=seed) for seed in (0, 0, 1)
    )
    assert_array_equal(first, second)
    assert np.all(first != other)
    assert_allclose(first, detection_average_precision(changed, -p_values, effect), atol=0.02)


def test_untested_genes_are_never_called():
    changed = np.array([[1, -1, 0, 0, 1]])
    p_values, effect = np.array([[0.01, 0.02, 0.6, 0.7, np.nan]]), np.array([[1, -1, 1, 1, np.nan]])
    levels = [0.2, 0.5, 1.0]
    # 1 of 1, 2 of 2, 2 of 3 called genes are right, of 3 that changed
    assert_allclose(detection_auprc(changed, p_values, effect, levels=levels), [1 / 3], rtol=1e-14)
    assert_allclose(
        detection_average_precision(changed, -p_values, effect), [(1 / 1 + 2 / 2) / 3], rtol=1e-14
    )
    assert_allclose(
        detection_average_precision(changed, -p_values), [(1 / 1 + 2 / 2 + 3 / 5) / 3], rtol=1e-14
    )


def test_area_is_nan_where_the_smallest_threshold_calls_nothing():
    area = detection_auprc([[1, 1, 0], [1, 1, 0]], [[0.1, 0.1, 0.5], [0.1, 0.2, 0.5]], np.ones((2, 3)))
    assert np.isnan(area).tolist() == [True, False]


def test_nothing_changed_or_nothing_tested_is_nan():
    ones = np.ones((1, 3))
    assert np.isnan(detection_auprc(0 * ones, 0.1 * ones, ones)).all()
    assert np.isnan(detection_auprc(ones, np.nan * ones, ones)).all()
    assert np.isnan(detection_average_precision(0 * ones, ones)).all()


def test_average_precision_counts_wrong_directions_against():
    changed, scores = np.array([[1, -1, 0, 1]]), np.array([[4, 3, 2, 1]])
    assert_allclose(detection_average_precision(changed, scores), [(1 + 2 / 2 + 3 / 4) / 3])
    effect = np.array([[1, 1, 1, 1]])
    assert_allclose(detection_average_precision(changed, scores, effect), [(1 + 2 / 4) / 3])
    assert_array_equal(detection_average_precision(changed, scores, -changed), [0])


def test_detection_matches_frames_by_name():
    changed = pd.DataFrame([[1, -1, 0, 0]], ["B"], ["a", "b", "c", "d"])
    t = pd.DataFrame([[0.5, 1.0, -2.0, 3.0]], ["B"], ["d", "c", "b", "a"])
    assert_array_equal(detection_average_precision(changed, t.abs(), t), [1])


# Scorers


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=40, n_genes=200, as_frame=True, random_state=0)


@pytest.fixture(scope="module")
def model(cohort):
    return L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)


@pytest.mark.parametrize("kind", ["per_gene", "per_sample", "neg_rmse"])
def test_scorer_scores_what_transform_returns(cohort, model, kind):
    found = model.transform(cohort.bulk).reshape(cohort.cse.shape)
    expected = {
        "per_gene": recovery_score(cohort.cse, found, method="spearman"),
        "per_sample": recovery_score(cohort.cse, found, per="sample", method="spearman"),
        "neg_rmse": -root_mean_squared_error(cohort.cse, found),
    }
    scorer = recovery_scorer(kind, method="spearman")
    assert_allclose(scorer(model, cohort.bulk, cohort.cse), expected[kind], rtol=1e-12)
    # sums over another memory layout go in another order
    flat = scorer(model, cohort.bulk, cohort.cse.reshape(40, -1))
    assert_allclose(flat, expected[kind], rtol=1e-12)


def test_scorer_matches_named_truth_by_name(cohort, model):
    truth = pd.DataFrame(cohort.cse.reshape(40, -1), columns=model.get_feature_names_out())
    scorer = recovery_scorer()
    expected = scorer(model, cohort.bulk, cohort.cse)
    assert_allclose(scorer(model, cohort.bulk, truth.iloc[:, ::-1]), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="y does not name 'celltype1:gene1' of what transform returns"):
        scorer(model, cohort.bulk, truth.iloc[:, 1:])


def test_scorer_follows_a_pipeline_and_frames(cohort):
    model = L2MaxDeconvolver(cohort.reference, renorm_size=None)
    pipeline = make_pipeline(FunctionTransformer(feature_names_out="one-to-one"), model)
    plain = recovery_scorer()(pipeline.fit(cohort.bulk), cohort.bulk, cohort.cse)
    framed = pipeline.set_output(transform="pandas").fit(cohort.bulk)
    assert_allclose(recovery_scorer()(framed, cohort.bulk, cohort.cse), plain, rtol=1e-12)


@pytest.mark.parametrize("flat", [False, True], ids=["tensor", "flat"])
def test_scorer_searches_a_grid(cohort, flat):
    truth = cohort.cse.reshape(40, -1) if flat else cohort.cse
    model = L2MaxDeconvolver(cohort.reference, renorm_size=None)
    search = GridSearchCV(model, {"alpha": [0.1, 0.9]}, scoring=recovery_scorer(), cv=2)
    search.fit(cohort.bulk, truth)
    expected = cross_val_score(
        model.set_params(alpha=0.9), cohort.bulk, truth, scoring=recovery_scorer(), cv=2
    )
    assert_allclose(search.cv_results_["mean_test_score"][1], expected.mean(), rtol=1e-12)
    assert search.best_params_ == {"alpha": 0.1}


def test_scorer_can_be_pickled_and_shows_itself():
    scorer = recovery_scorer("per_sample", method="spearman", undefined="omit")
    assert repr(scorer) == "recovery_scorer('per_sample', method='spearman', undefined='omit')"
    assert repr(pickle.loads(pickle.dumps(scorer))) == repr(scorer)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: per_gene_correlation(t[0], t[0]),
            r"cse_true has shape \(3, 11\); samples × cell types × genes",
        ),
        (lambda t: per_sample_correlation(t, t[:, :2]), r"cse_pred \(7, 2, 11\).*must be equal"),
        (
            lambda t: root_mean_squared_error(t, np.where(t > 2, np.nan, t)),
            r"cse_pred is not finite in .* place\(s\): \(",
        ),
        (lambda t: per_gene_correlation(np.where(t > 2, np.inf, t), t), "cse_true is not finite"),
        (lambda t: per_gene_correlation(t, t, method="kendall"), "method='kendall' is not one of 'pearson'"),
        (lambda t: root_mean_squared_error(t, t, per="genes"), "per='genes' is not one of None"),
        (lambda t: recovery_score(t, t, undefined="drop"), "undefined='drop' is not one of 'zero'"),
        (lambda t: recovery_scorer("rmse"), "kind='rmse' is not one of 'per_gene'"),
        (lambda t: concordance(t[0], t[0, :2]), r"proportions_pred \(2, 11\): they must be equal"),
        (
            lambda t: concordance(t[0], t[0] + np.nan),
            r"proportions_pred is not finite in 33 place\(s\): \(0, 0\)",
        ),
        (
            lambda t: detection_auprc(t[0], t[0], t[0]),
            "changed must hold 1, -1 and 0 only, but it holds",
        ),
        (
            lambda t: detection_auprc(np.sign(t[0]), t[0], t[0], levels=[0.5, 1.5]),
            "levels must lie between 0 and 1",
        ),
    ],
)
def test_bad_input(tensors, call, message):
    with pytest.raises(ValueError, match=message):
        call(tensors[0])
