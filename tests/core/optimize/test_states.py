"""Expression in its compressed forms against plain tensors, and the maps that repeat a fit for other samples."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.optimize import states
from skenigma.core.optimize.accelerated import solve_accelerated
from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.mixture import Expression, observe
from skenigma.core.optimize.penalties import MaxL2Norm, TraceNorm
from skenigma.core.optimize.plain import solve_plain
from skenigma.core.optimize.registry import SOLVERS, find_solver
from skenigma.core.optimize.solvers import (
    FramedMap,
    Settings,
    SpanMap,
    solve_framed,
    solve_split,
)
from skenigma.core.optimize.splitting import ROWS, GradientRows, Problem
from skenigma.core.optimize.start import Start
from skenigma.core.optimize.states import FramedState, Span, SpanState, Tensor, objective

N_SAMPLES, N_TYPES, N_GENES, N_DIMENSIONS = 9, 3, 20, 6
# Rounding of sums of a few hundred products of numbers of size 1; where something cancels, of their size.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}
# Forms that stand on samples; "genes" is a span of all genes, "inside" one that holds every sample.
FORMS = ["framed", "outside", "inside", "genes"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def bulk(rng):
    return rng.standard_normal((N_SAMPLES, N_GENES))


@pytest.fixture
def theta(rng):
    return rng.dirichlet(np.full(N_TYPES, 2.0), N_SAMPLES)


@pytest.fixture
def reference(rng):
    return rng.standard_normal((N_TYPES, N_GENES))


@pytest.fixture
def vectors(rng):
    """Orthonormal directions, none of them along a sample."""
    return np.linalg.qr(rng.standard_normal((N_GENES, N_DIMENSIONS)))[0].T


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def pair(form, rng, bulk, theta, vectors):
    """A state, the samples it stands on, and the tensor that it stands for."""
    inside = rng.standard_normal((N_SAMPLES, N_TYPES, N_DIMENSIONS))
    scale = rng.uniform(0.2, 1.5, (N_SAMPLES, N_TYPES))
    if form == "genes":
        tensor = rng.standard_normal((N_SAMPLES, N_TYPES, N_GENES))
        span = Span(None, N_GENES)
        return SpanState(bulk, None, theta, tensor, np.zeros_like(scale), span, bulk.dtype), bulk, tensor
    along = np.einsum("jkd,dg->jkg", inside, vectors)
    if form == "inside":
        bulk = bulk @ vectors.T @ vectors
        span = Span(vectors, N_GENES)
        state = SpanState(
            bulk @ vectors.T, None, theta, inside, np.zeros_like(scale), span, np.dtype(np.float64)
        )
        return state, bulk, along
    outside = bulk - bulk @ vectors.T @ vectors
    tensor = along + scale[:, :, None] * outside[:, None]
    if form == "outside":
        span = Span(vectors, N_GENES)
        state = SpanState(bulk @ vectors.T, outside, theta, inside, scale, span, bulk.dtype)
        return state, bulk, tensor
    samples = observe(bulk, vectors, theta)
    beyond = (scale * samples.lengths[:, None])[:, :, None]
    rows = np.concatenate([np.concatenate([beyond, inside], axis=2), samples.rows[:, None]], axis=1)
    expression = Expression(rows)
    return FramedState(bulk, samples, expression, vectors), bulk, tensor


class TestAgainstPlainTensors:
    def test_expand(self, pair):
        state, _, tensor = pair
        assert_allclose(state.expand(), tensor, **ROUNDING)

    @pytest.mark.parametrize(
        "genes", [slice(None), slice(3, 9), np.array([7, 2])], ids=["all", "slice", "some"]
    )
    def test_mixed(self, pair, rng, genes):
        state, _, tensor = pair
        weights = rng.standard_normal((4, N_TYPES))
        expected = np.einsum("jk,jkg->jg", weights, tensor[2:6])[:, genes]
        assert_allclose(state.mixed(weights, slice(2, 6), genes), expected, **ROUNDING)

    def test_norms(self, pair):
        state, _, tensor = pair
        assert_allclose(state.norms(), np.linalg.norm(tensor, axis=2), **ROUNDING)

    def test_squared_residuals(self, pair, theta):
        state, bulk, tensor = pair
        residual = np.einsum("jk,jkg->jg", theta, tensor) - bulk
        assert_allclose(state.squared_residuals(), np.sum(residual**2, axis=1), **ROUNDING)

    def test_mean(self, pair):
        state, _, tensor = pair
        assert_allclose(state.mean(), tensor.mean(axis=0), **ROUNDING)

    @pytest.mark.parametrize("form", FORMS[1:], indirect=True)  # framed expression has norms only
    def test_grams(self, pair):
        state, _, tensor = pair
        for gram, rows in zip(state.grams(), tensor.swapaxes(0, 1), strict=True):
            # of the samples or of the dimensions, whichever are fewer: the singular values are the same
            squares = np.linalg.svd(rows, compute_uv=False) ** 2
            found = np.linalg.eigvalsh(gram)[::-1]
            count = min(len(found), len(squares))
            assert_allclose(found[:count], squares[:count], rtol=0, atol=1e-12 * squares[0])
            assert_allclose(np.trace(gram), np.sum(rows**2), rtol=1e-12)

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_objective_of_the_max_norm(self, pair, theta, reference, alpha):
        state, bulk, tensor = pair
        penalty = np.sum(np.max(np.sum(tensor**2, axis=2), axis=0))
        expected = smooth_terms(tensor, bulk, theta, reference, alpha) + 2.5 / 2 * penalty
        assert objective(state, reference, alpha, MaxL2Norm(2.5)) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("form", FORMS[1:], indirect=True)
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_objective_of_the_trace_norm(self, pair, theta, reference, alpha):
        state, bulk, tensor = pair
        weights = np.array([0.5, 0.3, 0.2])
        norms = [np.linalg.norm(rows, "nuc") for rows in tensor.swapaxes(0, 1)]
        expected = smooth_terms(tensor, bulk, theta, reference, alpha) / 2 + 2.5 * weights @ norms
        # a Gram matrix knows singular values that are zero only up to 1e-8 of the largest
        assert objective(state, reference, alpha, TraceNorm(2.5, weights)) == pytest.approx(
            expected, rel=1e-7
        )


def smooth_terms(tensor, bulk, theta, reference, alpha):
    residual = np.einsum("jk,jkg->jg", theta, tensor) - bulk
    return alpha * np.sum(residual**2) + (1 - alpha) * np.sum((tensor.mean(axis=0) - reference) ** 2)


class TestTensor:
    @pytest.mark.parametrize("shape", [(2, 4, 7), (2, 7, 4), (1, 5, 5), (3, 1, 6), (3, 6, 1)])
    def test_norms_and_smaller_grams(self, rng, shape):
        values = rng.standard_normal(shape)
        assert_allclose(Tensor(values).norms(), np.linalg.norm(values, axis=2).T, **ROUNDING)
        grams = list(Tensor(values).grams())
        assert len(grams) == shape[0]
        for gram, rows in zip(grams, values, strict=True):
            assert gram.shape == (min(rows.shape),) * 2
            expected = np.linalg.svd(rows, compute_uv=False) ** 2
            assert_allclose(np.linalg.eigvalsh(gram)[::-1], expected, **ROUNDING)


class TestExpand:
    def test_type(self, rng, bulk, theta, vectors):
        inside, scale = rng.standard_normal((N_SAMPLES, N_TYPES, N_DIMENSIONS)), np.zeros(theta.shape)
        span = Span(vectors, N_GENES)
        for dtype in (np.float32, np.float64):
            state = SpanState(bulk @ vectors.T, None, theta, inside, scale, span, np.dtype(dtype))
            assert state.expand().dtype == dtype

    @pytest.mark.parametrize("form", ["outside", "inside"], indirect=True)
    def test_in_blocks_of_samples(self, pair, monkeypatch):
        state, _, tensor = pair
        monkeypatch.setattr(states, "row_blocks", lambda rows, size: [slice(0, 4), slice(4, len(rows))])
        assert_allclose(state.expand(), tensor, **ROUNDING)


class TestSpan:
    def test_split_and_back(self, bulk, vectors):
        span = Span(vectors, N_GENES)
        coordinates, outside = span.split(bulk)
        assert coordinates.shape == (N_SAMPLES, N_DIMENSIONS)
        assert_allclose(span.to_genes(coordinates) + outside, bulk, **ROUNDING)
        assert_allclose(outside @ vectors.T, 0, **ROUNDING)

    def test_split_of_what_it_holds(self, bulk, vectors):
        held = bulk @ vectors.T @ vectors
        assert_allclose(Span(vectors, N_GENES).split(held)[1], 0, **ROUNDING)

    def test_genes_themselves(self, bulk):
        span = Span(None, N_GENES)
        coordinates, outside = span.split(bulk)
        assert outside is None
        assert_array_equal(coordinates, bulk)
        assert_array_equal(span.to_genes(coordinates), bulk)

    @pytest.mark.parametrize("compressed", [True, False])
    def test_single_precision_is_raised(self, bulk, vectors, compressed):
        span = Span(vectors if compressed else None, N_GENES)
        single = bulk.astype(np.float32)
        for got, expected in zip(span.split(single), span.split(single.astype(np.float64)), strict=True):
            if expected is not None:
                assert got.dtype == np.float64
                assert_array_equal(got, expected)


def problem_of(basis, theta, penalty, alpha=0.4):
    return Problem(basis.bulk, basis.reference, theta, alpha, penalty)


PENALTIES = {"norm": lambda theta: MaxL2Norm(3.0), "trace": lambda theta: TraceNorm(0.5, theta.mean(axis=0))}


class TestFindSolver:
    def test_framed_is_for_penalties_of_norms(self, theta):
        assert find_solver("proximal", MaxL2Norm(1.0)) is solve_framed
        assert find_solver("accelerated", MaxL2Norm(1.0)) is solve_accelerated
        for name in ("admm", "admm_fast"):
            assert find_solver(name, MaxL2Norm(1.0)).func is solve_split
        for name, rows in ROWS.items():
            solver = find_solver(name, TraceNorm(1.0, theta.mean(axis=0)))
            assert (solver.func, solver.keywords) == (solve_split, {"rows": rows})

    def test_starts_of_every_sample_are_not_framed(self, theta):
        start = Start(own=np.zeros((3, 2, 4)))
        assert find_solver("proximal", MaxL2Norm(1.0), start) is solve_plain
        trace_norm = TraceNorm(1.0, np.ones(2))
        assert find_solver("proximal", trace_norm, start).keywords == {"rows": GradientRows}

    def test_masks_are_not_framed(self, theta):
        assert find_solver("proximal", MaxL2Norm(1.0), masked=True) is solve_plain
        assert find_solver("admm", MaxL2Norm(1.0), masked=True).func is solve_split

    def test_both_ways_through_the_gradient_give_the_same(self, bulk, reference, theta):
        """A penalty with caps is solved in few directions; in the whole span the iterates are the same."""
        basis, settings = SpanBasis(bulk, reference), Settings(0.5, 1e-8, 500)
        problem = problem_of(basis, theta, MaxL2Norm(3.0))
        framed = solve_framed(problem, basis, settings, quiet)
        split = solve_split(problem, basis, settings, quiet, rows=GradientRows)
        assert_allclose(framed.loss, split.loss, rtol=1e-10, atol=1e-20)  # rounding of some 30 iterations
        assert_allclose(framed.state(bulk).expand(), split.state(bulk).expand(), rtol=0, atol=1e-11)


def quiet(delta):
    return False


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in PENALTIES for name in SOLVERS],
)
class TestSolution:
    """What every solver hands over, whatever its insides."""

    @pytest.fixture(params=["compressed", "genes"])
    def cohort(self, request, bulk, reference):
        """More genes than samples and cell types together, or fewer."""
        n_genes = {"compressed": N_GENES, "genes": 7}[request.param]
        return bulk[:, :n_genes], reference[:, :n_genes]

    @pytest.fixture
    def solve(self, model, name, cohort, theta):
        basis = SpanBasis(*cohort)
        problem = problem_of(basis, theta, PENALTIES[model](theta))
        return partial(find_solver(name, problem.penalty), problem, basis)

    @pytest.fixture
    def solution(self, solve):
        return solve(Settings(0.5, 1e-3, 300), quiet)

    def test_histories(self, name, model, solution):
        assert solution.converged is True
        assert solution.loss.shape == (len(solution.delta), 3)
        assert solution.delta.shape[1] == N_TYPES
        if name != "accelerated":
            assert solution.delta[-1].max() < 1e-3 <= solution.delta[-2].max()
        if (model, name) in {("norm", "proximal"), ("norm", "accelerated")}:
            assert solution.gradient_norm.shape == (len(solution.loss) - 1, 2)
        else:
            assert solution.gradient_norm is None

    def test_monitor_may_stop(self, solve):
        seen = []
        solution = solve(Settings(0.5, 0.0, 300), lambda delta: seen.append(delta) or len(seen) == 4)
        assert_array_equal(solution.delta, seen)
        assert len(solution.loss) == 4
        assert solution.converged is False

    def test_map_repeats_the_fit(self, solution, cohort, theta):
        fitted_map = solution.fitted_map()
        assert isinstance(fitted_map, SpanMap | FramedMap)
        fitted = solution.state(cohort[0])
        replayed = fitted_map.replay(cohort[0], theta)
        assert_allclose(replayed.expand(), fitted.expand(), rtol=0, atol=1e-11)  # rounding, iterated
        assert_allclose(replayed.norms(), fitted.norms(), rtol=0, atol=1e-11)
        assert_allclose(replayed.mean(), fitted.mean(), rtol=0, atol=1e-11)

    def test_map_takes_single_precision(self, solution, cohort, theta):
        single = cohort[0].astype(np.float32)
        replayed = solution.fitted_map().replay(single, theta).expand()
        assert replayed.dtype == np.float32
        expected = solution.fitted_map().replay(single.astype(np.float64), theta).expand()
        assert_allclose(replayed, expected, rtol=0, atol=1e-5)  # 6e-8 of entries of size 3, summed

    @pytest.mark.slow
    def test_unseen_rows(self, solution, cohort, theta, rng):
        """Some outside the span, one in it, one zero: together as alone, and what norms say is so."""
        unseen = rng.standard_normal((4, cohort[0].shape[1]))
        unseen[1], unseen[2] = cohort[0][:2].mean(axis=0), 0.0
        fitted_map = solution.fitted_map()
        together = fitted_map.replay(unseen, theta[:4])
        tensor = together.expand()
        assert np.isfinite(tensor).all()
        assert_allclose(together.norms(), np.linalg.norm(tensor, axis=2), rtol=0, atol=1e-11)
        residual = np.einsum("jk,jkg->jg", theta[:4], tensor) - unseen
        assert_allclose(together.squared_residuals(), np.sum(residual**2, axis=1), rtol=0, atol=1e-10)
        for j in range(4):
            alone = fitted_map.replay(unseen[[j]], theta[[j]]).expand()
            assert_allclose(alone[0], tensor[j], rtol=0, atol=1e-11)

    @pytest.mark.slow
    def test_basis_does_not_matter(self, model, name, solution, cohort, theta, rng):
        basis = SpanBasis(*cohort, compress=False)
        problem = problem_of(basis, theta, PENALTIES[model](theta))
        plain = find_solver(name, problem.penalty)(problem, basis, Settings(0.5, 1e-3, 300), quiet)
        unseen = rng.standard_normal((4, cohort[0].shape[1]))
        for bulk, shares in ((cohort[0], theta), (unseen, theta[:4])):
            got = solution.fitted_map().replay(bulk, shares).expand()
            assert_allclose(got, plain.fitted_map().replay(bulk, shares).expand(), rtol=0, atol=1e-11)


class TestSettings:
    def test_rescale(self):
        settings = Settings(1.0, 1e-3, 10, renorm_size=20.0, resolution=1e-10)
        assert settings.rescale(4.0, 1.0) == 5.0
        assert settings.rescale(1e-11, 1.0) == 0.0  # rounding of terms of size 1
        assert settings.rescale(1e-11, 1e-3) == 20.0 / 1e-11
        assert Settings(1.0, 1e-3, 10).rescale(1e-30, 1.0) == 1.0
