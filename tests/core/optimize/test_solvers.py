"""The compressed solver against the plain iteration, and its parts against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain import l2max_proximal
from skenigma.core import blocks
from skenigma.core.blocks import row_blocks
from skenigma.core.optimize import frame, part
from skenigma.core.optimize import trajectory as trajectory_module
from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.mixture import lipschitz_constant, observe, survey
from skenigma.core.optimize.penalties import MaxL2Norm
from skenigma.core.optimize.solvers import Settings, solve_framed
from skenigma.core.optimize.splitting import Problem
from skenigma.core.optimize.start import Start
from skenigma.core.optimize.states import objective
from skenigma.core.profiles import successive_projection
from tests.core.optimize.cohorts import KINDS, assert_same, awkward, draw, value_of_f

EPS = np.finfo(np.float64).eps


def run(X, R, theta, *, compress=True, monitor=lambda delta: False, **changes):
    """Solution, trajectory and vectors over genes, expression."""
    options = {"alpha": 0.1, "beta": 50.0, "step": 1.0, "epsilon": 0.0, "max_iter": 30} | changes
    basis = SpanBasis(X, R, compress=compress)
    penalty, alpha = MaxL2Norm(options.pop("beta")), options.pop("alpha")
    problem = Problem(basis.bulk, basis.reference, theta, alpha, penalty)
    solver_settings = Settings(parameter=options.pop("step"), **options)
    solution = solve_framed(problem, basis, solver_settings, monitor)
    return solution, solution.fitted_map().trajectory, solution.state(X).expand()


def plain(X, R, theta, **changes):
    options = {"alpha": 0.1, "beta": 50.0, "tao_k": 1.0, "renorm_size": None, "epsilon": 0.0, "max_iter": 30}
    return l2max_proximal(X, R, theta, **(options | changes))


@pytest.mark.parametrize("renorm_size", [None, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_compressed_equals_plain_on_awkward_cohorts(kind, renorm_size):
    X, R, theta = awkward(kind)
    P, loss, _, _ = plain(X, R, theta, renorm_size=renorm_size)
    for compress in (True, False):
        solution, _, cse = run(X, R, theta, compress=compress, renorm_size=renorm_size)
        # 1e-12 is the promise; rounding over 30 iterations leaves about 1e-14
        assert_same(cse, P, 1e-12)
        scale = np.max(loss, axis=0, keepdims=True)
        np.testing.assert_allclose(
            solution.loss / np.where(scale > 0, scale, 1),
            loss / np.where(scale > 0, scale, 1),
            rtol=0,
            atol=1e-12,
        )


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 25),
    genes=st.integers(1, 60),
    n_cell_types=st.integers(1, 6),
    renorm_size=st.sampled_from([None, 1.0, 20.0]),
    alpha=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    beta=st.sampled_from([0.0, 1.0, 50.0]),
    seed=st.integers(0, 2**16),
)
def test_compressed_equals_plain(n, genes, n_cell_types, renorm_size, alpha, beta, seed):
    X, R, theta = draw(n, genes, n_cell_types, seed)
    # a step that is safe at any alpha: a diverging pair would differ by its growth, not by compression
    step = 0.5 / lipschitz_constant(theta, alpha) if renorm_size is None else 0.1
    options = {"alpha": alpha, "beta": beta, "renorm_size": renorm_size, "max_iter": 20}
    P, _, gradient_norm, delta = plain(X, R, theta, tao_k=step, **options)
    solution, _, cse = run(X, R, theta, step=step, **options)
    uncompressed = run(X, R, theta, step=step, compress=False, **options)[2]
    assert_same(cse, P, 1e-12)
    assert_same(uncompressed, P, 1e-12)
    # gradients and changes that cancel to rounding are noise in both
    size = np.linalg.norm(X)
    np.testing.assert_allclose(solution.gradient_norm, gradient_norm, rtol=1e-9, atol=1e-13 * size)
    np.testing.assert_allclose(solution.delta, delta, rtol=1e-9, atol=1e-13 * size**2)


@pytest.mark.slow
def test_long_runs_stay_equal():
    X, R, theta = draw(60, 400, 8)
    for renorm_size, max_iter in ((None, 200), (50.0, 60)):
        P, loss, gradient_norm, delta = plain(X, R, theta, renorm_size=renorm_size, max_iter=max_iter)
        solution, found, cse = run(X, R, theta, renorm_size=renorm_size, max_iter=max_iter)
        vectors = found.vectors
        assert_same(cse, P, 1e-12)
        np.testing.assert_allclose(solution.loss[1:], loss[1:], rtol=1e-11)
        np.testing.assert_allclose(solution.gradient_norm[1:], gradient_norm[1:], rtol=1e-10)
        # far below the first change, what rounding leaves in P decides
        np.testing.assert_allclose(solution.delta, delta, rtol=1e-8, atol=1e-20 * delta[0].max())
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-12)


@pytest.mark.parametrize("renorm_size", [None, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_growing_and_reduced_frame_equals_plain(monkeypatch, kind, renorm_size):
    """Small cohorts start with all directions there are; here they too must find and drop theirs."""
    monkeypatch.setattr(frame, "FIRST_REDUCTION", 6)
    monkeypatch.setattr(frame, "WHOLE", 0)
    X, R, theta = awkward(kind)
    P, loss, _, _ = plain(X, R, theta, renorm_size=renorm_size)
    solution, found, cse = run(X, R, theta, renorm_size=renorm_size)
    assert_same(cse, P, 1e-12)
    np.testing.assert_allclose(solution.loss, loss, rtol=1e-11, atol=1e-12 * np.max(loss))
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(len(found.vectors)), atol=1e-12)


@pytest.mark.parametrize("renorm_size", [None, 50.0])
def test_cohorts_larger_than_the_frame_equal_plain(renorm_size):
    X, R, theta = draw(170, 400, 5)
    P, loss, gradient_norm, delta = plain(X, R, theta, renorm_size=renorm_size, max_iter=60)
    solution, found, cse = run(X, R, theta, renorm_size=renorm_size, max_iter=60)
    assert_same(cse, P, 1e-12)
    np.testing.assert_allclose(solution.loss[1:], loss[1:], rtol=1e-11)
    np.testing.assert_allclose(solution.gradient_norm[1:], gradient_norm[1:], rtol=1e-10)
    np.testing.assert_allclose(solution.delta, delta, rtol=1e-8, atol=1e-20 * delta[0].max())
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(len(found.vectors)), atol=1e-12)
    again = solution.fitted_map().replay(X, theta).expand()
    assert_same(again, cse, 1e-10)


@pytest.mark.parametrize("n_joins", [1, 5, 11])
@pytest.mark.parametrize("renorm_size", [None, 50.0])
@pytest.mark.parametrize("factor", [1.0, 0.3], ids=["bulk", "bulk and profiles"])
def test_iterations_that_go_on_in_shorter_rows_equal_those_that_do_not(
    monkeypatch, n_joins, renorm_size, factor
):
    X, R, theta = draw(40, 500, 3)
    monkeypatch.setattr("skenigma.core.optimize.frame.WHOLE", 0)
    monkeypatch.setattr("skenigma.core.optimize.basis.WORTH_A_JOIN", 40 / 3 / n_joins)
    moves = []
    move = frame.Frame.move
    monkeypatch.setattr(
        frame.Frame, "move", lambda self, basis: moves.append(self.n_joins) or move(self, basis)
    )
    start = Start(factor, None if factor == 1 else 0.2 * R)
    asked = Settings(parameter=1.0, epsilon=0.0, max_iter=30, renorm_size=renorm_size)

    def fit(basis, problem):
        return solve_framed(problem, basis, asked, lambda delta: False)

    bases = [SpanBasis(X, R, compress=False) for _ in range(2)]
    bases[1].shorter = None
    problem = Problem(bases[0].rows, R, theta, 0.1, MaxL2Norm(50.0), start)
    found = fit(bases[0], problem), fit(bases[0], problem)
    assert moves == [n_joins, 0]  # a second run need not wait
    expected = fit(bases[1], problem)
    assert len(moves) == 2
    for solution in found:
        # what has not joined, or was dropped, is 1e-12 of a sample
        assert_same(solution.state(X).expand(), expected.state(X).expand(), 1e-11)
        assert_same(solution.loss[1:], expected.loss[1:], 1e-10)
        replayed = solution.fitted_map().replay(X, theta)
        assert_same(replayed.expand(), expected.state(X).expand(), 1e-10)


def test_probes_follow_what_lies_outside_the_frame():
    """A frame that grows and is reduced keeps estimating what is outside: a wrong estimate costs time or digits."""
    X, R, theta = draw(150, 400, 4)
    cohort = frame.Frame(X, R, theta, Start())
    for length in (1.0, 1e-3, 1e-6):
        weights = length * np.random.default_rng(1).standard_normal((4, 150))
        cohort.widen(cohort.outside(weights), 1.0, 1.0)
        outside = X - X @ cohort.vectors.T @ cohort.vectors
        np.testing.assert_allclose(cohort.part.probed, outside @ cohort._probes, atol=1e-11)
        np.testing.assert_allclose(cohort.part.samples.lengths, np.linalg.norm(outside, axis=1), rtol=1e-11)
        weights = cohort.part.mean_scale()
        exact = np.linalg.norm(weights @ outside)
        assert cohort.outside(weights).length(0.0) == pytest.approx(exact)
        assert 0.5 * exact < cohort.outside(weights).length(np.inf) < 2 * exact
    cohort.reduce(1.0, always=True)
    assert len(cohort.vectors) < 16
    outside = X - X @ cohort.vectors.T @ cohort.vectors
    np.testing.assert_allclose(cohort.part.probed, outside @ cohort._probes, atol=1e-11)
    np.testing.assert_allclose(cohort.part.samples.lengths, np.linalg.norm(outside, axis=1), rtol=1e-11)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (500, 505)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("triangular", [False, True])
def test_row_source(shape, dtype, triangular, monkeypatch):
    """Products, norms and rows are the matrix's, whatever its type, the blocks, and which zeros are not read."""
    monkeypatch.setattr(blocks, "FEW_BLOCK", 4 * shape[1])
    monkeypatch.setattr(blocks, "MANY_BLOCK", 7 * shape[1])
    monkeypatch.setattr(blocks, "UNCOPIED", 60 * shape[1])  # 30 rows with 2 vectors, 5 with 12
    monkeypatch.setattr(blocks, "LEAST", 1)
    rng = np.random.default_rng(0)
    rows = (100 * rng.standard_normal(shape)).astype(dtype)
    rows = np.tril(rows) if triangular else rows
    source, exact = blocks.RowSource(rows, triangular=triangular), rows.astype(np.float64)
    for n_few in (2, 12):
        few, weights = rng.standard_normal((n_few, shape[1])), rng.standard_normal((n_few, shape[0]))
        # sums of up to 505 terms of size 100, in another order
        np.testing.assert_allclose(source.along(few), exact @ few.T, rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(source.combine(weights), weights @ exact, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(source.squares, np.sum(exact**2, axis=1), rtol=1e-12)
    assert blocks.squared_norm(source) == pytest.approx(np.sum(exact**2), rel=1e-12)
    mask = np.arange(shape[0]) % 3 == 0
    for found, expected in ((source.take(mask), exact[mask]), (source.whole(), exact)):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)


def test_of_a_triangle_half_is_read():
    rows = np.tril(np.ones((500, 505)))
    read = sum(block.size for _, _, block in blocks.RowSource(rows, triangular=True)._blocks(2**14))
    assert rows.size / 2 < read < 0.6 * rows.size


@pytest.mark.parametrize("n_rows", [5, 40, 4000, 9123])
def test_triangle_of_blocks(n_rows):
    """Of as many rows as there are blocks for, and some more: their squares are those of the rows."""
    rows = np.random.default_rng(0).standard_normal((n_rows, 40)) * np.logspace(0, -12, 40)
    found = part.triangle(rows)
    assert len(found) <= 40
    expected = np.linalg.qr(rows, mode="r")
    # each column to its own size: what is held along a direction is compared with a tolerance of 1e-13 of the whole
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-9, atol=1e-15)


def test_little_outside_the_frame_is_measured_itself():
    """A difference of squares would have two digits of it left."""
    X, R, theta = draw(150, 400, 4)
    X[:5] = theta[:5] @ R + 1e-7 * X[:5]
    cohort = frame.Frame(X, R, theta, Start())
    outside = X - X @ cohort.vectors.T @ cohort.vectors
    np.testing.assert_allclose(cohort.part.samples.lengths, np.linalg.norm(outside, axis=1), rtol=1e-8)


def test_frame_stays_small():
    """The state must not grow with the iterations: that is what the cost per iteration rests on."""
    X, R, theta = draw(150, 500, 4)
    _, found, _ = run(X, R, theta, max_iter=150)
    assert len(found.vectors) < 100 < 154


@pytest.mark.parametrize("renorm_size", [None, 20.0])
def test_replay_returns_the_cohort_and_ignores_other_rows(renorm_size):
    X, R, theta = draw(30, 200, 4)
    solution, _, cse = run(X, R, theta, renorm_size=renorm_size)
    fitted = solution.fitted_map()
    again = fitted.replay(X, theta).expand()
    # the replay has only the directions that the result needs; what it lacks is damped below this
    assert_same(again, cse, 1e-10)
    some = [17, 3]
    alone = fitted.replay(X[some], theta[some]).expand()
    np.testing.assert_allclose(alone, again[some], rtol=1e-12, atol=1e-12)


def test_replay_of_new_rows_follows_the_formulas():
    """A new row, moved by hand over all genes with the cohort's factors, shifts and caps."""
    X, R, theta = draw(25, 120, 3)
    solution, found, _ = run(X, R, theta, renorm_size=10.0)
    new, _, new_theta = draw(4, 120, 3, seed=99)
    P = np.repeat(new[:, None], 3, axis=1)
    for factor, shift, caps in zip(found.factors, found.shifts, found.caps, strict=True):
        e = np.einsum("jk,jkg->jg", new_theta, P) - new
        P = P - factor * new_theta[:, :, None] * e[:, None] - shift @ found.vectors
        norms = np.linalg.norm(P, axis=2)
        P *= np.minimum(1, caps / norms)[:, :, None]
    state = solution.fitted_map().replay(new, new_theta)
    assert_same(state.expand(), P, 1e-13)
    e = np.einsum("jk,jkg->jg", new_theta, P) - new
    np.testing.assert_allclose(state.squared_residuals(), np.sum(e**2, axis=1), rtol=1e-10)
    np.testing.assert_allclose(state.norms(), np.linalg.norm(P, axis=2), rtol=1e-12)
    np.testing.assert_allclose(state.mean(), P.mean(axis=0), atol=1e-12)


def test_span_basis_is_orthonormal_and_keeps_inner_products():
    for X, R in (draw(10, 200, 3)[:2], awkward("duplicated samples")[:2], awkward("constant genes")[:2]):
        basis = SpanBasis(X, R)
        S, C = np.vstack([X, R]), np.vstack([basis.bulk, basis.reference])
        assert C.shape[1] == len(S)
        np.testing.assert_allclose(C @ C.T, S @ S.T, atol=1e-12 * np.linalg.norm(S) ** 2)
        vectors = basis.to_genes(np.eye(C.shape[1]))
        np.testing.assert_allclose(C @ vectors, S, atol=1e-12 * np.linalg.norm(S))


def test_span_basis_leaves_short_rows_alone():
    X, R, _ = draw(30, 20, 3)
    basis = SpanBasis(X, R)
    np.testing.assert_array_equal(basis.bulk, X)
    np.testing.assert_array_equal(basis.to_genes(np.eye(20)), np.eye(20))


def test_first_gradient_is_noise_and_not_blown_up():
    X, R, theta = draw(20, 100, 3)
    solution, found, _ = run(X, R, theta, renorm_size=20.0, max_iter=3)
    assert solution.gradient_norm[0, 0] < 1e-12
    assert found.factors[0] == 0
    assert found.factors[1] > 0


@pytest.mark.parametrize("weight", [0.0, 0.3, 4.0, 1e9])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_caps_solve_the_proximal_problem(weight, n):
    """Cut rows minimise ½‖P − V‖² + (weight/2) max_j ‖p_j‖²: no perturbation is better."""
    rng = np.random.default_rng(n)
    V = rng.standard_normal((n, 5)) * rng.uniform(0.1, 3, (n, 1))
    norms = np.linalg.norm(V, axis=1)

    def value(P):
        return 0.5 * np.sum((P - V) ** 2) + 0.5 * weight * np.max(np.linalg.norm(P, axis=1)) ** 2

    cap = MaxL2Norm(weight).caps(norms[:, None], 1.0)[0]
    P = V * np.minimum(1, cap / norms)[:, None]
    best = value(P)
    for size in (1e-1, 1e-3, 1e-5):
        for _ in range(50):
            assert value(P + size * cap * rng.standard_normal(P.shape)) >= best * (1 - 1e-14)
    if weight == 0:
        np.testing.assert_array_equal(P, V)


def test_caps_are_nonexpansive_and_handle_zeros_and_ties():
    rng = np.random.default_rng(0)
    penalty = MaxL2Norm(2.0)

    def prox(V):
        norms = np.linalg.norm(V, axis=1)
        cap = penalty.caps(norms[:, None], 0.7)[0]
        return V * np.divide(cap, norms, out=np.ones_like(norms), where=norms > cap)[:, None]

    for _ in range(100):
        A, B = rng.standard_normal((2, 6, 4))
        assert np.linalg.norm(prox(A) - prox(B)) <= np.linalg.norm(A - B) * (1 + 1e-12)
    np.testing.assert_array_equal(prox(np.zeros((4, 3))), 0)
    # n equal norms v: the cap is n v / (n + weight)
    np.testing.assert_allclose(MaxL2Norm(3.0).caps(np.full((5, 1), 2.0), 1.0), 5 * 2.0 / 8)


def test_caps_of_any_array():
    """In another type or order, or not to be written to: the compiled loops take one kind only."""
    norms = np.random.default_rng(0).integers(0, 9, (6, 4)).astype(float)
    expected = MaxL2Norm(3.0).caps(norms, 0.5)
    locked = norms.copy()
    locked.flags.writeable = False
    for other in (norms.astype(np.float32), np.asfortranarray(norms), locked, norms.astype(int)):
        np.testing.assert_array_equal(MaxL2Norm(3.0).caps(other, 0.5), expected)


def test_step_within_the_lipschitz_constant_never_increases_the_objective():
    X, R, theta = draw(20, 60, 3)
    alpha, beta = 0.4, 2.0
    step = 1 / lipschitz_constant(theta, alpha)
    values = []
    for max_iter in range(1, 40):
        _, _, P = run(X, R, theta, alpha=alpha, beta=beta, step=step, max_iter=max_iter)
        values.append(value_of_f(P, X, R, theta, alpha, beta))
    assert np.all(np.diff(values) <= 1e-12 * values[0])


def test_objective_is_that_of_the_design():
    X, R, theta = draw(9, 30, 2)
    solution, _, P = run(X, R, theta, alpha=0.3, beta=4.0)
    got = objective(solution.state(X), R, 0.3, MaxL2Norm(4.0))
    np.testing.assert_allclose(got, value_of_f(P, X, R, theta, 0.3, 4.0), rtol=1e-12)


def test_divergence_is_refused():
    X, R, theta = draw(20, 60, 3)
    step = 30 / lipschitz_constant(theta, 0.5)
    with pytest.raises(FloatingPointError, match="kept growing"):
        run(X, R, theta, alpha=0.5, beta=0.0, step=step, max_iter=200)


def test_divergence_is_refused_within_a_few_iterations():
    X, R, theta = draw(20, 60, 3)
    changes = []
    with pytest.raises(FloatingPointError, match="kept growing"):
        run(
            X,
            R,
            theta,
            alpha=0.5,
            beta=0.0,
            step=30 / lipschitz_constant(theta, 0.5),
            max_iter=200,
            monitor=lambda delta: changes.append(delta.max()),
        )
    # each step is 29 times the one before: 1e3 times the squared size of the data is passed in a few, and no fit of a
    # large cohort should go on for dozens after that
    assert np.sum(np.array(changes) > 1e3 * 3 * np.sum(X**2)) < 10
    assert len(changes) < 20


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-5, 1e-6, 1e-8])
def test_basis_is_orthonormal_however_alike_samples_are(apart):
    rng = np.random.default_rng(0)
    bulk = rng.standard_normal((6, 80))
    bulk[3] = bulk[2] + apart * rng.standard_normal(80)
    basis = SpanBasis(bulk, rng.standard_normal((3, 80)))
    vectors = basis.to_genes(np.eye(basis.bulk.shape[1]))
    # rounding, times a condition number of 1e6 at most
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-8)


def test_oscillation_is_not_divergence():
    X, R, theta = draw(20, 60, 3)
    solution, _, cse = run(X, R, theta, renorm_size=1e3, epsilon=1e-3, max_iter=100)
    assert not solution.converged
    assert np.all(np.isfinite(cse))


def test_monitor_may_stop():
    X, R, theta = draw(10, 30, 2)
    seen = []

    def monitor(delta):
        seen.append(delta)
        return len(seen) == 4

    solution, _, _ = run(X, R, theta, beta=1.0, max_iter=50, monitor=monitor)
    assert len(solution.loss) == 4
    assert not solution.converged
    np.testing.assert_array_equal(solution.delta, seen)


def test_replay_does_not_depend_on_its_blocks(monkeypatch):
    X, R, theta = draw(23, 60, 3)
    solution, trajectory, cse = run(X, R, theta)
    samples = observe(X, trajectory.vectors, theta)
    whole = trajectory.replay(samples).rows
    monkeypatch.setattr(
        trajectory_module, "BLOCK_SIZE", samples.rows.shape[1] * 4
    )  # 4 samples, and 3 at the end
    blocks = trajectory_module.row_blocks(whole, 4 * trajectory_module.BLOCK_SIZE)
    assert len(blocks) > 3
    np.testing.assert_array_equal(trajectory.replay(samples).rows, whole)
    unseen = solution.fitted_map().replay(X, theta).expand()
    assert_same(unseen, cse, 1e-12)


def test_residuals_of_the_start_are_rounding():
    X, R, theta = draw(8, 20, 3)
    samples = observe(X, np.linalg.qr(R.T)[0].T, theta)
    _, squares = survey(samples, samples.start(Start()), np.ones(samples.proportions.shape))
    np.testing.assert_allclose(squares, 0, atol=1e-28)


def test_expand_in_float32_uses_float32():
    X, R, theta = draw(20, 60, 3)
    solution, _, cse = run(X, R, theta)
    single = solution.state(X.astype(np.float32)).expand()
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, cse, atol=1e-5)


@pytest.mark.parametrize(("rows", "width", "size"), [(0, 3, 8), (5, 3, 1), (10, 4, 8), (3, 0, 8)])
def test_row_blocks_cover_each_row_once(rows, width, size):
    array = np.zeros((rows, width))
    seen = np.concatenate([np.arange(rows)[block] for block in row_blocks(array, size)] or [np.empty(0)])
    np.testing.assert_array_equal(seen, np.arange(rows))


def test_successive_projection_finds_pure_samples():
    rng = np.random.default_rng(0)
    pure = rng.standard_normal((3, 50)) * 4
    mixed = rng.dirichlet(np.ones(3) * 4, 20) @ pure
    chosen = successive_projection(np.vstack([mixed, pure]), 3)
    assert set(chosen) == {20, 21, 22}


def test_successive_projection_takes_each_sample_once():
    assert len(set(successive_projection(np.ones((4, 3)), 4))) == 4
