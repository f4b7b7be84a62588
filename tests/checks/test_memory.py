"""What memory there is: read from a system made up of files."""

import pytest

from skenigma import L2MaxDeconvolver
from skenigma.checks import memory
from skenigma.datasets import make_cohort

GIGABYTE = 2**30


@pytest.fixture
def system(tmp_path):
    """A function that writes files below a root, by path, and returns the root."""

    def write(**files):
        for name, content in {
            "proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable: 8388608 kB\n",
            **files,
        }.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
        return tmp_path

    return write


def test_free_memory(system):
    assert memory.available_memory(system()) == 8 * GIGABYTE


def test_system_that_does_not_tell(tmp_path):
    assert memory.available_memory(tmp_path) is None


def test_group_of_version_2(system):
    root = system(
        **{
            "proc/self/cgroup": "0::/user/job\n",
            "sys/fs/cgroup/user/job/memory.max": 4 * GIGABYTE,
            "sys/fs/cgroup/user/job/memory.current": 3 * GIGABYTE,
            "sys/fs/cgroup/user/job/memory.stat": f"anon 9\ninactive_file {GIGABYTE}\nactive_file {GIGABYTE // 2}\n",
        }
    )
    # files that were read make room
    assert memory.available_memory(root) == 2.5 * GIGABYTE


def test_group_above_is_the_tighter(system):
    root = system(
        **{
            "proc/self/cgroup": "0::/user/job\n",
            "sys/fs/cgroup/user/job/memory.max": "max\n",
            "sys/fs/cgroup/user/job/memory.current": 0,
            "sys/fs/cgroup/user/memory.max": 2 * GIGABYTE,
            "sys/fs/cgroup/user/memory.current": GIGABYTE,
        }
    )
    assert memory.available_memory(root) == GIGABYTE


@pytest.mark.parametrize("path", ["/job", "/docker/0123abc"])
def test_group_of_version_1(system, path):
    """Within a container the path is that of the host, and the mounted folder is the group."""
    group = f"sys/fs/cgroup/memory{path}" if path == "/job" else "sys/fs/cgroup/memory"
    root = system(
        **{
            "proc/self/cgroup": f"4:cpu,memory:{path}\n1:cpu:/x\n0::/\n",
            f"{group}/memory.limit_in_bytes": 3 * GIGABYTE,
            f"{group}/memory.usage_in_bytes": 2 * GIGABYTE,
            f"{group}/memory.stat": f"total_inactive_file {GIGABYTE // 2}\ninactive_file 5\n",
        }
    )
    assert memory.available_memory(root) == 1.5 * GIGABYTE


def test_group_without_a_limit(system):
    root = system(
        **{
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": GIGABYTE,
        }
    )
    assert memory.available_memory(root) == 8 * GIGABYTE


def test_limit_of_addresses(system, monkeypatch):
    resource = pytest.importorskip("resource")
    root = system(**{"proc/self/statm": f"{GIGABYTE // resource.getpagesize()} 5 5\n"})
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3 * GIGABYTE, resource.RLIM_INFINITY))
    assert memory.available_memory(root) == 2 * GIGABYTE


def test_refused_with_both_sizes(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 5 * GIGABYTE)
    memory.check_memory(5 * GIGABYTE, "The result", "Take less.")
    with pytest.raises(
        MemoryError, match=r"The result needs 6\.0 GB, but 5\.0 GB are available\. Take less\."
    ):
        memory.check_memory(6 * GIGABYTE, "The result", "Take less.")
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    memory.check_memory(10**20, "The result", "Take less.")


class TestResults:
    """What a fit would keep is known before it starts."""

    cohort = make_cohort(20, 50, 3, random_state=0)
    size = 8 * 20 * 3 * 50

    @pytest.fixture
    def fit(self, monkeypatch):
        def fit(free, **parameters):
            monkeypatch.setattr(memory, "SMALL", 0)
            monkeypatch.setattr(memory, "available_memory", lambda: free)
            return L2MaxDeconvolver(self.cohort.reference, beta=5000.0, **parameters).fit(self.cohort.bulk)

        return fit

    def test_refused_before_the_solve(self, fit, monkeypatch):
        monkeypatch.setattr(L2MaxDeconvolver, "_estimate", None)
        with pytest.raises(
            MemoryError,
            match=r"20 samples, 3 cell types and 50 genes needs 23\.4 kB, but .*materialize=False.*float32",
        ):
            fit(self.size - 1)

    def test_what_fits_is_computed(self, fit):
        assert fit(self.size).cse_.nbytes == self.size

    def test_normalised_expression_is_a_second_tensor(self, fit):
        with pytest.raises(MemoryError, match=r"46\.9 kB"):
            fit(2 * self.size - 1, normalize="frac")

    def test_without_the_tensor(self, fit):
        model = fit(self.size - 1, materialize=False)
        assert model.expression_.to_frame("celltype0").shape == (20, 50)
        with pytest.raises(MemoryError, match="20 samples, 3 cell types"):
            model.transform(self.cohort.bulk)
        model.set_params(output_cell_types=["celltype1"]).fit(self.cohort.bulk)
        assert model.transform(self.cohort.bulk).shape == (20, 50)
