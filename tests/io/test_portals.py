"""Tables as portals and other programs hand them out, each with its own lines and columns beside the values."""

import numpy as np
import pandas as pd
import pytest

from skenigma import io

from .test_reading_writing import refused
from .test_tables import check, read

BULK = pd.DataFrame([[1.5, 0.25], [1200.0, 3.0]], index=["S1", "S2"], columns=["CD19", "CD4"])


def gct(version="1.2", sizes=None, rows=2):
    lines = ["Name\tDescription\tS1\tS2", "CD19\tB cells\t1.5\t1200", "CD4\tT cells\t0.25\t3"][: 1 + rows]
    return "\n".join([f"#{version}", sizes or "2\t2", *lines, ""])


class TestGCT:
    def test_1_2(self, tmp_path):
        found, notes = read(tmp_path, gct(), "t.gct")
        check(found)
        assert notes == ["read as GCT 1.2", "left out columns that describe genes: 'Description'"]

    def test_1_3(self, tmp_path):
        text = (
            "#1.3\n2\t2\t2\t1\nid\tpr_symbol\tpr_type\tS1\tS2\ntissue\tna\tna\tblood\tskin\n"
            "CD19\ta\tb\t1.5\t1200\nCD4\tc\td\t0.25\t3\n"
        )
        found, notes = read(tmp_path, text, "t.txt")
        check(found)
        assert "left out rows that describe samples: 'tissue'" in notes

    def test_genes_by_the_description(self, tmp_path):
        found, notes = read(tmp_path, gct(), gene_column="Description")
        assert list(found.columns) == ["B cells", "T cells"]
        assert notes[1:] == ["took the names of genes from column 'Description', instead of the first column"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (gct(rows=1), "says that it has 2 genes, but holds 1"),
            (gct(sizes="2\t3"), "says that it has 3 columns"),
            (gct(sizes="two"), "its second is 'two"),
            (gct("1.3"), "GCT 1.3 by its first line"),
        ],
    )
    def test_damaged(self, tmp_path, text, words):
        with refused("t.gct", words):
            read(tmp_path, text, "t.gct")

    def test_without_its_two_lines(self, tmp_path):
        """As people cut them off: the description remains."""
        found, notes = read(tmp_path, gct().split("\n", 2)[2])
        check(found)
        assert "'Description'" in notes[0]


SERIES = (
    '!Series_title\t"a series"\n!Series_summary\t"text, with\ttabs"\n\n!Sample_title\t"one"\t"two"\n'
    '!Sample_geo_accession\t"GSM1"\t"GSM2"\n!series_matrix_table_begin\n'
)


class TestSeriesMatrix:
    @pytest.mark.parametrize("n_genes", [2, 200])
    def test_values(self, tmp_path, n_genes):
        values = np.arange(2.0 * n_genes).reshape(n_genes, 2) / 4
        rows = "".join(f'"p{i}"\t{a}\t{b}\n' for i, (a, b) in enumerate(values))
        text = SERIES + '"ID_REF"\t"GSM1"\t"GSM2"\n' + rows + "!series_matrix_table_end\n"
        found, notes = read(tmp_path, text, "GSE1_series_matrix.txt")
        np.testing.assert_array_equal(found, values.T)
        assert list(found.index) == ["GSM1", "GSM2"]
        assert found.columns[-1] == f"p{n_genes - 1}"
        assert notes == ["read as GEO series matrix, 6 lines of description left out"]

    def test_empty(self, tmp_path):
        text = SERIES + '"ID_REF"\t"GSM1"\t"GSM2"\n!series_matrix_table_end\n'
        with refused("series matrix without values", "supplementary"):
            read(tmp_path, text)

    def test_family_file(self, tmp_path):
        with refused("has no table", "SOFT"):
            read(tmp_path, "^DATABASE = GeoMiame\n!Database_name = GEO\n^SERIES = GSE1\n")


def test_cbioportal(tmp_path):
    text = "Hugo_Symbol\tEntrez_Gene_Id\tS1\tS2\nCD19\t930\t1.5\t1200\n\t100\t7\t7\n\t101\t8\t8\nCD4\t920\t0.25\t3\n"
    found, notes = read(tmp_path, text, "data_mrna_seq_v2_rsem.txt")
    check(found)
    assert "cBioPortal" in notes[0]
    assert notes[1] == "left out 2 genes without a name"


@pytest.mark.parametrize("corner", ["Ensembl_ID", "sample"])
def test_xena(tmp_path, corner):
    text = f"{corner}\tS1\tS2\nCD19\t1.5\t1200\n__no_feature\t21\t22\nCD4\t0.25\t3\n__ambiguous\t3\t4\n"
    found, notes = read(tmp_path, text)
    check(found)
    assert notes == ["left out rows that are not genes: '__no_feature', '__ambiguous'"]


class TestFirehose:
    text = (
        "Hybridization REF\tS1\tS2\ngene_id\tnormalized_count\tnormalized_count\n"
        "CD19|930\t1.5\t1200\nCD4|920\t0.25\t3\n"
    )

    def test_one_column_for_a_sample(self, tmp_path):
        found, notes = read(tmp_path, self.text)
        check(found, BULK.set_axis(["CD19|930", "CD4|920"], axis=1))
        assert notes == ["read as a table of Firehose, which holds 'normalized_count'"]

    def test_several(self, tmp_path):
        with refused("several columns for a sample", "'raw_count', 'scaled_estimate'"):
            read(
                tmp_path,
                self.text.replace("normalized_count", "raw_count", 1).replace(
                    "normalized_count", "scaled_estimate"
                ),
            )


def test_signature_of_cibersort(tmp_path):
    text = "Gene symbol\tB cells naive\tT cells CD4 memory resting\nABCB4\t555.7\t10.74\nABCB9\t15.6\t94.7\n"
    found, notes = read(tmp_path, text, "LM22.txt", io.read_reference)
    assert found.loc["T cells CD4 memory resting"].to_dict() == {"ABCB4": 10.74, "ABCB9": 94.7}
    assert notes == []


@pytest.mark.parametrize(
    ("corner", "measures", "delimiter"),
    [
        ("Mixture", ["P-value", "Correlation", "RMSE"], "\t"),
        ("Input Sample", ["P-value", "Pearson Correlation", "RMSE"], ","),
        ("Mixture", ["P-value", "Correlation", "RMSE", "Absolute score (sig.score)"], "\t"),
    ],
)
def test_results_of_cibersort(tmp_path, corner, measures, delimiter):
    rows = [[corner, "B cells", "T cells", *measures], ["S1", "0.25", "0.75", *["0.5"] * len(measures)]]
    text = "\n".join(delimiter.join(row) for row in rows) + "\n"
    found, notes = read(tmp_path, text, "r.txt", io.read_proportions)
    assert found.loc["S1"].to_dict() == {"B cells": 0.25, "T cells": 0.75}
    assert all(f"'{name}'" in notes[0] for name in measures)


def test_a_cell_type_may_be_called_like_a_measure(tmp_path):
    found, _ = read(tmp_path, "sample\tB\tRMSE\nS1\t0.25\t0.75\n", reader=io.read_proportions)
    assert list(found.columns) == ["B", "RMSE"]
