"""What is as large as the bulk is held as often as it has to be: memory that NumPy's arrays take, in copies of X."""

import tracemalloc
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from skenigma import ProportionEstimator, io
from skenigma.anndata import _write, deconvolve
from skenigma.batch import BulkBatchCorrector, ReferenceBatchCorrector, _effect
from skenigma.core.regress import generalized
from skenigma.io import _engines, _tables
from skenigma.io._formats import Text
from skenigma.io._layout import Layout
from skenigma.io._written import read_layers
from skenigma.proportions import _methods

N_SAMPLES, N_GENES = 100, 3000


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    reference = rng.lognormal(3, 1, (3, N_GENES))
    shares = rng.dirichlet([2.0, 2.0, 2.0], N_SAMPLES)
    return shares @ reference * rng.lognormal(0, 0.2, (N_SAMPLES, N_GENES)), reference, shares


def copies(run, X):
    """Most memory at once, and what is left, beyond what there was, in sizes of X."""
    tracemalloc.start()
    try:
        kept = run()
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept is not None
    return peak / X.nbytes, left / X.nbytes


def test_robust_regression(cohort, monkeypatch):
    X, reference, _ = cohort
    monkeypatch.setattr(_methods, "STANDARDISED_AT_ONCE", X.size // 10)
    peak, _ = copies(lambda: ProportionEstimator(reference).fit(X), X)
    assert peak < 1.3  # working arrays of a fixed size, which are as large as X here


def hold_logarithms(monkeypatch, count):
    """Let correctors hold so many logarithms at a time, of some genes or of some samples."""
    monkeypatch.setattr(generalized, "BLOCK_ENTRIES", count)
    monkeypatch.setattr(_effect, "LOGS_AT_ONCE", count)


def test_batch_correction(cohort, monkeypatch):
    """The corrected bulk is one; everything else is held by blocks."""
    X, reference, shares = cohort
    hold_logarithms(monkeypatch, X.size // 40)
    model = BulkBatchCorrector(reference)
    peak, left = copies(lambda: model.fit(X, proportions=shares), X)
    assert peak < 0.4
    assert left < 0.1
    peak, left = copies(lambda: model.transform(X), X)
    assert peak < 1.25
    assert left < 1.05


def test_correction_of_the_reference(cohort, monkeypatch):
    """Bulk and pseudo-bulk are there already, and everything as large as either is held by blocks."""
    X, reference, shares = cohort
    hold_logarithms(monkeypatch, X.size // 40)
    model = ReferenceBatchCorrector(pseudobulk=Bunch(bulk=shares @ reference, proportions=shares))
    peak, left = copies(lambda: model.fit(X), X)
    assert peak < 0.4
    assert left < 0.2


def test_blocks_of_genes_change_no_restored_reference(cohort, monkeypatch):
    X, reference, shares = cohort
    mixed = Bunch(bulk=(shares @ reference)[:70], proportions=shares[:70])
    whole = ReferenceBatchCorrector(pseudobulk=mixed).fit(X)
    hold_logarithms(monkeypatch, 700 * N_SAMPLES)
    parts = ReferenceBatchCorrector(pseudobulk=mixed).fit(X)
    # means of columns, summed in another order where these stand otherwise in memory
    np.testing.assert_allclose(parts.slope_, whole.slope_, rtol=1e-12)
    np.testing.assert_allclose(parts.reference_, whole.reference_, rtol=1e-11)


def test_blocks_change_nothing(cohort, monkeypatch):
    X, reference, shares = cohort
    whole, whole_shares = (
        BulkBatchCorrector(reference).fit(X, proportions=shares),
        ProportionEstimator(reference).fit(X),
    )
    hold_logarithms(monkeypatch, 7 * N_GENES)
    monkeypatch.setattr(_methods, "STANDARDISED_AT_ONCE", 7 * N_GENES)
    parts = BulkBatchCorrector(reference).fit(X, proportions=shares)
    np.testing.assert_allclose(parts.transform(X), whole.transform(X), rtol=1e-12)
    # the same regression in other products: rounding, which the iteration may carry
    found = ProportionEstimator(reference).fit(X).proportions_
    np.testing.assert_allclose(found, whole_shares.proportions_, rtol=0, atol=1e-12)


class OneAtATime(Mapping):
    """Expression of which no more than one cell type may be held."""

    def __init__(self, bulk, kinds):
        self.bulk, self.kinds = bulk, kinds

    def __getitem__(self, kind):
        return self.bulk * (1.0 + self.kinds.index(kind))

    def __iter__(self):
        return iter(self.kinds)

    def __len__(self):
        return len(self.kinds)


@pytest.mark.parametrize("engine", ["polars", pytest.param("pandas", marks=pytest.mark.slow)])
def test_reading_a_text(cohort, tmp_path, monkeypatch, engine):
    """A text of numbers is read by blocks into one array, a fifth of which may be empty: not four or five times."""
    X = cohort[0]
    genes = pd.Index([f"g{i}" for i in range(N_GENES)], name="gene")
    names = ["gene", *(f"s{j}" for j in range(N_SAMPLES))]
    io.write_table(pd.DataFrame(X.T, genes, names[1:]), tmp_path / "bulk.tsv")
    if engine == "polars":
        pytest.importorskip("polars")
    else:
        monkeypatch.setattr(_engines, "_polars", lambda: None)
    for module, name in ((_engines, "LARGE"), (_engines, "CHUNK"), (_tables, "PART")):
        monkeypatch.setattr(module, name, 2**16 if name != "LARGE" else 0)
    monkeypatch.setattr(_tables, "FEWEST_ROWS", 1)
    text, layout = Text(tmp_path / "bulk.tsv"), Layout("\t", 0, True, names, 0, list(range(1, len(names))))
    _tables.parse(text, layout)  # what is imported counts otherwise
    peak, _ = copies(lambda: _tables.parse(text, layout), X)
    # names of genes, blocks, and a megabyte of the file, nearly as large as X where it is this small
    assert peak < 2.1


@pytest.mark.filterwarnings("ignore:.*took the names of genes")
@pytest.mark.parametrize("choices", [{}, {"gene_column": "symbol"}])
def test_reading_an_anndata(cohort, tmp_path, choices):
    """The bulk of an AnnData is read without a copy, whichever names its genes are given."""
    anndata = pytest.importorskip("anndata")
    X = cohort[0]
    genes = pd.DataFrame(
        {"symbol": [f"gene {i}" for i in range(N_GENES)]}, index=[f"ENSG{i}" for i in range(N_GENES)]
    )
    anndata.AnnData(X, var=genes).write_h5ad(tmp_path / "bulk.h5ad")
    io.read_bulk(tmp_path / "bulk.h5ad", **choices)  # what is imported counts otherwise
    peak, _ = copies(lambda: io.read_bulk(tmp_path / "bulk.h5ad", **choices), X)
    assert peak < 1.9  # names of genes are objects, more than half of X where samples are this few


def test_anndata_is_written_one_cell_type_after_the_other(cohort, tmp_path):
    pytest.importorskip("anndata")
    X, _, _ = cohort
    bulk = pd.DataFrame(X, [f"s{j}" for j in range(len(X))], [f"g{i}" for i in range(N_GENES)])
    kinds = ["B", "T", "NK", "monocyte / macrophage", "DC", "platelet"]
    shares = pd.DataFrame(1 / 6, bulk.index, kinds)
    write = io.write_anndata
    write(tmp_path / "first.h5ad", OneAtATime(bulk, kinds), bulk, shares)  # what is imported counts otherwise

    def run():
        write(tmp_path / "t.h5ad", OneAtATime(bulk, kinds), bulk, shares)
        return True

    peak, left = copies(run, X)
    assert peak < 2.6  # one frame, its copy in the making, and anndata's own of X
    assert left < 0.1
    found = read_layers(tmp_path / "t.h5ad")
    assert list(found) == kinds
    for number, kind in enumerate(kinds):
        pd.testing.assert_frame_equal(found[kind], bulk * (1.0 + number))


@pytest.mark.slow
def test_layers_of_an_anndata(cohort, monkeypatch):
    """Layers, ``X`` and the scaled bulk are the result; a tensor beside them would be eight sizes of X more."""
    anndata = pytest.importorskip("anndata")
    X, rng = cohort[0], np.random.default_rng(1)
    monkeypatch.setattr(_write, "BLOCK_SIZE", X.size // 10)
    genes = [f"gene{g}" for g in range(N_GENES)]
    bulk = anndata.AnnData(X, var=pd.DataFrame(index=genes))
    profiles = pd.DataFrame(rng.lognormal(3, 1, (8, N_GENES)), list("ABCDEFGH"), genes)
    shares = rng.dirichlet(np.ones(8), N_SAMPLES)
    how = {"model": "bayes", "proportions": shares, "normalize": 1e6, "verbose": False}
    peak, _ = copies(lambda: deconvolve(bulk, profiles, **how), X)
    layers = 2 * 8
    assert peak < layers + 6  # working arrays of a fixed size, which are as large as X here
