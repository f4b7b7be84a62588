"""L2MaxDeconvolver beyond the published run: replay, composition, options, kinds of input, hard cases."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.core.optimize import states
from skenigma.datasets import make_cohort
from skenigma.deconvolution import _predict, _solving
from tests.deconvolution.support import NamedOracle, Oracle, Recorder, assert_close, objective

N_SAMPLES, N_GENES = 40, 60
CELL_TYPES = ["B cell", "monocyte", "T cell"]
GENES = [f"gene{i}" for i in range(N_GENES)]
SAMPLES = [f"donor{j}" for j in range(N_SAMPLES)]
RENORM_SIZES = [None, 20.0, "auto"]

silent_about_convergence = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def reference():
    """Profiles of about the size of log-expression, so that the published settings suit them."""
    values = np.random.default_rng(0).gamma(2, 1, (len(CELL_TYPES), N_GENES))
    return pd.DataFrame(values, index=CELL_TYPES, columns=GENES)


@pytest.fixture(scope="module")
def theta():
    values = np.random.default_rng(1).dirichlet(np.full(len(CELL_TYPES), 4.0), N_SAMPLES)
    return pd.DataFrame(values, index=SAMPLES, columns=CELL_TYPES)


@pytest.fixture(scope="module")
def phenotype():
    return np.repeat([0, 1], N_SAMPLES // 2)


@pytest.fixture(scope="module")
def bulk(reference, theta, phenotype):
    """Non-negative; the T cells of the second half of the samples express a few genes more."""
    changed = np.zeros(N_GENES)
    changed[:20] = 3.0
    noise = np.random.default_rng(2).gamma(2, 0.1, (N_SAMPLES, N_GENES))
    effect = np.outer(theta["T cell"] * phenotype, changed)
    return theta @ reference + effect + noise


@pytest.fixture(scope="module")
def expected(bulk, reference):
    """What :func:`model` makes of the cohort."""
    return model(reference.to_numpy()).fit_transform(bulk.to_numpy())


def model(reference, **parameters):
    return L2MaxDeconvolver(reference, **{"renorm_size": 20.0, **parameters})


def plain_iteration(X, R, proportions, *, alpha=0.1, beta=50.0, step=1.0, renorm_size=None, epsilon=1e-3):
    """Textbook form of the published iteration on the full tensor, for comparison.

    Returns the expression that went into the last evaluation, and the number of evaluations.
    """
    P = np.repeat(X[:, None, :], len(R), axis=1)
    for evaluation in range(1, 1001):
        misfit = np.einsum("jk,jkg->jg", proportions, P) - X
        first = 2 * proportions[:, :, None] * misfit[:, None, :]
        second = np.broadcast_to(2 / len(X) * (P.mean(axis=0) - R), P.shape)
        if renorm_size is not None:
            size = np.linalg.norm(first)
            first = first * (0 if size < 1e-11 * np.linalg.norm(X) else renorm_size / size)
            second = second * (renorm_size / np.linalg.norm(second))
        proposal = squashed(P - step * (alpha * first + (1 - alpha) * second), step * beta)
        if np.max(np.sum((proposal - P) ** 2, axis=(0, 2))) < epsilon:
            return P, evaluation
        P = proposal
    raise AssertionError("the comparison did not converge")


def squashed(V, weight):
    lengths = np.linalg.norm(V, axis=2)
    cut = V.copy()
    for k, norms in enumerate(lengths.T):
        descending = np.sort(norms)[::-1]
        caps = np.cumsum(descending) / (np.arange(1, len(norms) + 1) + weight)
        cap = caps[np.flatnonzero(descending >= caps)[-1]]
        cut[:, k] *= np.minimum(1, cap / norms)[:, None]
    return cut


class TestPlainIteration:
    @pytest.mark.parametrize(
        ("alpha", "beta", "step", "renorm_size"),
        [
            (0.1, 50.0, 1.0, None),
            (0.1, 50.0, 1.0, 20.0),
            (0.5, 5.0, 0.5, None),
            (0.5, 5.0, 0.5, 20.0),
            (0.0, 1.0, 1.0, None),
            (1.0, 1.0, 1.0, None),
        ],
    )
    def test_same_numbers(self, bulk, reference, theta, alpha, beta, step, renorm_size):
        settings = {"alpha": alpha, "beta": beta, "renorm_size": renorm_size}
        expected, n_iter = plain_iteration(
            bulk.to_numpy(), reference.to_numpy(), theta.to_numpy(), step=step, **settings
        )
        fitted = L2MaxDeconvolver(reference, tao_k=step, positive=False, **settings).fit(
            bulk, proportions=theta
        )
        assert fitted.n_iter_ == n_iter
        assert_close(fitted.cse_, expected)

    def test_histories_describe_the_iterates(self, bulk, reference, theta):
        fitted = model(reference, positive=False).fit(bulk, proportions=theta)
        P = fitted.cse_
        misfit = np.einsum("jk,jkg->jg", theta, P) - bulk.to_numpy()
        losses = [
            np.sum(misfit**2),
            np.sum((P - reference.to_numpy()) ** 2),
            np.sum(np.max(np.sum(P**2, axis=2), axis=0)),
        ]
        assert_allclose(fitted.loss_history_[-1], losses, rtol=1e-10)  # rounding
        assert len(fitted.gradient_norm_) == fitted.n_iter_ - 1 == len(fitted.delta_history_) - 1
        assert fitted.delta_history_[-1].max() < fitted.epsilon <= fitted.delta_history_[-2].max()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"renorm_size": None},
        {"renorm_size": "auto"},
        {"renorm_size": None, "tao_k": "auto", "beta": 1.0},
        {"preprocess": "sqrt"},
        {"preprocess": "log"},
        {"positive": True},
        {"positive": False},
        {"normalize": "frac"},
        {"normalize": "frac", "preprocess": "log"},
        {"normalize": "pc"},
        {"normalize": "quantile"},
        {"proportion_estimator": ProportionEstimator(method="nnls")},
        {"reference": None, "n_components": 3},
    ],
    ids=str,
)
class TestReplay:
    """``transform`` repeats the fit row by row: all that cross-validation relies on."""

    @pytest.fixture
    def fitted(self, parameters, bulk, reference):
        return model(**{"reference": reference, **parameters}).fit(bulk)

    def test_fit_transform_equals_fit_then_transform(self, fitted, bulk):
        assert_close(clone(fitted).fit_transform(bulk), fitted.transform(bulk))

    def test_transform_returns_the_stored_tensor(self, fitted, bulk):
        stored = fitted.cse_ if fitted.normalize is None else fitted.cse_normalized_
        assert_close(fitted.transform(bulk).reshape(stored.shape), stored)

    def test_rows_do_not_see_each_other(self, fitted, bulk):
        whole = fitted.transform(bulk)
        rows = [17, 3, 30, 8]
        assert_close(fitted.transform(bulk.iloc[rows]), whole[rows])
        assert_close(fitted.transform(bulk.iloc[[5]]), whole[[5]])

    def test_unseen_rows_do_not_depend_on_their_company(self, fitted, bulk):
        fitted = clone(fitted).fit(bulk.iloc[:30])
        together = fitted.transform(bulk.iloc[25:])
        alone = np.vstack([fitted.transform(bulk.iloc[[j]]) for j in range(25, N_SAMPLES)])
        assert np.isfinite(together).all()
        assert_close(alone, together)

    def test_pickled_copy_gives_the_same(self, fitted, bulk):
        assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(bulk), fitted.transform(bulk))

    def test_nothing_changes_the_fitted_estimator(self, fitted, bulk):
        before = joblib.hash(fitted.__dict__)
        fitted.transform(bulk.iloc[:7])[:] = np.nan
        fitted.score(bulk.iloc[3:9])
        fitted.get_feature_names_out()
        assert joblib.hash(fitted.__dict__) == before

    def test_input_is_not_changed(self, fitted, bulk):
        X = bulk.to_numpy(copy=True)
        before = X.copy()
        again = clone(fitted).set_params(reference=fitted.reference_.copy())
        again.fit_transform(X)
        again.transform(X)
        again.score(X)
        assert_array_equal(X, before)
        assert_array_equal(again.reference, fitted.reference_)


def arrays_in(thing, seen=None):
    """Every array held by an object, however deep."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, pd.DataFrame):
        yield thing.to_numpy()
    elif isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from arrays_in(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from arrays_in(value, seen)
    elif hasattr(thing, "__dict__"):
        yield from arrays_in(vars(thing), seen)


@pytest.mark.parametrize("renorm_size", RENORM_SIZES)
def test_bulk_is_not_stored(bulk, reference, renorm_size):
    X = bulk.to_numpy()
    fitted = model(reference, renorm_size=renorm_size).fit(bulk)
    held = [
        array for array in arrays_in(fitted) if array.shape[-1:] == (N_GENES,) and array.dtype.kind == "f"
    ]
    assert any(np.shares_memory(array, fitted.cse_) for array in held)  # the walk finds what there is
    rows = np.vstack([array.reshape(-1, N_GENES) for array in held])
    for sample in X:
        assert np.abs(rows - sample).max(axis=1).min() > 1e-6 * np.abs(sample).max()


class TestComposition:
    def test_grid_search_scores_held_out_rows(self, bulk, reference):
        sizes, folds = [None, 10.0, 20.0], KFold(4)
        search = GridSearchCV(model(reference), {"renorm_size": sizes}, cv=folds, refit=False).fit(bulk)
        for size, mean in zip(sizes, search.cv_results_["mean_test_score"], strict=True):
            by_hand = [
                model(reference, renorm_size=size).fit(bulk.iloc[train]).score(bulk.iloc[test])
                for train, test in folds.split(bulk)
            ]
            assert mean == pytest.approx(np.mean(by_hand), rel=1e-10)  # rounding
        assert len(set(search.cv_results_["mean_test_score"])) == len(sizes)

    def test_grid_search_in_a_pipeline(self, bulk, reference, phenotype):
        pipeline = make_pipeline(model(reference), StandardScaler(), LogisticRegression(max_iter=1000))
        order = np.random.default_rng(0).permutation(N_SAMPLES)
        search = GridSearchCV(pipeline, {"l2maxdeconvolver__renorm_size": RENORM_SIZES}, cv=4)
        search.fit(bulk.iloc[order], phenotype[order])
        assert search.best_score_ > 0.8  # chance is 0.5; the effect is plain in the bulk itself

    @pytest.mark.slow
    def test_held_out_scores_of_a_random_phenotype_are_at_chance(self, bulk, reference):
        """Nothing of the held-out rows leaks into the features."""
        pipeline = make_pipeline(model(reference), StandardScaler(), LogisticRegression(max_iter=1000))
        rng = np.random.default_rng(0)
        labels = [rng.permutation(N_SAMPLES) % 2 for _ in range(10)]
        scores = [cross_val_score(pipeline, bulk, label, cv=5).mean() for label in labels]
        # ten means of 40 guesses: their standard error is 0.025, more as folds are not independent
        assert abs(np.mean(scores) - 0.5) < 0.15

    def test_proportions_are_routed_through_a_pipeline(self, bulk, reference, theta, phenotype):
        with sklearn.config_context(enable_metadata_routing=True):
            step = model(reference).set_fit_request(proportions=True).set_transform_request(proportions=True)
            pipeline = make_pipeline(step, StandardScaler(), LogisticRegression(max_iter=1000))
            pipeline.fit(bulk, phenotype, proportions=theta)
            probability = pipeline.predict_proba(bulk.iloc[:9], proportions=theta.iloc[:9])
            without = pipeline.predict_proba(bulk.iloc[:9])
        assert_array_equal(pipeline[0].proportions_, theta)
        by_hand = pipeline[0].transform(bulk.iloc[:9], proportions=theta.iloc[:9])
        assert_close(probability, pipeline[1:].predict_proba(by_hand))
        assert not np.allclose(probability, without)

    def test_proportions_are_sliced_in_grid_search(self, bulk, reference, theta):
        folds = KFold(3)
        with sklearn.config_context(enable_metadata_routing=True):
            step = model(reference).set_fit_request(proportions=True).set_score_request(proportions=True)
            search = GridSearchCV(step, {"renorm_size": [20.0]}, cv=folds, refit=False)
            search.fit(bulk, proportions=theta.to_numpy())
        by_hand = [
            model(reference)
            .fit(bulk.iloc[train], proportions=theta.iloc[train])
            .score(bulk.iloc[test], proportions=theta.iloc[test])
            for train, test in folds.split(bulk)
        ]
        (mean,) = search.cv_results_["mean_test_score"]
        assert mean == pytest.approx(np.mean(by_hand), rel=1e-10)  # rounding

    def test_pipeline_without_routing_estimates_them(self, bulk, reference, phenotype):
        pipeline = make_pipeline(model(reference), LogisticRegression(max_iter=1000)).fit(bulk, phenotype)
        assert_array_equal(pipeline[0].proportions_, ProportionEstimator(reference).fit_transform(bulk))

    def test_feature_names_out(self, bulk, reference):
        fitted = model(reference).set_output(transform="pandas").fit(bulk)
        frame = fitted.transform(bulk)
        names = [f"{cell_type}:{gene}" for cell_type in CELL_TYPES for gene in GENES]
        assert list(frame.columns) == list(fitted.get_feature_names_out()) == names
        assert list(frame.index) == SAMPLES
        assert_close(frame["monocyte:gene7"], fitted.cse_[:, 1, 7])

    def test_feature_names_out_of_shared_genes(self, bulk, reference):
        fitted = model(reference[["gene9", "gene2", "gene30", "gene1"]]).fit(bulk)
        expected = [f"{cell_type}:gene{i}" for cell_type in CELL_TYPES for i in (1, 2, 9, 30)]
        assert list(fitted.get_feature_names_out()) == expected
        assert list(fitted.get_feature_names_out(GENES)) == expected

    def test_feature_names_out_without_names(self, bulk, reference):
        fitted = model(reference.to_numpy()).fit(bulk.to_numpy())
        assert list(fitted.get_feature_names_out()[[0, N_GENES]]) == ["celltype0:x0", "celltype1:x0"]
        given = fitted.get_feature_names_out(GENES)
        assert list(given[[0, N_GENES]]) == ["celltype0:gene0", "celltype1:gene0"]
        with pytest.raises(ValueError, match="input_features should have length equal"):
            fitted.get_feature_names_out(GENES[1:])

    def test_clone_is_unfitted_and_alike(self, bulk, reference):
        copy = clone(model(reference).fit(bulk))
        assert not hasattr(copy, "cse_")
        assert copy.renorm_size == 20.0


class TestScore:
    @pytest.mark.parametrize("preprocess", [None, "sqrt"])
    def test_is_minus_the_objective_per_entry(self, bulk, reference, theta, preprocess):
        scale = {None: lambda values: values, "sqrt": np.sqrt}[preprocess]
        X, R = scale(bulk.to_numpy()), scale(reference.to_numpy())
        P, _ = plain_iteration(X, R, theta.to_numpy(), alpha=0.3, beta=20.0)
        fitted = model(reference, renorm_size=None, alpha=0.3, beta=20.0, preprocess=preprocess)
        score = fitted.fit(bulk, proportions=theta).score(bulk, proportions=theta)
        expected = -objective(P, X, R, theta.to_numpy(), 0.3, 20.0) / X.size
        assert score == pytest.approx(expected, rel=1e-10)  # rounding

    def test_estimates_proportions_where_none_are_given(self, bulk, reference):
        fitted = model(reference).fit(bulk)
        shares = ProportionEstimator(reference).fit_transform(bulk)
        assert fitted.score(bulk) == fitted.score(bulk, proportions=shares)

    def test_rises_with_every_iteration(self, bulk, reference):
        """Larger is better: proximal-gradient steps of a safe length never raise F."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = [
                model(reference, renorm_size=None, tao_k="auto", beta=0.01, max_iter=count, positive=False)
                .fit(bulk)
                .score(bulk)
                for count in (1, 2, 3, 5, 10, 100)
            ]
        assert scores == sorted(scores)
        assert scores[-1] > scores[0]

    def test_agrees_between_step_lengths_at_the_optimum(self, bulk, reference):
        scores = [
            model(reference, renorm_size=None, tao_k=step, beta=10.0, epsilon=1e-16).fit(bulk).score(bulk)
            for step in (1.0, 3.0, 6.0)
        ]
        assert_allclose(scores, scores[0], rtol=1e-10)  # the optimum is flat: 1e-8 off in P is far less in F

    def test_held_out_rows_only(self, bulk, reference):
        """The score of some rows does not depend on what else was fitted beyond the trajectory."""
        fitted = model(reference).fit(bulk.iloc[:30])
        again = pickle.loads(pickle.dumps(fitted))
        again.expression_ = again.proportions_ = again._losses = None
        assert again.score(bulk.iloc[30:]) == fitted.score(bulk.iloc[30:])


class TestOptions:
    # a penalty so small that some expression becomes negative
    SOFT = {"beta": 0.1, "renorm_size": None}  # noqa: RUF012

    def test_automatic_step(self, bulk, reference, theta):
        settings = {"renorm_size": None, "beta": 1.0, "alpha": 0.3}
        fitted = model(reference, tao_k="auto", **settings).fit(bulk, proportions=theta)
        largest = (theta.to_numpy() ** 2).sum(axis=1).max()
        safe = 1 / (2 * 0.3 * largest + 2 * 0.7 / N_SAMPLES)
        assert fitted.tao_k_ == pytest.approx(safe, rel=1e-12)  # rounding
        given = model(reference, tao_k=fitted.tao_k_, **settings)
        assert_array_equal(fitted.cse_, given.fit(bulk, proportions=theta).cse_)

    def test_automatic_renorm_size(self, bulk, reference):
        plain = model(reference, renorm_size=None).fit(bulk)
        fitted = model(reference, renorm_size="auto").fit(bulk)
        assert fitted.renorm_size_ == pytest.approx(plain.gradient_norm_.mean(), rel=1e-14)  # the same run
        assert plain.renorm_size_ is None
        assert_close(fitted.cse_, model(reference, renorm_size=fitted.renorm_size_).fit(bulk).cse_)

    @pytest.mark.parametrize("positive", [True, False])
    @pytest.mark.parametrize(
        ("preprocess", "forward", "backward"),
        [
            ("sqrt", np.sqrt, lambda P: np.sign(P) * P**2),
            ("log", lambda X: np.log2(X + 1), lambda P: np.sign(P) * (2 ** np.abs(P) - 1)),
        ],
    )
    def test_preprocess(self, bulk, reference, preprocess, forward, backward, positive):
        proportions = ProportionEstimator(reference).fit_transform(bulk)  # on the untransformed data
        X, R = forward(bulk.to_numpy()), forward(reference.to_numpy())
        P, n_iter = plain_iteration(X, R, proportions, **self.SOFT)
        fitted = model(reference, preprocess=preprocess, positive=positive, **self.SOFT).fit(bulk)
        assert_array_equal(fitted.proportions_, proportions)
        assert fitted.n_iter_ == n_iter
        assert_close(fitted.cse_, backward(np.maximum(P, 0) if positive else P))
        assert (P < 0).any()  # or positive would not have been tested

    def test_positive_is_found(self, bulk, reference, theta):
        assert model(reference).fit(bulk, proportions=theta).positive_ is True
        assert model(reference).fit(bulk - bulk.mean(), proportions=theta).positive_ is False
        assert model(reference - 1).fit(bulk, proportions=theta).positive_ is False

    @pytest.mark.parametrize("normalize", [None, "frac"])
    def test_positive_clips_the_end_result_only(self, bulk, reference, normalize):
        free = model(reference, positive=False, **self.SOFT).fit(bulk)
        clipped = model(reference, positive=True, normalize=normalize, **self.SOFT).fit(bulk)
        assert (free.cse_ < 0).any()
        assert_array_equal(clipped.cse_, np.maximum(free.cse_, 0))
        assert_array_equal(clipped.loss_history_, free.loss_history_)

    def test_normalised_tensor_has_no_slope_left(self, bulk, reference):
        fitted = model(reference, normalize="frac").fit(bulk)
        for k in range(len(CELL_TYPES)):
            share = fitted.proportions_[:, k] - fitted.proportions_[:, k].mean()
            before, after = share @ fitted.cse_[:, k], share @ fitted.cse_normalized_[:, k]
            assert np.abs(after).max() < 1e-12 * np.abs(before).max()  # rounding
        assert not np.allclose(fitted.cse_normalized_, fitted.cse_)

    def test_no_normalised_tensor_unless_asked(self, bulk, reference):
        assert not hasattr(model(reference).fit(bulk), "cse_normalized_")

    def test_refit_forgets_the_normalised_tensor(self, bulk, reference):
        fitted = model(reference, normalize="frac").fit(bulk).set_params(normalize=None).fit(bulk)
        assert not hasattr(fitted, "cse_normalized_")


class TestAbsentCellType:
    """A type that no sample holds leaves no trace in the bulk: the answer is its profile."""

    @pytest.fixture
    def without_monocytes(self, theta):
        shares = theta.copy()
        shares["monocyte"] = 0.0
        return shares.div(shares.sum(axis=1), axis=0)

    @pytest.mark.parametrize("preprocess", [None, "sqrt", "log"])
    @pytest.mark.parametrize("renorm_size", RENORM_SIZES)
    def test_profile_is_the_answer(self, bulk, reference, without_monocytes, preprocess, renorm_size):
        estimator = model(reference, preprocess=preprocess, renorm_size=renorm_size)
        with pytest.warns(UserWarning, match="'monocyte' is 0 in every sample.*reference profile"):
            estimator.fit(bulk, proportions=without_monocytes)
        assert np.isfinite(estimator.cse_).all()
        assert_array_equal(estimator.cse_[:, 1], np.broadcast_to(reference.loc["monocyte"], bulk.shape))
        present = estimator.cse_[:, [0, 2]]
        assert not (present == reference.to_numpy()[[0, 2]]).all(axis=2).any()

    def test_also_in_transform(self, bulk, reference, theta, without_monocytes):
        with pytest.warns(UserWarning, match="'monocyte'"):
            fitted = model(reference, normalize="frac").fit(bulk, proportions=without_monocytes)
        for shares in (without_monocytes, theta):
            cse = fitted.transform(bulk, proportions=shares).reshape(fitted.cse_.shape)
            assert np.isfinite(cse).all()
            assert_array_equal(cse[:, 1], np.broadcast_to(reference.loc["monocyte"], bulk.shape))

    def test_names_all_of_them(self, bulk, reference):
        only = pd.DataFrame({"B cell": 0.0, "monocyte": 0.0, "T cell": 1.0}, index=SAMPLES)
        with pytest.warns(UserWarning, match="'B cell', 'monocyte' is 0 in every sample"):
            fitted = model(reference).fit(bulk, proportions=only)
        assert np.isfinite(fitted.cse_).all()

    def test_rare_is_not_absent(self, bulk, reference, without_monocytes):
        shares = without_monocytes.copy()
        shares.loc["donor0", "monocyte"] = 1e-3
        fitted = model(reference).fit(bulk, proportions=shares)  # warnings are errors
        assert np.isfinite(fitted.cse_).all()


class TestProportionEstimators:
    SHUFFLED = ("T cell", "B cell", "monocyte")

    def test_any_transformer(self, bulk, reference, theta):
        fitted = model(reference, proportion_estimator=Oracle(theta)).fit(bulk)
        assert_array_equal(fitted.proportions_, theta)
        assert_close(fitted.cse_, model(reference).fit(bulk, proportions=theta).cse_)

    def test_default_is_robust_regression(self, bulk, reference):
        fitted = model(reference).fit(bulk)
        assert isinstance(fitted.proportion_estimator_, ProportionEstimator)
        assert_array_equal(fitted.proportions_, ProportionEstimator(reference).fit_transform(bulk))

    def test_missing_reference_becomes_the_deconvolvers(self, bulk, reference):
        fitted = model(reference, proportion_estimator=ProportionEstimator(method="nnls")).fit(bulk)
        assert_close(fitted.proportions_, ProportionEstimator(reference, method="nnls").fit_transform(bulk))
        assert fitted.proportion_estimator.reference is None
        assert list(fitted.proportion_estimator_.cell_types_) == CELL_TYPES

    def test_own_reference_is_kept(self, bulk, reference):
        """Proportions from marker genes only, as is common."""
        markers = reference[GENES[30:]]
        fitted = model(reference, proportion_estimator=ProportionEstimator(markers)).fit(bulk)
        assert_array_equal(fitted.proportions_, ProportionEstimator(markers).fit_transform(bulk))

    @pytest.mark.parametrize(
        "make",
        [
            lambda table: NamedOracle(table),
            lambda table: Oracle(table, as_frame=True),
            lambda table: NamedOracle(table, as_frame=True),
        ],
        ids=["cell_types_", "frame", "both"],
    )
    def test_columns_in_another_order(self, bulk, reference, theta, make):
        fitted = model(reference, proportion_estimator=make(theta[list(self.SHUFFLED)])).fit(bulk)
        assert_array_equal(fitted.proportions_, theta)

    @pytest.mark.parametrize(
        "wrap",
        [lambda step: step, lambda step: make_pipeline(FunctionTransformer(), step)],
        ids=["alone", "pipeline"],
    )
    def test_own_reference_in_another_order(self, bulk, reference, wrap):
        shuffled = ProportionEstimator(reference.loc[list(self.SHUFFLED)])
        fitted = model(reference, proportion_estimator=wrap(shuffled)).fit(bulk)
        expected = ProportionEstimator(reference).fit_transform(bulk)
        assert_close(fitted.proportions_, expected)
        assert_close(fitted.transform(bulk), model(reference).fit_transform(bulk))

    @pytest.mark.parametrize("as_frame", [False, True])
    def test_other_cell_types(self, bulk, reference, theta, as_frame):
        renamed = NamedOracle(theta.rename(columns={"T cell": "T"}), as_frame)
        with pytest.raises(ValueError, match=r"'T cell'.*'T'.*[Rr]ename"):
            model(reference, proportion_estimator=renamed).fit(bulk)

    def test_other_number_of_cell_types(self, bulk, reference):
        few = ProportionEstimator(reference.iloc[:2])
        with pytest.raises(
            ValueError, match=r"do not name cell type 'T cell'; they are 'B cell', 'monocyte'"
        ):
            model(reference, proportion_estimator=few).fit(bulk)

    def test_given_proportions_take_precedence(self, bulk, reference, theta):
        fitted = model(reference, proportion_estimator=Oracle(theta)).fit(
            bulk, proportions=theta[::-1].to_numpy()
        )
        assert_array_equal(fitted.proportions_, theta[::-1])

    @pytest.mark.parametrize("output", ["default", "pandas"])
    def test_global_output_configuration(self, bulk, reference, output):
        with sklearn.config_context(transform_output=output):
            fitted = model(reference, proportion_estimator=ProportionEstimator(method="nnls")).fit(bulk)
        assert_close(fitted.proportions_, ProportionEstimator(reference, method="nnls").fit_transform(bulk))

    def test_parameters_can_be_searched(self, bulk, reference):
        search = GridSearchCV(
            model(reference, proportion_estimator=ProportionEstimator()),
            {"proportion_estimator__method": ["rlm", "nnls"]},
            cv=2,
        ).fit(bulk)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()


class TestNamedProportions:
    def test_any_order_of_rows_and_columns(self, bulk, reference, theta):
        shuffled = theta.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=1)
        assert list(shuffled.index) != SAMPLES
        assert list(shuffled.columns) != CELL_TYPES
        fitted = model(reference).fit(bulk, proportions=shuffled)
        assert_array_equal(fitted.proportions_, theta)
        assert_array_equal(
            fitted.transform(bulk, proportions=shuffled), fitted.transform(bulk, proportions=theta.to_numpy())
        )

    def test_arrays_by_position(self, bulk, reference, theta):
        fitted = model(reference).fit(bulk, proportions=theta.to_numpy()[::-1])
        assert_array_equal(fitted.proportions_, theta[::-1])

    def test_rows_near_one_are_used_as_given(self, bulk, reference, theta):
        rounded = theta.round(1)
        off = np.abs(rounded.sum(axis=1) - 1)
        near = rounded.index[off < 0.05]
        table = theta.copy()
        table.loc[near] = theta.loc[near].mul(0.97)
        assert_array_equal(model(reference).fit(bulk, proportions=table).proportions_, table)


class TestGenes:
    def test_matched_by_name(self, bulk, reference, expected):
        shuffled = reference.sample(frac=1, axis=1, random_state=0).assign(other=1e6)
        fitted = model(shuffled).fit(bulk)
        assert_array_equal(fitted.reference_, reference)
        assert_close(fitted.cse_.reshape(expected.shape), expected)

    def test_surplus_genes_of_bulk_are_left_out(self, bulk, reference, expected):
        wide = bulk.assign(other=1e6)
        fitted = model(reference).fit(wide)
        assert fitted.n_features_in_ == N_GENES + 1
        assert list(fitted.gene_names_) == GENES
        assert_close(fitted.cse_.reshape(expected.shape), expected)
        assert_close(fitted.transform(wide), expected)
        score = model(reference).fit(bulk).score(bulk)
        assert fitted.score(wide) == pytest.approx(score, rel=1e-12)  # rounding

    def test_constant_genes(self, bulk, reference):
        X, profiles = bulk.copy(), reference.copy()
        X[["gene3", "gene4"]] = 0.0
        X["gene5"] = profiles["gene6"] = 2.0
        profiles["gene4"] = 0.0
        fitted = model(profiles).fit(X)
        assert np.isfinite(fitted.cse_).all()
        assert_array_equal(fitted.cse_[:, :, 4], 0)  # nothing on either side


class TestShapes:
    @pytest.mark.parametrize("renorm_size", [None, "auto", 5.0])
    @pytest.mark.parametrize(("n_samples", "n_cell_types"), [(2, 3), (2, 1), (3, 8), (40, 1), (5, 5)])
    def test_small(self, bulk, renorm_size, n_samples, n_cell_types):
        profiles = np.random.default_rng(n_cell_types).gamma(2, 1, (n_cell_types, N_GENES))
        shares = np.random.default_rng(n_samples).dirichlet(np.full(n_cell_types, 3.0), n_samples)
        X = bulk.to_numpy()[:n_samples]
        fitted = model(profiles, renorm_size=renorm_size, positive=False).fit(X, proportions=shares)
        assert fitted.cse_.shape == (n_samples, n_cell_types, N_GENES)
        expected, n_iter = plain_iteration(X, profiles, shares, renorm_size=fitted.renorm_size_)
        assert fitted.n_iter_ == n_iter
        assert_close(fitted.cse_, expected)
        assert_close(fitted.transform(X, proportions=shares), fitted.cse_.reshape(n_samples, -1))

    def test_repeated_samples(self, bulk, reference, theta):
        X, shares = np.repeat(bulk.to_numpy()[:4], 5, axis=0), np.repeat(theta.to_numpy()[:4], 5, axis=0)
        fitted = model(reference.to_numpy()).fit(X, proportions=shares)
        assert_close(fitted.cse_[::5], fitted.cse_[4::5])

    def test_learned_profiles(self, bulk):
        fitted = model(None, n_components=4).fit(bulk)
        assert fitted.cse_.shape == (N_SAMPLES, 4, N_GENES)
        assert len(set(fitted.cell_types_)) == 4
        assert_array_equal(fitted.cse_, model(None, n_components=4).fit(bulk).cse_)


class TestKindsOfInput:
    @pytest.mark.parametrize(
        "convert",
        [
            np.asfortranarray,
            lambda values: values.tolist(),
            lambda values: values.astype(object),
            lambda values: np.repeat(values, 2, axis=1)[:, ::2],
            lambda values: values[::-1][::-1],
            lambda values: pd.DataFrame(values),
            lambda values: values.astype(">f8"),
        ],
        ids=["Fortran order", "lists", "object", "strided", "reversed", "unnamed frame", "big-endian"],
    )
    def test_layout_does_not_matter(self, bulk, reference, expected, convert):
        X, profiles = convert(bulk.to_numpy()), convert(reference.to_numpy())
        fitted = model(profiles)
        assert_close(fitted.fit_transform(X), expected)
        assert_close(fitted.transform(X), expected)

    def test_read_only(self, bulk, reference, theta, expected):
        X, profiles, shares = (
            bulk.to_numpy(copy=True),
            reference.to_numpy(copy=True),
            theta.to_numpy(copy=True),
        )
        for array in (X, profiles, shares):
            array.flags.writeable = False
        # another place in memory may take another path through the BLAS: the last bit is not promised
        assert_close(model(profiles).fit_transform(X), expected)
        given = model(profiles, preprocess="log", normalize="frac").fit(X, proportions=shares)
        given.transform(X, proportions=shares)

    def test_integers(self, bulk, reference):
        counts, profiles = (bulk * 10).round(), (reference * 10).round()
        whole = model(profiles.astype(int), renorm_size=None).fit(counts.astype(int))
        assert whole.cse_.dtype == np.float64
        assert_array_equal(whole.cse_, model(profiles, renorm_size=None).fit(counts).cse_)

    def test_polars(self, bulk, reference, expected):
        polars = pytest.importorskip("polars")
        frame = polars.DataFrame(dict(bulk.items()))
        shuffled = reference.sample(frac=1, axis=1, random_state=0)
        fitted = model(shuffled).set_output(transform="polars").fit(frame)
        assert list(fitted.feature_names_in_) == GENES
        result = fitted.transform(frame)
        assert isinstance(result, polars.DataFrame)
        assert result.columns[0] == "B cell:gene0"
        assert_close(result.to_numpy(), expected)

    def test_polars_reference_is_matched_by_name(self, bulk, reference, expected):
        polars = pytest.importorskip("polars")
        shuffled = reference.sample(frac=1, axis=1, random_state=0)
        profiles = polars.DataFrame({gene: values.to_numpy() for gene, values in shuffled.items()})
        assert_close(model(profiles).fit_transform(bulk), expected)

    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"renorm_size": None},
            {"preprocess": "log"},
            {"normalize": "frac"},
            {"normalize": "pc"},
        ],
    )
    def test_float32(self, bulk, reference, parameters):
        double = model(reference, **parameters).fit(bulk)
        single = model(reference, **parameters).fit(bulk.astype(np.float32))
        for name in ("cse_", "proportions_", "reference_", "cse_normalized_"):
            if hasattr(double, name):
                assert getattr(single, name).dtype == np.float32
                # 1e-7 of input precision, grown in a few dozen iterations
                assert_close(getattr(single, name), getattr(double, name), 1e-4)
        new = single.transform(bulk.astype(np.float32))
        assert new.dtype == np.float32
        assert_close(new, double.transform(bulk), 1e-4)  # as above

    def test_float32_proportions(self, bulk, reference, theta):
        single = model(reference).fit(bulk, proportions=theta.astype(np.float32))
        assert single.cse_.dtype == np.float64
        assert_close(single.cse_, model(reference).fit(bulk, proportions=theta).cse_, 1e-5)  # 1e-7, iterated

    def test_number_of_threads(self, bulk, reference):
        threadpoolctl = pytest.importorskip("threadpoolctl")
        results = []
        for count in (1, 2):
            with threadpoolctl.threadpool_limits(count):
                results.append(model(reference).fit_transform(bulk))
        assert_close(*results, 1e-12)  # sums in another order


class TestEnds:
    def test_not_converged(self, bulk, reference):
        with pytest.warns(
            ConvergenceWarning,
            match=r"3 iterations.*larger beta.*smaller tao_k or renorm_size.*larger max_iter",
        ):
            fitted = model(reference, max_iter=3).fit(bulk)
        assert fitted.n_iter_ == 3
        assert fitted.converged_ is False
        assert_close(fitted.transform(bulk), fitted.cse_.reshape(N_SAMPLES, -1))

    @silent_about_convergence
    def test_one_iteration_applies_no_update(self, bulk, reference):
        fitted = model(reference, max_iter=1).fit(bulk)
        assert_close(fitted.cse_, np.repeat(bulk.to_numpy()[:, None], 3, axis=1))
        assert fitted.gradient_norm_.shape == (0, 2)
        assert_close(fitted.transform(bulk), fitted.cse_.reshape(N_SAMPLES, -1))

    @pytest.mark.parametrize("tao_k", [1e3, 1e150])
    def test_divergence_is_refused(self, bulk, reference, tao_k):
        with pytest.raises(ValueError, match=r"diverged.*smaller tao_k.*tao_k='auto'"):
            L2MaxDeconvolver(reference, beta=0, renorm_size=None, tao_k=tao_k, max_iter=100_000).fit(bulk)

    def test_divergence_stops_early(self, bulk, reference):
        """An endless fit would be as bad as garbage."""
        with pytest.raises(ValueError, match=r"in iteration \d{1,3}[ .]"):
            L2MaxDeconvolver(reference, beta=0, renorm_size=None, tao_k=1e3, max_iter=100_000).fit(bulk)

    def test_safe_step_does_not_diverge(self, bulk, reference):
        fitted = L2MaxDeconvolver(reference, beta=0, renorm_size=None, tao_k="auto", max_iter=20_000).fit(
            bulk
        )
        assert fitted.converged_


class TestCallbacks:
    @pytest.fixture(autouse=True)
    def callbacks(self):
        return pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")

    def test_sees_every_iteration(self, bulk, reference):
        recorder = Recorder()
        fitted = model(reference).set_callbacks(recorder).fit(bulk)
        assert recorder.begun.count("iteration") == recorder.ended.count("iteration") == fitted.n_iter_
        assert recorder.begun[0] == recorder.ended[-1] == "fit"
        assert (recorder.setups, recorder.teardowns) == (1, 1)

    def test_does_not_change_the_result(self, bulk, reference):
        watched = model(reference).set_callbacks(Recorder()).fit(bulk)
        assert_array_equal(watched.cse_, model(reference).fit(bulk).cse_)

    @silent_about_convergence
    def test_may_stop_early(self, bulk, reference):
        fitted = model(reference).set_callbacks(Recorder(stop_after=4)).fit(bulk)
        assert fitted.n_iter_ == 4
        assert not fitted.converged_
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            limited = model(reference, max_iter=4).fit(bulk)
        assert_array_equal(fitted.cse_, limited.cse_)

    def test_automatic_size_reports_both_runs(self, bulk, reference):
        recorder = Recorder()
        fitted = model(reference, renorm_size="auto").set_callbacks(recorder).fit(bulk)
        first = model(reference, renorm_size=None).fit(bulk)
        assert recorder.ended.count("iteration") == fitted.n_iter_ + first.n_iter_

    def test_is_torn_down_after_a_failure(self, bulk, reference):
        recorder = Recorder()
        diverging = L2MaxDeconvolver(reference, beta=0, renorm_size=None, tao_k=1e3).set_callbacks(recorder)
        with pytest.raises(ValueError, match="diverged"):
            diverging.fit(bulk)
        assert (recorder.setups, recorder.teardowns) == (1, 1)

    def test_progress_bar(self, callbacks, bulk, reference, capsys):
        pytest.importorskip("rich")
        model(reference).set_callbacks(callbacks.ProgressBar()).fit(bulk)
        assert "L2MaxDeconvolver" in capsys.readouterr().out

    def test_progress_bar_in_grid_search(self, callbacks, bulk, reference):
        pytest.importorskip("rich")
        search = GridSearchCV(model(reference), {"renorm_size": [10.0, 20.0]}, cv=2)
        if not hasattr(search, "set_callbacks"):
            pytest.skip("this scikit-learn's GridSearchCV takes no callbacks")
        search.set_callbacks(callbacks.ProgressBar()).fit(bulk)
        assert np.isfinite(search.best_score_)


ACCELERATED = {"beta": 1.0, "solver": "accelerated", "epsilon": 1e-9, "positive": False}


class TestAcceleratedSolver:
    """What the estimator adds to core: the rest is in test_accelerated.py."""

    @pytest.mark.slow
    def test_reaches_the_minimum_of_the_other_solvers(self, bulk, reference, theta):
        fitted = L2MaxDeconvolver(reference, **ACCELERATED).fit(bulk, proportions=theta)
        other = L2MaxDeconvolver(reference, **(ACCELERATED | {"solver": "admm", "epsilon": 1e-14}))
        other.set_params(max_iter=20000).fit(bulk, proportions=theta)
        assert fitted.converged_
        assert_allclose(
            fitted.score(bulk, proportions=theta), other.score(bulk, proportions=theta), rtol=1e-8
        )
        assert_close(
            fitted.cse_, other.cse_, 1e-3
        )  # the gap of 1e-9 bounds the expression by its square root
        assert not hasattr(fitted, "tao_k_")
        assert not hasattr(fitted, "gamma_")

    def test_replays(self, bulk, reference, theta):
        fitted = L2MaxDeconvolver(reference, **ACCELERATED)
        whole = fitted.fit_transform(bulk, proportions=theta)
        assert_close(fitted.transform(bulk, proportions=theta), whole)
        assert_close(fitted.transform(bulk[5:7], proportions=theta[5:7]), whole[5:7])

    def test_epsilon_has_no_units(self, bulk, reference, theta):
        counts = [
            L2MaxDeconvolver(reference * unit, **ACCELERATED).fit(bulk * unit, proportions=theta).n_iter_
            for unit in (1.0, 1024.0)
        ]
        assert counts[0] == counts[1]

    def test_warns_with_remedies_that_exist(self, bulk, reference, theta):
        with pytest.warns(ConvergenceWarning, match="larger max_iter, epsilon or beta"):
            L2MaxDeconvolver(reference, **ACCELERATED, max_iter=2).fit(bulk, proportions=theta)


class TestSizeOfAnotherScale:
    def test_far_too_small_a_size_is_not_silent(self):
        cohort = make_cohort(40, 200, 3, random_state=0)
        model = L2MaxDeconvolver(1000 * cohort.reference, beta=20.0)
        with pytest.warns(UserWarning, match=r"renorm_size=200 is far below .* Use renorm_size='auto'"):
            model.fit(1000 * cohort.bulk, proportions=cohort.proportions)
        # what the warning says: the penalty wins
        assert model.cse_.std() < 0.05 * 1000 * cohort.bulk.std()

    def test_sizes_that_fit_the_data_are_silent(self):
        cohort = make_cohort(40, 200, 3, random_state=0)
        for size in (None, 20.0):
            L2MaxDeconvolver(cohort.reference, renorm_size=size).fit(
                cohort.bulk, proportions=cohort.proportions
            )


@pytest.mark.parametrize(("small", "threads"), [(10**6, 1), (10, 2)])
def test_small_fits_keep_to_one_thread(monkeypatch, small, threads):
    """From the basis to the expression; the iteration has a bound of its own."""
    seen = []

    def watch(module, name):
        original = getattr(module, name)

        def watched(*args, **kwargs):
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    monkeypatch.setattr(_predict, "SMALL_RESULT", small)
    watch(_solving, "SpanBasis")
    watch(states, "expand")
    watch(states, "expand_inside")
    cohort = make_cohort(n_samples=10, n_genes=40, n_cell_types=3, random_state=0)
    with threadpool_limits(2, user_api="blas"):
        fitted = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
        fitted.transform(cohort.bulk)
    assert len(seen) >= 3
    assert set(seen) == {threads}
