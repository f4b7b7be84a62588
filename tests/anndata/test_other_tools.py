"""What tests of other packages find in estimates, as the guide says: a table of its page is repeated here."""

import pathlib
import re

import numpy as np
import pandas as pd
import pytest

from skenigma.anndata import cse_to_anndata, deconvolve
from skenigma.datasets import make_counts
from skenigma.differential import log_fold_change_test

anndata = pytest.importorskip("anndata")

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "user_guide" / "howto" / "scanpy.md"
ROWS = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text("utf-8"), flags=re.M)
SAID = {name: tuple(map(int, numbers)) for name, *numbers in ROWS}

# loading scanpy, and a fit
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort():
    return make_counts(n_samples=24, n_genes=1200, n_cell_types=4, random_state=0)


@pytest.fixture(scope="module")
def adata(cohort):
    bulk = anndata.AnnData(cohort.bulk)
    bulk.obs["state"] = pd.Categorical(cohort.phenotype.map({0: "control", 1: "case"}), ["control", "case"])
    reference = pd.DataFrame(cohort.cse.mean(axis=0), cohort.cell_types, cohort.gene_names)
    return deconvolve(bulk, reference, verbose=False)


def counted(called, cohort):
    """Calls in the type that changes, the right ones of these, and those in all others."""
    changed = cohort.changed != 0
    first, *others = cohort.cell_types
    assert changed.loc[first].sum() == 100
    assert not changed.loc[others].to_numpy().any()
    return (
        len(called[first]),
        int(changed.loc[first, called[first]].sum()),
        sum(len(called[k]) for k in others),
    )


def agree(found, name):
    """Versions of numpy and of these packages may move a gene or two across a threshold."""
    np.testing.assert_allclose(found, SAID[name], rtol=0.1, atol=3)


def test_ours_on_the_bulk(adata, cohort):
    table = log_fold_change_test(
        adata.to_df("normalized"),
        adata.obsm["proportions"],
        adata.obs["state"],
        reference=adata.varm["reference"].T,
    )
    called = {kind: part["gene"][part["q_value"] < 0.05] for kind, part in table.groupby("cell_type")}
    agree(counted(called, cohort), "`log_fold_change_test`")


def test_scanpy_on_rows(adata, cohort):
    scanpy = pytest.importorskip("scanpy")
    rows = cse_to_anndata(adata, log1p=True)
    called = {}
    for kind in cohort.cell_types:
        one = rows[rows.obs["cell_type"] == kind].copy()
        scanpy.tl.rank_genes_groups(one, "state", groups=["case"], reference="control", method="t-test")
        found = scanpy.get.rank_genes_groups_df(one, group="case")
        called[kind] = found["names"][found["pvals_adj"] < 0.05]
    agree(counted(called, cohort), "`sc.tl.rank_genes_groups`, t-test")


def test_pydeseq2_on_pseudo_counts(adata, cohort):
    dds = pytest.importorskip("pydeseq2.dds")
    ds = pytest.importorskip("pydeseq2.ds")
    rows = cse_to_anndata(adata)
    total = np.asarray(adata.X).sum(axis=1)[rows.obs["sample"].cat.codes]
    reads = np.rint(rows.X * (rows.obs["proportion"].to_numpy() * total / 1e6)[:, None]).astype(int)
    called = {}
    for kind in cohort.cell_types:
        one = rows[rows.obs["cell_type"] == kind].copy()
        one.X = reads[(rows.obs["cell_type"] == kind).to_numpy()]
        fitted = dds.DeseqDataSet(adata=one, design="~state", quiet=True)
        fitted.deseq2()
        stats = ds.DeseqStats(fitted, contrast=["state", "case", "control"], quiet=True)
        stats.run_wald_test()
        stats._p_value_adjustment()
        called[kind] = rows.var_names[(stats.padj < 0.05).to_numpy()]
    agree(counted(called, cohort), "pydeseq2, pseudo-counts")
