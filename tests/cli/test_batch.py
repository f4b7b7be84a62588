"""Batch correction on the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skenigma import ProportionEstimator, io
from skenigma.batch import BulkBatchCorrector, ReferenceBatchCorrector
from skenigma.cli import main

GENES = [f"gene{g}" for g in range(90)]


def per_million(table):
    return table.mul(1e6 / table.sum(axis=1), axis=0)


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    levels = rng.lognormal(1, 1.2, 90) * rng.lognormal(0, 0.9, (2, 90))
    reference = per_million(pd.DataFrame(levels, ["B", "T"], GENES))
    mixed = rng.dirichlet([3, 2], 15) @ reference.to_numpy() * rng.lognormal(0, 0.6, 90)
    counts = pd.DataFrame(rng.poisson(mixed * 0.3), [f"s{j}" for j in range(15)], GENES).astype(float)
    cells = rng.poisson(np.repeat(reference / 2000, 15, axis=0)).astype(float)
    cells[0] += 1  # every gene is there
    return {"reference": reference, "bulk": counts, "cells": cells}


@pytest.fixture
def folder(tables, tmp_path):
    for name in ("reference", "bulk"):
        io.write_table(tables[name].T.rename_axis("gene"), tmp_path / f"{name}.tsv")
    return tmp_path


def corrected(folder, *options, code=0):
    argv = ["batch", "--bulk", f"{folder}/bulk.tsv", "--out", f"{folder}/made", "-q", *map(str, options)]
    assert main(argv) == code
    return folder / "made"


def test_bulk(tables, folder):
    io.write_table(tables["bulk"].iloc[[3, 1], ::-1].T.rename_axis("gene"), folder / "new.tsv")
    options = ["--target", "reference", "--mean-only", "--new", f"{folder}/new.tsv"]
    made = corrected(folder, "--reference", f"{folder}/reference.tsv", *options)
    scaled = per_million(tables["bulk"])
    corrector = BulkBatchCorrector(
        tables["reference"], proportion_estimator=ProportionEstimator(method="auto"), target="reference",
        mean_only=True,
    ).fit(scaled)  # fmt: skip
    expected = corrector.transform(scaled)
    # sums taken in another order
    assert_allclose(io.read_bulk(made / "bulk.tsv"), expected, rtol=1e-6)
    assert_allclose(io.read_bulk(made / "new.tsv"), expected[[3, 1]], rtol=1e-6)
    assert_allclose(pd.read_csv(made / "effect.tsv", sep="\t")["intercept"], corrector.intercept_, rtol=1e-6)
    assert json.loads((made / "run.json").read_text())["result"]["corrected"] == "bulk"
    # the gene by gene factor of the platform is gone, but for the composition that is not known
    before, after = (
        np.abs(np.log2(table.mean() + 1) - np.log2(tables["reference"].mean() + 1)).mean()
        for table in (scaled, io.read_bulk(made / "bulk.tsv"))
    )
    assert after < 0.6 * before


def test_reference_of_cells(tables, folder):
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame({"kind": np.repeat(["B", "T"], 15)}, [f"cell{i}" for i in range(30)])
    cells = anndata.AnnData(tables["cells"], obs, pd.DataFrame(index=GENES))
    cells.write_h5ad(folder / "cells.h5ad")
    made = corrected(folder, "--cells", f"{folder}/cells.h5ad", "--labels", "kind", "--seed", 7)
    scaled = per_million(tables["bulk"])
    corrector = ReferenceBatchCorrector(cells, "kind", normalize=1e6, random_state=7).fit(scaled)
    assert_allclose(io.read_reference(made / "reference.tsv"), corrector.reference_, rtol=1e-6)
    assert_allclose(io.read_bulk(made / "bulk.tsv"), scaled, rtol=1e-9)
    pair = ["--bulk", f"{made}/bulk.tsv", "--reference", f"{made}/reference.tsv"]
    assert main(["deconvolve", *pair, "--out", f"{folder}/run", "-q"]) == 0
    assert main(["batch", "--from", f"{made}/run.json", "--out", f"{folder}/again", "-q"]) == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "give --reference, a table of profiles, or --cells"),
        (["--cells", "c.h5ad"], "--labels is the column"),
        (["--reference", "r.tsv", "--target", "bulk"], "--target bulk would change nothing"),
        (["--cells", "c.h5ad", "--labels", "kind", "--new", "n.tsv"], "--new is for --reference"),
    ],
)
def test_refused(folder, capsys, options, part):
    corrected(folder, *options, code=2)
    assert part in capsys.readouterr().err
