"""What the command line decides by the data: total of counts, TPM, the model; and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skenigma import EmpiricalBayesDeconvolver, ProportionEstimator, io
from skenigma.cli import main
from skenigma.cli._parameters import only_model
from skenigma.differential import log_fold_change_test

GENES = [f"gene{g}" for g in range(80)]


@pytest.fixture(scope="module")
def tables():
    """Counts of a bulk, profiles per million, and the lengths of genes."""
    rng = np.random.default_rng(0)
    levels = rng.lognormal(0, 1.8, 80) * rng.lognormal(0, 1, (3, 80))
    profiles = pd.DataFrame(levels / levels.sum(axis=1, keepdims=True) * 1e6, ["B", "T", "NK"], GENES)
    mixed = rng.dirichlet([3, 2, 1], 12) @ profiles.to_numpy() * rng.lognormal(0, 0.2, (12, 80))
    counts = rng.poisson(mixed * np.geomspace(0.1, 0.5, 12)[:, None]).astype(float)
    lengths = pd.DataFrame({"chromosome": 1, "Length": rng.integers(300, 9000, 80)}, GENES)
    return {
        "counts": pd.DataFrame(counts, [f"s{j}" for j in range(12)], GENES),
        "reference": profiles,
        "lengths": lengths,
    }


@pytest.fixture(scope="module")
def folder(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    variants = {
        "counts": tables["counts"],
        "reference": tables["reference"],
        "cpm": per_million(tables["counts"]),
        "log": np.log2(per_million(tables["counts"]) + 1),
        "log_reference": np.log2(tables["reference"] + 1),
    }
    for name, table in variants.items():
        io.write_table(table.T.rename_axis("gene"), folder / f"{name}.tsv")
    io.write_table(tables["lengths"].rename_axis("gene"), folder / "lengths.tsv")
    return folder


@pytest.fixture
def run(folder, tmp_path, capsys):
    """Run ``deconvolve`` on two tables of the folder; returns its record and what it said."""

    def run(bulk, *options, reference="reference", command="deconvolve", code=0):
        paths = ["--bulk", f"{folder / bulk}.tsv", "--reference", f"{folder / reference}.tsv"]
        assert main([command, *paths, "--out", str(tmp_path / "run"), "--force", *options]) == code
        written = tmp_path / "run" / "run.json"
        return json.loads(written.read_text()) if written.exists() else None, capsys.readouterr().err

    return run


def per_million(counts):
    return counts.mul(1e6 / counts.sum(axis=1), axis=0)


def mixture(folder):
    """The written expression, mixed by the written proportions."""
    run = io.read_run(folder)
    shares = run.table("proportions.tsv")
    return sum(frame.mul(shares[kind], axis=0) for kind, frame in run.expression().items())


class TestTotal:
    def test_counts_come_to_a_million(self, run, tables, tmp_path):
        record, said = run("counts")
        assert record["options"]["total"] == 1e6
        reason = record["understood"]["one_scale"]["reason"]
        assert reason == "the bulk holds whole numbers, counts"
        assert f"scale  bulk and reference to a total of 1,000,000 over the shared genes: {reason}" in said
        model = EmpiricalBayesDeconvolver(
            tables["reference"], proportion_estimator=ProportionEstimator(method="auto")
        ).fit(per_million(tables["counts"]))
        found = io.read_run(tmp_path / "run").expression()
        for k, frame in enumerate(found.values()):
            # sums taken in another order
            assert_allclose(frame, model.cse_[:, k], rtol=1e-6)

    def test_counts_and_counts_per_million_are_one(self, run, tmp_path):
        run("counts")
        counted = mixture(tmp_path / "run")
        record, said = run("cpm")
        assert record["options"]["total"] == "as-is"
        assert "scale  as they are: both are on one scale" in " ".join(said.split("\n"))
        assert_allclose(mixture(tmp_path / "run"), counted, rtol=1e-6)

    def test_as_asked(self, run, tables, tmp_path):
        record, _ = run("counts", "--total", "5e4")
        assert record["options"]["total"] == 5e4
        level = mixture(tmp_path / "run").sum(axis=1) / 5e4
        assert level.between(0.8, 1.25).all()
        record, _ = run("cpm", "--total", "as-is")
        assert record["understood"]["one_scale"] == {"total": None, "reason": "as asked for"}

    def test_proportions_say_so_too(self, run):
        record, _ = run("counts", command="proportions")
        assert record["options"]["total"] == 1e6

    def test_repeat_has_the_same_bytes(self, run, tmp_path, capsys):
        run("counts")
        again = ["--from", str(tmp_path / "run" / "run.json"), "--out", str(tmp_path / "again")]
        assert main(["deconvolve", *again]) == 0
        assert "same bytes" in capsys.readouterr().err


class TestLengths:
    @pytest.mark.parametrize("form", ["table", "h5ad"])
    def test_tpm(self, run, tables, folder, tmp_path, form):
        path = folder / "lengths.tsv"
        if form == "h5ad":
            anndata = pytest.importorskip("anndata")
            path = tmp_path / "bulk.h5ad"
            anndata.AnnData(tables["counts"], var=tables["lengths"]).write_h5ad(path)
        record, said = run("counts", "--gene-lengths", str(path), "--model", "bayes")
        assert "TPM, by the lengths of genes" in said
        assert record["inputs"]["gene_lengths"]["sha256"] == io.file_checksum(path)
        tpm = per_million(tables["counts"] / tables["lengths"]["Length"])
        model = EmpiricalBayesDeconvolver(tables["reference"]).fit(tpm)
        found = io.read_run(tmp_path / "run").expression()
        for k, frame in enumerate(found.values()):
            # sums taken in another order
            assert_allclose(frame, model.cse_[:, k], rtol=1e-6)

    def test_column_is_asked_for(self, run, folder, tmp_path):
        _, said = run("counts", "--gene-lengths", f"{folder}/reference.tsv", code=1)
        assert "has the columns 'B', 'T', 'NK': say which one" in said
        options = ["--gene-lengths", f"{folder}/lengths.tsv", "--length-column", "bp"]
        _, said = run("counts", *options, code=1)
        assert "has no column 'bp'; it has 'chromosome', 'Length'" in said


class TestRefused:
    @pytest.mark.parametrize(
        ("bulk", "reference", "part"),
        [
            ("log", "reference", "must be on the same scale"),
            ("cpm", "log_reference", "must be on the same scale"),
            ("log", "log_reference", "seem to be logarithms"),
        ],
    )
    @pytest.mark.parametrize("command", ["deconvolve", "proportions"])
    def test_before_anything_is_computed(self, run, monkeypatch, bulk, reference, part, command):
        monkeypatch.setattr(ProportionEstimator, "fit", None)  # which would fail otherwise
        record, said = run(bulk, reference=reference, command=command, code=1)
        assert record is None
        last = said.splitlines()[-1]
        assert part in last
        assert "--allow-scale insists" in last

    def test_unless_it_is_allowed(self, run):
        record, said = run("log", "--allow-scale", "--proportion-method", "nnls", reference="log_reference")
        assert record["options"]["model"] == "factor"
        assert "as logarithms are" in said
        assert record["options"]["total"] == "as-is"


class TestLevel:
    def test_last_line(self, run):
        record, said = run("cpm")
        level = record["result"]["level"]
        assert level["lowest"] <= level["median"] <= level["highest"]
        assert 0.8 < level["median"] < 1.25
        last = said.splitlines()[-1]
        assert f"; level {level['median']:.3g}: mixed by the proportions, the expression is" in last
        assert last.endswith("(median)")

    def test_collapse(self, run):
        # the published settings are those of values whose gradients have a norm near 200, which these have not
        record, said = run("cpm", "--model", "l2max", "--max-iter", "30")
        assert record["result"]["level"]["median"] < 0.5
        assert "which must not be used as it is: see the warning" in said.splitlines()[-1]
        assert any("level" in warning.lower() for warning in record["warnings"])


def test_differential_expression_is_on_the_scale_of_the_run(run, tables, tmp_path, folder):
    groups = pd.DataFrame({"group": ["a", "b"] * 6}, tables["counts"].index)
    io.write_table(groups.rename_axis("sample"), tmp_path / "groups.tsv")
    run("counts", "--gene-lengths", f"{folder}/lengths.tsv")
    assert (
        main(["differential", str(tmp_path / "run"), "--phenotype", str(tmp_path / "groups.tsv"), "-q"]) == 0
    )
    found = pd.read_csv(tmp_path / "run" / "differential" / "differential.tsv", sep="\t")
    tpm = per_million(tables["counts"] / tables["lengths"]["Length"])
    shares = io.read_run(tmp_path / "run").table("proportions.tsv")
    expected = log_fold_change_test(tpm, shares, groups.group, reference=tables["reference"])
    pairs = ["cell_type", "gene"]
    found, expected = found.set_index(pairs), expected.set_index(pairs)
    # digits of sums taken in another order
    assert_allclose(found.p_value, expected.p_value.loc[found.index], rtol=1e-4)


class TestModel:
    def test_linear_values(self, run):
        record, said = run("cpm")
        assert record["options"]["model"] == "bayes"
        assert record["result"]["chosen"] == "because values are linear and not negative"
        assert "EmpiricalBayesDeconvolver, because values are linear" in said
        assert record["options"]["parameters"]["platform"] == "reference"

    def test_named(self, run):
        record, _ = run("cpm", "--model", "tracenorm", "--max-iter", "3", "--preprocess", "log")
        assert record["result"]["chosen"] == "as named"
        assert record["result"]["model"] == "TraceNormDeconvolver"

    def test_reference_of_cells_is_of_another_platform(self, tables, folder, tmp_path, capsys):
        anndata = pytest.importorskip("anndata")
        cells = np.random.default_rng(1).poisson(np.repeat(tables["reference"] / 500, 12, axis=0))
        obs = pd.DataFrame({"kind": np.repeat(["B", "T", "NK"], 12)}, [f"cell{i}" for i in range(36)])
        anndata.AnnData(cells, obs, pd.DataFrame(index=GENES)).write_h5ad(tmp_path / "cells.h5ad")
        argv = ["--cells", str(tmp_path / "cells.h5ad"), "--labels", "kind", "--markers", "9"]
        assert main(["reference", *argv, "--out", str(tmp_path / "ref")]) == 0
        assert "every cell to a total of 1,000,000: counts" in capsys.readouterr().err
        made = io.read_reference(tmp_path / "ref" / "reference.tsv")
        assert_allclose(made.sum(axis=1), 1e6, rtol=1e-9)
        assert len(made.columns) == 80
        files = ["--bulk", f"{folder}/counts.tsv", "--reference", str(tmp_path / "ref" / "reference.tsv")]
        markers = ["--markers", str(tmp_path / "ref" / "markers.tsv")]
        assert main(["deconvolve", *files, *markers, "--out", str(tmp_path / "run")]) == 0
        assert "since the reference was made of cells" in capsys.readouterr().err
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record["options"]["parameters"]["platform"] == "bulk"
        # of all genes, but for the proportions, which are those of the markers
        run = io.read_run(tmp_path / "run")
        assert len(run.genes()) == 80
        chosen = set(pd.read_csv(tmp_path / "ref" / "markers.tsv", sep="\t").gene)
        scaled = per_million(tables["counts"])
        estimator = ProportionEstimator(made[[g for g in GENES if g in chosen]], method="log").fit(scaled)
        assert_allclose(run.table("proportions.tsv"), estimator.proportions_, rtol=1e-6, atol=1e-9)

    def test_record_of_an_older_version_repeats_as_it_was(self, run, tmp_path, capsys):
        options = ["--model", "l2max", "--max-iter", "3", "--total", "as-is", "--renorm-size", "none"]
        run("counts", *options, "--allow-scale")
        path = tmp_path / "run" / "run.json"
        record = json.loads(path.read_text())
        for later in ("model", "total", "allow_scale", "gene_lengths", "length_column", "markers"):
            del record["options"][later]
        path.write_text(json.dumps(record))
        assert main(["deconvolve", "--from", str(path), "--out", str(tmp_path / "again")]) == 0
        assert "same bytes" in capsys.readouterr().err
        repeated = json.loads((tmp_path / "again" / "run.json").read_text())
        assert repeated["options"]["model"] == "l2max"
        assert repeated["options"]["total"] == "as-is"


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ({"renorm_size": "auto"}, "l2max"),
        ({"renorm_size": "auto", "alpha": 0.5}, "l2max"),
        ({"alpha": 0.5}, None),
        ({"platform": "bulk"}, None),
        ({"temperature": 3}, None),
        ({}, None),
    ],
)
def test_an_option_of_one_published_model_names_it(given, model):
    assert only_model(given) == model
