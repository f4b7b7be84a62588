"""Regression on the logarithmic scale: the documented objective, written once more, and its minimum."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize, nnls

from skenigma.core.regress import log_scale
from skenigma.core.regress.log_scale import log_scale_model, log_scale_regression, sample_offsets
from skenigma.core.regress.log_scale_errors import share_errors
from skenigma.core.regress.nonnegative import nonnegative_quadratic


def simulate(n_samples=12, n_genes=300, n_types=4, noise=0.3, random_state=0):
    rng = np.random.default_rng(random_state)
    profiles = np.exp(rng.normal(3, 1.5, n_genes) + rng.normal(0, 1, (n_types, n_genes)))
    shares = rng.dirichlet(np.ones(n_types), n_samples)
    return profiles, shares @ profiles * np.exp(noise * rng.normal(size=(n_samples, n_genes))), shares


def gene_weights(profiles, offset):
    """The formula, gene by gene and pair by pair."""
    n_types, n_genes = profiles.shape
    weights = np.zeros(n_genes)
    for k in range(n_types):
        for other in range(k):
            distance = np.abs(np.log((profiles[k] + offset) / (profiles[other] + offset)))
            if distance.any():
                weights += distance**3 / np.mean(distance**3)
    return weights / weights.mean()


def objective(coefficients, sample, profiles, weights, offset, ridge):
    """Weighted Huber loss of log ratios, and the ridge."""
    residuals = np.log(sample + offset) - np.log(coefficients @ profiles + offset)
    size, threshold = np.abs(residuals), np.log(2)
    losses = np.where(size <= threshold, size**2 / 2, threshold * size - threshold**2 / 2)
    return weights @ losses + ridge / 2 * coefficients @ coefficients


def ingredients(profiles, bulk):
    """What the objective is made of, from the definitions."""
    used = profiles / profiles.mean()
    samples = bulk / bulk.mean(axis=1, keepdims=True)
    smallest = np.where(samples > 0, samples, np.inf).min(axis=1)
    offsets = np.minimum(1, np.maximum(0.01, smallest / 2))
    weights = gene_weights(used, np.median(offsets))
    start = weights / (used.mean(axis=0) + 0.01) ** 2
    ridge = log_scale.RIDGE * np.mean([start @ row**2 for row in used])
    return samples, used, weights, offsets, ridge


def fitted(profiles, bulk, **options):
    genes = np.flatnonzero(profiles.max(axis=0) > 0)
    model = log_scale_model(profiles, np.median(sample_offsets(bulk, genes)[1]))
    return model, log_scale_regression(model, bulk, **options)


def test_model_follows_the_formulas():
    profiles, bulk, _ = simulate()
    _, used, weights, offsets, ridge = ingredients(profiles, bulk)
    model, _ = fitted(profiles, bulk)
    # the same sums in another order
    assert_allclose(model.profiles, used, rtol=1e-13)
    assert_allclose(model.weights, weights, rtol=1e-11)
    assert_allclose(model.ridge, ridge, rtol=1e-11)
    assert_allclose(sample_offsets(bulk, np.arange(300))[1], offsets, rtol=1e-12)


def test_offset_has_bounds():
    bulk = np.array([[1e-6, 2.0, 1.0], [5.0, 5.0, 5.0], [0.0, 0.3, 2.7]])
    assert_allclose(sample_offsets(bulk, np.arange(3))[1], [0.01, 0.5, 0.15])


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.5])
def test_reaches_the_minimum(noise):
    """No general solver, started at the answer or at the truth, finds less."""
    profiles, bulk, shares = simulate(noise=noise)
    samples, used, weights, offsets, ridge = ingredients(profiles, bulk)
    _, fit = fitted(profiles, bulk, tol=1e-8)
    assert fit.converged.all()
    for j, sample in enumerate(samples):
        arguments = sample, used, weights, offsets[j], ridge
        here = objective(fit.coefficients[j], *arguments)
        assert_allclose(fit.objective[j], here, rtol=1e-10, atol=1e-12)  # rounding
        for start in (fit.coefficients[j], shares[j]):
            found = minimize(
                objective, start, arguments, bounds=[(0, None)] * len(used), options={"ftol": 1e-14}
            )
            # L-BFGS itself stops at a relative 1e-14 per step
            assert here <= found.fun * (1 + 1e-9) + 1e-12


def test_optimality_conditions_where_types_are_absent():
    profiles, bulk, _ = simulate(n_types=5, noise=0.5)
    bulk = bulk - 0.9 * np.minimum(bulk, bulk.mean(axis=0))  # no longer a mixture: some types must vanish
    _, fit = fitted(profiles, bulk, tol=1e-8)
    samples, used, weights, offsets, ridge = ingredients(profiles, bulk)
    assert (fit.coefficients == 0).any()
    for sample, coefficients, offset in zip(samples, fit.coefficients, offsets, strict=True):
        mixture = coefficients @ used + offset
        influence = np.clip(np.log((sample + offset) / mixture), -np.log(2), np.log(2))
        gradient = used @ (-weights * influence / mixture) + ridge * coefficients
        size = used @ (weights * np.abs(influence) / mixture)
        assert np.all(gradient[coefficients == 0] >= -1e-6 * size[coefficients == 0])  # tol, to second order
        assert_allclose(gradient[coefficients > 0] / size[coefficients > 0], 0, atol=1e-6)  # as above


def test_default_tolerance_is_near_the_minimum():
    profiles, bulk, _ = simulate(noise=0.8)
    _, rough = fitted(profiles, bulk)
    _, exact = fitted(profiles, bulk, tol=1e-10)
    # the last step is at most tol and taken; Newton's next one is far smaller
    assert_allclose(rough.coefficients, exact.coefficients, rtol=0, atol=1e-4)


def test_first_genes_and_blocks_do_not_show(monkeypatch):
    """The genes that the first steps look at, and the sizes of blocks, change the way and not the answer."""
    profiles, bulk, _ = simulate(n_genes=700, noise=0.5)
    _, whole = fitted(profiles, bulk, tol=1e-8)
    for name, value in {"FIRST_GENES": 100, "BLOCK_GENES": 64, "BLOCK_ROWS": 5}.items():
        monkeypatch.setattr(log_scale, name, value)
    _, parts = fitted(profiles, bulk, tol=1e-8)
    assert (parts.n_iter > whole.n_iter).any()  # or it would not have been another way
    assert_allclose(parts.coefficients, whole.coefficients, rtol=0, atol=1e-7)


def test_genes_of_no_profile_do_not_count():
    profiles, bulk, _ = simulate()
    wide = np.insert(profiles, [0, 50, 300], 0.0, axis=1)
    more = np.insert(bulk, [0, 50, 300], 7.0, axis=1)
    _, fit = fitted(wide, more)
    assert_allclose(fit.coefficients, fitted(profiles, bulk)[1].coefficients, rtol=0, atol=1e-12)  # blocks


def test_fewer_genes_than_types():
    """The ridge decides among all that fit."""
    profiles, bulk, _ = simulate(n_genes=20, n_types=40, noise=0.0)
    _, fit = fitted(profiles, bulk, tol=1e-6)
    assert fit.converged.all()
    used = profiles / profiles.mean()
    misfit = np.log(fit.coefficients @ used) - np.log(bulk / bulk.mean(axis=1, keepdims=True))
    assert np.abs(misfit).max() < 0.05  # what the ridge takes


def test_identical_profiles_share_evenly():
    profiles, bulk, _ = simulate()
    doubled = profiles[[0, 1, 1, 2, 3, 1]]
    _, fit = fitted(doubled, bulk, tol=1e-8)
    # exact but for rounding, times the inverse of the ridge
    assert_allclose(fit.coefficients[:, 2], fit.coefficients[:, 1], rtol=0, atol=1e-8)
    assert_allclose(fit.coefficients[:, 5], fit.coefficients[:, 1], rtol=0, atol=1e-8)


def test_stops_at_max_iter():
    profiles, bulk, _ = simulate(noise=1.0)
    _, fit = fitted(profiles, bulk, max_iter=2)
    assert not fit.converged.all()
    assert fit.n_iter.max() == 2
    assert np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize("n_unknowns", [1, 3, 12, 40])
def test_nonnegative_quadratic_equals_nnls(n_unknowns):
    rng = np.random.default_rng(n_unknowns)
    designs, targets = rng.normal(size=(30, 60, n_unknowns)), rng.normal(size=(30, 60))
    grams = np.einsum("ngk,ngl->nkl", designs, designs)
    right = np.einsum("ngk,ng->nk", designs, targets)
    expected = np.array([nnls(*pair)[0] for pair in zip(designs, targets, strict=True)])
    found = nonnegative_quadratic(grams, right)
    # well-conditioned systems of 40 unknowns at most
    assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert_array_equal(found == 0, expected == 0)
    guess = rng.random(right.shape) < 0.5
    assert_allclose(nonnegative_quadratic(grams, right, guess), expected, rtol=0, atol=1e-10)


def test_nonnegative_quadratic_on_nearly_dependent_columns():
    """Exchanges one at a time end where full ones might not."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(200, 50, 2))
    designs = base[:, :, [0, 0, 0, 1, 1, 1]] + 1e-3 * rng.normal(size=(200, 50, 6))
    targets = rng.normal(size=(200, 50))
    grams = np.einsum("ngk,ngl->nkl", designs, designs)
    right = np.einsum("ngk,ng->nk", designs, targets)
    found = nonnegative_quadratic(grams, right)
    value = 0.5 * np.einsum("nk,nkl,nl->n", found, grams, found) - np.einsum("nk,nk->n", found, right)
    exact = np.array([nnls(*pair)[0] for pair in zip(designs, targets, strict=True)])
    least = 0.5 * np.einsum("nk,nkl,nl->n", exact, grams, exact) - np.einsum("nk,nk->n", exact, right)
    assert_allclose(value, least, rtol=1e-8)  # the squared condition is 1e6


class TestErrors:
    def test_follow_the_formulas(self):
        profiles, bulk, _ = simulate(noise=0.4)
        samples, used, weights, offsets, ridge = ingredients(profiles, bulk)
        model, fit = fitted(profiles, bulk, tol=1e-8)
        found = share_errors(model, bulk, fit.coefficients, correlation=0.3)
        for j in (0, 5):
            b = fit.coefficients[j]
            active = b > 0
            mixture = b @ used + offsets[j]
            residual = np.log((samples[j] + offsets[j]) / mixture)
            clipped = np.clip(residual, -np.log(2), np.log(2))
            r = used[active]
            bread = (r * (weights / mixture**2 * (residual == clipped))) @ r.T + ridge * np.eye(len(r))
            meat = (r * (weights * clipped / mixture) ** 2) @ r.T
            covariance = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread)
            covariance += np.diag(0.3 * np.average(clipped**2, weights=weights) * b[active] ** 2)
            change = (np.eye(len(r)) - (b[active] / b.sum())[:, None]) / b.sum()
            # the same small systems, solved in another order
            assert_allclose(found[j, active], np.sqrt(np.diag(change @ covariance @ change.T)), rtol=1e-8)

    def test_independent_noise_is_covered(self):
        """Two standard errors without the factors of whole profiles hold .95 of normal errors."""
        profiles, bulk, shares = simulate(n_samples=200, n_genes=2000, noise=0.2)
        model, fit = fitted(profiles, bulk)
        errors = share_errors(model, bulk, fit.coefficients, correlation=0.0)
        found = fit.coefficients / fit.coefficients.sum(axis=1, keepdims=True)
        covered = np.mean(np.abs(found - shares) < 2 * errors)
        # means of log-normal noise are above their medians, for all types alike; 800 shares that depend on each other
        assert 0.88 < covered < 0.99

    def test_one_type_has_none(self):
        profiles, bulk, _ = simulate()
        model, fit = fitted(profiles[:1], bulk)
        assert_allclose(share_errors(model, bulk, fit.coefficients), 0, atol=1e-12)

    def test_factors_are_a_change_of_units_of_the_coefficients(self):
        profiles, bulk, _ = simulate(noise=0.4)
        model, fit = fitted(profiles, bulk, tol=1e-8)
        plain = share_errors(model, bulk, fit.coefficients)
        assert_allclose(share_errors(model, bulk, fit.coefficients, np.full(4, 3.0)), plain, rtol=1e-10)
