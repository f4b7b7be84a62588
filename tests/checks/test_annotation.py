"""Columns that describe genes are told from samples and cell types, by name and content."""

import numpy as np
import pandas as pd
import pytest

from skenigma import ProportionEstimator
from skenigma.checks import annotation
from skenigma.checks.annotation import annotation_columns, refuse_annotation

N_GENES = 200


@pytest.fixture(scope="module")
def expression():
    """Samples of one cohort: they go with one another."""
    rng = np.random.default_rng(0)
    level = rng.lognormal(4, 1.5, N_GENES)
    values = rng.poisson(level[:, None] * rng.lognormal(0, 0.2, (N_GENES, 6)))
    return pd.DataFrame(values.astype(float), [f"g{i}" for i in range(N_GENES)], [f"s{j}" for j in range(6)])


def columns():
    rng = np.random.default_rng(1)
    entrez = rng.permutation(60_000)[:N_GENES].astype(float)
    start = rng.integers(1, 2e8, N_GENES)
    return {
        "entrezgene": (entrez, annotation.IDENTIFIER),
        "EntrezID": (np.where(np.arange(N_GENES) % 9, entrez, np.nan), annotation.IDENTIFIER),
        "gene_id": (entrez.astype(int), annotation.IDENTIFIER),
        "Length": (rng.integers(300, 9000, N_GENES), annotation.LENGTH),
        "eff_length": (rng.uniform(100, 9000, N_GENES), annotation.LENGTH),
        "Start": (start, annotation.PLACE),
        "End": (start + 500, annotation.PLACE),
        "Chr": (rng.integers(1, 23, N_GENES), annotation.CHROMOSOME),
        "chromosome_name": (["chr1;chr1"] * N_GENES, annotation.CHROMOSOME),
        "Strand": (rng.choice([-1, 1], N_GENES), annotation.STRAND),
        "padj": (np.where(np.arange(N_GENES) % 5, rng.random(N_GENES), np.nan), annotation.TEST),
        "adj.P.Val": (rng.random(N_GENES), annotation.TEST),
        "log2FoldChange": (rng.normal(size=N_GENES), annotation.TEST),
        "baseMean": (rng.lognormal(4, 1, N_GENES), annotation.AGGREGATE),
        "Row.mean": (rng.lognormal(4, 1, N_GENES), annotation.AGGREGATE),
        "Unnamed: 0": (np.arange(N_GENES), annotation.NUMBERED),
        "percentage_gene_gc_content": (rng.uniform(30, 70, N_GENES), annotation.CONTENT),
        "gene_biotype": (["protein_coding"] * N_GENES, annotation.TEXT),
        "Description": (pd.array([f"a gene {i}" for i in range(N_GENES)], dtype="string"), annotation.TEXT),
    }


@pytest.mark.parametrize("name", columns())
def test_a_column_of_annotation_is_found_alone_among_samples(expression, name):
    values, kind = columns()[name]
    table = expression.copy()
    table.insert(2, name, values)
    assert [(found.name, found.note) for found in annotation_columns(table)] == [(name, kind)]


def test_all_of_featurecounts_beside_one_sample():
    """Nothing to compare with but chromosome and strand."""
    known = columns()
    table = pd.DataFrame({name: known[name][0] for name in ("Chr", "Start", "End", "Strand", "Length")})
    table["/data/x.bam"] = np.random.default_rng(0).poisson(30, N_GENES)
    assert [found.name for found in annotation_columns(table)] == ["Chr", "Start", "End", "Strand", "Length"]


@pytest.mark.parametrize("name", ["mean", "Median", "sum", "sd", "variance", "min", "max"])
def test_summaries_of_the_others_are_recognised_by_their_values(expression, name):
    summary = getattr(expression, {"Median": "median", "sd": "std", "variance": "var"}.get(name, name))(
        axis=1
    )
    assert [found.name for found in annotation_columns(expression.assign(**{name: summary.round(3)}))] == [
        name
    ]


@pytest.mark.parametrize(
    "name",
    ["Start", "End", "Length", "Width", "Position", "mean", "Total", "sum", "id", "x", "Rank", "t", "B", "P", "f",
     "No", "size", "stat", "padj", "Chr", "Strand", "pvalue", "geneid"],
)  # fmt: skip
def test_a_sample_may_be_called_so(expression, name):
    """The values are those of a sample: no name alone makes annotation of them."""
    renamed = expression.rename(columns={"s1": name})
    # identifiers and chromosomes are whole numbers, and so are counts: made not whole
    renamed = renamed + 0.25 if name in ("geneid",) else renamed
    assert annotation_columns(renamed) == []


def test_cell_types_called_b_and_t_stay_beside_decimal_commas(expression):
    table = expression.rename(columns={"s0": "B", "s1": "T", "s2": "Max"})
    table = table.apply(lambda column: column.map(lambda value: f"{value:.1f}".replace(".", ",")))
    assert annotation_columns(table) == []


def test_statistics_of_a_test_go_with_its_fold_changes(expression):
    rng = np.random.default_rng(2)
    table = expression.assign(
        logFC=rng.normal(size=N_GENES), t=rng.normal(size=N_GENES), B=rng.normal(size=N_GENES)
    )
    assert [found.name for found in annotation_columns(table)] == ["logFC", "t", "B"]


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]", object, "float32"])
def test_types_of_pandas(expression, dtype):
    pytest.importorskip("pyarrow")
    entrez = pd.Series(columns()["gene_id"][0], expression.index).astype(dtype)
    assert [found.name for found in annotation_columns(expression.assign(entrez=entrez))] == ["entrez"]


def test_rows_of_an_array_are_refused_by_name(expression):
    values = np.vstack([expression.T, columns()["Length"][0]])
    names = np.array([*expression.columns, "Length"], dtype=object)
    with pytest.raises(
        ValueError, match=r"1 row.*'Length' \(lengths of genes\).*X.drop\(index=\['Length'\]\)"
    ):
        refuse_annotation(names, values, "X", "sample")
    refuse_annotation(names[:-1], values[:-1], "X", "sample")
    refuse_annotation(None, values, "X", "sample")


@pytest.mark.parametrize("table", ["X", "reference"])
def test_estimators_refuse_annotation(expression, table):
    """Missing identifiers, as BioMart has them, are not what the message is about."""
    entrez = columns()["EntrezID"][0]
    frames = {"X": expression.T, "reference": expression.T.iloc[:3]}
    frames[table].loc["EntrezID"] = entrez
    with pytest.raises(ValueError, match=rf"{table} has 1 row\(s\) that seem to annotate genes.*'EntrezID'"):
        ProportionEstimator(frames["reference"]).fit(frames["X"])
