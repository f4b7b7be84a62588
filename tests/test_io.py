"""Files in and out: formats, orientation, and input that cannot be meant."""

import contextlib
import gzip
import os
import re

import numpy as np
import pandas as pd
import pytest

from skenigma import io

FRAME = pd.DataFrame(
    [[1.5, 0.1, -2.0], [1 / 3, 1e-300, 7.0]], index=["donor1", "donor2"], columns=["CD19", "CD4", "NA"]
)


def need(name):
    """Skip where the package for a format is not installed."""
    for end, package in {".parquet": "pyarrow", ".h5ad": "anndata"}.items():
        if name.lower().endswith(end):
            pytest.importorskip(package)


def genes_by_samples(path, frame=FRAME):
    io.write_table(frame.T.rename_axis("gene"), path)
    return path


def refused(*parts, error=ValueError):
    """Expect an error in one line whose message holds all ``parts``, in this order."""
    return pytest.raises(error, match=".*".join(map(re.escape, parts)))


@pytest.mark.parametrize("name", ["t.tsv", "t.txt", "t.tab", "t.csv", "t.tsv.gz", "T.CSV.GZ", "t.parquet"])
def test_tables_come_back_to_the_last_digit(tmp_path, name):
    need(name)
    found = io.read_bulk(genes_by_samples(tmp_path / name))
    pd.testing.assert_frame_equal(found, FRAME, check_exact=True, check_names=False)


def test_no_digit_is_lost(tmp_path):
    values = np.random.default_rng(0).standard_normal((40, 50))
    frame = pd.DataFrame(values).rename(index=str, columns=str)
    np.testing.assert_array_equal(io.read_bulk(genes_by_samples(tmp_path / "t.csv", frame)), values)


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.parquet"])
def test_equal_tables_are_equal_bytes(tmp_path, name):
    need(name)
    (tmp_path / "later").mkdir()
    first = genes_by_samples(tmp_path / name).read_bytes()
    assert genes_by_samples(tmp_path / "later" / name).read_bytes() == first


def test_compressed_table_names_neither_file_nor_time(tmp_path):
    written = genes_by_samples(tmp_path / "secret.tsv.gz").read_bytes()
    assert b"secret" not in written
    assert written[4:8] == bytes(4)


def test_rows_can_be_samples(tmp_path):
    io.write_table(FRAME, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(io.read_bulk(tmp_path / "t.csv", rows="samples"), FRAME)


def test_header_without_a_corner_is_r_s_way(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("donor1\tdonor2\nCD19\t1\t2\nCD4\t3\t4\n")
    assert io.read_bulk(path).loc["donor2"].to_dict() == {"CD19": 2.0, "CD4": 4.0}


def test_quotes_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff"gene","T cell, CD4","B"\r\n"CD19",1,2\r\n'.encode())
    assert list(io.read_reference(path).index) == ["T cell, CD4", "B"]


def test_names_that_are_numbers_or_missing_stay_strings(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("gene\t1\t02\nNA\t1\t2\n007\t3\t4\nnan\t5\t6\n")
    found = io.read_bulk(path)
    assert list(found.index) == ["1", "02"]
    assert list(found.columns) == ["NA", "007", "nan"]


def test_anndata_is_samples_by_genes(tmp_path):
    anndata = pytest.importorskip("anndata")
    anndata.AnnData(FRAME.astype(np.float32)).write_h5ad(tmp_path / "t.h5ad")
    found = io.read_bulk(tmp_path / "t.h5ad")
    pd.testing.assert_frame_equal(found, FRAME.astype(np.float32))


def test_anndata_holds_a_layer_per_cell_type(tmp_path):
    pytest.importorskip("anndata")
    shares = pd.DataFrame({"T/NK": [0.5, 0.25], "B": [0.5, 0.75]}, index=FRAME.index)
    expression = {"T/NK": FRAME + 1, "B": FRAME * 2}
    for name in ("a.h5ad", "b.h5ad"):
        io.write_anndata(tmp_path / name, expression, FRAME, shares)
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()
    found = io._reading.read_layers(tmp_path / "a.h5ad")
    assert list(found) == ["T/NK", "B"]
    pd.testing.assert_frame_equal(found["T/NK"], FRAME + 1)


def test_phenotype_keeps_text_and_missing_values(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sample,group,age\n1,case,61\n2,control,\n")
    found = io.read_phenotype(path)
    assert list(found.index) == ["1", "2"]
    assert found.group.tolist() == ["case", "control"]
    assert np.isnan(found.age["2"])


class TestRefused:
    def text(self, tmp_path, content, name="t.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def test_missing(self, tmp_path):
        with refused("There is no file", "absent.tsv", error=FileNotFoundError):
            io.read_bulk(tmp_path / "absent.tsv")

    def test_folder(self, tmp_path):
        (tmp_path / "t.tsv").mkdir()
        with refused("is a folder", error=IsADirectoryError):
            io.read_bulk(tmp_path / "t.tsv")

    def test_unknown_format(self, tmp_path):
        with refused("t.xlsx", "does not tell the format", ".tsv"):
            io.read_bulk(self.text(tmp_path, "x", "t.xlsx"))

    @pytest.mark.parametrize("content", ["", "gene\tdonor1\n"])
    def test_empty(self, tmp_path, content):
        with pytest.raises(ValueError, match=r"t\.tsv (is empty|holds no values|holds a header)"):
            io.read_bulk(self.text(tmp_path, content))

    @pytest.mark.parametrize(
        ("content", "name", "seen", "remedy"),
        [
            ("gene,a,b\nCD4,1,2\n", "t.tsv", "split at commas", ".csv"),
            ("gene\ta\tb\nCD4\t1\t2\n", "t.csv", "split at tabs", ".tsv"),
            ("gene;a;b\nCD4;1;2\n", "t.csv", "split at semicolons", "tabs (.tsv)"),
        ],
    )
    def test_wrong_delimiter(self, tmp_path, content, name, seen, remedy):
        with refused("one column only", seen, remedy):
            io.read_bulk(self.text(tmp_path, content, name))

    def test_one_column(self, tmp_path):
        with refused("one column only", "names and values"):
            io.read_bulk(self.text(tmp_path, "gene\nCD4\n"))

    def test_repeated_sample(self, tmp_path):
        with refused("samples named more than once: 'a'"):
            io.read_bulk(self.text(tmp_path, "gene\ta\tb\ta\nCD4\t1\t2\t3\n"))

    def test_repeated_gene(self, tmp_path):
        with refused("genes named more than once: 'CD4'", "average"):
            io.read_bulk(self.text(tmp_path, "gene\ta\nCD4\t1\nCD8\t1\nCD4\t2\n"))

    def test_repeated_cell_type(self, tmp_path):
        with refused("cell types named more than once: 'B'"):
            io.read_reference(self.text(tmp_path, "gene\tB\tB\nCD4\t1\t2\n"))

    def test_cell_that_is_no_number(self, tmp_path):
        with refused(
            "holds 2 cell(s)", "'NA' (row 'CD4', column 'b')", "'' (row 'CD8', column 'b')", "missing"
        ):
            io.read_bulk(self.text(tmp_path, "gene\ta\tb\nCD4\t1\tNA\nCD8\t1\t\nCD3\t1\t2\n"))

    def test_column_of_annotation(self, tmp_path):
        with refused("'chr1' (row 'CD4', column 'chromosome')", "columns of annotation"):
            io.read_bulk(self.text(tmp_path, "gene\tchromosome\ta\nCD4\tchr1\t2\nCD8\tchr2\t2\n"))

    def test_ragged(self, tmp_path):
        with refused("no regular table", "line 3"):
            io.read_bulk(self.text(tmp_path, "gene\ta\tb\nCD4\t1\t2\nCD8\t1\t2\t3\n"))

    def test_header_of_another_width(self, tmp_path):
        with refused("header has 2 fields", "first row 4"):
            io.read_bulk(self.text(tmp_path, "gene\ta\nCD4\t1\t2\t3\n"))

    @pytest.mark.parametrize("cut", [slice(None, -12), slice(1, None)])
    def test_damaged_gzip(self, tmp_path, cut):
        whole = gzip.compress(b"gene\ta\tb\n" + b"CD4\t1\t2\n" * 50)
        with refused("no whole gzip file"):
            io.read_bulk(self.text(tmp_path, whole[cut], "t.tsv.gz"))

    def test_not_utf8(self, tmp_path):
        with refused("not text in UTF-8"):
            io.read_bulk(self.text(tmp_path, "gene\tä\nCD4\t1\n".encode("latin-1")))

    @pytest.mark.parametrize("name", ["t.h5ad", "t.parquet"])
    def test_other_bytes_in_a_binary_format(self, tmp_path, name):
        need(name)
        with refused(name, "cannot be read as"):
            io.read_bulk(self.text(tmp_path, "gene\ta\nCD4\t1\n", name))


class TestOrientation:
    bulk = pd.DataFrame(1.0, index=["d1", "d2", "d3"], columns=list("abcdef"))
    reference = pd.DataFrame(1.0, index=["B", "T"], columns=list("cdefgh"))

    def test_shared_genes_in_the_order_of_the_bulk(self):
        assert list(io.check_orientation(self.bulk[list("fedc")], self.reference)) == list("fedc")

    @pytest.mark.parametrize(
        ("turn_bulk", "turn_reference", "parts"),
        [
            (True, False, ("bulk is turned", "4 of its samples ('c', 'd', 'e', 'f')", "--bulk-rows samples")),
            (False, True, ("reference is turned", "4 of its cell types", "--reference-rows cell-types")),
            (True, True, ("both turned", "--bulk-rows samples --reference-rows cell-types")),
        ],
    )
    def test_turned(self, turn_bulk, turn_reference, parts):
        bulk = self.bulk.T if turn_bulk else self.bulk
        reference = self.reference.T if turn_reference else self.reference
        with refused(*parts):
            io.check_orientation(bulk, reference)

    def test_nothing_shared(self):
        with refused("share no gene", "'a', 'b'", "'ENSGc'", "identifier"):
            io.check_orientation(self.bulk, self.reference.add_prefix("ENSG"))


class TestStaging:
    def test_file_is_there_only_when_whole(self, tmp_path):
        path = tmp_path / "deep" / "t.txt"
        with io.staged_file(path) as staged:
            staged.write_text("x")
            assert not path.exists()
        assert [found.name for found in path.parent.iterdir()] == ["t.txt"]

    @pytest.mark.parametrize("stage", [io.staged_file, io.staged_folder])
    def test_nothing_stays_after_an_error(self, tmp_path, stage):
        with contextlib.suppress(KeyboardInterrupt), stage(tmp_path / "deep" / "er") as staged:
            (staged if stage is io.staged_file else staged / "part").write_text("x")
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_file_is_not_replaced_without_force(self, tmp_path):
        (tmp_path / "t").write_text("old")
        with refused("exists already", "--force", error=FileExistsError), io.staged_file(tmp_path / "t"):
            pass
        with io.staged_file(tmp_path / "t", force=True) as staged:
            staged.write_text("new")
        assert (tmp_path / "t").read_text() == "new"

    def run(self, path, content="{}"):
        path.mkdir()
        (path / "run.json").write_text(content)
        return path

    def test_folder_of_a_run_is_replaced_by_force_only(self, tmp_path):
        path = self.run(tmp_path / "run")
        (path / "stale.tsv").write_text("old")
        with refused("exists already", error=FileExistsError), io.staged_folder(path):
            pass
        with io.staged_folder(path, force=True) as staged:
            (staged / "run.json").write_text("new")
        assert [found.name for found in path.iterdir()] == ["run.json"]
        assert [found.name for found in tmp_path.iterdir()] == ["run"]

    def test_old_folder_survives_a_failure(self, tmp_path):
        path = self.run(tmp_path / "run", "old")

        with pytest.raises(OSError, match="odd"), io.staged_folder(path, force=True):
            raise OSError("odd")
        assert (path / "run.json").read_text() == "old"

    def test_foreign_folder_is_never_replaced(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with refused("no run.json", "never replaced", error=FileExistsError):
            io.staged_folder(tmp_path, force=True).__enter__()
        assert (tmp_path / "thesis.txt").exists()

    def test_folder_that_is_read_from_is_not_replaced(self, tmp_path):
        path = self.run(tmp_path / "run")
        with refused("run.json, which is read here", error=FileExistsError):
            io.staged_folder(path, force=True, keep=[path / "run.json"]).__enter__()

    def test_empty_folder_is_filled(self, tmp_path):
        (tmp_path / "run").mkdir()
        with io.staged_folder(tmp_path / "run") as staged:
            (staged / "run.json").write_text("{}")
        assert (tmp_path / "run" / "run.json").exists()

    @pytest.mark.skipif(os.name == "nt", reason="rights are those of POSIX")
    def test_rights_are_those_of_any_new_folder(self, tmp_path):
        with io.staged_folder(tmp_path / "run"):
            pass
        (tmp_path / "plain").mkdir()
        assert (tmp_path / "run").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(("content", "part"), [("not json", "is no JSON"), ("{}", "not written by skenigma")])
def test_record_of_something_else(tmp_path, content, part):
    (tmp_path / "run.json").write_text(content)
    with refused("run.json", part):
        io.read_run(tmp_path)


def test_folder_without_a_record(tmp_path):
    with refused("run.json", "give the folder", error=FileNotFoundError):
        io.read_run(tmp_path)


def test_cells_are_read_from_anndata_only(tmp_path):
    (tmp_path / "cells.csv").write_text("gene,a\nCD4,1\n")
    with refused("cells.csv", ".h5ad"):
        io.read_cells(tmp_path / "cells.csv")
