"""The accelerated solver: the optimum of F, in fewer iterations, with a proof; and the same rows in replay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skenigma.core.optimize.accelerated import accelerated_gradient, solve_accelerated
from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.descent import Descent
from skenigma.core.optimize.mixture import observe
from skenigma.core.optimize.momentum import Momentum
from skenigma.core.optimize.pair import Metric, Pair, cut_and_compare, take_step
from skenigma.core.optimize.penalties import MaxL2Norm
from skenigma.core.optimize.problem import Problem
from skenigma.core.optimize.solvers import Settings, solve_framed
from skenigma.core.optimize.splitting import solve
from skenigma.core.optimize.start import Start
from skenigma.core.optimize.states import objective
from skenigma.datasets import make_cohort
from tests.core.optimize.cohorts import KINDS, assert_same, awkward, draw, value_of_f

# accuracy that no certificate proves, not even that of an optimum met exactly: all iterations are made
ALL_ITERATIONS = -1.0
# Weights of alpha and beta: the default, weaker and stronger penalties.
WEIGHTS = [(0.1, 1.0), (0.1, 10.0), (0.1, 50.0), (0.1, 200.0), (0.5, 50.0)]


def never(delta):
    return False


def posed(X, R, theta, alpha, beta, compress=True):
    basis = SpanBasis(X, R, compress=compress)
    return Problem(basis.bulk, basis.reference, theta, alpha, MaxL2Norm(beta)), basis


def run(
    X, R, theta, *, alpha=0.5, beta=5.0, epsilon=ALL_ITERATIONS, max_iter=25, compress=True, monitor=never
):
    problem, basis = posed(X, R, theta, alpha, beta, compress)
    return solve_accelerated(problem, basis, Settings(1.0, epsilon, max_iter), monitor)


def plain(X, R, theta, *, alpha=0.5, beta=5.0, max_iter=25):
    """The iteration as its formulas read: whole tensors, every decision from its definition.

    The first step, from P = 0, is not counted and leaves no history.
    """
    n, n_cell_types = theta.shape
    weights = 2 * alpha * theta * theta.sum(axis=1, keepdims=True) + max(2 * (1 - alpha) / n, 1e-8)
    W = weights[:, :, None]
    P = before = np.zeros((n, n_cell_types, X.shape[1]))
    age, momentum, length = 1.0, 0.0, 0.0
    momenta, caps, shifts, gradient_norm, delta = [], [], [], [], []
    while True:
        Y = P + momentum * (P - before)
        e, m = np.einsum("jk,jkg->jg", theta, Y) - X, Y.mean(axis=0) - R
        G1, G2 = 2 * theta[:, :, None] * e[:, None], np.repeat(2 / n * m[None], n, axis=0)
        V = Y - (alpha * G1 + (1 - alpha) * G2) / W
        norms = np.linalg.norm(V, axis=2)
        cap = np.array([plain_cap(v, w, beta) for v, w in zip(norms.T, weights.T, strict=True)])
        proposal = V * np.divide(cap, norms, out=np.ones_like(norms), where=norms > cap)[:, :, None]
        change = proposal - P
        if momenta:
            delta.append(np.sum(change**2, axis=(0, 2)))
            if len(delta) == max_iter:
                break
            gradient_norm.append([np.linalg.norm(G1), np.linalg.norm(G2)])
        momenta.append(momentum)
        caps.append(cap)
        shifts.append((1 - alpha) * G2[0])
        new_length = np.sqrt(np.sum(W * change**2))
        contraction = min(1, new_length / length) if length > 0 else 0
        age = 1.0 if np.sum(W * (Y - proposal) * change) > 0 else (1 + np.sqrt(1 + 4 * age**2)) / 2
        momentum = min((age - 1) / ((1 + np.sqrt(1 + 4 * age**2)) / 2), contraction**2)
        length, before, P = new_length, P, proposal
    recorded = momenta, shifts, caps
    return P, np.reshape(gradient_norm, (-1, 2)), np.array(delta), recorded


def plain_cap(norms, weights, beta):
    """Root of β t = Σ w max(0, v − t): the rows cut are the longest, as many as balance."""
    for lowest in np.sort(norms):
        above = norms >= lowest
        t = np.sum(weights[above] * norms[above]) / (beta + np.sum(weights[above]))
        if t <= lowest:
            return t
    return norms.max()  # nothing is cut but by rounding


def reference_optimum(problem):
    """The optimum, from the splitting method that shares no code with the accelerated one."""
    method = problem.method("admm", 2.0 * problem.alpha * np.mean(problem.proportions**2))
    fit = solve(problem, method, epsilon=1e-26 * np.vdot(problem.bulk, problem.bulk), max_iter=4000)
    return problem.objective(np.ascontiguousarray(fit.expression.swapaxes(0, 1))), fit.expression


def first_at(values, target):
    below = np.flatnonzero(values <= target)
    return int(below[0]) if len(below) else None


def objective_values(solver, problem, basis, step, max_iter):
    """F of every evaluated expression, from the recorded losses and means."""
    values = []
    if solver == "accelerated":
        descent = Descent(problem)
        for _ in range(max_iter):
            update = descent.evaluate()
            values.append(update.value)
            descent.apply(update)
        return np.array(values)
    # the published iteration, dense in the compressed coordinates
    P = np.repeat(problem.bulk[None], len(problem.reference), axis=0)
    rows = problem.method("proximal", step).start_rows(problem.bulk, problem.proportions)
    for _ in range(max_iter):
        values.append(problem.objective(P))
        proposal = rows.reconstruction_step()
        rows.apply_shift(proposal, rows.reference_shift(problem.reference, proposal))
        rows.proximal_step(proposal, lambda v, out: problem.penalty.prox(step, v, out))
        P = rows.expression
    return np.array(values)


def values_and_bounds(problem, max_iter):
    """F of every evaluated expression, and what each evaluation proves."""
    descent, found = Descent(problem), []
    for _ in range(max_iter):
        update = descent.evaluate()
        found.append((update.value, update.bound))
        descent.apply(update)
    return np.transpose(found)


def gamma_cohort(n=60, genes=400, n_cell_types=5):
    """Positive expression, as counts have it: few genes carry most of it."""
    rng = np.random.default_rng(0)
    R = rng.gamma(0.5, 20, genes) * rng.gamma(2.0, 0.5, (n_cell_types, genes))
    theta = rng.dirichlet(np.ones(n_cell_types), n)
    cse = R * rng.gamma(8.0, 1 / 8, (n, n_cell_types, genes))
    return np.einsum("jk,jkg->jg", theta, cse), R, theta


def named_cohort(kind):
    if kind == "gamma":
        return gamma_cohort()
    cohort = make_cohort(100, 1000, 5, random_state=0)
    return cohort.bulk, cohort.reference, cohort.proportions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "alpha", "beta"),
    # those with which the published iteration takes ten iterations and more: there is something to save
    [*(("simulated", *weights) for weights in WEIGHTS), ("gamma", 0.1, 1.0), ("gamma", 0.5, 50.0)],
)
def test_five_times_fewer_iterations_than_the_published_step(kind, alpha, beta):
    problem, basis = posed(*named_cohort(kind), alpha, beta)
    step = 1 / problem.lipschitz_constant()
    fast = objective_values("accelerated", problem, basis, step, 60)
    target = fast.min() * (1 + 1e-8)
    slow = objective_values("proximal", problem, basis, step, 300)
    needed, published = first_at(fast, target), first_at(slow, target)
    assert published is not None  # so the accelerated minimum is not below what the published one attains
    assert 5 * needed <= published


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (0.1, 50.0), (0.5, 5.0), (0.9, 50.0)])
def test_optimum_is_that_of_the_splitting_method(alpha, beta):
    X, R, theta = draw(40, 120, 4)
    problem, basis = posed(X, R, theta, alpha, beta)
    value, P = reference_optimum(problem)
    solution = solve_accelerated(problem, basis, Settings(1.0, 1e-12, 2000), never)
    assert solution.converged
    state = solution.state(X)
    # epsilon bounds what is missing, relative to F
    np.testing.assert_allclose(objective(state, R, alpha, problem.penalty), value, rtol=2e-12)
    # F is flat around its minimum: its accuracy leaves half of the digits of P
    assert_same(state.expand(), basis.to_genes(P.reshape(-1, P.shape[2])).reshape(40, 4, -1), 1e-5)


def test_optimum_is_that_of_the_published_iteration():
    X, R, theta = draw(40, 120, 4)
    problem, basis = posed(X, R, theta, 0.5, 20.0)
    step = 1 / problem.lipschitz_constant()
    published = solve_framed(problem, basis, Settings(step, 1e-24, 3000), never)
    accelerated = solve_accelerated(problem, basis, Settings(1.0, 1e-13, 3000), never)
    assert published.converged
    assert accelerated.converged
    # P is known to the square root of the accuracy of F
    assert_same(accelerated.state(X).expand(), published.state(X).expand(), 1e-6)
    assert 5 * len(accelerated.loss) < len(published.loss)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-5, 1e-8])
def test_certificate_holds_and_is_not_wasteful(epsilon):
    problem, _ = posed(*draw(40, 120, 4), 0.5, 2.0)
    optimum, _ = reference_optimum(problem)
    _, progress, _ = accelerated_gradient(problem, Settings(1.0, epsilon, 1000), never)
    assert progress.converged
    values, bounds = values_and_bounds(problem, len(progress.delta))
    assert max(bounds) <= optimum * (1 + 1e-12) <= values[-1] * (1 + 2e-12)
    assert values[-1] - max(bounds) <= epsilon * values[-1]
    needed = first_at(values, optimum * (1 + epsilon))
    assert len(progress.delta) <= needed + 4


def test_neither_units_nor_the_number_of_iterations_allowed_matter():
    X, R, theta = draw(30, 80, 3)
    solution = run(X, R, theta, epsilon=1e-6, max_iter=500)
    rescaled = run(1e-5 * X, 1e-5 * R, theta, epsilon=1e-6, max_iter=400)
    assert len(solution.loss) == len(rescaled.loss) < 400
    assert_same(1e5 * rescaled.state(1e-5 * X).expand(), solution.state(X).expand(), 1e-12)


def test_metric_bounds_the_curvature_and_touches_it():
    _, _, theta = draw(7, 5, 3)
    theta[0] = [1.0, 0.0, 0.0]
    for alpha in (0.0, 0.3, 1.0):
        metric = Metric.of(Problem(np.zeros((7, 5)), np.zeros((3, 5)), theta, alpha, MaxL2Norm(1.0)))
        hessian = np.zeros((7, 3, 7, 3))
        for j in range(7):
            hessian[j, :, j] += 2 * alpha * np.outer(theta[j], theta[j])
        for k in range(3):
            hessian[:, k, :, k] += 2 * (1 - alpha) / 7**2
        root = np.sqrt(metric.weights(theta)).ravel()
        largest = np.linalg.eigvalsh(hessian.reshape(21, 21) / root / root[:, None])[-1]
        # equality but for the least weight
        np.testing.assert_allclose(largest, 1.0, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.3, 4.0, 1e9])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_weighted_caps_solve_the_proximal_problem(beta, n):
    rng = np.random.default_rng(n)
    V = rng.standard_normal((n, 5)) * rng.uniform(0.1, 3, (n, 1))
    weights = rng.uniform(0.01, 3, n)
    norms = np.linalg.norm(V, axis=1)

    def value(P):
        largest = np.max(np.linalg.norm(P, axis=1)) ** 2
        return 0.5 * weights @ np.sum((P - V) ** 2, axis=1) + 0.5 * beta * largest

    cap = MaxL2Norm(beta).weighted_caps(norms[:, None], weights[:, None])[0]
    P = V * np.minimum(1, cap / norms)[:, None]
    best = value(P)
    for size in (1e-1, 1e-3, 1e-5):
        for _ in range(50):
            assert value(P + size * cap * rng.standard_normal(P.shape)) >= best * (1 - 1e-14)
    if beta == 0:
        np.testing.assert_allclose(P, V, rtol=1e-14)


def test_weighted_caps_with_equal_weights_are_the_published_ones():
    norms = np.random.default_rng(0).uniform(0, 3, (20, 4))
    norms[3] = 0.0
    expected = MaxL2Norm(2.0).caps(norms, 0.7)
    np.testing.assert_allclose(
        MaxL2Norm(2.0).weighted_caps(norms, np.full_like(norms, 1 / 0.7)), expected, rtol=1e-14
    )


def test_momentum_restarts_uphill_and_yields_to_fast_convergence():
    momentum = Momentum()
    assert momentum.value == 0
    for _ in range(20):
        momentum.update(1.0, uphill=False)
    assert momentum.value > 0.8
    momentum.update(1.0, uphill=True)
    assert momentum.value == 0
    for _ in range(20):
        momentum.update(1.0, uphill=False)
    momentum.update(0.5, uphill=False)
    assert momentum.value == 0.25


def test_a_fit_restarts():
    X, R, theta = draw(60, 200, 4)
    solution = run(X, R, theta, alpha=0.9, beta=1.0, epsilon=1e-9, max_iter=1000)
    assert solution.converged
    momenta = solution.fitted_map().trajectory.momenta
    restarts = np.flatnonzero((momenta[1:] == 0) & (momenta[:-1] > 0))
    assert len(restarts) >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_equals_plain_on_awkward_cohorts(kind):
    X, R, theta = awkward(kind)
    P, _, _, _ = plain(X, R, theta)
    for compress in (True, False):
        solution = run(X, R, theta, compress=compress)
        assert_same(solution.state(X).expand(), P, 1e-10)
        assert_same(solution.fitted_map().replay(X, theta).expand(), P, 1e-10)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 25),
    genes=st.integers(1, 60),
    n_cell_types=st.integers(1, 6),
    alpha=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    beta=st.sampled_from([0.0, 1.0, 50.0]),
    seed=st.integers(0, 2**16),
)
def test_compressed_equals_plain(n, genes, n_cell_types, alpha, beta, seed):
    X, R, theta = draw(n, genes, n_cell_types, seed)
    options = {"alpha": alpha, "beta": beta, "max_iter": 12}
    P, gradient_norm, delta, _ = plain(X, R, theta, **options)
    solution = run(X, R, theta, **options)
    assert_same(solution.state(X).expand(), P, 1e-10)
    assert_same(run(X, R, theta, compress=False, **options).state(X).expand(), P, 1e-10)
    # what cancels to rounding is noise in both
    size = np.linalg.norm(X) + np.linalg.norm(R)
    np.testing.assert_allclose(solution.gradient_norm, gradient_norm, rtol=1e-8, atol=1e-12 * size)
    np.testing.assert_allclose(solution.delta, delta, rtol=1e-6, atol=1e-12 * size**2)


@pytest.mark.slow
def test_growing_and_shrinking_frames_change_nothing():
    """More dimensions than are followed from the start: directions join, and are dropped, on the way."""
    X, R, theta = draw(150, 400, 4)
    P, gradient_norm, delta, _ = plain(X, R, theta, beta=1.0, max_iter=60)
    solution = run(X, R, theta, beta=1.0, max_iter=60)
    found = solution.fitted_map()
    assert_same(solution.state(X).expand(), P, 1e-10)
    assert_same(found.replay(X, theta).expand(), P, 1e-10)
    np.testing.assert_allclose(solution.gradient_norm, gradient_norm, rtol=1e-9)
    np.testing.assert_allclose(solution.delta, delta, rtol=1e-8)
    vectors = found.trajectory.vectors
    assert 4 < len(vectors) < 154
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-12)


def test_a_step_and_its_change_follow_the_formulas_beyond_the_frame():
    """Few directions and much outside them, against whole vectors."""
    X, _, theta = draw(9, 50, 3)
    rng = np.random.default_rng(1)
    vectors = np.linalg.qr(rng.standard_normal((50, 4)))[0].T
    samples = observe(X, vectors, theta)
    pair = Pair(samples, Start(0.0))
    pair.swap()
    pair.expression.rows[:, :-1] = rng.standard_normal((9, 6, 5))
    outside = X - X @ vectors.T @ vectors

    def dense(half):
        rows = pair.expression.rows[:, half]
        return rows[:, :, 1:] @ vectors + (rows[:, :, :1] / samples.lengths[:, None, None]) * outside[:, None]

    P, before = dense(pair.current), dense(pair.other)
    metric, shift = Metric(0.6, 0.1), rng.standard_normal((3, 4))
    step = take_step(samples, pair, 0.7, metric, shift)
    Y = P + 0.7 * (P - before)
    e = np.einsum("jk,jkg->jg", theta, Y) - X
    gradient = 2 * 0.3 * theta[:, :, None] * e[:, None] + shift @ vectors
    V = Y - gradient / (0.6 * theta * theta.sum(axis=1, keepdims=True) + 0.1)[:, :, None]
    np.testing.assert_allclose(dense(pair.other), V, atol=1e-12)
    np.testing.assert_array_equal(dense(pair.current), P)
    np.testing.assert_allclose(step.norms, np.linalg.norm(V, axis=2), rtol=1e-12)
    np.testing.assert_allclose(step.gradients, np.linalg.norm(gradient, axis=2), rtol=1e-12)

    change = cut_and_compare(samples, pair, step, np.full((9, 3), 0.5))
    np.testing.assert_allclose(dense(pair.other), V / 2, atol=1e-12)
    rest = np.einsum("jk,jkd->jd", theta, P) - X
    np.testing.assert_allclose(change.at_rest, np.sum(rest**2, axis=1), rtol=1e-12)
    np.testing.assert_allclose(change.squared, np.sum((V / 2 - P) ** 2, axis=2), rtol=1e-12)
    np.testing.assert_allclose(change.radial, np.sum((V / 2 - P) * V / 2, axis=2), atol=1e-10)
    np.testing.assert_allclose(change.mixed, np.einsum("jk,jkg,jg->", theta, V / 2 - P, e), rtol=1e-12)
    np.testing.assert_allclose(change.shared, (V / 2 - P).sum(axis=0) @ vectors.T, atol=1e-12)


def test_lower_bound_is_that_of_fenchel_duality():
    X, R, theta = draw(150, 400, 4)
    alpha, beta = 0.5, 50.0
    values, bounds = values_and_bounds(posed(X, R, theta, alpha, beta)[0], 3)
    momenta = plain(X, R, theta, beta=beta, max_iter=4)[3][0]
    P = 0.0
    for count, (value, bound) in enumerate(zip(values, bounds, strict=True), start=1):
        before, P = P, plain(X, R, theta, beta=beta, max_iter=count)[0]
        Y = P + momenta[count] * (P - before)
        u = 2 * alpha * (np.einsum("jk,jkg->jg", theta, Y) - X)
        y = 2 * (1 - alpha) * (Y.mean(axis=0) - R)
        lengths = np.linalg.norm(theta[:, :, None] * u[:, None] + y / len(X), axis=2)
        curvature = np.sum(u**2) / (4 * alpha) + np.sum(y**2) / (4 * (1 - alpha))
        curvature += np.sum(lengths.sum(axis=0) ** 2) / (2 * beta)
        slope = np.sum(u * X) + np.sum(y * R)
        scales = np.linspace(
            0.0, 2.0, 2_000_001
        )  # of the gradients; a step of 1e-6 is 1e-12 of a smooth maximum
        expected = np.max(-(scales**2) * curvature - scales * slope)
        np.testing.assert_allclose(bound, expected, rtol=1e-10)
        np.testing.assert_allclose(value, value_of_f(P, X, R, theta, alpha, beta), rtol=1e-12)
    assert max(bounds) > 0
    assert momenta[3] > 0


def test_losses_are_those_of_the_expression_that_is_returned():
    X, R, theta = draw(20, 60, 3)
    solution = run(X, R, theta, max_iter=9)
    P = solution.state(X).expand()
    e = np.einsum("jk,jkg->jg", theta, P) - X
    expected = [np.sum(e**2), np.sum((P - R) ** 2), np.sum(np.max(np.sum(P**2, axis=2), axis=0))]
    assert solution.loss.shape == (9, 3)
    np.testing.assert_allclose(solution.loss[-1], expected, rtol=1e-11)
    problem, _ = posed(X, R, theta, 0.5, 5.0)
    values, _ = values_and_bounds(problem, 9)
    np.testing.assert_allclose(values[-1], value_of_f(P, X, R, theta, 0.5, 5.0), rtol=1e-12)


def test_replay_ignores_other_rows_and_their_order():
    X, R, theta = draw(150, 300, 4)
    solution = run(X, R, theta, beta=1.0, max_iter=40)
    fitted = solution.fitted_map()
    again = fitted.replay(X, theta).expand()
    assert_same(again, solution.state(X).expand(), 1e-10)
    some = [17, 3, 140]
    alone = fitted.replay(X[some], theta[some]).expand()
    np.testing.assert_allclose(alone, again[some], rtol=1e-11, atol=1e-12)


def test_replay_of_new_rows_follows_the_formulas():
    X, R, theta = draw(25, 120, 3)
    alpha, solution = 0.5, run(X, R, theta, max_iter=20)
    momenta, shifts, caps = plain(X, R, theta, max_iter=20)[3]
    new, _, new_theta = draw(4, 120, 3, seed=99)
    weights = 2 * alpha * new_theta * new_theta.sum(axis=1, keepdims=True) + 2 * (1 - alpha) / 25
    P = before = np.zeros((4, 3, 120))
    for momentum, shift, cap in zip(momenta, shifts, caps, strict=True):
        Y = P + momentum * (P - before)
        e = np.einsum("jk,jkg->jg", new_theta, Y) - new
        V = Y - (2 * alpha * new_theta[:, :, None] * e[:, None] + shift) / weights[:, :, None]
        norms = np.linalg.norm(V, axis=2)
        before, P = P, V * np.minimum(1, cap / norms)[:, :, None]
    state = solution.fitted_map().replay(new, new_theta)
    assert_same(state.expand(), P, 1e-11)
    np.testing.assert_allclose(state.norms(), np.linalg.norm(P, axis=2), rtol=1e-10)


def test_without_penalty_the_data_are_met():
    X, R, theta = draw(20, 60, 3)
    solution = run(X, R, theta, beta=0.0, epsilon=1e-12, max_iter=2000)
    assert solution.converged
    value = value_of_f(solution.state(X).expand(), X, R, theta, 0.5, 0.0)
    assert value <= 1e-12 * (0.5 * np.sum(X**2) + 0.5 * np.sum(R**2))


def test_one_sample_of_one_cell_type_has_the_answer_on_paper():
    X, R = np.array([[3.0, 4.0]]), np.array([[6.0, 8.0]])
    solution = run(X, R, np.ones((1, 1)), alpha=0.25, beta=2.0, epsilon=1e-14, max_iter=200)
    # 1/4 ‖p − x‖² + 3/4 ‖p − r‖² + ‖p‖² is least at p = (x/4 + 3r/4) / 2; F to 1e-14 leaves 1e-7 of p
    np.testing.assert_allclose(solution.state(X).expand()[0, 0], (X[0] + 3 * R[0]) / 8, rtol=1e-6)


def test_a_cohort_of_zeros_is_its_own_answer():
    X, R, theta = awkward("all zero")
    solution = run(X, R, theta, epsilon=1e-8)
    assert solution.converged
    assert len(solution.loss) == 1
    np.testing.assert_array_equal(solution.state(X).expand(), 0)


def test_monitor_may_stop():
    seen = []

    def monitor(delta):
        seen.append(delta)
        return len(seen) == 4

    solution = run(*draw(10, 30, 2), max_iter=50, monitor=monitor)
    assert len(solution.loss) == 4
    assert not solution.converged
    np.testing.assert_array_equal(solution.delta, seen)
    assert solution.gradient_norm.shape == (3, 2)


def test_one_iteration_returns_the_start():
    """A step from nothing: a mixture of sample and reference, of which the longest are cut."""
    X, R, theta = draw(10, 30, 2)
    solution = run(X, R, theta, max_iter=1)
    mixture = theta[:, :, None] * X[:, None] + 0.1 * R
    weights = theta * theta.sum(axis=1, keepdims=True) + 0.1
    start = mixture / weights[:, :, None]
    norms = np.linalg.norm(start, axis=2)
    caps = [plain_cap(v, w, 5.0) for v, w in zip(norms.T, weights.T, strict=True)]
    start *= np.minimum(1, caps / norms)[:, :, None]
    assert_same(solution.state(X).expand(), start, 1e-12)
    assert_same(solution.fitted_map().replay(X, theta).expand(), start, 1e-12)
    assert solution.gradient_norm.shape == (0, 2)


def test_what_overflows_is_refused():
    X, R, theta = draw(10, 30, 2)
    with pytest.raises(FloatingPointError, match="infinite"):
        run(1e200 * X, R, theta, compress=False)


def test_rescaled_gradients_are_refused():
    problem, basis = posed(*draw(10, 30, 2), 0.5, 1.0)
    with pytest.raises(ValueError, match="renorm_size must be None"):
        solve_accelerated(problem, basis, Settings(1.0, 1e-3, 10, renorm_size=200.0), never)


def test_float32_in_and_out():
    X, R, theta = draw(20, 60, 3)
    solution = run(X, R, theta)
    single = solution.state(X.astype(np.float32)).expand()
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, solution.state(X).expand(), atol=1e-5)
