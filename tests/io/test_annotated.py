"""AnnData, 10x and loom: which matrix, and which names of genes."""

import gzip

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import io as scipy_io
from scipy import sparse

from skenigma import io

from .test_reading_writing import refused

anndata = pytest.importorskip("anndata")
h5py = pytest.importorskip("h5py")

COUNTS = np.array([[30.0, 0, 2], [4, 5, 60]])
SAMPLES, GENES, SYMBOLS = ["S1", "S2"], ["ENSG1", "ENSG2", "ENSG3"], ["CD19", "CD4", "CD8A"]


def data(X, **more):
    var = pd.DataFrame({"symbol": SYMBOLS}, index=GENES)
    return anndata.AnnData(X, obs=pd.DataFrame(index=SAMPLES), var=var, **more)


@pytest.fixture
def logarithms(tmp_path):
    found = data(np.log1p(COUNTS), layers={"counts": COUNTS})
    found.raw = data(2 * COUNTS)
    found.uns["log1p"] = {}
    found.write_h5ad(tmp_path / "t.h5ad")
    return tmp_path / "t.h5ad"


class TestLayer:
    def test_logarithms_are_not_taken_in_silence(self, logarithms):
        with refused("X holds logarithms", "'counts', 'raw'"):
            io.read_bulk(logarithms)

    @pytest.mark.parametrize(
        ("layer", "values"), [("counts", COUNTS), ("raw", 2 * COUNTS), ("X", np.log1p(COUNTS))]
    )
    def test_chosen(self, logarithms, layer, values):
        found = io.read_bulk(logarithms, layer=layer)
        assert_array_equal(found, values)
        assert (list(found.index), list(found.columns)) == (SAMPLES, GENES)

    def test_that_is_not_there(self, logarithms):
        with refused("no layer 'count'", "'counts', 'raw'"):
            io.read_bulk(logarithms, layer="count")

    def test_no_x(self, tmp_path):
        data(None, layers={"counts": COUNTS}).write_h5ad(tmp_path / "t.h5ad")
        with refused("has no X", "'counts'"):
            io.read_bulk(tmp_path / "t.h5ad")
        assert_array_equal(io.read_bulk(tmp_path / "t.h5ad", layer="counts"), COUNTS)

    @pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
    def test_sparse(self, tmp_path, kind):
        data(kind(COUNTS), layers={"counts": kind(COUNTS)}).write_h5ad(tmp_path / "t.h5ad")
        for layer in (None, "counts"):
            assert_array_equal(io.read_bulk(tmp_path / "t.h5ad", layer=layer), COUNTS)


class TestGeneColumn:
    def test_symbols(self, tmp_path):
        data(COUNTS).write_h5ad(tmp_path / "t.h5ad")
        notes = []
        assert list(io.read_bulk(tmp_path / "t.h5ad", gene_column="symbol", notes=notes).columns) == SYMBOLS
        assert notes == ["took the names of genes from var column 'symbol'"]
        with refused("var has no column 'name'", "'symbol'"):
            io.read_bulk(tmp_path / "t.h5ad", gene_column="name")

    @pytest.mark.parametrize(
        ("names", "left"), [(["CD19", None, "CD8A"], [0, 2]), (["CD19", "", "CD8A"], [0, 2])]
    )
    def test_genes_without_a_symbol(self, tmp_path, names, left):
        found = data(COUNTS)
        found.var["symbol"] = pd.Categorical(names) if None in names else names
        found.write_h5ad(tmp_path / "t.h5ad")
        notes = []
        assert_array_equal(
            io.read_bulk(tmp_path / "t.h5ad", gene_column="symbol", notes=notes), COUNTS[:, left]
        )
        assert "left out 1 genes" in notes[1]

    def test_symbols_that_repeat(self, tmp_path):
        found = data(COUNTS)
        found.var["symbol"] = ["CD19", "CD4", "CD4"]
        found.write_h5ad(tmp_path / "t.h5ad")
        with refused("1 of 2 genes named more than once: 'CD4'"):
            io.read_bulk(tmp_path / "t.h5ad", gene_column="symbol", notes=[])
        found = io.read_bulk(tmp_path / "t.h5ad", gene_column="symbol", duplicates="sum", notes=[])
        assert_array_equal(found, [[30, 2], [4, 65]])


def test_names_of_samples_that_repeat(tmp_path):
    found = data(COUNTS)
    found.obs_names = ["S1", "S1"]
    found.write_h5ad(tmp_path / "t.h5ad")
    with refused("samples named more than once: 'S1'"):
        io.read_bulk(tmp_path / "t.h5ad")


CELLS = sparse.csr_matrix(np.array([[1, 0, 2, 9], [0, 3, 0, 9]]))
KINDS = ["Gene Expression"] * 3 + ["Antibody Capture"]


def write_10x(path, version=3):
    turned = sparse.csc_matrix(CELLS.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(turned, name)
        group["shape"] = turned.shape
        group["barcodes"] = np.array([b"AAA-1", b"CCC-1"])
        ids, symbols = np.array([*GENES, "AB1"], dtype="S"), np.array([*SYMBOLS, "CD3"], dtype="S")
        if version == 3:
            features = group.create_group("features")
            features["id"], features["name"] = ids, symbols
            features["feature_type"] = np.array(KINDS, dtype="S")
        else:
            group["genes"], group["gene_names"] = ids, symbols
    return path


def write_mtx(folder, packed=True):
    opened, end = (gzip.open, ".gz") if packed else (open, "")
    with opened(folder / f"matrix.mtx{end}", "wb") as file:
        scipy_io.mmwrite(file, sparse.coo_matrix(CELLS.T))
    rows = zip([*GENES, "AB1"], [*SYMBOLS, "CD3"], KINDS, strict=True)
    name = "features.tsv" if packed else "genes.tsv"
    texts = {
        name: "".join("\t".join(row[: 3 if packed else 2]) + "\n" for row in rows),
        "barcodes.tsv": "AAA-1\nCCC-1\n",
    }
    for name, text in texts.items():
        with opened(folder / f"{name}{end}", "wb") as file:
            file.write(text.encode())
    return folder


class TestCells:
    @pytest.mark.parametrize(
        ("write", "n_genes"),
        [
            (lambda folder: write_10x(folder / "filtered.h5"), 3),
            (lambda folder: write_10x(folder / "filtered.h5", version=2), 4),
            (write_mtx, 3),
            (lambda folder: write_mtx(folder, packed=False), 4),
        ],
    )
    def test_10x(self, tmp_path, write, n_genes):
        notes = []
        found = io.read_cells(write(tmp_path), notes=notes)
        assert_array_equal(found.X.toarray(), CELLS.toarray()[:, :n_genes])
        assert list(found.obs_names) == ["AAA-1", "CCC-1"]
        assert list(found.var_names[:3]) == SYMBOLS
        assert list(found.var["gene_ids"][:3]) == GENES
        assert ("left out 1 features that are not genes: 'Antibody Capture'" in notes) == (n_genes == 3)

    def test_10x_by_identifiers(self, tmp_path):
        found = io.read_cells(write_10x(tmp_path / "f.h5"), gene_column="gene_ids", notes=[])
        assert list(found.var_names) == GENES

    def test_parts_of_different_matrices(self, tmp_path):
        folder = write_mtx(tmp_path, packed=False)
        (folder / "barcodes.tsv").write_text("AAA-1\n")
        with refused("matrix.mtx", "names 4 genes", "1 cells", "do not belong to one matrix"):
            io.read_cells(folder)

    def loom(self, path, genes="Gene"):
        with h5py.File(path, "w") as file:
            file["matrix"] = CELLS.toarray().T
            file[f"row_attrs/{genes}"] = np.array([*SYMBOLS, "CD3"], dtype="S")
            file["col_attrs/CellID"] = np.array([b"AAA", b"CCC"])
            file["col_attrs/cell_type"] = np.array([b"B", b"T"])
            file["layers/spliced"] = 2 * CELLS.toarray().T
        return path

    def test_loom(self, tmp_path):
        found = io.read_cells(self.loom(tmp_path / "t.loom"), notes=[])
        assert_array_equal(found.X.toarray(), CELLS.toarray())
        assert list(found.obs["cell_type"]) == ["B", "T"]
        assert list(found.var_names) == [*SYMBOLS, "CD3"]
        spliced = io.read_bulk(self.loom(tmp_path / "t.loom"), layer="spliced", notes=[])
        assert_array_equal(spliced, 2 * CELLS.toarray())

    def test_loom_without_names(self, tmp_path):
        with refused("loom file whose rows have no names", "'Gene'"):
            io.read_cells(self.loom(tmp_path / "t.loom", genes="Symbol"))

    @pytest.mark.parametrize(
        ("names", "words"),
        [(["est_counts"], "kallisto's abundance.h5"), (["mod"], "MuData"), (["meta", "data"], "ARCHS4"),
         (["something"], "'something'")],
    )  # fmt: skip
    def test_other_hdf5(self, tmp_path, names, words):
        with h5py.File(tmp_path / "t.h5", "w") as file:
            for name in names:
                file.create_group(name)
        with refused("t.h5", words):
            io.read_bulk(tmp_path / "t.h5")

    def test_a_folder_of_something_else(self, tmp_path):
        with refused("is not an AnnData", "folder"):
            io.read_cells(tmp_path)
