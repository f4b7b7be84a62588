"""ProportionEstimator: against R's numbers, and where samples have no ordinary answer."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog, nnls
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import NuSVR

from skenigma import ProportionEstimator
from skenigma.datasets import make_cohort
from skenigma.exceptions import ReferenceWarning
from skenigma.proportions import standardize

METHODS = ["rlm", "nnls", "nusvr"]
CELL_TYPES = ["B cell", "monocyte", "NK cell", "T cell"]
SAMPLES = [f"donor{j}" for j in range(10)]


@pytest.fixture(scope="module")
def reference():
    values = np.random.default_rng(0).gamma(1, 100, (len(CELL_TYPES), 60))
    return pd.DataFrame(values, index=CELL_TYPES, columns=[f"gene{i}" for i in range(60)])


def recorded_data(package, correction):
    """Bulk and reference of the recorded runs; the bulk as it came, or after B-mode correction."""
    name = {"raw": "inputs/bulk_cpm.csv.gz", "bmode": "outputs/bmode_bulk_corrected.csv.gz"}[correction]
    reference = package.table("inputs/reference_cpm.csv.gz").T
    return SimpleNamespace(bulk=package.table(name).T, reference=reference, correction=correction)


@pytest.fixture(scope="module")
def raw(package):
    return recorded_data(package, "raw")


@pytest.fixture(scope="module", params=["raw", "bmode"])
def recorded(request, package):
    return recorded_data(package, request.param)


class TestAgainstR:
    def test_rlm(self, recorded, package):
        estimator = ProportionEstimator(recorded.reference)
        expected = package.table(f"outputs/theta_rlr_{recorded.correction}.csv.gz")
        # the same iteration and stopping rule: what is left is the rounding of a dozen linear solves
        assert_allclose(estimator.fit_transform(recorded.bulk), expected, rtol=0, atol=1e-12)
        assert list(estimator.cell_types_) == list(expected.columns)

    def test_rlm_is_the_positive_part_of_the_recorded_coefficients(self, recorded, package):
        coefficients = package.table(f"outputs/rlr_coef_{recorded.correction}.csv.gz").clip(lower=0)
        shares = coefficients.div(coefficients.sum(axis=1), axis=0)
        proportions = ProportionEstimator(recorded.reference).fit_transform(recorded.bulk)
        assert_allclose(proportions, shares, rtol=0, atol=1e-12)  # as above


NUS = (0.25, 0.5, 0.75)
# libsvm stops at a tolerance of 1e-3 in the recorded runs, and where exactly is decided by rounding. What R and
# skenigma have in common is the problem, not the path: both are compared with its exact optimum.
STOPPED = 4e-3  # how far from it R stopped, in the largest share of 40 samples: 3.4e-3


@pytest.fixture(scope="module")
def optima(recorded):
    """Shares at the exact optimum of every ν, NaN where it could not be certified."""
    shares = {nu: exact_support_vector_shares(recorded.bulk, recorded.reference, nu) for nu in NUS}
    assert np.mean([np.isfinite(found) for found in shares.values()]) > 0.95
    return shares


@pytest.fixture(scope="module")
def errors(recorded, optima):
    """Squared error of the mixtures of these shares, one row per ν."""
    bulk, profiles = recorded.bulk.to_numpy(), recorded.reference.to_numpy()
    return np.array([((bulk - optima[nu] @ profiles) ** 2).sum(axis=1) for nu in NUS])


@pytest.mark.slow
class TestSupportVectorsAgainstTheOptimum:
    def shares(self, recorded, nus, tol):
        return ProportionEstimator(recorded.reference, method="nusvr", nu=nus, tol=tol).fit_transform(
            recorded.bulk
        )

    @pytest.mark.parametrize("nu", NUS)
    def test_r_solved_this_problem(self, recorded, optima, package, nu):
        if recorded.correction != "raw":
            return  # R's runs of single ν are of the raw bulk
        stopped = package.table(f"outputs/theta_cbs_raw_nu{nu}.csv.gz").to_numpy()
        assert np.nanmax(np.abs(stopped - optima[nu])) < STOPPED

    # The documented bound. Measured 1e-4, 1e-5 and 5e-10.
    @pytest.mark.parametrize(("tol", "bound"), [(1e-3, 1e-3), (1e-4, 1e-4), (1e-6, 1e-6)])
    @pytest.mark.parametrize("nu", NUS)
    def test_distance_to_the_optimum(self, recorded, optima, nu, tol, bound):
        assert np.nanmax(np.abs(self.shares(recorded, [nu], tol) - optima[nu])) < bound

    def test_best_nu_reconstructs_best(self, recorded, optima, errors):
        best = np.array([optima[nu] for nu in NUS])[errors.argmin(axis=0), np.arange(len(recorded.bulk))]
        clear = self.clear(errors)
        assert clear.mean() > 0.7
        assert len(set(errors.argmin(axis=0)[clear])) == 3
        shares = self.shares(recorded, NUS, 1e-6)
        assert_allclose(shares[clear], best[clear], rtol=0, atol=1e-6)  # as above
        # where two ν reconstruct alike, either answer is right
        distances = np.array([np.abs(shares - optima[nu]).max(axis=1) for nu in NUS])
        assert np.nanmax(distances.min(axis=0)) < 1e-6

    def test_r_selected_the_same(self, recorded, optima, errors, package):
        stopped = package.table(f"outputs/theta_cbs_{recorded.correction}_best.csv.gz").to_numpy()
        best = np.array([optima[nu] for nu in NUS])[errors.argmin(axis=0), np.arange(len(stopped))]
        clear = self.clear(errors)
        assert_allclose(stopped[clear], best[clear], rtol=0, atol=STOPPED)
        if recorded.correction == "raw":
            selected = json.loads(package.path("manifest.json").read_text())["cbs_selected_nu"]
            chosen = np.array([selected[name] for name in recorded.bulk.index])
            assert_array_equal(chosen[clear], np.array(NUS)[errors.argmin(axis=0)][clear])

    def clear(self, errors):
        """Samples whose best ν is better by more than R's stopping moves the error."""
        first, second = np.sort(errors, axis=0)[:2]  # NaN last
        return np.isfinite(errors).all(axis=0) & (second > (1 + 3e-3) * first)


def exact_support_vector_shares(bulk, reference, nu):
    """Positive parts of the exact optima of ν-support-vector regression, divided by their sums."""
    profiles, samples = standardize(reference.to_numpy()).T, standardize(bulk.to_numpy())
    coefficients = np.array([exact_support_vector_fit(profiles, sample, nu) for sample in samples])
    positive = np.maximum(coefficients, 0)
    return positive / positive.sum(axis=1, keepdims=True)


def exact_support_vector_fit(profiles, target, nu):
    """Coefficients w of the optimum, with a bound on their distance to it that holds whatever found them.

    w, offset b and half-width e of the tube minimise ½|w|² + ν n e + Σ max(|y − Zw − b| − e, 0). Any dual variables
    with |a| ≤ 1, Σa = 0 and Σ|a| ≤ ν n give the lower bound aᵀy − ½|Zᵀa|², and because of the term ½|w|² the optimum
    lies within the root of twice the difference of the two. NaN where that is not small: in one of 240 cases libsvm
    creeps along seven genes that are all but on the edge of the tube.
    """
    total = nu * len(target)
    machine = NuSVR(kernel="linear", C=1.0, nu=nu, tol=1e-9).fit(profiles, target)
    dual = np.zeros(len(target))
    dual[machine.support_] = machine.dual_coef_[0]
    fits = (
        certified(polished(dual, profiles, target, total, near), profiles, target, total) for near in NEAR
    )
    distance, coefficients = min(fits, key=lambda fit: fit[0])
    # a difference of 1e-11 of objectives of about 100: rounding
    return coefficients if distance < 5e-6 else np.full_like(coefficients, np.nan)


NEAR = (1e-8, 1e-6, 1e-4)  # how near to a bound a dual variable is taken to be at it


def certified(dual, profiles, target, total):
    """How far the coefficients of dual variables are from the optimum, at most, and the coefficients."""
    dual = dual - dual.mean()
    dual *= min(1.0, 1 / np.abs(dual).max(), total / np.abs(dual).sum())
    coefficients = dual @ profiles
    lower = dual @ target - coefficients @ coefficients / 2
    upper = coefficients @ coefficients / 2 + tube_loss(target - profiles @ coefficients, total)
    return np.sqrt(2 * max(upper - lower, 0)), coefficients


def polished(dual, profiles, target, total, near):
    """Meet the optimality conditions exactly on the edges of the tube with which libsvm ends.

    Genes inside the tube have dual variable 0, those outside ±1, and those on its edge anything between: they are the
    unknowns, with offset and half-width.
    """
    side = np.sign(dual)
    outside = np.abs(dual) > 1 - near
    edge = (np.abs(dual) > near) & ~outside
    fixed = np.where(outside, side, 0.0)
    Z, signs = profiles[edge], side[edge]
    system = np.block(
        [
            [Z @ Z.T, np.ones((len(Z), 1)), signs[:, None]],
            [np.ones(len(Z)), 0, 0],
            [signs, 0, 0],
        ]
    )
    wanted = np.r_[target[edge] - Z @ (fixed @ profiles), -fixed.sum(), total - outside.sum()]
    start = np.r_[dual[edge], 0.0, 0.0]
    # the least change: where more genes lie on the edge than are needed, their variables are not unique
    change = np.linalg.lstsq(system, wanted - system @ start, rcond=None)[0]
    fixed[edge] = (start + change)[: len(Z)]
    return fixed


def tube_loss(residuals, total):
    """The least of ν n e + Σ max(|residual − b| − e, 0) over b and e, a linear programme."""
    n = len(residuals)
    ones, slack = np.ones((n, 1)), -np.eye(n)
    below, above = np.hstack([-ones, -ones, slack]), np.hstack([ones, -ones, slack])
    limits = [(None, None), *[(0, None)] * (n + 1)]
    cost = np.r_[0.0, total, np.ones(n)]
    found = linprog(cost, np.vstack([below, above]), np.r_[-residuals, residuals], bounds=limits)
    offset, width = found.x[:2]
    return total * width + np.maximum(np.abs(residuals - offset) - width, 0).sum()


class TestNnls:
    def test_equals_scipy(self, bulk, reference):
        coefficients = np.array([nnls(reference.to_numpy().T, sample)[0] for sample in bulk.to_numpy()])
        expected = coefficients / coefficients.sum(axis=1, keepdims=True)
        # both solve the same small well-conditioned system
        shares = ProportionEstimator(reference, method="nnls").fit_transform(bulk)
        assert_allclose(shares, expected, atol=1e-10)

    def test_optimality(self, bulk, reference):
        """No share of zero would be better off above zero, and no other share can improve the fit."""
        profiles = reference.to_numpy()
        X = bulk.to_numpy() - 0.8 * profiles[1]  # lacks one cell type, so that its bound is active
        shares = ProportionEstimator(reference, method="nnls").fit_transform(X)
        assert (shares[:, 1] == 0).sum() > len(X) / 2
        for sample, share in zip(X, shares, strict=True):
            mixture = share @ profiles
            size = sample @ mixture / (mixture @ mixture)  # the sum by which the coefficients were divided
            gradient = profiles @ (size * mixture - sample)
            scale = np.linalg.norm(profiles, axis=1) * np.linalg.norm(sample)
            assert np.all(gradient[share == 0] >= -1e-10 * scale[share == 0])  # rounding
            assert_allclose(gradient[share > 0] / scale[share > 0], 0, atol=1e-10)  # rounding

    def test_exact_mixture(self, truth, reference):
        shares = ProportionEstimator(reference, method="nnls").fit_transform(truth @ reference)
        assert_allclose(shares, truth, atol=1e-10)  # rounding, times the condition of the profiles


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_finds_the_truth_roughly(self, bulk, reference, truth, method):
        shares = ProportionEstimator(reference, method=method).fit_transform(bulk)
        assert np.abs(shares - truth.to_numpy()).max() < 0.15  # noise of 14 % on 60 genes

    def test_rows_are_shares(self, bulk, reference, method):
        shares = ProportionEstimator(reference, method=method).fit_transform(bulk)
        assert shares.shape == (len(SAMPLES), len(CELL_TYPES))
        assert shares.min() >= 0
        assert_allclose(shares.sum(axis=1), 1, rtol=1e-14)  # one division

    def test_fit_transform_equals_fit_then_transform(self, bulk, reference, method):
        estimator = ProportionEstimator(reference, method=method)
        together = estimator.fit_transform(bulk)
        assert_array_equal(together, estimator.proportions_)
        assert_array_equal(together, estimator.transform(bulk))

    def test_result_may_be_changed_without_harm(self, bulk, reference, method):
        estimator = ProportionEstimator(reference, method=method)
        shares = estimator.fit_transform(bulk)
        shares[:] = -1
        assert estimator.proportions_.min() >= 0

    def test_each_row_on_its_own(self, bulk, reference, method):
        estimator = ProportionEstimator(reference, method=method).fit(bulk)
        whole = estimator.transform(bulk)
        order = [7, 2, 5]
        # batches of another size may be summed in another order
        assert_allclose(estimator.transform(bulk.iloc[order]), whole[order], rtol=0, atol=1e-12)
        assert_allclose(estimator.transform(bulk.iloc[[3]]), whole[[3]], rtol=0, atol=1e-12)

    def test_fitted_cohort_does_not_matter(self, bulk, reference, method):
        half = ProportionEstimator(reference, method=method).fit(bulk.iloc[:5])
        whole = ProportionEstimator(reference, method=method).fit(bulk)
        assert_allclose(half.transform(bulk), whole.transform(bulk), rtol=0, atol=1e-12)  # as above

    def test_library_size_does_not_matter(self, bulk, reference, method):
        # one ν: the choice among several compares the mixture with the sample itself, as the original does,
        # and so needs both on one scale
        estimator = ProportionEstimator(reference, method=method, nu=[0.5], tol=1e-6)
        # rescaling rounds, and the iterations stop at the tolerance
        assert_allclose(
            estimator.fit_transform(bulk * 1000), estimator.fit_transform(bulk), rtol=0, atol=1e-6
        )

    @pytest.mark.slow
    def test_jobs(self, bulk, reference, method):
        alone = ProportionEstimator(reference, method=method).fit_transform(bulk)
        two = ProportionEstimator(reference, method=method, n_jobs=2).fit_transform(bulk)
        assert_array_equal(two, alone)

    def test_float32(self, bulk, reference, method):
        double = ProportionEstimator(reference, method=method).fit_transform(bulk)
        single = ProportionEstimator(reference, method=method).fit_transform(bulk.astype(np.float32))
        assert single.dtype == np.float32
        # 1e-7 of input precision, times the condition
        assert_allclose(single, double, rtol=0, atol=1e-5)

    def test_genes_by_name(self, bulk, reference, method):
        expected = ProportionEstimator(reference, method=method).fit_transform(bulk)
        shuffled = reference.sample(frac=1, axis=1, random_state=0).assign(other=1e6)
        estimator = ProportionEstimator(shuffled, method=method).fit(bulk)
        assert_array_equal(estimator.transform(bulk), expected)
        assert list(estimator.gene_names_) == list(bulk.columns)
        assert_array_equal(estimator.reference_, reference)

    def test_genes_missing_from_the_reference_do_not_count(self, bulk, reference, method):
        genes = list(reference.columns[:40])
        expected = ProportionEstimator(reference[genes], method=method).fit_transform(bulk[genes])
        wide = bulk.sample(frac=1, axis=1, random_state=1)
        estimator = ProportionEstimator(reference[genes], method=method).fit(wide)
        assert estimator.n_features_in_ == 60
        assert list(estimator.gene_names_) == [gene for gene in wide.columns if gene in genes]
        # the order of X decides the order of summation
        assert_allclose(estimator.transform(wide), expected, rtol=0, atol=1e-10)

    def test_learned_profiles(self, bulk, method):
        estimator = ProportionEstimator(method=method, n_components=3).fit(bulk)
        assert list(estimator.cell_types_) == list(estimator.get_feature_names_out())
        assert estimator.reference_.shape == (3, 60)
        # the profiles are samples: the purest of them
        assert all((bulk.to_numpy() == profile).all(axis=1).any() for profile in estimator.reference_)
        repeated = ProportionEstimator(method=method, n_components=3).fit(bulk)
        assert_array_equal(estimator.proportions_, repeated.proportions_)

    def test_pure_samples_are_found(self, reference, truth, method):
        """Among mixtures, samples of one cell type alone are the ones to learn from."""
        pure = reference.iloc[[0, 3]]
        mixed = pd.DataFrame(np.linspace(0.2, 0.8, 6)[:, None] * [1, -1] + [0, 1]) @ pure.to_numpy()
        X = np.vstack([mixed.iloc[:3], pure, mixed.iloc[3:]])
        estimator = ProportionEstimator(method=method, n_components=2).fit(X)
        assert {tuple(row) for row in estimator.reference_} == {tuple(row) for row in pure.to_numpy()}

    def test_constant_sample(self, bulk, reference, method):
        """Says nothing about its composition, and must not disturb the others."""
        X = bulk.copy()
        X.loc["donor3"] = 7.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            shares = ProportionEstimator(reference, method=method).fit_transform(X)
        assert np.isfinite(shares).all()
        assert_allclose(shares.sum(axis=1), 1, rtol=1e-14)  # one division
        others = [j for j, name in enumerate(SAMPLES) if name != "donor3"]
        expected = ProportionEstimator(reference, method=method).fit_transform(bulk)
        assert_allclose(shares[others], expected[others], rtol=0, atol=1e-12)  # rounding

    def test_constant_profile(self, bulk, reference, method):
        flat = reference.copy()
        flat.loc["NK cell"] = 50.0
        with pytest.warns(ReferenceWarning, match="one value in every gene in use: 'NK cell'"):
            shares = ProportionEstimator(flat, method=method).fit_transform(bulk)
        assert np.isfinite(shares).all()
        assert_allclose(shares.sum(axis=1), 1, rtol=1e-14)  # one division

    def test_hopeless_sample(self, bulk, reference, method):
        X = bulk.copy()
        X.loc["donor6"] = -X.loc["donor6"]
        with pytest.warns(
            UserWarning, match=r"not even with non-negative least squares.*'donor6'.*equal.*same scale"
        ):
            shares = ProportionEstimator(reference, method=method).fit_transform(X)
        assert_array_equal(shares[6], np.full(len(CELL_TYPES), 1 / len(CELL_TYPES)))
        expected = ProportionEstimator(reference, method=method).fit_transform(bulk)
        assert_allclose(np.delete(shares, 6, axis=0), np.delete(expected, 6, axis=0), rtol=0, atol=1e-12)

    def test_one_cell_type(self, bulk, reference, method):
        assert_array_equal(ProportionEstimator(reference.iloc[:1], method=method).fit_transform(bulk), 1.0)

    def test_feature_names_out(self, bulk, reference, method):
        frame = (
            ProportionEstimator(reference, method=method).set_output(transform="pandas").fit_transform(bulk)
        )
        assert list(frame.columns) == CELL_TYPES
        assert list(frame.index) == SAMPLES

    def test_iterations_are_counted(self, bulk, reference, method):
        estimator = ProportionEstimator(reference, method=method).fit(bulk)
        assert isinstance(estimator.n_iter_, int)
        assert estimator.n_iter_ == 1 if method == "nnls" else estimator.n_iter_ > 1


class TestNoPositiveCoefficient:
    """Samples that correlate with no profile, yet are sums of them: high, but varying the wrong way."""

    @pytest.fixture
    def spoilt(self, bulk, reference):
        X = bulk.copy()
        X.loc["donor2"] = 2000 - reference.sum()
        return X

    @pytest.mark.parametrize("method", ["rlm", "nusvr"])
    def test_gets_the_nnls_answer_and_a_warning(self, spoilt, bulk, reference, method):
        with pytest.warns(
            UserWarning, match=rf"method='{method}'.* 1 sample.*'donor2'.*non-negative least squares"
        ):
            shares = ProportionEstimator(reference, method=method).fit_transform(spoilt)
        rescued = ProportionEstimator(reference, method="nnls").fit_transform(spoilt)
        assert_allclose(shares[2], rescued[2], rtol=1e-12)  # batches of another size
        others = np.arange(len(SAMPLES)) != 2
        expected = ProportionEstimator(reference, method=method).fit_transform(bulk)
        assert_allclose(shares[others], expected[others], rtol=0, atol=1e-12)  # batches of another content

    def test_unnamed_samples_are_numbered(self, spoilt, reference):
        with pytest.warns(UserWarning, match=r"1 sample\(s\): 2\. "):
            ProportionEstimator(reference.to_numpy()).fit(spoilt.to_numpy())

    def test_warns_in_transform_too(self, spoilt, bulk, reference):
        estimator = ProportionEstimator(reference).fit(bulk)
        with pytest.warns(UserWarning, match="'donor2'"):
            estimator.transform(spoilt)


class TestSupportVectorsThatStop:
    def test_a_tolerance_out_of_reach_of_rounding_ends_with_a_warning(self, bulk, reference):
        estimator = ProportionEstimator(reference, method="nusvr", tol=1e-12)
        with pytest.warns(ConvergenceWarning, match=r"within tol=1e-12 .*'donor0'.*larger max_iter or tol"):
            estimator.fit(bulk)
        assert estimator.n_iter_ < 500
        near = ProportionEstimator(reference, method="nusvr", tol=1e-6).fit_transform(bulk)
        assert_allclose(estimator.proportions_, near, rtol=0, atol=1e-6)

    def test_max_iter(self, bulk, reference):
        estimator = ProportionEstimator(reference, method="nusvr", max_iter=3)
        with pytest.warns(ConvergenceWarning, match=r"max_iter=3 iterations for 10 sample"):
            estimator.fit(bulk)
        assert estimator.n_iter_ == 3
        assert np.isfinite(estimator.proportions_).all()


class TestNotConverged:
    def test_names_the_samples(self, bulk, reference):
        with pytest.warns(
            ConvergenceWarning, match=r"max_iter=1 .*'donor0', 'donor1'.*and 5 more.*larger max_iter"
        ):
            estimator = ProportionEstimator(reference, max_iter=1).fit(bulk)
        assert estimator.n_iter_ == 1
        assert_allclose(estimator.proportions_.sum(axis=1), 1, rtol=1e-14)  # one division

    def test_names_only_those(self, bulk, reference):
        """Samples that need fewer iterations than others converge and are left in peace."""
        steps = [ProportionEstimator(reference).fit(bulk.iloc[[j]]).n_iter_ for j in range(len(SAMPLES))]
        limit = sorted(steps)[len(steps) // 2]
        assert limit < max(steps)
        with pytest.warns(ConvergenceWarning) as caught:
            ProportionEstimator(reference, max_iter=limit).fit(bulk)
        slow = [name for name, count in zip(SAMPLES, steps, strict=True) if count > limit]
        assert f" {len(slow)} sample(s)" in str(caught[0].message)
        assert all(f"'{name}'" in str(caught[0].message) for name in slow[:5])


def test_best_nu_is_the_one_that_reconstructs_best(bulk, reference):
    nus = (0.25, 0.5, 0.75)
    single = [ProportionEstimator(reference, method="nusvr", nu=[nu]).fit_transform(bulk) for nu in nus]
    errors = [((bulk.to_numpy() - shares @ reference.to_numpy()) ** 2).sum(axis=1) for shares in single]
    expected = np.array(single)[np.argmin(errors, axis=0), np.arange(len(bulk))]
    assert_array_equal(ProportionEstimator(reference, method="nusvr", nu=nus).fit_transform(bulk), expected)
    assert len(set(np.argmin(errors, axis=0))) > 1  # or the choice would not have been tested


@pytest.mark.parametrize("method", ["rlm", "nnls", "nusvr"])
def test_values_too_large_to_square_are_refused(method):
    cohort = make_cohort(6, 30, 3, random_state=0)
    with pytest.raises(ValueError, match=r"largest value of X is .*e\+200 .* squares cannot be summed"):
        ProportionEstimator(1e200 * cohort.reference, method=method).fit(1e200 * cohort.bulk)
