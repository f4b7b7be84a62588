"""Hidden factors of residuals: the same whether the products of samples with each other are held or not."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.regress import hidden
from skenigma.core.regress.hidden import Residuals


def standardised(strengths, n_samples=60, n_genes=150):
    """Residuals of genes around a mean, each of variance 1, with a factor of each strength."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_samples, n_genes))
    for strength in strengths:
        values += strength * rng.normal(size=(n_samples, 1)) * rng.normal(size=n_genes)
    values -= values.mean(axis=0)
    return values / np.sqrt((values**2).mean(axis=0))


def found(values, most):
    residuals = Residuals(*values.shape, most)
    for start in range(0, values.shape[1], 40):
        residuals.add(values[:, start : start + 40])
    return residuals, *residuals.factors(1)


@pytest.mark.parametrize(
    ("strengths", "most", "expected"), [((), 3, 0), ((2,), 3, 1), ((3, 2), 3, 2), ((3, 2), 1, 1)]
)
def test_factors_are_the_leading_eigenvectors_that_stand_out(strengths, most, expected, monkeypatch):
    values = standardised(strengths)
    residuals, sizes, vectors = found(values, most)
    assert vectors.shape == (60, expected)
    assert_allclose(residuals.squares, (values**2).sum(axis=1), rtol=1e-12)
    everything, directions = np.linalg.eigh(values @ values.T / 150)
    assert_allclose(sizes, everything[::-1][:expected], rtol=1e-12)
    # the threshold by its formula: twice the edge of the eigenvalues of noise
    rest = everything[::-1][expected:59]
    assert sizes.min(initial=np.inf) > 2 * (1 + np.sqrt(60 / 150)) ** 2 * rest.mean()
    monkeypatch.setattr(hidden, "MOST_PRODUCTS", 0)
    _, same_sizes, same = found(values, most)
    assert_allclose(same_sizes, sizes, rtol=1e-12)
    # up to a sign; 1e-16 over the distance of the eigenvalues, times some steps
    assert_allclose(np.abs(np.sum(same * directions[:, ::-1][:, :expected], axis=0)), 1, rtol=1e-12)


def test_nothing_is_held_where_no_factor_is_asked_for():
    rooms = []
    residuals = Residuals(5000, 10, 0, rooms.append)
    residuals.add(np.ones((5000, 2)))
    assert_array_equal(residuals.squares, 2)
    assert residuals.factors(1)[1].shape == (5000, 0)
    assert rooms == []
