"""Partitions on a dask cluster: what messages, iterations and readings cost, and what follows for large cohorts."""

import math
import pathlib
import tempfile
import time

import numpy as np

from ..harness import Contest, Contestant, case

# What is simulated: samples, genes, cell types, and directions that the samples come to share.
COHORTS = (
    (17_382, 20_000, 5, 60),
    (100_000, 30_000, 5, 80),
    (300_000, 30_000, 5, 80),
    (700_000, 30_000, 5, 80),
)
# Machines, and threads of each.
CLUSTERS = ((1, 8), (4, 8), (16, 8))
# Of a fit: iterations, iterations that are looked ahead, readings of the bulk.
ITERATIONS, AHEAD, READINGS = 24, 40, 10
MEGABYTE = 2**17  # numbers
SMALL, TO_WORKERS, FROM_WORKERS = "small", "1 MB to each worker", "1 MB from each worker"
ONE_ITERATION, CAPS, MEMORY, ZARR = "iteration", "caps", "rows in memory", "rows in Zarr"


class Echo:
    """A partition that answers with nothing, or with as many numbers as it is asked for."""

    def __init__(self, source):
        pass

    def take(self, values):
        """Nothing."""

    def give(self, count):
        """So many numbers."""
        return np.zeros(count)


def messages(processes):
    """Milliseconds of a call of partitions on two workers."""
    from distributed import Client, LocalCluster

    from skenigma._dask.workers import Workers

    local = LocalCluster(n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=":0")
    with local as cluster, Client(cluster) as client:
        workers = Workers(client, Echo, [None, None], asking=("take", "give"))
        values = np.zeros(MEGABYTE)
        yield Contest(
            {"workers": 2},
            [
                Contestant(SMALL, lambda: _milliseconds(workers.all, "take", 1.0), reports=True),
                Contestant(TO_WORKERS, lambda: _milliseconds(workers.all, "take", values), reports=True),
                Contestant(FROM_WORKERS, lambda: _milliseconds(workers.all, "give", MEGABYTE), reports=True),
            ],
            unit="ms",
        )
        workers.close()


def _milliseconds(run, *args, times=20):
    start = time.perf_counter()
    for _ in range(times):
        run(*args)
    return 1e3 * (time.perf_counter() - start) / times


def iterations(n_samples, n_cell_types, n_directions):
    """Nanoseconds of an iteration of one thread: per number of the state, and of the caps per norm."""
    from skenigma.core.optimize.part import Part
    from skenigma.core.optimize.passes import fastest
    from skenigma.core.optimize.start import Start

    rng = np.random.default_rng(0)
    n_dimensions = 4 * n_directions
    bulk = rng.standard_normal((n_samples, n_dimensions))
    vectors = np.linalg.qr(rng.standard_normal((n_dimensions, n_directions)))[0].T
    proportions = rng.dirichlet(np.ones(n_cell_types), n_samples)
    probes = rng.standard_normal((n_dimensions, 4))
    part = Part((bulk, proportions), vectors=vectors, probes=probes, start=Start(), n_samples=n_samples)
    shift = 1e-3 * rng.standard_normal((n_cell_types, n_directions))
    caps = np.full(n_cell_types, 2.0 * math.sqrt(n_dimensions))

    def iteration():
        start = time.perf_counter()
        part.look(shift)
        part.step(1e-3, shift)
        part.cut(caps)
        part.accept()
        return 1e9 * (time.perf_counter() - start) / part.expression.rows.size

    def cap():
        norms = rng.random((n_samples, n_cell_types))
        start = time.perf_counter()
        fastest().caps(norms, 50.0)
        return 1e9 * (time.perf_counter() - start) / norms.size

    yield Contest(
        {"samples": n_samples, "cell_types": n_cell_types, "directions": n_directions},
        [Contestant(ONE_ITERATION, iteration, reports=True), Contestant(CAPS, cap, reports=True)],
        unit="ns",
    )


def readings(n_samples, n_genes):
    """Nanoseconds per value of a reading by one thread."""
    import zarr

    from skenigma.cohort import lazy_matrix
    from skenigma.core.blocks import RowSource

    rng = np.random.default_rng(0)
    values = rng.poisson(5.0, (n_samples, n_genes)).astype(np.float32)
    weights = rng.standard_normal((5, n_samples))
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "bulk.zarr")
        chunks = (max(1, n_samples // 8), n_genes)
        stored = zarr.open(path, mode="w", shape=values.shape, chunks=chunks, dtype="f4")
        stored[:] = values

        def reading(rows):
            start = time.perf_counter()
            rows.combine(weights)
            return 1e9 * (time.perf_counter() - start) / values.size

        sources = {MEMORY: RowSource(values), ZARR: RowSource(lazy_matrix(stored))}
        yield Contest(
            {"samples": n_samples, "genes": n_genes},
            [
                Contestant(name, lambda rows=rows: reading(rows), reports=True)
                for name, rows in sources.items()
            ],
            unit="ns",
        )


def simulated(measured, cohort, machines, threads, rows):
    """Seconds of an iteration and of a fit, were every machine like the one that was measured.

    Parameters
    ----------
    measured : dict
        Medians by contestant.
    cohort : tuple of int
        Of ``COHORTS``.
    machines, threads : int
        Of ``CLUSTERS``.
    rows : str
        ``MEMORY`` or ``ZARR``: where workers read from.

    Returns
    -------
    iteration, fit, level : float
        The last is a part of ``fit``: what it takes to bring the rows here once, to measure the level of the result.
    """
    n_samples, n_genes, n_cell_types, n_directions = cohort
    small = 1e-3 * measured[SMALL] / 2  # two workers were measured, which answer one after the other
    per_number = {
        name: 1e-3 * max(measured[name] - measured[SMALL], 0.0) / 2 / MEGABYTE
        for name in (TO_WORKERS, FROM_WORKERS)
    }
    state = n_samples * (n_cell_types + 1) * (n_directions + 1)
    parts = 2 * machines * threads
    numbers = n_cell_types * (n_directions + 1)
    iteration = 4 * machines * small + 1e-9 * measured[ONE_ITERATION] * state / (machines * threads)
    # look answers with means, step with all norms, of which the driver makes the caps
    iteration += per_number[FROM_WORKERS] * (parts * numbers + n_samples * n_cell_types)
    iteration += (
        per_number[TO_WORKERS] * 2 * machines * numbers + 1e-9 * measured[CAPS] * n_samples * n_cell_types
    )
    reading = 1e-9 * measured[rows] * n_samples * n_genes / (machines * threads)
    reading += per_number[FROM_WORKERS] * parts * 2 * n_cell_types * n_genes
    # the state comes here in the end, and rows once more, in float32, to measure the level of the result
    level = per_number[FROM_WORKERS] * n_samples * n_genes / 2
    end = per_number[FROM_WORKERS] * state + level
    return iteration, (ITERATIONS + AHEAD) * iteration + READINGS * reading + end, level


def remarks(frame):
    """The simulation."""
    measured = dict(zip(frame["contestant"], frame["median"], strict=True))
    yield (
        f"SIMULATED from the medians above, not measured: every machine as fast as this one, {ITERATIONS} "
        f"iterations, {AHEAD} more looked ahead, {READINGS} readings; the network as fast as messages between "
        f"processes here."
    )
    names = (
        "samples × genes",
        "machines × threads",
        "iteration",
        "fit, rows in memory",
        "fit, rows in Zarr",
        "level",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for cohort in COHORTS:
        for machines, threads in CLUSTERS:
            iteration, fit, level = simulated(measured, cohort, machines, threads, MEMORY)
            _, stored, _ = simulated(measured, cohort, machines, threads, ZARR)
            lines.append(
                f"| {cohort[0]:,} × {cohort[1]:,} | {machines} × {threads} | {iteration:.2f} s | {fit:,.0f} s | "
                f"{stored:,.0f} s | {level:,.0f} s |"
            )
    yield "\n".join(lines)


@case(
    full=[{"processes": True, "samples": 20_000, "directions": 60, "genes": 20_000}],
    quick=[{"processes": True, "samples": 2_000, "directions": 60, "genes": 2_000}],
    tiny=[{"processes": False, "samples": 60, "directions": 40, "genes": 200}],
    repeats=5,
    remarks=remarks,
)
def cluster(options, processes, samples, directions, genes):
    """Partitions on a dask cluster: messages, iterations and readings."""
    yield from messages(processes)
    yield from iterations(samples, 5, directions)
    yield from readings(samples // 10, genes)
