"""``ProportionEstimator(method="log")`` and "auto": what the estimator makes of the regression."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils import get_tags

from benchmarks import proportions
from skenigma import ProportionEstimator
from skenigma.exceptions import ReferenceWarning
from skenigma.proportions import unexplained_genes

CELL_TYPES = ["B cell", "monocyte", "NK cell", "T cell"]
SAMPLES = [f"donor{j}" for j in range(10)]
# Sums over other blocks round differently, and Newton steps are small systems of them.
ROUNDING = 1e-11


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(4, 1.5, 60) + rng.normal(0, 1, (len(CELL_TYPES), 60)))
    return pd.DataFrame(values, index=CELL_TYPES, columns=[f"gene{i}" for i in range(60)])


def log(reference, **options):
    return ProportionEstimator(reference, method="log", **options)


def test_finds_the_truth(bulk, reference, truth):
    assert (
        np.abs(log(reference).fit_transform(bulk) - truth.to_numpy()).max() < 0.1
    )  # noise of 14 % on 60 genes


def test_exact_mixtures_are_found_but_for_the_ridge(truth, reference):
    # the ridge, 1e-5 of the mean squared length of a profile, is all that stands between
    assert_allclose(log(reference, tol=1e-8).fit_transform(truth @ reference), truth, rtol=0, atol=1e-4)


def test_fit_transform_equals_fit_then_transform(bulk, reference):
    estimator = log(reference).fit(bulk)
    assert_array_equal(estimator.transform(bulk), estimator.proportions_)
    assert_array_equal(log(reference).fit_transform(bulk), estimator.proportions_)


def test_each_row_on_its_own(bulk, reference):
    estimator = log(reference).fit(bulk)
    whole = estimator.transform(bulk)
    for rows in ([7, 2, 5], [3]):
        assert_allclose(estimator.transform(bulk.iloc[rows]), whole[rows], rtol=0, atol=ROUNDING)


def test_genes_cell_types_and_units_may_be_permuted_and_changed(bulk, reference):
    expected = log(reference, tol=1e-8).fit_transform(bulk)
    genes = np.random.default_rng(3).permutation(bulk.columns)
    assert_allclose(log(reference[genes], tol=1e-8).fit_transform(bulk[genes]), expected, atol=ROUNDING)
    order = [2, 0, 3, 1]
    found = log(reference.iloc[order], tol=1e-8).fit_transform(bulk)
    assert_allclose(found, expected[:, order], rtol=0, atol=ROUNDING)
    sizes = np.linspace(0.01, 1000, len(bulk))[:, None]
    assert_allclose(log(reference * 7, tol=1e-8).fit_transform(bulk * sizes), expected, atol=ROUNDING)


def test_genes_of_the_bulk_alone_do_not_count(bulk, reference):
    expected = log(reference).fit_transform(bulk)
    assert_allclose(log(reference).fit_transform(bulk.assign(other=1e6)), expected, rtol=0, atol=ROUNDING)


def test_float32(bulk, reference):
    single = log(reference).fit_transform(bulk.astype(np.float32))
    assert single.dtype == np.float32
    # 1e-7 of input precision, times the condition
    assert_allclose(single, log(reference).fit_transform(bulk), rtol=0, atol=1e-5)


def test_one_cell_type(bulk, reference):
    assert_array_equal(log(reference.iloc[:1]).fit_transform(bulk), 1.0)


def test_one_gene(bulk, reference):
    assert_array_equal(log(reference.to_numpy()[:1, :1]).fit_transform(bulk.to_numpy()[:, :1]), 1.0)
    with pytest.raises(ValueError, match=r"4 cell types cannot be told apart by 1 gene"):
        log(reference.to_numpy()[:, :1]).fit(bulk.to_numpy()[:, :1])


def test_many_cell_types():
    rng = np.random.default_rng(0)
    profiles = np.exp(rng.normal(3, 2, (40, 500)))
    shares = rng.dirichlet(np.full(40, 0.5), 6)
    assert_allclose(log(profiles).fit_transform(shares @ profiles), shares, rtol=0, atol=2e-3)  # the ridge


def test_duplicated_profiles_share_evenly(bulk, reference):
    doubled = pd.concat([reference, reference.rename(index="{} again".format)])
    shares = log(doubled, tol=1e-8).fit_transform(bulk)
    assert_allclose(shares[:, :4], shares[:, 4:], rtol=0, atol=1e-8)  # rounding over the ridge
    # half as strong a ridge on the sum of two
    assert_allclose(shares[:, :4] * 2, log(reference, tol=1e-8).fit_transform(bulk), rtol=0, atol=1e-4)


def test_errors_of_identical_profiles_cover_any_split(bulk, reference):
    """Of three types that are one, each may have the whole sum or nothing of it."""
    names = ["T cell one", "T cell two"]
    more = pd.concat([reference, *(reference.loc[["T cell"]].set_axis([name]) for name in names)])
    with pytest.warns(ReferenceWarning, match="same up to a factor"):
        found = log(more).fit(bulk)
    alike = [more.index.get_loc(name) for name in ["T cell", *names]]
    shares, reach = found.proportions_[:, alike], 2 * found.proportions_std_[:, alike]
    assert (shares - reach <= 0).all()
    assert (shares + reach >= shares.sum(axis=1, keepdims=True)).all()
    # all others are as certain as without the copies, but for the ridge
    others = ~np.isin(np.arange(len(more)), alike)
    alone = log(reference).fit(bulk).proportions_std_[:, reference.index != "T cell"]
    assert_allclose(found.proportions_std_[:, others], alone, rtol=0.1)


def test_flat_profile(bulk, reference):
    flat = reference.copy()
    flat.loc["NK cell"] = 50.0
    shares = log(flat).fit_transform(bulk)
    assert np.isfinite(shares).all()
    two = flat.copy()
    two.loc["T cell"] = 50.0
    shares = log(two, tol=1e-8).fit_transform(bulk)
    assert_allclose(shares[:, 2], shares[:, 3], rtol=0, atol=1e-8)  # rounding over the ridge


def test_zero_profile_is_named(bulk, reference):
    empty = reference.copy()
    empty.loc[["NK cell", "monocyte"]] = 0.0
    with pytest.raises(ValueError, match=r"without expression in all 60 genes.*'monocyte', 'NK cell'.*Leave"):
        log(empty).fit(bulk)


def test_zero_samples_are_named(bulk, reference):
    silent = bulk.copy()
    silent.loc[["donor4", "donor7"]] = 0.0
    with pytest.raises(ValueError, match=r"without expression.*'donor4', 'donor7'"):
        log(reference).fit(silent)
    with pytest.raises(ValueError, match=r"without expression.*'donor4', 'donor7'"):
        log(reference).fit(bulk).transform(silent)
    with pytest.raises(ValueError, match=r"1 feature\(s\)"):
        log(reference.to_numpy()[:1, :1]).fit(silent.to_numpy()[:, :1])


def test_samples_that_are_zero_where_profiles_are_not_are_named(bulk, reference):
    silent = bulk.copy()
    silent.loc["donor4"] = 0.0
    with pytest.raises(ValueError, match=r"all 60 feature\(s\).*'donor4'"):
        log(reference.assign(other=0.0)).fit(silent.assign(other=5.0))


def test_negative_values_are_named(bulk, reference):
    spoilt = bulk.copy()
    spoilt.loc["donor3", "gene5"] = -1.0
    with pytest.raises(ValueError, match=r"X .*'donor3'.*'gene5'.*method='rlm'"):
        log(reference).fit(spoilt)
    with pytest.raises(ValueError, match=r"'donor3'.*'gene5'"):
        log(reference).fit(bulk).transform(spoilt)
    with pytest.raises(ValueError, match=r"reference .*'T cell'.*'gene7'"):
        log(reference.where(reference != reference.loc["T cell", "gene7"], -1.0)).fit(bulk)


def test_tag():
    assert get_tags(ProportionEstimator(method="log")).input_tags.positive_only
    assert not get_tags(ProportionEstimator(method="auto")).input_tags.positive_only


class TestAuto:
    def test_linear_data_are_compared_on_the_logarithmic_scale(self, bulk, reference):
        estimator = ProportionEstimator(reference, method="auto").fit(bulk)
        assert estimator.method_ == "log"
        assert_array_equal(estimator.proportions_, log(reference).fit_transform(bulk))

    @pytest.mark.parametrize("change", ["negative bulk", "negative reference", "logarithms"])
    def test_anything_else_is_not(self, bulk, reference, change):
        if change == "negative bulk":
            bulk = bulk - 1000
        elif change == "negative reference":
            reference = reference - reference.mean()
        else:
            bulk, reference = np.log2(bulk + 1), np.log2(reference + 1)
        estimator = ProportionEstimator(reference, method="auto").fit(bulk)
        assert estimator.method_ == "rlm"
        assert_array_equal(estimator.proportions_, ProportionEstimator(reference).fit_transform(bulk))

    def test_is_decided_by_the_fit(self, bulk, reference):
        estimator = ProportionEstimator(reference, method="auto").fit(bulk)
        low = bulk / bulk.to_numpy().max()  # would pass for logarithms
        assert_allclose(estimator.transform(low), estimator.transform(bulk), rtol=0, atol=ROUNDING)

    def test_defaults_are_the_published_method(self):
        assert ProportionEstimator().method == "rlm"


def test_not_converged_samples_are_named(bulk, reference):
    with pytest.warns(Warning, match=r"logarithmic scale did not converge in max_iter=1 .*'donor0'"):
        log(reference, max_iter=1).fit(bulk)


class TestErrors:
    def test_of_fitted_and_new_samples(self, bulk, reference):
        estimator = log(reference).fit(bulk)
        assert estimator.proportions_std_.shape == estimator.proportions_.shape
        assert (estimator.proportions_std_ > 0).all()
        proportions, std = estimator.transform_with_std(bulk)
        assert_array_equal(proportions, estimator.proportions_)
        assert_array_equal(std, estimator.proportions_std_)

    def test_other_methods_have_none(self, bulk, reference):
        estimator = ProportionEstimator(reference).fit(bulk)
        assert estimator.proportions_std_ is None
        with pytest.raises(ValueError, match="method='rlm' has no standard errors"):
            estimator.transform_with_std(bulk)

    def test_grow_with_noise(self, bulk, reference, truth):
        noisy = bulk * np.random.default_rng(5).lognormal(0, 1, bulk.shape)
        assert np.all(
            log(reference).fit(noisy).proportions_std_.mean() > 2 * log(reference).fit(bulk).proportions_std_
        )


class TestCells:
    CONTENT = pd.Series({"T cell": 2.0, "B cell": 1.0, "monocyte": 8.0, "NK cell": 4.0, "other": 1.0})

    @pytest.mark.parametrize("method", ["log", "rlm", "nnls"])
    def test_shares_of_cells(self, bulk, reference, method):
        rna = ProportionEstimator(reference, method=method).fit(bulk)
        cells = ProportionEstimator(reference, method=method, rna_content=self.CONTENT).fit(bulk)
        expected = rna.proportions_ / self.CONTENT[CELL_TYPES].to_numpy()
        expected /= expected.sum(axis=1, keepdims=True)
        assert_allclose(cells.proportions_, expected, rtol=1e-12)  # divisions
        assert_array_equal(cells.transform(bulk), cells.proportions_)
        # the mixture that is compared with the bulk is that of RNA
        pd.testing.assert_frame_equal(cells.quality_, rna.quality_)

    def test_errors_follow(self, bulk, reference):
        rna = log(reference).fit(bulk)
        same = log(reference, rna_content=[3.0] * 4).fit(bulk)
        assert_allclose(same.proportions_std_, rna.proportions_std_, rtol=1e-10)  # divisions
        cells = log(reference, rna_content=self.CONTENT).fit(bulk)
        assert (cells.proportions_std_[:, 1] < rna.proportions_std_[:, 1]).all()  # large cells are fewer

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (pd.Series({"B cell": 1.0}), "do not name cell type 'monocyte', 'NK cell', 'T cell'"),
            ([1.0, 2.0], "one number for each of the 4"),
            ([1.0, 0.0, 2.0, np.nan], "not for 'monocyte', 'T cell'"),
        ],
    )
    def test_what_does_not_fit_is_named(self, bulk, reference, content, message):
        with pytest.raises(ValueError, match=message):
            log(reference, rna_content=content).fit(bulk)


class TestUnexplainedGenes:
    def test_genes_of_a_type_that_is_missing(self, reference, truth):
        bulk = truth @ reference
        known = reference.drop(index="T cell")
        shares = log(known).fit_transform(bulk)
        table = unexplained_genes(bulk, known, shares)
        assert len(table)
        lead = reference.loc["T cell"] / known.max()
        # the genes that are listed are those of the missing type
        assert (lead[table.gene] > 1).all()
        assert (table.excess.diff().dropna() <= 0).all()
        assert list(table.resembles) == list(known[table.gene].idxmax())
        assert_allclose(table.resemblance, known[table.gene].max() / known[table.gene].sum(), rtol=1e-12)
        assert_allclose(table.expression, bulk[table.gene].mean(), rtol=1e-12)

    def test_nothing_of_an_exact_mixture(self, reference, truth):
        assert unexplained_genes(truth @ reference, reference, truth).empty

    def test_needs_a_linear_scale(self, bulk, reference, truth):
        with pytest.raises(ValueError, match="Logarithms need expression of at least 0"):
            unexplained_genes(bulk - 100, reference, truth)


@pytest.mark.slow
def test_known_proportions(truth_folder):
    """The figures of the guide: error and correlation over the sets with known proportions, and "auto" on each."""
    errors, correlations, covered = [], [], []
    for path in sorted((truth_folder / "proportions").glob("*.npz")):
        one = proportions.TruthSet(path)
        found = proportions.figures(*one.compare(proportions.with_errors))
        errors.append(found["error"])
        correlations.append(found["per type"])
        covered.append(found["covered"])
        for fold in one.folds:
            assert ProportionEstimator(fold.profiles, method="auto").fit(fold.bulk).method_ == "log"
    assert len(errors) == 14
    # half a unit of the last digit shown
    assert_allclose(np.mean(errors), 6.6, rtol=0, atol=0.05)
    assert_allclose(np.mean(correlations), 0.812, rtol=0, atol=0.0005)
    assert_allclose(np.mean(covered), 83.0, rtol=0, atol=0.5)


def test_benchmark_scores_the_truth_best(tmp_path):
    rng = np.random.default_rng(0)
    profiles, shares = rng.gamma(1, 100, (4, 300)), rng.dirichlet(np.ones(4), 8)
    arrays = {"X0": shares @ profiles, "R0": profiles, "T0": shares, "parts": 1, "A": np.eye(4), "renorm": 1}
    np.savez(tmp_path / "made.npz", kind="rna", size=np.ones(4), **arrays)
    one = proportions.TruthSet(tmp_path / "made.npz")
    found = proportions.figures(*one.compare(lambda fold: (fold.truth, np.full(fold.truth.shape, 0.1))))
    assert_allclose(list(found.values()), [0, 1, 1, 1, 0, 100], atol=1e-12)  # rounding
    assert_allclose(one.compare(proportions.with_errors)[0], shares, atol=1e-3)  # the ridge
    missing = one.compare(lambda fold: proportions.without_type(fold, "log", 2))[0]
    assert_array_equal(missing[:, 2], 0)
    for chosen in (proportions.random_genes, proportions.pair_genes, proportions.fold_change_genes):
        assert len(np.unique(chosen(one.folds[0]))) <= proportions.N_GENES
        assert np.isfinite(proportions.few_genes(one.folds[0], "log", chosen)).all()
