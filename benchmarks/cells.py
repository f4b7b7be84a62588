"""Time and memory of the way from annotated cells to reference and pseudo-bulk: ``python -m benchmarks.cells``.

50,000 cells × 20,000 genes at 5 % density, 12 cell types. Each task runs in a process of its own, which loads the
cells from a file; memory is the growth of its peak after that (Unix only).
"""

import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from scipy import sparse

from skenigma.reference import make_pseudobulk, make_reference, select_markers

N_CELLS, N_GENES, N_TYPES, DENSITY = 50_000, 20_000, 12, 0.05
GENES = [f"gene{g}" for g in range(N_GENES)]

TASKS = {
    "reference": lambda cells, labels: make_reference(cells, labels, gene_names=GENES),
    "reference, normalized": lambda cells, labels: make_reference(
        cells, labels, gene_names=GENES, normalize=1e6
    ),
    "markers": lambda cells, labels: select_markers(cells, labels, gene_names=GENES, normalize=1e6),
    "pseudo-bulk, 100 samples": lambda cells, labels: make_pseudobulk(
        cells, labels, 100, return_cse=False, random_state=0
    ),
}


def make_cells(folder):
    """Write counts whose non-zero genes are spread evenly, with markers for each type."""
    rng = np.random.default_rng(0)
    per_cell = int(DENSITY * N_GENES)
    stride = N_GENES // per_cell
    indices = np.arange(0, N_GENES, stride) + rng.integers(stride, size=(N_CELLS, per_cell), dtype=np.int32)
    labels = rng.integers(N_TYPES, size=N_CELLS)
    counts = 1 + rng.poisson(1.0, indices.shape).astype(np.float32)
    counts[indices % N_TYPES == labels[:, None]] += 40
    np.save(folder / "indices.npy", indices.ravel().astype(np.int32))
    np.save(folder / "counts.npy", counts.ravel())
    np.save(folder / "labels.npy", labels)


def load_cells(folder):
    indices = np.load(folder / "indices.npy")
    indptr = np.linspace(0, len(indices), N_CELLS + 1).astype(np.int32)
    cells = sparse.csr_matrix((np.load(folder / "counts.npy"), indices, indptr), shape=(N_CELLS, N_GENES))
    return cells, np.load(folder / "labels.npy")


def peak_mb():
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure(task, folder):
    cells, labels = load_cells(folder)
    before, start, cpu = peak_mb(), time.perf_counter(), time.process_time()
    TASKS[task](cells, labels)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{task:26s} {seconds:6.1f} s ({cpu:.1f} s of CPU)  {peak_mb() - before:6.0f} MB beyond the input")


def main():
    with tempfile.TemporaryDirectory() as folder:
        # a process begins with the peak of the one that started it, so this one stays small
        for task in ("input", *TASKS):
            subprocess.run([sys.executable, "-m", "benchmarks.cells", task, folder], check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["input", folder]:
            make_cells(pathlib.Path(folder))
        case [task, folder]:
            measure(task, pathlib.Path(folder))
        case _:
            main()
