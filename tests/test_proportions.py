"""ProportionEstimator: against R's numbers, and where samples have no ordinary answer."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import nnls
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import NuSVR

from skenigma import ProportionEstimator
from skenigma.datasets import make_cohort
from skenigma.proportions import standardize

METHODS = ["rlm", "nnls", "nusvr"]
CELL_TYPES = ["B cell", "monocyte", "NK cell", "T cell"]
SAMPLES = [f"donor{j}" for j in range(10)]


@pytest.fixture(scope="module")
def reference():
    values = np.random.default_rng(0).gamma(1, 100, (len(CELL_TYPES), 60))
    return pd.DataFrame(values, index=CELL_TYPES, columns=[f"gene{i}" for i in range(60)])


@pytest.fixture(scope="module")
def truth():
    values = np.random.default_rng(1).dirichlet(np.full(len(CELL_TYPES), 3.0), len(SAMPLES))
    return pd.DataFrame(values, index=SAMPLES, columns=CELL_TYPES)


@pytest.fixture(scope="module")
def bulk(reference, truth):
    return truth @ reference * np.random.default_rng(2).gamma(50, 0.02, (len(SAMPLES), reference.shape[1]))


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

    # libsvm stops at a tolerance of 1e-3 in the recorded runs. Where exactly is decided by rounding: changing
    # the bulk by 1e-10 moves single samples by up to 2.6e-3 here, and leaves most where they are.
    STOPPED = 3e-3

    @pytest.mark.parametrize("nu", [0.25, 0.5, 0.75])
    def test_nusvr(self, raw, package, nu):
        proportions = ProportionEstimator(raw.reference, method="nusvr", nu=[nu], tol=1e-3).fit_transform(
            raw.bulk
        )
        difference = np.abs(proportions - package.table(f"outputs/theta_cbs_raw_nu{nu}.csv.gz")).max(axis=1)
        assert difference.max() < self.STOPPED
        assert (difference < 1e-6).mean() > 0.75  # the same path of the same solver, to rounding

    def test_nusvr_with_the_best_nu(self, recorded, package):
        proportions = ProportionEstimator(recorded.reference, method="nusvr", tol=1e-3).fit_transform(
            recorded.bulk
        )
        expected = package.table(f"outputs/theta_cbs_{recorded.correction}_best.csv.gz")
        difference = np.abs(proportions - expected).max(axis=1)
        assert (difference < 1e-6).mean() > 0.75  # as above
        assert np.sort(difference)[-2] < self.STOPPED
        assert difference.max() < 6e-3  # one corrected sample, where two ν reconstruct alike (3e-5 in RMSE)

    def test_nusvr_selects_the_recorded_nu(self, raw, package):
        recorded = json.loads((package.folder / "manifest.json").read_text())["cbs_selected_nu"]
        nus = (0.25, 0.5, 0.75)
        best = ProportionEstimator(raw.reference, method="nusvr", tol=1e-3, nu=nus).fit_transform(raw.bulk)
        for nu in nus:
            rows = [name for name, selected in recorded.items() if selected == nu]
            assert rows
            alone = ProportionEstimator(raw.reference, method="nusvr", tol=1e-3, nu=[nu])
            assert_array_equal(
                best[raw.bulk.index.get_indexer(rows)], alone.fit_transform(raw.bulk.loc[rows])
            )

    @pytest.mark.parametrize("nu", [0.25, 0.75])
    def test_nusvr_with_a_tight_tolerance_is_stable(self, raw, package, nu):
        tight = ProportionEstimator(raw.reference, method="nusvr", nu=[nu], tol=1e-7)
        exact = tight.fit_transform(raw.bulk)
        moved = raw.bulk * (1 + 1e-10 * np.random.default_rng(0).choice([-1, 1], raw.bulk.shape))
        # four digits tighter than the recorded runs, which move by 2.6e-3 here
        assert_allclose(tight.fit_transform(moved), exact, rtol=0, atol=1e-6)
        expected = package.table(f"outputs/theta_cbs_raw_nu{nu}.csv.gz")
        assert_allclose(exact, expected, rtol=0, atol=4e-3)  # R is 3.4e-3 off, as is the same tolerance here

    @pytest.mark.parametrize("nu", [0.25, 0.75])
    def test_nusvr_with_a_tighter_tolerance_is_nearer_to_the_optimum(self, raw, package, nu):
        exact = exact_support_vector_shares(raw.bulk, raw.reference, nu)

        def error(proportions):
            return np.abs(proportions - exact).max()

        errors = [
            error(
                ProportionEstimator(raw.reference, method="nusvr", nu=[nu], tol=tol).fit_transform(raw.bulk)
            )
            for tol in (1e-3, 1e-4, 1e-6)
        ]
        recorded = error(package.table(f"outputs/theta_cbs_raw_nu{nu}.csv.gz").to_numpy())
        # where libsvm stops is as far from the optimum in R as here; each digit of tol is about one of the result
        assert_allclose(errors[0], recorded, rtol=0.1)
        assert errors[0] > 3 * errors[1] > 100 * errors[2]
        assert errors[1] < 1e-3  # the default
        assert errors[2] < 1e-5


def exact_support_vector_shares(bulk, reference, nu):
    """Positive parts of the exact optima of ν-support-vector regression, divided by their sums."""
    profiles, samples = standardize(reference.to_numpy()).T, standardize(bulk.to_numpy())
    coefficients = np.array([exact_support_vector_fit(profiles, sample, nu) for sample in samples])
    positive = np.maximum(coefficients, 0)
    return positive / positive.sum(axis=1, keepdims=True)


def exact_support_vector_fit(profiles, target, nu):
    """Solve the optimality conditions on the active set that libsvm ends with, and check that they hold.

    The primal problem has a strictly convex term in the coefficients w: where all conditions hold, w is the optimum,
    whatever the tolerance that led there. Genes inside the tube have dual variable 0, those outside ±1, and those on
    its edge anything between: the unknowns, with offset b and half-width e of the tube.
    """
    machine = NuSVR(kernel="linear", C=1.0, nu=nu, tol=1e-9).fit(profiles, target)
    dual = np.zeros(len(target))
    dual[machine.support_] = machine.dual_coef_[0]
    side = np.sign(dual)
    outside = np.abs(dual) > 1 - 1e-8
    edge = (np.abs(dual) > 1e-8) & ~outside
    held = side[outside] @ profiles[outside]
    Z, signs = profiles[edge], side[edge]
    system = np.block(
        [
            [Z @ Z.T, np.ones((len(Z), 1)), signs[:, None]],
            [np.ones(len(Z)), 0, 0],
            [signs, 0, 0],
        ]
    )
    totals = [-side[outside].sum(), nu * len(target) - outside.sum()]
    solution = np.linalg.solve(system, np.r_[target[edge] - Z @ held, totals])
    variables, offset, width = solution[:-2], solution[-2], solution[-1]
    coefficients = variables @ Z + held
    residuals = target - profiles @ coefficients - offset
    rounding = 1e-10
    assert width >= 0
    assert np.all((variables * signs >= 0) & (variables * signs <= 1))
    assert np.all(np.abs(residuals[edge]) <= width + rounding)
    assert np.all(np.abs(residuals[~edge & ~outside]) <= width)
    assert np.all(residuals[outside] * side[outside] >= width)
    return coefficients


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
        estimator = ProportionEstimator(reference, method=method, nu=[0.5], tol=1e-8)
        # rescaling rounds, and libsvm stops at the tolerance
        assert_allclose(
            estimator.fit_transform(bulk * 1000), estimator.fit_transform(bulk), rtol=0, atol=1e-6
        )

    def test_jobs(self, bulk, reference, method):
        alone = ProportionEstimator(reference, method=method).fit_transform(bulk)
        two = ProportionEstimator(reference, method=method, n_jobs=2).fit_transform(bulk)
        assert_array_equal(two, alone)

    def test_float32(self, bulk, reference, method):
        double = ProportionEstimator(reference, method=method).fit_transform(bulk)
        single = ProportionEstimator(reference, method=method).fit_transform(bulk.astype(np.float32))
        assert single.dtype == np.float32
        # 1e-7 of input precision, times the condition; libsvm stops at 1e-4
        assert_allclose(single, double, rtol=0, atol=1e-3 if method == "nusvr" else 1e-5)

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
        # the order of X decides the order of summation; libsvm may stop elsewhere within its tolerance
        assert_allclose(
            estimator.transform(wide), expected, rtol=0, atol=1e-3 if method == "nusvr" else 1e-10
        )

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
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shares = ProportionEstimator(flat, method=method).fit_transform(bulk)
        assert np.isfinite(shares).all()
        assert_allclose(shares.sum(axis=1), 1, rtol=1e-14)  # one division

    def test_hopeless_sample(self, bulk, reference, method):
        X = bulk.copy()
        X.loc["donor6"] = -X.loc["donor6"]
        with pytest.warns(
            UserWarning, match=r"nor by non-negative least squares.*'donor6'.*equal.*same scale"
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
        assert estimator.n_iter_ > 1 if method == "rlm" else estimator.n_iter_ == 1


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
    with pytest.raises(ValueError, match=r"values up to .*e\+200, whose squares cannot be summed"):
        ProportionEstimator(1e200 * cohort.reference, method=method).fit(1e200 * cohort.bulk)
