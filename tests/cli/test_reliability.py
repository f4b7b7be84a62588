"""Reliability of genes of a run, on the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skenigma import FactorDeconvolver, ProportionEstimator, io
from skenigma.cli import main
from skenigma.datasets import make_cohort
from skenigma.io._runs import own_files
from skenigma.reliability import bootstrap_reliability, gene_significance
from skenigma.reliability._contribution import contributions


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(24, 60, 3, random_state=0, as_frame=True)


@pytest.fixture(scope="module")
def runs(cohort, tmp_path_factory):
    """A run on centred values, and one on values of at least 0."""
    folder = tmp_path_factory.mktemp("runs")
    tables = {"centred": (cohort.bulk, cohort.reference), "linear": (2**cohort.bulk, 2**cohort.reference)}
    for name, (bulk, reference) in tables.items():
        io.write_table(bulk.T.rename_axis("gene"), folder / f"{name}.tsv")
        io.write_table(reference.T.rename_axis("gene"), folder / f"{name}_reference.tsv")
        paths = ["--bulk", f"{folder / name}.tsv", "--reference", f"{folder / name}_reference.tsv"]
        model = {"centred": "factor", "linear": "bayes"}[name]
        options = [
            "--model",
            model,
            "--total",
            "as-is",
            "--allow-scale",
            "--out",
            str(folder / f"{name}_run"),
        ]
        assert main(["deconvolve", *paths, *options, "-q"]) == 0
    return folder


def judged(run, *options):
    assert main(["reliability", str(run), "-q", *map(str, options)]) == 0


def test_of_linear_values(runs, cohort, tmp_path):
    judged(runs / "linear_run", "--out", tmp_path / "found")
    run = io.read_run(runs / "linear_run")
    shares = run.table("proportions.tsv")
    expected = gene_significance(2**cohort.bulk, shares)
    found = pd.read_csv(tmp_path / "found" / "genes.tsv", sep="\t")
    # digits of files, and of sums taken in another order
    assert_allclose(found["p_value"], expected["p_value"], rtol=1e-6)
    assert found["significant"].tolist() == expected["significant"].tolist()
    reference = 2 ** cohort.reference.to_numpy()
    assert_allclose(found["contribution"], contributions(shares.to_numpy(), reference).ravel(), rtol=1e-9)
    assert_allclose(found["reliability"], run.table("reliability.tsv").T.to_numpy().ravel(), rtol=1e-12)
    record = json.loads((tmp_path / "found" / "run.json").read_text())
    assert record["result"]["significant"]["celltype1"] == expected[:60]["significant"].sum()


@pytest.mark.slow
def test_bootstrap_in_the_folder_of_the_run(runs, cohort, capsys):
    judged(runs / "centred_run", "--bootstrap", 3, "--seed", 5)
    found = pd.read_csv(runs / "centred_run" / "reliability" / "genes.tsv", sep="\t")
    assert "contribution" not in found  # which centred profiles do not have
    model = FactorDeconvolver(cohort.reference, proportion_estimator=ProportionEstimator(method="auto"))
    expected = bootstrap_reliability(
        model.fit(cohort.bulk), cohort.bulk, n_bootstraps=3, random_state=5
    ).to_frame()
    # fits end when they have converged to about this
    for name in ("mean", "standard_error"):
        assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-3)
    again = ["--from", str(runs / "centred_run" / "reliability" / "run.json"), "--out", str(runs / "again")]
    assert main(["reliability", *again]) == 0
    assert "same bytes" in capsys.readouterr().err
    # what it left in the folder of the run does not stand in the way of what may be replaced
    assert np.isfinite(found["stability"]).all()
    assert len(own_files(runs / "centred_run")) > 8


def test_refused(runs, capsys):
    assert main(["reliability", str(runs / "linear_run"), "--bootstrap", "1"]) == 2
    assert "at least 2" in capsys.readouterr().err
    moved = ["--bulk", str(runs / "centred.tsv")]
    assert main(["reliability", str(runs / "linear_run"), *moved]) == 1
    assert "is not the bulk of the run" in capsys.readouterr().err
