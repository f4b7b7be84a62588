"""Tables and AnnData files from parts: what is written as a whole, in memory that does not grow with it."""

import gzip

import numpy as np
import pandas as pd
import pytest

from skenigma import io
from skenigma.io import _engines
from skenigma.io._turning import write_turned
from skenigma.io._writing import write_anndata_by_blocks, write_table_parts

N_SAMPLES, N_GENES = 12, 40
SAMPLES = pd.Index([f"s{j}" for j in range(N_SAMPLES)], dtype=object)
GENES = pd.Index([f"g{i}" for i in range(N_GENES)], dtype=object)
# with exponents, which writers spell in several ways
VALUES = np.random.default_rng(0).normal(size=(N_SAMPLES, N_GENES)) * np.logspace(-20, 20, N_GENES)
FORMATS = [".tsv", ".csv.gz", ".parquet"]


@pytest.fixture
def frame(monkeypatch):
    monkeypatch.setattr(_engines, "LARGE", N_SAMPLES * N_GENES)  # as a whole; no part is
    return pd.DataFrame(VALUES.T, GENES.rename("gene"), SAMPLES)


def text(path):
    """Bytes of a text; what packs it may end a part of it early."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def need(end):
    if end == ".parquet":
        pytest.importorskip("pyarrow")


@pytest.mark.parametrize("end", FORMATS)
@pytest.mark.parametrize("writer", ["polars", "pandas"])
def test_a_table_in_parts_is_the_table(frame, tmp_path, end, writer):
    need(end)
    pytest.importorskip(writer)
    with _engines.chosen_writer(writer):
        io.write_table(frame, tmp_path / f"whole{end}")
        write_table_parts((frame.iloc[i : i + 7] for i in range(0, N_GENES, 7)), tmp_path / f"parts{end}")
    if end == ".parquet":
        pd.testing.assert_frame_equal(
            *(pd.read_parquet(tmp_path / f"{name}{end}") for name in ("parts", "whole"))
        )
    else:
        assert text(tmp_path / f"parts{end}") == text(tmp_path / f"whole{end}")


@pytest.mark.parametrize("end", FORMATS)
@pytest.mark.parametrize("max_bytes", [1, 8 * 5 * N_GENES, 2**30])
def test_what_is_built_by_samples_is_turned(frame, tmp_path, end, max_bytes):
    need(end)
    largest = []

    def build(samples):
        largest.append(len(VALUES[samples]))
        return VALUES[samples]

    write_turned(build, SAMPLES, GENES, tmp_path / f"t{end}", max_bytes=max_bytes)
    assert max(largest) == min(N_SAMPLES, max(1, max_bytes // (8 * N_GENES)))
    assert [path.name for path in tmp_path.iterdir()] == [f"t{end}"]
    if end == ".parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)
    else:
        io.write_table(frame, tmp_path / f"whole{end}")
        assert text(tmp_path / f"t{end}") == text(tmp_path / f"whole{end}")


def test_nothing_is_left_of_what_could_not_be_written(tmp_path):
    def build(samples):
        if samples.start == 5:
            raise OSError(28, "No space left on device")
        return VALUES[samples]

    with pytest.raises(OSError, match="No space left"):
        write_turned(build, SAMPLES, GENES, tmp_path / "t.tsv", max_bytes=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_bytes", [1, 8 * 2 * 5 * N_GENES, 2**30])
def test_anndata_by_blocks_is_that_of_whole_tables(tmp_path, max_bytes):
    anndata = pytest.importorskip("anndata")
    tensor = np.stack([VALUES, VALUES + 1], axis=1).astype(np.float32)
    bulk = pd.DataFrame(VALUES, SAMPLES, GENES)
    kinds = ["B", "T/NK"]
    shares = pd.DataFrame(0.5, SAMPLES, kinds)
    frames = {kind: pd.DataFrame(tensor[:, k], SAMPLES, GENES) for k, kind in enumerate(kinds)}
    io.write_anndata(tmp_path / "whole.h5ad", frames, bulk, shares)

    def build(samples, cell_types):
        return tensor[samples][:, [kinds.index(kind) for kind in cell_types]]

    tables = {"proportions": shares, "proportions_std": None}
    write_anndata_by_blocks(tmp_path / "blocks.h5ad", build, kinds, bulk, tables, max_bytes=max_bytes)
    one, other = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("blocks", "whole"))
    np.testing.assert_array_equal(one.X, other.X)
    assert list(one.layers) == list(other.layers)
    for name in one.layers:
        np.testing.assert_array_equal(one.layers[name], other.layers[name])
        assert one.layers[name].dtype == other.layers[name].dtype
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    pd.testing.assert_frame_equal(one.obsm["proportions"], other.obsm["proportions"])
    assert list(one.uns["cell_types"]) == kinds
