"""Changed genes by the factor model: power, error rates, what decides nothing, and what is said and refused."""

import pathlib
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import false_discovery_control

from skenigma import FactorDeconvolver, L2MaxDeconvolver
from skenigma.datasets import make_cohort
from skenigma.differential import differential_expression, factor_test, joint_test, marginal_test
from skenigma.metrics import detection_auprc

COLUMNS = [
    "cell_type", "gene", "effect", "standard_error", "statistic", "p_value", "q_value", "flag", "contrast",
]  # fmt: skip


def found_in(cohort, phenotype=None, **how):
    phenotype = cohort.phenotype if phenotype is None else phenotype
    how.setdefault("reference", cohort.reference)
    return factor_test(cohort.bulk, cohort.proportions, phenotype, **how)


def wide(table, cohort, column):
    frame = table.pivot(index="cell_type", columns="gene", values=column)
    return frame.loc[list(cohort.cell_types), list(cohort.gene_names)].to_numpy()


def calls(table, cohort):
    """Numbers of calls at q < 0.05, and of those right about cell type and direction."""
    called = wide(table, cohort, "q_value") < 0.05
    right = np.sign(wide(table, cohort, "effect")) == cohort.changed.to_numpy()
    return called.sum(), (called & right).sum()


def auprc(table, cohort):
    p_value = np.maximum(wide(table, cohort, "p_value"), 1e-300)
    effect = wide(table, cohort, "effect")
    return np.nanmean(detection_auprc(cohort.changed.to_numpy(), p_value, effect, random_state=0))


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(100, random_state=0, as_frame=True)


@pytest.fixture(scope="module")
def table(cohort):
    return found_in(cohort)


@pytest.fixture(scope="module")
def small():
    return make_cohort(40, 150, 3, random_state=0, as_frame=True)


class TestFindings:
    def test_power_and_errors(self, cohort, table):
        """Published recipe: the interaction regression has an AUPRC of 0.79 and 219 calls on this cohort."""
        called, right = calls(table, cohort)
        assert auprc(table, cohort) > 0.96
        assert called > 300
        assert right >= 0.95 * called

    def test_unchanged_genes_have_no_small_p_values(self, cohort, table):
        p_value = wide(table, cohort, "p_value")[cohort.changed.to_numpy() == 0]
        assert np.mean(p_value < 0.05) < 0.05

    def test_standard_errors_hold_on_average(self, cohort, table):
        """Over changed and unchanged genes, for which the prior stands; effects that are there are shrunken."""
        truth = 4.8 * cohort.changed.to_numpy()
        effect = wide(table, cohort, "effect")
        score = (effect - truth) / wide(table, cohort, "standard_error")
        assert_allclose(np.mean(np.abs(score) < 1.96), 0.95, atol=0.02)
        assert 0.5 < np.median((effect / np.where(truth == 0, 1, truth))[truth != 0]) < 1

    @pytest.mark.parametrize(("n_samples", "least"), [(20, 0.45), (60, 0.8), (200, 0.97)])
    def test_sizes(self, n_samples, least):
        cohort = make_cohort(n_samples, random_state=1, as_frame=True)
        table = found_in(cohort)
        called, right = calls(table, cohort)
        assert auprc(table, cohort) > least
        assert right >= 0.95 * called

    @pytest.mark.parametrize(("cases", "least"), [(10, 0.5), (20, 0.7), (80, 0.97)])
    def test_unbalanced_groups(self, cases, least):
        whole = make_cohort(160, random_state=0, as_frame=True)
        used = np.r_[0:80, 80 : 80 + cases] if cases < 80 else np.r_[0:10, 80:160]
        bulk, theta, group = (part.iloc[used] for part in (whole.bulk, whole.proportions, whole.phenotype))
        table = factor_test(bulk, theta, group, reference=whole.reference)
        called, right = calls(table, whole)
        assert auprc(table, whole) > least
        assert right >= 0.95 * called

    def test_quantity(self):
        cohort = make_cohort(100, random_state=0, as_frame=True)
        dose = pd.Series(np.random.default_rng(0).uniform(0, 2, 100), index=cohort.bulk.index, name="dose")
        rest = cohort.cse - 4.8 * cohort.phenotype.to_numpy()[:, None, None] * cohort.changed.to_numpy()
        cse = rest + 4.8 * dose.to_numpy()[:, None, None] * cohort.changed.to_numpy()
        noise = np.random.default_rng(1).normal(size=cohort.bulk.shape)
        bulk = pd.DataFrame(
            np.einsum("jk,jkg->jg", cohort.proportions, cse) + noise, cohort.bulk.index, cohort.bulk.columns
        )
        table = factor_test(bulk, cohort.proportions, dose, reference=cohort.reference)
        called, right = calls(table, cohort)
        assert called > 300
        assert right >= 0.95 * called
        effect = wide(table, cohort, "effect")[cohort.changed.to_numpy() == 1]
        assert 0.7 * 4.8 < np.median(effect) < 4.8  # per unit, and shrunken
        assert table.contrast.iloc[0] == "per unit of dose"

    def test_several_classes(self, cohort):
        """A third class that is a half of the controls: changes between the others are found all the same."""
        label = np.where(cohort.phenotype == 1, "case", np.where(np.arange(100) % 2, "first", "second"))
        table = found_in(cohort, pd.Series(label, index=cohort.bulk.index))
        called = wide(table, cohort, "q_value") < 0.05
        assert called.sum() > 150
        assert np.mean(cohort.changed.to_numpy()[called] != 0) > 0.95
        assert table.standard_error.isna().all()
        assert (table.statistic >= 0).all()

    def test_covariates(self):
        """A batch that goes with the groups and changes all genes: as a covariate it makes no calls."""
        rng = np.random.default_rng(0)
        cohort = make_cohort(100, effect=0, random_state=0, as_frame=True)
        batch = (rng.uniform(size=100) < 0.3 + 0.4 * cohort.phenotype).astype(float)
        batch = pd.Series(batch, index=cohort.bulk.index, name="batch")
        change = rng.normal(size=(5, 1000)) * 2
        cohort.bulk += batch.to_numpy()[:, None] * (cohort.proportions.to_numpy() @ change)
        assert calls(found_in(cohort, covariates=batch.to_frame()), cohort)[0] == 0

    def test_hidden_batch_is_no_finding(self):
        """The same batch, unknown and independent of the groups."""
        rng = np.random.default_rng(1)
        cohort = make_cohort(100, effect=0, random_state=1, as_frame=True)
        batch = rng.normal(size=100)
        cohort.bulk += batch[:, None] * (cohort.proportions.to_numpy() @ rng.normal(size=(5, 1000)) * 2)
        table = found_in(cohort)
        assert table.attrs["factor_model"]["n_factors"] == 1
        assert calls(table, cohort)[0] == 0

    def test_permuted_phenotypes_make_no_calls(self, cohort):
        rng = np.random.default_rng(0)
        lists = 0
        for _ in range(5):
            permuted = pd.Series(rng.permutation(cohort.phenotype), index=cohort.phenotype.index)
            lists += (found_in(cohort, permuted).groupby("cell_type").q_value.min() < 0.05).sum()
        assert lists <= 1  # of 25, a nominal 1.25

    def test_genes_of_many_scales(self, cohort):
        scale = np.exp(np.random.default_rng(0).normal(size=1000))
        expected = cohort.proportions.to_numpy() @ cohort.reference.to_numpy()
        bulk = expected + scale * (cohort.bulk - expected)
        table = factor_test(bulk, cohort.proportions, cohort.phenotype, reference=cohort.reference)
        called, right = calls(table, cohort)
        assert called > 250
        assert right >= 0.95 * called


class TestCoding:
    """What may have no say."""

    def test_swapped_groups_change_signs_and_nothing_else(self, small):
        one, other = (found_in(small, reference_level=level) for level in (0, 1))
        for column in ("effect", "statistic"):
            assert_array_equal(wide(one, small, column), -wide(other, small, column))
        for column in ("standard_error", "p_value", "q_value"):
            assert_array_equal(wide(one, small, column), wide(other, small, column))

    def test_other_names_of_the_groups(self, small):
        named = small.phenotype.map({0: "z control", 1: "a case"})
        one, other = found_in(small), found_in(small, named)
        assert_array_equal(wide(one, small, "p_value"), wide(other, small, "p_value"))
        assert_array_equal(wide(one, small, "effect"), -wide(other, small, "effect"))

    def test_unit_and_origin_of_a_quantity(self, small):
        dose = pd.Series(np.random.default_rng(0).normal(size=40), index=small.bulk.index)
        one, other = found_in(small, dose), found_in(small, 10 - 2 * dose)
        # 10 - 2 y has its own rounding, which grows until the fit has converged
        assert_allclose(wide(one, small, "p_value"), wide(other, small, "p_value"), atol=1e-4)
        assert_allclose(wide(one, small, "effect"), -2 * wide(other, small, "effect"), atol=1e-4)

    def test_reference_of_the_other_group_is_as_good(self, cohort):
        """Nobody says which group the reference describes."""
        other = cohort.reference + 4.8 * cohort.changed
        table = found_in(cohort, reference=other)
        called, right = calls(table, cohort)
        assert auprc(table, cohort) > 0.95
        assert called > 250
        assert right >= 0.95 * called
        found = table.attrs["factor_model"]["deviation"]
        assert found["1"] < 0.2 < found["0"]

    def test_order_of_samples(self, small):
        order = np.random.default_rng(0).permutation(40)
        bulk, theta, group = (part.iloc[order] for part in (small.bulk, small.proportions, small.phenotype))
        other = factor_test(bulk, theta, group, reference=small.reference)
        # rounding, which grows until the fit has converged
        assert_allclose(wide(other, small, "p_value"), wide(found_in(small), small, "p_value"), atol=1e-3)


class TestReferenceOfNeitherGroup:
    @pytest.mark.parametrize("kind", ["dense", "platform", "middle"])
    def test_is_told_and_makes_no_errors(self, cohort, kind):
        rng = np.random.default_rng(0)
        shift = {
            "dense": rng.normal(size=(5, 1000)),
            "platform": np.broadcast_to(rng.normal(size=1000), (5, 1000)),
            "middle": 2.4 * cohort.changed.to_numpy(),
        }[kind]
        with pytest.warns(UserWarning, match="The reference describes none of the groups"):
            table = found_in(cohort, reference=cohort.reference + shift)
        called, right = calls(table, cohort)
        assert right >= 0.95 * called
        p_value = wide(table, cohort, "p_value")[cohort.changed.to_numpy() == 0]
        assert np.mean(p_value < 0.05) < 0.05

    @pytest.mark.parametrize("share", [0.01, 0.1])
    def test_a_few_genes_that_are_off(self, share):
        """Genes whose reference is wrong are not called changed."""
        cohort = make_cohort(200, random_state=1, as_frame=True)
        rng = np.random.default_rng(0)
        off = (rng.uniform(size=(5, 1000)) < share) * rng.choice([-4.8, 4.8], (5, 1000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = found_in(cohort, reference=cohort.reference + off)
        called, right = calls(table, cohort)
        assert called > 350
        assert right >= 0.95 * called
        assert table.attrs["factor_model"]["shifted_genes"] > 20

    def test_is_not_told_of_a_reference_that_fits(self, cohort):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = found_in(cohort)
        found = table.attrs["factor_model"]
        assert found["deviation"]["0"] < 0.2 < found["deviation"]["1"]
        assert found["shifted_genes"] == 0
        assert found["converged"]


class TestDoor:
    def test_is_the_test_on_arrays(self, small):
        model = FactorDeconvolver(small.reference).fit(small.bulk, proportions=small.proportions)
        found = differential_expression(model, small.phenotype, X=small.bulk, method="factor")
        assert list(found.columns) == COLUMNS
        assert_allclose(wide(found, small, "p_value"), wide(found_in(small), small, "p_value"), rtol=1e-9)

    def test_takes_any_model(self, small):
        model = L2MaxDeconvolver(small.reference, renorm_size="auto")
        model.fit(small.bulk, proportions=small.proportions)
        found = differential_expression(model, small.phenotype, X=small.bulk, method="factor")
        assert_allclose(wide(found, small, "p_value"), wide(found_in(small), small, "p_value"), rtol=1e-9)

    def test_on_the_scale_of_the_model(self, small):
        bulk, reference = np.exp2(small.bulk), np.exp2(small.reference)
        model = FactorDeconvolver(reference, preprocess="log").fit(bulk, proportions=small.proportions)
        found = differential_expression(model, small.phenotype, X=bulk, method="factor")
        expected = factor_test(
            np.log2(bulk + 1), small.proportions, small.phenotype, reference=np.log2(reference + 1)
        )
        assert_allclose(wide(found, small, "p_value"), wide(expected, small, "p_value"), rtol=1e-6)

    @pytest.mark.parametrize("method", ["marginal", "joint"])
    @pytest.mark.parametrize("normalize", [None, "quantile"])
    def test_posterior_means_are_not_tested(self, small, method, normalize):
        model = FactorDeconvolver(small.reference, normalize=normalize)
        model.fit(small.bulk, proportions=small.proportions)
        with pytest.raises(ValueError, match=r"is a posterior mean.*'factor' or 'interaction'"):
            differential_expression(model, small.phenotype, method=method)

    @pytest.mark.parametrize("test", [marginal_test, joint_test])
    def test_nor_when_they_are_passed_as_expression(self, small, test):
        model = FactorDeconvolver(small.reference).fit(small.bulk, proportions=small.proportions)
        assert model.expression_.is_posterior_mean
        with pytest.raises(ValueError, match="is a posterior mean"):
            test(model.expression_, small.phenotype)

    def test_other_expression_is_tested_as_before(self, small):
        model = L2MaxDeconvolver(small.reference, renorm_size="auto")
        model.fit(small.bulk, proportions=small.proportions)
        assert not model.expression_.is_posterior_mean
        one = marginal_test(model.expression_, small.phenotype.to_numpy())
        other = marginal_test(
            model.cse_, small.phenotype.to_numpy(), cell_types=small.cell_types, gene_names=small.gene_names
        )
        pd.testing.assert_frame_equal(one, other)

    def test_why_they_are_not(self):
        """The figure in the refusal: of genes that no cell type changes, most would be called."""
        cohort = make_cohort(100, random_state=0, as_frame=True)
        model = FactorDeconvolver(cohort.reference).fit(cohort.bulk, proportions=cohort.proportions)
        table = marginal_test(model.cse_, cohort.phenotype.to_numpy())
        order = [f"x{i}" for i in range(1000)]
        p_value = table.pivot(index="cell_type", columns="gene", values="p_value")[order].to_numpy()
        assert 0.89 < np.mean(p_value[cohort.changed.to_numpy() == 0] < 0.05) < 0.94


class TestRefusals:
    def test_too_few_samples(self):
        cohort = make_cohort(14, 100, 5, random_state=0, as_frame=True)
        with pytest.raises(ValueError, match="14 samples cannot estimate 10 coefficients"):
            found_in(cohort)

    def test_ratios(self, small):
        model = FactorDeconvolver(small.reference).fit(small.bulk, proportions=small.proportions)
        with pytest.raises(ValueError, match="has differences as its effects"):
            differential_expression(model, small.phenotype, X=small.bulk, method="factor", fold_change=True)

    def test_without_the_bulk(self, small):
        model = FactorDeconvolver(small.reference).fit(small.bulk, proportions=small.proportions)
        with pytest.raises(ValueError, match="pass the X that the model was fitted to"):
            differential_expression(model, small.phenotype, method="factor")

    def test_collinear_covariates(self, small):
        with pytest.raises(ValueError, match="Collinear covariates: 'copy'"):
            found_in(small, covariates=small.phenotype.to_frame("copy"))

    def test_counts_per_million(self, small):
        bulk, reference = 50 * np.exp2(small.bulk), 50 * np.exp2(small.reference)
        with pytest.warns(UserWarning, match="method='log_fold_change'"):
            factor_test(bulk, small.proportions, small.phenotype, reference=reference)

    def test_hidden_factor_that_goes_with_the_groups(self, cohort):
        rng = np.random.default_rng(0)
        batch = rng.normal(size=100) + 2 * cohort.phenotype.to_numpy()
        bulk = cohort.bulk + batch[:, None] * (cohort.proportions.to_numpy() @ rng.normal(size=(5, 1000)) * 2)
        with pytest.warns(UserWarning, match=r"hidden factor\(s\) are associated with the phenotype"):
            table = factor_test(bulk, cohort.proportions, cohort.phenotype, reference=cohort.reference)
        called, right = calls(table, cohort)
        assert right >= 0.95 * called

    def test_cell_type_that_one_group_lacks(self, small):
        theta = small.proportions.copy()
        cases = (small.phenotype == 1).to_numpy()
        theta.loc[cases, "celltype1"] += theta.loc[cases, "celltype3"]
        theta.loc[cases, "celltype3"] = 0
        with pytest.warns(UserWarning, match="No gene could be tested in 'celltype3'"):
            table = factor_test(small.bulk, theta, small.phenotype, reference=small.reference)
        assert set(table[table.cell_type == "celltype3"].flag) == {"singular"}
        assert table[table.cell_type != "celltype3"].p_value.notna().all()

    def test_constant_gene(self, small):
        bulk = small.bulk.copy()
        bulk["gene3"] = 1.0
        table = factor_test(bulk, small.proportions, small.phenotype, reference=small.reference)
        assert set(table[table.gene == "gene3"].flag) == {"constant"}
        assert table[table.gene == "gene3"].p_value.isna().all()

    def test_q_values_are_over_the_genes_of_a_cell_type(self, small):
        table = found_in(small)
        for _, part in table.groupby("cell_type"):
            assert_allclose(part.q_value, false_discovery_control(part.p_value), rtol=1e-12)


class TestGuide:
    """Figures of the page on the factor model that are computed in a second."""

    @pytest.fixture(scope="class")
    @staticmethod
    def rows():
        page = pathlib.Path(__file__).resolve().parents[2] / "docs" / "user_guide" / "factor.md"
        found = re.findall(
            r"^\| (.*?) \| ([\d.]+) \| (\d+) \| (\d+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        return {label: (float(area), int(called), int(right)) for label, area, called, right in found}

    @pytest.mark.parametrize(
        ("label", "shift"),
        [
            ("describes the controls", lambda cohort: 0.0),
            ("describes the cases", lambda cohort: 4.8 * cohort.changed),
            (
                "every profile off by noise of 1",
                lambda cohort: np.random.default_rng(0).normal(size=(5, 1000)),
            ),
            (
                "off by 1 for each gene, in all cell types",
                lambda cohort: np.random.default_rng(0).normal(size=1000),
            ),
            ("half-way between the groups", lambda cohort: 2.4 * cohort.changed),
        ],
    )
    @pytest.mark.filterwarnings("ignore:The reference describes none of the groups")
    def test_spoilt_references(self, cohort, rows, label, shift):
        table = found_in(cohort, reference=cohort.reference + shift(cohort))
        area, called, right = rows[label]
        assert_allclose(auprc(table, cohort), area, atol=0.0051)  # two decimals
        # calls at the limit are rounding's
        assert_allclose(calls(table, cohort), (called, right), atol=3)
