"""The factor model of a large cohort, by coordinates along few directions over genes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.posterior import factor_rows
from skenigma.core.posterior.factor import Search, fit_factors
from skenigma.core.posterior.factor_rest import largest_values, residual_of
from skenigma.core.posterior.factor_rows import Residual, fit_factors_by_rows
from skenigma.core.posterior.factor_step import Parts

N_SAMPLES, N_GENES, N_TYPES = 300, 500, 3


@pytest.fixture(scope="module")
def cohort():
    """Bulk, proportions and reference; two factors, one strong and one weak, and genes of different scales."""
    rng = np.random.default_rng(0)
    reference, theta = rng.normal(size=(N_TYPES, N_GENES)), rng.dirichlet(np.ones(N_TYPES), N_SAMPLES)
    rest = theta @ (0.3 * rng.normal(size=(N_TYPES, N_GENES)))
    for size in (0.5, 0.2):
        rest += rng.normal(size=(N_SAMPLES, 1)) * (theta @ (size * rng.normal(size=(N_TYPES, N_GENES))))
    rest += 0.6 * rng.normal(size=rest.shape)
    return theta @ reference + rest * np.exp(0.3 * rng.normal(size=N_GENES)), theta, reference


def fitted(posterior, theta):
    """What loadings and factors say of the bulk, of genes over their scale."""
    design = (posterior.scores[:, :, None] * theta[:, None]).reshape(len(theta), -1)
    return design @ posterior.loadings.reshape(design.shape[1], -1)


def test_few_directions_come_close_to_the_whole_fit(cohort, monkeypatch):
    """16 groups, where there are 300 samples: by rounds the error falls to a small share of the noise."""
    monkeypatch.setattr(factor_rows, "N_GROUPS", 16)
    monkeypatch.setattr(
        factor_rows,
        "random_groups",
        lambda n: (np.arange(n) % 16, np.random.default_rng(1).choice([-1.0, 1.0], n)),
    )
    bulk, theta, reference = cohort
    known = np.ones((N_SAMPLES, 1))
    expected = fit_factors(bulk - theta @ reference, theta, known)
    explained = fitted(expected, theta)
    noise = np.linalg.norm((bulk - theta @ reference) / expected.scale - explained)
    errors = []
    for rounds in (1, 2, 3):
        monkeypatch.setattr(factor_rows, "ROUNDS", rounds)
        found = fit_factors_by_rows(bulk, theta, reference, known)
        scaled = fitted(found, theta) * found.scale / expected.scale
        errors.append(np.linalg.norm(scaled - explained) / noise)
    assert found.n_factors == expected.n_factors == 2
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 0.01


def test_what_is_left_is_seen_along_its_leading_directions(cohort):
    """By weights of samples that give directions at right angles, and no longer ones than are there."""
    bulk, theta, reference = cohort
    theta = theta / np.linspace(1, 3, N_SAMPLES)[:, None]  # so that samples have variances of their own
    residual = Residual(bulk, theta, reference)
    combined, _ = residual.combine(np.random.default_rng(1).normal(size=(12, N_SAMPLES)), np.ones(N_SAMPLES))
    genes = residual.along(combined, np.ones(N_GENES))
    fit = Search(genes, theta, np.ones((N_SAMPLES, 1)), 50, 1e-3, None)
    parts = Parts(fit, fit.state)
    rest = genes.rest(parts)
    found = genes.left(parts, 3) @ rest
    sizes = np.linalg.svd(rest / np.sqrt(parts.variance)[:, None], compute_uv=False)[:3]
    # squares of directions of the size of squares, whose sums round at that of their largest
    assert_allclose(found @ found.T, np.diag(sizes[::-1] ** 4), atol=1e-10 * sizes[0] ** 4)


def test_rounding_is_that_of_the_type_of_the_bulk(cohort):
    _, theta, reference = cohort
    bulk = (theta @ reference).astype(np.float32)
    bulk[:, 5] -= np.linspace(1e-3, 2e-3, N_SAMPLES, dtype=np.float32)
    kept = residual_of(bulk, theta, reference).any(axis=0)
    assert_array_equal(np.flatnonzero(kept), [5])
    assert_array_equal(largest_values(np.array([[-3.0, 1], [2, -1]])), [3, 1])


def test_a_residual_is_combined_and_seen_along_its_combinations(cohort):
    bulk, theta, reference = cohort
    rng = np.random.default_rng(1)
    known = bulk.copy()
    known[:, 7] = theta @ reference[:, 7]  # but for rounding: none of it is left
    residual = Residual(known, theta, reference)
    expected = bulk - theta @ reference
    expected[:, 7] = 0.0
    mix, weights, scale = rng.normal(size=(4, N_SAMPLES)), rng.random(N_SAMPLES), 1 + rng.random(N_GENES)
    combined, squares = residual.combine(mix, weights)
    assert_allclose(combined, mix @ expected, atol=1e-10)
    assert_allclose(squares, weights @ expected**2, rtol=1e-12, atol=0)
    found = residual.along(combined, scale)
    assert_allclose(found.squares, np.mean((expected / scale) ** 2, axis=1), rtol=1e-12)
    # of the combinations themselves nothing is lost
    assert_allclose(
        found.gram_product(mix), mix @ (expected / scale) @ (expected / scale).T / N_GENES, atol=1e-10
    )
    assert_allclose(found.to_genes(found.residual).shape, expected.shape)
