"""Splitting algorithms: against R, against dense linear algebra, against each other, and replayed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.penalties import MaxL2Norm, TraceNorm
from skenigma.core.optimize.splitting import ROWS, Problem, iteration_of, mixture, solve
from skenigma.core.optimize.start import Start
from skenigma.core.optimize.states import Tensor

R_NAMES = {"admm": "admm", "admm_fast": "admm_fast", "proximal": "proximalpoint"}


def simulate(n=14, types=3, genes=40, seed=0):
    rng = np.random.default_rng(seed)
    proportions = rng.dirichlet(np.ones(types), n)
    reference = rng.gamma(2.0, size=(types, genes))
    return proportions @ reference + 0.3 * rng.standard_normal((n, genes)), reference, proportions


def trace_problem(bulk, reference, proportions, alpha=0.5, beta=1.0):
    return Problem(bulk, reference, proportions, alpha, TraceNorm(beta, proportions.mean(axis=0)))


def norm_problem(bulk, reference, proportions, alpha=0.5, beta=4.0):
    return Problem(bulk, reference, proportions, alpha, MaxL2Norm(beta))


MODELS = {"trace": trace_problem, "norm": norm_problem}
PARAMETERS = {"admm": 1.5, "admm_fast": 1.5, "proximal": 0.4, "accelerated": None}


def method(problem, solver, parameter=None, start=None):
    if start is not None:
        problem = replace(problem, start=Start(start))
    return problem.method(solver, PARAMETERS[solver] if parameter is None else parameter)


def run(problem, solver, epsilon=1e-6, max_iter=200, start=None, **options):
    return solve(problem, method(problem, solver, start=start), epsilon=epsilon, max_iter=max_iter, **options)


def to_genes(basis, expression):
    return np.stack([basis.to_genes(rows) for rows in expression.swapaxes(0, 1)], axis=1)


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


# ----------------------------------------------------------------------------------------------- against R


@pytest.fixture(scope="module")
def published(vignette):
    bulk = np.ascontiguousarray(vignette.table("bulk.csv.gz").to_numpy().T)
    reference = np.ascontiguousarray(vignette.table("reference.csv.gz").to_numpy().T)
    return SpanBasis(bulk, reference), vignette.table("theta.csv.gz").to_numpy(), bulk.size


@pytest.mark.slow
@pytest.mark.parametrize("solver", list(R_NAMES))
def test_trace_norm_runs_agree_with_r(vignette, published, solver):
    basis, proportions, size = published
    # R's proximalpoint has no 1/2 in its data terms: F with β/2 and 2τ gives its iterates
    beta, parameter = (0.5, 2.0) if solver == "proximal" else (1.0, 0.5)
    problem = trace_problem(basis.bulk, basis.reference, proportions, alpha=0.1, beta=beta)
    fit = solve(problem, method(problem, solver, parameter), epsilon=1e-5 * size, max_iter=1000)
    recorded = vignette.run(f"trace_{R_NAMES[solver]}")
    assert fit.converged
    assert fit.loss.shape == recorded["loss_history"].shape
    # measured 4e-14: only rounding differs
    assert relative_error(to_genes(basis, fit.expression), recorded["X_k"]) < 1e-11
    # the residual of the start is zero but for rounding
    assert_allclose(fit.loss[:, :2], recorded["loss_history"][:, :2], rtol=1e-11, atol=1e-20)
    # rounding decides whether a singular value at 1.5e-7·σ₁ counts in R's nuclear norm, each worth 4e-9
    assert_allclose(fit.loss[:, 2] / beta, recorded["loss_history"][:, 2], rtol=1e-8)


@pytest.mark.parametrize("beta", [1, 5, 10, 50])
def test_max_norm_runs_agree_with_r(vignette, published, beta):
    basis, proportions, _ = published
    # R's ADMM has 1/2 in its data terms: F with 2β, 2γ gives its iterates
    problem = norm_problem(basis.bulk, basis.reference, proportions, alpha=0.1, beta=2.0 * beta)
    fit = solve(problem, method(problem, "admm", 2.0), epsilon=1e-3, max_iter=1000)
    recorded = vignette.run(f"admm_l2max_beta{beta}")
    assert fit.loss.shape == recorded["loss_history"].shape
    assert_allclose(fit.loss, recorded["loss_history"], rtol=1e-12, atol=1e-20)
    largest_and_smallest = np.sort(recorded["ratio"], axis=1)
    # differences of nearly equal expressions lose digits: measured 1e-9
    changes = np.column_stack([fit.delta.min(axis=1), fit.delta.max(axis=1)])
    assert_allclose(changes, largest_and_smallest, rtol=1e-7)
    cse = to_genes(basis, fit.expression)
    if "X_k" in recorded:
        assert relative_error(cse, recorded["X_k"]) < 1e-12
    else:
        assert relative_error(cse[:, :, recorded["X_gene_index"].astype(int)], recorded["X_k_sub"]) < 1e-12


@pytest.fixture(scope="module")
def package_inputs(package):
    with package.path("manifest.json").open() as file:
        runs = json.load(file)["runs"]
    bulk = package.table("outputs/bmode_bulk_corrected.csv.gz").to_numpy().T
    reference = package.table("inputs/reference_cpm.csv.gz").to_numpy().T
    return runs, bulk, reference, package.table("outputs/theta_rlr_bmode.csv.gz").to_numpy()


@pytest.mark.parametrize("start", ["zero", "bulk"])
@pytest.mark.parametrize("transform", ["sqrt", "log"])
@pytest.mark.parametrize("solver", list(R_NAMES))
def test_package_edition_agrees_with_r(package, package_inputs, solver, transform, start):
    runs, bulk, reference, proportions = package_inputs
    name = f"trace_{R_NAMES[solver]}_{transform}_init_{start}"
    if name not in runs:
        assert (transform, start) == ("sqrt", "bulk")  # the only combination that was not recorded
        return
    settings = runs[name]
    forward, back = {"sqrt": (np.sqrt, np.square), "log": (log, unlog)}[transform]
    basis = SpanBasis(forward(bulk), forward(reference))
    beta, parameter = (
        (0.5, 2.0 * settings["tao_k"]) if solver == "proximal" else (1.0, settings["gamma_used"])
    )
    problem = trace_problem(basis.bulk, basis.reference, proportions, alpha=settings["alpha"], beta=beta)
    how = method(problem, solver, parameter, start=0.0 if start == "zero" else 1.0)
    fit = solve(problem, how, epsilon=settings["epsilon_used"] * bulk.size, max_iter=settings["max_iter"])
    recorded = package.run(name)
    assert len(fit.delta) == len(recorded["ratio"])
    # R prints the changes with 15 digits, but they are differences of nearly equal numbers: measured 2e-10
    assert_allclose(fit.delta / bulk.size, recorded["ratio"], rtol=1e-8)
    # the same R code moves by 2e-13 when the bulk moves by its last bit; measured 2e-12
    cse = back(np.maximum(to_genes(basis, fit.expression), 0.0))
    assert relative_error(cse, recorded["CSE"]) < 1e-10


def log(counts):
    return np.log2(counts + 1.0)


def unlog(logged):
    return 2.0**logged - 1.0


# ------------------------------------------------------------------------------- against dense linear algebra


def dense_draft(problem, gamma, target):
    """Minimise the quadratic part plus γ/2 ‖P − target‖² by one (nK × nK) system."""
    n, types = problem.proportions.shape
    curvature, alpha = problem.penalty.curvature, problem.alpha
    system = np.zeros((types, n, types, n))
    for k in range(types):
        system[k, :, k, :] += (1.0 - alpha) / n**2
        for i in range(types):
            system[k, np.arange(n), i, np.arange(n)] += alpha * np.prod(
                problem.proportions[:, [k, i]], axis=1
            )
    right = alpha * problem.proportions.T[:, :, None] * problem.bulk
    right += (1.0 - alpha) / n * problem.reference[:, None]
    system = curvature * system.reshape(n * types, -1) + gamma * np.eye(n * types)
    right = curvature * right + gamma * target
    return np.linalg.solve(system, right.reshape(n * types, -1)).reshape(target.shape)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(7, 3, 5), (1, 3, 4), (6, 1, 4), (5, 2, 1)])
@pytest.mark.parametrize("model", list(MODELS))
def test_structured_solution_is_the_dense_one(model, shape, alpha):
    problem = MODELS[model](*simulate(*shape), alpha=alpha)
    cohort = iteration_of(problem, method(problem, "admm"))
    cohort.advance()
    target = cohort.rows._shrunk - cohort.rows._dual
    cohort.advance()
    assert_allclose(cohort.expression, dense_draft(problem, PARAMETERS["admm"], target), atol=1e-11)


def test_one_system_per_cell_type_is_the_dense_one():
    problem, gamma = trace_problem(*simulate(), alpha=0.3), PARAMETERS["admm_fast"]
    bulk, reference, proportions = problem.bulk, problem.reference, problem.proportions
    cohort = iteration_of(problem, method(problem, "admm_fast"))
    cohort.advance()
    old, target = cohort.expression, cohort.rows._shrunk - cohort.rows._dual
    cohort.advance()
    n = len(bulk)
    for k, weights in enumerate(proportions.T):
        others = bulk - mixture(proportions, old) + weights[:, None] * old[k]
        system = np.diag(0.3 * weights**2 + gamma) + 0.7 / n**2
        right = 0.3 * weights[:, None] * others + 0.7 / n * reference[k] + gamma * target[k]
        assert_allclose(cohort.expression[k], np.linalg.solve(system, right), atol=1e-12)


# ----------------------------------------------------------------------------------- one model, many solvers


@pytest.mark.slow
@pytest.mark.parametrize("model", list(MODELS))
def test_solvers_reach_the_same_objective(model):
    problem = MODELS[model](*simulate(n=8, genes=12))
    fits = [run(problem, solver, epsilon=1e-14, max_iter=20000) for solver in ROWS]
    assert all(fit.converged for fit in fits)
    objectives = [problem.objective(fit.expression.swapaxes(0, 1)) for fit in fits]
    assert_allclose(objectives, objectives[0], rtol=1e-6)
    rng = np.random.default_rng(3)
    best = fits[-1].expression.swapaxes(0, 1)
    for size in (1e-3, 1e-1, 1.0):
        other = best + size * rng.standard_normal(best.shape)
        assert problem.objective(other) > min(objectives)


@pytest.mark.slow
@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("solver", list(ROWS))
def test_genes_and_coordinates_give_the_same(model, solver):
    bulk, reference, proportions = simulate()
    basis = SpanBasis(bulk, reference)
    plain = run(MODELS[model](bulk, reference, proportions), solver)
    compressed = run(MODELS[model](basis.bulk, basis.reference, proportions), solver)
    assert_allclose(to_genes(basis, compressed.expression), plain.expression, atol=1e-10)
    # rounding decides whether a singular value of √(n·u)·σ₁ = 6e-8·σ₁ counts in the nuclear norm
    assert_allclose(compressed.loss, plain.loss, rtol=1e-7, atol=1e-20)


def test_loss_rows_of_the_trace_norm_sum_to_the_objective():
    problem = trace_problem(*simulate())
    fit = run(problem, "admm")
    assert_allclose(fit.loss[-1].sum(), problem.objective(fit.expression.swapaxes(0, 1)), rtol=1e-12)


def test_loss_rows_of_the_max_norm_are_unweighted():
    problem = norm_problem(*simulate())
    fit = run(problem, "admm")
    residual = np.einsum("jk,jkd->jd", problem.proportions, fit.expression) - problem.bulk
    lengths = np.linalg.norm(fit.expression, axis=2)
    expected = [np.sum(residual**2), np.sum((fit.expression - problem.reference) ** 2)]
    assert_allclose(fit.loss[-1], [*expected, np.sum(lengths.max(axis=0) ** 2)], rtol=1e-10)


@pytest.mark.parametrize("beta", [0.0, 0.7, 1e12])
def test_cap_minimises_its_proximal_objective(beta):
    rng = np.random.default_rng(5)
    penalty, point = MaxL2Norm(beta), rng.standard_normal((2, 6, 4))

    def objective(candidate):
        return 0.5 * np.sum((candidate - point) ** 2) + 0.4 * penalty.value(Tensor(candidate))

    shrunk = np.empty_like(point)
    penalty.prox(0.4, point, shrunk)
    for size in (1e-4, 1e-1):
        for _ in range(30):
            assert objective(shrunk + size * rng.standard_normal(point.shape)) > objective(shrunk)


# ------------------------------------------------------------------------------------------------ iterations


@pytest.mark.parametrize("solver", list(ROWS))
def test_last_update_is_not_applied(solver):
    problem = trace_problem(*simulate())
    fit = run(problem, solver, epsilon=0.0, max_iter=4)
    assert (len(fit.loss), len(fit.delta), fit.converged) == (4, 4, False)
    cohort = iteration_of(problem, method(problem, solver))
    for _ in range(3):
        cohort.advance()
    assert_array_equal(fit.expression, cohort.expression.swapaxes(0, 1))
    if solver == "accelerated":  # which does not look for a proof that early, and starts elsewhere
        return
    one = run(problem, solver, epsilon=np.inf)
    assert len(one.loss) == 1
    assert one.converged
    assert_array_equal(one.expression, np.repeat(problem.bulk[:, None], 3, axis=1))


def test_monitor_sees_every_iteration_and_may_stop():
    seen = []

    def monitor(delta):
        seen.append(delta)
        return len(seen) == 3

    fit = run(trace_problem(*simulate()), "admm", epsilon=0.0, monitor=monitor)
    assert len(seen) == 3
    assert_array_equal(fit.delta, seen)
    assert not fit.converged


@pytest.mark.parametrize("model", list(MODELS))
def test_divergence_is_an_error(model):
    problem = MODELS[model](*simulate(), beta=1e-3)
    with pytest.raises(FloatingPointError, match="kept growing"):
        solve(problem, method(problem, "proximal", 50.0), epsilon=1e-6, max_iter=10000)


SHAPES = [(1, 3, 5), (6, 1, 5), (6, 3, 1), (1, 1, 1), (9, 2, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("solver", list(ROWS))
def test_extreme_shapes_are_finite_and_replayed(solver, model, shape):
    problem = MODELS[model](*simulate(*shape))
    fit = run(problem, solver)
    assert fit.expression.shape == (shape[0], shape[1], shape[2])
    assert np.all(np.isfinite(fit.loss))
    assert_allclose(fit.replay(problem.bulk, problem.proportions), fit.expression, atol=1e-10)


@pytest.mark.parametrize("beta", [0.0, 1e-9, 1e12])
@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("solver", list(ROWS))
def test_degenerate_cohorts_are_finite_and_replayed(solver, model, beta):
    bulk, reference, proportions = simulate()
    bulk[:7] = bulk[7]  # few different samples
    bulk[3] = 0.0
    proportions[:] = [0.4, 0.6, 0.0]  # one cell type nowhere
    problem = MODELS[model](bulk, reference, proportions, beta=beta)
    fit = run(problem, solver, max_iter=50)
    assert np.all(np.isfinite(fit.expression))
    assert_allclose(fit.replay(bulk, proportions), fit.expression, atol=1e-9)


# ---------------------------------------------------------------------------------------------------- replay


@pytest.mark.slow
@pytest.mark.parametrize("record_limit", [0, 2**30])
@pytest.mark.parametrize("start", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("solver", list(ROWS))
def test_fitted_rows_come_back(solver, model, start, record_limit):
    bulk, reference, proportions = simulate()
    basis = SpanBasis(bulk, reference)
    problem = MODELS[model](basis.bulk, basis.reference, proportions)
    fit = run(problem, solver, start=start, record_limit=record_limit)
    assert fit.replay.n_updates > 2
    assert_allclose(fit.replay(basis.bulk, proportions), fit.expression, atol=1e-11)
    some = [5, 2, 11]
    replayed = fit.replay(basis.bulk[some], proportions[some])
    assert_allclose(replayed, fit.expression[some], atol=1e-11)


def test_replay_repeats_the_cohort_where_the_record_would_be_large():
    problem = trace_problem(*simulate())
    recorded = run(problem, "admm", record_limit=2**30).replay
    repeated = run(problem, "admm", record_limit=2**16).replay
    assert repeated.nbytes == problem.bulk.nbytes + problem.reference.nbytes + problem.proportions.nbytes
    assert recorded.nbytes > 2**16 > repeated.nbytes
    bulk, _, proportions = simulate(seed=8)
    assert_allclose(recorded(bulk, proportions), repeated(bulk, proportions), atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("record_limit", [0, 2**30])
@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("solver", list(ROWS))
def test_rows_outside_the_span_need_one_more_column(solver, model, record_limit):
    bulk, reference, proportions = simulate()
    unseen, _, unseen_proportions = simulate(n=4, seed=9)
    over_genes = run(MODELS[model](bulk, reference, proportions), solver)
    expected = over_genes.replay(unseen, unseen_proportions)

    basis = SpanBasis(bulk, reference)
    problem = MODELS[model](basis.bulk, basis.reference, proportions)
    fit = run(problem, solver, record_limit=record_limit)
    vectors = basis.to_genes(np.eye(basis.bulk.shape[1]))
    inside = unseen @ vectors.T
    outside = unseen - inside @ vectors
    lengths = np.linalg.norm(outside, axis=1)
    assert lengths.min() > 1.0
    replayed = fit.replay(np.column_stack([inside, lengths]), unseen_proportions)
    along = replayed[:, :, -1, None] / lengths[:, None, None] * outside[:, None]
    assert_allclose(replayed[:, :, :-1] @ vectors + along, expected, atol=1e-10)


def test_replay_changes_nothing():
    problem = trace_problem(*simulate())
    fit = run(problem, "admm")
    before = problem.bulk.copy(), problem.proportions.copy(), fit.expression.copy()
    first = fit.replay(problem.bulk, problem.proportions)
    assert_array_equal(fit.replay(problem.bulk, problem.proportions), first)
    for now, then in zip((problem.bulk, problem.proportions, fit.expression), before, strict=True):
        assert_array_equal(now, then)
