"""Command line on Zarr stores: expression that outlives the end of a run, and bulks that are stores."""

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import skenigma
from skenigma import io
from skenigma._stored import Deconvolved
from skenigma.anndata import cse_to_anndata
from skenigma.cli import _job, _memory, main
from skenigma.datasets import make_cohort
from skenigma.io import _stores

anndata = pytest.importorskip("anndata")
pytest.importorskip("zarr")

N_SAMPLES, N_GENES, CELL_TYPES = 12, 60, ["B", "T/NK"]
# two samples in a block
BLOCK = 8 * 2 * N_GENES * len(CELL_TYPES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the files of a cohort."""
    folder = tmp_path_factory.mktemp("data")
    cohort = make_cohort(N_SAMPLES, N_GENES, len(CELL_TYPES), random_state=0, as_frame=True)
    cohort.reference.index = CELL_TYPES
    io.write_table(cohort.bulk.T.rename_axis("gene"), folder / "bulk.tsv")
    io.write_table(cohort.reference.T.rename_axis("gene"), folder / "reference.tsv")
    groups = pd.DataFrame({"group": ["a", "b"] * 6}, cohort.bulk.index).rename_axis("sample")
    io.write_table(groups, folder / "groups.tsv")
    return folder


@pytest.fixture
def deconvolve(data, tmp_path, monkeypatch):
    monkeypatch.setattr(_memory, "WRITTEN", BLOCK)
    return ["deconvolve", *inputs(data), "--format", "zarr", "--out", str(tmp_path / "run")]


def inputs(data, bulk="bulk.tsv"):
    return ["--bulk", str(data / bulk), "--reference", str(data / "reference.tsv"), "--model", "factor"]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a run with a store; nothing changes it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["deconvolve", *inputs(data), "--format", "zarr", "--out", str(folder), "-q"]) == 0
    return folder


@pytest.mark.parametrize("kinds", [CELL_TYPES, CELL_TYPES[1:]])
def test_a_store_of_a_run_is_read_as_what_deconvolve_writes(data, finished, tmp_path, kinds):
    folder = finished
    if kinds != CELL_TYPES:
        folder = tmp_path / "run"
        command = ["deconvolve", *inputs(data), "--format", "zarr", "--cell-types", *kinds]
        assert main([*command, "--out", str(folder), "-q"]) == 0
    adata = anndata.read_zarr(folder / "expression.zarr")
    found = Deconvolved.of(adata, "skenigma")
    assert found.model == "FactorDeconvolver"
    assert found.shares_of == "RNA"
    assert list(found.proportions) == kinds
    assert_array_equal(found.bulk, adata.X)
    assert found.has_reference == (kinds == CELL_TYPES)
    if found.has_reference:
        expected = pd.read_csv(data / "reference.tsv", sep="\t", index_col=0)[kinds].T
        # the file has all digits of the values
        assert_allclose(found.reference[expected.columns], expected, rtol=1e-12)
    rows = cse_to_anndata(adata)
    assert rows.uns["skenigma"]["model"] == "FactorDeconvolver"
    assert_array_equal(rows.X[:: len(kinds)], adata.layers["cse_" + kinds[0].replace("/", "|")])


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def failing(monkeypatch):
    """A dict of what is raised at the block that begins with a sample."""
    fails, written, original = {}, [], _stores._written

    def watched(arrays, rows, blocks):
        if rows.start in fails:
            raise fails[rows.start]
        written.append(rows.start)
        return original(arrays, rows, blocks)

    monkeypatch.setattr(_stores, "_written", watched)
    fails["written"] = written
    return fails


class TestRun:
    def test_the_store_is_the_expression_of_the_run(self, data, finished, tmp_path):
        assert (
            main(["deconvolve", *inputs(data), "--format", "h5ad", "--out", str(tmp_path / "h5ad"), "-q"])
            == 0
        )
        one, other = io.read_run(finished), io.read_run(tmp_path / "h5ad")
        for kind in ("expression", "expression_std"):
            stored, expected = one.expression(kind), other.expression(kind)
            assert list(stored) == list(expected) == CELL_TYPES
            for name in CELL_TYPES:
                pd.testing.assert_frame_equal(stored[name], expected[name], check_index_type=False)
        assert one.genes() == other.genes()
        adata = anndata.read_zarr(finished / "expression.zarr")
        assert_array_equal(adata.X, io.read_bulk(data / "bulk.tsv"))
        assert one.record["files"] == {"expression": "expression.zarr", "expression_std": "expression.zarr"}

    @pytest.mark.parametrize("kinds", [CELL_TYPES, CELL_TYPES[1:]])
    def test_cell_types_and_normalised_expression(self, data, tmp_path, kinds):
        options = ["--model", "l2max", "--normalize", "frac", "--cell-types", *kinds, "--max-iter", "5"]
        argv = [
            "deconvolve",
            *inputs(data),
            *options,
            "--format",
            "zarr",
            "--out",
            str(tmp_path / "run"),
            "-q",
        ]
        assert main(argv) == 0
        run = io.read_run(tmp_path / "run")
        assert list(run.expression("expression_normalized")) == kinds
        assert run.expression("expression_std") == {}
        # profiles are on the scale of the bulk, as what is normalised is not
        for name, comparable in (("expression", kinds == CELL_TYPES), ("expression_normalized", False)):
            adata = anndata.read_zarr(tmp_path / "run" / f"{name}.zarr")
            assert ("reference" in adata.varm) == comparable

    @pytest.mark.slow
    def test_a_repeat_has_the_same_bytes(self, finished, tmp_path, capsys):
        assert main(["deconvolve", "--from", str(finished), "--out", str(tmp_path / "again")]) == 0
        assert "same bytes" in capsys.readouterr().err

    def test_a_run_with_a_store_is_replaced_and_one_that_was_changed_is_not(
        self, deconvolve, tmp_path, capsys
    ):
        for options in ([], ["--force"]):
            assert main([*deconvolve, *options, "-q"]) == 0
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        chunk = next((tmp_path / "run" / "expression.zarr" / "layers").rglob("0.0"))
        chunk.write_bytes(chunk.read_bytes()[:-1])
        before = contents(tmp_path)
        assert main([*deconvolve, "--force", "-q"]) == 1
        assert "holds what was changed since a run wrote it" in capsys.readouterr().err
        assert contents(tmp_path) == before

    @pytest.mark.parametrize("command", ["marginal", "report"])
    def test_a_store_that_was_changed_is_not_read(self, deconvolve, data, tmp_path, capsys, command):
        assert main([*deconvolve, "--model", "l2max", "--max-iter", "5", "-q"]) == 0
        next((tmp_path / "run" / "expression.zarr" / "layers").rglob("0.0")).unlink()
        run = str(tmp_path / "run")
        argv = ["differential", run, "--phenotype", str(data / "groups.tsv"), "--method", "marginal"]
        assert main([*argv, "-q"] if command == "marginal" else ["report", run, "-q"]) == 1
        assert "expression.zarr was changed since the run wrote it" in capsys.readouterr().err

    def test_commands_read_it(self, deconvolve, data, tmp_path):
        assert main([*deconvolve, "--model", "l2max", "--max-iter", "5", "-q"]) == 0
        run = str(tmp_path / "run")
        argv = ["differential", run, "--phenotype", str(data / "groups.tsv"), "--method", "marginal", "-q"]
        assert main(argv) == 0
        assert main(["report", run, "-q"]) == 0
        new = ["transform", run, "--bulk", str(data / "bulk.tsv"), "--format", "zarr", "--out"]
        assert main([*new, str(tmp_path / "new"), "-q"]) == 0
        one, other = (io.read_run(tmp_path / name).expression()["B"] for name in ("run", "new"))
        # the same rows by replay: rounding of the solver
        assert_allclose(other, one, rtol=1e-9, atol=1e-10)


class TestEnded:
    def test_a_full_disk_keeps_blocks_and_the_same_command_goes_on(
        self, deconvolve, tmp_path, capsys, failing
    ):
        failing[6] = OSError(errno.ENOSPC, "No space left on device")
        assert main([*deconvolve, "-q"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        folder = tmp_path / "run.expression.zarr.unfinished"
        assert line == (
            f"skenigma: error: the disk is full: 3 of 6 blocks are complete, and kept in {folder}. Make room, and "
            f"repeat the command, which continues from there."
        )
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        del failing[6], failing["written"][:]
        assert main([*deconvolve, "-q"]) == 0
        assert failing["written"] == [6, 8, 10]
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_what_is_whole_is_kept_when_the_record_cannot_be_written(
        self, deconvolve, tmp_path, monkeypatch, failing
    ):
        def refuse(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as context:
            context.setattr(_job, "write_record", refuse)
            assert main([*deconvolve, "-q"]) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["run.expression.zarr"]
        failing["written"].clear()
        assert main([*deconvolve, "-q"]) == 0
        assert failing["written"] == []
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_an_interrupted_run_says_what_it_keeps(self, deconvolve, tmp_path, capsys, failing):
        failing[2] = KeyboardInterrupt()
        assert main([*deconvolve, "-q"]) == 130
        assert "interrupted: 1 of 6 blocks of the expression are kept in" in capsys.readouterr().err

    def test_another_run_does_not_go_on_with_it(self, deconvolve, tmp_path, capsys, failing):
        failing[2] = KeyboardInterrupt()
        assert main([*deconvolve, "-q"]) == 130
        del failing[2]
        capsys.readouterr()
        changed = [*deconvolve, "--max-iter", "3", "-q"]
        assert main(changed) == 1
        assert "unfinished holds another result, of which 1 of 6 blocks" in (err := capsys.readouterr().err)
        assert "replace it with --force" in err
        assert main([*changed, "--force"]) == 0
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_a_missing_package_is_found_before_the_fit(self, deconvolve, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "zarr", None)
        assert main([*deconvolve, "-q"]) == 1
        assert "needs zarr: pip install 'skenigma[zarr]'" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
    def test_a_killed_run_is_gone_on_with(self, deconvolve, data, finished, tmp_path):
        script = (
            "import sys, time; from skenigma.cli import _job, _memory, main; from skenigma.io import _stores\n"
            f"_memory.WRITTEN, written = {BLOCK}, _stores._written\n"
            "def slow(arrays, rows, blocks):\n"
            "    print(rows.start, flush=True); time.sleep(float(sys.argv[1]))\n"
            "    return written(arrays, rows, blocks)\n"
            "_stores._written = slow\n"
            "sys.exit(main(sys.argv[2:]))"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(skenigma.__file__).parents[1])}

        def start(pause):
            command = [sys.executable, "-c", script, str(pause), *deconvolve, "-q"]
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

        process = start(0.1)
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert lines == ["0\n", "2\n", "4\n", "6\n"]
        out, _ = (process := start(0)).communicate()
        assert process.returncode == 0
        assert out in ("6\n8\n10\n", "8\n10\n")
        one, other = (io.read_run(folder).expression()["B"] for folder in (tmp_path / "run", finished))
        # blocks of two samples against one block
        assert_allclose(one, other, rtol=1e-12, atol=1e-14)


class TestBulk:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def stores(cls, data):
        bulk = io.read_bulk(data / "bulk.tsv")
        adata = anndata.AnnData(bulk)
        adata.write_h5ad(data / "bulk.h5ad")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the format that AnnData will write
            adata.write_zarr(data / "bulk.zarr")

    def test_a_store_is_read(self, data):
        pd.testing.assert_frame_equal(io.read_bulk(data / "bulk.zarr"), io.read_bulk(data / "bulk.h5ad"))
        assert io.read_cells(data / "bulk.zarr").shape == (N_SAMPLES, N_GENES)

    def test_a_run_on_a_store_and_its_repeat(self, data, tmp_path):
        out = ["--out", str(tmp_path / "run"), "-q"]
        assert main(["proportions", *inputs(data, "bulk.zarr")[:4], *out]) == 0
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record["inputs"]["bulk"]["path"] == str(data / "bulk.zarr")
        assert (
            main(["proportions", "--from", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "-q"])
            == 0
        )

    def test_a_damaged_store_is_refused(self, data, tmp_path):
        (tmp_path / "b.zarr").mkdir()
        for path in ("b.zarr/.zgroup", "b.zarr/.zattrs"):
            (tmp_path / path).write_bytes((data / path.replace("b.", "bulk.")).read_bytes())
        with pytest.raises(ValueError, match=r"b\.zarr cannot be read as AnnData"):
            io.read_bulk(tmp_path / "b.zarr")

    def test_an_unfinished_store_is_refused(self, deconvolve, data, tmp_path, failing):
        failing[2] = KeyboardInterrupt()
        assert main([*deconvolve, "-q"]) == 130
        with pytest.raises(ValueError, match=r"not complete: 1 of 6 blocks are written in .*unfinished"):
            io.read_bulk(tmp_path / "run.expression.zarr")


@pytest.mark.slow
def test_nothing_imports_zarr_without_a_store(data, tmp_path):
    script = (
        "import sys; from skenigma.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'zarr', 'dask'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(skenigma.__file__).parents[1])}
    argv = ["proportions", *inputs(data)[:4], "--out", str(tmp_path / "run"), "-q"]
    subprocess.run([sys.executable, "-c", script, *argv], check=True, env=environment)


def test_blocks_are_counted_on_a_terminal_only(capsys, monkeypatch):
    from skenigma.cli._console import Console

    with Console().counted_blocks() as progress:
        assert progress is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Console(quiet=True).counted_blocks() as progress:
        assert progress is None
    with Console().counted_blocks() as progress:
        progress(1, 12)
    assert "  block 1 of 12 written" in capsys.readouterr().err
    assert np.isfinite(progress.start)


def test_a_test_on_more_expression_than_fits_is_refused(data, tmp_path, capsys, monkeypatch):
    options = [
        "--model",
        "l2max",
        "--max-iter",
        "5",
        "--format",
        "zarr",
        "--out",
        str(tmp_path / "run"),
        "-q",
    ]
    assert main(["deconvolve", *inputs(data), *options]) == 0
    monkeypatch.setattr("skenigma.checks.memory.SMALL", 0)
    monkeypatch.setattr("skenigma.checks.memory.available_memory", lambda: 2**14)
    argv = [
        "differential",
        str(tmp_path / "run"),
        "--phenotype",
        str(data / "groups.tsv"),
        "--method",
        "marginal",
    ]
    assert main([*argv, "-q"]) == 1
    err = capsys.readouterr().err
    assert "A test on the expression of 12 samples, 2 cell types and 60 genes needs 22.5 kB" in err
    assert "--method interaction" in err
