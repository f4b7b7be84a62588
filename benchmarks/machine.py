"""What a reader must know about where figures come from."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from threadpoolctl import threadpool_info

import skenigma

PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "numba", "statsmodels")


def describe(command):
    """Machine, versions and threads, as names and values to print."""
    return {
        "date": datetime.datetime.now().isoformat(" ", "minutes"),
        "command": command,
        "machine": f"{_processor()}, {_cores()} cores, {_memory():.0f} GB of memory, {platform.system()}",
        "load": _load(),
        "versions": ", ".join([f"python {platform.python_version()}", *_versions()]),
        "threads": ", ".join(_pools()),
    }


def _processor():
    """Model of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory():
    """Memory of the machine in gigabytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return float("nan")


def _load():
    """How busy the machine is at the start: figures of a busy one are worth little."""
    if not hasattr(os, "getloadavg"):
        return "unknown"
    return ", ".join(f"{load:.2f}" for load in os.getloadavg()) + " (mean of 1, 5 and 15 minutes)"


def _versions():
    yield f"skenigma {skenigma.__version__}{_commit()}"
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing"


def _commit():
    """Commit of the checkout that these benchmarks are in, if it is one."""
    command = ["git", "-C", os.path.dirname(__file__), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({done.stdout.strip()})"


def _pools():
    """Libraries with threads of their own: BLAS and OpenMP."""
    return sorted(
        {
            f"{pool['internal_api']} {pool['version'] or ''}".strip() + f" with {pool['num_threads']}"
            for pool in threadpool_info()
        }
    )
