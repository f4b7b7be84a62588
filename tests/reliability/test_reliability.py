"""Reliability of genes: the recorded test of the original, and bootstrap errors against repeated cohorts."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from skenigma import L2MaxDeconvolver, L2MaxDeconvolverCV, ProportionEstimator, TraceNormDeconvolver
from skenigma.datasets import make_cohort
from skenigma.metrics import per_gene_correlation
from skenigma.reliability import bootstrap_reliability, gene_contribution, gene_significance
from skenigma.reliability._bootstrap import FOUND, _with_found_parameters

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def recorded(package):
    """Input of the original's test: corrected bulk and its proportions, samples as rows."""
    bulk = package.table("outputs/bmode_bulk_corrected.csv.gz").T
    return bulk, package.table("outputs/theta_rlr_bmode.csv.gz")


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=40, n_genes=60, n_cell_types=3, as_frame=True, random_state=0)


@pytest.fixture(scope="module")
def model(cohort):
    return L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)


def by_gene(table, column):
    """A column as genes × cell types, in the order of the rows."""
    return table.pivot(index="gene", columns="cell_type", values=column).loc[
        table["gene"].unique(), table["cell_type"].unique()
    ]


# Contribution


def positive_cohort():
    """Cell types that vary by folds, each with genes of its own and genes in common."""
    rng = np.random.default_rng(0)
    reference = np.exp(rng.normal(2, 1, 200) + rng.normal(0, 1, (4, 200)))
    theta = rng.dirichlet([6, 3, 2, 1], 60)
    cse = reference * np.exp(0.4 * rng.standard_normal((60, 4, 200)))
    return np.einsum("jk,jkg->jg", theta, cse), reference, theta, cse


def test_contribution_by_its_formula():
    bulk, reference, theta, _ = positive_cohort()
    reference[:, 3] = 0
    model = L2MaxDeconvolver(reference, preprocess="sqrt", renorm_size=None).fit(bulk, proportions=theta)
    share = gene_contribution(model).to_numpy()
    parts = theta.mean(axis=0)[:, None] * reference
    assert np.isnan(share[:, 3]).all()
    kept = np.arange(200) != 3
    assert_allclose(share[:, kept], parts[:, kept] / parts[:, kept].sum(axis=0), rtol=1e-12)


def test_genes_of_one_cell_type_are_recovered_better():
    bulk, reference, theta, cse = positive_cohort()
    model = L2MaxDeconvolver(reference, preprocess="sqrt", renorm_size=None).fit(bulk, proportions=theta)
    share = gene_contribution(model).to_numpy().ravel()
    recovered = per_gene_correlation(cse, model.cse_).ravel()
    assert stats.spearmanr(share, recovered).statistic > 0.5


def test_contribution_of_centred_expression_is_refused(model):
    with pytest.raises(ValueError, match=r"reference contains negative values .* Shares need expression"):
        gene_contribution(model)


# Gene significance


def test_recorded_p_values_and_calls(recorded, package):
    table = gene_significance(*recorded)
    expected = package.table("outputs/genesig_norefine_padj.csv.gz")
    found = by_gene(table, "q_value")
    assert found.columns.tolist() == expected.columns.tolist()
    assert found.index.tolist() == expected.index.tolist()
    # regressions of 40 samples by another factorisation; p-values down to 1e-17 keep their digits
    assert_allclose(found, expected, rtol=1e-9)
    calls = package.table("outputs/genesig_norefine_call.csv.gz")
    assert_array_equal(by_gene(table, "significant"), calls == 1)


def test_refined_score_is_the_expectation_of_the_recorded_random_one(recorded, package):
    table = gene_significance(*recorded, refine=True)
    expected = by_gene(table, "score").to_numpy()
    drawn = package.table("outputs/genesig_refine_seed5_nmc1000_score.csv.gz").to_numpy()
    inside = (expected > 0) & (expected < 1)
    z = (drawn - expected)[inside] / np.sqrt(expected * (1 - expected) / 1000)[inside]
    # 1,200 binomial shares of 1,000 draws each: the mean of z² has a standard error of 0.04
    assert_allclose(np.mean(z**2), 1, atol=0.15)
    assert abs(z.mean()) < 0.15
    assert np.abs(z).max() < 4.5
    assert_array_equal(drawn[expected == 0], 0)
    smallest = table.groupby("gene")["q_value"].transform("min") == table["q_value"]
    assert_array_equal(table["significant"], (table["score"] < 0.05) & smallest)
    assert table["gene"][table["significant"]].is_unique


def test_refined_calls_of_the_original(recorded, package):
    """By its own scores: what is random in its calls is the score alone."""
    drawn = package.table("outputs/genesig_refine_seed5_nmc1000_score.csv.gz")
    calls = package.table("outputs/genesig_refine_seed5_nmc1000_call.csv.gz")
    table = gene_significance(*recorded, refine=True)
    smallest = by_gene(table.assign(own=table.groupby("gene")["q_value"].rank(method="first") == 1), "own")
    assert_array_equal((drawn < 0.05) & smallest, calls == 1)
    # where the score's expectation is clear of 0.05, the calls are the same; 1,000 draws have an error of 0.007
    clear = np.abs(by_gene(table, "score").to_numpy() - 0.05) > 0.03
    assert clear.mean() > 0.9
    assert_array_equal(by_gene(table, "significant").to_numpy()[clear], calls.to_numpy()[clear] == 1)


def test_refinement_is_decided_as_in_the_original(recorded, package):
    """R refines unless two profiles correlate by more than 0.85, and recorded what it would do here."""
    manifest = json.loads(package.path("manifest.json").read_text())
    reference = package.table("inputs/reference_cpm.csv.gz").T
    decided = gene_significance(*recorded, refine="auto", reference=reference)
    assert ("score" in decided) == manifest["genesig_auto_would_refine"]
    twins = reference.copy()
    twins.iloc[1] = 2 * twins.iloc[0] + 0.1 * twins.iloc[1]
    assert "score" not in gene_significance(*recorded, refine="auto", reference=twins)
    with pytest.raises(ValueError, match="pass the reference"):
        gene_significance(*recorded, refine="auto")
    with pytest.raises(ValueError, match="refine must be"):
        gene_significance(*recorded, refine="yes")


def test_coefficients_and_p_values_by_the_formulas():
    rng = np.random.default_rng(0)
    theta, bulk = rng.dirichlet([1, 2, 3], 20), rng.standard_normal((20, 7))
    table = gene_significance(bulk, theta)
    beta, squares, *_ = np.linalg.lstsq(theta, bulk, rcond=None)
    errors = np.sqrt(np.diag(np.linalg.inv(theta.T @ theta))[:, None] * squares / 17)
    assert_allclose(table["coefficient"], beta.ravel(), rtol=1e-10)
    assert_allclose(table["statistic"], (beta / errors).ravel(), rtol=1e-10)
    assert_allclose(table["p_value"], stats.t.sf(beta / errors, 17).ravel(), rtol=1e-10)
    assert table["cell_type"].tolist() == np.repeat(["celltype0", "celltype1", "celltype2"], 7).tolist()
    assert table["gene"].tolist() == [f"x{g}" for g in range(7)] * 3


def test_genes_without_a_residual_are_answered():
    theta = np.random.default_rng(0).dirichlet([1, 1], 10)
    bulk = np.column_stack([np.zeros(10), np.random.default_rng(1).standard_normal(10)])
    table = gene_significance(bulk, theta)
    assert_array_equal(table.loc[table["gene"] == "x0", "p_value"], 1)
    assert table[["p_value", "q_value"]].notna().all(axis=None)


def test_rows_are_matched_by_name(recorded):
    bulk, theta = recorded
    expected = gene_significance(bulk, theta)
    shuffled = theta.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(gene_significance(bulk, shuffled), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:3], "3 samples cannot be regressed on 3 cell types"),
        (lambda t: np.column_stack([t[:, 0], 1 - t[:, 0], 0 * t[:, 0]]), "'celltype2' is 0 in every sample"),
        (
            lambda t: np.column_stack([t[:, 0], 0.5 - t[:, 0] / 2, 0.5 - t[:, 0] / 2]),
            "proportions of 'celltype1', 'celltype2' are collinear",
        ),
        (lambda t: 2 * t, "do not sum to 1"),
    ],
)
def test_bad_designs(change, message):
    theta = change(np.random.default_rng(0).dirichlet([1, 1, 1], 10))
    with pytest.raises(ValueError, match=message):
        gene_significance(np.ones((len(theta), 4)), theta)


# Bootstrap


def test_tables_are_those_of_plain_refits(cohort, model):
    seen = []
    found = bootstrap_reliability(
        model, cohort.bulk, n_bootstraps=5, random_state=0, progress=lambda *done: seen.append(done)
    )
    draws = np.random.RandomState(0).randint(40, size=(5, 40))
    means, converged = [], 0
    for rows in draws:
        fit = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(
            cohort.bulk.iloc[rows].reset_index(drop=True), proportions=model.proportions_[rows]
        )
        means.append(fit.cse_.mean(axis=0))
        converged += fit.converged_
    # refits in their compact form
    assert_allclose(found.mean, model.cse_.mean(axis=0), rtol=1e-10, atol=1e-12)
    assert_allclose(found.standard_error, np.std(means, axis=0, ddof=1), rtol=1e-7)
    centre = model.cse_.mean(axis=0)

    def above(table):
        return table > (table.sum(axis=0) - table) / 2

    assert_allclose(found.stability, np.mean([above(table) == above(centre) for table in means], axis=0))
    assert (found.n_bootstraps, found.n_converged) == (5, converged)
    assert seen == [(done, 5) for done in range(1, 6)]
    assert found.standard_error.index.tolist() == list(cohort.cell_types)
    assert found.standard_error.columns.tolist() == list(cohort.gene_names)


def test_table_in_long_form(cohort, model):
    found = bootstrap_reliability(model, cohort.bulk, n_bootstraps=3, random_state=0)
    row = found.to_frame().set_index(["cell_type", "gene"]).loc[("celltype2", "gene7")]
    for name in ("mean", "standard_error", "stability"):
        assert row[name] == getattr(found, name).loc["celltype2", "gene7"]


@pytest.mark.slow
def test_same_numbers_for_any_number_of_jobs_and_arrays(cohort, model):
    one = bootstrap_reliability(model, cohort.bulk, n_bootstraps=4, random_state=0)
    two = bootstrap_reliability(model, cohort.bulk, n_bootstraps=4, random_state=0, n_jobs=2)
    assert_allclose(two.standard_error, one.standard_error, rtol=1e-12)
    plain = L2MaxDeconvolver(cohort.reference.to_numpy(), renorm_size=None).fit(cohort.bulk.to_numpy())
    arrays = bootstrap_reliability(plain, cohort.bulk.to_numpy(), n_bootstraps=4, random_state=0)
    assert_allclose(arrays.standard_error, one.standard_error, rtol=1e-12)


def test_reestimated_proportions_are_those_of_the_rows(cohort, model, monkeypatch):
    kept = bootstrap_reliability(model, cohort.bulk, n_bootstraps=3, random_state=0)
    calls = []
    original = ProportionEstimator._answer
    monkeypatch.setattr(
        ProportionEstimator,
        "_answer",
        lambda self, *args, **more: calls.append(1) or original(self, *args, **more),
    )
    anew = bootstrap_reliability(
        model, cohort.bulk, n_bootstraps=3, random_state=0, reestimate_proportions=True
    )
    assert len(calls) == 3
    assert_allclose(anew.standard_error, kept.standard_error, rtol=1e-6)
    bootstrap_reliability(model, cohort.bulk, n_bootstraps=3, random_state=0)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "estimator",
    [
        L2MaxDeconvolver(n_components=3, renorm_size="auto"),
        TraceNormDeconvolver(beta="auto", max_iter=30, normalize="frac"),
        L2MaxDeconvolverCV(alphas=[0.1], betas=[50], random_state=0, n_components=3),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_what_a_model_found_is_kept(estimator, cohort):
    model = estimator.fit(cohort.bulk)
    params = _with_found_parameters(model).get_params()
    assert "auto" not in {params[name] for name in FOUND if name in params}
    assert_array_equal(params["reference"], model.reference_)
    before = dict(vars(model))
    found = bootstrap_reliability(model, cohort.bulk, n_bootstraps=3, random_state=0)
    assert vars(model).keys() == before.keys()
    assert found.mean.shape == model.reference_.shape
    assert np.all(found.standard_error > 0)


@pytest.mark.slow
def test_standard_errors_are_the_scatter_over_repeated_cohorts():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((3, 50))

    def repeat():
        theta = rng.dirichlet([2, 2, 2], 60)
        cse = reference + rng.standard_normal((60, 3, 50))
        bulk = np.einsum("jk,jkg->jg", theta, cse) + 0.5 * rng.standard_normal((60, 50))
        return L2MaxDeconvolver(reference, renorm_size=None, beta=10).fit(bulk, proportions=theta), bulk

    scatter = np.std([repeat()[0].cse_.mean(axis=0) for _ in range(100)], axis=0, ddof=1)
    errors = np.mean(
        [
            bootstrap_reliability(*repeat(), n_bootstraps=60, random_state=0).standard_error.to_numpy()
            for _ in range(3)
        ],
        axis=0,
    )
    # per entry, 100 repeats know the scatter to 7 %; over 150 entries to below 1 %
    assert_allclose(np.median(errors / scatter), 1, atol=0.1)
    assert np.percentile(np.abs(np.log(errors / scatter)), 95) < 0.35


def test_stability_is_high_where_types_differ_much():
    cohort = make_cohort(n_samples=40, n_genes=100, n_cell_types=3, changed=0, random_state=0)
    cohort.reference[:, :50] *= 0.02
    bulk = cohort.proportions @ cohort.reference + np.random.default_rng(0).standard_normal((40, 100))
    model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(bulk)
    stability = bootstrap_reliability(model, bulk, n_bootstraps=30, random_state=0).stability.to_numpy()
    assert stability[:, :50].mean() < 0.9 < 0.95 < stability[:, 50:].mean()


def test_bad_bootstraps(cohort, model):
    with pytest.raises(ValueError, match="X has 10 samples, but the model was fitted to 40"):
        bootstrap_reliability(model, cohort.bulk[:10])
    with pytest.raises(ValueError, match="n_bootstraps == 1, must be >= 2"):
        bootstrap_reliability(model, cohort.bulk, n_bootstraps=1)
