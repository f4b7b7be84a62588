"""New samples through an earlier run."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skenigma import io
from skenigma.cli import main

GENES = [f"gene{g}" for g in range(70)]


def write(table, path):
    io.write_table(table.T.rename_axis("gene"), path)


def run(*argv, code=0):
    assert main([*map(str, argv), "-q"]) == code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort of counts, one of centred values, and runs of both."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    levels = rng.lognormal(4, 1.6, 70) * rng.lognormal(0, 0.9, (3, 70))
    reference = pd.DataFrame(levels / levels.sum(axis=1, keepdims=True) * 1e6, ["B", "T", "NK"], GENES)
    mixed = rng.dirichlet([3, 2, 1], 14) @ reference.to_numpy() * rng.lognormal(0, 0.2, (14, 70))
    samples = [f"s{j}" for j in range(14)]
    bulk = pd.DataFrame(rng.poisson(mixed * np.geomspace(0.1, 0.9, 14)[:, None]), samples, GENES).astype(
        float
    )
    centre = np.log2(reference + 1).mean()
    write(reference, folder / "reference.tsv")
    write(bulk, folder / "bulk.tsv")
    write(np.log2(reference + 1) - centre, folder / "centred_reference.tsv")
    write(np.log2(pd.DataFrame(mixed, samples, GENES) + 1) - centre, folder / "centred.tsv")
    lengths = pd.DataFrame({"length": rng.integers(300, 9000, 70)}, pd.Index(GENES, name="gene"))
    io.write_table(lengths, folder / "lengths.tsv")
    # the same three samples, genes in another order, some of their own
    new = bulk.iloc[[3, 0, 8], ::-1].assign(own1=5.0, own2=0.0)
    write(new, folder / "new.tsv")
    write(io.read_bulk(folder / "centred.tsv").iloc[[3, 0, 8]], folder / "centred_new.tsv")
    return folder


def fitted(folder, tmp_path, *options, bulk="bulk", reference="reference", command="deconvolve"):
    paths = ["--bulk", folder / f"{bulk}.tsv", "--reference", folder / f"{reference}.tsv"]
    run(command, *paths, *options, "--out", tmp_path / "run")
    return tmp_path / "run"


def same_as_in_the_run(of_run, of_new, *names):
    """Rows of the cohort, mapped as new samples, are what the fit wrote: each on its own."""
    one, two = io.read_run(of_run), io.read_run(of_new)
    samples = ["s3", "s0", "s8"]
    for kind in names:
        expected = one.expression(kind)
        for cell_type, frame in two.expression(kind).items():
            assert list(frame.index) == samples
            # fit and transform sum in another order
            assert_allclose(frame, expected[cell_type].loc[samples, frame.columns], rtol=1e-6, atol=1e-6)
    for table in ("proportions.tsv", "proportions_std.tsv"):
        if one.table(table) is not None:
            assert_allclose(two.table(table), one.table(table).loc[samples], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
class TestExpression:
    def test_counts(self, folder, made, tmp_path):
        run("transform", made, "--bulk", folder / "new.tsv", "--out", tmp_path / "new")
        same_as_in_the_run(made, tmp_path / "new", "expression", "expression_std")
        record = json.loads((tmp_path / "new" / "run.json").read_text())
        assert record["understood"]["one_scale"]["total"] == 1e6
        assert record["result"]["model"] == "EmpiricalBayesDeconvolver"
        assert record["result"]["level"]["median"] == pytest.approx(1, abs=0.2)
        assert set(record["inputs"]) == {"run", "bulk", "fitted_bulk", "reference"}
        assert not [said for said in record["warnings"] if "poorly described as mixtures" not in said]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "options",
        [
            ["--model", "l2max", "--normalize", "frac", "--renorm-size", "none", "--max-iter", "5"],
            ["--model", "factor"],
        ],
        ids=["l2max", "factor"],
    )
    def test_other_models(self, folder, tmp_path, options):
        made = fitted(folder, tmp_path, *options, bulk="centred", reference="centred_reference")
        run("transform", made, "--bulk", folder / "centred_new.tsv", "--out", tmp_path / "new")
        kinds = list(json.loads((made / "run.json").read_text())["files"])
        assert kinds[1:] == ["expression_normalized" if "l2max" in options else "expression_std"]
        same_as_in_the_run(made, tmp_path / "new", *kinds)

    def test_all_that_a_fit_may_be_told(self, folder, tmp_path):
        given = pd.DataFrame({"gene": GENES[:40]}, pd.Index(["B"] * 40, name="cell_type"))
        io.write_table(given, tmp_path / "markers.tsv")
        options = [
            "--markers",
            tmp_path / "markers.tsv",
            "--gene-lengths",
            folder / "lengths.tsv",
            "--float32",
        ]
        made = fitted(folder, tmp_path, *options, "--cell-types", "T", "B")
        form = ["--cell-types", "T", "--format", "csv"]
        run("transform", made, "--bulk", folder / "new.tsv", *form, "--out", tmp_path / "new")
        expected = io.read_run(made).expression()["T"].loc[["s3", "s0", "s8"]]
        found = io.read_run(tmp_path / "new").expression()
        assert list(found) == ["T"]
        assert_allclose(found["T"], expected[found["T"].columns], rtol=1e-4)

    def test_known_proportions(self, folder, made, tmp_path):
        known = pd.DataFrame(1 / 3, pd.Index(["s0", "s3", "s8"], name="sample"), ["NK", "B", "T"])
        io.write_table(known, tmp_path / "known.tsv")
        options = ["--proportions", tmp_path / "known.tsv"]
        run("transform", made, "--bulk", folder / "new.tsv", *options, "--out", tmp_path / "new")
        found = io.read_run(tmp_path / "new").table("proportions.tsv")
        assert list(found.columns) == ["B", "T", "NK"]
        assert_allclose(found, 1 / 3)
        assert io.read_run(tmp_path / "new").table("proportions_std.tsv") is None


class TestProportions:
    @pytest.mark.parametrize("method", ["log", "nnls"])
    def test_of_new_samples(self, folder, tmp_path, method):
        made = fitted(folder, tmp_path, "--method", method, command="proportions")
        run("transform", made, "--bulk", folder / "new.tsv", "--out", tmp_path / "new")
        same_as_in_the_run(made, tmp_path / "new")
        assert (tmp_path / "new" / "proportions_std.tsv").exists() == (method == "log")


class TestRepeat:
    def test_same_bytes(self, folder, made, tmp_path, capsys):
        run("transform", made, "--bulk", folder / "new.tsv", "--out", tmp_path / "new")
        again = ["--from", str(tmp_path / "new" / "run.json"), "--out", str(tmp_path / "again")]
        assert main(["transform", *again]) == 0
        assert "same bytes" in capsys.readouterr().err

    def test_another_model_is_told(self, folder, tmp_path, capsys):
        made = fitted(folder, tmp_path)
        # as if another version had written the run
        table = made / "proportions.tsv"
        record = json.loads((made / "run.json").read_text())
        table.write_text(table.read_text().replace("\t0.", "\t0.1", 1))
        record["outputs"]["proportions.tsv"]["sha256"] = io.file_checksum(table)
        (made / "run.json").write_text(json.dumps(record))
        run("transform", made, "--bulk", folder / "new.tsv", "--out", tmp_path / "new")
        assert "so this is not the same model" in capsys.readouterr().err


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    return fitted(folder, tmp_path_factory.mktemp("made"))


class TestRefused:
    def refused(self, capsys, *argv, code=1):
        assert main(["transform", *map(str, argv)]) == code
        return capsys.readouterr().err.splitlines()[-1]

    def test_missing_genes(self, made, folder, tmp_path, capsys):
        write(io.read_bulk(folder / "new.tsv").drop(columns=["gene3", "gene5"]), tmp_path / "few.tsv")
        said = self.refused(capsys, made, "--bulk", tmp_path / "few.tsv", "--out", tmp_path / "x")
        assert "lacks 2 of the 70 genes of the run: 'gene3', 'gene5'" in said
        assert not (tmp_path / "x").exists()

    def test_centred_values(self, made, folder, tmp_path, capsys):
        write(io.read_bulk(folder / "centred_new.tsv"), tmp_path / "centred.tsv")
        said = self.refused(capsys, made, "--bulk", tmp_path / "centred.tsv", "--out", tmp_path / "x")
        assert "Nothing was computed" in said

    def test_changed_bulk_of_the_run(self, made, folder, tmp_path, capsys):
        moved = ["--fitted-bulk", folder / "new.tsv"]
        said = self.refused(capsys, made, "--bulk", folder / "new.tsv", *moved, "--out", tmp_path / "x")
        assert "is not the bulk of the run" in said

    def test_another_command(self, made, folder, tmp_path, capsys):
        run("simulate", "--samples", "6", "--genes", "30", "--out", tmp_path / "cohort")
        said = self.refused(
            capsys, tmp_path / "cohort", "--bulk", folder / "new.tsv", "--out", tmp_path / "x", code=2
        )
        assert "run of 'simulate': give one of 'deconvolve' or 'proportions'" in said

    def test_model_is_that_of_the_run(self, made, folder, tmp_path, capsys):
        said = self.refused(
            capsys, made, "--bulk", folder / "new.tsv", "--model", "l2max", "--out", tmp_path / "x", code=2
        )
        assert "--model is for models of your own" in said
