"""What the checks of scale find, and that they are silent where nothing is wrong."""

import numpy as np
import pytest

from skenigma.checks.units import look_at, scale_findings
from skenigma.datasets import make_cohort


@pytest.fixture(scope="module")
def linear():
    """Bulk and reference as heavy-tailed as counts per million of a real bulk are, a fifth of them zero."""
    rng = np.random.default_rng(0)
    level = np.exp(rng.normal(3, 2, 400))
    reference = level * np.exp(rng.normal(0, 1, (4, 400))) * (rng.random((4, 400)) > 0.2)
    theta = rng.dirichlet(np.ones(4), 12)
    return _per_million(theta @ reference * np.exp(rng.normal(0, 0.3, (12, 400)))), _per_million(reference)


def _per_million(values):
    return 1e6 * values / values.sum(axis=1, keepdims=True)


def names(bulk, reference=None, **options):
    return [finding.name for finding in scale_findings(bulk, reference, **options)]


LOGARITHMS = {
    "log2(x + 1)": lambda x: np.log2(x + 1),
    "log2(x + 0.001)": lambda x: np.log2(x + 0.001),
    "ln(x + 1)": np.log1p,
    "ln(x + 0.001)": lambda x: np.log(x + 0.001),
    "log10(x + 1)": lambda x: np.log10(x + 1),
}
CENTRED = {
    "logarithms, centred": lambda x: np.log2(x + 1) - np.log2(x + 1).mean(axis=0),
    "standardised": lambda x: (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9),
    "centred": lambda x: x - x.mean(axis=0),
}


def test_nothing_is_found_where_nothing_is_wrong(linear):
    bulk, reference = linear
    assert names(bulk, reference) == []
    assert names(np.rint(bulk), reference) == []
    # small units are not logarithms
    assert names(bulk / 1e5, reference / 1e5) == []


def test_the_published_kind_of_data_is_signed_and_fits(linear):
    for seed in range(3):
        cohort = make_cohort(n_samples=20, n_genes=200, random_state=seed)
        assert look_at(cohort.bulk).kind == look_at(cohort.reference).kind == "signed"
        assert names(cohort.bulk, cohort.reference) == []


def test_genes_of_two_samples_differ_by_chance():
    """The variance of means of two is half of that within them."""
    rng = np.random.default_rng(0)
    assert {look_at(2 * rng.normal(size=(2, 400))).kind for _ in range(10)} == {"signed"}


def test_genes_that_the_bulk_does_not_show_say_nothing_of_units(linear):
    bulk, reference = linear
    bulk = bulk.copy()
    bulk[:, np.arange(400) % 5 > 0] = 0
    assert names(bulk, reference) == []


@pytest.mark.parametrize("taken", LOGARITHMS.values(), ids=LOGARITHMS)
def test_logarithms_to_any_base_are_told(linear, taken):
    bulk, reference = linear
    assert names(taken(bulk), taken(reference)) == ["logarithms"]
    assert names(taken(bulk)) == ["logarithms"]
    assert names(taken(bulk), reference) == ["mixed"]
    assert names(bulk, taken(reference)) == ["mixed"]
    assert all(finding.refuse for finding in scale_findings(taken(bulk), reference))


@pytest.mark.parametrize("centred", CENTRED.values(), ids=CENTRED)
def test_centred_values_are_told(linear, centred):
    bulk, reference = linear
    assert look_at(centred(bulk)).kind == "signed"
    assert names(centred(bulk), centred(reference)) == []
    assert names(centred(bulk), reference) == ["mixed"]


def test_stray_negatives_do_not_make_a_table_centred(linear):
    bulk, reference = linear
    bulk = bulk.copy()
    bulk[0, 3], bulk[2, 5] = -1.0, -7.5
    (found,) = scale_findings(bulk, reference)
    assert found.name == "negatives"
    assert "2 negative value(s)" in found.message
    assert "-7.5" in found.message
    assert not found.refuse
    assert look_at(bulk).kind == "linear"


@pytest.mark.parametrize(("factor", "expected"), [(9, []), (11, ["apart"]), (1 / 9, []), (1 / 11, ["apart"])])
def test_units_more_than_tenfold_apart_are_told(linear, factor, expected):
    bulk, reference = linear
    # a median ratio of exactly 1, by a bulk of the mean profile
    bulk = np.tile(reference.mean(axis=0), (5, 1))
    assert names(factor * bulk, reference) == expected
    assert names(factor * bulk, reference, proportions_only=True) == []


@pytest.mark.parametrize(("depth", "expected"), [(2.9, []), (3.1, ["depths"])])
def test_a_deep_sample_is_named(linear, depth, expected):
    bulk, reference = linear
    bulk = bulk.copy()
    bulk[7] *= depth
    found = scale_findings(bulk, reference, [f"patient {j}" for j in range(12)])
    assert [finding.name for finding in found] == expected
    assert all("'patient 7'" in finding.message for finding in found)
    assert names(bulk, reference, proportions_only=True) == []


def test_few_genes_tell_nothing(linear):
    bulk, reference = linear
    assert names(np.log2(bulk[:, :19] + 1), reference[:, :19]) == []


@pytest.mark.parametrize("name", ["gse60424", "kang8"])
def test_real_values_are_told(truth_folder, name):
    with np.load(truth_folder / f"{name}.npz") as file:
        bulk, reference = file["bulk"].astype(float), file["reference"].astype(float)
    assert names(bulk, reference) == []
    for taken in LOGARITHMS.values():
        assert names(taken(bulk), taken(reference)) == ["logarithms"]
    for centred in CENTRED.values():
        assert names(centred(bulk), centred(reference)) == []
