"""Memory of a process, and the peak of one call in a process of its own."""

import gc
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import joblib
from threadpoolctl import threadpool_limits

MEGABYTE = 1e6
ROOT = pathlib.Path(__file__).resolve().parents[1]
STATUS = pathlib.Path("/proc/self/status")


def peak_growth(function, small, large, threads=None):
    """Megabytes by which the peak memory of ``function(*large)`` exceeds what its process held before the call.

    The process is fresh. It has called ``function(*small)`` before, so that whatever is loaded or set up by a first
    call does not count, and it holds the arguments: the growth is what the call takes beyond them.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = os.path.join(folder, "job.joblib")
        joblib.dump((function, small, large, threads), job)
        command = [sys.executable, "-m", "benchmarks.fresh", job]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory():
    """Resident memory of this process, now and at its peak, in megabytes."""
    if STATUS.exists():
        # not getrusage: on Linux its peak begins at that of the parent process
        entries = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return tuple(1024 * int(entries[name].split()[0]) / MEGABYTE for name in ("VmRSS", "VmHWM"))
    import resource

    # macOS counts bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    return peak, peak


def release():
    """Give the system back what was freed, so that a process does not begin with memory to use again."""
    gc.collect()
    if sys.platform == "linux":
        import ctypes

        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


def reset_peak():
    """Let the peak of this process begin at what it holds now."""
    path = pathlib.Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def main(job):
    function, small, large, threads = joblib.load(job)
    with threadpool_limits(threads):
        function(*small)
        gc.collect()
        before, _ = memory()
        function(*large)
        _, peak = memory()
    print(json.dumps(peak - before))


if __name__ == "__main__":
    main(sys.argv[1])
