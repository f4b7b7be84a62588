"""A cohort that stays on disk: how often a fit reads it, its time, and the memory beside the file."""

from functools import cache

from .. import rows
from ..harness import Contest, Contestant, case

GTEX = {"samples": 17382, "genes": 20000, "cell_types": 5}
# Measured in one process, one number after the other.
UNITS = {
    "readings": "readings",
    "iterations": "iterations",
    "processor seconds": "s",
    "wall seconds": "s",
    "MB beside the file": "MB",
}


MODELS = "L2MaxDeconvolver", "EmpiricalBayesDeconvolver", "ProportionEstimator"


def _of_each(**size):
    return [{**size, "model": model} for model in MODELS]


@case(
    full=_of_each(**GTEX),
    quick=_of_each(samples=1200, genes=2000, cell_types=5),
    tiny=_of_each(samples=30, genes=150, cell_types=3),
    repeats=1,
)
def by_rows(options, **setting):
    """Fits of a memory-mapped cohort: readings, time, and memory beside the file, each in a fresh process."""
    measured = cache(lambda: rows.measure(**setting))
    for name, unit in UNITS.items():
        found = Contestant(name, lambda name=name: measured()[name], reports=True, once=True)
        yield Contest(setting, [found], unit=unit, warm_up=False)
