"""Real cells mixed into bulk samples with a known answer."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skenigma import ProportionEstimator
from skenigma.datasets import make_cohort
from skenigma.reference import make_pseudobulk, make_reference

TYPES = ["B cell", "NK cell", "T cell", "monocyte"]
GENES = [f"gene{g}" for g in range(25)]
SIZES = [30, 12, 50, 20]
LABELS = np.repeat(TYPES, SIZES)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.5, 20, (len(TYPES), len(GENES)))
    profiles[3] *= 4  # monocytes have more RNA
    return pd.DataFrame(
        rng.poisson(np.repeat(profiles, SIZES, axis=0)), [f"cell{i}" for i in range(len(LABELS))], GENES
    )


def mix(cells, n_samples=20, **settings):
    return make_pseudobulk(cells, LABELS, n_samples, **{"n_cells": 60, "random_state": 0, **settings})


def refused(*parts, error=ValueError):
    """Expect an error whose message holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


def test_bunch_is_that_of_make_cohort(cells):
    pseudobulk, cohort = mix(cells), make_cohort(20, as_frame=True)
    assert set(cohort) < set(pseudobulk)
    for key, value in cohort.items():
        assert type(pseudobulk[key]) is type(value)
    assert pseudobulk.bulk.shape == (20, 25)
    assert pseudobulk.cse.shape == (20, 4, 25)
    assert list(pseudobulk.bulk.columns) == list(pseudobulk.reference.columns) == GENES
    assert list(pseudobulk.proportions.columns) == list(pseudobulk.reference.index) == TYPES
    assert list(pseudobulk.bulk.index) == list(pseudobulk.proportions.index) == list(pseudobulk.sample_names)
    assert pseudobulk.phenotype.name == cohort.phenotype.name
    assert_array_equal(pseudobulk.phenotype, cohort.phenotype)
    assert "samples 20, genes 25, cell types 4, cells per sample 60" in pseudobulk.DESCR


@pytest.mark.parametrize("normalize", [None, 1e4])
@pytest.mark.parametrize("changed_types", [(), ["T cell", "monocyte"]])
@pytest.mark.parametrize("reference_share", [None, 0.5])
def test_bulk_is_the_mixture_of_the_truth(cells, normalize, changed_types, reference_share):
    cohort = mix(
        cells,
        normalize=normalize,
        changed_types=changed_types,
        reference_share=reference_share,
        concentration=0.1,
    )
    assert (cohort.proportions == 0).any(axis=None)
    mixture = np.einsum("jk,jkg->jg", cohort.proportions, cohort.cse)
    # sums of 4 products
    assert_allclose(cohort.bulk, mixture, rtol=1e-13, atol=1e-13)


def test_cells_count_as_often_as_they_are_drawn(cells):
    """Types of one cell each: the mixture then follows from the stored proportions alone, many draws or few."""
    single = cells.iloc[[0, 30, 42, 92]]
    cohort = make_pseudobulk(single, TYPES, 15, n_cells=200, min_cells=1, random_state=0)
    assert_allclose(cohort.bulk, cohort.proportions.to_numpy() @ single.to_numpy(), rtol=1e-13)


def test_one_drawn_cell_is_a_cell(cells):
    cohort = make_pseudobulk(cells, LABELS, 30, n_cells=1, random_state=0)
    known = {tuple(row) for row in cells.to_numpy()}
    assert all(tuple(row) in known for row in cohort.bulk.to_numpy())
    assert_array_equal(cohort.cell_counts.sum(axis=1), 1)


def test_all_cells_of_a_type_are_drawn_alike(cells):
    """Tagged cells show who was drawn: each as often as binomial numbers allow."""
    tagged = pd.DataFrame(1000 * np.eye(len(LABELS)))
    cohort = make_pseudobulk(tagged, LABELS, 40, n_cells=1000, random_state=0)
    drawn = np.rint(cohort.bulk.to_numpy()).sum(axis=0)
    assert_allclose(cohort.bulk.to_numpy(), np.rint(cohort.bulk.to_numpy()), atol=1e-9)
    assert drawn.sum() == 40 * 1000
    for cell_type in TYPES:
        of_type = drawn[cell_type == LABELS]
        assert of_type.sum() == cohort.cell_counts[cell_type].sum()
        expected = of_type.mean()
        assert np.all(np.abs(of_type - expected) < 5 * np.sqrt(expected))


def test_cse_is_the_mean_of_the_drawn_cells(cells):
    tagged = pd.DataFrame(1000 * np.eye(len(LABELS)))
    cohort = make_pseudobulk(tagged, LABELS, 10, n_cells=50, random_state=0)
    own = LABELS[None, :] == np.array(TYPES)[:, None]
    for sample in range(10):
        # only cells of the type appear, and their weights sum to one
        assert not cohort.cse[sample][~own].any()
        assert_allclose(cohort.cse[sample].sum(axis=1), 1000, rtol=1e-13)


def test_type_without_a_drawn_cell_has_the_reference_profile(cells):
    cohort = mix(cells, n_cells=5, concentration=0.2)
    absent = cohort.cell_counts.to_numpy() == 0
    assert absent.any()
    for k in range(len(TYPES)):
        expected = np.broadcast_to(cohort.reference.iloc[k], cohort.cse[absent[:, k], k].shape)
        assert_array_equal(cohort.cse[absent[:, k], k], expected)


@pytest.mark.parametrize("normalize", [None, "median", 1e4])
def test_reference_is_that_of_the_cells(cells, normalize):
    pd.testing.assert_frame_equal(
        mix(cells, normalize=normalize).reference,
        make_reference(cells, LABELS, normalize=normalize),
        rtol=1e-13,
    )


def test_many_cells_approach_the_reference(cells):
    cohort = mix(cells, n_cells=100_000)
    # 10,000 draws or more from a type whose cells vary by less than 3 times their mean
    assert_allclose(cohort.cse[:, 2], np.tile(cohort.reference.loc["T cell"], (20, 1)), rtol=0.3, atol=0.3)


def test_cells_apart_for_the_reference_are_not_mixed():
    tagged = pd.DataFrame(1000 * np.eye(len(LABELS)))
    cohort = make_pseudobulk(tagged, LABELS, 40, n_cells=1000, reference_share=0.4, random_state=0)
    in_reference = cohort.reference.to_numpy().any(axis=0)
    mixed = cohort.bulk.to_numpy().any(axis=0)
    assert not np.any(in_reference & mixed)
    for cell_type, size in zip(TYPES, SIZES, strict=True):
        assert in_reference[cell_type == LABELS].sum() == round(0.4 * size)
    assert_allclose(cohort.reference.sum(axis=1), 1000, rtol=1e-13)


class TestProportions:
    def test_counts_and_proportions_are_one(self, cells):
        cohort = mix(cells)
        assert_array_equal(cohort.cell_counts.sum(axis=1), 60)
        assert_array_equal(cohort.proportions, cohort.cell_counts / 60)

    def test_given_ones_are_mixed(self, cells):
        given = pd.DataFrame(
            [[0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0], [0.25] * 4, [0.333, 0.333, 0.334, 0]],
            index=["p1", "p2", "p3", "p4"],
            columns=["monocyte", "T cell", "NK cell", "B cell"],
        )
        cohort = mix(cells, proportions=given, n_cells=100)
        assert list(cohort.bulk.index) == ["p1", "p2", "p3", "p4"]
        assert_array_equal(cohort.cell_counts.loc["p1"], [40, 30, 20, 10])
        # within one cell
        assert np.all(np.abs(cohort.proportions - given[TYPES]) < 0.01)

    def test_rounded_ones_are_brought_to_one(self, cells):
        cohort = mix(cells, proportions=[[0.26] * 4, [0.24] * 4], n_cells=100)
        assert_array_equal(cohort.cell_counts, 25)

    def test_rounding_is_by_largest_remainder(self, cells):
        cohort = mix(cells, proportions=[[0.24, 0.26, 0.26, 0.24]], n_cells=10)
        assert_array_equal(cohort.cell_counts, [[2, 3, 3, 2]])

    def test_flat_ones_are_drawn(self, cells):
        shares = mix(cells, 2000, n_cells=1000, return_cse=False).proportions
        # flat Dirichlet of 4: mean 1/4, variance 3/80; 2,000 draws
        assert_allclose(shares.mean(), 0.25, atol=0.02)
        assert_allclose(shares.var(), 3 / 80, rtol=0.15)

    def test_concentration_and_composition(self, cells):
        mean = pd.Series([0.1, 0.2, 0.3, 0.4], index=TYPES[::-1])
        shares = mix(
            cells, 2000, n_cells=1000, composition=mean, concentration=10.0, return_cse=False
        ).proportions
        assert_allclose(shares.mean(), mean[TYPES], atol=0.01)
        assert_allclose(shares.var(), (mean * (1 - mean))[TYPES] / 41, rtol=0.15)

    def test_observed_composition(self, cells):
        shares = mix(cells, composition="observed", concentration=1e6, n_cells=1000).proportions
        assert_allclose(shares, np.tile(np.array(SIZES) / 112, (20, 1)), atol=0.005)

    def test_hardly_any_mixing(self, cells):
        shares = mix(cells, concentration=1e-3).proportions
        assert_allclose(shares.max(axis=1), 1, atol=0.05)

    def test_rna_shares(self, cells):
        cohort = mix(cells)
        rna = np.einsum("jk,jkg->jk", cohort.proportions, cohort.cse)
        assert_allclose(cohort.rna_proportions, rna / rna.sum(axis=1, keepdims=True), rtol=1e-12)
        mixed = cohort.proportions.monocyte.between(0.01, 0.99)
        assert (cohort.rna_proportions.monocyte > cohort.proportions.monocyte)[mixed].all()
        alike = mix(cells, normalize=1e4)
        assert_allclose(alike.rna_proportions, alike.proportions, rtol=1e-12, atol=1e-15)

    def test_shares_of_no_rna_are_shares_of_cells(self, cells):
        cells.iloc[:30] = 0
        cohort = mix(cells, proportions=[[1, 0, 0, 0], [0, 0, 1, 0]])
        assert_array_equal(cohort.rna_proportions, [[1, 0, 0, 0], [0, 0, 1, 0]])

    def test_they_are_what_regression_finds(self, cells):
        cohort = mix(cells, n_cells=2000)
        found = ProportionEstimator(cohort.reference, method="nnls").fit_transform(cohort.bulk)
        assert np.abs(found - cohort.proportions).to_numpy().max() < 0.03


class TestPhenotype:
    def test_no_type_changes_unless_asked(self, cells):
        assert not mix(cells).changed.to_numpy().any()
        assert "do not differ" in mix(cells).DESCR

    def test_named_types_change_by_the_effect(self, cells):
        settings = {"changed": 0.2, "effect": 1.5, "changed_types": ["T cell", "B cell"]}
        shifted, plain = mix(cells, **settings), mix(cells, **{**settings, "effect": 0.0})
        fold = np.exp2(1.5 * shifted.changed.to_numpy())
        assert_array_equal(shifted.cse[:10], plain.cse[:10])
        assert_allclose(shifted.cse[10:], plain.cse[10:] * fold, rtol=1e-14)
        assert_array_equal(shifted.reference, plain.reference)
        assert "In 'B cell', 'T cell', 20% of the genes" in shifted.DESCR

    def test_number_of_changed_genes(self, cells):
        cells["gene3"] = np.where(LABELS == "T cell", 0, cells["gene3"])
        cohort = mix(cells, changed=1.0, changed_types="T cell")
        expressed = cohort.reference.loc["T cell"] > 0
        assert_array_equal(cohort.changed.loc["T cell"] != 0, expressed)
        assert not expressed["gene3"]
        assert set(np.unique(cohort.changed)) == {-1, 0, 1}
        assert not cohort.changed.drop("T cell").to_numpy().any()

    def test_absent_types_change_too(self, cells):
        cohort = mix(cells, n_cells=1, changed=1.0, changed_types=TYPES)
        absent = cohort.cell_counts["T cell"].to_numpy() == 0
        expected = cohort.reference.loc["T cell"] * np.exp2(cohort.changed.loc["T cell"])
        for row in cohort.cse[10:, 2][absent[10:]]:
            assert_allclose(row, expected, rtol=1e-14)


class TestRandomState:
    def test_same_seed_same_samples(self, cells):
        one, two, other = mix(cells), mix(cells), mix(cells, random_state=1)
        for key in ("bulk", "cse", "proportions"):
            assert_array_equal(one[key], two[key])
            assert not np.array_equal(one[key], other[key])

    def test_sparse_or_dense_the_same_samples(self, cells):
        dense = make_pseudobulk(cells.to_numpy(), LABELS, 10, n_cells=30, random_state=0)
        thin = make_pseudobulk(sparse.csc_array(cells.to_numpy()), LABELS, 10, n_cells=30, random_state=0)
        # sums in another order
        assert_allclose(thin.cse, dense.cse, rtol=1e-13)
        assert list(thin.gene_names[:2]) == ["gene1", "gene2"]

    def test_without_cse_the_same_bulk(self, cells):
        cohort = mix(cells, return_cse=False)
        assert cohort.cse is None
        assert_array_equal(cohort.bulk, mix(cells).bulk)


class TestBadInput:
    def test_rare_types_are_named(self, cells):
        with pytest.warns(UserWarning, match=r"left out: 'NK cell' \(12\)"):
            cohort = mix(cells, min_cells=15)
        assert list(cohort.cell_types) == ["B cell", "T cell", "monocyte"]
        assert_allclose(cohort.proportions.sum(axis=1), 1)

    def test_unknown_type(self, cells):
        with refused("changed_types names 'Tcell'", "'B cell'"):
            mix(cells, changed_types=["Tcell"])

    def test_unknown_composition(self, cells):
        with refused("composition must be 'uniform', 'observed'", "'equal'"):
            mix(cells, composition="equal")

    def test_proportions_of_other_types(self, cells):
        with refused("columns of proportions", "'B cell'", "'b'"):
            mix(cells, proportions=pd.DataFrame([[0.25] * 4], columns=list("bntm")))

    def test_proportions_with_repeated_samples(self, cells):
        with refused("Samples of proportions", "'p'"):
            mix(cells, proportions=pd.DataFrame([[0.25] * 4] * 2, index=["p", "p"], columns=TYPES))

    def test_logarithms(self, cells):
        with pytest.warns(UserWarning, match="is this the logarithm"):
            mix(np.log1p(cells))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("n_cells", 0),
            ("concentration", 0.0),
            ("concentration", np.nan),
            ("changed", 1.5),
            ("effect", -1.0),
            ("effect", np.nan),
            ("reference_share", 0.0),
            ("reference_share", 1.0),
        ],
    )
    def test_parameter_out_of_range_is_named(self, cells, name, value):
        with refused(f"{name} == {value}"):
            mix(cells, **{name: value})

    def test_no_sample(self, cells):
        with refused("n_samples == 0"):
            mix(cells, 0)
