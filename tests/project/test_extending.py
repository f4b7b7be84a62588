"""The worked examples of the documentation pages "Add a penalty" and "Add a solver"."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skenigma import L2MaxDeconvolver, TraceNormDeconvolver
from skenigma.core.optimize import registry
from skenigma.core.optimize.penalties import TraceNorm
from skenigma.core.optimize.splitting import ROWS, Problem, solve
from skenigma.core.optimize.states import Tensor
from skenigma.datasets import make_cohort
from tests.penalties import DOCS, Ridge, extending_example

PAGES = "add_penalty.md", "add_solver.md"
ALPHA, BETA = 0.3, 0.2


@pytest.fixture(scope="module")
def example():
    return extending_example()


@pytest.fixture
def registered(example, monkeypatch):
    """The example with its solvers registered, for one test."""
    known = dict(registry.SOLVERS)
    example.register()
    yield example
    registry.SOLVERS.clear()
    registry.SOLVERS.update(known)


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=12, n_genes=30, n_cell_types=3, random_state=0)


def closed_form(cohort, alpha, beta):
    """Ridge: least squares with one row per summand of the objective and one unknown per sample and cell type."""
    n_samples, n_cell_types = cohort.proportions.shape
    mixing = np.zeros((n_samples, n_samples, n_cell_types))
    mixing[range(n_samples), range(n_samples)] = cohort.proportions
    averaging = np.tile(np.eye(n_cell_types) / n_samples, n_samples)
    rows = [
        np.sqrt(alpha) * mixing.reshape(n_samples, -1),
        np.sqrt(1.0 - alpha) * averaging,
        np.sqrt(beta) * np.eye(n_samples * n_cell_types),
    ]
    targets = np.sqrt(alpha) * cohort.bulk, np.sqrt(1.0 - alpha) * cohort.reference
    zeros = np.zeros((n_samples * n_cell_types, cohort.bulk.shape[1]))
    found = np.linalg.lstsq(np.vstack(rows), np.vstack([*targets, zeros]), rcond=None)[0]
    return found.reshape(n_samples, n_cell_types, -1)


@pytest.mark.parametrize("solver", ["proximal", "admm", "admm_fast"])
def test_ridge_has_its_closed_form(cohort, solver):
    problem = Problem(cohort.bulk, cohort.reference, cohort.proportions, ALPHA, Ridge(BETA))
    fit = solve(problem, problem.method(solver, 0.5), epsilon=1e-24, max_iter=3000)
    assert fit.converged
    expected = closed_form(cohort, ALPHA, BETA)
    # the squared change of the last update is below 1e-24, so what remains at a convergence rate of 0.99 is 1e-10
    assert_allclose(fit.expression, expected, atol=1e-10)
    assert_allclose(fit.loss[-1].sum(), problem.objective(expected.swapaxes(0, 1)), rtol=1e-10)


def test_proximal_operator_of_the_group_lasso_minimises(example):
    rng = np.random.default_rng(0)
    point, step, penalty = rng.standard_normal((2, 5, 4)), 0.7, example.GroupLasso(1.3)

    def target(candidate):
        return step * penalty.value(Tensor(candidate)) + 0.5 * np.sum((candidate - point) ** 2)

    found = np.empty_like(point)
    penalty.prox(step, point, found)
    for scale in (1e-3, 1e-1, 1.0):
        assert target(found) < target(found + scale * rng.standard_normal(point.shape))


def objective_of(model, cohort):
    return -model.score(cohort.bulk, proportions=cohort.proportions)


# start of the page's test
def test_every_solver_finds_the_minimum_of_the_group_lasso(example, cohort):
    found = {}
    for solver in ("proximal", "admm", "admm_fast", "accelerated"):
        epsilon = 1e-9 if solver == "accelerated" else 1e-20
        options = {"alpha": 0.3, "beta": 2.0, "epsilon": epsilon, "max_iter": 20000, "solver": solver}
        model = example.GroupLassoDeconvolver(cohort.reference, tao_k="auto", gamma=0.5, **options)
        model.fit(cohort.bulk, proportions=cohort.proportions)
        assert_allclose(
            model.transform(cohort.bulk, proportions=cohort.proportions), model.cse_.reshape(12, -1)
        )
        found[solver] = objective_of(model, cohort)
    assert_allclose(list(found.values()), found["admm"], rtol=1e-8)
    # end of the page's test
    assert found["admm"] > 0


def test_a_solver_says_what_it_misses(example, cohort):
    problem = Problem(cohort.bulk, cohort.reference, cohort.proportions, ALPHA, example.GroupLasso(BETA))
    with pytest.raises(ValueError, match="GroupLasso does not offer: conjugate"):
        registry.find_solver("accelerated", problem.penalty)
    assert ROWS["accelerated"]  # the certificate is what is missing, not the iteration


@pytest.mark.slow
def test_relaxed_solver_reaches_the_same_minimum_in_fewer_iterations(example, cohort):
    penalty = TraceNorm(2.0, cohort.proportions.mean(axis=0))
    problem = Problem(cohort.bulk, cohort.reference, cohort.proportions, 0.5, penalty)
    fits = {
        name: solve(problem, problem.method(rows, 0.5), epsilon=1e-16, max_iter=5000)
        for name, rows in {"admm": "admm", "admm_relaxed": example.RelaxedAdmmRows}.items()
    }
    assert all(fit.converged for fit in fits.values())
    assert_allclose(fits["admm_relaxed"].expression, fits["admm"].expression, atol=1e-6)
    assert len(fits["admm_relaxed"].delta) < 0.8 * len(fits["admm"].delta)


@pytest.mark.slow
def test_registered_solvers_in_every_estimator(registered, cohort):
    known = {"proportions": cohort.proportions}
    for estimator in (TraceNormDeconvolver, L2MaxDeconvolver):
        options = {"reference": cohort.reference, "epsilon": 1e-14, "max_iter": 20000}
        plain = estimator(**options, solver="admm").fit(cohort.bulk, **known)
        for solver in ("admm_relaxed", "heavy_ball"):
            model = estimator(**options, solver=solver, tao_k=0.3).fit(cohort.bulk, **known)
            # both stop when their changes are small: the minimum is known to about the root of that
            assert_allclose(objective_of(model, cohort), objective_of(plain, cohort), rtol=1e-6)
            assert_allclose(model.transform(cohort.bulk, **known), model.cse_.reshape(12, -1), atol=1e-9)
            assert model.get_params()["solver"] == solver


def test_a_solver_with_a_step_length_names_parameter_rule_and_remedy(registered, cohort):
    model = TraceNormDeconvolver(cohort.reference, solver="heavy_ball", tao_k="auto", max_iter=2, epsilon=0.0)
    with pytest.warns(Warning, match="Use a larger beta, max_iter or epsilon"):
        model.fit(cohort.bulk, proportions=cohort.proportions)
    plain = TraceNormDeconvolver(cohort.reference, solver="proximal", tao_k="auto").fit(
        cohort.bulk, proportions=cohort.proportions
    )
    assert model.tao_k_ == plain.tao_k_
    assert not hasattr(model, "gamma_")
    with pytest.raises(ValueError, match="half of 'auto' is safe"):
        model.set_params(tao_k=50.0, max_iter=500).fit(cohort.bulk, proportions=cohort.proportions)


def test_unknown_solvers_are_refused_with_those_there_are(registered, cohort):
    with pytest.raises(ValueError, match="'heavy_ball'"):
        TraceNormDeconvolver(cohort.reference, solver="newton").fit(cohort.bulk)


def test_pages_show_every_definition_of_the_example(example):
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in PAGES)
    own = [
        name for name, thing in vars(example).items() if getattr(thing, "__module__", "") == example.__name__
    ]
    assert own
    assert [name for name in own if f":pyobject: {name}\n" not in pages] == []
