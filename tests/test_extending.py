"""The worked example of the documentation page "Add a penalty or a solver"."""

import importlib.util
import pathlib

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skenigma import TraceNormDeconvolver
from skenigma.core.optimize import splitting
from skenigma.core.optimize.penalties import TraceNorm
from skenigma.core.optimize.splitting import SOLVERS, Problem, solve
from skenigma.core.optimize.states import Tensor
from skenigma.datasets import make_cohort

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "extending.md"
ALPHA, BETA = 0.3, 0.2


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("extending_example", PAGE.with_name("extending_example.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registered(example, monkeypatch):
    """The example with its solver registered, for one test."""
    monkeypatch.setattr(splitting, "SOLVERS", dict(splitting.SOLVERS))
    example.register()
    return example


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=12, n_genes=30, n_cell_types=3, random_state=0)


def closed_form(cohort, alpha, beta):
    """Least squares with one row per summand of the objective and one unknown per sample and cell type."""
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


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_ridge_has_its_closed_form(example, cohort, solver):
    problem = Problem(cohort.bulk, cohort.reference, cohort.proportions, ALPHA, example.Ridge(BETA))
    fit = solve(problem, problem.method(solver, 0.5), epsilon=1e-24, max_iter=3000)
    assert fit.converged
    expected = closed_form(cohort, ALPHA, BETA)
    # the squared change of the last update is below 1e-24, so what remains at a convergence rate of 0.99 is 1e-10
    assert_allclose(fit.expression, expected, atol=1e-10)
    assert_allclose(fit.loss[-1].sum(), problem.objective(expected.swapaxes(0, 1)), rtol=1e-10)


def test_ridge_proximal_operator_minimises(example):
    rng = np.random.default_rng(0)
    point, step, penalty = rng.standard_normal((2, 5, 4)), 0.7, example.Ridge(1.3)

    def target(candidate):
        return step * penalty.value(Tensor(candidate)) + 0.5 * np.sum((candidate - point) ** 2)

    found = np.empty_like(point)
    maps = penalty.prox(step, point, found)
    for scale in (1e-3, 1e-1, 1.0):
        assert target(found) < target(found + scale * rng.standard_normal(point.shape))
    again = np.empty_like(point)
    for row_map, rows, out in zip(maps, point, again, strict=True):
        row_map.apply(rows, out)
    assert_allclose(again, found, rtol=1e-15)


@pytest.mark.parametrize("solver", ["admm", "admm_fast", "proximal"])
def test_ridge_estimator_fits_and_transforms(example, cohort, solver):
    # genes outnumber samples and profiles, so the solvers work on coordinates
    model = example.RidgeDeconvolver(
        cohort.reference, alpha=ALPHA, beta=BETA, solver=solver, gamma=0.5, epsilon=1e-22
    )
    cse = model.set_params(max_iter=3000).fit(cohort.bulk, proportions=cohort.proportions).cse_
    assert_allclose(cse, closed_form(cohort, ALPHA, BETA), atol=1e-8)
    rows = model.transform(cohort.bulk[3:5], proportions=cohort.proportions[3:5])
    assert_allclose(rows.reshape(2, 3, -1), cse[3:5], atol=1e-12)


def test_relaxed_solver_reaches_the_same_minimum_in_fewer_iterations(registered, cohort):
    penalty = TraceNorm(2.0, cohort.proportions.mean(axis=0))
    problem = Problem(cohort.bulk, cohort.reference, cohort.proportions, 0.5, penalty)
    fits = {
        name: solve(problem, problem.method(name, 0.5), epsilon=1e-16, max_iter=5000)
        for name in ("admm", "admm_relaxed")
    }
    assert all(fit.converged for fit in fits.values())
    assert_allclose(fits["admm_relaxed"].expression, fits["admm"].expression, atol=1e-6)
    assert len(fits["admm_relaxed"].loss) < 0.8 * len(fits["admm"].loss)


def test_relaxed_solver_in_an_estimator(registered, cohort):
    options = {"reference": cohort.reference, "epsilon": 1e-14, "max_iter": 5000}
    relaxed = registered.RelaxedTraceNormDeconvolver(**options, solver="admm_relaxed").fit(cohort.bulk)
    plain = TraceNormDeconvolver(**options).fit(cohort.bulk)
    assert_allclose(relaxed.cse_, plain.cse_, atol=1e-4)
    assert_allclose(relaxed.transform(cohort.bulk), relaxed.cse_.reshape(12, -1), atol=1e-10)


def test_page_shows_every_definition_of_the_example(example):
    page = PAGE.read_text(encoding="utf-8")
    own = [
        name for name, thing in vars(example).items() if getattr(thing, "__module__", "") == example.__name__
    ]
    assert own
    assert [name for name in own if f":pyobject: {name}\n" not in page] == []
