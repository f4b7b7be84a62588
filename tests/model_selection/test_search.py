"""Choice of hyper-parameters on a tuning cohort, against plain fits of every setting."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import KFold

from skenigma import L2MaxDeconvolver, L2MaxDeconvolverCV, ProportionEstimator
from skenigma.core.optimize.basis import SpanBasis
from skenigma.datasets import make_cohort
from skenigma.deconvolution import _optimised, _solving
from skenigma.deconvolution._flow import prepare
from skenigma.metrics import recovery_score, recovery_scorer, root_mean_squared_error
from skenigma.model_selection import _search, _tuning, simulate_like
from skenigma.model_selection._tuning import Split, choose, standing_for
from skenigma.reference import make_pseudobulk, make_reference

GRID = {"alphas": [0.1, 0.5], "betas": [20, 50], "renorm_sizes": [None, "auto", 60.0]}
# The same iterations; a replay and a fit differ by rounding.
SAME = {"rtol": 1e-9, "atol": 1e-11}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=32, n_genes=150, n_cell_types=4, as_frame=True, random_state=0)


@pytest.fixture(scope="module")
def model(cohort):
    return L2MaxDeconvolverCV(cohort.reference, **GRID, random_state=0).fit(cohort.bulk)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    genes = [f"gene{g}" for g in range(1, 81)]
    profiles = pd.DataFrame(rng.gamma(1.0, 5.0, (3, 80)), ["B", "NK", "T"], genes)
    labels = np.repeat(profiles.index.to_numpy(), 40)
    return pd.DataFrame(rng.poisson(profiles.loc[labels]), columns=genes), labels, profiles


def tuning_cohort(cohort, proportions):
    found = simulate_like(cohort.bulk, cohort.reference, proportions, random_state=0)
    found.estimated = ProportionEstimator(found.reference).fit_transform(found.bulk)
    return found


def plain(tuning, params, **others):
    return L2MaxDeconvolver(tuning.reference, max_iter=_search.TUNING_ITERATIONS, **params, **others)


def scaled(params, factor):
    """Parameters of :class:`L2MaxDeconvolver` for a cohort whose every sample stands for ``factor`` of them."""
    full = standing_for(factor, L2MaxDeconvolver(renorm_size=None).get_params() | params)
    return {name: value for name, value in full.items() if name not in ("reference", "max_iter")}


# What is chosen


def test_every_score_is_that_of_a_plain_fit_to_the_tuning_cohort(cohort, model):
    tuning = tuning_cohort(cohort, model.proportions_)
    results = pd.DataFrame(model.cv_results_)
    assert len(results) == 12
    for row in results.itertuples():
        fit = plain(tuning, row.params).fit(tuning.bulk, proportions=tuning.estimated)
        assert_allclose(row.mean_test_score, recovery_score(tuning.cse, fit.cse_), **SAME)
        assert (row.converged, row.n_iter) == (fit.converged_, fit.n_iter_)
    assert_array_equal(results["split0_test_score"], results["mean_test_score"])
    assert_array_equal(results["std_test_score"], 0)
    assert results["rank_test_score"].tolist() == (
        results["mean_test_score"].rank(ascending=False, method="min").astype(int).tolist()
    )
    chosen = results.iloc[model.best_index_]
    assert chosen["params"] == model.best_params_
    assert chosen["mean_test_score"] == model.best_score_
    assert [chosen[f"param_{name}"] for name in model.best_params_] == list(model.best_params_.values())
    wide = np.broadcast_to(tuning.bulk[:, None], tuning.cse.shape)
    assert_allclose(model.baseline_scores_["bulk itself"], recovery_score(tuning.cse, wide), **SAME)
    assert model.baseline_scores_["reference itself"] == 0


def test_folds_score_samples_that_were_not_fitted(cohort):
    folds, grid = KFold(3), {"alphas": [0.1], "betas": [50.0], "renorm_sizes": [None, 60.0]}
    model = L2MaxDeconvolverCV(cohort.reference, **grid, cv=folds, scoring="neg_rmse", random_state=0).fit(
        cohort.bulk
    )
    tuning = tuning_cohort(cohort, model.proportions_)
    for params, *scores in zip(
        model.cv_results_["params"],
        *(model.cv_results_[f"split{i}_test_score"] for i in range(3)),
        strict=True,
    ):
        expected = []
        for train, test in folds.split(tuning.bulk):
            fold = scaled(params, len(tuning.bulk) / len(train))
            fit = plain(tuning, fold).fit(tuning.bulk[train], proportions=tuning.estimated[train])
            found = fit.transform(tuning.bulk[test], proportions=tuning.estimated[test])
            expected.append(-root_mean_squared_error(tuning.cse[test], found.reshape(tuning.cse[test].shape)))
        assert_allclose(scores, expected, **SAME)
    assert model.n_splits_ == 3
    assert_allclose(
        model.cv_results_["std_test_score"][0], np.std([*model.cv_results_.values()][4:7], axis=0)[0]
    )


@pytest.mark.parametrize("cohort_like", ["a simulated cohort", "cells"])
def test_a_large_bulk_is_tuned_on_few_samples(cells, cohort_like, monkeypatch):
    table, labels, profiles = cells
    theta = np.random.default_rng(0).dirichlet([2, 1, 1], 2 * _search.TUNING_SAMPLES)
    bulk = pd.DataFrame(theta @ profiles.to_numpy(), columns=profiles.columns)
    fitted = []
    original = Split.solve
    monkeypatch.setattr(
        Split,
        "solve",
        lambda self, *args, **more: (
            fitted.append((self.factor, len(self.cohort.bulk))) or original(self, *args, **more)
        ),
    )
    options = {} if cohort_like != "cells" else {"cells": table, "labels": labels}
    model = L2MaxDeconvolverCV(
        profiles, alphas=[0.1], betas=[50], renorm_sizes=[None], random_state=0, **options
    )
    model.fit(bulk)
    assert fitted == [(2.0, _search.TUNING_SAMPLES)]
    assert len(model.cse_) == len(bulk)
    fitted.clear()
    model.set_params(cv=2).fit(bulk)  # folds of a cohort as large as the bulk
    assert fitted == [(2.0, _search.TUNING_SAMPLES)] * 2


@pytest.mark.parametrize(
    "params",
    [
        {"renorm_size": None, "alpha": 0.3},
        {"renorm_size": None, "tao_k": "auto", "beta": 5.0},
        {"renorm_size": 40.0, "alpha": 0.3, "beta": 20.0},
        {"renorm_size": "auto"},
        {"renorm_size": None, "solver": "accelerated", "beta": 2.0},
    ],
)
def test_a_sample_stands_for_several_like_it(params):
    """Fitted once with other parameters, or three times with these: the same iterations."""
    data = make_cohort(n_samples=12, n_genes=60, n_cell_types=3, random_state=0)
    thrice = [np.tile(table, (3, 1)) for table in (data.bulk, data.proportions)]
    many = L2MaxDeconvolver(data.reference, **params).fit(thrice[0], proportions=thrice[1])
    fixed = {"solver": "proximal", "tao_k": 1.0, "epsilon": 1e-3, "gamma": 2.0, "max_iter": 1000}
    fixed = {name: params.get(name, value) for name, value in fixed.items()}
    cohort, conversion, _ = prepare(L2MaxDeconvolver(data.reference, **fixed), data.bulk, data.proportions)
    tuning = SimpleNamespace(n_samples=36, params=fixed)
    split = Split(tuning, cohort, None)
    alpha, beta, size = params.get("alpha", 0.1), params.get("beta", 50.0), params["renorm_size"]
    if size == "auto":
        size = split.usual_size(split.solve(alpha, beta, None).gradient_norm)
        assert_allclose(size, many.renorm_size_, **SAME)
    solution = split.solve(alpha, beta, size)
    assert len(solution.loss) == many.n_iter_ > 2
    assert_allclose(conversion.values(solution.state(cohort.bulk)), many.cse_[:12], **SAME)


def test_admm_of_few_samples_has_the_same_minimum():
    """Its dual starts at the bulk, on another scale: other iterations, one minimum."""
    data = make_cohort(n_samples=12, n_genes=60, n_cell_types=3, random_state=0)
    thrice = [np.tile(table, (3, 1)) for table in (data.bulk, data.proportions)]
    options = {"solver": "admm", "epsilon": 1e-16, "max_iter": 3000, "renorm_size": None}
    many = L2MaxDeconvolver(data.reference, **options).fit(thrice[0], proportions=thrice[1])
    alone = L2MaxDeconvolver(data.reference, max_iter=3000, **scaled(options, 3.0))
    alone.fit(data.bulk, proportions=data.proportions)
    # what is left of a squared change of 1e-16
    assert_allclose(alone.cse_, many.cse_[:12], atol=1e-6)


@pytest.mark.parametrize("per", ["gene", "sample"])
def test_choice_is_near_the_best_of_the_grid(per):
    cohort = make_cohort(n_samples=60, n_genes=400, random_state=3)
    model = L2MaxDeconvolverCV(
        cohort.reference, alphas=[0.1, 0.9], betas=[20, 200], scoring=f"per_{per}", random_state=0
    ).fit(cohort.bulk)
    recoveries = []
    for params in model.cv_results_["params"]:
        fit = L2MaxDeconvolver(cohort.reference, **params).fit(cohort.bulk, proportions=model.proportions_)
        recoveries.append(recovery_score(cohort.cse, fit.cse_, per=per))
    assert recovery_score(cohort.cse, model.cse_, per=per) > 0.98 * max(recoveries)
    assert min(recoveries) < 0.95 * max(recoveries)  # there was something to choose


@pytest.mark.parametrize(
    ("scores", "converged", "best"),
    [
        ([1.0, 2.0, 1.5], [1, 1, 1], 1),
        ([1.0, 2.0, 1.5], [1, 0, 1], 1),
        ([1.0, 2.0, 1.99], [1, 0, 1], 2),
        ([-1.0, -0.5, -0.504], [0, 0, 1], 2),
        ([1.0, 2.0, np.nan], [0, 0, 0], 1),
        ([np.nan, 2.0, 2.0], [0, 1, 1], 1),
    ],
)
def test_what_converges_is_preferred_unless_clearly_worse(scores, converged, best):
    assert choose(np.array(scores), np.array(converged, dtype=bool)) == best


def test_settings_that_diverge_have_no_score(cohort):
    model = L2MaxDeconvolverCV(
        cohort.reference, alphas=[0.1, 0.9], betas=[0.0], tao_k=15.0, renorm_sizes=[None], random_state=0
    ).fit(cohort.bulk)
    assert np.isnan(model.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert model.cv_results_["rank_test_score"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="No setting has a score on the tuning cohort: each diverges"):
        clone(model).set_params(alphas=[0.9]).fit(cohort.bulk)


# What is fitted


def test_fit_is_that_of_the_choice(cohort, model):
    expected = L2MaxDeconvolver(cohort.reference, **model.best_params_).fit(cohort.bulk)
    assert_array_equal(model.cse_, expected.cse_)
    assert_array_equal(model.loss_history_, expected.loss_history_)
    assert_array_equal(model.gradient_norm_, expected.gradient_norm_)
    assert model.renorm_size_ == expected.renorm_size_
    assert_array_equal(model.transform(cohort.bulk[:3]), expected.transform(cohort.bulk[:3]))
    assert model.score(cohort.bulk) == expected.score(cohort.bulk)
    assert_array_equal(model.get_feature_names_out(), expected.get_feature_names_out())
    assert_allclose(model.transform(cohort.bulk), model.cse_.reshape(32, -1), **SAME)
    assert isinstance(model, L2MaxDeconvolver)


def test_best_estimator_is_the_same_fit_without_a_grid(cohort, model):
    estimator = model.best_estimator_
    assert type(estimator) is L2MaxDeconvolver
    assert estimator.get_params()["beta"] == model.best_params_["beta"]
    assert estimator.cse_ is model.cse_
    assert not hasattr(estimator, "cv_results_")
    assert_array_equal(estimator.transform(cohort.bulk[:3]), model.transform(cohort.bulk[:3]))
    assert_array_equal(clone(estimator).fit(cohort.bulk).cse_, model.cse_)


def test_parameters_are_those_of_the_model_and_of_the_search():
    others = L2MaxDeconvolver().get_params().keys() - {"alpha", "beta", "renorm_size"}
    parameters = L2MaxDeconvolverCV().get_params()
    assert others < parameters.keys()
    assert {name: parameters[name] for name in others} == {
        name: value for name, value in L2MaxDeconvolver().get_params().items() if name in others
    }


def test_same_choice_for_a_seed_and_any_number_of_threads(cohort, model):
    again = clone(model).set_params(n_jobs=2).fit(cohort.bulk)
    assert_array_equal(again.cv_results_["mean_test_score"], model.cv_results_["mean_test_score"])
    other = clone(model).set_params(random_state=1).fit(cohort.bulk)
    assert np.all(other.cv_results_["mean_test_score"] != model.cv_results_["mean_test_score"])


def test_basis_and_proportions_are_computed_once_per_cohort(cohort, monkeypatch):
    counts = {"basis": 0, "proportions": 0}

    class Counted(SpanBasis):
        def __init__(self, *args, **options):
            counts["basis"] += 1
            super().__init__(*args, **options)

    def estimate(self, *args, **more):
        counts["proportions"] += 1
        return original(self, *args, **more)

    original = ProportionEstimator._answer
    for module in (_solving, _tuning):
        monkeypatch.setattr(module, "SpanBasis", Counted)
    monkeypatch.setattr(ProportionEstimator, "_answer", estimate)
    L2MaxDeconvolverCV(cohort.reference, **GRID).fit(cohort.bulk)
    assert counts == {"basis": 2, "proportions": 2}


def test_a_plain_run_is_a_setting_and_finds_the_size(cohort, monkeypatch):
    runs = []
    original = _solving.solve
    for module in (_optimised, _tuning):
        monkeypatch.setattr(
            module,
            "solve",
            lambda setting, *args: runs.append(setting.renorm_size) or original(setting, *args),
        )
    grid = {**GRID, "renorm_sizes": ["auto", None]}
    model = L2MaxDeconvolverCV(cohort.reference, **grid, random_state=0).fit(cohort.bulk)
    assert model.best_params_["renorm_size"] == "auto"
    # two runs for each pair of alpha and beta, and two for the choice
    assert len(runs) == 4 * 2 + 2
    assert runs.count(None) == 4 + 1


def test_sizes_are_only_for_the_solver_that_has_them(cohort):
    model = L2MaxDeconvolverCV(cohort.reference, betas=[20, 50], alphas=[0.1], solver="admm").fit(cohort.bulk)
    assert [row["renorm_size"] for row in model.cv_results_["params"]] == [None, None]
    assert model.gamma_ == 2.0


def test_preprocess_and_compact_fits_go_through(cohort):
    bulk, reference = np.exp(cohort.bulk), np.exp(cohort.reference)
    model = L2MaxDeconvolverCV(
        reference, betas=[20, 50], alphas=[0.1], preprocess="log", materialize=False, random_state=0
    ).fit(bulk)
    fit = L2MaxDeconvolver(reference, preprocess="log", **model.best_params_).fit(bulk)
    assert_allclose(model.cell_type_expression("celltype2"), fit.cse_[:, 1], **SAME)


# Tuning cohorts


def test_given_tuning_cohort_is_matched_by_name_and_decides(cohort, model):
    tuning = tuning_cohort(cohort, model.proportions_)
    shuffled = np.random.default_rng(0).permutation(150)
    names = cohort.gene_names[shuffled]
    given = {
        "bulk": pd.DataFrame(tuning.bulk[:, shuffled], columns=names),
        "cse": tuning.cse[:, :, shuffled],
    }
    found = clone(model).set_params(tuning_cohort=given).fit(cohort.bulk)
    assert_allclose(found.cv_results_["mean_test_score"], model.cv_results_["mean_test_score"], rtol=1e-6)


def test_known_proportions_are_known_in_the_tuning_cohort_too(cohort, model):
    found = clone(model).fit(cohort.bulk, proportions=cohort.proportions)
    tuning = tuning_cohort(cohort, cohort.proportions)
    fit = plain(tuning, found.cv_results_["params"][0]).fit(
        tuning.bulk, proportions=cohort.proportions.to_numpy()
    )
    assert_allclose(found.cv_results_["mean_test_score"][0], recovery_score(tuning.cse, fit.cse_), **SAME)


def test_cells_are_mixed_in_the_proportions_found_and_scaled(cells):
    table, labels, profiles = cells
    rng = np.random.default_rng(1)
    theta = rng.dirichlet([2, 1, 1], 30)
    bulk = 7 * pd.DataFrame(theta @ profiles.to_numpy(), columns=profiles.columns).iloc[:, 5:]
    bulk *= rng.lognormal(0, 0.2, bulk.shape)
    model = L2MaxDeconvolverCV(
        7 * profiles, alphas=[0.1], betas=[50], cells=table, labels=labels, random_state=0
    ).fit(bulk)
    mixed = make_pseudobulk(
        table,
        labels,
        n_cells=_search.MIXED_CELLS,
        proportions=pd.DataFrame(model.proportions_, columns=model.cell_types_),
        reference_share=_search.REFERENCE_SHARE,
        random_state=0,
    )
    kept = bulk.columns
    scale = np.linalg.norm(bulk) / np.linalg.norm(mixed.bulk[kept])
    tuning_bulk, reference = scale * mixed.bulk[kept], scale * mixed.reference[kept]
    truth = scale * mixed.cse[:, :, 5:]
    for params, score in zip(model.cv_results_["params"], model.cv_results_["mean_test_score"], strict=True):
        fit = L2MaxDeconvolver(reference, max_iter=_search.TUNING_ITERATIONS, **params).fit(tuning_bulk)
        # a long run of oscillating steps, started from numbers scaled in another order
        assert_allclose(score, recovery_score(truth, fit.cse_), rtol=1e-6)


def test_reference_can_be_made_of_the_cells(cells):
    table, labels, _ = cells
    mixed = make_pseudobulk(table, labels, 20, random_state=0)
    model = L2MaxDeconvolverCV(alphas=[0.1], betas=[50], cells=table, labels=labels).fit(mixed.bulk)
    assert_allclose(model.reference_, make_reference(table, labels))
    assert model.cell_types_.tolist() == ["B", "NK", "T"]


def test_scoring_takes_scorers_and_functions(cohort, model):
    def closeness(cse_true, cse_pred):
        return -root_mean_squared_error(cse_true, cse_pred)

    scores = [
        clone(model).set_params(scoring=scoring).fit(cohort.bulk).cv_results_["mean_test_score"]
        for scoring in ("neg_rmse", recovery_scorer("neg_rmse"), closeness)
    ]
    assert_array_equal(scores[0], scores[1])
    assert_array_equal(scores[0], scores[2])


@pytest.mark.parametrize("folds", [False, True], ids=["differences", "folds"])
def test_simulated_cohort_resembles_the_bulk(folds):
    real = make_cohort(n_samples=400, n_genes=300, cse_noise=1.0, noise=1.0, changed=0.0, random_state=0)
    bulk, reference = real.bulk, real.reference
    if folds:
        rng = np.random.default_rng(0)
        reference = np.exp(reference)
        cse = reference * np.exp(0.5 * rng.standard_normal(real.cse.shape))
        bulk = np.einsum("jk,jkg->jg", real.proportions, cse)
        bulk *= np.exp(0.2 * rng.standard_normal(bulk.shape))
    found = simulate_like(bulk, reference, real.proportions, random_state=0)
    assert_array_equal(found.proportions, real.proportions)
    assert found.bulk.shape == bulk.shape
    assert found.cse.shape == real.cse.shape
    # 300 genes of 400 samples: the median over genes has a standard error below 1 %, but the variance of folds is
    # kept on the scale of logarithms only
    assert_allclose(np.median(found.bulk.std(0) / bulk.std(0)), 1, atol=0.1 if folds else 0.03)
    assert np.median(np.abs(found.bulk.mean(0) - bulk.mean(0)) / bulk.std(0)) < (0.25 if folds else 0.1)
    assert_allclose(np.median(found.cse.std(0)), np.median(cse.std(0)) if folds else 1, rtol=0.15)
    assert (found.cse.min() >= 0) == folds


def test_simulation_keeps_what_genes_do_together():
    rng = np.random.default_rng(0)
    cohort = make_cohort(n_samples=300, n_genes=40, changed=0, random_state=0)
    cohort.bulk[:, :20] += 3 * rng.standard_normal((300, 1))
    found = simulate_like(cohort.bulk, cohort.reference, cohort.proportions, random_state=0)
    for table in (found.bulk, *found.cse.swapaxes(0, 1)):
        together = np.corrcoef(table.T)
        assert together[:20, :20].mean() > 0.7
        assert abs(together[:20, 20:].mean()) < 0.1


def test_simulation_where_the_bulk_cannot_tell():
    reference = np.eye(3, 5)
    equal = np.full((6, 3), 1 / 3)
    bulk = equal @ reference - 0.1 * np.random.default_rng(0).standard_normal((6, 5))
    assert_array_equal(simulate_like(bulk, reference, equal).own_share, 0.5)
    assert np.isfinite(simulate_like(0 * bulk, 0 * reference, equal).cse).all()


# Bad input


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alphas": []}, "alphas is empty"),
        ({"renorm_sizes": []}, "renorm_sizes is empty"),
        ({"alphas": [0.1, 2.0]}, "'alpha' parameter of L2MaxDeconvolver must be a float in the range"),
        ({"renorm_sizes": ["none"]}, "'renorm_size' parameter of L2MaxDeconvolver"),
        ({"cells": np.ones((4, 150))}, "cells need labels"),
        ({"tuning_cohort": {"bulk": np.ones((4, 150))}}, "tuning_cohort has no cse"),
        (
            {"tuning_cohort": {"bulk": np.ones((4, 150)), "cse": np.ones((4, 3, 150))}},
            r"cse has shape \(4, 3, 150\), but its bulk and reference need \(4, 4, 150\)",
        ),
        ({"scoring": "recall"}, "'scoring' parameter of L2MaxDeconvolverCV"),
    ],
)
def test_bad_parameters(cohort, params, message):
    with pytest.raises(ValueError, match=message):
        L2MaxDeconvolverCV(cohort.reference, **params).fit(cohort.bulk)


def test_cells_of_other_genes_are_refused(cohort):
    cells = pd.DataFrame(np.ones((80, 3)), columns=["a", "b", "c"])
    labels = np.repeat(cohort.cell_types, 20)
    with pytest.raises(ValueError, match="cells share no gene with X and the reference"):
        L2MaxDeconvolverCV(cohort.reference, cells=cells, labels=labels).fit(cohort.bulk)


def test_bad_tables_for_a_simulation():
    with pytest.raises(ValueError, match=r"X has 3 genes.*, but reference has 5"):
        simulate_like(np.ones((4, 3)), np.ones((2, 5)), np.full((4, 2), 0.5))
    with pytest.raises(ValueError, match="do not sum to 1"):
        simulate_like(np.ones((4, 3)), np.ones((2, 3)), np.ones((4, 2)))
