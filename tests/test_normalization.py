"""Normalisations: against what R recorded, against plain formulas, and where there is nothing to normalise."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import rankdata, spearmanr
from sklearn.base import clone

from skenigma import L2MaxDeconvolver, TraceNormDeconvolver
from skenigma.normalization import (
    NORMALIZATIONS,
    CommonQuantiles,
    ProportionComponent,
    apply_normalization,
    fit_normalization,
    normalize,
)

N_SAMPLES, N_GENES = 30, 50
CELL_TYPES = ["B cell", "monocyte", "T cell"]


@pytest.fixture(scope="module")
def shares():
    return np.random.default_rng(0).dirichlet(np.full(len(CELL_TYPES), 4.0), N_SAMPLES)


@pytest.fixture(scope="module")
def cse(shares):
    """Expression of a cell type that rises and falls with its proportion, on top of variation of its own."""
    rng = np.random.default_rng(1)
    base = rng.gamma(2, 50, (1, len(CELL_TYPES), N_GENES))
    effect = 40 * shares[:, :, None] * rng.normal(1, 0.5, (1, len(CELL_TYPES), N_GENES))
    return base + effect + rng.gamma(4, 2, (N_SAMPLES, len(CELL_TYPES), N_GENES))


@pytest.fixture(scope="module")
def reference():
    return np.random.default_rng(2).gamma(2, 1, (len(CELL_TYPES), N_GENES))


@pytest.fixture(params=NORMALIZATIONS)
def method(request):
    return request.param


def largest_difference(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


class TestAgainstThePackage:
    """The R package normalises what it returns: on the scale of the bulk, clipped at 0."""

    @pytest.fixture(params=["l2_default_sqrt", "l2_default_log", "l2_mild_sqrt", "l2_mild_log"])
    def run(self, request):
        return request.param

    @pytest.fixture
    def recorded_shares(self, package):
        return package.table("outputs/theta_rlr_bmode.csv.gz").to_numpy()

    @pytest.mark.parametrize("name", ["frac", "PC", "quantile"])
    def test_same_numbers(self, package, recorded_shares, run, name):
        recorded = package.run(f"{run}_{name}")
        # regressions, a decomposition and means of 40 samples, rounded
        got = normalize(name.lower(), recorded["CSE"], recorded_shares)
        assert largest_difference(got, recorded["CSE_norm"]) < 1e-13

    @pytest.mark.parametrize("name", ["trace_admm_sqrt_init_zero", "trace_admm_fast_log_init_zero"])
    def test_after_the_trace_norm(self, package, recorded_shares, name):
        recorded = package.run(name)
        got = normalize("frac", recorded["CSE"], recorded_shares)
        assert largest_difference(got, recorded["CSE_norm"]) < 1e-13  # as above


class TestProportionComponent:
    def plain(self, expression, share):
        """Textbook form: decompose the z-scores, pick by rank correlation, subtract, undo the z-scores."""
        mean, spread = expression.mean(axis=0), expression.std(axis=0, ddof=1)
        left, sizes, right = np.linalg.svd((expression - mean) / spread, full_matrices=False)
        total = np.cumsum(np.sqrt(sizes)) / np.sqrt(sizes).sum()
        kept = np.flatnonzero(total > 0.8)[0] + 1
        agreement = [abs(spearmanr(left[:, i], share).statistic) for i in range(kept)]
        best = int(np.argmax(agreement))
        return expression - sizes[best] * np.outer(left[:, best], right[best]) * spread, best

    def test_plain_formula(self, cse, shares):
        got = normalize("pc", cse, shares)
        found = [self.plain(cse[:, k], shares[:, k]) for k in range(len(CELL_TYPES))]
        for k, (expected, _) in enumerate(found):
            assert largest_difference(got[:, k], expected) < 1e-13  # rounding of a decomposition

    def test_more_samples_than_genes(self, cse, shares):
        got = normalize("pc", cse[:, :, :12], shares)
        for k in range(len(CELL_TYPES)):
            expected, _ = self.plain(cse[:, k, :12], shares[:, k])
            assert largest_difference(got[:, k], expected) < 1e-13  # as above

    def test_not_always_the_first(self, shares):
        """A larger component that has nothing to do with the proportions stays."""
        rng = np.random.default_rng(3)
        noise = rng.normal(0, 0.1, (N_SAMPLES, N_GENES))
        share = (shares[:, 0] - shares[:, 0].mean()) / shares[:, 0].std()
        other = rng.normal(size=N_SAMPLES)
        other -= other.mean() + share * np.mean(other * share)  # or chance would mix the two
        spread = np.r_[np.ones(35), np.zeros(15)]
        expression = 10 + np.outer(other, spread) + np.outer(share, 1 - spread) + noise
        expected, best = self.plain(expression, shares[:, 0])
        assert best == 1
        got = normalize("pc", expression[:, None], shares[:, :1])[:, 0]
        assert largest_difference(got, expected) < 1e-13  # as above
        assert np.corrcoef(got[:, 0], other)[0, 1] > 0.95
        assert abs(np.corrcoef(got[:, -1], share)[0, 1]) < 0.2 < np.corrcoef(expression[:, -1], share)[0, 1]

    def test_components_beyond_the_share_are_not_candidates(self, shares):
        """However well they agree: the least variation of all is noise to this rule."""
        rng = np.random.default_rng(4)
        ranks = rankdata(shares[:, 0])
        basis = np.linalg.qr(np.column_stack([np.ones(N_SAMPLES), ranks, rng.normal(size=(N_SAMPLES, 8))]))[0]
        genes = np.linalg.qr(rng.normal(size=(N_GENES, 9)))[0]
        sizes = np.r_[1e-4, np.linspace(3, 2, 8)]
        expression = 100 + (basis[:, 1:] * sizes) @ genes.T
        fitted = ProportionComponent.fit(expression, shares[:, 0])
        removed = expression @ fitted.weights
        assert abs(spearmanr(removed, shares[:, 0]).statistic) < 0.9
        assert (
            largest_difference(self.plain(expression, shares[:, 0])[0], _applied(fitted, expression)) < 1e-12
        )

    def test_one_component(self, shares):
        """The original fails where one component holds more than the share."""
        expression = 5 + np.outer(shares[:, 0], np.arange(1.0, N_GENES + 1))
        got = normalize("pc", expression[:, None], shares[:, :1])[:, 0]
        # all variation is that component, and is removed
        assert_allclose(got, np.broadcast_to(expression.mean(axis=0), got.shape), rtol=1e-12)

    def test_constant_genes_stay(self, cse, shares):
        fixed = cse.copy()
        fixed[:, :, 7] = 0.1  # whose mean over samples is not exact
        fixed[:, :, 9] = 0.0
        got = normalize("pc", fixed, shares)
        assert_array_equal(got[:, :, [7, 9]], fixed[:, :, [7, 9]])
        others = np.delete(np.arange(N_GENES), [7, 9])
        # the other genes do not notice; rounding
        assert largest_difference(got[:, :, others], normalize("pc", cse[:, :, others], shares)) < 1e-13

    def test_nothing_varies(self, shares):
        still = np.tile(
            np.random.default_rng(5).gamma(2, 1, (1, len(CELL_TYPES), N_GENES)), (N_SAMPLES, 1, 1)
        )
        assert_array_equal(normalize("pc", still, shares), still)

    def test_equal_proportions(self, cse):
        """No component follows what does not vary."""
        assert_array_equal(normalize("pc", cse, np.full((N_SAMPLES, len(CELL_TYPES)), 0.25)), cse)

    def test_scale_of_a_gene_does_not_matter(self, cse, shares):
        factors = np.random.default_rng(6).gamma(1, 10, N_GENES)
        scaled = normalize("pc", cse * factors, shares)
        assert largest_difference(scaled / factors, normalize("pc", cse, shares)) < 1e-12  # rounding


class TestCommonQuantiles:
    def test_every_sample_has_the_mean_distribution(self, cse, shares):
        got = normalize("quantile", cse, shares)
        expected = np.sort(cse, axis=2).mean(axis=0)
        assert_allclose(np.sort(got, axis=2), np.broadcast_to(expected, cse.shape), rtol=1e-14)  # rounding
        assert_array_equal(rankdata(got, axis=2), rankdata(cse, axis=2))

    def test_ties(self):
        """Their mean rank decides; between two ranks stands the mean of both quantiles."""
        fitted = CommonQuantiles(np.array([1.0, 2.0, 4.0, 8.0, 16.0]))
        rows = np.array(
            [
                [3.0, 1.0, 1.0, 2.0, 5.0],  # ranks 4, 1.5, 1.5, 3, 5
                [0.0, 7.0, 0.0, 0.0, 9.0],  # ranks 2, 4, 2, 2, 5
                [6.0, 6.0, 6.0, 6.0, 6.0],  # all 3
                [-1.0, -1.0, 0.0, 0.0, 0.0],  # ranks 1.5, 1.5, 4, 4, 4
            ]
        )
        fitted.apply(rows, None)
        assert_array_equal(
            rows, [[8, 1.5, 1.5, 4, 16], [2, 8, 2, 2, 16], [4, 4, 4, 4, 4], [1.5, 1.5, 8, 8, 8]]
        )

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_ties_up_to_rounding(self, dtype):
        """Copies of a gene get one value, whichever of them a computation left ahead."""
        fitted = CommonQuantiles(np.arange(4, dtype=dtype))
        rows = np.array([[100.0, 30.0, 30.0, 2.0]], dtype=dtype)
        above = rows.copy()
        above[0, 1] = np.nextafter(above[0, 1], dtype(99))
        below = rows.copy()
        below[0, 1] = np.nextafter(below[0, 1], dtype(0))
        for row in (rows, above, below):
            fitted.apply(row, None)
            assert_array_equal(row, [[3, 1.5, 1.5, 0]])

    def test_small_values_are_not_ties(self):
        """But what rounding leaves of the largest of the sample is."""
        fitted = CommonQuantiles(np.arange(5.0))
        rows = np.array([[1e3, 2e-6, 3e-6, 1e-6, 0.0], [1e9, 2e-9, 3e-9, 1e-9, 0.0]])
        fitted.apply(rows, None)
        assert_array_equal(rows, [[4, 2, 3, 1, 0], [4, 1.5, 1.5, 1.5, 1.5]])


def _applied(fitted, expression):
    copy = expression.copy()
    fitted.apply(copy, None)
    return copy


class TestEveryMethod:
    def test_a_row_on_its_own(self, cse, shares, method):
        fitted = fit_normalization(method, cse.swapaxes(0, 1), shares)
        whole = apply_normalization(fitted, cse.copy(), shares)
        rows = [9, 2, 21]
        part = apply_normalization(fitted, cse[rows], shares[rows])
        assert largest_difference(part, whole[rows]) < 1e-14  # sums in another order
        alone = apply_normalization(fitted, cse[[4]], shares[[4]])
        assert largest_difference(alone, whole[[4]]) < 1e-14  # as above

    def test_cell_types_do_not_meet(self, cse, shares, method):
        whole = normalize(method, cse, shares)
        assert largest_difference(normalize(method, cse[:, 1:2], shares[:, 1:2]), whole[:, 1:2]) < 1e-14

    def test_input_is_kept(self, cse, shares, method):
        before = cse.copy()
        assert not np.shares_memory(normalize(method, cse, shares), cse)
        assert_array_equal(cse, before)

    def test_float32(self, cse, shares, method):
        single = normalize(method, cse.astype(np.float32), shares.astype(np.float32))
        assert single.dtype == np.float32
        assert largest_difference(single, normalize(method, cse, shares)) < 1e-5  # 1e-7 of input precision

    def test_absent_cell_type_keeps_its_profile(self, cse, shares, method):
        profile = np.random.default_rng(7).gamma(2, 1, N_GENES)
        absent, none = cse.copy(), shares.copy()
        absent[:, 1], none[:, 1] = profile, 0.0
        got = normalize(method, absent, none)
        # a mean of equal values is rounded
        assert_allclose(got[:, 1], np.broadcast_to(profile, got[:, 1].shape), rtol=1e-14)


class TestGenesNearZero:
    """Rounding leaves something of a zero, and what is made of it must not show that."""

    @pytest.fixture(params=range(30))
    def cohort(self, request):
        """A small cohort in which a third of the genes is next to nothing."""
        rng = np.random.default_rng(request.param)
        n_samples, n_genes = int(rng.integers(4, 12)), int(rng.integers(8, 30))
        expression = rng.gamma(2, 50, (n_samples, n_genes))
        silent = np.arange(n_genes) < n_genes // 3
        expression[:, silent] = rng.uniform(1, 1000, (n_samples, silent.sum())) * 1e-16
        return expression[:, None], rng.dirichlet([2.0, 3.0], n_samples)[:, :1], silent

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [1e-100, 1.0, 1e100])
    def test_what_is_left_does_not_show(self, cohort, method, size):
        cse, shares, silent = cohort
        cse = size * cse
        left = (
            cse * np.random.default_rng(0).normal(size=cse.shape) * silent
        )  # another remainder, of either sign
        assert largest_difference(
            normalize(method, cse, shares), normalize(method, left + cse * ~silent, shares)
        ) < (
            1e-12  # far above the remainders, 1e-15 of the largest
        )

    def test_order_of_samples(self, cohort, method):
        cse, shares, _ = cohort
        order = np.random.default_rng(1).permutation(len(cse))
        turned = normalize(method, cse[order], shares[order])
        assert largest_difference(turned, normalize(method, cse, shares)[order]) < 1e-12  # rounding

    def test_two_samples_alike(self, cohort, method):
        """Equal scores have equal ranks, whatever rounding makes of them."""
        cse, shares, _ = cohort
        cse, shares = np.concatenate([cse, cse[:1]]), np.concatenate([shares, shares[:1]])
        moved = cse * (1 + 1e-15 * np.random.default_rng(2).normal(size=cse.shape))
        assert (
            largest_difference(normalize(method, moved, shares), normalize(method, cse, shares)) < 1e-11
        )  # rounding


@pytest.mark.parametrize("preprocess", [None, "sqrt", "log"])
@pytest.mark.parametrize("seed", range(8))
def test_small_cohorts_of_counts(seed, preprocess, method):
    """From the bulk on: fit and transform, and the cohort in another order."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(1, 30, (3, 25)) * (rng.random((3, 25)) < 0.6)
    theta = rng.dirichlet(np.ones(3), 7)
    X = rng.poisson(theta @ profiles).astype(float)
    model = L2MaxDeconvolver(
        profiles,
        normalize=method,
        preprocess=preprocess,
        renorm_size=None,
        tao_k="auto",
        beta=0.1,
        epsilon=1.0,
    )
    fitted = clone(model).fit(X, proportions=theta)
    expected = fitted.cse_normalized_
    mapped = fitted.transform(X, proportions=theta).reshape(expected.shape)
    assert largest_difference(mapped, expected) < 1e-10  # replay
    order = rng.permutation(len(X))
    turned = clone(model).fit(X[order], proportions=theta[order]).cse_normalized_
    assert largest_difference(turned, expected[order]) < 1e-10  # sums in another order


@pytest.mark.parametrize(
    "estimator",
    [L2MaxDeconvolver(renorm_size=20.0), TraceNormDeconvolver()],
    ids=lambda row: type(row).__name__,
)
class TestInTheEstimators:
    @pytest.fixture
    def bulk(self, shares, reference):
        noise = np.random.default_rng(8).gamma(2, 0.1, (N_SAMPLES, N_GENES))
        return pd.DataFrame(shares @ reference + noise, columns=[f"gene{i}" for i in range(N_GENES)])

    @pytest.fixture
    def fitted(self, estimator, method, bulk, shares, reference):
        model = clone(estimator).set_params(reference=reference, normalize=method)
        return model.fit(bulk, proportions=shares)

    def test_on_what_is_returned(self, fitted, method, shares):
        # the same sums, which a BLAS may round otherwise where the numbers lie otherwise in memory
        assert_allclose(fitted.cse_normalized_, normalize(method, fitted.cse_, shares), rtol=1e-12)
        assert largest_difference(fitted.cse_normalized_, fitted.cse_) > 1e-3

    def test_unseen_rows_meet_the_fitted_cohort(self, fitted, method, bulk, shares):
        fitted.fit(bulk.iloc[:20], proportions=shares[:20])
        new = fitted.transform(bulk.iloc[20:], proportions=shares[20:]).reshape(10, len(CELL_TYPES), -1)
        fitted.set_params(normalize=None)
        bare = fitted.transform(bulk.iloc[20:], proportions=shares[20:]).reshape(new.shape)
        normalization = fit_normalization(method, fitted.cse_.swapaxes(0, 1), shares[:20])
        expected = apply_normalization(normalization, bare, shares[20:])
        assert_allclose(new, expected, rtol=1e-12)  # as above

    def test_pickles(self, fitted, bulk, shares):
        copy = pickle.loads(pickle.dumps(fitted))
        assert_array_equal(
            copy.transform(bulk, proportions=shares), fitted.transform(bulk, proportions=shares)
        )

    def test_copies_of_genes(self, estimator, method, reference, shares):
        """Genes alike in bulk and reference: what rounding makes of them in transform must not show."""
        rng = np.random.default_rng(9)
        genes = rng.permutation(np.repeat(np.arange(N_GENES), 3))
        X = (shares @ reference + rng.gamma(2, 0.1, (N_SAMPLES, N_GENES)))[:, genes]
        fitted = clone(estimator).set_params(reference=reference[:, genes], normalize=method)
        fitted.fit(X, proportions=shares)
        again = fitted.transform(X[::-1], proportions=shares[::-1])[::-1]
        assert largest_difference(again.reshape(fitted.cse_.shape), fitted.cse_normalized_) < 1e-11  # replay
