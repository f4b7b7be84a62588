"""Where optimised models start: every kind of ``init``, for the cohort and for rows never seen."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone

from skenigma import L2MaxDeconvolver, L2MaxDeconvolverCV, TraceNormDeconvolver
from skenigma.core.optimize.registry import SOLVERS
from skenigma.datasets import make_cohort

N, K, G = 14, 3, 60


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=N, n_genes=G, n_cell_types=K, random_state=3, as_frame=True)


def scaled_bulk(bulk, proportions):
    """A start of every sample's own: its bulk, more of it in the cell types that it has more of."""
    return np.asarray(bulk)[:, None] * np.asarray(proportions)[:, :, None]


def bulk_times_09(bulk, proportions):
    """The start of the recorded runs of the R package, as one of every sample's own."""
    return np.repeat(0.9 * np.asarray(bulk)[:, None], K, axis=1)


STARTS = {
    "zero": lambda cohort: "zero",
    "reference": lambda cohort: "reference",
    "share of the bulk": lambda cohort: 0.9,
    "table": lambda cohort: 0.5 * cohort.reference.iloc[::-1],
    "array": lambda cohort: 0.5 * cohort.reference.to_numpy(),
    "function": lambda cohort: scaled_bulk,
}
MODELS = [(model, solver) for model in (L2MaxDeconvolver, TraceNormDeconvolver) for solver in SOLVERS]


def build(model, solver, **params):
    if model is L2MaxDeconvolver:
        params.setdefault("renorm_size", None)
    return model(solver=solver, **params)


def fit(model, cohort):
    return model.fit(cohort.bulk, proportions=cohort.proportions)


@pytest.fixture(params=list(STARTS))
def init(request, cohort):
    return STARTS[request.param](cohort)


@pytest.mark.parametrize(("model", "solver"), MODELS)
def test_rows_come_back_and_unseen_ones_stand_alone(cohort, init, model, solver):
    fitted = fit(
        build(model, solver, reference=cohort.reference, init=init, max_iter=3000, epsilon=1e-3), cohort
    )
    known = {"proportions": cohort.proportions}
    again = fitted.transform(cohort.bulk, **known)
    assert_allclose(again, fitted.cse_.reshape(N, -1), atol=1e-10)
    new = 1.3 * cohort.bulk.iloc[:4] + 0.2
    together = fitted.transform(new, proportions=cohort.proportions.iloc[:4])
    alone = fitted.transform(new.iloc[[2]], proportions=cohort.proportions.iloc[[2]])
    assert_allclose(alone[0], together[2], atol=1e-10)
    restored = pickle.loads(pickle.dumps(fitted))
    assert_allclose(restored.transform(new, proportions=cohort.proportions.iloc[:4]), together, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "solver"), MODELS)
def test_where_it_starts_makes_no_difference_to_the_minimum(cohort, model, solver):
    options = {"reference": cohort.reference, "beta": 4.0, "max_iter": 40000, "tao_k": "auto"}
    options["epsilon"] = 1e-9 if solver == "accelerated" else 1e-16
    scores = {}
    for name in ("zero", "share of the bulk", "array", "function"):
        fitted = fit(build(model, solver, init=STARTS[name](cohort), **options), cohort)
        assert fitted.converged_
        scores[name] = fitted.score(cohort.bulk, proportions=cohort.proportions)
    # "accelerated" proves 1e-9; the others stop at changes whose effect on F is below that
    assert_allclose(list(scores.values()), scores["zero"], rtol=1e-7)


@pytest.mark.parametrize(("model", "solver"), MODELS)
def test_one_evaluation_returns_the_start(cohort, init, model, solver):
    fitted = build(model, solver, reference=cohort.reference, init=init, max_iter=1, positive=False)
    with pytest.warns(UserWarning, match="did not converge"):
        fit(fitted, cohort)
    bulk, theta, reference = (np.asarray(a) for a in (cohort.bulk, cohort.proportions, cohort.reference))
    expected = {
        "zero": lambda: np.zeros((N, K, G)),
        "reference": lambda: np.broadcast_to(reference, (N, K, G)),
    }
    if callable(init):
        start = scaled_bulk(bulk, theta)
    elif isinstance(init, str):
        start = expected[init]()
    elif np.ndim(init):
        start = np.broadcast_to(0.5 * reference, (N, K, G))
    else:
        start = np.broadcast_to(init * bulk[:, None], (N, K, G))
    assert_allclose(fitted.cse_, start, atol=1e-11)


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_none_is_the_published_start(cohort, solver):
    """The bulk itself, but for the solver that starts where a step from zero leads."""
    first = fit(build(TraceNormDeconvolver, solver, reference=cohort.reference), cohort)
    init = "zero" if solver == "accelerated" else 1.0
    again = fit(build(TraceNormDeconvolver, solver, reference=cohort.reference, init=init), cohort)
    assert_allclose(first.cse_, again.cse_, atol=1e-12)
    assert_allclose(first.loss_history_, again.loss_history_, rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize("preprocess", ["sqrt", "log"])
def test_arrays_are_on_the_scale_of_the_bulk(cohort, preprocess):
    positive = cohort.bulk - cohort.bulk.to_numpy().min()
    reference = cohort.reference - cohort.reference.to_numpy().min()
    options = {"reference": reference, "preprocess": preprocess, "renorm_size": None, "max_iter": 1}
    for init in (reference, lambda bulk, theta: scaled_bulk(bulk, theta)):
        model = L2MaxDeconvolver(init=init, **options)
        with pytest.warns(UserWarning, match="did not converge"):
            model.fit(positive, proportions=cohort.proportions)
        theta = cohort.proportions.to_numpy()
        start = scaled_bulk(positive, theta) if callable(init) else np.broadcast_to(reference, (N, K, G))
        assert_allclose(model.cse_, start, atol=1e-9)


def test_a_tensor_is_where_the_cohort_starts_and_others_have_no_start(cohort):
    tensor = scaled_bulk(cohort.bulk, cohort.proportions)
    options = {"reference": cohort.reference, "renorm_size": None}
    by_tensor = fit(L2MaxDeconvolver(init=tensor, **options), cohort)
    by_function = fit(L2MaxDeconvolver(init=scaled_bulk, **options), cohort)
    assert_allclose(by_tensor.cse_, by_function.cse_, atol=1e-12)
    for method in (by_tensor.transform, by_tensor.score, by_tensor.predict_expression):
        with pytest.raises(ValueError, match="does not define a start for other samples"):
            method(cohort.bulk, proportions=cohort.proportions)


def test_genes_of_a_start_are_those_of_the_bulk(cohort):
    """Genes that the reference lacks are left out of the start, too."""
    reference = cohort.reference.iloc[:, 5:]
    whole = 0.5 * cohort.reference.to_numpy()
    options = {"renorm_size": None, "epsilon": 1e-12}
    by_position = fit(L2MaxDeconvolver(reference, init=whole, **options), cohort)
    by_name = fit(L2MaxDeconvolver(reference, init=0.5 * cohort.reference, **options), cohort)
    in_use = fit(L2MaxDeconvolver(reference, init=whole[:, 5:], **options), cohort)
    assert_allclose(by_position.cse_, by_name.cse_, atol=1e-12)
    assert_allclose(by_position.cse_, in_use.cse_, atol=1e-12)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (np.zeros((K + 1, G)), "one row per cell type"),
        (np.zeros((K, G - 1)), f"{G - 1} genes"),
        (np.zeros((N + 1, K, G)), "a start for every sample must have the shape"),
        (np.full((K, G), np.nan), "init contains NaN"),
        (pd.DataFrame(np.zeros((K, G)), list("abcdefgh")[:K]), "rows of init do not name cell type"),
        (lambda bulk, proportions: np.zeros((2, 2)), "a start for every sample must have the shape"),
        ("nothing", "'init' parameter"),
    ],
)
def test_starts_that_do_not_fit_are_refused(cohort, init, message):
    with pytest.raises(ValueError, match=message):
        fit(L2MaxDeconvolver(cohort.reference, init=init, renorm_size=None), cohort)


def test_gradients_are_rescaled_from_any_start(cohort):
    models = [L2MaxDeconvolver(cohort.reference, init=init, max_iter=3) for init in (0.9, bulk_times_09)]
    for model in models:
        with pytest.warns(UserWarning, match="did not converge"):
            fit(model, cohort)
        assert model.renorm_size_ == 200
    shared, own = models
    assert_allclose(own.gradient_norm_, shared.gradient_norm_, rtol=1e-12)
    assert_allclose(own.cse_, shared.cse_, rtol=1e-10, atol=1e-12)


def test_it_is_a_parameter_like_others(cohort):
    model = clone(TraceNormDeconvolver(cohort.reference, init="zero"))
    assert model.init == "zero"
    search = L2MaxDeconvolverCV(
        cohort.reference, alphas=[0.1], betas=[5.0, 50.0], renorm_sizes=[None], init="zero", random_state=0
    )
    assert fit(search, cohort).best_estimator_.init == "zero"


@pytest.mark.slow
def test_many_samples_in_a_frame_of_few_directions():
    """More dimensions than a frame begins with: a start along directions of its own."""
    large = make_cohort(n_samples=150, n_genes=400, n_cell_types=3, random_state=0)
    rng = np.random.default_rng(0)
    start = large.reference + rng.standard_normal(large.reference.shape)
    options = {"renorm_size": None, "beta": 5.0, "init": start, "positive": False}
    fitted = L2MaxDeconvolver(large.reference, **options).fit(large.bulk, proportions=large.proportions)
    as_function = {**options, "init": lambda bulk, theta: np.repeat(start[None], len(bulk), axis=0)}
    plain = L2MaxDeconvolver(large.reference, **as_function).fit(large.bulk, proportions=large.proportions)
    assert fitted.n_iter_ == plain.n_iter_
    assert_allclose(fitted.cse_, plain.cse_, atol=1e-9)
    rows = fitted.transform(large.bulk[:3], proportions=large.proportions[:3])
    assert_allclose(rows, fitted.cse_[:3].reshape(3, -1), atol=1e-9)
