"""ν-support-vector regression without a kernel: its certificate, written once more from the problem."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.svm import NuSVR

from skenigma.core.regress.support_vector import support_vector_regression


@pytest.fixture(scope="module")
def design():
    return np.random.default_rng(0).normal(size=(300, 4))


@pytest.fixture(scope="module")
def targets(design):
    rng = np.random.default_rng(1)
    return rng.uniform(0, 0.6, (6, 4)) @ design.T + 0.3 * rng.standard_t(3, (6, 300))


def objective(coefficients, design, target, nu):
    """Minimum over offset and half-width: the sum of the largest νG residuals, at the best offset."""
    residuals = target - design @ coefficients
    total = nu * len(target)

    def loss(offset):
        largest = np.sort(np.abs(residuals - offset))[::-1]
        whole = int(total)
        return largest[:whole].sum() + (total - whole) * (largest[whole] if whole < len(largest) else 0)

    # convex in the offset, and linear between few points: a fine golden section
    low, high = residuals.min(), residuals.max()
    for _ in range(200):
        first, second = low + 0.382 * (high - low), low + 0.618 * (high - low)
        low, high = (low, second) if loss(first) < loss(second) else (first, high)
    return coefficients @ coefficients / 2 + loss((low + high) / 2)


@pytest.mark.parametrize("nu", [0.1, 0.5, 1.0])
def test_nothing_near_is_better_and_the_gap_says_by_how_much_at_most(design, targets, nu):
    fit = support_vector_regression(design, targets, nu, tol=1e-6)
    assert fit.converged.all()
    assert fit.gap.max() <= 1e-10
    rough = support_vector_regression(design, targets, nu, tol=10)
    assert (rough.n_iter < fit.n_iter).all()
    rng = np.random.default_rng(2)
    for j, target in enumerate(targets):
        least = objective(fit.coefficients[j], design, target, nu)
        for size in (1e-3, 1e-1):
            moved = fit.coefficients[j] + size * rng.normal(size=4)
            assert objective(moved, design, target, nu) >= least * (1 - 1e-9)  # golden section
        excess = objective(rough.coefficients[j], design, target, nu) - least
        assert excess <= rough.gap[j] * least * 1.1 + 1e-9 * least  # relative to a nearby objective


@pytest.mark.parametrize("nu", [0.25, 0.75])
def test_is_the_problem_of_libsvm(design, targets, nu):
    fit = support_vector_regression(design, targets, nu)
    expected = [NuSVR(kernel="linear", C=1.0, nu=nu, tol=1e-8).fit(design, row).coef_[0] for row in targets]
    assert_allclose(fit.coefficients, expected, rtol=0, atol=1e-5)  # of both


def test_rows_and_order_of_genes_do_not_matter(design, targets):
    whole = support_vector_regression(design, targets, 0.5)
    alone = support_vector_regression(design, targets[[4]], 0.5)
    assert_allclose(alone.coefficients, whole.coefficients[[4]], rtol=0, atol=1e-9)  # rounding, amplified
    order = np.random.default_rng(3).permutation(len(design))
    permuted = support_vector_regression(design[order], targets[:, order], 0.5)
    assert_allclose(permuted.coefficients, whole.coefficients, rtol=0, atol=1e-9)  # as above


def test_targets_without_residual(design):
    exact = np.array([[0.5, 0.2, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0]])
    fit = support_vector_regression(design, exact @ design.T, 0.5)
    # the length of the coefficients counts, too, and pulls them from the exact fit by a hair
    assert_allclose(fit.coefficients, exact, rtol=0, atol=1e-2)


def test_dependent_columns_share_evenly(design, targets):
    fit = support_vector_regression(design[:, [0, 1, 2, 3, 3]], targets, 0.5)
    assert_allclose(
        fit.coefficients[:, 3], fit.coefficients[:, 4], rtol=0, atol=1e-6
    )  # half the squared length
