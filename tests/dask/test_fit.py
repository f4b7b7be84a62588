"""Fits whose rows are on the workers of a dask cluster."""

import os
import signal

import numpy as np
import pytest
from numpy.testing import assert_allclose

array = pytest.importorskip("dask.array")
pytest.importorskip("distributed")

from skenigma import L2MaxDeconvolver  # noqa: E402
from skenigma._dask.rows import WorkerRows  # noqa: E402
from skenigma.cohort import lazy_matrix  # noqa: E402
from skenigma.core.blocks import RowSource  # noqa: E402
from skenigma.datasets import make_cohort  # noqa: E402

pytestmark = pytest.mark.slow

COHORT = make_cohort(n_samples=70, n_genes=300, n_cell_types=4, random_state=0)
# Sums over partitions are rounded in another order than those over a whole.
ROUNDING = 1e-10


def chunked(values=COHORT.bulk, rows=9):
    return array.from_array(values, chunks=(rows, -1))


def l2max(X, proportions=COHORT.proportions, **params):
    params = {"renorm_size": None, "materialize": False, **params}
    return L2MaxDeconvolver(COHORT.reference, **params).fit(X, proportions=proportions)


@pytest.fixture(scope="module")
def in_memory():
    return l2max(COHORT.bulk)


def assert_equal_fits(found, expected):
    assert found.n_iter_ == expected.n_iter_
    values = expected.expression_.values()
    assert_allclose(found.expression_.values(), values, rtol=0, atol=ROUNDING * np.abs(values).max())


@pytest.fixture
def products():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 40)), rng.standard_normal((2, 70)), rng.random(70) < 0.2


@pytest.mark.parametrize("prepare", [lambda X: X, lambda X: X.persist(), lambda X: X.persist() * 2.0])
def test_products_are_those_of_the_rows(client, products, prepare):
    X = prepare(chunked())
    genes = np.random.default_rng(1).permutation(300)[:40]
    matrix = lazy_matrix(X, block_bytes=8 * 300 * 4).select(genes)
    rows, here = matrix.row_source(), RowSource(np.asarray(X)[:, genes])
    few, weights, mask = products
    assert isinstance(rows, WorkerRows)
    assert (rows.shape, len(rows), rows.size) == (here.shape, len(here), here.size)
    assert_allclose(rows.squares, here.squares, rtol=1e-13)
    assert_allclose(rows.along(few), here.along(few), atol=1e-13 * np.abs(here.along(few)).max())
    assert_allclose(
        rows.combine(weights), here.combine(weights), atol=1e-13 * np.abs(here.combine(weights)).max()
    )
    np.testing.assert_array_equal(rows.take(mask), here.take(mask))
    np.testing.assert_array_equal(rows.whole(), here.whole())
    assert matrix.readings == 4  # take is not counted: it reads a few


def test_a_fit_on_workers_is_that_in_memory(client, in_memory):
    assert_equal_fits(l2max(chunked()), in_memory)


def test_a_fit_without_a_client_is_that_in_memory(in_memory):
    assert_equal_fits(l2max(chunked()), in_memory)


def test_a_worker_that_is_killed_during_a_fit_is_done_without(client, in_memory, monkeypatch):
    product, killed = WorkerRows.combine, []

    def killing(rows, weights):
        if not killed:
            killed.append(min(client.run(os.getpid).values()))
            os.kill(killed[0], signal.SIGKILL)
        return product(rows, weights)

    monkeypatch.setattr(WorkerRows, "combine", killing)
    assert_equal_fits(l2max(chunked()), in_memory)
    assert killed


def test_a_missing_value_is_named(client):
    values = COHORT.bulk.copy()
    values[61, 7] = np.nan
    with pytest.raises(ValueError, match=r"NaN.*61.*7"):
        l2max(chunked(values))
