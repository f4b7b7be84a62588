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
from skenigma.core import mixture, passes
from skenigma.datasets import make_cohort

# Sums of up to a few hundred terms of size 1, in another order.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}
SHAPES = [(1, 1, 1), (1, 4, 9), (7, 1, 5), (12, 3, 40), (100, 5, 106), (300, 8, 130)]


def compiled_passes():
    pytest.importorskip("numba")
    from skenigma.core import compiled

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


def test_step(module, state):
    rows, proportions, sizes = state
    shift = np.random.default_rng(1).standard_normal(rows.shape[1:])
    shift[-1] = 0.0
    before, out = rows.copy(), np.full_like(rows, np.nan)
    out[:, -1] = rows[:, -1]
    squares, products = module.step(rows, proportions, sizes, 0.3, shift, out)
    pull = 0.3 * proportions[:, :, None] * residuals(*state)[:, None]
    expected = sizes[:, :, None] * rows[:, :-1] - pull - shift[:-1]
    assert_allclose(out[:, :-1], expected, **ROUNDING)
    assert_array_equal(out[:, -1], before[:, -1])
    assert_array_equal(rows, before)
    assert_allclose(squares, np.sum(expected**2, axis=2), **ROUNDING)
    assert_allclose(products, np.sum(expected * rows[:, :-1], axis=2), **ROUNDING)


def test_cut(module, state):
    _, proportions, old_sizes = state
    rng = np.random.default_rng(3)
    norms, products = rng.random(proportions.shape), rng.standard_normal(proportions.shape)
    caps = rng.random(proportions.shape[1])
    sizes, squares, longest, common = module.cut(norms, caps, products, old_sizes)
    left = np.minimum(norms, caps)
    assert_allclose(sizes * norms, left, **ROUNDING)
    assert_array_equal(sizes[norms <= caps], 1.0)
    assert_allclose(squares, np.sum(left**2, axis=0), **ROUNDING)
    assert_allclose(longest, left.max(axis=0), **ROUNDING)
    assert_allclose(common, np.sum(sizes * old_sizes * products, axis=0), **ROUNDING)


def test_cut_of_nothing_to_nothing(module):
    norms, ones = np.array([[0.0, 2.0], [0.0, 0.0]]), np.ones((2, 2))
    sizes, squares, longest, _ = module.cut(norms, np.zeros(2), ones, ones)
    assert_array_equal(sizes[norms == 0], 1.0)
    assert_allclose(squares, 0.0, atol=1e-300)
    assert_allclose(longest, 0.0, atol=1e-300)


def test_squared_change(module, state):
    rows, _, sizes = state
    rng = np.random.default_rng(2)
    new, new_sizes = rng.standard_normal(rows.shape), rng.random(sizes.shape)
    difference = new_sizes[:, :, None] * new[:, :-1] - sizes[:, :, None] * rows[:, :-1]
    change = module.squared_change(new, new_sizes, rows, sizes)
    assert_allclose(change, np.sum(difference**2, axis=(0, 2)), **ROUNDING)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
@pytest.mark.parametrize("value", [np.inf, np.nan, 1e200])
def test_what_is_not_finite_shows(module, value):
    """Divergence is told by it."""
    rows = np.ones((3, 3, 4))
    rows[1, 0, 2] = value
    ones = np.ones((3, 2))
    _, squares = module.survey(rows, ones, ones)
    norms, _ = module.step(rows, ones, ones, 0.1, np.zeros((3, 4)), rows.copy())
    change = module.squared_change(rows, ones, np.ones_like(rows), ones)
    # norms that are NaN have caps that are
    norms = np.sqrt(norms)
    caps = norms.max(axis=0)
    _, sums, _, common = module.cut(norms, caps, norms, ones)
    assert not np.isfinite(sums[0] - common[0])
    assert_array_equal(np.isfinite(squares), [True, False, True])
    assert_array_equal(np.isfinite(norms[:, 0]), [True, False, True])
    assert not np.isfinite(change[0])


def test_a_sample_does_not_depend_on_the_others(module):
    """To the last bit: transform relies on it."""
    rng = np.random.default_rng(0)
    rows, theta = rng.standard_normal((90, 6, 106)), rng.dirichlet(np.ones(5), 90)
    sizes, shift = rng.random((90, 5)), np.zeros(rows.shape[1:])
    together, alone = rows.copy(), rows.copy()
    module.step(rows, theta, sizes, 0.3, shift, together)
    for some in (slice(0, 1), slice(1, 4), slice(4, 90)):
        module.step(rows[some], theta[some], sizes[some], 0.3, shift, alone[some])
    assert_array_equal(alone, together)


@pytest.mark.parametrize("renorm_size", [None, 50.0])
def test_a_fit_is_the_same_either_way(renorm_size, monkeypatch):
    cohort = make_cohort(n_samples=150, n_genes=400, n_cell_types=4, random_state=0)
    fits = []
    for module in (passes, compiled_passes()):
        monkeypatch.setattr(mixture, "fastest", lambda module=module: module)
        model = L2MaxDeconvolver(cohort.reference, alpha=0.1, renorm_size=renorm_size)
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


QUESTION = "from skenigma.core.passes import fastest; print(fastest().__name__)"


def answer(prelude="", **environment):
    command = [sys.executable, "-c", f"{prelude}\n{QUESTION}"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return found.stdout.strip()


class TestChoice:
    def test_numba_is_not_needed(self):
        assert answer("import sys; sys.modules['numba'] = None") == "skenigma.core.passes"

    def test_numba_is_used_where_it_is(self):
        pytest.importorskip("numba")
        assert answer() == "skenigma.core.compiled"

    def test_the_environment_can_switch_it_off(self):
        assert answer(SKENIGMA_COMPILED="0") == "skenigma.core.passes"

    def test_nowhere_to_write_is_no_obstacle(self):
        pytest.importorskip("numba")
        prelude = """
import numba
def njit(signature, cache=False, **options):
    if cache:
        raise RuntimeError("cannot cache function: no locator available")
    return lambda function: function
numba.njit = njit"""
        assert answer(prelude) == "skenigma.core.compiled"
