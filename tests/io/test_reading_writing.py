"""Files in and out: formats, orientation, and input that cannot be meant."""

import contextlib
import gzip
import os
import re

import numpy as np
import pandas as pd
import pytest

from skenigma import io
from skenigma.checks import memory
from skenigma.io._runs import RunFolder

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
    found = io._written.read_layers(tmp_path / "a.h5ad")
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
            io.read_phenotype(tmp_path / "t.tsv")

    def test_format_that_is_not_written(self, tmp_path):
        with refused("t.xlsx", "does not tell the format", ".tsv"):
            io.write_table(FRAME, tmp_path / "t.xlsx")

    @pytest.mark.parametrize("content", ["", "gene\tdonor1\n"])
    def test_empty(self, tmp_path, content):
        with pytest.raises(ValueError, match=r"t\.tsv (is empty|holds no values|holds a header)"):
            io.read_bulk(self.text(tmp_path, content))

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

    def test_column_with_a_number_among_texts(self, tmp_path):
        with refused("'x' (row 'CD4', column 'panel')", "Correct these cells"):
            io.read_bulk(self.text(tmp_path, "gene\tpanel\ta\nCD4\tx\t2\nCD8\t7\t2\n"))

    def test_ragged(self, tmp_path):
        with refused("not a regular table", "line 3"):
            io.read_bulk(self.text(tmp_path, "gene\ta\tb\nCD4\t1\t2\nCD8\t1\t2\t3\n"))

    def test_header_of_another_width(self, tmp_path):
        with refused("header has 2 fields", "first row 4"):
            io.read_bulk(self.text(tmp_path, "gene\ta\nCD4\t1\t2\t3\n"))

    @pytest.mark.parametrize("cut", [slice(None, -12), slice(1, None)])
    def test_damaged_gzip(self, tmp_path, cut):
        whole = gzip.compress(b"gene\ta\tb\n" + b"CD4\t1\t2\n" * 50)
        with refused("not a complete gzip file"):
            io.read_bulk(self.text(tmp_path, whole[cut], "t.tsv.gz"))

    def test_not_utf8(self, tmp_path):
        with refused("not text in UTF-8"):
            io.read_bulk(self.text(tmp_path, "gene\tä\nCD4\t1\n".encode("latin-1")))

    @pytest.mark.parametrize("name", ["t.h5ad", "t.parquet"])
    def test_other_bytes_in_a_binary_format(self, tmp_path, name):
        need(name)
        with refused(name, "cannot be read as"):
            io.read_bulk(self.text(tmp_path, "gene\ta\nCD4\t1\n", name))


NAMES = [
    "NA",
    "nan",
    "null",
    "None",
    "",
    "N/A",
    "007",
    "1e5",
    "True",
    "=x",
    'a"b',
    "a\rb",
    "a\tb",
    "a,b",
    "a\nb",
]


class TestNames:
    """A name is what stands there, whatever else it could mean."""

    frame = pd.DataFrame(
        np.arange(1.0, 1 + len(NAMES) ** 2).reshape(len(NAMES), -1), index=NAMES, columns=NAMES[::-1]
    )

    @pytest.mark.parametrize("end", ["tsv", "csv.gz"])
    @pytest.mark.parametrize(
        "read",
        [
            lambda path: io.read_bulk(path, rows="samples"),
            lambda path: io.read_bulk(path).T,
            lambda path: io.read_reference(path).T,
            io.read_proportions,
            io.read_phenotype,
            io._written.read_result,
        ],
    )
    def test_every_reader_gives_back_what_was_written(self, tmp_path, read, end):
        io.write_table(self.frame.rename_axis("sample"), tmp_path / f"t.{end}")
        pd.testing.assert_frame_equal(read(tmp_path / f"t.{end}").rename_axis(None), self.frame)

    def test_table_of_a_run_has_names_in_columns_too(self, tmp_path):
        written = pd.DataFrame(
            {"gene": NAMES, "p_value": [np.nan, *np.linspace(0, 1, len(NAMES) - 1)], "flag": ""},
            index=pd.Index(NAMES, name="cell_type"),
        )
        io.write_table(written, tmp_path / "differential.tsv")
        entry = {"size": 0, "sha256": io.file_checksum(tmp_path / "differential.tsv")}
        found = RunFolder(tmp_path, {"outputs": {"differential.tsv": entry}}).table("differential.tsv")
        pd.testing.assert_frame_equal(found, written, check_dtype=False)

    def test_values_of_a_phenotype_can_be_missing(self, tmp_path):
        (tmp_path / "t.tsv").write_text("sample\tNA\tage\nNA\tNA\t61\nnull\tcase\tNA\n")
        found = io.read_phenotype(tmp_path / "t.tsv")
        assert found["NA"].isna().tolist() == [True, False]
        assert found.loc["NA", "age"] == 61

    @pytest.mark.parametrize("end", ["tsv", "parquet"])
    def test_spaces_around_names_go_in_rows_as_in_columns(self, tmp_path, end):
        need(f"t.{end}")
        spaced = FRAME.rename(index=lambda name: f" {name}", columns=lambda name: f"{name}  ")
        pd.testing.assert_frame_equal(
            io.read_bulk(genes_by_samples(tmp_path / f"t.{end}", spaced)), FRAME, check_exact=True
        )

    def test_names_that_differ_by_spaces_are_repeats(self, tmp_path):
        (tmp_path / "t.tsv").write_text("gene\ta\tb\nCD4\t1\t2\nCD4 \t3\t4\n")
        with refused("genes named more than once: 'CD4'"):
            io.read_bulk(tmp_path / "t.tsv")

    def test_a_row_without_a_name(self, tmp_path):
        pytest.importorskip("pyarrow")
        pd.DataFrame({"gene": ["CD4", None], "a": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
        with refused("t.parquet", "without a name"):
            io.read_bulk(tmp_path / "t.parquet")

    def test_nul_in_a_binary_format(self, tmp_path):
        pytest.importorskip("pyarrow")
        pd.DataFrame({"gene": ["CD4", "a\0b"], "a": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
        with refused("t.parquet", "NUL", r"'a\0b'"):
            io.read_bulk(tmp_path / "t.parquet")


class TestHostileText:
    """Neither a number nor a file can end the process, or leave it without an answer."""

    # digits of an exponent that overflow the integers of pandas' own parser, which then reads what is not its
    NUMBERS = ("3e8123456789012345", "1e4294967296", "1e2147483648", "5e18446744073709551616")

    def table(self, tmp_path, *cells, name="t.tsv"):
        (tmp_path / name).write_text("gene\ta\tb\n" + "".join(f"g{i}\t{c}\t1\n" for i, c in enumerate(cells)))
        return tmp_path / name

    @pytest.mark.parametrize("number", NUMBERS)
    @pytest.mark.parametrize("read", [io.read_bulk, io.read_reference, io.read_proportions])
    def test_numbers_beside_a_text(self, tmp_path, read, number):
        with refused("holds 1 cell(s) that are not numbers: 'abc' (row 'g1', column 'a')"):
            read(self.table(tmp_path, number, "abc"))

    @pytest.mark.parametrize("number", NUMBERS)
    def test_numbers_in_other_tables(self, tmp_path, number):
        assert io.read_phenotype(self.table(tmp_path, number, "abc")).a.tolist() == [number, "abc"]
        assert io._written.read_result(self.table(tmp_path, number, "abc")).a.tolist() == [number, "abc"]

    @pytest.mark.parametrize("digits", [20, 25, 300])
    def test_integers_beyond_64_bits(self, tmp_path, digits):
        assert io.read_bulk(self.table(tmp_path, "1" * digits, "2")).loc["a", "g0"] == float("1" * digits)

    @pytest.mark.parametrize("text", ["1_000", "\u0661", "0x10", "1,5", "1e", "1d5", "+", "True"])
    def test_what_only_python_takes_for_a_number(self, tmp_path, text):
        with refused("1 cell(s) that are not numbers", repr(text), "row 'g0'"):
            io.read_bulk(self.table(tmp_path, text, "1", "2.5"))

    def test_long_texts_are_cut(self, tmp_path):
        with refused("not numbers: 'xxxx", "characters") as caught:
            io.read_bulk(self.table(tmp_path, "x" * 10**6, "1"))
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (b"gene\ts1\ts2\nab\0cd\t1\t2\nx\t3\t4\n", 2),
            (b"gene\ts1\ts2\nab\t1\t2\nx\t1.25\x0099\t4\n", 3),
            (b"gene\ts\x001\ts2\nab\t1\t2\n", 1),
        ],
    )
    @pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
    @pytest.mark.parametrize("read", [io.read_bulk, io.read_phenotype])
    def test_nul(self, tmp_path, content, line, name, read):
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        with refused(name, f"NUL character in line {line},"):
            read(tmp_path / name)

    @pytest.mark.parametrize(
        "content", ["g\ta\nx\t" + "1" * 2000 + "\n", "g" * 2000, "g\ta\nx\t1\ny" + "\t" * 2000]
    )
    def test_a_line_without_end(self, tmp_path, monkeypatch, content):
        monkeypatch.setattr(io._formats, "LONGEST_LINE", 1000)
        (tmp_path / "t.tsv").write_text(content)
        with refused("t.tsv has more than 1,000 characters in line", "not a table"):
            io.read_bulk(tmp_path / "t.tsv")

    def test_many_lines_may_be_longer_together(self, tmp_path, monkeypatch):
        monkeypatch.setattr(io._formats, "LONGEST_LINE", 30)
        assert io.read_bulk(self.table(tmp_path, *["1"] * 10**5)).shape == (2, 10**5)

    def test_what_unpacks_to_more_than_fits(self, tmp_path, monkeypatch):
        """A megabyte here; the limit is what the machine has."""
        monkeypatch.setattr(io._formats, "available_memory", lambda: 2**20)
        monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
        monkeypatch.setattr(memory, "SMALL", 0)
        packed = gzip.compress(b"gene\ta\n" + b"CD4\t0\n" * 10**6)
        assert len(packed) < 2**15
        (tmp_path / "t.tsv.gz").write_bytes(packed)
        with refused("t.tsv.gz", "needs", "MB, but 1.0 MB are available", "damaged", error=MemoryError):
            io.read_bulk(tmp_path / "t.tsv.gz")


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


@pytest.mark.parametrize(
    ("content", "part"), [("not json", "is not JSON"), ("{}", "not written by skenigma")]
)
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
