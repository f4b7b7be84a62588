"""Every penalty keeps what the module of penalties promises, and every solver that takes it finds its minimum."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.penalties import (
    CapMap,
    Conjugate,
    MaxL2Norm,
    Norms,
    Penalty,
    TraceNorm,
    apply_maps,
)
from skenigma.core.optimize.registry import SOLVERS, find_solver
from skenigma.core.optimize.solvers import Settings
from skenigma.core.optimize.spectrum import IdentityMap
from skenigma.core.optimize.splitting import ROWS, Problem, solve
from skenigma.core.optimize.states import Tensor, objective
from tests.penalties import GroupLasso, MaxNorm, Ridge

PENALTIES = {
    "max_l2": lambda theta: MaxL2Norm(3.0),
    "trace": lambda theta: TraceNorm(2.0, theta.mean(axis=0)),
    "max": lambda theta: MaxNorm(6.0),
    "group lasso": lambda theta: GroupLasso(3.0),
    "ridge": lambda theta: Ridge(0.4),
}
N, K, G = 12, 3, 30


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(1)
    theta = rng.dirichlet(np.ones(K), N)
    reference = rng.gamma(2.0, size=(K, G))
    return theta @ reference + 0.5 * rng.standard_normal((N, G)), reference, theta


@pytest.fixture(params=list(PENALTIES))
def penalty(request, cohort):
    return PENALTIES[request.param](cohort[2])


STEPS = [0.3, np.array([0.3, 1.7, 0.05])]


def prox(penalty, step, point):
    found = np.full_like(point, np.nan)
    return found, penalty.prox(step, point, found)


def proximal_objective(penalty, step, point):
    """Per-cell-type steps are weights 1/step of the squared distance."""
    weights = np.broadcast_to(1.0 / np.asarray(step), K)

    def value(candidate):
        squares = np.einsum("kjd,kjd->k", candidate - point, candidate - point)
        return penalty.value(Tensor(candidate)) + 0.5 * weights @ squares

    return value


@pytest.mark.parametrize("step", STEPS, ids=["one step", "a step per cell type"])
def test_proximal_operator_minimises(penalty, step, rng):
    point = rng.standard_normal((K, 6, 5))
    found, _ = prox(penalty, step, point)
    value = proximal_objective(penalty, step, point)
    best = value(found)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(40):
            # a minimum up to the rounding of the values that are compared
            assert value(found + size * rng.standard_normal(point.shape)) >= best * (1 - 1e-14)
    assert value(point) > best  # it does something


@pytest.mark.parametrize("step", STEPS, ids=["one step", "a step per cell type"])
def test_proximal_operator_does_not_expand_distances(penalty, step, rng):
    weights = np.broadcast_to(1.0 / np.asarray(step), K)[:, None, None]
    for _ in range(40):
        first = rng.standard_normal((K, 6, 5)) * rng.uniform(0.1, 3)
        second = first + rng.standard_normal(first.shape) * rng.uniform(0.01, 2)
        moved = [prox(penalty, step, point)[0] for point in (first, second)]
        before, after = (np.sum(weights * (a - b) ** 2) for a, b in ((first, second), moved))
        assert after <= before * (1 + 1e-12)


def test_value_is_convex_and_vanishes_at_zero(penalty, rng):
    assert penalty.value(Tensor(np.zeros((K, 4, 5)))) == 0
    for _ in range(20):
        first, second = rng.standard_normal((2, K, 4, 5))
        middle = penalty.value(Tensor(0.5 * (first + second)))
        assert middle <= 0.5 * (penalty.value(Tensor(first)) + penalty.value(Tensor(second))) * (1 + 1e-12)


def test_maps_of_rows_repeat_the_operator_row_by_row(penalty, rng):
    point = rng.standard_normal((K, 9, 5))
    found, maps = prox(penalty, 0.5, point)
    alone = np.empty_like(point)
    for j in range(9):
        one = np.empty((K, 1, 5))
        apply_maps(maps, point[:, [j]], one)
        alone[:, j] = one[:, 0]
    assert_allclose(alone, found, atol=1e-13)


@pytest.mark.parametrize("n_rows", [4, 40], ids=["fewer samples than dimensions", "more"])
def test_summaries_of_blocks_add_up(penalty, rng, n_rows):
    """A cohort in pieces has the operator of the cohort in one piece."""
    point = rng.standard_normal((K, n_rows, 8))
    whole, _ = prox(penalty, 0.5, point)
    blocks = np.array_split(point, 3, axis=1)
    summary = penalty.summarise(blocks[0])
    for block in blocks[1:]:
        summary = summary + penalty.summarise(block)
    maps = penalty.maps(summary, 0.5)
    pieces = []
    for block in blocks:
        pieces.append(np.empty_like(block))
        apply_maps(maps, block, pieces[-1])
    assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-12)


def test_input_may_be_overwritten(penalty, rng):
    point = rng.standard_normal((K, 6, 5))
    expected, _ = prox(penalty, 0.5, point)
    penalty.prox(0.5, point, point)
    assert_allclose(point, expected, atol=1e-14)


def test_conjugate_is_the_supremum_along_the_ray(penalty, rng):
    """Fenchel and Young: <P, λG> never exceeds penalty(P) + λ² quadratic within the limit, and comes near it."""
    gradient = rng.standard_normal((K, 6, 5))
    conjugate = penalty.conjugate(Tensor(gradient))
    scale = min(conjugate.limit, 1.7)
    assert scale > 0
    best = -np.inf
    for step in (1e-3, 1.0, 1e3, 1e6):  # points that the operator leads to are where the supremum is
        point, _ = prox(penalty, step, step * scale * gradient)
        excess = (
            scale * np.vdot(point, gradient) - penalty.value(Tensor(point)) - scale**2 * conjugate.quadratic
        )
        assert excess <= 1e-9 * (1 + abs(penalty.value(Tensor(point))))
        best = max(best, excess / (1 + scale**2 * conjugate.quadratic))
    assert best > -1e-2
    if np.isfinite(conjugate.limit):  # beyond the limit it is infinite
        point, _ = prox(penalty, 1e6, 1e6 * 1.5 * conjugate.limit * gradient)
        assert 1.5 * conjugate.limit * np.vdot(point, gradient) > penalty.value(Tensor(point)) + 1.0


def test_bound_is_the_best_along_the_ray():
    grid = np.linspace(0, 2, 400_001)
    for conjugate, squares, products in [
        (Conjugate(0.0, 0.7), 1.3, -2.0),
        (Conjugate(0.0, 5.0), 1.3, -2.0),
        (Conjugate(0.4, np.inf), 1.3, -2.0),
        (Conjugate(0.4, np.inf), 1.3, 2.0),
    ]:
        scales = np.append(grid[grid <= conjugate.limit], min(conjugate.limit, 2.0))
        expected = np.max(-(scales**2) * (squares + conjugate.quadratic) - scales * products)
        # a grid of 5e-6 misses a smooth maximum by its square
        assert_allclose(conjugate.bound(squares, products), expected, atol=1e-9)
    assert Conjugate(0.0, 0.0).bound(1.0, -1.0) is None
    assert Conjugate(0.0, 1.0).bound(0.0, 0.0) == 0.0


# ------------------------------------------------------------------------------------------ penalty × solver


def pose(cohort, penalty, alpha=0.4):
    bulk, reference, theta = cohort
    basis = SpanBasis(bulk, reference)
    return Problem(basis.bulk, basis.reference, theta, alpha, penalty), basis


def minimum(problem):
    """The least value of F, by the alternating direction method run until nothing moves."""
    gamma = problem.penalty.curvature * problem.alpha * np.mean(problem.proportions**2)
    fit = solve(problem, problem.method("admm", 4 * gamma), epsilon=1e-26, max_iter=20000)
    return problem.objective(fit.expression.swapaxes(0, 1))


def run(name, problem, basis):
    solver = SOLVERS[name]
    parameter = 1.0
    if solver.parameter == "gamma":
        parameter = problem.penalty.curvature * problem.alpha * np.mean(problem.proportions**2)
    elif solver.parameter == "tao_k":
        parameter = solver.automatic(problem, None)
    epsilon = 1e-9 if solver.certifies else 1e-22
    settings = Settings(parameter, epsilon, max_iter=30000)
    return find_solver(name, problem.penalty)(problem, basis, settings, lambda delta: False)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOLVERS))
def test_every_solver_reaches_the_same_minimum(cohort, penalty, name):
    problem, basis = pose(cohort, penalty)
    solution = run(name, problem, basis)
    assert solution.converged
    value = objective(solution.state(cohort[0]), cohort[1], problem.alpha, penalty)
    # 1e-6 is what all must agree to; they stop at changes, or proven gaps, far below
    assert_allclose(value, minimum(problem), rtol=1e-6)
    assert solution.loss.shape == (len(solution.delta), 3)
    fitted, again = solution.state(cohort[0]), solution.fitted_map().replay(cohort[0], cohort[2])
    assert_allclose(again.expand(), fitted.expand(), atol=1e-9)


def test_summands_of_the_objective_are_the_record_unless_the_penalty_has_its_own(cohort):
    problem, basis = pose(cohort, MaxNorm(6.0))
    for name in SOLVERS:  # framed and split ones
        solution = run(name, problem, basis)
        value = objective(solution.state(cohort[0]), cohort[1], problem.alpha, problem.penalty)
        assert_allclose(solution.loss[-1].sum(), value, rtol=1e-10)


class OnlyProx:
    """What the smallest penalty offers: half the squared norm, with a 2 in the data terms."""

    curvature = 2.0

    def value(self, expression):
        return 0.5 * float(np.sum(expression.norms() ** 2))

    def prox(self, step, expression, out):
        np.multiply(expression, 1.0 / (1.0 + step), out=out)
        return (CapMap(np.inf),) * len(expression)


class WithCaps(OnlyProx):
    """The unsquared maximum norm with the one method more that the framed iteration asks for."""

    curvature = 1.0

    def value(self, expression):
        return MaxNorm(6.0).value(expression)

    def prox(self, step, expression, out):
        return MaxNorm(6.0).prox(step, expression, out)

    def caps(self, norms, step):
        return MaxNorm(6.0).caps(norms, step)


def test_solvers_refuse_what_they_need_and_is_not_there():
    assert callable(find_solver("admm", OnlyProx()))
    with pytest.raises(
        ValueError, match=r"'accelerated' needs .* OnlyProx does not offer: conjugate.*'proximal'"
    ):
        find_solver("accelerated", OnlyProx())
    with pytest.raises(ValueError, match=r"does not offer: conjugate"):
        find_solver("accelerated", WithCaps())
    with pytest.raises(ValueError, match=r"MaxNorm|curvature, value, prox"):
        find_solver("admm", object())
    with pytest.raises(ValueError, match=r"no solver 'newton'. Known are 'proximal'"):
        find_solver("newton", OnlyProx())


def test_a_penalty_with_caps_is_solved_with_its_own_curvature(cohort):
    """Curvature and squares used to be written into the framed iteration."""
    problem, basis = pose(cohort, WithCaps())
    least = minimum(problem)
    for name in ("proximal", "admm", "admm_fast"):
        value = objective(
            run(name, problem, basis).state(cohort[0]), cohort[1], problem.alpha, problem.penalty
        )
        assert_allclose(value, least, rtol=1e-6)


@pytest.mark.parametrize("name", ["trace", "group lasso", "max", "max_l2"])
def test_certificate_is_true_and_not_wasteful(cohort, name):
    penalty = PENALTIES[name](cohort[2])
    problem, basis = pose(cohort, penalty)
    least = minimum(problem)
    lengths = []
    for epsilon in (1e-2, 1e-4, 1e-6):
        solution = find_solver("accelerated", penalty)(
            problem, basis, Settings(1.0, epsilon, 5000), lambda delta: False
        )
        assert solution.converged
        value = objective(solution.state(cohort[0]), cohort[1], problem.alpha, penalty)
        assert least * (1 - 1e-9) <= value <= least / (1 - epsilon)
        lengths.append(len(solution.delta))
    assert lengths == sorted(lengths)
    assert lengths[-1] < 1000


def test_without_weight_nothing_is_proven_but_zero(cohort):
    penalty = TraceNorm(0.0, cohort[2].mean(axis=0))
    problem, basis = pose(cohort, penalty)
    solution = find_solver("accelerated", penalty)(
        problem, basis, Settings(1.0, 1e-8, 5000), lambda delta: False
    )
    assert solution.converged  # a share of F at P = 0, as the minimum is 0
    assert (
        objective(solution.state(cohort[0]), cohort[1], problem.alpha, penalty)
        < 1e-8 * problem.value_of_nothing()
    )


def test_steps_of_the_accelerated_rows_bound_the_curvature(cohort):
    theta = cohort[2]
    for alpha in (0.0, 0.3, 1.0):
        problem = Problem(np.zeros((N, 4)), np.zeros((K, 4)), theta, alpha, Ridge(1.0))
        weights = ROWS["accelerated"].weights(problem)
        hessian = np.zeros((N, K, N, K))
        for j in range(N):
            hessian[j, :, j] += alpha * np.outer(theta[j], theta[j])
        for k in range(K):
            hessian[:, k, :, k] += (1 - alpha) / N**2
        root = np.tile(np.sqrt(weights), N)
        largest = np.linalg.eigvalsh(hessian.reshape(N * K, -1) / root / root[:, None])[-1]
        assert 0.5 < largest <= 1 + 1e-12


def test_norms_of_a_block_are_penalised_as_the_block(rng):
    block = rng.standard_normal((K, 6, 5))
    for penalty in (MaxL2Norm(2.0), MaxNorm(2.0)):
        assert_allclose(penalty.value(penalty.summarise(block)), penalty.value(Tensor(block)), rtol=1e-14)
    assert isinstance(MaxL2Norm(2.0).summarise(block), Norms)


def test_a_weight_of_zero_leaves_rows_alone(rng):
    maps = TraceNorm(0.0, np.ones(K)).maps(
        TraceNorm(0.0, np.ones(K)).summarise(rng.standard_normal((K, 4, 5))), 1.0
    )
    assert all(isinstance(row_map, IdentityMap) for row_map in maps)


def test_own_penalties_derive_their_operator():
    assert issubclass(MaxNorm, Penalty)
    assert "prox" not in vars(MaxNorm)
