"""Answers that need no model, against their definitions."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma import L2MaxDeconvolverCV
from skenigma.baselines import baselines, bulk_itself, of_arrays, reference_itself, scaled_reference
from skenigma.datasets import make_cohort
from skenigma.metrics import recovery_score
from skenigma.reference import make_pseudobulk

GENES, TYPES, SAMPLES = ["a", "b", "c"], ["T", "B"], ["s1", "s2"]
BULK = pd.DataFrame([[4.0, 8.0, 5.0], [1.0, 0.0, 7.0]], SAMPLES, GENES)
REFERENCE = pd.DataFrame([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0]], TYPES, GENES)
THETA = pd.DataFrame([[0.5, 0.5], [0.25, 0.75]], SAMPLES, TYPES)
ROUNDING = {"rtol": 1e-14}


def test_bulk_and_reference_stand_in_every_place():
    bulk, reference = bulk_itself(BULK, REFERENCE), reference_itself(BULK, REFERENCE)
    assert bulk.shape == reference.shape == (2, 2, 3)
    for k in range(2):
        assert_array_equal(bulk[:, k], BULK)
        assert_array_equal(reference[k], REFERENCE)


def test_scaled_reference_follows_its_formula_and_adds_up_to_the_bulk():
    found = scaled_reference(BULK, REFERENCE, THETA)
    assert_allclose(found[1, 0, 0], 1.0 * 1.0 / (0.25 * 1.0 + 0.75 * 3.0), **ROUNDING)
    mixture = np.einsum("jk,jkg->jg", THETA, found)
    assert_allclose(mixture[:, :2], BULK.to_numpy()[:, :2], **ROUNDING)


def test_a_gene_in_no_profile_that_the_sample_holds_keeps_the_reference():
    found = scaled_reference(BULK, REFERENCE.assign(c=[0.0, 6.0]), [[1.0, 0.0], [0.5, 0.5]])
    assert_array_equal(found[0, :, 2], [0.0, 6.0])
    assert_allclose(found[1, :, 2], [0.0, 14.0], **ROUNDING)
    assert_array_equal(scaled_reference(BULK, REFERENCE, THETA)[:, :, 2], 0)


def test_genes_cell_types_and_samples_are_matched_by_name():
    expected = baselines(BULK, REFERENCE, THETA)
    shuffled = REFERENCE[["c", "a", "b"]].assign(extra=1.0)
    found = baselines(BULK, shuffled, THETA.loc[["s2", "s1"], ["B", "T"]])
    assert list(found) == list(expected) == ["bulk itself", "reference itself", "scaled reference"]
    for name, answer in expected.items():
        assert_array_equal(found[name], answer)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("1 gene.s. of X are not in the reference: 'c'", lambda: bulk_itself(BULK, REFERENCE[["a", "b"]])),
        ("X has 3 genes and the reference 2", lambda: reference_itself(BULK, REFERENCE.to_numpy()[:, :2])),
        ("Genes of X named more than once: 'a'", lambda: bulk_itself(BULK[["a", "a"]], REFERENCE)),
        ("no meaning for signed values", lambda: scaled_reference(BULK - 5, REFERENCE, THETA)),
        ("no meaning for signed values", lambda: scaled_reference(BULK, REFERENCE - 5, THETA)),
        ("do not sum to 1", lambda: scaled_reference(BULK, REFERENCE, THETA * 2)),
        ("not finite|NaN|infinit", lambda: bulk_itself(BULK.replace(4.0, np.nan), REFERENCE)),
    ],
)
def test_what_does_not_fit_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_of_signed_arrays_there_is_no_ratio():
    signed = of_arrays(BULK.to_numpy() - 5, REFERENCE.to_numpy(), THETA.to_numpy())
    assert signed["scaled reference"] is None
    assert_array_equal(signed["bulk itself"][:, 1], BULK - 5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_grid_search_scores_all_of_them():
    rng = np.random.default_rng(0)
    genes = [f"gene{g}" for g in range(1, 81)]
    profiles = pd.DataFrame(rng.gamma(1.0, 5.0, (3, 80)), ["B", "NK", "T"], genes)
    labels = np.repeat(profiles.index.to_numpy(), 40)
    cells = pd.DataFrame(rng.poisson(profiles.loc[labels]), columns=genes)
    bulk = make_pseudobulk(cells, labels, n_samples=20, random_state=0).bulk
    settings = {"alphas": [0.1], "betas": [50.0], "renorm_sizes": [60.0], "random_state": 0}
    scores = L2MaxDeconvolverCV(profiles, cells=cells, labels=labels, **settings).fit(bulk).baseline_scores_
    assert list(scores) == ["bulk itself", "reference itself", "scaled reference"]
    assert np.isfinite(list(scores.values())).all()
    signed = make_cohort(n_samples=20, n_genes=60, n_cell_types=3, random_state=0)
    scores = L2MaxDeconvolverCV(signed.reference, **settings).fit(signed.bulk).baseline_scores_
    assert np.isnan(scores["scaled reference"])


def test_scaled_reference_is_strong_where_genes_move_together():
    rng = np.random.default_rng(0)
    reference, theta = rng.gamma(2.0, 50.0, (4, 300)), rng.dirichlet(np.ones(4), 60)
    cse = reference * np.exp(rng.normal(0, 0.5, (60, 1, 300)))
    bulk = np.einsum("jk,jkg->jg", theta, cse)
    scores = {name: recovery_score(cse, answer) for name, answer in baselines(bulk, reference, theta).items()}
    assert_allclose(scores["scaled reference"], 1.0, rtol=1e-12)  # the truth is a scaled reference
    assert scores["bulk itself"] < 0.99
