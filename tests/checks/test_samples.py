"""Samples that are none, and profiles that tell nothing, are named before the fit."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.checks import samples
from skenigma.checks.profiles import profile_findings
from skenigma.checks.samples import sample_findings
from skenigma.core.blocks import spaced
from skenigma.datasets import make_counts
from skenigma.exceptions import ReferenceWarning, SampleWarning

TYPES = np.array(["B", "T", "NK"], dtype=object)


def mixtures(n_samples=12, n_genes=200, seed=0):
    rng = np.random.default_rng(seed)
    level = rng.lognormal(4, 1.5, n_genes)
    reference = level * rng.lognormal(0, 0.7, (3, n_genes))
    bulk = rng.dirichlet(np.full(3, 4), n_samples) @ reference * rng.lognormal(0, 0.2, (n_samples, n_genes))
    return bulk, reference


def names(n_samples):
    return np.array([f"s{j}" for j in range(n_samples)], dtype=object)


def strays():
    rng = np.random.default_rng(1)
    return {
        "gene lengths": lambda row: rng.integers(300, 9000, len(row)),
        "identifiers": lambda row: rng.permutation(50_000)[: len(row)],
        "genes in another order": rng.permutation,
        "one gene": lambda row: np.where(np.arange(len(row)) == 7, row.sum(), 0),
    }


@pytest.mark.parametrize(
    "transform", [lambda x: x, np.log1p, lambda x: np.log2(x + 0.001)], ids=["linear", "log", "log2"]
)
@pytest.mark.parametrize("kind", strays())
def test_a_stray_sample_is_named_on_any_scale(kind, transform):
    bulk, _ = mixtures()
    bulk[3] = strays()[kind](bulk[3])
    (finding,) = sample_findings(transform(bulk), names(12))
    assert finding.name == "stray"
    assert "1 sample(s) are unlike all others, 's3'" in finding.message


def test_an_empty_sample_is_named_and_does_not_hide_a_stray_one():
    bulk, _ = mixtures()
    bulk[3], bulk[5] = 0, np.random.default_rng(0).permutation(bulk[5])
    empty, stray = sample_findings(bulk, names(12))
    assert (empty.name, stray.name) == ("empty", "stray")
    assert "'s3'" in empty.message
    assert "others, 's5':" in stray.message


@pytest.mark.parametrize(
    "bulk",
    [
        mixtures()[0],
        mixtures(4)[0],
        mixtures()[0] * np.array([[100.0], *[[1.0]] * 11]),
        (lambda x: (x - x.mean(0)) / x.std(0))(mixtures()[0]),
        np.random.default_rng(0).normal(size=(12, 200)),
        np.ones((12, 200)),
        np.vstack([mixtures()[1][:1], mixtures()[0]]),
        mixtures(12, 99)[0][:, ::-1].copy(),
    ],
    ids=["cohort", "four", "depths", "standardised", "noise", "constant", "a pure sample", "few genes"],
)
def test_samples_of_a_cohort_are_not(bulk):
    assert sample_findings(bulk) == []


def test_a_sample_of_few_genes_is_not_empty():
    """Also where these are none of those that are looked at."""
    bulk, _ = mixtures(12, 600)
    bulk[3] = 0
    bulk[3, np.setdiff1d(np.arange(600), spaced(600, samples.LOOKED_AT_GENES))[:2]] = 5.0
    assert [finding.name for finding in sample_findings(bulk)] == ["stray"]


def test_repeated_samples_are_those_with_the_same_values():
    values = np.array([[1.0, 2], [2, 1], [0, 0], [1, 2], [0, 0], [2, 1], [1, 2]])
    assert samples.repeated_samples(values) == [(0, 3), (1, 5), (0, 6)]


def test_counts_as_people_have_them_hold_no_stray():
    cohort = make_counts(n_samples=12, n_genes=300, random_state=0)
    assert sample_findings(np.asarray(cohort.bulk, dtype=float)) == []


@pytest.mark.parametrize(
    ("row", "name", "message"),
    [
        (lambda profile: 0 * profile, "empty", "'T'"),
        (lambda profile: 0 * profile + 3, "flat", "'T'"),
        (lambda profile: profile.copy(), "alike", "'B' and 'T'"),
        (lambda profile: 2.5 * profile, "alike", "'B' and 'T'"),
        (lambda profile: np.round(2.5 * profile, 3), "alike", "'B' and 'T'"),
    ],
)
def test_profiles_that_tell_nothing_are_named(row, name, message):
    _, reference = mixtures()
    reference[1] = row(reference[0])
    (finding,) = profile_findings(reference, TYPES)
    assert finding.name == name
    assert message in finding.message


def test_profiles_are_named_right_beside_an_empty_one():
    _, reference = mixtures()
    reference[0], reference[2] = 0, 2 * reference[1]
    empty, alike = profile_findings(reference, TYPES)
    assert "'B'" in empty.message
    assert "'T' and 'NK'" in alike.message


def test_a_flat_profile_may_be_negative():
    _, reference = mixtures()
    reference[1] = -3.0
    assert [finding.name for finding in profile_findings(reference, TYPES)] == ["flat"]


def test_profiles_that_differ_are_not():
    _, reference = mixtures()
    reference[1] = reference[0] * np.random.default_rng(0).lognormal(0, 0.02, 200)
    assert profile_findings(reference, TYPES) == []
    assert profile_findings(np.zeros((3, 5)), TYPES) == []


@pytest.mark.parametrize("given", [False, True], ids=["default", "estimator"])
def test_models_warn_before_they_fit(given):
    """Once, whoever estimates the proportions."""
    bulk, reference = mixtures()
    bulk[3] = np.random.default_rng(0).permutation(bulk[3])
    reference[1] = 2 * reference[0]
    bulk = pd.DataFrame(bulk, names(12), [f"g{i}" for i in range(200)])
    reference = pd.DataFrame(reference, TYPES, bulk.columns)
    model = L2MaxDeconvolver(
        reference, renorm_size=None, max_iter=2, epsilon=1e99,
        proportion_estimator=ProportionEstimator() if given else None,
    )  # fmt: skip
    with pytest.warns() as caught:
        model.fit(bulk)
    assert ["'s3'" in str(entry.message) for entry in caught if entry.category is SampleWarning] == [True]
    alike = [str(entry.message) for entry in caught if entry.category is ReferenceWarning]
    assert alike
    assert all("'B' and 'T'" in message for message in alike)


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "tied"])
def test_likeness_is_the_rank_correlation_of_scipy(levels):
    values = np.random.default_rng(4).gamma(0.5, 3.0, (9, 120))
    values = values if levels is None else np.floor(values).clip(max=levels)
    values[3] = 0.0
    filled = values.any(axis=1)
    middle = np.median(stats.rankdata(values[filled], axis=1), axis=0)
    found = samples._likeness(values, np.arange(120), filled)
    expected = [np.corrcoef(stats.rankdata(row), middle)[0, 1] for row in values[filled]]
    assert_allclose(found[filled], expected, rtol=1e-12)  # sums of 120 products, in another order
    assert found[3] == 0.0
