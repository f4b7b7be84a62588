import inspect

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import ks_2samp

from skenigma.datasets import make_cohort

ARRAYS = ("bulk", "reference", "proportions", "cse", "changed", "phenotype")


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(random_state=0)


@pytest.fixture(scope="module")
def cohorts():
    return [make_cohort(random_state=seed) for seed in range(20)]


def test_shapes_and_names(cohort):
    assert cohort.bulk.shape == (100, 1000)
    assert cohort.reference.shape == (5, 1000)
    assert cohort.proportions.shape == (100, 5)
    assert cohort.cse.shape == (100, 5, 1000)
    assert cohort.changed.shape == (5, 1000)
    assert cohort.changed.dtype == np.int8
    assert list(cohort.sample_names[[0, -1]]) == ["sample1", "sample100"]
    assert list(cohort.gene_names[[0, -1]]) == ["gene1", "gene1000"]
    assert list(cohort.cell_types) == [f"celltype{k}" for k in range(1, 6)]
    assert "samples 100, genes 1000, cell types 5" in cohort.DESCR


def test_samples_genes_and_cell_types_are_not_confused():
    cohort = make_cohort(7, 11, 3, random_state=0)
    assert cohort.bulk.shape == (7, 11)
    assert cohort.cse.shape == (7, 3, 11)
    assert cohort.changed.shape == (3, 11)


@pytest.mark.parametrize(("n_samples", "n_controls"), [(100, 50), (7, 4), (2, 1)])
def test_second_half_are_cases(n_samples, n_controls):
    phenotype = make_cohort(n_samples, 5, 2, random_state=0).phenotype
    assert_array_equal(phenotype, np.arange(n_samples) >= n_controls)


def test_without_noise_bulk_is_the_mixture():
    cohort = make_cohort(10, 50, 3, noise=0, random_state=0)
    mixture = (cohort.proportions[:, :, None] * cohort.cse).sum(axis=1)
    assert_allclose(cohort.bulk, mixture, atol=1e-14)  # sums of 3 numbers of size 1


@pytest.mark.parametrize("noise", [1.0, 0.3])
def test_bulk_noise_has_the_size_asked_for(noise):
    cohort = make_cohort(noise=noise, random_state=0)
    residual = cohort.bulk - np.einsum("jk,jkg->jg", cohort.proportions, cohort.cse)
    # 100,000 numbers: the standard error of their deviation is 0.22 %
    assert_allclose(residual.std(), noise, rtol=0.01)


@pytest.mark.parametrize("cse_noise", [1.0, 0.3])
def test_cse_varies_by_the_size_asked_for(cse_noise):
    cohort = make_cohort(effect=0, cse_noise=cse_noise, random_state=0)
    # 500,000 numbers: the standard error of their deviation is 0.1 %
    assert_allclose((cohort.cse - cohort.reference).std(), cse_noise, rtol=0.005)


@pytest.mark.parametrize("effect", [4.8, 1.5, 0])
def test_without_cse_noise_only_cases_differ_and_by_the_effect(effect):
    cohort = make_cohort(n_samples=9, effect=effect, cse_noise=0, random_state=0)
    shift = cohort.cse - cohort.reference
    assert not shift[:5].any()
    # subtraction of numbers below 10
    assert_allclose(shift[5:], np.broadcast_to(effect * cohort.changed, shift[5:].shape), atol=1e-14)


def test_effect_is_measurable_in_every_cell_type(cohort):
    cases, controls = cohort.cse[cohort.phenotype == 1], cohort.cse[cohort.phenotype == 0]
    difference = cases.mean(axis=0) - controls.mean(axis=0)
    for of_type, signs in zip(difference, cohort.changed, strict=True):
        # means of >= 30 genes with a standard error of 0.2 each: 0.15 is four standard errors
        assert_allclose(of_type[signs == 1].mean(), 4.8, atol=0.15)
        assert_allclose(of_type[signs == -1].mean(), -4.8, atol=0.15)
        assert_allclose(of_type[signs == 0].mean(), 0, atol=0.03)


def test_changed_genes_are_exact_in_number_and_go_both_ways(cohort):
    assert set(np.unique(cohort.changed)) == {-1, 0, 1}
    assert_array_equal(np.abs(cohort.changed).sum(axis=1), 100)
    # binomial(100, 1/2): 30 to 70 is four standard deviations
    assert np.all(np.abs((cohort.changed == 1).sum(axis=1) - 50) <= 20)


def test_changed_genes_are_drawn_per_cell_type(cohort):
    distinct = np.any(cohort.changed != 0, axis=0).sum()
    # 1000 (1 - 0.9^5) = 409.5 expected; 100 if shared by all, 500 if disjoint
    assert 370 < distinct < 450


@pytest.mark.parametrize(("changed", "count"), [(0, 0), (0.26, 3), (1, 10)])
def test_share_of_changed_genes(changed, count):
    signs = make_cohort(4, 10, 3, changed=changed, random_state=0).changed
    assert_array_equal((signs != 0).sum(axis=1), count)


def test_proportions_are_positive_and_sum_to_one(cohort):
    assert np.all(cohort.proportions > 0)
    assert_allclose(cohort.proportions.sum(axis=1), 1, rtol=1e-14)


def test_one_cell_type_is_all_there_is():
    assert_array_equal(make_cohort(4, 5, 1, random_state=0).proportions, np.ones((4, 1)))


def test_same_seed_same_cohort(cohort):
    again = make_cohort(random_state=0)
    for key in ARRAYS:
        assert_array_equal(cohort[key], again[key])
    other = make_cohort(random_state=1)
    for key in set(ARRAYS) - {"phenotype"}:
        assert not np.array_equal(cohort[key], other[key])


def test_random_state_instance_moves_on():
    rng = np.random.RandomState(0)
    first, second = make_cohort(4, 5, 2, random_state=rng), make_cohort(4, 5, 2, random_state=rng)
    assert_array_equal(first.bulk, make_cohort(4, 5, 2, random_state=0).bulk)
    assert not np.array_equal(first.bulk, second.bulk)


def test_sizes_scale_the_same_random_numbers():
    plain = make_cohort(6, 20, 2, random_state=0)
    quiet = make_cohort(6, 20, 2, noise=0, cse_noise=0.5, effect=0, random_state=0)
    for key in ("reference", "proportions", "changed"):
        assert_array_equal(plain[key], quiet[key])
    controls = plain.phenotype == 0
    deviation = plain.cse[controls] - plain.reference
    # differences of numbers of size 1
    assert_allclose(quiet.cse[controls] - quiet.reference, 0.5 * deviation, atol=1e-14)


def test_frames_carry_the_names_and_the_same_numbers(cohort):
    frames = make_cohort(as_frame=True, random_state=0)
    axes = {
        "bulk": ("sample_names", "gene_names"),
        "reference": ("cell_types", "gene_names"),
        "proportions": ("sample_names", "cell_types"),
        "changed": ("cell_types", "gene_names"),
    }
    for key, (index, columns) in axes.items():
        assert isinstance(frames[key], pd.DataFrame)
        assert list(frames[key].index) == list(frames[index])
        assert list(frames[key].columns) == list(frames[columns])
    assert isinstance(frames.phenotype, pd.Series)
    assert frames.phenotype.name == "phenotype"
    assert list(frames.phenotype.index) == list(frames.sample_names)
    assert type(frames.cse) is np.ndarray
    for key in ARRAYS:
        assert_array_equal(np.asarray(frames[key]), cohort[key])
    assert frames.DESCR == cohort.DESCR


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_samples", 1),
        ("n_genes", 0),
        ("n_cell_types", 0),
        ("effect", -1.0),
        ("effect", np.inf),
        ("changed", -0.1),
        ("changed", 1.1),
        ("changed", np.nan),
        ("noise", -1.0),
        ("noise", np.nan),
        ("cse_noise", -1.0),
        ("cse_noise", np.nan),
    ],
)
def test_parameter_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} == {value}, must be "):
        make_cohort(**{name: value})


def test_random_state_must_be_a_seed():
    with pytest.raises(ValueError, match="cannot be used to seed"):
        make_cohort(random_state="seed")


@pytest.mark.parametrize(("name", "value"), [("n_samples", 10.0), ("effect", "large"), ("noise", None)])
def test_parameter_of_the_wrong_type_is_named(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be an instance of"):
        make_cohort(**{name: value})


def test_options_are_keyword_only():
    kinds = {p.name: p.kind for p in inspect.signature(make_cohort).parameters.values()}
    positional = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == ["n_samples", "n_genes", "n_cell_types"]


# The defaults reproduce the published simulated cohort, up to the draw.

BULK_VARIANCES = {
    "overall": lambda bulk: bulk.var(),
    "over samples": lambda bulk: bulk.var(axis=0).mean(),
    "over controls": lambda bulk: bulk[:50].var(axis=0).mean(),
    "over cases": lambda bulk: bulk[50:].var(axis=0).mean(),
    "of the group difference": lambda bulk: (bulk[50:].mean(axis=0) - bulk[:50].mean(axis=0)).var(),
}


@pytest.mark.parametrize("variance", BULK_VARIANCES.values(), ids=BULK_VARIANCES)
def test_bulk_varies_as_published(vignette, cohorts, variance):
    published = variance(vignette.table("bulk.csv.gz").to_numpy().T)
    simulated = np.array([variance(cohort.bulk) for cohort in cohorts])
    # the published cohort is one more draw: within four standard deviations of twenty others
    assert abs(published - simulated.mean()) < 4 * simulated.std(ddof=1)


def test_changed_genes_are_as_many_as_published(vignette, cohort):
    truth = vignette.table("deg_truth.csv.gz").reset_index()
    assert_array_equal(truth.groupby("cell_type").size(), np.abs(cohort.changed).sum(axis=1))
    assert set(truth["sign"]) == {-1, 1}


def test_proportions_are_distributed_as_published(vignette, cohorts):
    published = vignette.table("theta.csv.gz").to_numpy()
    simulated = np.vstack([cohort.proportions for cohort in cohorts])
    # the published ones are estimates with a standard error of about 0.03 each
    simulated = simulated + 0.03 * np.random.default_rng(0).standard_normal(simulated.shape)
    # a flat Dirichlet distribution, the other candidate, gives p < 1e-5 here
    assert ks_2samp(published.ravel(), simulated.ravel()).pvalue > 0.01
