"""Partitions on the workers of a dask cluster."""

import os
import signal
import sys
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

distributed = pytest.importorskip("distributed")

from skenigma._dask import active_client, workers  # noqa: E402
from skenigma._dask.workers import Workers, check_workers  # noqa: E402

pytestmark = pytest.mark.slow


class Rows:
    """A partition."""

    def __init__(self, source):
        self.rows = np.concatenate(source)

    def total(self, factor):
        return factor * self.rows.sum()

    def combine(self, weights, factor):
        return factor * weights @ self.rows

    def refuse(self, limit):
        if self.rows.max() > limit:
            raise ValueError(f"more than {limit}")

    def pid(self):
        return os.getpid()

    def die_if(self, pids):
        if os.getpid() in pids:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.total(1.0)

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


def sources(n_parts=5):
    return [[np.arange(6.0).reshape(2, 3) + part, np.ones((1, 3))] for part in range(n_parts)]


def totals(factor):
    return [factor * np.concatenate(source).sum() for source in sources()]


def placed(client):
    return Workers(client, Rows, sources())


def test_answers_are_in_the_order_of_the_partitions(client):
    weights = np.random.default_rng(0).random((5, 2, 3))
    with placed(client) as found:
        assert len(set(found.all("pid"))) == 2  # both workers have some
        assert_array_equal(found.all("total", 2.0), totals(2.0))
        combined = found.each("combine", [(each,) for each in weights], 3.0)
    assert_array_equal(
        combined, [3.0 * each @ np.concatenate(of) for each, of in zip(weights, sources(), strict=True)]
    )


def test_a_worker_lost_during_a_call_has_its_partitions_made_again(client):
    with placed(client) as found:
        lost = found.all("pid")[0]
        assert_array_equal(found.all("die_if", [lost]), totals(1.0))
        assert lost not in found.all("pid")


def test_a_worker_lost_between_two_calls(client):
    with placed(client) as found:
        os.kill(found.all("pid")[0], signal.SIGKILL)
        assert_array_equal(found.all("total", 3.0), totals(3.0))


def test_an_error_of_a_partition_is_raised_as_it_is_and_loses_no_worker(client):
    with placed(client) as found:
        before = client.nthreads()
        with pytest.raises(ValueError, match="more than 5"):
            found.all("refuse", 5.0)
        assert client.nthreads() == before
        assert_array_equal(found.all("total", 1.0), totals(1.0))


def test_partitions_that_end_every_worker_end_in_one_error(client, monkeypatch):
    monkeypatch.setattr(workers, "MOST_LOSSES", 2)
    with (
        placed(client) as found,
        pytest.raises(RuntimeError, match=r"2 workers .* were lost with the same samples"),
    ):
        found.all("die")


def test_a_cluster_without_workers_ends_in_one_error(monkeypatch):
    monkeypatch.setattr(workers, "WAIT_FOR_WORKERS", 0.2)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        distributed.Client(empty, set_as_default=False) as client,
        pytest.raises(RuntimeError, match=r"no worker within 0\.2 seconds"),
    ):
        placed(client)


def test_what_lies_on_workers_arrives_as_what_it_is(client):
    futures = [client.map(np.asarray, source, pure=False) for source in sources()]
    with Workers(client, Rows, futures) as found:
        assert_array_equal(found.all("total", 1.0), totals(1.0))


def hide_package():
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "skenigma"}
    for name in hidden:
        del sys.modules[name]
    sys.modules["skenigma"], sys.hidden = None, hidden


def show_package():
    del sys.modules["skenigma"]
    sys.modules.update(sys.hidden)


def test_workers_without_the_package_are_refused(client):
    lacking = sorted(client.nthreads())[0]
    client.run(hide_package, workers=[lacking])
    try:
        with pytest.raises(RuntimeError, match=f"cannot import skenigma: '{lacking}'.*Install skenigma"):
            placed(client)
    finally:
        client.run(show_package, workers=[lacking])


def test_workers_with_another_version_are_refused(client, monkeypatch):
    monkeypatch.setattr(workers, "__version__", "99.0")
    with pytest.raises(RuntimeError, match=r"here it is 99\.0: .*Install one version"):
        check_workers(client)


def test_the_client_in_use_is_found(client):
    assert active_client() is client
    assert client.submit(active_client).result() is None  # a task would wait for itself


def test_the_lost_are_not_waited_for_by_the_clock(client):
    """A worker that does not answer, and is there, is waited for."""
    with placed(client) as found:
        pid = found.all("pid")[0]
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(1.5 * workers.PATIENCE, os.kill, (pid, signal.SIGCONT)).start()
        assert_array_equal(found.all("total", 1.0), totals(1.0))
        assert pid in found.all("pid")
