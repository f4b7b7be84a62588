"""The trace norm: singular-value thresholding as a proximal operator, and what is read off the noise."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg

from skenigma.core.optimize.penalties import TraceNorm
from skenigma.core.optimize.spectrum import (
    SMALLEST_GRAM_THRESHOLD,
    automatic_epsilon,
    automatic_gamma,
    noise_level,
    noise_threshold,
    nuclear_norm,
    optimal_hard_threshold,
    original_noise_threshold,
    singular_value_map,
)
from skenigma.core.optimize.states import Tensor

EPS = np.finfo(np.float64).eps


def with_spectrum(values, shape, rng):
    """Matrix with given singular values and random singular vectors."""
    left = linalg.qr(rng.standard_normal((shape[0], len(values))), mode="economic")[0]
    right = linalg.qr(rng.standard_normal((shape[1], len(values))), mode="economic")[0]
    return (left * values) @ right.T


def by_svd(matrix, threshold):
    left, values, right = linalg.svd(matrix, full_matrices=False)
    return (left * np.maximum(values - threshold, 0.0)) @ right


def singular_value_threshold(matrix, threshold):
    """Matrix with its singular values shrunk, and the map of rows that did it."""
    row_map = singular_value_map(matrix, threshold)
    shrunk = np.full_like(matrix, np.nan)
    row_map.apply(matrix, shrunk)
    return shrunk, row_map


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("shape", [(30, 34), (34, 30), (12, 12)])
@pytest.mark.parametrize("ratio", [0.5, 1e-2, 1e-4, 1e-5, 2e-6, 1e-7, 1e-10])
def test_thresholding_agrees_with_svd(rng, shape, ratio):
    largest = 1e3
    spectrum = largest * np.logspace(0.0, -12.0, min(shape))
    spectrum[5:9] = ratio * largest * np.array([1.01, 1.0001, 0.9999, 0.99])
    matrix = with_spectrum(spectrum, shape, rng)
    shrunk, _ = singular_value_threshold(matrix, ratio * largest)
    # the bound stated beside SMALLEST_GRAM_THRESHOLD; SciPy's own error is a few rounding errors of the largest
    by_gram = ratio >= SMALLEST_GRAM_THRESHOLD
    bound = 10 * EPS * largest * (1.0 / ratio if by_gram else 10.0) + 100 * EPS * largest
    assert linalg.norm(shrunk - by_svd(matrix, ratio * largest), 2) < bound


def test_closed_cases(rng):
    for threshold, expected in ((2.0, [3.0, -1.0, 0.0]), (4.5, [0.5, 0.0, 0.0]), (5.5, [0.0, 0.0, 0.0])):
        shrunk, _ = singular_value_threshold(np.diag([5.0, -3.0, 1.0]), threshold)
        assert_allclose(shrunk, np.diag(expected), atol=1e-14)
    matrix = rng.standard_normal((4, 7))
    assert_array_equal(singular_value_threshold(matrix, 0.0)[0], matrix)
    assert_array_equal(singular_value_threshold(matrix, 1e300)[0], 0.0)
    assert_array_equal(singular_value_threshold(np.zeros((3, 2)), 1.0)[0], 0.0)
    column = rng.standard_normal((5, 1))
    expected = column * (1.0 - 0.5 / linalg.norm(column))
    assert_allclose(singular_value_threshold(column, 0.5)[0], expected, rtol=1e-14)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("threshold", [1e-12, 0.3, 2.0, 1e9])
def test_minimises_the_proximal_objective(rng, shape, threshold):
    matrix = rng.standard_normal(shape)

    def objective(candidate):
        norm = linalg.svdvals(candidate).sum()
        return 0.5 * linalg.norm(candidate - matrix) ** 2 + threshold * norm

    shrunk, _ = singular_value_threshold(matrix, threshold)
    best = objective(shrunk)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            assert objective(shrunk + size * rng.standard_normal(shape)) > best


def test_does_not_expand_distances(rng):
    for _ in range(50):
        threshold = rng.uniform(0.0, 4.0)
        first = rng.standard_normal((6, 8))
        second = first + rng.standard_normal((6, 8)) * rng.uniform(0.0, 2.0)
        shrunk = [singular_value_threshold(matrix, threshold)[0] for matrix in (first, second)]
        assert linalg.norm(shrunk[0] - shrunk[1]) <= linalg.norm(first - second) * (1 + 1e-12)


@pytest.mark.parametrize("shape", [(20, 24), (24, 20)])
@pytest.mark.parametrize("threshold", [0.0, 1e-7, 0.5, 5.0, 100.0])
def test_map_of_rows_repeats_the_thresholding(rng, shape, threshold):
    matrix = rng.standard_normal(shape)
    shrunk, row_map = singular_value_threshold(matrix, threshold)
    mapped = np.full(shape, np.nan)
    row_map.apply(matrix, mapped)
    assert_allclose(mapped, shrunk, atol=1e-12)
    single = np.full((1, shape[1]), np.nan)
    row_map.apply(matrix[3:4], single)
    assert_allclose(single[0], shrunk[3], atol=1e-12)


def test_columns_beyond_the_cohort_are_dropped_unless_the_weight_is_zero(rng):
    rows = rng.standard_normal((3, 7))
    for threshold, kept in ((0.1, 0.0), (0.0, rows[:, 5:])):
        _, row_map = singular_value_threshold(rng.standard_normal((6, 5)), threshold)
        mapped = np.full_like(rows, np.nan)
        row_map.apply(rows, mapped)
        assert_array_equal(mapped[:, 5:], kept)


def test_thresholding_writes_over_its_input(rng):
    matrix = rng.standard_normal((5, 6))
    expected = by_svd(matrix, 0.7)
    singular_value_map(matrix, 0.7).apply(matrix, matrix)
    assert_allclose(matrix, expected, atol=1e-13)


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e200])
def test_infinite_numbers_are_refused(bad):
    with pytest.raises(FloatingPointError, match="infinite"):
        singular_value_threshold(np.full((2, 3), bad), 1.0)


@pytest.mark.parametrize("shape", [(30, 34), (34, 30)])
def test_nuclear_norm(rng, shape):
    matrix = rng.standard_normal(shape)
    assert_allclose(nuclear_norm(matrix @ matrix.T), linalg.svdvals(matrix).sum(), rtol=1e-12)
    deficient = with_spectrum(np.array([7.0, 2.0]), shape, rng)
    # thirty values that rounding makes of zero would add 30·√u·7 = 3e-6 if they were not dropped
    assert_allclose(nuclear_norm(deficient @ deficient.T), 9.0, rtol=1e-12)
    assert nuclear_norm(np.zeros((shape[0], shape[0]))) == 0.0


def test_penalty_weighs_cell_types(rng):
    expression = rng.standard_normal((3, 5, 8))
    weights = np.array([0.5, 0.0, 0.2])
    penalty = TraceNorm(1.7, weights)
    norms = [linalg.svdvals(rows).sum() for rows in expression]
    assert_allclose(penalty.value(Tensor(expression)), 1.7 * weights @ norms, rtol=1e-12)
    shrunk = np.empty_like(expression)
    penalty.prox(0.3, expression, shrunk)
    for rows, weight, result in zip(expression, weights, shrunk, strict=True):
        assert_allclose(result, by_svd(rows, 0.3 * 1.7 * weight), atol=1e-13)


def test_noise_threshold_agrees_with_r(vignette, package):
    bulk = vignette.table("bulk.csv.gz").to_numpy()
    # R's singular values carry rounding only; 15 digits are recorded
    recorded = 1.50233168586085
    for threshold in (noise_threshold, original_noise_threshold):
        assert_allclose(threshold(linalg.svdvals(bulk), bulk.shape[::-1]), recorded, rtol=1e-12)
    logged = np.log2(package.table("outputs/bmode_bulk_corrected.csv.gz").to_numpy() + 1.0)
    # the recorded batch-corrected bulk went through a table, with rounding of 2e-10
    recorded = 0.309784250742401
    assert_allclose(noise_threshold(linalg.svdvals(logged), logged.shape), recorded, rtol=1e-11)


def test_noise_level_is_that_of_the_noise(rng):
    shape = (400, 150)
    matrix = 3.0 * rng.standard_normal(shape) + 50.0 * np.outer(rng.random(400), rng.random(150))
    values = linalg.svdvals(matrix)
    # 1 % covers the fluctuation of a median of 150 values and the one rank of signal
    assert_allclose(noise_level(values, shape), 3.0, rtol=0.01)
    assert values[1] < optimal_hard_threshold(values, shape) < values[0]


def test_automatic_settings():
    for median, epsilon in ((0.9023, 1e-5), (10.6, 1e-3), (73.0, 1e-3), (-0.02, 1e-6), (0.0, 1e-4)):
        assert_allclose(automatic_epsilon(np.full((3, 4), median)), epsilon, rtol=1e-12)
    values = np.full(10, 1.0)
    assert automatic_gamma(values, (10, 20)) == 2.0
    assert automatic_gamma(100.0 * values, (10, 20)) == 0.5


def test_gamma_of_the_original_takes_samples_over_genes(rng):
    """Also above 1, where it is another number than that of the shorter over the longer side."""
    bulk = 0.5 * rng.standard_normal((120, 48))
    values = linalg.svdvals(bulk)
    beta = 120 / 48
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    factor = np.sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + np.sqrt(beta**2 + 14 * beta + 1)))
    expected = (1 + np.sqrt(beta)) * omega * np.median(values) / (factor * np.sqrt(48))
    assert_allclose(original_noise_threshold(values, bulk.shape), expected, rtol=1e-14)
    assert automatic_gamma(values, bulk.shape) == 0.5
    assert noise_threshold(values, bulk.shape) < 1 < expected
    # with fewer samples than genes they are one number
    values = linalg.svdvals(bulk.T)
    assert_allclose(
        original_noise_threshold(values, (48, 120)), noise_threshold(values, (48, 120)), rtol=1e-14
    )
