"""``--memory``, and a bulk that is read by blocks of samples: the same results as of one in memory."""

import argparse
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from skenigma import io
from skenigma.cli import _memory, main
from skenigma.cli._memory import Budget, number_of_bytes
from skenigma.cohort import LazyMatrix, lazy_matrix
from skenigma.datasets import make_counts
from skenigma.io._large import prepared
from skenigma.io._written import read_genes
from skenigma.reference import make_reference

anndata = pytest.importorskip("anndata")

# sums over samples are taken block by block
SAME = {"rtol": 1e-9, "atol": 1e-10}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files of counts: the bulk as AnnData, dense and sparse, and as a store; a reference; lengths of genes."""
    folder = tmp_path_factory.mktemp("data")
    cohort = make_counts(n_samples=24, n_genes=130, n_cell_types=3, n_cells=90, n_changed=10, random_state=0)
    cells = anndata.AnnData(
        cohort.cells, pd.DataFrame({"kind": cohort.labels.to_numpy()}, cohort.cells.index)
    )
    reference = make_reference(cells, "kind", min_cells=1, normalize=None)
    # a gene that only one of the two has
    io.write_table(reference.iloc[:, 1:].T.rename_axis("gene"), folder / "reference.tsv")
    bulk = anndata.AnnData(cohort.bulk.iloc[:, :-1].astype(float))
    bulk.var["symbol"] = [f"{name}s" for name in bulk.var_names]
    bulk.layers["logs"] = np.log2(bulk.X + 1)
    bulk.layers["twice"] = 2 * bulk.X
    bulk.write_h5ad(folder / "bulk.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the format that AnnData will write
        bulk.write_zarr(folder / "bulk.zarr")
    for name, kind in (("sparse", sparse.csr_matrix), ("columns", sparse.csc_matrix)):
        anndata.AnnData(kind(bulk.X), bulk.obs, bulk.var).write_h5ad(folder / f"{name}.h5ad")
    lengths = pd.DataFrame({"length": np.arange(1000.0, 1000 + bulk.n_vars)}, bulk.var_names)
    io.write_table(lengths.rename_axis("gene"), folder / "lengths.tsv")
    markers = pd.DataFrame({"gene": bulk.var_names[5:80]}, pd.Index(["any"] * 75, name="cell_type"))
    io.write_table(markers, folder / "markers.tsv")
    return folder


@pytest.fixture
def by_blocks(monkeypatch):
    """Have any bulk read by blocks of five samples."""
    monkeypatch.setattr(_memory, "LARGE", 0)
    monkeypatch.setattr(_memory, "BLOCK_BYTES", 5 * 8 * 130)


def run(data, out, *options, bulk="bulk.h5ad", command="deconvolve"):
    argv = [
        command,
        "--bulk",
        data / bulk,
        "--reference",
        data / "reference.tsv",
        *options,
        "--out",
        out,
        "-q",
    ]
    assert main([str(word) for word in argv]) == 0
    return io.read_run(out)


def check_same(one, other):
    for name in ("proportions.tsv", "quality.tsv", "reliability.tsv"):
        expected, found = one.table(name), other.table(name)
        assert (expected is None) == (found is None)
        if found is not None:
            pd.testing.assert_frame_equal(found, expected, check_exact=False, **SAME)
    for kind in ("expression", "expression_std"):
        expected, found = one.expression(kind), other.expression(kind)
        assert list(found) == list(expected)
        for cell_type in found:
            assert list(found[cell_type].columns) == list(expected[cell_type].columns)
            assert list(found[cell_type].index) == list(expected[cell_type].index)
            assert_allclose(found[cell_type], expected[cell_type], **SAME)


class TestSame:
    @pytest.mark.parametrize(
        ("bulk", "options"),
        [
            ("bulk.h5ad", []),
            ("bulk.zarr", ["--model", "bayes", "--total", "as-is", "--allow-scale"]),
            ("sparse.h5ad", ["--model", "l2max", "--renorm-size", "auto", "--max-iter", "30"]),
            ("bulk.h5ad", ["--layer", "twice", "--gene-lengths", "lengths.tsv", "--markers", "markers.tsv"]),
        ],
        ids=["counts", "as they are", "sparse, l2max", "layer, lengths, markers"],
    )
    def test_deconvolution(self, data, tmp_path, by_blocks, monkeypatch, bulk, options):
        options = [data / word if str(word).endswith(".tsv") else word for word in options]
        small = run(data, tmp_path / "blocks", *options, "--format", "h5ad", bulk=bulk)
        (note,) = small.record["understood"]["reading"]["bulk"]
        # a store is read by whole chunks
        assert re.match(f"is read by blocks of {24 if 'zarr' in bulk else 5} samples: 24 × 129 values", note)
        monkeypatch.setattr(_memory, "LARGE", 2**30)
        whole = run(data, tmp_path / "memory", *options, "--format", "h5ad", bulk=bulk)
        check_same(whole, small)
        assert small.record["understood"]["one_scale"] == whole.record["understood"]["one_scale"]

    @pytest.mark.parametrize("form", ["zarr", "tsv"])
    def test_other_formats(self, data, tmp_path, by_blocks, monkeypatch, form):
        if form == "zarr":
            pytest.importorskip("zarr")
        small = run(data, tmp_path / "blocks", "--format", form)
        monkeypatch.setattr(_memory, "LARGE", 2**30)
        check_same(run(data, tmp_path / "memory", "--format", "tsv"), small)

    @pytest.mark.parametrize("method", ["log", "rlm", "nnls"])
    def test_proportions(self, data, tmp_path, by_blocks, monkeypatch, method):
        options = {"command": "proportions"}
        small = run(data, tmp_path / "blocks", "--method", method, **options)
        assert "is read by blocks" in small.record["understood"]["reading"]["bulk"][0]
        monkeypatch.setattr(_memory, "LARGE", 2**30)
        check_same(run(data, tmp_path / "memory", "--method", method, **options), small)

    def test_names_of_genes_from_a_column(self, data, tmp_path, by_blocks):
        reference = io.read_reference(data / "reference.tsv").add_suffix("s")
        io.write_table(reference.T.rename_axis("gene"), tmp_path / "reference.tsv")
        argv = ["proportions", "--bulk", data / "bulk.h5ad", "--reference", tmp_path / "reference.tsv"]
        argv += ["--gene-column", "symbol", "--out", tmp_path / "run", "-q"]
        assert main([str(word) for word in argv]) == 0
        notes = io.read_run(tmp_path / "run").record["understood"]["reading"]["bulk"]
        assert notes[0] == "took the names of genes from var column 'symbol'"
        assert "is read by blocks" in notes[1]

    def test_genes_without_a_name_there_are_left_out(self, data, tmp_path, by_blocks, monkeypatch):
        """Of the values as of the names."""
        adata = anndata.read_h5ad(data / "bulk.h5ad")
        adata.var["symbol"] = [None if i % 7 == 3 else name for i, name in enumerate(adata.var_names)]
        adata.write_h5ad(tmp_path / "bulk.h5ad")
        options = {"bulk": tmp_path / "bulk.h5ad", "command": "proportions"}
        small = run(data, tmp_path / "blocks", "--gene-column", "symbol", **options)
        assert small.record["understood"]["reading"]["bulk"][1] == "left out 18 genes without a name there"
        monkeypatch.setattr(_memory, "LARGE", 2**30)
        check_same(run(data, tmp_path / "memory", "--gene-column", "symbol", **options), small)

    def test_genes_without_a_length_are_left_out(self, data, tmp_path, by_blocks, monkeypatch):
        lengths = pd.read_csv(data / "lengths.tsv", sep="\t", index_col=0)
        io.write_table(lengths.drop(lengths.index[[3, 50, 51]]), tmp_path / "lengths.tsv")
        options = ["--gene-lengths", tmp_path / "lengths.tsv"]
        small = run(data, tmp_path / "blocks", *options, command="proportions")
        monkeypatch.setattr(_memory, "LARGE", 2**30)
        check_same(run(data, tmp_path / "memory", *options, command="proportions"), small)

    def test_totals_that_decide_are_those_of_the_shared_genes(self, data, tmp_path, by_blocks, monkeypatch):
        """Of a bulk on the scale of the reference, but for one gene that the reference lacks."""
        reference = io.read_reference(data / "reference.tsv")
        reference = reference.div(reference.sum(axis=1), axis=0) * 1e6
        io.write_table(reference.T.rename_axis("gene"), tmp_path / "reference.tsv")
        adata = anndata.read_h5ad(data / "bulk.h5ad")
        (lacking,) = np.flatnonzero(~adata.var_names.isin(reference.columns))
        adata.X[:, lacking] = 9 * adata.X.sum(axis=1)
        adata.X *= 1e6 / adata.X.sum(axis=1, keepdims=True)
        adata.write_h5ad(tmp_path / "bulk.h5ad")
        options = {"bulk": tmp_path / "bulk.h5ad", "command": "proportions"}
        one_scale = []
        for size in (0, 2**30):
            monkeypatch.setattr(_memory, "LARGE", size)
            found = run(data, tmp_path / f"{size}", "--reference", tmp_path / "reference.tsv", **options)
            one_scale.append(found.record["understood"]["one_scale"])
        assert one_scale[0] == one_scale[1]
        assert one_scale[0]["total"] == 1e6

    def test_raw_has_genes_of_its_own(self, data, tmp_path, by_blocks, monkeypatch):
        adata = anndata.read_h5ad(data / "bulk.h5ad")
        adata.raw = adata[:, ::-1]
        adata[:, :40].copy().write_h5ad(tmp_path / "bulk.h5ad")
        options = {"bulk": tmp_path / "bulk.h5ad", "command": "proportions"}
        small = run(data, tmp_path / "blocks", "--layer", "raw", **options)
        assert "24 × 129 values" in small.record["understood"]["reading"]["bulk"][0]
        monkeypatch.setattr(_memory, "LARGE", 2**30)
        check_same(run(data, tmp_path / "memory", "--layer", "raw", **options), small)

    def test_counts_in_a_file_that_speaks_of_logarithms_are_read(self, data, tmp_path, by_blocks):
        """Its logarithms may have been replaced by the counts."""
        adata = anndata.read_h5ad(data / "bulk.h5ad")
        adata.uns["log1p"] = {"base": None}
        adata.write_h5ad(tmp_path / "bulk.h5ad")
        found = run(data, tmp_path / "run", bulk=tmp_path / "bulk.h5ad", command="proportions")
        assert "is read by blocks" in found.record["understood"]["reading"]["bulk"][0]

    def test_single_precision(self, data, tmp_path, by_blocks):
        found = run(data, tmp_path / "run", "--float32", "--format", "h5ad").expression()
        assert {str(frame.dtypes.iloc[0]) for frame in found.values()} == {"float32"}

    @pytest.mark.parametrize(
        "options", [["--model", "tracenorm"], ["--model", "l2max", "--normalize", "frac"]]
    )
    def test_what_needs_all_of_it_reads_all_of_it(self, data, tmp_path, by_blocks, options):
        found = run(data, tmp_path / "run", *options, "--max-iter", "3")
        assert found.record["understood"]["reading"] == {}

    def test_a_matrix_by_columns_is_read_into_memory(self, data, tmp_path, by_blocks):
        assert run(data, tmp_path / "run", bulk="columns.h5ad").record["understood"]["reading"] == {}


class TestOtherCommands:
    """What the commands that start from a run make of a large bulk is what they make of one in memory."""

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, data, tmp_path_factory):
        """A run, of which the lengths of genes and a total of its own are to be repeated."""
        groups = pd.DataFrame({"group": ["a", "b"] * 12}, pd.Index([f"sample{j}" for j in range(24)]))
        io.write_table(groups.rename_axis("sample"), data / "groups.tsv")
        options = ["--gene-lengths", data / "lengths.tsv", "--model", "bayes", "--format", "h5ad"]
        return run(data, tmp_path_factory.mktemp("made") / "run", *options).path

    @pytest.fixture
    def compare(self, made, tmp_path, monkeypatch):
        """Runs a command on a large bulk, and on the same in memory; the folders of both."""

        def compare(command, *options):
            read, folders = [], []
            original = LazyMatrix.blocks
            monkeypatch.setattr(LazyMatrix, "blocks", lambda self: read.append(1) or original(self))
            for large, name in ((0, "blocks"), (2**30, "memory")):
                monkeypatch.setattr(_memory, "LARGE", large)
                argv = [command, made, *options, "--out", tmp_path / name, "-q"]
                assert main([str(word) for word in argv]) == 0
                folders.append(io.read_run(tmp_path / name))
                assert bool(read) == (large == 0)
                read.clear()
            return folders

        monkeypatch.setattr(_memory, "BLOCK_BYTES", 5 * 8 * 130)
        return compare

    @pytest.mark.parametrize("method", ["auto", "interaction"])
    def test_differential(self, data, compare, method):
        one, other = compare("differential", "--phenotype", data / "groups.tsv", "--method", method)
        assert one.record["result"] == other.record["result"]
        found, expected = (folder.table("differential.tsv") for folder in (one, other))
        keys = ["cell_type", "gene"]
        found, expected = (
            table.reset_index().sort_values(keys, ignore_index=True) for table in (found, expected)
        )
        pd.testing.assert_frame_equal(found, expected, check_exact=False, **SAME)

    def test_reliability(self, compare):
        found, expected = (folder.table("genes.tsv") for folder in compare("reliability"))
        pd.testing.assert_frame_equal(found, expected, check_exact=False, **SAME)

    @pytest.mark.parametrize("bulk", ["bulk.h5ad", "sparse.h5ad"])
    def test_transform(self, data, compare, bulk):
        check_same(*reversed(compare("transform", "--bulk", data / bulk, "--format", "h5ad")))

    def test_a_missing_value_of_new_samples_is_named(self, data, made, tmp_path, by_blocks, capsys):
        adata = anndata.read_h5ad(data / "bulk.h5ad")
        adata.X[17, 3] = np.nan
        adata.write_h5ad(tmp_path / "new.h5ad")
        argv = ["transform", made, "--bulk", tmp_path / "new.h5ad", "--out", tmp_path / "new", "-q"]
        assert main([str(word) for word in argv]) == 1
        assert "row 'sample17', column 'gene3'" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "command",
        [["reliability", "--bootstrap", "2"], ["differential", "--method", "marginal"], ["batch"]],
        ids=lambda command: command[0],
    )
    def test_what_needs_all_of_it_is_refused_before_it_is_read(
        self, data, made, tmp_path, monkeypatch, capsys, command
    ):
        if command[0] == "differential":  # of means of a posterior it is refused for another reason
            made = run(data, tmp_path / "run", "--model", "l2max", "--max-iter", "2", "--format", "h5ad").path
            command = [*command, "--phenotype", data / "groups.tsv"]
        inputs = ["--bulk", data / "bulk.h5ad", "--reference", data / "reference.tsv"]
        command[1:1] = inputs if command[0] == "batch" else [made]
        monkeypatch.setattr(_memory, "PACKAGES", 2**20)
        monkeypatch.setattr("skenigma.cli._large.read_bulk", None)
        monkeypatch.setattr("skenigma.io._runs.read_layers", None)
        argv = [*command, "--memory", "1030k", "--out", tmp_path / "out", "-q"]
        assert main([str(word) for word in argv]) == 1
        err = capsys.readouterr().err
        assert "--memory 1.0 MB is too little" in err
        assert (
            "--method interaction" if command[0] == "differential" else "needs all samples at once"
        ) in err
        assert not (tmp_path / "out").exists()

    def test_without_a_limit_the_memory_that_there_is_counts(self, data, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(_memory, "LARGE", 0)
        monkeypatch.setattr("skenigma.checks.memory.SMALL", 0)
        monkeypatch.setattr("skenigma.checks.memory.available_memory", lambda: 2**15)
        argv = ["proportions", "--bulk", data / "columns.h5ad", "--reference", data / "reference.tsv"]
        assert main([*map(str, argv), "--out", str(tmp_path / "run"), "-q"]) == 1
        err = capsys.readouterr().err
        assert "24 samples × 129 genes × 8 bytes are 24.2 kB" in err
        assert "48.4 kB, but 32.0 kB are available. Write its matrix by samples" in err


@pytest.mark.parametrize("form", ["tsv", "csv", "parquet", "h5ad", "zarr"])
def test_genes_of_a_run_are_told_without_its_values(form, tmp_path, monkeypatch):
    genes = ["NA", "1", "a,b", '"q"', "x y"]
    frame = pd.DataFrame(np.arange(10.0).reshape(5, 2), pd.Index(genes, name="gene"), ["s0", "s1"])
    path = tmp_path / f"expression.{form}"
    if form in ("h5ad", "zarr"):
        pytest.importorskip(form.replace("h5ad", "h5py"))
        stored = anndata.AnnData(frame.T, layers={"cse_B": frame.T.to_numpy()})
        stored.uns["skenigma"] = {"cell_types": np.array(["B"], dtype=object)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the format that AnnData will write
            getattr(stored, f"write_{form}")(path)
    else:
        io.write_table(frame, path)
    monkeypatch.setattr(anndata, "read_h5ad", None)
    monkeypatch.setattr(anndata, "read_zarr", None)
    assert read_genes(path) == genes


class TestRefused:
    @pytest.fixture
    def fails(self, data, tmp_path, by_blocks, capsys):
        def check(match, *options, bulk="bulk.h5ad"):
            argv = ["proportions", "--bulk", bulk, "--reference", data / "reference.tsv", *options]
            assert main([*map(str, argv), "--out", str(tmp_path / "run"), "-q"]) == 1
            assert match in capsys.readouterr().err
            assert not (tmp_path / "run").exists()

        return check

    def changed(self, data, tmp_path, **changes):
        adata = anndata.read_h5ad(data / "bulk.h5ad")
        for name, value in changes.items():
            setattr(adata, name, value)
        adata.write_h5ad(tmp_path / "changed.h5ad")
        return tmp_path / "changed.h5ad"

    def test_missing_values_by_name(self, data, tmp_path, fails):
        X = anndata.read_h5ad(data / "bulk.h5ad").X
        X[17, 3] = np.nan
        fails("row 'sample17', column 'gene3'", bulk=self.changed(data, tmp_path, X=X))

    def test_repeated_names(self, data, tmp_path, fails):
        names = [f"s{j // 2}" for j in range(24)]
        fails("samples named more than once: 's0'", bulk=self.changed(data, tmp_path, obs_names=names))
        names = ["gene1", *anndata.read_h5ad(data / "bulk.h5ad").var_names[1:]]
        names[7] = "gene1"
        fails("genes named more than once, which reading", bulk=self.changed(data, tmp_path, var_names=names))

    def test_logarithms(self, data, tmp_path, fails):
        logs = anndata.read_h5ad(data / "bulk.h5ad").layers["logs"]
        path = self.changed(data, tmp_path, X=logs, uns={"log1p": {}})
        fails("says that X holds logarithms", bulk=path)
        fails("same scale", "--layer", "X", bulk=path)

    def test_a_column_that_is_not_there(self, data, fails):
        fails("var has no column 'none'", "--gene-column", "none", bulk=data / "bulk.h5ad")

    def test_an_empty_sample(self, data, tmp_path, fails):
        X = anndata.read_h5ad(data / "bulk.h5ad").X
        X[4] = 0
        fails("total of zero", "--total", "1000", bulk=self.changed(data, tmp_path, X=X))


class TestBudget:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("4G", 2**32), ("1.5g", 3 * 2**29), ("500MB", 500 * 2**20), ("2GiB", 2**31), ("4294967296", 2**32)],
    )
    def test_sizes(self, text, size):
        assert number_of_bytes(text) == size
        assert number_of_bytes(str(size)) == size  # as the record has it

    @pytest.mark.parametrize("text", ["", "G", "0", "-4G", "4X", "four", "nan", "1e9", "9" * 20])
    def test_what_is_no_size(self, text):
        with pytest.raises(argparse.ArgumentTypeError, match="is no size"):
            number_of_bytes(text)

    def test_blocks_shrink_with_the_budget_and_do_not_grow_beyond_the_default(self):
        assert Budget(None).written == Budget(2**40).written == _memory.WRITTEN
        assert Budget(None).read == Budget(2**40).read == _memory.BLOCK_BYTES
        assert Budget(2**28).written < Budget(2**29).written < _memory.WRITTEN
        assert Budget(2**28).read < Budget(2**29).read < _memory.BLOCK_BYTES

    def test_a_table_that_needs_more_is_refused_with_the_arithmetic(self, data, tmp_path, capsys):
        bulk = io.read_bulk(data / "bulk.h5ad")
        io.write_table(bulk.T.rename_axis("gene"), tmp_path / "bulk.tsv")
        argv = ["proportions", "--bulk", tmp_path / "bulk.tsv", "--reference", data / "reference.tsv"]
        argv += ["--memory", "200M", "--out", tmp_path / "run", "-q"]
        assert main([str(word) for word in argv]) == 1
        err = capsys.readouterr().err
        assert "--memory 200.0 MB is too little" in err
        assert "24 samples × 129 genes × 8 bytes are 24.2 kB" in err
        assert "Write it as .h5ad" in err

    def test_blocks_of_one_sample_that_need_more_are_refused(self, data, tmp_path, capsys):
        argv = ["deconvolve", "--bulk", data / "bulk.h5ad", "--reference", data / "reference.tsv"]
        argv += ["--memory", "200M", "--out", tmp_path / "run", "-q"]
        assert main([str(word) for word in argv]) == 1
        assert "even read one sample at a time" in capsys.readouterr().err

    def test_a_sample_of_all_cell_types_is_what_blocks_take_at_least(self):
        least = _memory.PACKAGES + _memory.WRITTEN_PART * 8 * 10 * 1000
        Budget(least).check_blocks((5, 1000), 10, "bulk.h5ad")
        with pytest.raises(ValueError, match=r"10 cell types × 1,000 genes × 8 bytes"):
            Budget(least - 1).check_blocks((5, 1000), 10, "bulk.h5ad")

    def test_it_is_recorded_and_repeated(self, data, tmp_path):
        found = run(data, tmp_path / "run", "--memory", "400M", command="proportions")
        assert found.record["options"]["memory"] == 400 * 2**20
        argv = ["proportions", "--from", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "-q"]
        assert main(argv) == 0


def test_rows_are_the_same_whatever_rows_are_read_with_them():
    values = np.random.default_rng(0).gamma(1, size=(6, 1001))
    chosen = lazy_matrix(values).select(np.arange(1000, -1, -1))
    chosen.index, chosen.columns = pd.RangeIndex(6), pd.RangeIndex(1001)
    matrix = prepared(chosen, lengths=np.arange(1.0, 1002), total=1e6)
    whole = matrix[:]
    for row in range(6):
        np.testing.assert_array_equal(matrix[row], whole[row])
    assert_allclose(whole.sum(axis=1), 1e6, rtol=1e-12)
