"""The command line: what it writes, says and refuses."""

import errno
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import skenigma
from skenigma import L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver, io
from skenigma.cli import _job, _parameters, help_texts, main
from skenigma.cli._console import Console
from skenigma.cli._understood import understand
from skenigma.datasets import make_cohort
from skenigma.differential import differential_expression
from skenigma.io._engines import available_writer
from skenigma.io._signals import ending_signals
from skenigma.reference import make_reference, select_markers
from skenigma.reference._cells import layer_names

SMALL = {"n_samples": 24, "n_genes": 120, "n_cell_types": 3}
PACKAGES = {"parquet": "pyarrow", "h5ad": "anndata"}
COMMANDS = (
    "reference",
    "batch",
    "proportions",
    "deconvolve",
    "transform",
    "reliability",
    "differential",
    "simulate",
    "report",
)


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(**SMALL, as_frame=True, random_state=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The files of the cohort, as the command line simulates them."""
    folder = tmp_path_factory.mktemp("data") / "cohort"
    options = ["--samples", "24", "--genes", "120", "--cell-types", "3", "--seed", "3", "--quiet"]
    assert main(["simulate", "--out", str(folder), *options]) == 0
    return folder


@pytest.fixture
def arguments(data, tmp_path):
    return [
        "--bulk",
        str(data / "bulk.tsv"),
        "--reference",
        str(data / "reference.tsv"),
        "--out",
        str(tmp_path / "run"),
    ]


@pytest.fixture
def deconvolve(arguments):
    """A run that converges quickly."""
    return ["deconvolve", *arguments, "--model", "l2max", "--renorm-size", "auto"]


@pytest.fixture
def fails(capsys, tmp_path):
    """Run a command that must end in one line on stderr, a code, and no new file."""

    def run(*argv, code=1, parts=()):
        before = sorted(tmp_path.rglob("*"))
        assert main([str(arg) for arg in argv]) == code
        out, err = capsys.readouterr()
        last = err.splitlines()[-1]
        assert "error: " in last
        assert "Traceback" not in err
        assert err.count("error: ") == 1
        assert out == ""
        for part in parts:
            assert part in last
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


def need(form):
    """Skip where the package for a format is not installed."""
    if form in PACKAGES:
        pytest.importorskip(PACKAGES[form])


def record(folder):
    return json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder) if name != "run.json"}


class TestSimulate:
    def test_writes_what_make_cohort_makes(self, data, cohort):
        pd.testing.assert_frame_equal(io.read_bulk(data / "bulk.tsv"), cohort.bulk, check_exact=True)
        pd.testing.assert_frame_equal(
            io.read_reference(data / "reference.tsv"), cohort.reference, check_exact=True
        )
        pd.testing.assert_frame_equal(
            io.read_proportions(data / "proportions.tsv"), cohort.proportions, check_exact=True
        )
        group = io.read_phenotype(data / "phenotype.tsv").group
        assert (group == "case").tolist() == (cohort.phenotype == 1).tolist()
        truth = io.read_run(data).expression()
        assert list(truth) == list(cohort.cell_types)
        np.testing.assert_array_equal(truth["celltype2"], cohort.cse[:, 1])

    def test_seed_is_recorded_and_repeated(self, data, tmp_path):
        assert record(data)["seeds"] == {"random_state": 3}
        assert (
            main(["simulate", "--from", str(data / "run.json"), "--out", str(tmp_path / "again"), "-q"]) == 0
        )
        assert contents(tmp_path / "again") == contents(data)

    @pytest.mark.parametrize("writer", ["polars", "pandas", None])
    def test_a_repeat_has_the_writer_of_the_record(self, data, tmp_path, fails, monkeypatch, writer):
        """None: records of before there was a choice, and pandas wrote."""
        shutil.copytree(data, tmp_path / "run")
        path = tmp_path / "run" / "run.json"
        recorded = record(path.parent)
        assert recorded.pop("writer") == available_writer()
        path.write_text(json.dumps(recorded | ({"writer": writer} if writer else {})))
        monkeypatch.setitem(sys.modules, "polars", None)
        if writer == "polars":
            fails("simulate", "--from", path, "--out", tmp_path / "again", parts=["polars", "skenigma[text]"])
            return
        assert main(["simulate", "--from", str(path), "--out", str(tmp_path / "again"), "-q"]) in (0, 3)
        assert record(tmp_path / "again")["writer"] == "pandas"

    def test_bad_number(self, fails, tmp_path):
        fails("simulate", "--out", tmp_path / "c", "--noise", "-1", parts=["noise"])


class TestReference:
    @pytest.fixture
    def cells(self, tmp_path):
        """An AnnData file: 40 cells of two types, 3 of a third."""
        anndata = pytest.importorskip("anndata")
        rng = np.random.default_rng(0)
        names = [f"gene{g}" for g in range(30)]
        profiles = rng.gamma(1.0, 5.0, (3, 30))
        labels = np.repeat(["B", "T", "NK"], [20, 20, 3])
        counts = rng.poisson(profiles[np.repeat([0, 1, 2], [20, 20, 3])]).astype(float)
        obs = pd.DataFrame({"cell_type": labels}, index=[f"cell{i}" for i in range(len(labels))])
        found = anndata.AnnData(np.log1p(counts), obs, pd.DataFrame(index=names), layers={"counts": counts})
        found.write_h5ad(tmp_path / "cells.h5ad")
        return found

    @pytest.fixture
    def argv(self, cells, tmp_path):
        return [
            "reference",
            *("--cells", str(tmp_path / "cells.h5ad"), "--labels", "cell_type", "--layer", "counts"),
            *("--out", str(tmp_path / "made")),
        ]

    @pytest.mark.filterwarnings("ignore:.*fewer than")
    def test_equals_make_reference(self, cells, argv, tmp_path, capsys):
        assert main([*argv, "--total", "median", "--markers", "4", "--json"]) == 0
        expected = make_reference(cells, "cell_type", layer="counts", normalize="median")
        expected_markers = select_markers(cells, "cell_type", 4, layer="counts", normalize="median")
        found = io.read_reference(tmp_path / "made" / "reference.tsv")
        pd.testing.assert_frame_equal(found, expected, check_exact=True, check_names=False)
        kept = pd.read_csv(tmp_path / "made" / "cell_types.tsv", sep="\t", index_col=0)
        assert kept.n_cells.to_dict() == {"B": 20, "NK": 3, "T": 20}
        assert kept.kept.to_dict() == {"B": True, "NK": False, "T": True}
        markers = pd.read_csv(tmp_path / "made" / "markers.tsv", sep="\t")
        assert markers.gene.tolist() == expected_markers.gene.tolist()
        assert 0 < len(markers) < len(expected.columns)
        out, err = capsys.readouterr()
        summary = json.loads(out)
        assert summary["understood"] == {
            "n_cells": 43,
            "n_genes": len(expected.columns),
            "cell_types": ["B", "T"],
        }
        assert "43 cells; cell types: 2 of 3 kept, 1 left out (fewer than 10 cells)" in err
        assert any("NK" in warning for warning in summary["warnings"])

    @pytest.mark.filterwarnings("ignore:.*fewer than")
    def test_repeat_and_use(self, argv, tmp_path):
        assert main([*argv, "--min-cells", "3", "-q"]) == 0
        made = tmp_path / "made"
        assert (
            main(["reference", "--from", str(made / "run.json"), "--out", str(tmp_path / "again"), "-q"]) == 0
        )
        assert contents(tmp_path / "again") == contents(made)
        profiles = io.read_reference(made / "reference.tsv")
        assert list(profiles.index) == ["B", "NK", "T"]
        theta = pd.DataFrame(np.random.default_rng(1).dirichlet(np.ones(3), 5), [f"s{i}" for i in range(5)])
        bulk = pd.DataFrame(theta.to_numpy() @ profiles.to_numpy(), theta.index, profiles.columns)
        io.write_table(bulk.T.rename_axis("gene"), tmp_path / "bulk.tsv")
        argv = ["--bulk", str(tmp_path / "bulk.tsv"), "--reference", str(made / "reference.tsv")]
        assert main(["proportions", *argv, "--method", "nnls", "--out", str(tmp_path / "p"), "-q"]) == 0
        found = io.read_proportions(tmp_path / "p" / "proportions.tsv")
        np.testing.assert_allclose(found, theta, atol=1e-8)

    @pytest.mark.parametrize(
        ("options", "code", "part"),
        [
            (["--layer", "none"], 1, "none"),
            (["--labels", "kind"], 1, "kind"),
            (["--total", "-1"], 2, "neither a positive number nor one of auto, median, as-is"),
            (["--total", "mean"], 2, "neither a positive number nor one of auto, median, as-is"),
            (["--min-cells", "50"], 1, "50"),
            (["--cells", __file__], 1, "test_main.py"),
        ],
    )
    def test_refused(self, fails, argv, options, code, part):
        fails(*argv, *options, code=code, parts=[part])

    def test_logarithms_are_warned_of(self, argv, capsys):
        assert main([arg for arg in argv if arg not in ("--layer", "counts")]) == 0
        assert "is this the logarithm of expression?" in capsys.readouterr().err


class TestProportions:
    def test_equal_the_estimator_s(self, arguments, tmp_path, cohort):
        assert main(["proportions", *arguments, "--method", "nnls"]) == 0
        found = io.read_proportions(tmp_path / "run" / "proportions.tsv")
        expected = ProportionEstimator(cohort.reference, method="nnls").fit(cohort.bulk)
        np.testing.assert_allclose(found, expected.proportions_, rtol=0, atol=1e-12)  # threads of the BLAS
        assert list(found.index) == list(cohort.bulk.index)
        assert list(found.columns) == list(cohort.reference.index)
        assert files(tmp_path / "run") == ["proportions.tsv", "quality.tsv", "run.json"]

    def test_standard_errors_where_the_method_has_them(self, tmp_path, capsys):
        rng = np.random.default_rng(0)
        genes, kinds = [f"g{g}" for g in range(60)], ["B", "NK", "T"]
        reference = pd.DataFrame(rng.gamma(1, 100, (3, 60)), kinds, genes)
        noise = np.exp(rng.normal(0, 0.2, (8, 60)))
        bulk = pd.DataFrame(rng.dirichlet(np.ones(3), 8) @ reference.to_numpy() * noise, columns=genes)
        bulk.index = [f"s{i}" for i in range(8)]
        argv = []
        for name, frame in (("bulk", bulk), ("reference", reference)):
            io.write_table(frame.T.rename_axis("gene"), tmp_path / f"{name}.tsv")
            argv += [f"--{name}", str(tmp_path / f"{name}.tsv")]
        expected = ProportionEstimator(reference, method="log").fit(bulk)
        for command, options in (("proportions", []), ("deconvolve", ["--model", "bayes"])):
            out = tmp_path / command
            assert main([command, *argv, *options, "--out", str(out)]) == 0
            err = capsys.readouterr().err
            assert any(
                "proportions" in line and "shares of RNA, not of cells" in line for line in err.splitlines()
            )
            run = io.read_run(out)
            assert run.record["result"]["shares_of"] == "RNA"
            std = run.table("proportions_std.tsv")
            # threads of the BLAS
            np.testing.assert_allclose(std, expected.proportions_std_, rtol=1e-6)
            assert list(std.index) == list(bulk.index)
            assert list(std.columns) == kinds
            assert main(["report", str(out), "-q"]) == 0
            page = (out / "report.html").read_text(encoding="utf-8")
            assert "Standard errors of all samples, a lower bound" in page
            assert "Shares of RNA, not of cells" in page
        known = ["--proportions", str(tmp_path / "proportions" / "proportions.tsv")]
        assert main(["deconvolve", *argv, *known, "--out", str(tmp_path / "known")]) == 0
        assert "proportions_std.tsv" not in files(tmp_path / "known")
        assert "shares_of" not in record(tmp_path / "known")["result"]
        assert "shares of" not in capsys.readouterr().err
        anndata = pytest.importorskip("anndata")
        options = ["--model", "bayes", "--format", "h5ad", "--out", str(tmp_path / "h5ad"), "-q"]
        assert main(["deconvolve", *argv, *options]) == 0
        stored = anndata.read_h5ad(tmp_path / "h5ad" / "expression.h5ad").obsm["proportions_std"]
        np.testing.assert_allclose(stored, expected.proportions_std_, rtol=1e-6)

    def test_methods_are_the_estimator_s(self):
        (rule,) = ProportionEstimator._parameter_constraints["method"]
        assert set(_parameters_of("proportions")["--method"].choices) == set(rule.options)


def _parameters_of(command):
    """Options of a command by name."""
    from skenigma.cli._parser import build_parser

    (commands,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    return {name: action for action in commands[command].loaded()._actions for name in action.option_strings}


class TestDeconvolve:
    def test_equals_the_model(self, arguments, tmp_path, cohort):
        assert (
            main(["deconvolve", *arguments, "--model", "l2max", "--alpha", "0.2", "--renorm-size", "auto"])
            == 0
        )
        # the command line computes on one thread, so that a repeat has the same bytes
        model = L2MaxDeconvolver(cohort.reference, alpha=0.2, renorm_size="auto")
        with threadpool_limits(1, user_api="blas"):
            model.fit(cohort.bulk)
        found = io.read_run(tmp_path / "run").expression()
        assert list(found) == list(cohort.cell_types)
        for k, frame in enumerate(found.values()):
            # built one by one, not as a tensor, so that the order of sums differs
            np.testing.assert_allclose(frame, model.cse_[:, k], rtol=0, atol=1e-12)
            assert list(frame.index) == list(cohort.bulk.index)
            assert list(frame.columns) == list(cohort.bulk.columns)
        history = io.read_run(tmp_path / "run").table("history.tsv")
        # what is read lies in memory in another order, and so are sums taken
        equal = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
        equal(history.iloc[:, :3], model.loss_history_)
        equal(history.iloc[:-1, 3:5], model.gradient_norm_)
        assert history.iloc[-1, 3:5].isna().all()
        equal(history.iloc[:, 5:], model.delta_history_)
        assert record(tmp_path / "run")["result"]["resolved"]["renorm_size_"] == pytest.approx(
            model.renorm_size_, rel=1e-12
        )

    def test_tables_are_genes_by_samples(self, deconvolve, tmp_path, cohort):
        main([*deconvolve, "--quiet"])
        header = (tmp_path / "run" / "expression" / "celltype1.tsv").read_text().splitlines()[0]
        assert header.split("\t") == ["gene", *cohort.bulk.index]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("options", "names"),
        [
            (["--format", "csv"], ["celltype1.csv", "celltype2.csv", "celltype3.csv"]),
            (["--gzip"], ["celltype1.tsv.gz", "celltype2.tsv.gz", "celltype3.tsv.gz"]),
            (["--format", "parquet"], ["celltype1.parquet", "celltype2.parquet", "celltype3.parquet"]),
            (["--cell-types", "celltype2"], ["celltype2.tsv"]),
        ],
    )
    def test_formats_and_subsets(self, deconvolve, tmp_path, options, names):
        need(options[-1])
        assert main([*deconvolve, "-q"]) == 0
        plain = io.read_run(tmp_path / "run").expression()
        assert main([*deconvolve, *options, "--force", "-q"]) == 0
        run = io.read_run(tmp_path / "run")
        assert [name for name in files(tmp_path / "run") if "/" in name] == [
            f"expression/{name}" for name in names
        ]
        for kind, frame in run.expression().items():
            pd.testing.assert_frame_equal(frame, plain[kind], check_exact=True)

    def test_anndata(self, deconvolve, tmp_path, cohort):
        anndata = pytest.importorskip("anndata")
        assert main([*deconvolve, "--format", "h5ad", "-q"]) == 0
        adata = anndata.read_h5ad(tmp_path / "run" / "expression.h5ad")
        np.testing.assert_array_equal(adata.X, cohort.bulk)
        assert layer_names(adata) == list(cohort.cell_types)
        assert list(io.read_run(tmp_path / "run").expression()) == list(cohort.cell_types)

    def test_trace_norm_normalised_in_single_precision(self, arguments, tmp_path, cohort):
        options = ["--model", "tracenorm", "--solver", "admm_fast", "--normalize", "frac", "--float32"]
        assert main(["deconvolve", *arguments, *options, "-q"]) == 0
        written = record(tmp_path / "run")
        assert written["result"]["model"] == "TraceNormDeconvolver"
        assert set(written["files"]) == {"expression", "expression_normalized"}
        found = io.read_run(tmp_path / "run").expression("expression_normalized")
        model = TraceNormDeconvolver(
            cohort.reference.astype("f4"),
            solver="admm_fast",
            normalize="frac",
            proportion_estimator=ProportionEstimator(method="auto"),
        )
        with threadpool_limits(1, user_api="blas"):
            model.fit(cohort.bulk.astype("f4"))
        for k, frame in enumerate(found.values()):
            np.testing.assert_array_equal(frame.astype(np.float32), model.cse_normalized_[:, k])

    def test_proportions_by_what_the_data_are(self, deconvolve, arguments, tmp_path, cohort, monkeypatch):
        assert main([*deconvolve, "-q"]) == 0
        written = record(tmp_path / "run")
        assert written["options"]["proportion_method"] == "auto"
        assert written["result"]["proportion_method"] == "rlm"  # the cohort has negative values
        assert main(["proportions", *arguments, "--force", "-q"]) == 0
        written = record(tmp_path / "run")
        assert written["options"]["method"] == "auto"
        assert written["result"]["method"] == "rlm"

    def test_known_proportions(self, deconvolve, data, tmp_path, cohort):
        assert main([*deconvolve, "--proportions", str(data / "proportions.tsv"), "-q"]) == 0
        found = io.read_proportions(tmp_path / "run" / "proportions.tsv")
        pd.testing.assert_frame_equal(found, cohort.proportions, check_exact=True)

    def test_every_parameter_has_an_option_or_a_reason(self):
        elsewhere = {
            "reference",
            "proportion_estimator",
            "verbose",
            "n_components",
            "materialize",
            "output_cell_types",
        }
        # seldom changed, and of one model: by --set, where they are numbers or words
        by_set = {"init", "platform", "hidden_share", "composition", "shared", "measured"}
        by_set |= {"reference_variance", "reference_donors"}
        for model in _parameters.MODELS.values():
            parameters = set(inspect.signature(model).parameters)
            assert parameters - elsewhere - by_set <= set(_parameters.HELP)

    def test_defaults_are_those_of_the_models(self, arguments, tmp_path):
        main(["deconvolve", *arguments, "--model", "l2max", "-q"])
        recorded = record(tmp_path / "run")["options"]["parameters"]
        signature = inspect.signature(L2MaxDeconvolver).parameters
        assert recorded == {name: signature[name].default for name in recorded}

    def test_cell_types_that_differ_in_odd_letters_get_a_file_each(self):
        names = _job.file_names(["T/NK", "T NK", "t nk", "..", "α"], ".tsv")
        assert list(names.values()) == ["T_NK.tsv", "T_NK_2.tsv", "t_nk_3.tsv", "unnamed.tsv", "α.tsv"]


class TestRecord:
    @pytest.mark.slow
    @pytest.mark.parametrize("form", ["tsv", "parquet", "h5ad"])
    @pytest.mark.parametrize("model", ["l2max", "tracenorm"])
    def test_repeat_has_the_same_bytes(self, arguments, tmp_path, capsys, form, model):
        need(form)
        options = ["--format", form, "--model", model, "--max-iter", "40"]
        assert main(["deconvolve", *arguments, *options, *(["--gzip"] if form == "tsv" else [])]) == 0
        assert (
            main(
                ["deconvolve", "--from", str(tmp_path / "run" / "run.json"), "--out", str(tmp_path / "again")]
            )
            == 0
        )
        assert "same bytes" in capsys.readouterr().err
        assert contents(tmp_path / "again") == contents(tmp_path / "run")

    def test_holds_what_a_repeat_needs(self, deconvolve, data, tmp_path):
        main([*deconvolve, "-q"])
        written = record(tmp_path / "run")
        assert written["inputs"]["bulk"] == {
            "path": str(data / "bulk.tsv"),
            "size": (data / "bulk.tsv").stat().st_size,
            "sha256": io.file_checksum(data / "bulk.tsv"),
        }
        assert written["versions"]["skenigma"] == skenigma.__version__
        assert set(written["outputs"]) == set(files(tmp_path / "run")) - {"run.json"}
        assert not {"out", "force", "quiet"} & set(written["options"])

    @pytest.mark.parametrize(("options", "threads"), [([], 1), (["--threads", "2"], 2)])
    def test_number_of_threads_is_fixed(self, deconvolve, tmp_path, monkeypatch, options, threads):
        fit, seen = L2MaxDeconvolver.fit, []

        def watched(*args, **kwargs):
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return fit(*args, **kwargs)

        monkeypatch.setattr(L2MaxDeconvolver, "fit", watched)
        with threadpool_limits(3, user_api="blas"):
            main([*deconvolve, *options, "-q"])
        assert set(seen) == {threads}
        assert record(tmp_path / "run")["options"]["threads"] == threads

    def test_date_can_be_fixed(self, arguments, tmp_path, monkeypatch):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
        main(["proportions", *arguments, "-q"])
        assert record(tmp_path / "run")["date"] == "1970-01-01T00:00:00+00:00"

    def test_repeat_refuses_another_input(self, arguments, data, tmp_path, fails):
        bulk = tmp_path / "bulk.tsv"
        bulk.write_bytes((data / "bulk.tsv").read_bytes())
        main(["deconvolve", "--bulk", str(bulk), *arguments[2:], "-q"])
        bulk.write_bytes((data / "bulk.tsv").read_bytes() + b"\n")
        run = tmp_path / "run" / "run.json"
        fails("deconvolve", "--from", run, "--out", tmp_path / "again", parts=["is not the bulk", "--bulk"])
        moved = ["--bulk", str(data / "bulk.tsv")]
        assert main(["deconvolve", "--from", str(run), "--out", str(tmp_path / "again"), *moved, "-q"]) == 0

    def test_repeat_takes_no_other_parameter(self, deconvolve, tmp_path, fails):
        main([*deconvolve, "-q"])
        run = tmp_path / "run" / "run.json"
        fails(
            "deconvolve", "--from", run, "--out", tmp_path / "b", "--alpha", "0.5", code=2, parts=["--alpha"]
        )
        fails(
            "proportions",
            "--from",
            run,
            "--out",
            tmp_path / "b",
            code=2,
            parts=["skenigma deconvolve --from"],
        )

    def test_repeat_that_differs_says_so(self, deconvolve, tmp_path, capsys):
        main([*deconvolve, "-q"])
        path = tmp_path / "run" / "run.json"
        written = record(path.parent)
        written["outputs"]["proportions.tsv"]["sha256"] = "0" * 64
        written["versions"]["numpy"] = "0.1"
        path.write_text(json.dumps(written))
        assert main(["deconvolve", "--from", str(path), "--out", str(tmp_path / "b"), "-q"]) == 3
        assert "proportions.tsv. numpy 0.1 then" in capsys.readouterr().err
        assert (tmp_path / "b" / "run.json").exists()


class TestDifferential:
    @pytest.fixture
    def run(self, deconvolve, tmp_path):
        assert main([*deconvolve, "-q"]) == 0
        return tmp_path / "run"

    @pytest.mark.parametrize("method", ["interaction", "marginal", "joint"])
    def test_equals_the_test_on_the_model(self, run, data, cohort, method):
        assert (
            main(
                [
                    "differential",
                    str(run),
                    "--phenotype",
                    str(data / "phenotype.tsv"),
                    "--method",
                    method,
                    "-q",
                ]
            )
            == 0
        )
        found = pd.read_csv(
            run / "differential" / "differential.tsv", sep="\t", keep_default_na=False, na_values=[""]
        )
        model = L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk)
        group = cohort.phenotype.map({0: "control", 1: "case"})
        expected = differential_expression(model, group, method=method, X=cohort.bulk)
        keys = ["cell_type", "gene"]
        merged = found.merge(expected, on=keys, suffixes=("", "_expected"))
        assert len(merged) == len(expected) == len(found)
        # the model here may run on several threads, that of the command line on one
        np.testing.assert_allclose(merged.p_value, merged.p_value_expected, rtol=1e-6)
        np.testing.assert_allclose(merged.effect, merged.effect_expected, rtol=1e-6, atol=1e-9)

    def test_repeat(self, run, data, tmp_path):
        main(["differential", str(run), "--phenotype", str(data / "phenotype.tsv"), "-q"])
        again = ["--from", str(run / "differential" / "run.json"), "--out", str(tmp_path / "again"), "-q"]
        assert main(["differential", *again]) == 0

    def test_order_of_the_phenotype_does_not_matter(self, run, data, tmp_path):
        table = io.read_phenotype(data / "phenotype.tsv")
        io.write_table(table[::-1], tmp_path / "p.csv")
        written = []
        for path in (data / "phenotype.tsv", tmp_path / "p.csv"):
            options = ["--phenotype", str(path), "--method", "marginal", "--force", "-q"]
            assert main(["differential", str(run), *options]) == 0
            written.append((run / "differential" / "differential.tsv").read_bytes())
        assert written[0] == written[1]

    def test_column_is_asked_for(self, run, tmp_path, fails, cohort):
        table = pd.DataFrame({"age": np.arange(24), "group": ["a", "b"] * 12}, index=cohort.bulk.index[::-1])
        io.write_table(table, tmp_path / "p.csv")
        fails(
            "differential", run, "--phenotype", tmp_path / "p.csv", code=2, parts=["age, group", "--column"]
        )
        fails(
            "differential",
            run,
            "--phenotype",
            tmp_path / "p.csv",
            "--column",
            "x",
            parts=["no column 'x'", "'age'"],
        )
        options = ["--column", "group", "--covariates", "age", "--fold-change", "--json"]
        assert main(["differential", str(run), "--phenotype", str(tmp_path / "p.csv"), *options, "-q"]) == 0

    def test_missing_samples(self, run, tmp_path, fails, cohort):
        io.write_table(pd.DataFrame({"group": ["a", "b"] * 2}, index=list("wxyz")), tmp_path / "p.csv")
        fails(
            "differential",
            run,
            "--phenotype",
            tmp_path / "p.csv",
            parts=["lacks 24 of 24", "'sample1'", "'w'"],
        )

    def test_names_that_a_program_has_changed(self, run, tmp_path, fails, cohort):
        names = [f"SAMPLE{i}" for i in range(1, 25)]
        io.write_table(pd.DataFrame({"group": ["a", "b"] * 12}, index=names), tmp_path / "p.csv")
        fails("differential", run, "--phenotype", tmp_path / "p.csv", parts=["They differ only in case."])

    @pytest.mark.parametrize(
        ("word", "more"),
        [("None", ", where 'None' stands. If that is a group, name it: --levels b None."), ("", ".")],
    )
    def test_groups_that_look_missing(self, run, data, tmp_path, fails, word, more):
        known = io.read_phenotype(data / "phenotype.tsv")
        table = pd.DataFrame({"group": [word, "b"] * (len(known) // 2)}, index=known.index)
        table.to_csv(tmp_path / "p.csv")
        parts = [
            f"'group' is missing in {len(known) // 2} sample(s)",
            f"and {len(known) // 2 - 5} more{more}",
            "--missing drop",
        ]
        fails("differential", run, "--phenotype", tmp_path / "p.csv", parts=parts)

    def test_changed_files_of_the_run_are_refused(self, run, data, fails):
        (run / "proportions.tsv").write_text((run / "proportions.tsv").read_text() + " ")
        fails(
            "differential", run, "--phenotype", data / "phenotype.tsv", parts=["proportions.tsv was changed"]
        )

    def test_other_bulk_is_refused(self, run, data, fails):
        options = ["--phenotype", data / "phenotype.tsv", "--bulk", data / "reference.tsv"]
        fails("differential", run, *options, parts=["is not the bulk of the run"])

    def test_needs_a_deconvolution(self, data, fails, tmp_path):
        fails(
            "differential", data, "--phenotype", data / "phenotype.tsv", code=2, parts=["run of 'simulate'"]
        )


class TestSaid:
    def test_understood_before_it_starts(self, deconvolve, capsys):
        main(deconvolve)
        out, err = capsys.readouterr()
        assert out == ""
        assert "24 samples × 120 genes" in err
        assert "3 cell types × 120 genes" in err
        assert "centred or standardised" in err
        assert "\r" not in err

    def test_quiet(self, arguments, capsys):
        main(["deconvolve", *arguments, "--quiet"])
        assert capsys.readouterr() == ("", "")

    def test_json(self, deconvolve, capsys, tmp_path):
        main([*deconvolve, "--json"])
        summary = json.loads(capsys.readouterr().out)
        assert summary["out"] == str(tmp_path / "run")
        assert summary["result"]["converged"] is True
        assert summary["understood"]["n_genes_shared"] == 120

    def test_warning_is_one_line_and_recorded(self, arguments, capsys, tmp_path):
        main(["deconvolve", *arguments, "--model", "l2max", "--max-iter", "2", "--quiet"])
        err = capsys.readouterr().err
        lines = err.splitlines()
        assert lines[0].startswith("skenigma: warning: L2MaxDeconvolver did not converge in 2 iterations")
        assert record(tmp_path / "run")["warnings"] == [
            line.removeprefix("skenigma: warning: ") for line in lines
        ]

    def test_same_warning_is_shown_once(self, capsys):
        console = Console(quiet=True)
        console.warn("twice\n  said")
        console.warn("twice said")
        assert capsys.readouterr().err == "skenigma: warning: twice said\n"
        assert console.warnings == ["twice said"]

    def test_counter_on_a_terminal(self, capsys, monkeypatch, cohort):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        model = L2MaxDeconvolver(cohort.reference, renorm_size=None)
        with Console().progress():
            model.fit(cohort.bulk)
        err = capsys.readouterr().err
        assert "L2MaxDeconvolver, at most 1,000 iterations: 1, 0." in err
        assert err.endswith("\r\033[K")
        with Console(quiet=True).progress():
            model.fit(cohort.bulk)
        assert capsys.readouterr().err == ""

    def test_single_cells_as_a_reference_are_warned_of(self):
        bulk = pd.DataFrame(1.0, index=["s"], columns=[f"g{i}" for i in range(500)])
        console = Console(quiet=True)
        understand(
            bulk, pd.DataFrame(1.0, index=[f"cell{i}" for i in range(101)], columns=bulk.columns), console
        )
        assert "if these are single cells" in console.warnings[0]


class TestRefused:
    @pytest.mark.parametrize(
        ("argv", "part"),
        [
            ([], "COMMAND"),
            (["guess"], "guess"),
            (["deconvolve"], "--bulk, --reference"),
            (["deconvolve", "--bulk", "b.tsv", "--reference", "r.tsv"], "--out"),
            (["deconvolve", "--alpha", "much"], "--alpha: 'much' is not a number"),
            (["deconvolve", "--max-iter", "1.5"], "whole number"),
            (["simulate", "--out", "x", "--samples", "0"], "at least 1"),
            (["report"], "RUN"),
        ],
    )
    def test_usage(self, fails, argv, part):
        err = fails(*argv, code=2, parts=[part])
        assert len(err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--alpha", "2"], "--alpha belongs to --model l2max, tracenorm: say which"),
            (["--set", "platform=bulk"], "--set platform belongs to --model bayes: say which"),
            (["--set", "temperature=3"], "--set temperature: name the model"),
            (["--model", "l2max", "--alpha", "2"], "'alpha' parameter of L2MaxDeconvolver"),
            (["--total", "as-is", "--gene-lengths", "g.tsv"], "--gene-lengths makes TPM"),
            (["--length-column", "bp"], "--gene-lengths, which are not given"),
            (["--proportions", "p.tsv", "--markers", "m.tsv"], "nothing to estimate from --markers"),
            (["--model", "tracenorm", "--renorm-size", "9"], "--renorm-size belongs to --model l2max"),
            (["--model", "l2max", "--set", "init=nowhere"], "'init' parameter"),
            (["--gzip", "--format", "parquet"], "--gzip is for tsv and csv"),
            (["--proportions", "p.tsv", "--proportion-method", "nnls"], "nothing for --proportion-method"),
        ],
    )
    def test_options_that_contradict(self, fails, arguments, options, part):
        fails("deconvolve", *arguments, *options, code=2, parts=[part])

    def test_missing_file(self, fails, arguments):
        fails("deconvolve", "--bulk", "absent.tsv", *arguments[2:], parts=["There is no file", "absent.tsv"])

    def test_turned_bulk(self, fails, arguments, cohort, tmp_path):
        io.write_table(cohort.bulk, tmp_path / "bulk.tsv")
        turned = ["deconvolve", "--bulk", str(tmp_path / "bulk.tsv"), *arguments[2:]]
        fails(*turned, parts=["turned the wrong way round", "--bulk-rows samples"])
        assert main([*turned, "--bulk-rows", "samples", "-q"]) == 0

    def test_repeated_samples(self, fails, arguments, data, tmp_path):
        path = tmp_path / "bulk.tsv"
        path.write_text((data / "bulk.tsv").read_text().replace("sample2\t", "sample1\t", 1))
        fails("deconvolve", "--bulk", path, *arguments[2:], parts=["samples named more than once: 'sample1'"])

    def test_existing_folder(self, fails, deconvolve, tmp_path, capsys):
        main([*deconvolve, "-q"])
        before = contents(tmp_path / "run")
        fails(*deconvolve, parts=["exists already", "--force"])
        assert contents(tmp_path / "run") == before

    def test_output_over_input(self, fails, data, arguments):
        before = contents(data)
        fails("deconvolve", *arguments[:4], "--out", data, "--force", parts=["which is read here"])
        assert contents(data) == before

    def test_unknown_cell_type(self, fails, deconvolve):
        fails(*deconvolve, "--cell-types", "B", parts=["--cell-types names B", "celltype1"])

    @pytest.mark.skipif(os.name == "nt", reason="rights are those of POSIX")
    def test_unwritable_folder(self, fails, deconvolve, tmp_path, monkeypatch):
        # root may write everywhere, so the refusal of the system is imitated
        def refuse(target):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

        monkeypatch.setattr("skenigma.io._staging._hidden_folder", refuse)
        fails(*deconvolve, parts=["Permission denied", str(tmp_path), "permission to read and write"])

    @pytest.mark.parametrize("when", ["table", "record"])
    def test_full_disk(self, fails, deconvolve, monkeypatch, when):
        def fill(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        target = {"table": "skenigma.cli._job.write_table", "record": "skenigma.cli._job.write_record"}[when]
        monkeypatch.setattr(target, fill)
        fails(*deconvolve, parts=["the disk is full", "nothing was written"])

    def test_truly_full_disk(self, arguments, capfd, tmp_path):
        """A file system of 64 KiB, where one can be had."""
        mount = tmp_path / "tiny"
        mount.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
        try:
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            pytest.skip("a file system cannot be mounted here")
        try:
            assert main(["deconvolve", *arguments[:4], "--out", str(mount / "run"), "-q"]) == 1
            assert "the disk is full" in capfd.readouterr().err
            assert list(mount.iterdir()) == []
        finally:
            subprocess.run(["umount", str(mount)], check=True)

    @pytest.mark.parametrize(
        ("error", "code", "part"),
        [
            (KeyboardInterrupt(), 130, "interrupted: nothing was written"),
            (MemoryError(), 1, "not enough memory"),
            (RuntimeError("odd"), 1, "unexpected RuntimeError: odd"),
        ],
    )
    def test_what_ends_a_fit(self, fails, deconvolve, monkeypatch, error, code, part):
        def fit(*args, **kwargs):
            raise error

        monkeypatch.setattr(L2MaxDeconvolver, "fit", fit)
        fails(*deconvolve, code=code, parts=[part])

    def test_debug_shows_the_traceback(self, deconvolve, capsys):
        assert main([*deconvolve, "--cell-types", "B\x1b[2J", "--debug"]) == 1
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        assert err.splitlines()[-1].startswith(r"skenigma: error: --cell-types names B\x1b[2J, ")
        assert "\x1b" not in err

    def test_missing_extra(self, fails, arguments, monkeypatch):
        monkeypatch.setitem(sys.modules, "anndata", None)
        fails(
            "deconvolve",
            *arguments,
            "--format",
            "h5ad",
            parts=["needs anndata: pip install 'skenigma[anndata]'"],
        )


class TestProcess:
    """What only a process of its own shows."""

    def start(self, *argv, **options):
        environment = {**os.environ, "PYTHONPATH": str(Path(skenigma.__file__).parents[1])}
        command = [sys.executable, "-m", "skenigma", *map(str, argv)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
        )

    @pytest.mark.slow
    def test_pipe_gets_json_and_no_control_characters(self, arguments):
        out, err = self.start("deconvolve", *arguments, "--json").communicate()
        assert json.loads(out)["command"] == "deconvolve"
        assert "\r" not in err
        assert "\033" not in err

    @pytest.mark.slow
    def test_terminal_of_few_letters(self, monkeypatch):
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        out, err = self.start("proportions", "--help").communicate()
        assert "genes ? samples" in out
        assert err == ""

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    @pytest.mark.parametrize("delay", [0.1, 0.7], ids=["while numba loads", "while it iterates"])
    def test_signal_in_a_fit(self, arguments, tmp_path, number, code, delay):
        # a fit that would take hours: no change is small enough to stop
        endless = ["--model", "l2max", "--epsilon", "0", "--max-iter", "100000000"]
        process = self.start("deconvolve", *arguments, *endless)
        for line in process.stderr:
            if "parameters" in line:  # the last that is said before the fit
                break
        time.sleep(delay)
        process.send_signal(number)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == code
        (line,) = rest.splitlines()
        assert line.startswith("skenigma: error: ")
        assert line.endswith("nothing was written")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals are those of POSIX")
def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: skenigma {command} ")


def test_help_texts_fit_the_page():
    texts = help_texts(width=100)
    assert set(texts) == {"skenigma", *COMMANDS}
    # the formatter leaves two columns free; examples and descriptions are written by hand
    assert max(len(line) for text in texts.values() for line in text.splitlines()) <= 120


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"skenigma {skenigma.__version__}\n"
