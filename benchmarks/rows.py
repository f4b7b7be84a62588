"""Fits of a cohort that stays on disk, each in a process of its own: ``python -m benchmarks.rows SETTING``."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import warnings

import numpy as np

from .fresh import MEGABYTE, ROOT

# Bytes of a block while the cohort is drawn.
DRAWN = 2**25
# Seconds between looks at the memory of the process.
EVERY = 0.02


# What posterior models look for, as a standard deviation of natural logarithms: the platform's offset of a gene, and
# what a hidden factor changes.
OFFSET, HIDDEN = 0.5, 0.3


def draw(path, samples, genes, cell_types, has_hidden=False):
    """Write a cohort to disk by blocks, float32; its reference."""
    more = np.random.default_rng(1)
    offset, loadings = OFFSET * more.standard_normal(genes), HIDDEN * more.standard_normal((4, genes))
    rng = np.random.default_rng(0)
    reference = rng.gamma(0.3, 1.0, (cell_types, genes))
    reference *= 1e6 / reference.sum(axis=1, keepdims=True)
    bulk = np.lib.format.open_memmap(path, "w+", np.float32, (samples, genes))
    step = max(1, DRAWN // (8 * genes))
    for start in range(0, samples, step):
        theta = rng.dirichlet(np.ones(cell_types), min(step, samples - start))
        block = theta @ reference
        block *= np.exp(0.3 * rng.standard_normal(block.shape, dtype=np.float32))
        if has_hidden:
            block *= np.exp(offset + more.standard_normal((len(block), 4)) @ loadings)
        bulk[start : start + step] = block * (1e6 / block.sum(axis=1, keepdims=True))
    bulk.flush()
    return reference


class Memory(threading.Thread):
    """The largest amount of memory of this process that is no page of a file, in megabytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before = self.peak = self.now()
        self.done = threading.Event()

    @staticmethod
    def now():
        """Resident memory that is its own."""
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        (found,) = (line for line in lines if line.startswith("RssAnon"))
        return 1024 * int(found.split()[1]) / MEGABYTE

    def run(self):
        while not self.done.wait(EVERY):
            self.peak = max(self.peak, self.now())


def estimator(name, reference):
    """An estimator, its settings for this cohort; the number of iterations is asked of those that have it."""
    import skenigma

    settings = {
        "L2MaxDeconvolver": {"materialize": False, "n_samples_of_settings": 100},
        "EmpiricalBayesDeconvolver": {"materialize": False},
        "ProportionEstimator": {"method": "log"},
    }
    return getattr(skenigma, name)(reference, **settings[name])


def fit(path, samples, genes, cell_types, model="L2MaxDeconvolver"):
    """Readings, iterations, seconds of processor time and megabytes beside the file, of one fit."""
    from sklearn.base import clone

    from skenigma.cohort import lazy_matrix

    reference = draw(path, samples, genes, cell_types, model == "EmpiricalBayesDeconvolver")
    unfitted = estimator(model, reference)
    small = np.random.default_rng(0).random((40, genes)) * reference.mean(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # what a first call loads and compiles does not count
        clone(unfitted).fit(lazy_matrix(small))
        matrix = lazy_matrix(np.load(path, mmap_mode="r"))
        memory = Memory()
        memory.start()
        wall, start = time.perf_counter(), time.process_time()
        fitted = unfitted.fit(matrix)
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
        memory.done.set()
    return {
        "readings": matrix.readings,
        "iterations": getattr(fitted, "n_iter_", 1),
        "processor seconds": seconds,
        "wall seconds": wall,
        "MB beside the file": max(memory.peak - memory.before, 0.1),  # less cannot be told apart
    }


def measure(**setting):
    """:func:`fit` in a fresh process, its file deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        given = json.dumps({"path": os.path.join(folder, "bulk.npy"), **setting})
        command = [sys.executable, "-m", "benchmarks.rows", given]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(fit(**json.loads(sys.argv[1]))))
