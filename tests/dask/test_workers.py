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


class Account:
    """A partition whose state depends on all calls that change it, and on their order."""

    def __init__(self, source):
        self.rows = np.concatenate(source)
        self.state = 0.0

    def push(self, factor):
        self.state = 0.5 * self.state + factor * self.rows.sum()
        return self.state

    def look(self):
        return self.rows.sum(axis=0) + self.state

    def refuse(self, limit):
        if self.rows.max() > limit:
            raise ValueError(f"more than {limit}")

    def pid(self):
        return os.getpid()

    def die_if(self, pids):
        if os.getpid() in pids:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.push(1.0)

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


def sources(n_parts=5):
    return [[np.arange(6.0).reshape(2, 3) + part, np.ones((1, 3))] for part in range(n_parts)]


def here(calls):
    """The answers of partitions in this process."""
    parts = [Account(source) for source in sources()]
    return [[getattr(part, method)(*args) for part in parts] for method, args in calls]


def placed(client):
    return Workers(client, Account, sources(), asking={"look", "pid"})


CALLS = [("push", (1.0,)), ("look", ()), ("push", (3.0,)), ("look", ())]


def test_answers_are_those_of_partitions_in_this_process(client):
    with placed(client) as found:
        answers = [found.all(method, *args) for method, args in CALLS]
        assert len(set(found.all("pid"))) == 2  # both workers have some
    for got, expected in zip(answers, here(CALLS), strict=True):
        assert_array_equal(got, expected)


def test_a_worker_lost_during_a_call_has_its_partitions_made_again_as_they_were(client):
    with placed(client) as found:
        for method, args in CALLS[:2]:
            found.all(method, *args)
        lost = found.all("pid")[0]
        found.all("die_if", [lost])
        rest = [found.all(method, *args) for method, args in CALLS[2:]]
        assert lost not in found.all("pid")
    expected = here([*CALLS[:2], ("push", (1.0,)), *CALLS[2:]])
    for got, of_it in zip(rest, expected[3:], strict=True):
        assert_array_equal(got, of_it)


def test_a_worker_lost_between_two_calls(client):
    with placed(client) as found:
        found.all("push", 1.0)
        os.kill(found.all("pid")[0], signal.SIGKILL)
        assert_array_equal(found.all("push", 3.0), here([("push", (1.0,)), ("push", (3.0,))])[1])


def test_an_error_of_a_partition_is_raised_as_it_is_and_loses_no_worker(client):
    with placed(client) as found:
        before = client.nthreads()
        with pytest.raises(ValueError, match="more than 5"):
            found.all("refuse", 5.0)
        assert client.nthreads() == before
        assert_array_equal(found.all("push", 1.0), here(CALLS[:1])[0])


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
    with Workers(client, Account, futures) as found:
        assert_array_equal(found.all("push", 1.0), here(CALLS[:1])[0])


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
        assert_array_equal(found.all("push", 1.0), here(CALLS[:1])[0])
        assert pid in found.all("pid")
