"""What of a table is expression: annotation is left out and named, repeated genes are refused or made one."""

import numpy as np
import pandas as pd
import pytest

from skenigma import io

from .test_reading_writing import need, refused
from .test_tables import check, read

GENES = [f"G{i}" for i in range(40)]


@pytest.fixture(scope="module")
def bulk():
    """Samples of one cohort, which go with one another as annotation does not."""
    rng = np.random.default_rng(0)
    level = rng.lognormal(4, 1.5, len(GENES))
    values = np.round(level * rng.lognormal(0, 0.2, (3, len(GENES))), 2)
    return pd.DataFrame(values, ["S1", "S2", "S3"], GENES)


def columns():
    rng = np.random.default_rng(1)
    start = 10_000 + rng.permutation(60_000)[: len(GENES)]
    return {
        "entrezgene": rng.permutation(60_000)[: len(GENES)],
        "Length": rng.integers(300, 9000, len(GENES)),
        "padj": rng.random(len(GENES)),
        "gene_name": [f"name{i}" for i in range(len(GENES))],
        "panel of ours": ["a", "b"] * (len(GENES) // 2),
        "Start": start,
    }


class TestAnnotation:
    @pytest.mark.parametrize("name", columns())
    @pytest.mark.parametrize("end", ["tsv", "parquet"])
    def test_left_out_and_named(self, tmp_path, bulk, name, end):
        need(f"t.{end}")
        table = bulk.T.rename_axis("gene")
        table.insert(0, name, columns()[name])
        io.write_table(table, tmp_path / f"t.{end}")
        notes = []
        check(io.read_bulk(tmp_path / f"t.{end}", notes=notes), bulk)
        assert notes[0].startswith(f"left out columns that describe genes: '{name}'")

    def test_nothing_else(self, tmp_path, bulk):
        names = ["entrezgene", "padj", "gene_name"]
        io.write_table(bulk.T.assign(**columns()).rename_axis("gene")[names], tmp_path / "t.tsv")
        with refused("t.tsv has no column of expression", "'entrezgene'"):
            io.read_bulk(tmp_path / "t.tsv")

    def test_a_column_of_missing_values_is_none(self, tmp_path, bulk):
        io.write_table(bulk.T.assign(S2="NA").rename_axis("gene"), tmp_path / "t.tsv")
        with refused("'NA' (row 'G0', column 'S2')", "Impute or drop"):
            io.read_bulk(tmp_path / "t.tsv")

    def test_in_a_reference_too(self, tmp_path, bulk):
        table = bulk.T.assign(entrezgene=columns()["entrezgene"]).rename_axis("gene")
        io.write_table(table, tmp_path / "t.tsv")
        check(io.read_reference(tmp_path / "t.tsv", notes=[]), bulk)

    def test_said_in_a_warning_where_no_list_takes_it(self, tmp_path, bulk):
        table = bulk.T.assign(entrezgene=columns()["entrezgene"]).rename_axis("gene")
        io.write_table(table, tmp_path / "t.tsv")
        with pytest.warns(UserWarning, match=r"t\.tsv: left out .* 'entrezgene'"):
            io.read_bulk(tmp_path / "t.tsv")

    def test_names_of_genes_from_it(self, tmp_path, bulk):
        table = bulk.T.assign(gene_name=columns()["gene_name"]).rename_axis("gene")
        for name in ("t.tsv", "t.parquet"):
            need(name)
            io.write_table(table, tmp_path / name)
            found = io.read_bulk(tmp_path / name, gene_column="gene_name", notes=[])
            check(found, bulk.set_axis(columns()["gene_name"], axis=1))

    def test_a_gene_column_that_is_not_there(self, tmp_path, bulk):
        io.write_table(bulk.T.rename_axis("gene"), tmp_path / "t.tsv")
        with refused("has no column 'symbol'", "'S1'"):
            io.read_bulk(tmp_path / "t.tsv", gene_column="symbol")
        with refused("needs genes as rows"):
            io.read_bulk(tmp_path / "t.tsv", gene_column="symbol", rows="samples")


class TestDuplicates:
    text = "gene\tS1\tS2\nCD4\t1\t2\nCD19\t5\t6\nCD4\t10\t0\nCD8\t7\t7\nCD19\t5\t5\n"

    def test_refused_by_name(self, tmp_path):
        with refused("2 of 3 genes named more than once: 'CD4', 'CD19'", "'sum'", "'largest'"):
            read(tmp_path, self.text)

    @pytest.mark.parametrize(
        ("how", "values", "word"),
        [
            ("sum", [[11, 10, 7], [2, 11, 7]], "summed 2 genes"),
            ("largest", [[10, 5, 7], [0, 6, 7]], "kept the row of the largest mean of 2 genes"),
        ],
    )
    @pytest.mark.parametrize("rows", ["genes", "samples"])
    def test_made_one(self, tmp_path, how, values, word, rows):
        text = self.text
        if rows == "samples":
            lines = [line.split("\t") for line in text.splitlines()]
            text = "\n".join("\t".join(fields) for fields in zip(*lines, strict=True)) + "\n"
        found, notes = read(tmp_path, text, duplicates=how, rows=rows)
        check(found, pd.DataFrame(np.array(values, dtype=float), ["S1", "S2"], ["CD4", "CD19", "CD8"]))
        assert notes[0].startswith(word)

    def test_negative_values_do_not_add_up(self, tmp_path):
        with refused("negative values", "'largest'"):
            read(tmp_path, self.text.replace("\t10\t", "\t-10\t"), duplicates="sum")

    def test_samples_are_never_merged(self, tmp_path):
        with refused("samples named more than once: 'S1'"):
            read(tmp_path, self.text.replace("S2", "S1"), duplicates="sum")

    def test_without_a_name(self, tmp_path):
        found, notes = read(tmp_path, "gene\tS1\nCD4\t1\n\t2\n\t3\n")
        assert found.to_dict() == {"CD4": {"S1": 1.0}}
        assert notes == ["left out 2 genes without a name"]


class TestParquet:
    """Types and indices of current pandas, and tables of other programs."""

    def write(self, frame, path):
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
        return path

    @pytest.mark.parametrize("dtype", ["Float64", "double[pyarrow]", "float32", "Int64"])
    def test_types(self, tmp_path, bulk, dtype):
        pytest.importorskip("pyarrow")
        frame = bulk.T.round().astype(dtype)
        found = io.read_bulk(self.write(frame, tmp_path / "t.parquet"))
        check(found, bulk.round().astype("float32" if dtype == "float32" else "float64"))

    @pytest.mark.parametrize("dtype", ["string", "category", object])
    @pytest.mark.parametrize("place", [0, 3])
    def test_names_in_a_column(self, tmp_path, bulk, dtype, place):
        frame = bulk.T.reset_index(drop=True)
        frame.insert(place, "symbol of it", pd.Series(GENES, dtype=dtype))
        notes = []
        check(io.read_bulk(self.write(frame, tmp_path / "t.parquet"), notes=notes), bulk)
        assert notes == ["took the names of rows from column 'symbol of it'"] * (place > 0)

    @pytest.mark.parametrize("start", [0, 1000])
    def test_a_range_names_no_genes(self, tmp_path, bulk, start):
        frame = bulk.T.set_axis(range(start, start + len(GENES)))
        with refused("does not say what its rows are", "'S1'"):
            io.read_bulk(self.write(frame, tmp_path / "t.parquet"))

    def test_missing_values(self, tmp_path, bulk):
        frame = bulk.T.copy()
        frame.iloc[3, 1] = np.nan
        with refused("t.parquet contains NaN", "row 'S2', column 'G3'"):
            io.read_bulk(self.write(frame, tmp_path / "t.parquet"))
