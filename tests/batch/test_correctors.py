"""Batch correction between bulk and reference: R's recorded stages, truths of our own, scikit-learn's contract."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch, estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.batch import BulkBatchCorrector, ReferenceBatchCorrector
from skenigma.batch._reference import _draw_shares
from skenigma.cohort import lazy_matrix
from skenigma.core.regress.combat import combat
from skenigma.core.regress.robust import nonnegative_least_squares
from skenigma.reference import make_reference

N_BULK = 40  # of the recorded cohort
TYPES = ["B", "NK", "T", "myeloid"]
GENES = [f"gene{i}" for i in range(250)]


def logs(values):
    return np.log2(np.asarray(values) + 1)


def distance(values, truth):
    """Root mean squared difference of the logarithms."""
    return np.sqrt(np.mean((logs(values) - logs(truth)) ** 2))


def mean_correlation(shares, truth):
    """Mean over cell types of the correlation over samples."""
    pairs = zip(np.asarray(shares).T, np.asarray(truth).T, strict=True)
    return np.mean([np.corrcoef(found, true)[0, 1] for found, true in pairs])


def simulate(seed=0, n_samples=40, platform=2.0):
    """Bulk as it would be on the platform of the reference, and as another platform measures it."""
    rng = np.random.default_rng(seed)
    level = rng.normal(6, 2, len(GENES))
    reference = pd.DataFrame(np.exp2(level + rng.normal(0, 1.2, (len(TYPES), len(GENES)))), TYPES, GENES)
    samples = [f"donor{j}" for j in range(n_samples)]
    shares = pd.DataFrame(rng.dirichlet(np.full(len(TYPES), 3.0), n_samples), samples, TYPES)
    cse = reference.to_numpy() * np.exp2(0.4 * rng.normal(size=(n_samples, *reference.shape)))
    truth = pd.DataFrame(np.einsum("jk,jkg->jg", shares, cse), samples, GENES)
    effect = np.exp2(platform * rng.normal(size=len(GENES)))
    return Bunch(
        truth=truth, bulk=truth * effect, reference=reference, proportions=shares, cse=cse, effect=effect
    )


@pytest.fixture(scope="module")
def data():
    return simulate()


@pytest.fixture(scope="module")
def cells():
    """Counts of cells whose types are the profiles of ``simulate``, with labels."""
    reference = simulate().reference
    rng = np.random.default_rng(5)
    labels = np.repeat(TYPES, [80, 40, 120, 60])
    counts = rng.poisson(reference.loc[labels].to_numpy() * rng.lognormal(0, 0.2, (300, 1)) / 4)
    return Bunch(counts=pd.DataFrame(counts, [f"cell{i}" for i in range(300)], GENES), labels=labels)


class TestBulkAgainstR:
    @pytest.fixture
    def recorded(self, package):
        before, after = (
            package.table(f"outputs/bmode_combat_{part}_log2.csv.gz").to_numpy().T
            for part in ("input", "output")
        )
        return Bunch(
            bulk=package.table("inputs/bulk_cpm.csv.gz").T,
            reference=package.table("inputs/reference_cpm.csv.gz").T,
            proportions=package.table("outputs/theta_rlr_raw.csv.gz"),
            before=before,
            after=after,
            corrected=package.table("outputs/bmode_bulk_corrected.csv.gz").T,
        )

    def test_mixed_samples(self, recorded):
        corrector = BulkBatchCorrector(recorded.reference)
        corrector.fit(recorded.bulk, proportions=recorded.proportions)
        found = np.vstack(corrector._batches(recorded.bulk.to_numpy(), corrector.proportions_))
        assert_allclose(found, recorded.before, rtol=0, atol=1e-13)  # rounding, as R's own 5e-15

    def test_combat_output(self, recorded):
        corrector = BulkBatchCorrector(recorded.reference)
        corrector.fit(recorded.bulk, proportions=recorded.proportions)
        found = corrector.slope_ * recorded.before[:N_BULK] + corrector.intercept_
        assert_allclose(found, recorded.after[:N_BULK], rtol=0, atol=1e-12)  # rounding, as R's own 1e-14

    def test_bulk_from_combat_output(self, recorded):
        # R's second stage alone: nothing to correct, so 2^y − 1 is all that is left
        assert_allclose(np.exp2(recorded.after[:N_BULK]) - 1, recorded.corrected, rtol=1e-14)

    def test_given_proportions(self, recorded):
        corrector = BulkBatchCorrector(recorded.reference)
        found = corrector.fit_transform(recorded.bulk, proportions=recorded.proportions)
        assert_allclose(found, recorded.corrected, rtol=1e-11)  # rounding, through the exponential

    def test_own_proportions(self, recorded):
        found = BulkBatchCorrector(recorded.reference).fit_transform(recorded.bulk)
        # robust regression with R's stopping rule gives R's proportions to 1e-14
        assert_allclose(found, recorded.corrected, rtol=1e-9)

    def test_proportions_of_the_corrected_bulk(self, recorded, package):
        corrected = BulkBatchCorrector(recorded.reference).set_output(transform="pandas")
        shares = ProportionEstimator(recorded.reference).fit_transform(corrected.fit_transform(recorded.bulk))
        expected = package.table("outputs/theta_rlr_bmode.csv.gz")
        assert_allclose(shares, expected, rtol=0, atol=1e-9)


class TestBulkAgainstTheTruth:
    """A platform that measures each gene by a factor of its own."""

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("mean_only", [False, True])
    def test_pooled_takes_half_of_the_effect_away(self, seed, mean_only):
        data = simulate(seed)
        found = BulkBatchCorrector(data.reference, mean_only=mean_only).fit_transform(data.bulk)
        assert distance(found, data.truth) < 0.6 * distance(data.bulk, data.truth)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("mean_only", [False, True])
    def test_reference_as_target_takes_most_of_it(self, seed, mean_only):
        data = simulate(seed)
        corrector = BulkBatchCorrector(data.reference, target="reference", mean_only=mean_only)
        found = corrector.fit_transform(data.bulk)
        assert distance(found, data.truth) < 0.35 * distance(data.bulk, data.truth)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("target", ["pooled", "reference"])
    def test_proportions_follow_the_samples_better(self, seed, target):
        data = simulate(seed)
        estimator = ProportionEstimator(data.reference)
        found = BulkBatchCorrector(data.reference, target=target).fit_transform(data.bulk)
        raw = mean_correlation(estimator.fit_transform(data.bulk), data.proportions)
        corrected = mean_correlation(
            estimator.fit_transform(pd.DataFrame(found, columns=GENES)), data.proportions
        )
        assert corrected > raw

    def test_known_proportions_are_used(self, data):
        corrector = BulkBatchCorrector(data.reference, target="reference", mean_only=True)
        own = corrector.fit_transform(data.bulk)
        known = corrector.fit_transform(data.bulk, proportions=data.proportions)
        assert distance(known, data.truth) < 0.5 * distance(own, data.truth)
        assert_array_equal(corrector.proportions_, data.proportions)

    def test_mean_only_keeps_ratios_between_samples(self, data):
        found = BulkBatchCorrector(data.reference, mean_only=True).fit_transform(data.bulk)
        ratios = (found + 1) / (found[:1] + 1)
        unclipped = np.all(found > 0, axis=0)
        expected = (data.bulk.to_numpy() + 1) / (data.bulk.to_numpy()[:1] + 1)
        assert_allclose(ratios[:, unclipped], expected[:, unclipped], rtol=1e-10)  # rounding

    def test_held_out_samples(self, data):
        corrector = BulkBatchCorrector(data.reference, target="reference").fit(data.bulk[:25])
        held_out = corrector.transform(data.bulk[25:])
        assert distance(held_out, data.truth[25:]) < 0.4 * distance(data.bulk[25:], data.truth[25:])


class TestBulkTransformer:
    def test_fit_transform_equals_fit_then_transform(self, data):
        corrector = BulkBatchCorrector(data.reference)
        assert_array_equal(corrector.fit_transform(data.bulk), corrector.transform(data.bulk))

    def test_each_row_on_its_own(self, data):
        corrector = BulkBatchCorrector(data.reference).fit(data.bulk)
        whole = corrector.transform(data.bulk)
        order = [7, 3, 30]
        assert_array_equal(corrector.transform(data.bulk.iloc[order]), whole[order])

    def test_genes_without_expression_are_kept(self, data):
        """The original drops genes that are zero everywhere from the bulk alone."""
        bulk, reference = data.bulk.copy(), data.reference.copy()
        bulk["gene3"], reference["gene3"] = 0.0, 0.0
        bulk["gene8"] = 0.0  # not measured by the platform of the bulk
        reference["gene11"] = 0.0  # not in the reference
        corrector = BulkBatchCorrector(reference, proportion_estimator=None).set_output(transform="pandas")
        found = corrector.fit_transform(bulk)
        assert list(found.columns) == GENES
        for gene in ("gene3", "gene8", "gene11"):
            assert_allclose(found[gene], bulk[gene], rtol=1e-13)  # there and back through the logarithm

    def test_negative_results_are_zero(self):
        """A gene that the platform sees far too much of, and in some samples hardly: 2^y − 1 falls below 0."""
        data = simulate()
        data.bulk["gene5"] = np.where(np.arange(40) % 2, 5000.0, 0.0)
        data.reference["gene5"] = [3.0, 1.0, 2.0, 1.0]
        corrector = BulkBatchCorrector(data.reference).fit(data.bulk)
        bare = np.exp2(corrector.slope_ * logs(data.bulk) + corrector.intercept_) - 1
        assert bare.min() < -0.1
        assert_allclose(corrector.transform(data.bulk), np.maximum(bare, 0), rtol=1e-10, atol=1e-12)

    def test_genes_by_name(self, data):
        expected = BulkBatchCorrector(data.reference).set_output(transform="pandas").fit_transform(data.bulk)
        wide = data.bulk.assign(other=1.0).sample(frac=1, axis=1, random_state=0)
        corrector = BulkBatchCorrector(data.reference).set_output(transform="pandas")
        found = corrector.fit_transform(wide)
        assert list(found.columns) == [gene for gene in wide.columns if gene != "other"]
        assert_allclose(found[GENES], expected, rtol=1e-9)  # sums in another order
        assert_array_equal(corrector.get_feature_names_out(wide.columns), found.columns)

    def test_float32(self, data):
        found = BulkBatchCorrector(data.reference).fit_transform(data.bulk.astype(np.float32))
        assert found.dtype == np.float32
        assert_allclose(
            found, BulkBatchCorrector(data.reference).fit_transform(data.bulk), rtol=2e-3, atol=1e-3
        )

    def test_profile_alike_in_all_types_in_float32(self, data):
        """Mixed, it is constant but for rounding, which is no variance to scale by."""
        reference = data.reference.astype(np.float32)
        reference["gene4"] = np.float32(123.4)
        bulk = data.bulk.astype(np.float32)
        corrector = BulkBatchCorrector(reference).fit(bulk)
        assert corrector.slope_[4] == 1
        assert corrector.intercept_[4] == 0

    def test_in_a_pipeline(self, data):
        steps = make_pipeline(
            BulkBatchCorrector(data.reference), L2MaxDeconvolver(data.reference, renorm_size=None, max_iter=5)
        ).set_output(transform="pandas")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = steps.fit(data.bulk).transform(data.bulk[:3])
        assert found.shape == (3, len(TYPES) * len(GENES))
        assert found.columns[0] == "B:gene0"

    def test_own_estimator_of_proportions(self, data):
        corrector = BulkBatchCorrector(
            data.reference, proportion_estimator=ProportionEstimator(method="nnls")
        )
        corrector.fit(data.bulk)
        expected = ProportionEstimator(data.reference, method="nnls").fit_transform(data.bulk)
        assert_allclose(corrector.proportions_, expected, rtol=1e-12)

    def test_searched_over(self, data):
        search = GridSearchCV(
            make_pipeline(
                BulkBatchCorrector(data.reference).set_output(transform="pandas"),
                L2MaxDeconvolver(data.reference, renorm_size=None, tao_k="auto"),
            ),
            {"bulkbatchcorrector__target": ["pooled", "reference"]},
            cv=2,
        ).fit(data.bulk)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_pickle(self, data):
        corrector = BulkBatchCorrector(data.reference).fit(data.bulk)
        again = pickle.loads(pickle.dumps(corrector))
        assert_array_equal(again.transform(data.bulk), corrector.transform(data.bulk))


class TestBulkBadInput:
    def test_negative(self, data):
        spoilt = data.bulk.copy()
        spoilt.loc["donor4", "gene2"] = -1.0
        with pytest.raises(ValueError, match=r"X contains negative values.*'donor4'.*'gene2'.*linear scale"):
            BulkBatchCorrector(data.reference).fit(spoilt)
        fitted = BulkBatchCorrector(data.reference).fit(data.bulk)
        with pytest.raises(ValueError, match=r"X contains negative values.*'donor4'"):
            fitted.transform(spoilt)
        with pytest.raises(ValueError, match=r"reference contains negative values.*'B'.*'gene0'"):
            BulkBatchCorrector(data.reference - 1e4).fit(data.bulk)

    @pytest.mark.filterwarnings("ignore:No cell type has a positive coefficient:UserWarning")
    def test_empty_sample(self, data):
        spoilt = data.bulk.copy()
        spoilt.loc["donor4"] = 0.0
        with pytest.warns(UserWarning, match=r"X has no expression in 1 row\(s\): 'donor4'"):
            BulkBatchCorrector(data.reference).fit(spoilt)

    def test_logarithms(self, data):
        with (
            pytest.warns(UserWarning, match="largest value of X is .* is this the logarithm"),
            pytest.warns(UserWarning, match="scale both to the same total"),
        ):
            BulkBatchCorrector(data.reference).fit(np.log2(data.bulk + 1))

    def test_units_far_apart(self, data):
        with pytest.warns(UserWarning, match=r"mean total of X is .* scale both to the same total"):
            BulkBatchCorrector(data.reference).fit(data.bulk * 1e3)

    def test_nothing_to_correct(self, data):
        with pytest.warns(UserWarning, match="nothing was corrected"):
            found = BulkBatchCorrector(data.reference.iloc[:1]).fit_transform(data.bulk)
        assert_allclose(found, data.bulk, rtol=1e-12)  # there and back through the logarithm

    def test_one_sample(self, data):
        with pytest.raises(ValueError, match="minimum of 2"):
            BulkBatchCorrector(data.reference).fit(data.bulk[:1])

    def test_target(self, data):
        with pytest.raises(ValueError, match="target"):
            BulkBatchCorrector(data.reference, target="bulk").fit(data.bulk)


class TestReferenceAgainstR:
    @pytest.fixture
    def recorded(self, package):
        before, after = (
            package.table(f"outputs/smode_combat_{part}_log2.csv.gz").to_numpy().T
            for part in ("input", "output")
        )
        # R names the samples of the two tables differently
        return Bunch(
            bulk=package.table("inputs/bulk_cpm.csv.gz").T,
            pseudobulk=Bunch(
                bulk=package.table("outputs/smode_pseudo_bulk.csv.gz").T.reset_index(drop=True),
                proportions=package.table("outputs/smode_pseudo_fractions.csv.gz").reset_index(drop=True),
            ),
            before=before,
            after=after,
            reference=package.table("outputs/smode_reference_restored.csv.gz").T,
        )

    @pytest.fixture
    def fitted(self, recorded):
        return ReferenceBatchCorrector(pseudobulk=recorded.pseudobulk, rescale=False).fit(recorded.bulk)

    def test_combat_input(self, recorded):
        # rounding, as R's own in the bulk
        assert_allclose(logs(recorded.bulk), recorded.before[:N_BULK], rtol=0, atol=1e-13)
        assert_allclose(logs(recorded.pseudobulk.bulk), recorded.before[N_BULK:], rtol=0, atol=1e-13)

    def test_combat_output(self, recorded, fitted):
        found = fitted.slope_ * recorded.before[N_BULK:] + fitted.intercept_
        assert_allclose(found, recorded.after[N_BULK:], rtol=0, atol=1e-12)  # rounding

    def test_restored_from_combat_output(self, recorded):
        corrected = np.exp2(recorded.after[N_BULK:]) - 1
        found = nonnegative_least_squares(recorded.pseudobulk.proportions, corrected.T).T
        assert_allclose(
            found, recorded.reference, rtol=1e-11
        )  # rounding, times the condition of the fractions

    def test_restored_reference(self, recorded, fitted):
        assert fitted.factor_ == 1
        assert list(fitted.reference_.index) == list(recorded.reference.index)
        assert list(fitted.reference_.columns) == list(recorded.reference.columns)
        assert_allclose(
            fitted.reference_, recorded.reference, rtol=1e-10
        )  # as above, through the exponential

    def test_proportions_by_the_restored_reference(self, recorded, package):
        corrector = ReferenceBatchCorrector(
            pseudobulk=recorded.pseudobulk, rescale=False, estimator=ProportionEstimator()
        )
        expected = package.table("outputs/theta_rlr_smode.csv.gz")
        assert_allclose(corrector.fit_transform(recorded.bulk), expected, rtol=0, atol=1e-9)


class TestReferenceAgainstTheTruth:
    @pytest.mark.parametrize("mean_only", [False, True])
    def test_pooled_goes_as_far_as_the_bulk_has_samples(self, data, cells, mean_only):
        """Of 40 bulk and 40 pseudo-bulk samples the mean lies half way; of 40 and 200 a sixth."""
        raw, truth = self.raw_reference(data, cells), data.reference * data.effect
        for n_samples, share in ((40, 0.5), (200, 1 / 6)):
            corrector = ReferenceBatchCorrector(
                cells.counts, cells.labels, n_samples=n_samples, mean_only=mean_only, random_state=0
            )
            found = corrector.fit(data.bulk).reference_
            assert list(found.index) == TYPES
            moved = 1 - distance(found, truth) / distance(raw, truth)
            assert_allclose(moved, share, rtol=0.2)  # cells differ, and genes are shrunken

    @pytest.mark.parametrize(("mean_only", "share"), [(False, 0.35), (True, 0.15)])
    def test_bulk_as_target(self, data, cells, mean_only, share):
        truth = data.reference * data.effect
        corrector = ReferenceBatchCorrector(
            cells.counts, cells.labels, target="bulk", mean_only=mean_only, random_state=0
        )
        found = corrector.fit(data.bulk).reference_
        assert distance(found, truth) < share * distance(self.raw_reference(data, cells), truth)

    @pytest.mark.parametrize("mean_only", [False, True])
    def test_proportions_come_nearer(self, data, cells, mean_only):
        raw = ProportionEstimator(self.raw_reference(data, cells)).fit_transform(data.bulk)
        found = ReferenceBatchCorrector(
            cells.counts,
            cells.labels,
            target="bulk",
            mean_only=mean_only,
            estimator=ProportionEstimator(),
            random_state=0,
        ).fit_transform(data.bulk)
        errors = [np.abs(shares - data.proportions.to_numpy()).mean() for shares in (raw, found)]
        assert errors[1] < 0.6 * errors[0]
        assert mean_correlation(found, data.proportions) > mean_correlation(raw, data.proportions)

    @pytest.mark.parametrize(("mean_only", "bound"), [(False, 0.25), (True, 0.1)])
    def test_without_batch_effect_the_profiles_come_back(self, cells, mean_only, bound):
        """The proportions that profiles are restored from are those that were mixed, cells drawn twice and all.

        Mixing each of 300 cells once, as the original does after 2,000 draws, would make all samples alike.
        """
        truth = make_reference(cells.counts, cells.labels)
        shares = np.random.default_rng(0).dirichlet(np.ones(4), 80)
        bulk = pd.DataFrame(shares @ truth.to_numpy(), columns=GENES)
        corrector = ReferenceBatchCorrector(
            cells.counts,
            cells.labels,
            n_cells=2000,
            composition=np.full(4, 0.25),
            mean_only=mean_only,
            random_state=0,
        )
        assert distance(corrector.fit(bulk).reference_, truth) < bound

    def test_composition_is_not_a_batch_effect(self, cells):
        """Bulk of another composition than the cells: its mean tells, and is worth telling."""
        truth = make_reference(cells.counts, cells.labels)
        shares = np.random.default_rng(1).dirichlet([1, 1, 1, 12], 60)
        bulk = pd.DataFrame(shares @ truth.to_numpy(), columns=GENES)
        expected = pd.Series([0.8, 1 / 15, 1 / 15, 1 / 15], ["myeloid", "B", "NK", "T"])
        errors = []
        for composition in (None, expected):
            corrector = ReferenceBatchCorrector(
                cells.counts,
                cells.labels,
                composition=composition,
                target="bulk",
                mean_only=True,
                random_state=0,
            )
            errors.append(distance(corrector.fit(bulk).reference_, truth))
        assert errors[1] < 0.5 * errors[0]

    @staticmethod
    def raw_reference(data, cells):
        """Mean of the cells of each type, to the total of the bulk."""
        raw = make_reference(cells.counts, cells.labels)
        return raw * (data.bulk.to_numpy().mean() / raw.to_numpy().mean())


class TestDrawnShares:
    def test_follow_the_rule(self):
        mean = np.array([0.1, 0.2, 0.7])
        found = _draw_shares(mean, 20000, np.random.RandomState(0))
        drawn = np.maximum(np.random.RandomState(1).normal(mean, 2 * mean, (20000, 3)), 0)
        drawn = drawn[drawn.sum(axis=1) > 0]
        expected = drawn / drawn.sum(axis=1, keepdims=True)
        assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=0.01)  # 3 standard errors
        assert_allclose(found.std(axis=0), expected.std(axis=0), atol=0.01)

    def test_no_sample_is_lost(self):
        found = _draw_shares(
            np.array([0.5, 0.5]), 500, np.random.RandomState(0)
        )  # a tenth are all zero at first
        assert found.shape == (500, 2)
        assert_allclose(found.sum(axis=1), 1, rtol=1e-14)  # one division


@pytest.fixture
def pseudobulk(data):
    rng = np.random.default_rng(8)
    shares = rng.dirichlet(np.ones(4), 30)
    return Bunch(
        bulk=pd.DataFrame(shares @ data.reference * rng.lognormal(0, 0.1, (30, len(GENES))), columns=GENES),
        proportions=pd.DataFrame(shares, columns=TYPES),
    )


class TestReferenceTransformer:
    def test_passes_the_bulk_on(self, data, pseudobulk):
        corrector = ReferenceBatchCorrector(pseudobulk=pseudobulk).set_output(transform="pandas")
        wide = data.bulk.assign(other=1.0)
        found = corrector.fit_transform(wide)
        pd.testing.assert_frame_equal(found, data.bulk)

    def test_hands_the_reference_to_its_estimator(self, data, pseudobulk):
        corrector = ReferenceBatchCorrector(
            pseudobulk=pseudobulk, estimator=L2MaxDeconvolver(renorm_size=None, tao_k="auto")
        ).fit(data.bulk)
        alone = L2MaxDeconvolver(corrector.reference_, renorm_size=None, tao_k="auto").fit(data.bulk)
        assert_array_equal(corrector.transform(data.bulk[:4]), alone.transform(data.bulk[:4]))
        assert corrector.score(data.bulk) == alone.score(data.bulk)
        assert list(corrector.get_feature_names_out()) == list(alone.get_feature_names_out())
        assert corrector.estimator.reference is None  # the one given is not touched

    def test_no_score_without_an_estimator_that_has_one(self, pseudobulk):
        assert not hasattr(ReferenceBatchCorrector(pseudobulk=pseudobulk), "score")
        assert not hasattr(
            ReferenceBatchCorrector(pseudobulk=pseudobulk, estimator=ProportionEstimator()), "score"
        )

    def test_genes_by_name(self, data, pseudobulk):
        expected = ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk).reference_
        shuffled = Bunch(
            bulk=pseudobulk.bulk.sample(frac=1, axis=1, random_state=0).assign(extra=5.0),
            proportions=pseudobulk.proportions,
        )
        found = ReferenceBatchCorrector(pseudobulk=shuffled).fit(data.bulk).reference_
        pd.testing.assert_frame_equal(found, expected)

    def test_genes_by_position(self, data, pseudobulk):
        expected = ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk).reference_
        arrays = Bunch(bulk=pseudobulk.bulk.to_numpy(), proportions=pseudobulk.proportions.to_numpy())
        corrector = ReferenceBatchCorrector(pseudobulk=arrays, estimator=ProportionEstimator())
        shares = corrector.fit_transform(data.bulk.to_numpy())
        assert_allclose(corrector.reference_, expected, rtol=1e-12)  # arrays of another layout: other sums
        assert_allclose(shares, ProportionEstimator(expected).fit_transform(data.bulk), rtol=0, atol=1e-12)
        unnamed = ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk.to_numpy())
        assert list(unnamed.reference_.columns[:2]) == ["x0", "x1"]

    def test_cells_in_any_form(self, data, cells):
        options = {"n_samples": 20, "n_cells": 100, "random_state": 0}
        expected = ReferenceBatchCorrector(cells.counts, cells.labels, **options).fit(data.bulk).reference_
        matrix = sparse.csr_matrix(cells.counts.to_numpy())
        corrector = ReferenceBatchCorrector(matrix, cells.labels, gene_names=GENES, **options)
        pd.testing.assert_frame_equal(corrector.fit(data.bulk).reference_, expected)
        anndata = pytest.importorskip("anndata")
        annotated = anndata.AnnData(
            matrix,
            obs=pd.DataFrame({"type": cells.labels}, cells.counts.index),
            var=pd.DataFrame(index=GENES),
        )
        corrector = ReferenceBatchCorrector(annotated, "type", **options)
        pd.testing.assert_frame_equal(corrector.fit(data.bulk).reference_, expected)

    def test_mixed_as_asked(self, cells):
        corrector = ReferenceBatchCorrector(
            cells.counts, cells.labels, n_samples=400, n_cells=64, normalize=1000.0, random_state=0
        )
        mixed = corrector._mix()
        assert_allclose(mixed.cell_counts.sum(axis=1), 64)
        assert_allclose(mixed.bulk.sum(axis=1), 1000, rtol=1e-12)
        expected = _draw_shares(np.array([80, 40, 120, 60]) / 300, 4000, np.random.RandomState(1))
        assert_allclose(mixed.proportions.mean(), expected.mean(axis=0), atol=0.04)  # 3 standard errors

    def test_same_seed_same_reference(self, data, cells):
        first, second, other = (
            ReferenceBatchCorrector(cells.counts, cells.labels, n_samples=20, random_state=seed).fit(
                data.bulk
            )
            for seed in (0, 0, 1)
        )
        pd.testing.assert_frame_equal(first.reference_, second.reference_)
        assert not np.array_equal(first.reference_, other.reference_)

    def test_rescale(self, data, pseudobulk):
        expected = ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk)
        smaller = Bunch(bulk=pseudobulk.bulk / 1000, proportions=pseudobulk.proportions)
        found = ReferenceBatchCorrector(pseudobulk=smaller).fit(data.bulk)
        assert_allclose(found.factor_, 1000 * expected.factor_, rtol=1e-12)
        assert_allclose(found.reference_, expected.reference_, rtol=1e-9)  # rounding

    def test_genes_without_expression_are_kept(self, data, pseudobulk):
        bulk = data.bulk.copy()
        bulk["gene1"] = 0.0
        pseudobulk.bulk["gene2"] = 0.0
        found = ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(bulk).reference_
        assert list(found.columns) == GENES
        assert_array_equal(found["gene2"], 0.0)
        assert np.all(found["gene1"] > 0)

    def test_float32(self, data, pseudobulk):
        corrector = ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk.astype(np.float32))
        assert (corrector.reference_.dtypes == np.float32).all()
        assert corrector.transform(data.bulk.astype(np.float32)).dtype == np.float32

    def test_in_a_pipeline_and_a_search(self, data, pseudobulk):
        steps = make_pipeline(
            FunctionTransformer(),
            ReferenceBatchCorrector(
                pseudobulk=pseudobulk, estimator=L2MaxDeconvolver(renorm_size=None, tao_k="auto")
            ),
        )
        search = GridSearchCV(steps, {"referencebatchcorrector__estimator__epsilon": [1e-1, 1e3]}, cv=2).fit(
            data.bulk
        )
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert search.transform(data.bulk[:2]).shape == (2, len(TYPES) * len(GENES))

    def test_clone_and_pickle(self, data, pseudobulk):
        corrector = ReferenceBatchCorrector(pseudobulk=pseudobulk, estimator=ProportionEstimator())
        copy = clone(corrector).set_params(estimator__method="nnls")
        assert corrector.estimator.method == "rlm"
        fitted = copy.fit(data.bulk)
        again = pickle.loads(pickle.dumps(fitted))
        assert_array_equal(again.transform(data.bulk), fitted.transform(data.bulk))


class TestReferenceBadInput:
    def test_nothing_given(self, data, cells):
        for options in ({}, {"cells": cells.counts}, {"labels": cells.labels}):
            with pytest.raises(ValueError, match="needs cells and labels, or pseudobulk"):
                ReferenceBatchCorrector(**options).fit(data.bulk)

    def test_too_much_given(self, data, cells, pseudobulk):
        with pytest.raises(ValueError, match="not both"):
            ReferenceBatchCorrector(cells.counts, cells.labels, pseudobulk=pseudobulk).fit(data.bulk)

    def test_no_pseudobulk(self, data):
        with pytest.raises(ValueError, match="pseudobulk has no 'proportions'"):
            ReferenceBatchCorrector(pseudobulk=Bunch(bulk=data.bulk)).fit(data.bulk)

    def test_estimator_without_reference(self, data, pseudobulk):
        corrector = ReferenceBatchCorrector(pseudobulk=pseudobulk, estimator=FunctionTransformer())
        with pytest.raises(ValueError, match="no parameter 'reference'"):
            corrector.fit(data.bulk)

    def test_absent_type(self, data, pseudobulk):
        pseudobulk.proportions["NK"] = 0.0
        pseudobulk.proportions = pseudobulk.proportions.div(pseudobulk.proportions.sum(axis=1), axis=0)
        with pytest.raises(ValueError, match="holds no 'NK'"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk)

    def test_proportions_that_do_not_vary(self, data, pseudobulk):
        pseudobulk.proportions[:] = 0.25
        with pytest.raises(ValueError, match="cannot tell 4 cell types apart"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk)

    def test_negative(self, data, pseudobulk):
        with pytest.raises(ValueError, match="X contains negative"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk - 10)
        pseudobulk.bulk.iloc[2, 3] = -4
        with pytest.raises(ValueError, match=r"pseudobulk contains negative.*'gene3'"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk)

    def test_nan(self, data, pseudobulk):
        pseudobulk.bulk.iloc[2, 3] = np.nan
        with pytest.raises(ValueError, match=r"pseudobulk contains NaN.*'gene3'"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk)

    def test_all_zero(self, data, pseudobulk):
        with pytest.raises(ValueError, match="X has no expression at all on the 250"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(0 * data.bulk)
        pseudobulk.bulk *= 0
        with pytest.raises(ValueError, match="pseudobulk has no expression at all"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk)

    def test_no_shared_genes(self, data, pseudobulk):
        pseudobulk.bulk.columns = [f"ENSG{i}" for i in range(len(GENES))]
        with pytest.raises(ValueError, match=r"share 0 gene.*'gene0'.*'ENSG0'"):
            ReferenceBatchCorrector(pseudobulk=pseudobulk).fit(data.bulk)

    def test_logarithms_warn_once(self, data, cells):
        corrector = ReferenceBatchCorrector(
            np.log1p(cells.counts), cells.labels, n_samples=20, random_state=0
        )
        with pytest.warns(UserWarning, match="is this the logarithm") as caught:
            corrector.fit(data.bulk)
        assert len(caught) == 1

    def test_rare_types_warn_once(self, data, cells):
        corrector = ReferenceBatchCorrector(
            cells.counts, cells.labels, min_cells=50, n_samples=20, random_state=0
        )
        with pytest.warns(UserWarning, match=r"fewer than min_cells=50.*'NK' \(40\)") as caught:
            corrector.fit(data.bulk)
        assert len(caught) == 1
        assert list(corrector.cell_types_) == ["B", "T", "myeloid"]


class Mixing(ReferenceBatchCorrector):
    """A corrector that needs nothing, for scikit-learn's checks: mixes samples of as many genes as X has."""

    def __init__(self, estimator=None, target="pooled", mean_only=False):
        super().__init__(estimator=estimator, target=target, mean_only=mean_only)

    def _read_pseudobulk(self):
        rng = np.random.default_rng(0)
        shares = rng.dirichlet([1, 1], 20)
        profiles = rng.lognormal(2, 1, (2, self.n_features_in_))
        self.pseudobulk = Bunch(bulk=shares @ profiles, proportions=shares)
        try:
            return super()._read_pseudobulk()
        finally:
            self.pseudobulk = None


CONFIGURATIONS = [
    BulkBatchCorrector(),
    BulkBatchCorrector(target="reference", proportion_estimator=ProportionEstimator(method="nnls")),
    BulkBatchCorrector(mean_only=True),
    Mixing(),
    Mixing(target="bulk", estimator=ProportionEstimator()),
    Mixing(mean_only=True, estimator=L2MaxDeconvolver(max_iter=20)),
]
# Checks that scikit-learn keeps for its own estimators.
UNOFFICIAL_CHECKS = [
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_dataframe_column_names_consistency",
    "check_n_features_in_after_fitting",
    "check_inplace_ensure_writeable",
]


# The checks feed small numbers, few samples and one gene
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:The largest value of X:UserWarning")
@pytest.mark.filterwarnings("ignore:No cell type has a positive coefficient:UserWarning")
@pytest.mark.filterwarnings("ignore:The proportion of .* is 0 in every sample:UserWarning")
@pytest.mark.filterwarnings("ignore:No gene varies both in X:UserWarning")
@pytest.mark.filterwarnings("ignore:.* has no expression in:UserWarning")
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.slow
class TestContract:
    @parametrize_with_checks(CONFIGURATIONS)
    def test_official_checks(self, estimator, check):
        check(estimator)

    @pytest.mark.parametrize("estimator", CONFIGURATIONS, ids=repr)
    @pytest.mark.parametrize("name", UNOFFICIAL_CHECKS)
    def test_unofficial_checks(self, estimator, name):
        check = getattr(estimator_checks, name, None)
        if check is None:
            pytest.skip(f"this scikit-learn has no {name}")
        check(type(estimator).__name__, clone(estimator))

    @pytest.mark.parametrize("estimator", [BulkBatchCorrector(), ReferenceBatchCorrector()], ids=repr)
    def test_parameters_are_checked(self, estimator):
        check = getattr(estimator_checks, "check_param_validation", None)
        if check is None:
            pytest.skip("this scikit-learn has no check_param_validation")
        check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(
    "name",
    ["check_positive_only_tag_during_fit", "check_fit2d_1feature", "check_fit2d_1sample", "check_fit1d"],
)
@pytest.mark.parametrize("given", [True, False])
def test_checks_of_positive_only_estimators_with_an_input_of_their_own(name, given):
    """Where the reference has another width than the data of the checks: what is wrong first is said first."""
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip(f"this scikit-learn has no {name}")
    rng = np.random.default_rng(0)
    mixed = Bunch(bulk=rng.gamma(2, 1, (8, 4)), proportions=rng.dirichlet([1.0, 1.0], 8))
    estimator = ReferenceBatchCorrector(pseudobulk=mixed) if given else BulkBatchCorrector(mixed.bulk[:2])
    check(type(estimator).__name__, estimator)


def test_effect_is_that_of_combat(data):
    """The parts fit together: what is fitted is ComBat's map between measured and mixed samples."""
    corrector = BulkBatchCorrector(data.reference, target="reference").fit(data.bulk)
    mixed = corrector.proportions_ @ data.reference.to_numpy()
    slope, intercept = combat([logs(data.bulk), logs(mixed)], anchor=1)
    assert_allclose(corrector.slope_, slope[0], rtol=1e-12)
    assert_allclose(corrector.intercept_, intercept[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("options", [{}, {"target": "reference"}, {"mean_only": True}], ids=str)
def test_bulk_that_is_read_by_rows(options, dtype):
    rng = np.random.default_rng(0)
    reference = rng.lognormal(4, 1, (3, 50))
    bulk = (rng.dirichlet(np.ones(3), 30) @ reference * rng.lognormal(0, 0.4, (30, 50))).astype(dtype)
    bulk[:, 7] = 3.0  # tells nothing of a scale
    # proportions are found in the type of the bulk; products of fewer rows round differently on some processors
    close = {"rtol": 1e-10, "atol": 1e-12} if dtype is np.float64 else {"rtol": 1e-5, "atol": 1e-6}
    expected = BulkBatchCorrector(reference, **options).fit(bulk)
    for rows in (1, 7, 30):
        matrix = lazy_matrix(bulk, block_bytes=8 * rows * 50)
        found = BulkBatchCorrector(reference, **options).fit(matrix)
        # checks, proportions, means, deviations
        assert matrix.readings == 4
        assert_allclose(found.slope_, expected.slope_, **close)
        assert_allclose(found.intercept_, expected.intercept_, **close)
        assert found.slope_[7] == 1
        assert found.transform(matrix).dtype == dtype
        # logarithms and powers in the type of the bulk, after maps that are as close as above
        assert_allclose(found.transform(matrix), expected.transform(bulk), rtol=1e3 * np.finfo(dtype).eps)
