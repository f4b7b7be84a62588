"""The passes of an iteration against their formulas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core import passes

# Sums of up to a few hundred terms of size 1, in another order.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}
SHAPES = [(1, 1, 1), (1, 4, 9), (7, 1, 5), (12, 3, 40), (100, 5, 106), (300, 8, 130)]


@pytest.fixture
def module():
    return passes


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
