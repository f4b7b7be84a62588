"""The passes of an iteration against their formulas: as NumPy calls, and compiled."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma import L2MaxDeconvolver
from skenigma.core.optimize import passes
from skenigma.datasets import make_cohort

# Sums of up to a few hundred terms of size 1, in another order.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}
SHAPES = [(1, 1, 1), (1, 4, 9), (7, 1, 5), (12, 3, 40), (100, 5, 106), (300, 8, 130)]


def compiled_passes():
    pytest.importorskip("numba")
    from skenigma.core.optimize import compiled

    return compiled


@pytest.fixture(params=["numpy", "numba"])
def module(request):
    return passes if request.param == "numpy" else compiled_passes()


@pytest.fixture(params=SHAPES, ids=str)
def state(request):
    n_samples, n_cell_types, n_columns = request.param
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_samples, n_cell_types + 1, n_columns))
    proportions = rng.dirichlet(np.ones(n_cell_types), n_samples)
    sizes = rng.random((n_samples, n_cell_types))
    sizes[0, 0] = 0.0
    return rows, proportions, sizes


def residuals(rows, proportions, sizes):
    return np.einsum("jk,jk,jkd->jd", proportions, sizes, rows[:, :-1]) - rows[:, -1]


def test_survey(module, state):
    rows, proportions, sizes = state
    mean, squares = module.survey(rows, proportions, sizes)
    assert_allclose(mean, (sizes[:, :, None] * rows[:, :-1]).mean(axis=0), **ROUNDING)
    assert_allclose(squares, np.sum(residuals(*state) ** 2, axis=1), **ROUNDING)


def test_compare(module, state):
    rows, proportions, sizes = state
    reference = np.random.default_rng(2).standard_normal((proportions.shape[1], rows.shape[2] - 1))
    offset, sums = module.compare(*state, np.sum(proportions**2, axis=1), reference)
    mean, squares = (sizes[:, :, None] * rows[:, :-1]).mean(axis=0)[:, 1:], residuals(*state) ** 2
    assert_allclose(offset, mean - reference, **ROUNDING)
    weighted = np.sum(proportions**2, axis=1) @ squares.sum(axis=1)
    along = np.sum(reference * (2 * mean - reference))
    assert_allclose(
        sums, [squares.sum(), weighted, np.sum((mean - reference) ** 2), along], rtol=1e-11, atol=1e-11
    )


def step(module, rows, proportions, sizes, *, factor=0.3, shift=None, norms=None, small=1e-6, out=None):
    """A step, what was written first."""
    if shift is None:
        shift = np.zeros((rows.shape[1] - 1, rows.shape[2] - 1))
    out = rows.copy() if out is None else out
    if norms is None:
        norms = sizes * np.linalg.norm(rows[:, :-1], axis=2)
    return out, *module.step(rows, proportions, sizes, norms, small, factor, shift, out)


def drawn_shift(rows, seed, size=1.0):
    """A shift of all cell types, along all columns but the first."""
    return size * np.random.default_rng(seed).standard_normal((rows.shape[1] - 1, rows.shape[2] - 1))


def test_step(module, state):
    rows, proportions, sizes = state
    shift = drawn_shift(rows, 1)
    before, out = rows.copy(), np.full_like(rows, np.nan)
    out[:, -1] = rows[:, -1]
    _, norms, nearest, apart = step(module, *state, shift=shift, out=out)
    start = sizes[:, :, None] * rows[:, :-1]
    expected = start - 0.3 * proportions[:, :, None] * residuals(*state)[:, None]
    expected[:, :, 1:] -= shift
    squares = np.sum(expected**2, axis=2)
    assert_allclose(out[:, :-1], expected, **ROUNDING)
    assert_array_equal(out[:, -1], before[:, -1])
    assert_array_equal(rows, before)
    assert_allclose(norms**2, squares, **ROUNDING)
    assert_allclose(nearest, np.sum(expected * start, axis=2) / squares, **ROUNDING)
    assert_allclose(apart, np.sum((start - nearest[:, :, None] * expected) ** 2, axis=2), **ROUNDING)


def test_a_step_that_is_not_written_tells_the_same(module, state):
    rows, shift = state[0], drawn_shift(state[0], 1)
    before = rows.copy()
    _, *expected = step(module, *state, shift=shift)
    norms = state[2] * np.linalg.norm(rows[:, :-1], axis=2)
    for small in (1e-6, 2.0):  # above all shares, distances are found by differences
        found = module.step(*state, norms, small, 0.3, shift)
        for value, other in zip(found, expected, strict=True):
            assert_allclose(value, other, **ROUNDING)
    assert_array_equal(rows, before)


def test_move_and_survey(module, state):
    """A step in place, and a look at where it ends with what the cut leaves."""
    rows, proportions, sizes = state
    shift, new_sizes = drawn_shift(rows, 1), np.random.default_rng(6).random(sizes.shape)
    end, *_ = step(module, *state, shift=shift)
    mean, squares = module.survey(end, proportions, new_sizes)
    moved = rows.copy()
    found = module.move_and_survey(moved, proportions, sizes, 0.3, shift, new_sizes)
    assert_allclose(moved, end, **ROUNDING)
    assert_array_equal(moved[:, -1], rows[:, -1])
    assert_allclose(found[0], mean, **ROUNDING)
    assert_allclose(found[1], squares, **ROUNDING)


@pytest.mark.parametrize("distance", [1e-2, 1e-5, 1e-9, 1e-12])
def test_short_steps_keep_their_digits(module, distance):
    """A step nearly along its start, as when an iteration converges."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((100, 4, 106))
    rows[:, 1:] *= 1e-3  # other cell types say nothing about the first
    proportions, sizes = np.zeros((100, 3)), np.full((100, 3), 0.5)
    shift = drawn_shift(rows, 1, distance)
    *_, apart = step(module, rows, proportions, sizes, shift=shift)
    moved = np.pad(shift, ((0, 0), (1, 0)))
    along = np.einsum("jkd,kd->jk", rows[:, :-1], moved)
    along = along[:, :, None] * rows[:, :-1] / np.sum(rows[:, :-1] ** 2, axis=2)[:, :, None]
    expected = np.sum((moved - along) ** 2, axis=(0, 2))
    # of rows of norm 5, the last bit of 100 entries; and the rotation by the step itself
    assert_allclose(apart.sum(axis=0)[0], expected[0], rtol=4e-14 / distance + 1e-9 + distance)


def test_apart_without_demand(module, state):
    """Nothing is computed again for who asks for no distances: the step is as fast as it can be."""
    _, norms, _, apart = step(module, *state, norms=np.zeros(state[2].shape), small=0.0)
    assert_allclose(norms, step(module, *state)[1], **ROUNDING)
    assert_array_equal(apart, 0.0)


@pytest.mark.parametrize("weight", [0.0, 1e-3, 1.0, 50.0, 1e6])
@pytest.mark.parametrize("draw", ["uniform", "skewed", "equal", "ties", "zeros", "one"])
def test_caps(module, draw, weight):
    """What is cut off from the longest balances the weight of the cap."""
    rng = np.random.default_rng(0)
    norms = {
        "uniform": rng.random((50, 3)),
        "skewed": rng.exponential(size=(50, 3)) ** 6,
        "equal": np.full((50, 3), rng.random()),
        "ties": rng.integers(0, 3, (50, 3)).astype(float),
        "zeros": np.zeros((50, 3)),
        "one": rng.random((1, 3)),
    }[draw]
    caps = module.caps(norms, weight)
    assert np.all(caps <= norms.max(axis=0) * (1 + 1e-14))
    balance = weight * caps - np.maximum(norms - caps, 0.0).sum(axis=0)
    assert_allclose(balance, 0.0, atol=1e-12 * norms.max())
    if weight == 0:
        assert_allclose(caps, norms.max(axis=0), rtol=1e-13)


def test_cut(module, state):
    rows, proportions, sizes = state
    out, norms, nearest, apart = step(module, *state, shift=drawn_shift(rows, 3))
    caps = np.random.default_rng(4).random(proportions.shape[1]) * norms.max(axis=0)
    factors, left, longest, change, square = module.cut(norms, caps, nearest, apart)
    assert_allclose(left, np.minimum(norms, caps), **ROUNDING)
    assert_allclose(factors * norms, left, **ROUNDING)
    assert_array_equal(factors[norms <= caps], 1.0)
    assert_allclose(longest, left.max(axis=0), **ROUNDING)
    assert_allclose(square, np.sum(left**2), **ROUNDING)
    difference = factors[:, :, None] * out[:, :-1] - sizes[:, :, None] * rows[:, :-1]
    assert_allclose(change, np.sum(difference**2, axis=(0, 2)), **ROUNDING)


def test_cut_of_nothing_to_nothing(module):
    norms, zeros = np.array([[0.0, 2.0], [0.0, 0.0]]), np.zeros((2, 2))
    sizes, left, longest, *_ = module.cut(norms, np.zeros(2), zeros, zeros)
    assert_array_equal(sizes[norms == 0], 1.0)
    assert_allclose(left, 0.0, atol=1e-300)
    assert_allclose(longest, 0.0, atol=1e-300)


@pytest.mark.parametrize("size", [0.0, 1e-200])
def test_a_step_to_nothing(module, size):
    """The distance is then the norm of the start."""
    rows, ones = np.ones((2, 2, 9)), np.ones((2, 1))
    rows[:, 1] = size
    rows[:, :, 0] = 0.0
    shift = np.full((1, 8), 1.0 - size)
    _, norms, nearest, apart = step(module, rows, ones, ones, factor=0.0, shift=shift)
    _, left, _, change, _ = module.cut(norms, np.ones(1), nearest, apart)
    assert_allclose(left, 0.0, atol=1e-15)
    assert_allclose(change, 16.0)


@pytest.mark.parametrize("first_is_current", [True, False])
def test_step_beyond_and_cut(module, state, first_is_current):
    """Both are checked on the same two states: what the one has written, the other compares."""
    half, proportions, weights = state
    n_cell_types = proportions.shape[1]
    rng = np.random.default_rng(5)
    rows = np.concatenate([rng.standard_normal((len(half), n_cell_types, half.shape[2])), half], axis=1)
    now, then = slice(0, n_cell_types), slice(n_cell_types, 2 * n_cell_types)
    now, then = (now, then) if first_is_current else (then, now)
    pull, weights, shift = (
        rng.random(proportions.shape),
        weights + 0.5,
        rng.standard_normal(rows[0, now].shape),
    )
    here, before, sample = rows[:, now].copy(), rows[:, then].copy(), rows[:, -1].copy()

    found = module.step_beyond(rows, now.start, then.start, proportions, 0.7, pull, weights, shift)
    squares, gradients, residual = found
    point = here + 0.7 * (here - before)
    expected = np.einsum("jk,jkd->jd", proportions, point) - sample
    assert_allclose(residual, expected, **ROUNDING)
    gradient = pull[:, :, None] * expected[:, None] + shift
    assert_allclose(gradients, np.sum(gradient**2, axis=2), **ROUNDING)
    end = point - gradient / weights[:, :, None]
    assert_allclose(rows[:, then], end, **ROUNDING)
    assert_allclose(squares, np.sum(end**2, axis=2), **ROUNDING)

    factors = rng.random(proportions.shape)
    compared = module.cut_and_compare(rows, now.start, then.start, proportions, factors, residual)
    squared, radial, mixed, shared, at_rest = compared
    after = factors[:, :, None] * end
    change = after - here
    assert_allclose(rows[:, then], after, **ROUNDING)
    assert_allclose(squared, np.sum(change**2, axis=2), **ROUNDING)
    assert_allclose(radial, np.sum(change * after, axis=2), **ROUNDING)
    assert_allclose(mixed, np.einsum("jk,jkd,jd->", proportions, change, expected), rtol=1e-11, atol=1e-11)
    assert_allclose(shared, change.sum(axis=0), **ROUNDING)
    rest = np.einsum("jk,jkd->jd", proportions, here) - sample
    assert_allclose(at_rest, np.sum(rest**2, axis=1), **ROUNDING)
    assert_array_equal(rows[:, now], here)
    assert_array_equal(rows[:, -1], sample)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
@pytest.mark.parametrize("value", [np.inf, np.nan, 1e200])
def test_what_is_not_finite_shows(module, value):
    """Divergence is told by it."""
    rows = np.ones((3, 3, 4))
    rows[1, 0, 2] = value
    ones = np.ones((3, 2))
    _, squares = module.survey(rows, ones, ones)
    _, norms, nearest, apart = step(module, rows, ones, ones)
    _, _, _, change, _ = module.cut(norms, module.caps(norms, 1.0), nearest, apart)
    assert_array_equal(np.isfinite(squares), [True, False, True])
    assert_array_equal(np.isfinite(norms[:, 0]), [True, False, True])
    assert not np.isfinite(change[0])


def test_a_sample_does_not_depend_on_the_others(module):
    """To the last bit: transform relies on it."""
    rng = np.random.default_rng(0)
    rows, theta = rng.standard_normal((90, 6, 106)), rng.dirichlet(np.ones(5), 90)
    sizes = rng.random((90, 5))
    together, *found = step(module, rows, theta, sizes)
    for some in (slice(0, 1), slice(1, 4), slice(4, 90)):
        alone, *of_some = step(module, rows[some], theta[some], sizes[some])
        assert_array_equal(alone, together[some])
        assert_array_equal(of_some[0], found[0][some])


@pytest.mark.parametrize(
    ("solver", "renorm_size"), [("proximal", None), ("proximal", 50.0), ("accelerated", None)]
)
def test_a_fit_is_the_same_either_way(solver, renorm_size, monkeypatch):
    cohort = make_cohort(n_samples=150, n_genes=400, n_cell_types=4, random_state=0)
    fits = []
    for module in (passes, compiled_passes()):
        monkeypatch.setattr(passes, "fastest", lambda module=module: module)
        model = L2MaxDeconvolver(cohort.reference, alpha=0.1, renorm_size=renorm_size, solver=solver)
        fit = model.fit(cohort.bulk, proportions=cohort.proportions)
        fits.append((fit, fit.transform(cohort.bulk[:9], proportions=cohort.proportions[:9])))
    (first, unseen_first), (second, unseen_second) = fits
    assert first.n_iter_ == second.n_iter_
    # as close as the iteration keeps rounding: it contracts
    assert_allclose(second.cse_, first.cse_, rtol=1e-10, atol=1e-10 * np.abs(first.cse_).max())
    assert_allclose(unseen_second, unseen_first, rtol=1e-10, atol=1e-10 * np.abs(first.cse_).max())
    assert_allclose(second.loss_history_[1:], first.loss_history_[1:], rtol=1e-10)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_signals_wait_while_numba_loads():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with passes._signals_waiting():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            assert seen == []  # also where another thread takes the signal
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_numba_loads_while_signals_wait(monkeypatch):
    pytest.importorskip("numba")
    entered = []

    @contextmanager
    def waiting():
        entered.append(True)
        yield

    monkeypatch.setattr(passes, "_signals_waiting", waiting)
    monkeypatch.delenv(passes.VARIABLE, raising=False)
    passes.fastest.__wrapped__()
    assert entered


QUESTION = "from skenigma.core.optimize.passes import fastest; print(fastest().__name__)"


def answer(prelude="", **environment):
    command = [sys.executable, "-c", f"{prelude}\n{QUESTION}"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return found.stdout.strip()


class TestChoice:
    @pytest.mark.slow
    def test_numba_is_not_needed(self):
        assert answer("import sys; sys.modules['numba'] = None") == "skenigma.core.optimize.passes"

    @pytest.mark.slow
    def test_numba_is_used_where_it_is(self):
        pytest.importorskip("numba")
        assert answer() == "skenigma.core.optimize.compiled"

    @pytest.mark.slow
    def test_the_environment_can_switch_it_off(self):
        assert answer(SKENIGMA_COMPILED="0") == "skenigma.core.optimize.passes"

    @pytest.mark.slow
    def test_nowhere_to_write_is_no_obstacle(self):
        pytest.importorskip("numba")
        prelude = """
import numba
def njit(signature, cache=False, **options):
    if cache:
        raise RuntimeError("cannot cache function: no locator available")
    return lambda function: function
numba.njit = njit"""
        assert answer(prelude) == "skenigma.core.optimize.compiled"
