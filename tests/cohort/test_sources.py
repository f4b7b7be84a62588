"""Matrices that are read by rows: every kind of source, what is selected of it, and sources that go wrong."""

import os
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from skenigma.checks.facts import examine
from skenigma.cohort import LazyMatrix, is_lazy, lazy_matrix, open_bulk
from skenigma.core.optimize.partitions import in_threads

N_SAMPLES, N_GENES = 23, 130
VALUES = np.random.default_rng(0).poisson(3.0, (N_SAMPLES, N_GENES)).astype(np.float32)
SAMPLES = [f"s{j}" for j in range(N_SAMPLES)]
GENES = [f"g{g}" for g in range(N_GENES)]


def memmap(folder):
    np.save(folder / "x.npy", VALUES)
    return np.load(folder / "x.npy", mmap_mode="r")


def hdf5(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=VALUES, chunks=(4, N_GENES))
    return h5py.File(folder / "x.h5")["x"]


def zarr2(folder, version=2):
    zarr = pytest.importorskip("zarr")
    if hasattr(zarr, "create_array"):  # zarr 3
        array = zarr.create_array(
            str(folder / "x.zarr"), shape=VALUES.shape, chunks=(4, N_GENES), dtype="f4", zarr_format=version
        )
        array[:] = VALUES
        return array
    if version == 3:
        pytest.skip("zarr 2 writes no version 3")
    return zarr.array(VALUES, store=str(folder / "x.zarr"), chunks=(4, N_GENES))


def zarr3(folder):
    return zarr2(folder, 3)


def dask(folder, convert=None):
    array = pytest.importorskip("dask.array").from_array(VALUES, chunks=(5, N_GENES))
    return array if convert is None else array.map_blocks(convert)


def sparse_dask(folder):
    return dask(folder, sparse.csr_matrix)


def as_anndata(X, **names):
    anndata = pytest.importorskip("anndata")
    return anndata.AnnData(X, pd.DataFrame(index=SAMPLES), pd.DataFrame(index=GENES))


def backed(folder, X=VALUES):
    as_anndata(X).write_h5ad(folder / "x.h5ad")
    return sys.modules["anndata"].read_h5ad(folder / "x.h5ad", backed="r")


def backed_sparse(folder):
    return backed(folder, sparse.csr_matrix(VALUES))


def sparse_dataset(folder):
    return backed_sparse(folder).X


def with_dask(folder):
    return as_anndata(dask(folder))


def lazily(folder):
    pytest.importorskip("xarray")
    as_anndata(VALUES).write_h5ad(folder / "x.h5ad")
    experimental = pytest.importorskip("anndata.experimental")
    if not hasattr(experimental, "read_lazy"):
        pytest.skip("AnnData reads lazily from 0.12 on")
    return experimental.read_lazy(folder / "x.h5ad")


SOURCES = (
    memmap,
    hdf5,
    zarr2,
    zarr3,
    dask,
    sparse_dask,
    backed,
    backed_sparse,
    sparse_dataset,
    with_dask,
    lazily,
)


@pytest.mark.parametrize("make", SOURCES, ids=lambda make: make.__name__)
def test_every_kind_gives_the_same_rows(make, tmp_path, monkeypatch):
    monkeypatch.setattr("skenigma.cohort._open.MAPPED_BYTES", 0)
    matrix = open_bulk(make(tmp_path))
    assert is_lazy(matrix)
    assert (matrix.shape, matrix.dtype, matrix.ndim, matrix.size) == (
        VALUES.shape,
        np.float32,
        2,
        VALUES.size,
    )
    assert len(matrix) == N_SAMPLES
    assert type(matrix[3:7]) is np.ndarray
    np.testing.assert_array_equal(matrix[3:7], VALUES[3:7])
    np.testing.assert_array_equal(matrix[::-4], VALUES[::-4])
    np.testing.assert_array_equal(matrix[[20, 2, 2]], VALUES[[20, 2, 2]])
    np.testing.assert_array_equal(matrix[5], VALUES[5])
    np.testing.assert_array_equal(matrix[[5, 1], ...], VALUES[[5, 1]])
    np.testing.assert_array_equal(matrix.select(np.array([7, 3]))[:], VALUES[:, [7, 3]])
    named = make in (backed, backed_sparse, with_dask, lazily)
    assert (
        (list(matrix.index) == SAMPLES and list(matrix.columns) == GENES) if named else matrix.index is None
    )


@pytest.mark.parametrize(
    "make", [memmap, hdf5, zarr3, dask, backed, backed_sparse], ids=lambda make: make.__name__
)
def test_what_is_in_a_file_is_opened_again_where_it_arrives(make, tmp_path):
    matrix = lazy_matrix(make(tmp_path)).select(np.array([5, 2]))
    matrix[:4]
    sent = pickle.dumps(matrix)
    assert len(sent) < VALUES.nbytes or make is dask
    arrived = pickle.loads(sent)
    np.testing.assert_array_equal(arrived[2:9], VALUES[2:9, [5, 2]])
    assert arrived.readings == 4 / N_SAMPLES + 7 / N_SAMPLES


def test_a_file_that_changed_on_the_way_is_noticed(tmp_path):
    matrix = lazy_matrix(memmap(tmp_path))
    matrix[:]
    sent = pickle.dumps(matrix)
    np.save(tmp_path / "x.npy", VALUES + 1)
    with pytest.raises(ValueError, match="X has changed, at least in sample 2"):
        pickle.loads(sent)[2:9]


def test_blocks_are_sized_by_bytes_and_whole_chunks(tmp_path):
    assert lazy_matrix(VALUES, block_bytes=8 * N_GENES * 3).block_rows == 3
    assert lazy_matrix(hdf5(tmp_path), block_bytes=8 * N_GENES * 11).block_rows == 8  # chunks of 4 rows
    assert lazy_matrix(hdf5_as_is(tmp_path), block_bytes=8 * N_GENES).block_rows == 4


def hdf5_as_is(folder):
    return sys.modules["h5py"].File(folder / "x.h5")["x"]


def test_readings_are_counted_over_all_that_is_derived():
    matrix = lazy_matrix(VALUES, block_bytes=8 * N_GENES * 5)
    genes = matrix.select(np.arange(10))
    assert sum(block.size for _, block in genes.apply(np.sqrt).blocks()) == 10 * N_SAMPLES
    assert matrix.readings == genes.readings == 1.0
    with matrix.held(slice(2, 9)):
        np.testing.assert_array_equal(matrix[4:6], VALUES[4:6])
        np.testing.assert_array_equal(genes[2:9], VALUES[2:9, :10])
    assert matrix.readings == 1.0 + 7 / N_SAMPLES
    with matrix.held(slice(2, 4)):
        np.testing.assert_array_equal(matrix[3:8], VALUES[3:8])  # of which not all are held
    matrix[2:9]  # held no more
    np.testing.assert_allclose(matrix.readings, 1.0 + (7 + 2 + 5 + 7) / N_SAMPLES)


def test_a_row_is_counted_from_either_end():
    matrix = lazy_matrix(VALUES)
    assert_array_equal(matrix[-1], VALUES[-1])
    with pytest.raises(IndexError):
        matrix[N_SAMPLES]


def test_functions_follow_one_another():
    matrix = lazy_matrix(VALUES).apply(np.sqrt).apply(lambda block: block + 1)
    assert_array_equal(matrix[3:7], np.sqrt(VALUES[3:7]) + 1)


def test_what_is_known_of_a_matrix_is_not_known_of_what_is_derived():
    matrix = lazy_matrix(VALUES)
    examine(matrix)
    for derived in (matrix.select(np.arange(3)), matrix.rows(0, 4), matrix.apply(np.negative)):
        with pytest.raises(ValueError, match="has not been examined"):
            derived.max()


def test_some_rows_of_an_array_on_workers_are_read_here(tmp_path, monkeypatch):
    """The workers have all of them."""
    monkeypatch.setattr("skenigma.cohort._visits.active_client", object)
    assert isinstance(lazy_matrix(dask(tmp_path)).rows(0, 5).place(), in_threads)


def test_a_stretch_of_rows_has_their_names():
    matrix = LazyMatrix(lazy_matrix(VALUES)._source, index=pd.Index(SAMPLES), columns=pd.Index(GENES))
    part = matrix.rows(4, 9)
    assert list(part.index) == SAMPLES[4:9]
    np.testing.assert_array_equal(part.select(np.array([1]))[1:3], VALUES[5:7, [1]])
    within = part.rows(2, 99)
    assert list(within.index) == SAMPLES[6:9]
    np.testing.assert_array_equal(within[:], VALUES[6:9])


def test_one_reading_tells_all_that_checks_ask_for():
    from skenigma.checks.samples import sample_findings
    from skenigma.checks.units import scale_findings

    values = np.vstack([VALUES, np.zeros((1, N_GENES)), VALUES[:1, ::-1] * 50]).astype(np.float32)
    reference = np.random.default_rng(1).random((2, N_GENES)) * 100
    matrix = lazy_matrix(values, block_bytes=8 * N_GENES * 4)
    examine(matrix)
    # a few rows are looked at besides: 64, 32 and 16 evenly spaced ones
    found = [*sample_findings(matrix), *scale_findings(matrix, reference)]
    expected = [*sample_findings(values), *scale_findings(values, reference)]
    assert [finding.name for finding in found] == [finding.name for finding in expected] != []
    assert matrix.facts.minimum == values.min()
    assert matrix.facts.maximum == values.max()
    np.testing.assert_allclose(matrix.mean(axis=0), values.mean(axis=0), rtol=1e-6)  # sums in float64 there


def test_rows_that_an_examination_has_kept_are_not_read_again():
    matrix = lazy_matrix(VALUES, block_bytes=8 * N_GENES * 4)
    examine(matrix)
    kept = sorted(matrix.facts.spaced)
    np.testing.assert_array_equal(matrix[kept[::-1]], VALUES[kept[::-1]])
    assert {0, N_SAMPLES - 1} < set(kept)
    assert matrix.readings == 1.0


def test_likeness_is_to_the_samples_with_expression():
    from skenigma.checks.samples import _likeness

    values = VALUES * np.where(np.arange(N_SAMPLES) < 15, 0, 1)[:, None].astype(np.float32)
    matrix = lazy_matrix(values, block_bytes=8 * N_GENES * 4)
    examine(matrix)
    expected = _likeness(values, np.arange(N_GENES), values.any(axis=1))
    np.testing.assert_allclose(matrix.facts.likeness, expected, rtol=1e-12)  # sums of 130 whole numbers


def test_negative_values_of_all_blocks_are_counted():
    values = VALUES - 3
    matrix = lazy_matrix(values, block_bytes=8 * N_GENES * 4)
    examine(matrix)
    assert matrix.facts.n_negative == np.count_nonzero(values < 0)
    assert matrix.facts.minimum == values.min()
    assert matrix.facts.maximum == values.max()


def test_what_a_profile_expresses_is_looked_at_by_itself():
    expressed = np.arange(N_GENES) % 3 == 0
    matrix = lazy_matrix(VALUES, block_bytes=8 * N_GENES * 4)
    examine(matrix, expressed=expressed)
    chosen = VALUES[:, expressed]
    np.testing.assert_array_equal(matrix.facts.expressed, chosen.sum(axis=1))
    least = np.where(chosen > 0, chosen, np.inf).min(axis=1)
    np.testing.assert_array_equal(matrix.facts.least_expressed, least)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"X contains NaN in 1 place\(s\): \(row 's14', column 'g6'\)"),
        (np.inf, r"infinity \(inf\) in 1 place\(s\): \(row 's14', column 'g6'\)"),
        (1e30, "squares cannot be summed"),
        (-1e30, "squares cannot be summed"),
    ],
)
def test_what_no_fit_can_use_is_named(value, message):
    bad = VALUES.copy()
    bad[14, 6] = value
    matrix = LazyMatrix(
        lazy_matrix(bad)._source,
        index=pd.Index(SAMPLES),
        columns=pd.Index(GENES),
        block_bytes=8 * N_GENES * 4,
    )
    with pytest.raises(ValueError, match=message):
        examine(matrix.select(np.arange(3)), names=np.array(GENES))


@pytest.mark.parametrize("left_out", [0, 3])
def test_a_gene_is_named_right_where_others_are_left_out(left_out):
    """Of a selection with names of its own, as by a column of symbols, whichever names the caller has."""
    bad = VALUES.copy()
    bad[14, 6] = np.nan
    matrix = LazyMatrix(lazy_matrix(bad)._source, index=pd.Index(SAMPLES), columns=pd.Index(GENES))
    named = matrix.select(np.arange(left_out, N_GENES))
    named.columns = pd.Index([f"symbol {name}" for name in named.columns])
    with pytest.raises(ValueError, match=r"\(row 's14', column 'g6'\)"):
        examine(named.select(np.arange(5)), names=np.array(named.columns))


def test_nameless_samples_are_called_by_their_number():
    bad = VALUES.copy()
    bad[14, 6] = np.nan
    with pytest.raises(ValueError, match=r"\(row 14, column 6\)"):
        examine(lazy_matrix(bad, block_bytes=8 * N_GENES * 4).rows(10, 20))


@pytest.mark.parametrize(
    "change",
    [lambda row: 2 * row, lambda row: np.append(row[:2], row[2:] + 1), lambda row: np.roll(row, 2)],
    ids=["scaled", "but for two genes", "in another order"],
)
def test_a_source_that_changes_is_noticed(change):
    values = VALUES.copy()
    matrix = lazy_matrix(values)
    matrix[:]
    values[11] = change(values[11])
    with pytest.raises(ValueError, match=r"X has changed, at least in sample 11"):
        matrix[8:20]


def test_a_source_that_has_fewer_rows_by_now_is_noticed():
    matrix = lazy_matrix(VALUES)
    matrix._source.store = VALUES[:12]
    with pytest.raises(ValueError, match="X has changed its shape"):
        matrix[8:20]


@pytest.mark.parametrize(("make", "name"), [(memmap, "x.npy"), (hdf5, "x.h5"), (backed_sparse, "x.h5ad")])
def test_a_file_that_is_written_to_or_gone_is_noticed(tmp_path, make, name):
    path = tmp_path / name
    matrix = lazy_matrix(make(tmp_path))
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=rf"X has been written to \(.*{name}\)"):
        matrix[:2]
    path.unlink()
    with pytest.raises(ValueError, match=rf"X is gone \(.*{name}\)"):
        matrix[:2]


PARTS = [
    lambda X: X,
    lambda X: X[3:],
    lambda X: X[5:20][2:],
    lambda X: X[::2],  # not in one piece
    lambda X: X[:, 4:],
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_part_of_a_memory_map_is_read_where_it_stands_in_its_file(tmp_path, part, mode):
    with open(tmp_path / "x.bin", "wb") as file:
        file.write(b"x" * 4100)  # more than a page, and not a multiple of one
        VALUES.tofile(file)
    mapped = part(np.memmap(tmp_path / "x.bin", np.float32, mode, 4100, VALUES.shape))
    if mode == "c":
        mapped[1, 1] += 1  # which is in no file
    matrix = lazy_matrix(mapped)
    assert_array_equal(matrix[1:3], np.asarray(mapped)[1:3])
    assert_array_equal(matrix[:], mapped)
    assert_array_equal(pickle.loads(pickle.dumps(matrix))[:], mapped)


def test_maps_of_columns_and_of_no_name_are_read_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(VALUES))
    matrix = lazy_matrix(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert_array_equal(matrix[2:9], VALUES[2:9])
    assert_array_equal(pickle.loads(pickle.dumps(matrix))[2:9], VALUES[2:9])
    with tempfile.TemporaryFile() as file:
        VALUES.tofile(file)
        mapped = np.memmap(file, np.float32, "r", shape=VALUES.shape)
    assert_array_equal(lazy_matrix(mapped)[2:9], VALUES[2:9])


@pytest.mark.parametrize("seen", [True, False])
def test_a_mapped_file_that_is_cut_short_is_an_error_and_not_the_end_of_the_process(
    tmp_path, monkeypatch, seen
):
    matrix = lazy_matrix(memmap(tmp_path))
    assert_array_equal(matrix[:2], VALUES[:2])
    if not seen:  # as if that happened between the look at the file and the reading
        monkeypatch.setattr(matrix._source, "check", lambda: None)
    os.truncate(tmp_path / "x.npy", 1000)
    with pytest.raises(
        ValueError, match="X has been written to" if seen else r"X has been cut short \(.*x.npy\)"
    ):
        matrix[8:20]


def test_a_store_whose_chunks_are_deleted_is_noticed(tmp_path):
    matrix = lazy_matrix(zarr2(tmp_path))
    matrix[:]
    for path in (tmp_path / "x.zarr").iterdir():
        if path.name[0] != ".":
            path.unlink()  # missing chunks read as zeros
    with pytest.raises(ValueError, match=r"X has changed, at least in sample 0"):
        matrix[:4]


def test_a_store_that_cannot_be_read_is_one_error(tmp_path):
    data = hdf5(tmp_path)
    matrix = lazy_matrix(data)
    data.file.close()
    with pytest.raises(ValueError, match=r"X could not be read at samples 3 to 5, it is gone or damaged"):
        matrix[3:6]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: backed(folder, sparse.csc_matrix(VALUES)), "stored by genes"),
        (lambda folder: dask(folder).rechunk((5, 10)), "13 chunks along the genes"),
        (lambda folder: dask(folder)[dask(folder)[:, 0] > 2], "compute_chunk_sizes"),
        (lambda folder: [1.0], "cannot be read by rows"),
    ],
)
def test_what_cannot_be_read_by_rows_is_refused(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        lazy_matrix(make(tmp_path))


def test_what_is_in_memory_stays_as_it_is(tmp_path):
    frame = pd.DataFrame(VALUES)
    for X in (VALUES, frame, memmap(tmp_path)):
        assert open_bulk(X) is X


def test_optional_packages_are_not_imported_without_such_an_input():
    code = (
        "import sys, numpy as np, skenigma.cohort as cohort; cohort.open_bulk(np.ones((3, 3)));"
        "print([name for name in ('dask', 'zarr', 'h5py', 'anndata') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
