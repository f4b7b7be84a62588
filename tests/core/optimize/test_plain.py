"""The iteration over genes, with and without a mask, against the formulas written out on whole tensors."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks.plain import l2max_proximal, squash_caps
from skenigma.core.optimize import plain
from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.penalties import MaxL2Norm, TraceNorm
from skenigma.core.optimize.problem import Problem
from skenigma.core.optimize.registry import find_solver
from skenigma.core.optimize.solvers import Settings
from skenigma.core.optimize.start import Start

N, K, G = 9, 3, 14
ALPHA, BETA, STEP, SIZE = 0.3, 4.0, 0.1, 5.0
# rounding of some 30 iterations on values of size 10, summed in another order
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    reference = rng.gamma(2.0, 3.0, (K, G))
    theta = rng.dirichlet([2.0] * K, N)
    bulk = theta @ reference * np.exp(0.3 * rng.standard_normal((N, G)))
    bulk[rng.random((N, G)) < 0.3] = 0.0
    bulk[:, 0], bulk[0] = (
        0.0,
        bulk[0] + 1.0,
    )  # a gene that nobody expresses but one sample, which expresses all
    return bulk, reference, theta


def masked_l2max(X, R, theta, renorm_size, max_iter):
    """The published iteration with both gradients 0 where X is, literally."""
    n, kept = len(X), (X != 0)[:, None, :]
    P, history = np.repeat(X[:, None], theta.shape[1], axis=1), []
    for iteration in range(max_iter):
        e = np.einsum("jk,jkg->jg", theta, P) - X
        G1 = 2 * theta[:, :, None] * e[:, None] * kept
        G2 = np.broadcast_to(2 / n * (P.mean(axis=0) - R), P.shape) * kept
        norms = np.linalg.norm(G1), np.linalg.norm(G2)
        if renorm_size is not None:
            # the first is zero but for rounding
            G1 = G1 * (renorm_size / norms[0] if norms[0] > 1e-12 else 0.0)
            G2 = G2 * (renorm_size / norms[1])
        V = P - STEP * (ALPHA * G1 + (1 - ALPHA) * G2)
        lengths = np.linalg.norm(V, axis=2)
        V *= np.minimum(1, squash_caps(lengths, STEP * BETA) / np.maximum(lengths, 1e-300))[:, :, None]
        if iteration + 1 == max_iter:
            return P, np.array(history)
        history.append(norms)
        P = V


def solve(name, cohort, penalty, masked, parameter=STEP, start=None, **settings):
    X, R, theta = cohort
    basis = SpanBasis(X, R, compress=False)
    problem = Problem(basis.bulk, basis.reference, theta, ALPHA, penalty, start, masked)
    chosen = Settings(parameter, **({"epsilon": 0.0, "max_iter": 30} | settings))
    return find_solver(name, penalty, start, masked)(problem, basis, chosen, lambda delta: False)


def expression(solution, bulk):
    return solution.state(bulk).expand()


@pytest.mark.parametrize("renorm_size", [None, SIZE])
class TestMaximumNorm:
    def test_masked_is_the_formula(self, cohort, renorm_size):
        solution = solve("proximal", cohort, MaxL2Norm(BETA), True, renorm_size=renorm_size)
        expected, norms = masked_l2max(*cohort, renorm_size, 30)
        assert_allclose(expression(solution, cohort[0]), expected, **CLOSE)
        assert_allclose(solution.gradient_norm, norms, **CLOSE)

    def test_zeros_stay(self, cohort, renorm_size):
        found = expression(
            solve("proximal", cohort, MaxL2Norm(BETA), True, renorm_size=renorm_size), cohort[0]
        )
        zero = np.broadcast_to((cohort[0] == 0)[:, None], found.shape)
        assert not found[zero].any()
        assert (found[~zero] != 0).all()

    @pytest.mark.parametrize("block", [1, 2**17])
    def test_unmasked_is_the_published_iteration(self, cohort, renorm_size, block, monkeypatch):
        monkeypatch.setattr(plain, "BLOCK", block)
        X, R, theta = cohort
        basis = SpanBasis(X, R, compress=False)
        problem = Problem(basis.bulk, basis.reference, theta, ALPHA, MaxL2Norm(BETA))
        chosen = Settings(STEP, 0.0, 30, renorm_size)
        solution = plain.solve_plain(problem, basis, chosen, lambda delta: False)
        options = {"alpha": ALPHA, "beta": BETA, "tao_k": STEP, "renorm_size": renorm_size}
        expected, loss, norms, delta = l2max_proximal(*cohort, **options, epsilon=0.0, max_iter=30)
        assert_allclose(expression(solution, X), expected, **CLOSE)
        assert_allclose(solution.gradient_norm, norms, **CLOSE)
        assert_allclose(solution.loss, loss, rtol=1e-11, atol=1e-10)
        assert_allclose(solution.delta, delta, **CLOSE)

    def test_rows_are_repeated_one_by_one(self, cohort, renorm_size):
        X, _, theta = cohort
        solution = solve("proximal", cohort, MaxL2Norm(BETA), True, renorm_size=renorm_size)
        some = [4, 1]
        replayed = solution.fitted_map().replay(X[some], theta[some]).expand()
        assert_allclose(replayed, expression(solution, X)[some], **CLOSE)

    def test_every_sample_may_start_elsewhere(self, cohort, renorm_size):
        """The start of all at 0.9 times the bulk is one that they share, which another solver takes too."""
        X, _, theta = cohort
        own = Start(own=np.repeat(0.9 * X[:, None], K, axis=1))
        one = solve("proximal", cohort, MaxL2Norm(BETA), False, start=own, renorm_size=renorm_size)
        other = solve("proximal", cohort, MaxL2Norm(BETA), False, start=Start(0.9), renorm_size=renorm_size)
        assert_allclose(expression(one, X), expression(other, X), **CLOSE)
        again = one.fitted_map().replay(X[3:5], theta[3:5], own.own[3:5]).expand()
        assert_allclose(again, expression(one, X)[3:5], **CLOSE)


def shrunk(M, threshold):
    U, sigma, V = np.linalg.svd(M, full_matrices=False)
    return U * np.maximum(sigma - threshold, 0) @ V


def exact(theta, weights, targets):
    """Minimum of the quadratic part by one system of all samples and cell types, per gene."""
    n, n_types = theta.shape
    system = np.zeros((n, n_types, n, n_types))
    samples = np.arange(n)
    system[samples, :, samples, :] += ALPHA * theta[:, :, None] * theta[:, None]
    types = np.arange(n_types)
    system[:, types, :, types] += (1 - ALPHA) / n**2
    system = system.reshape(n * n_types, -1) + weights * np.eye(n * n_types)
    return np.linalg.solve(system, targets.reshape(n * n_types, -1)).reshape(targets.shape)


def masked_trace(solver, X, R, theta, gamma, max_iter):
    """The trace-norm iterations, with what each step finds set to 0 where X is."""
    n, kept, weights = len(X), (X != 0)[:, None, :], theta.mean(axis=0)
    P = np.repeat(X[:, None], K, axis=1)
    Y, A = P.copy(), P.copy()
    for _ in range(max_iter - 1):
        if solver == "proximal":
            e = np.einsum("jk,jkg->jg", theta, P) - X
            V = P - gamma * (ALPHA * theta[:, :, None] * e[:, None] + (1 - ALPHA) / n * (P.mean(axis=0) - R))
            P = np.stack([shrunk(V[:, k], gamma * BETA * weights[k]) for k in range(K)], axis=1) * kept
            continue
        pull = (1 - ALPHA) / n * R + gamma * Y - A
        if solver == "admm":
            P = exact(theta, gamma, ALPHA * theta[:, :, None] * X[:, None] + pull) * kept
        else:
            others = np.einsum("jk,jkg->jg", theta, P)[:, None] - theta[:, :, None] * P
            right = pull + ALPHA * theta[:, :, None] * (X[:, None] - others)
            P = (
                np.stack([exact(theta[:, [k]], gamma, right[:, [k]]) for k in range(K)], axis=1)[:, :, 0]
                * kept
            )
        Y = (
            np.stack([shrunk((P + A / gamma)[:, k], BETA * weights[k] / gamma) for k in range(K)], axis=1)
            * kept
        )
        A = A + gamma * (P - Y)
    return P


@pytest.mark.parametrize("solver", ["admm", "admm_fast", "proximal"])
def test_masked_trace_norm_is_the_formula(cohort, solver):
    X, _, theta = cohort
    penalty = TraceNorm(BETA, theta.mean(axis=0))
    solution = solve(solver, cohort, penalty, True, 0.7, max_iter=12)
    found = expression(solution, X)
    assert_allclose(found, masked_trace(solver, *cohort, 0.7, 12), **CLOSE)
    replayed = solution.fitted_map().replay(X[2:4], theta[2:4]).expand()
    assert_allclose(replayed, found[2:4], **CLOSE)


def test_a_bound_from_below_knows_no_mask(cohort):
    with pytest.raises(ValueError, match=r"'accelerated' cannot hold.*Use solver='proximal' or 'admm' or"):
        solve("accelerated", cohort, MaxL2Norm(BETA), True)
