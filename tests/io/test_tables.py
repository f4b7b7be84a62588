"""Tables as people have them: delimiters, decimals, headers and bytes are told by what stands in the file."""

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pytest

from skenigma import io

from .test_reading_writing import refused

BULK = pd.DataFrame([[1.5, 0.25], [1200.0, 3.0]], index=["S1", "S2"], columns=["CD19", "CD4"])
PLAIN = "gene\tS1\tS2\nCD19\t1.5\t1200\nCD4\t0.25\t3\n"


def read(tmp_path, content, name="t.tsv", reader=io.read_bulk, **how):
    """What a reader makes of a file, and its notes."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    notes = []
    return reader(path, notes=notes, **how), notes


def check(found, expected=BULK):
    pd.testing.assert_frame_equal(found, expected, check_names=False)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.txt", "t", "t.dat"])
@pytest.mark.parametrize("delimiter", ["\t", ",", ";", " ", "|"])
def test_delimiter_is_told_by_the_lines(tmp_path, name, delimiter):
    found, notes = read(tmp_path, PLAIN.replace("\t", delimiter), name)
    check(found)
    assert notes == []


@pytest.mark.parametrize("delimiter", ["\t", ";"])
@pytest.mark.parametrize("samples", [["S1"], ["S1", "S2"]])
def test_decimal_commas(tmp_path, delimiter, samples):
    text = BULK.loc[samples].T.to_csv(sep=delimiter, index_label="gene", decimal=",")
    found, notes = read(tmp_path, text, "t.csv")
    check(found, BULK.loc[samples])
    assert notes == ["read commas as decimal points"]


def test_decimal_commas_far_down(tmp_path):
    """The beginning holds zeros alone."""
    rows = [f"g{i}\t0\t0" for i in range(100)] + ["g100\t0,5\t1,25e2"]
    found, notes = read(tmp_path, "gene\tS1\tS2\n" + "\n".join(rows) + "\n")
    assert found["g100"].tolist() == [0.5, 125.0]
    assert notes == ["read commas as decimal points"]


def test_no_digit_is_lost_by_decimal_commas(tmp_path):
    values = np.random.default_rng(0).standard_normal((20, 30))
    frame = pd.DataFrame(values).rename(index=str, columns=lambda i: f"g{i}")
    found, _ = read(tmp_path, frame.T.to_csv(sep=";", index_label="gene", decimal=","))
    np.testing.assert_array_equal(found, values)


def test_commas_that_may_stand_between_thousands(tmp_path):
    with refused("t.tsv", "'1,234'", "cannot be told"):
        read(tmp_path, "gene\tS1\nCD4\t1,234\nCD8\t12,345\n")


def test_names_with_commas_in_a_table_with_tabs(tmp_path):
    found, _ = read(tmp_path, "gene\tT cell, CD4\tB\nA\t1\t2\n", reader=io.read_reference)
    assert list(found.index) == ["T cell, CD4", "B"]


class TestHeader:
    def test_r_s_way(self, tmp_path):
        check(read(tmp_path, PLAIN.removeprefix("gene\t"))[0])

    def test_r_s_way_with_spaces_and_quotes(self, tmp_path):
        check(read(tmp_path, '"S1" "S2"\n"CD19" 1.5 1200\n"CD4" 0.25 3\n', "t.txt")[0])

    @pytest.mark.parametrize("corner", ["gene", "Gene_Symbol", "ENSEMBL ID", "Name", "probe.id"])
    def test_a_name_too_few_beside_a_name_for_genes(self, tmp_path, corner):
        """Read R's way, values of S3 would stand under S2."""
        with refused("one field less", f"'{corner}'", "another column is missing"):
            read(tmp_path, f"{corner}\tS1\tS2\nCD19\t1\t2\t3\nCD4\t4\t5\t6\n")

    def test_a_delimiter_at_the_end_of_the_header(self, tmp_path):
        found, notes = read(tmp_path, PLAIN.replace("S2\n", "S2\t\n"))
        check(found)
        assert "end of the header" in notes[0]

    def test_a_delimiter_at_the_end_of_every_row(self, tmp_path):
        check(read(tmp_path, "gene\tS1\tS2\nCD19\t1.5\t1200\t\nCD4\t0.25\t3\t\n")[0])

    def test_a_delimiter_at_the_end_of_every_line(self, tmp_path):
        check(read(tmp_path, PLAIN.replace("\n", "\t\n"))[0])

    def test_a_name_too_many(self, tmp_path):
        with refused("header has 4 fields", "first row 3"):
            read(tmp_path, PLAIN.replace("S2\n", "S2\tS3\n"))

    @pytest.mark.parametrize(("corner", "first"), [("", 1), ("", 0), ("X", 1), ("Unnamed: 0", 0)])
    def test_row_numbers_before_the_names(self, tmp_path, corner, first):
        text = f"{corner},gene,S1,S2\n{first},CD19,1.5,1200\n{first + 1},CD4,0.25,3\n"
        found, notes = read(tmp_path, text)
        check(found)
        assert notes == ["left out the numbers of the rows; 'gene' holds their names"]

    def test_row_numbers_without_a_field_in_the_header(self, tmp_path):
        check(read(tmp_path, "gene\tS1\tS2\n1\tCD19\t1.5\t1200\n2\tCD4\t0.25\t3\n")[0])

    @pytest.mark.parametrize(
        ("before", "note"),
        [
            ("\n", False),
            ("\n\n", False),
            ("sep=\t\n", True),
            ("# made by\n# someone, for S1\n", True),
            ("#a\tb\n\n", True),
        ],
    )
    def test_lines_before_it(self, tmp_path, before, note):
        found, notes = read(tmp_path, before + PLAIN)
        check(found)
        assert bool(notes) == note

    def test_it_may_begin_with_a_hash(self, tmp_path):
        check(read(tmp_path, "# a comment\n#" + PLAIN)[0])
        check(read(tmp_path, "#" + PLAIN)[0])

    def test_nothing_but_comments(self, tmp_path):
        with refused("t.tsv", "no rows"):
            read(tmp_path, "# a\n# b\n")


def test_empty_rows_of_a_spreadsheet(tmp_path):
    found, notes = read(tmp_path, PLAIN + "\t\t\n\t\t\n")
    check(found)
    assert notes == ["left out 2 empty rows"]


def test_a_row_that_is_cut(tmp_path):
    with refused("t.tsv", "'' (row 'CD4', column 'S2')"):
        read(tmp_path, "gene\tS1\tS2\nCD19\t1.5\t1200\nCD4\t0.25\n")


@pytest.mark.parametrize("entry", ["#VALUE!", "#DIV/0!", "#REF!"])
def test_errors_of_excel(tmp_path, entry):
    with refused(f"'{entry}' (row 'CD4', column 'S2')", "errors of Excel"):
        read(tmp_path, PLAIN.replace("\t3\n", f"\t{entry}\n"))


class TestBytes:
    @pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.csv"])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
    def test_packing_whatever_the_name(self, tmp_path, name, pack):
        check(read(tmp_path, pack(PLAIN.encode()), name)[0])

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_encodings_with_a_mark(self, tmp_path, encoding, pack):
        check(read(tmp_path, pack(PLAIN.encode(encoding)))[0])

    def test_utf_16_of_other_bytes_first(self, tmp_path):
        check(read(tmp_path, b"\xfe\xff" + PLAIN.encode("utf-16-be"))[0])

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_ends_of_lines(self, tmp_path, end):
        check(read(tmp_path, PLAIN.replace("\n", end))[0])

    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
    def test_damaged(self, tmp_path, pack):
        whole = pack(PLAIN.encode() * 5000)
        with refused("not a complete"):
            read(tmp_path, whole[: len(whole) // 2])

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"X\n\x00\x00\x00\x03", "an R object (.rds): write the table from R"),
            (gzip.compress(b"X\n\x00\x00\x00\x03", mtime=0), "an R object"),
            (gzip.compress(b"RDX3\nX\n", mtime=0), "R data (.RData)"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook"),
            (b"ARROW1\x00\x00", "Feather"),
            (b"%%MatrixMarket matrix coordinate integer general\n", "give the folder"),
            (b"\n<!DOCTYPE HTML>\n<p>Log in", "a web page"),
            (b"<html><body>", "a web page"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"a" * 257 + b"ustar\x00", "a tar archive"),
            (b"PK\x03\x04broken", "a damaged zip archive"),
            (b"", "is empty"),
        ],
    )
    @pytest.mark.parametrize("reader", [io.read_bulk, io.read_phenotype])
    def test_formats_that_are_refused_by_name(self, tmp_path, content, words, reader):
        with refused("t.tsv", words):
            read(tmp_path, content, reader=reader)


@pytest.mark.parametrize("end", [";", "\t"])
def test_proportions_and_phenotype_of_a_clinic(tmp_path, end):
    """Semicolons, decimal commas, UTF-16."""
    shares = f"sample{end}B{end}T\nS1{end}0,25{end}0,75\n".encode("utf-16")
    found, _ = read(tmp_path, shares, "shares.csv", io.read_proportions)
    assert found.loc["S1"].to_dict() == {"B": 0.25, "T": 0.75}
    people = f"sample{end}group{end}dose\nS1{end}case{end}1,5\nS2{end}{end}2\n".encode("utf-16")
    found, _ = read(tmp_path, people, "people.csv", io.read_phenotype)
    assert found["dose"].tolist() == [1.5, 2.0]
    assert found["group"].isna().tolist() == [False, True]


class TestWorkbook:
    def write(self, path, rows, others=()):
        openpyxl = pytest.importorskip("openpyxl")
        workbook = openpyxl.Workbook()
        workbook.active.title = "expression"
        for row in rows:
            workbook.active.append(row)
        for name in others:
            workbook.create_sheet(name)
        workbook.save(path)
        return path

    def test_first_sheet(self, tmp_path):
        rows = [["gene", "S1", "S2"], ["CD19", 1.5, 1200], [], ["CD4", 0.25, 3]]
        notes = []
        check(io.read_bulk(self.write(tmp_path / "t.xlsx", rows, ["other"]), notes=notes))
        assert notes == ["read sheet 'expression' of the workbook; other sheets are not read: 'other'"]

    def test_whatever_its_name(self, tmp_path):
        rows = [["gene", "S1", "S2"], ["CD19", 1.5, 1200], ["CD4", 0.25, 3]]
        check(io.read_bulk(self.write(tmp_path / "t.xlsx", rows).rename(tmp_path / "t.tsv"), notes=[]))

    def test_no_digit_is_lost(self, tmp_path):
        value = 1 / 3
        found = io.read_bulk(self.write(tmp_path / "t.xlsx", [["gene", "S1"], ["CD4", value]]), notes=[])
        assert found.loc["S1", "CD4"] == value

    def test_phenotype(self, tmp_path):
        rows = [["sample", "group", "age"], ["S1", "case", 61], ["S2", None, 47]]
        found = io.read_phenotype(self.write(tmp_path / "t.xlsx", rows), notes=[])
        assert found["age"].tolist() == [61, 47]
        assert found["group"].isna().tolist() == [False, True]

    def test_dates_for_genes_stay_recognisable(self, tmp_path):
        import datetime

        rows = [["gene", "S1"], [datetime.datetime(2024, 9, 2), 1.0], ["CD4", 2.0]]
        found = io.read_bulk(self.write(tmp_path / "t.xlsx", rows), notes=[])
        assert list(found.columns) == ["2-Sep", "CD4"]

    def test_empty(self, tmp_path):
        with refused("first sheet, 'expression', is empty"):
            io.read_bulk(self.write(tmp_path / "t.xlsx", []))
