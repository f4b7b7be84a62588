"""Robust and non-negative regression: against R, against the plain formulas, and at the edges."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.regress import robust as regression
from skenigma.core.regress.robust import nonnegative_least_squares, robust_regression

# The same iteration and stopping rule, so only rounding separates the two: measured 6e-16, and R itself moves
# by 2e-15 when the bulk changes in the last bit. Another BLAS may need a little more.
R_TOLERANCE = 1e-12
# Two ways of solving the same well-conditioned systems in double precision.
ROUNDING = 1e-11


def standardize(columns):
    return (columns - columns.mean(axis=0)) / columns.std(axis=0, ddof=1)


def prepare(bulk, reference):
    """Design with intercept and targets of get_proportion, from genes x samples and genes x cell types."""
    assert (bulk.index == reference.index).all()
    design = np.column_stack([np.ones(len(reference)), standardize(reference.to_numpy())])
    return design, standardize(bulk.to_numpy()).T


def contaminated(seed, n=12, g=201, p=4, outliers=0.1):
    """Design with intercept, targets with noise and gross outliers, and the coefficients behind them."""
    rng = np.random.default_rng(seed)
    design = np.column_stack([np.ones(g), rng.lognormal(size=(g, p - 1))])
    coef = rng.normal(size=(n, p))
    noise = rng.normal(size=(n, g)) * np.where(rng.random((n, g)) < outliers, 30.0, 0.3)
    return design, coef @ design.T + noise, coef


def plain_rlm(design, target, max_iter=500, tol=1e-4, k=1.345):
    """Huber's M-estimate of one target, straight from the formulas."""
    coef = np.linalg.lstsq(design, target, rcond=None)[0]
    residual = target - design @ coef
    for iteration in range(1, max_iter + 1):
        scale = np.median(np.abs(residual)) / 0.6745
        root = np.sqrt(np.minimum(1.0, k * scale / np.abs(residual)))
        coef = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
        old, residual = residual, target - design @ coef
        if np.sqrt(np.sum((old - residual) ** 2) / max(1e-20, np.sum(old**2))) <= tol:
            return coef, iteration, True
    return coef, max_iter, False


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three targets, and a few genes at a time in the weighted normal equations."""
    monkeypatch.setattr(regression, "BLOCK_ENTRIES", 603)
    monkeypatch.setattr(regression, "MIN_BLOCK_ROWS", 1)


class TestAgainstR:
    def test_vignette(self, vignette):
        design, targets = prepare(vignette.table("bulk.csv.gz"), vignette.table("reference.csv.gz"))
        coef, n_iter, converged = robust_regression(design, targets, max_iter=100)
        assert converged.all()
        assert n_iter.max() < 100
        assert_allclose(coef[:, 1:], vignette.table("rlm_coef.csv.gz"), rtol=0, atol=R_TOLERANCE)

    @pytest.mark.parametrize(
        ("bulk", "recorded"),
        [
            ("inputs/bulk_cpm.csv.gz", "outputs/rlr_coef_raw.csv.gz"),
            ("outputs/bmode_bulk_corrected.csv.gz", "outputs/rlr_coef_bmode.csv.gz"),
        ],
    )
    def test_package(self, package, bulk, recorded):
        design, targets = prepare(package.table(bulk), package.table("inputs/reference_cpm.csv.gz"))
        coef, _, converged = robust_regression(design, targets)
        assert converged.all()
        assert_allclose(coef[:, 1:], package.table(recorded), rtol=0, atol=R_TOLERANCE)

    def test_clipped_and_normalized_is_the_recorded_theta(self, vignette):
        design, targets = prepare(vignette.table("bulk.csv.gz"), vignette.table("reference.csv.gz"))
        coef = robust_regression(design, targets, max_iter=100)[0][:, 1:].clip(min=0)
        theta = coef / coef.sum(axis=1, keepdims=True)
        assert_allclose(theta, vignette.table("theta.csv.gz"), rtol=0, atol=R_TOLERANCE)


class TestRobustRegression:
    @pytest.mark.parametrize("g", [200, 201])  # the median of an even and of an odd number of genes
    @pytest.mark.parametrize("options", [{}, {"tol": 1e-9}, {"k": 0.7}, {"max_iter": 3}])
    def test_equals_the_plain_formulas(self, g, options):
        design, targets, _ = contaminated(seed=0, g=g)
        coef, n_iter, converged = robust_regression(design, targets, **options)
        plain = [plain_rlm(design, target, **options) for target in targets]
        assert_allclose(coef, [row[0] for row in plain], rtol=0, atol=ROUNDING)
        assert_array_equal(n_iter, [row[1] for row in plain])
        assert_array_equal(converged, [row[2] for row in plain])

    def test_tiny_targets_stop_at_the_floor(self):
        design, targets, _ = contaminated(seed=0)
        tiny = 1e-14 * targets
        coef, n_iter, _ = robust_regression(design, tiny)
        plain = [plain_rlm(design, target) for target in tiny]
        assert (n_iter < robust_regression(design, targets)[1]).any()
        assert_array_equal(n_iter, [row[1] for row in plain])
        assert_allclose(1e14 * coef, [1e14 * row[0] for row in plain], rtol=0, atol=ROUNDING)

    def test_blocks_do_not_matter(self, small_blocks):
        self.test_equals_the_plain_formulas(201, {})

    def test_rows_do_not_depend_on_each_other(self):
        design, targets, _ = contaminated(seed=1, n=20)
        targets[3] *= 1e6
        targets[4] = 0.0
        coef, n_iter, converged = robust_regression(design, targets)
        assert len(set(n_iter)) > 2  # rows leave the batch at different times
        for row, target in enumerate(targets):
            alone = robust_regression(design, target[None])
            assert_allclose(alone[0][0], coef[row], rtol=ROUNDING, atol=ROUNDING)
            assert (alone[1][0], alone[2][0]) == (n_iter[row], converged[row])

    def test_fixed_point(self):
        design, targets, _ = contaminated(seed=2)
        coef, _, converged = robust_regression(design, targets, tol=1e-13)
        assert converged.all()
        residuals = targets - coef @ design.T
        scale = np.median(np.abs(residuals), axis=1, keepdims=True) / 0.6745
        psi = np.clip(residuals, -1.345 * scale, 1.345 * scale)
        # the last step was 1e-13 of residuals that outliers make about 30 times the scale
        assert_allclose(psi @ design / (np.abs(psi) @ np.abs(design)), 0.0, atol=1e-10)

    def test_gross_outliers_move_little(self):
        design, targets, truth = contaminated(seed=3, g=2000)
        least_squares = robust_regression(design, targets, max_iter=0)[0]
        robust = robust_regression(design, targets)[0]
        assert np.abs(robust - truth).max() < 0.1 < np.abs(least_squares - truth).max()

    def test_one_outlier_of_any_size_moves_little(self):
        design, clean, _ = contaminated(seed=3, g=2000, outliers=0.0)
        spoiled = clean.copy()
        spoiled[:, 7] += 1e9
        # R's stopping rule is relative to all residuals: the default would stop within 1e-4 of the outlier
        before, after = (robust_regression(design, targets, tol=1e-14)[0] for targets in (clean, spoiled))
        assert np.abs(after - before).max() < 0.01

    def test_equivariance(self):
        design, targets, _ = contaminated(seed=4)
        shift = np.array([3.0, -1.0, 0.5, 2.0])
        coef, n_iter, _ = robust_regression(design, targets)
        moved, moved_n_iter, _ = robust_regression(design, 1e3 * (targets + design @ shift))
        assert_allclose(moved / 1e3, coef + shift, rtol=0, atol=ROUNDING)
        assert_array_equal(n_iter, moved_n_iter)

    def test_column_units_do_not_matter(self):
        design, targets, _ = contaminated(seed=5)
        units = np.array([1e-9, 1.0, 1e12, 1e-3])
        expected = robust_regression(design, targets)[0]
        assert_allclose(
            robust_regression(design * units, targets)[0] * units, expected, rtol=0, atol=ROUNDING
        )

    def test_zero_iterations_are_least_squares(self):
        design, targets, _ = contaminated(seed=6)
        coef, n_iter, converged = robust_regression(design, targets, max_iter=0)
        assert_allclose(coef.T, np.linalg.lstsq(design, targets.T, rcond=None)[0], rtol=0, atol=ROUNDING)
        assert not n_iter.any()
        assert not converged.any()

    @pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
    def test_exact_fit_is_done_at_once(self, unit):
        design, _, coef = contaminated(seed=7)
        estimate, n_iter, converged = robust_regression(design, unit * coef @ design.T, tol=0.0)
        assert_allclose(estimate / unit, coef, rtol=0, atol=ROUNDING)
        assert converged.all()
        assert not n_iter.any()

    def test_zero_targets(self):
        design, targets, _ = contaminated(seed=8, n=3)
        targets[1] = 0.0
        coef, n_iter, converged = robust_regression(design, targets)
        assert_array_equal(coef[1], 0.0)
        assert n_iter[1] == 0
        assert converged.all()
        assert coef[[0, 2]].all()

    def test_zero_scale_keeps_least_squares(self):
        design, targets, _ = contaminated(seed=8)
        design[:150] = targets[:, :150] = 0.0  # genes nothing expresses: most residuals are 0
        coef, n_iter, converged = robust_regression(design, targets)
        assert_allclose(coef.T, np.linalg.lstsq(design, targets.T, rcond=None)[0], rtol=0, atol=ROUNDING)
        assert converged.all()
        assert not n_iter.any()

    def test_large_integers(self):
        coef, _, converged = robust_regression(np.ones((5, 1)), np.full((2, 5), 5_000_000_000))
        assert_allclose(coef, 5e9, rtol=1e-15)
        assert converged.all()

    def test_exact_majority_is_found(self):
        design, _, truth = contaminated(seed=9)
        targets = truth @ design.T
        targets[:, ::5] += np.random.default_rng(0).normal(scale=100.0, size=targets[:, ::5].shape)
        coef, _, converged = robust_regression(design, targets, tol=1e-12)
        assert converged.all()
        # the majority's residuals shrink to about the stopping tolerance times the outliers
        assert_allclose(coef, truth, rtol=0, atol=1e-8)

    @pytest.mark.parametrize("dtype", [np.float32, np.int64])
    def test_other_dtypes_are_computed_in_double_precision(self, dtype):
        design, targets, _ = contaminated(seed=10)
        targets = (100 * targets).astype(dtype)
        coef = robust_regression(design.astype(np.float32), targets)[0]
        expected = robust_regression(design.astype(np.float32).astype(float), targets.astype(float))[0]
        assert coef.dtype == np.float64
        assert_allclose(coef, expected, rtol=0, atol=ROUNDING)

    def test_memory_order_and_inputs_are_left_alone(self):
        design, targets, _ = contaminated(seed=11)
        design.flags.writeable = targets.flags.writeable = False
        expected = robust_regression(design, targets)[0]
        turned = robust_regression(np.asfortranarray(design), np.asfortranarray(targets))[0]
        assert_allclose(turned, expected, rtol=0, atol=ROUNDING)

    def test_no_targets(self):
        coef, n_iter, converged = robust_regression(np.ones((5, 2)), np.empty((0, 5)))
        assert (coef.shape, n_iter.shape, converged.shape) == ((0, 2), (0,), (0,))

    def test_no_columns(self):
        coef, _, converged = robust_regression(np.empty((5, 0)), np.ones((3, 5)))
        assert coef.shape == (3, 0)
        assert converged.all()


class TestDeficientDesigns:
    def test_repeated_columns_share(self):
        design, targets, _ = contaminated(seed=12)
        expected = robust_regression(design, targets)[0]
        coef, _, converged = robust_regression(design[:, [0, 1, 2, 3, 1]], targets)
        assert converged.all()
        assert_allclose(coef[:, [0, 2, 3]], expected[:, [0, 2, 3]], rtol=0, atol=ROUNDING)
        assert_allclose(coef[:, [1, 4]], expected[:, [1, 1]] / 2, rtol=0, atol=ROUNDING)

    def test_constant_column_shares_with_the_intercept(self):
        design, targets, _ = contaminated(seed=13)
        expected = robust_regression(design, targets)[0]
        coef = robust_regression(np.column_stack([design, np.full(len(design), 5.0)]), targets)[0]
        assert_allclose(coef[:, 0] + 5.0 * coef[:, 4], expected[:, 0], rtol=0, atol=ROUNDING)
        assert_allclose(coef[:, 1:4], expected[:, 1:], rtol=0, atol=ROUNDING)

    def test_zero_column_gets_zero(self):
        design, targets, _ = contaminated(seed=14)
        expected = robust_regression(design, targets)[0]
        coef = robust_regression(np.insert(design, 2, 0.0, axis=1), targets)[0]
        assert_allclose(coef, np.insert(expected, 2, 0.0, axis=1), rtol=0, atol=ROUNDING)

    def test_all_zero_design(self):
        coef, _, converged = robust_regression(np.zeros((7, 3)), np.arange(14.0).reshape(2, 7))
        assert_array_equal(coef, np.zeros((2, 3)))
        assert converged.all()

    def test_fewer_genes_than_columns(self):
        rng = np.random.default_rng(15)
        design = rng.normal(size=(4, 9))
        design /= np.linalg.norm(design, axis=0)  # then the documented norm is the plain one
        targets = rng.normal(size=(6, 4))
        coef, _, converged = robust_regression(design, targets)
        assert converged.all()
        assert_allclose(coef, targets @ np.linalg.pinv(design).T, rtol=0, atol=ROUNDING)

    def test_singular_weighted_system_has_a_solution(self):
        singular = np.diag([2.0, 0.0])
        update = regression._solve(np.stack([np.eye(2), singular]), np.array([[1.0, 3.0], [4.0, 0.0]]))
        assert_allclose(update, [[1.0, 3.0], [2.0, 0.0]], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("function", [robust_regression, nonnegative_least_squares])
class TestBadShapes:
    def test_different_numbers_of_genes(self, function):
        with pytest.raises(ValueError, match=r"design has 5 rows \(genes\), targets 4 columns"):
            function(np.ones((5, 2)), np.ones((3, 4)))

    def test_one_dimension(self, function):
        with pytest.raises(ValueError, match="must be 2-d, got 2-d and 1-d"):
            function(np.ones((5, 2)), np.ones(5))

    def test_no_genes(self, function):
        with pytest.raises(ValueError, match="no genes"):
            function(np.ones((0, 2)), np.ones((3, 0)))


def assert_optimal(design, targets, coef):
    """Karush-Kuhn-Tucker conditions of min ||design @ coef - target|| over coef >= 0, free of units."""
    lengths = np.linalg.norm(design, axis=0)
    lengths[lengths == 0] = 1.0
    gradient = (
        (targets - coef @ design.T) @ (design / lengths) / np.linalg.norm(targets, axis=1, keepdims=True)
    )
    assert (coef >= 0).all()
    assert gradient.max() < 1e-9  # nothing to gain by raising a coefficient ...
    assert np.abs(gradient[coef > 0]).max(initial=0.0) < 1e-9  # ... or by moving a positive one


@st.composite
def nnls_problems(draw):
    """Designs of every shape, units apart, some with zero or repeated columns; targets with any sign."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    g, p = draw(st.integers(1, 30)), draw(st.integers(1, 9))
    design = rng.normal(size=(g, p)) * 10.0 ** rng.uniform(-4, 4, size=p)
    if draw(st.booleans()):
        design = np.abs(design)
    if draw(st.booleans()):
        design[:, rng.integers(p)] = 0.0
    if draw(st.booleans()):
        design = design[:, rng.integers(p, size=p)]
    targets = rng.normal(size=(5, g)) * 10.0 ** rng.uniform(-15, 15, size=(5, 1))
    targets[0] = rng.random(p) @ design.T + (0.0 if design.any() else 1.0)
    return design, targets


class TestNonnegativeLeastSquares:
    @pytest.mark.slow
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(nnls_problems())
    def test_optimality_conditions(self, problem):
        assert_optimal(*problem, nonnegative_least_squares(*problem))

    def test_equals_the_unreduced_problem(self):
        design, targets, _ = contaminated(seed=20)
        expected = [scipy.optimize.nnls(design, target)[0] for target in targets]
        coef = nonnegative_least_squares(design, targets)
        assert (coef == 0).any()
        assert (coef > 0).any()
        assert_allclose(coef, expected, rtol=0, atol=ROUNDING)

    def test_units_do_not_matter(self):
        design, targets, _ = contaminated(seed=21)
        expected = nonnegative_least_squares(design, targets)
        tiny = nonnegative_least_squares(design * 1e5, targets * 1e-25)
        assert_allclose(tiny * 1e30, expected, rtol=0, atol=ROUNDING)

    def test_zero_targets_and_float32(self):
        design, _, truth = contaminated(seed=22)
        truth = np.abs(truth)
        truth[2] = 0.0
        coef = nonnegative_least_squares(design.astype(np.float32), (truth @ design.T).astype(np.float32))
        assert coef.dtype == np.float64
        assert_array_equal(coef[2], 0.0)
        assert_allclose(coef, truth, rtol=0, atol=1e-5)  # float32 inputs carry 7 digits

    def test_a_cycling_solver_is_replaced(self, monkeypatch):
        def cycle(*args, **kwargs):
            raise RuntimeError("Maximum number of iterations reached.")

        design, targets, _ = contaminated(seed=23)
        expected = nonnegative_least_squares(design, targets)
        monkeypatch.setattr(regression, "nnls", cycle)
        coef = nonnegative_least_squares(design, targets)
        assert_optimal(design, targets, coef)
        assert_allclose(coef, expected, rtol=0, atol=1e-9)  # BVLS stops on the cost, not on the active set
