"""A cluster of two processes on this machine."""

import signal

import pytest

# Seconds after which a test has failed rather than that it waits for ever.
LONGEST = 120


@pytest.fixture(autouse=True)
def bounded():
    """Nothing here may hang, whatever a cluster does."""

    def late(*_):
        raise AssertionError(f"not done in {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=60
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster, set_as_default=True) as client:
        client.wait_for_workers(2, timeout=60)
        yield client
