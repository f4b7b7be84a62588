"""Fits whose rows are on the workers of a dask cluster."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest
from numpy.testing import assert_allclose

array = pytest.importorskip("dask.array")
pytest.importorskip("distributed")

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver  # noqa: E402
from skenigma._dask.workers import Workers  # noqa: E402
from skenigma.checks.facts import Facts, examine  # noqa: E402
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


class Asked:
    """A partition that tells what it holds."""

    def __init__(self, source):
        self.matrix, self.proportions = source

    def values(self):
        return self.matrix[:]

    def names(self):
        return list(self.matrix.index)

    def held(self):
        return self.proportions


@pytest.mark.parametrize("prepare", [lambda X: X, lambda X: X.persist(), lambda X: X.persist() * 2.0])
def test_partitions_are_adjoining_rows_of_the_genes_in_use(client, prepare):
    X = prepare(chunked())
    genes = np.random.default_rng(1).permutation(300)[:40]
    matrix = lazy_matrix(X, block_bytes=8 * 300 * 4).select(genes).apply(np.negative)
    with matrix.place()(Asked, RowSource(matrix), COHORT.proportions) as parts:
        values, names, proportions = (parts.all(method) for method in ("values", "names", "held"))
    np.testing.assert_array_equal(np.concatenate(values), -np.asarray(X)[:, genes])
    assert np.concatenate(names).tolist() == list(range(70))
    np.testing.assert_array_equal(np.concatenate(proportions), COHORT.proportions)
    assert len(values) == 4


def test_a_fit_on_workers_is_that_in_memory(client, in_memory):
    assert_equal_fits(l2max(chunked()), in_memory)


def test_a_fit_without_a_client_is_that_in_memory(in_memory):
    assert_equal_fits(l2max(chunked()), in_memory)


@pytest.mark.parametrize("method", ["look", "combine_ahead", "cut"])
def test_a_worker_that_is_killed_during_a_fit_is_done_without(client, in_memory, monkeypatch, method):
    ask, killed = Workers.all, []

    def killing(workers, asked, *args):
        if asked == method and workers._past[2:] and not killed:
            killed.append(min(client.run(os.getpid).values()))
            os.kill(killed[0], signal.SIGKILL)
        return ask(workers, asked, *args)

    monkeypatch.setattr(Workers, "all", killing)
    assert_equal_fits(l2max(chunked()), in_memory)
    assert killed


@pytest.fixture
def processes(tmp_path):
    """A cluster whose scheduler is a process of its own, the first of these; and the file that leads to it."""
    file = tmp_path / "scheduler.json"
    there = ["--scheduler-file", str(file)]
    commands = [
        ["dask_scheduler", "--port", "0", "--no-dashboard", *there],
        *(2 * [["dask_worker", "--nthreads", "1", "--no-dashboard", "--no-nanny", *there]]),
    ]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen([sys.executable, "-m", f"distributed.cli.{name}", *options], **silent)
        for name, *options in commands
    ]
    while not file.exists():
        time.sleep(0.05)
    yield started, file
    for process in started:
        process.kill()
        process.wait()


def test_a_scheduler_that_is_killed_ends_a_fit_and_a_reading_in_one_error(processes, monkeypatch):
    import dask
    import distributed

    started, file = processes
    ask, during = Workers.all, []

    def killing(workers, asked, *args):
        if asked == "look" and workers._past[2:] and not during:
            during.append(asked)
            started[0].kill()
        return ask(workers, asked, *args)

    monkeypatch.setattr(Workers, "all", killing)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # the client looks for a lost scheduler for so long
    short = dask.config.set({"distributed.comm.timeouts.connect": "2s"})
    with short, distributed.Client(scheduler_file=str(file)) as client:
        client.wait_for_workers(2, timeout=60)
        with pytest.raises(
            RuntimeError, match="connection to the dask scheduler is lost: the fit cannot go on"
        ):
            l2max(chunked())
        assert during
        with pytest.raises(ValueError, match="X could not be read at samples 0 to 8"):
            lazy_matrix(chunked())[:9]


def test_a_missing_value_is_named(client):
    values = COHORT.bulk.copy()
    values[61, 7] = np.nan
    with pytest.raises(ValueError, match=r"NaN.*61.*7"):
        l2max(chunked(values))


def test_what_checks_look_at_is_found_on_the_workers(client):
    """Of a bulk whose samples and genes have names, as of one in memory."""
    matrix, whole = (lazy_matrix(each) for each in (chunked(), chunked(rows=70)))
    whole = whole.over(lazy_matrix(COHORT.bulk)._source)
    for each in (matrix, whole):
        examine(each)
    for field in fields(Facts):
        found, expected = (getattr(each.facts, field.name) for each in (matrix, whole))
        if field.name == "spaced":
            found, expected = (np.array([rows[j] for j in sorted(rows)]) for rows in (found, expected))
        assert_allclose(found, expected, rtol=1e-12, err_msg=field.name)
    assert type(next(matrix.each(_pid))[1]) is int
    assert os.getpid() not in {pid for _, pid in matrix.each(_pid)}


def _pid(rows, names, whole, block):
    return os.getpid()


def test_the_posterior_of_counts_on_a_cluster(client):
    """Proportions, posterior and new samples, read through the cluster."""
    rng = np.random.default_rng(2)
    reference = rng.gamma(0.5, 200.0, (3, 300))
    X = rng.poisson(rng.dirichlet(np.full(3, 4.0), 40) @ reference).astype(np.float64)
    expected, found = (
        EmpiricalBayesDeconvolver(reference, materialize=False).fit(each) for each in (X, chunked(X))
    )
    assert_allclose(found.proportions_, expected.proportions_, atol=ROUNDING)
    values = expected.expression_.values()
    assert_allclose(found.expression_.values(), values, rtol=0, atol=ROUNDING * values.max())
    new = expected.transform(X[:20])
    assert_allclose(found.transform(chunked(X[:20])), new, rtol=0, atol=ROUNDING * values.max())
