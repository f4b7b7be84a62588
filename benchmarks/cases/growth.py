"""Growth of every job with samples, genes and cell types: time, memory and their exponents."""

import subprocess
import time
from functools import cache

from .. import jobs
from ..harness import Contest, Contestant, case
from ..report import slope, styles

CENTRE = {"samples": 1000, "genes": 20000, "cell_types": 8}
AXES = {
    "samples": (250, 1000, 2000, 5000, 20000),
    "genes": (1000, 20000, 60000),
    "cell_types": (5, 8, 20, 40),
}
# A support vector machine per sample, with as many candidates for support vectors as there are genes: its time grows
# with the square of the genes, and it is for tables of marker genes.
FEW = {
    "proportions nusvr": {
        "centre": {"samples": 100, "genes": 1000, "cell_types": 8},
        "axes": {"samples": (50, 100, 200), "genes": (500, 1000, 2000), "cell_types": (5, 8, 20)},
    }
}
# Seconds of all jobs together, cohorts drawn and models fitted included. Each has its share of them, and along each
# axis its share of that; what one leaves the next ones have.
WHOLE = 1400.0
# Growth that is foreseen from one size to the next, when it is decided whether to try it.
FORESEEN = 1.1
# Seconds beyond its share after which a job is ended.
PATIENCE = 60.0


def settings(names, axes, centre, others=None):
    return [
        {"job": name, "along": axis, "sizes": sizes, "centre": own["centre"]}
        for name in names
        for own in [(others or {}).get(name, {"axes": axes, "centre": centre})]
        for axis, sizes in own["axes"].items()
    ]


def remarks(frame):
    """Exponents of every job along each axis, of the upper half of its sizes where these are many."""
    for (along, name, unit), part in frame.groupby(["along", "contestant", "unit"], sort=False):
        if len(part) < 2:
            continue
        line = f"- {name}, {'time' if unit == 's' else 'memory'}: grows as {along} to the power of "
        line += f"{slope(part[along], part['median']):.2f}"
        beyond = part[part[along] >= CENTRE[along]]
        if 2 <= len(beyond) < len(part):
            line += f", from {CENTRE[along]:,} on {slope(beyond[along], beyond['median']):.2f}"
        yield line


def draw(frame, figure):
    """Times and memory against sizes, on logarithmic axes, a line per job."""
    figure.set_size_inches(12, 9)
    directions, units = (list(dict.fromkeys(frame[name])) for name in ("along", "unit"))
    axes = figure.subplots(len(units), len(directions), sharey="row", squeeze=False)
    looks = styles(frame["contestant"])
    for row, unit in zip(axes, units, strict=True):
        for ax, along in zip(row, directions, strict=True):
            shown = frame[(frame["along"] == along) & (frame["unit"] == unit)]
            for name, part in shown.groupby("contestant", sort=False):
                ax.loglog(part[along], part["median"], label=name, **looks[name])
            ax.set_xlabel(along.replace("_", " "))
            ax.grid(alpha=0.3)
        row[0].set_ylabel({"s": "seconds of processor time", "MB": "MB beyond the input"}[unit])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)


@case(
    full=settings(jobs.JOBS, AXES, CENTRE, FEW),
    quick=settings(
        jobs.JOBS,
        {"samples": (100, 200), "genes": (500, 1000), "cell_types": (4, 8)},
        {"samples": 100, "genes": 500, "cell_types": 4},
    ),
    tiny=settings(
        ["model L2-max", "plot of proportions"],
        {"samples": (12, 24)},
        {"samples": 12, "genes": 60, "cell_types": 3},
    ),
    repeats=1,
    remarks=remarks,
    draw=draw,
)
def growth(options, job, along, sizes, centre):
    """Growth of time and memory of everything with samples, genes and cell types, each job in a fresh process."""
    _spent.begin(job, along)
    took, previous = 0.0, None
    for size in sizes:
        if previous and took * (size / previous) ** FORESEEN > _spent.left():
            return
        shape = centre | {along: size}
        before = _spent.seconds
        try:
            seconds, megabytes = _spent.measured(job, *shape.values(), options.threads)
        except subprocess.TimeoutExpired:
            return
        took, previous = max(_spent.seconds - before, seconds), size
        for unit, value in (("s", seconds), ("MB", megabytes)):
            found = Contestant(job, lambda value=value: value, reports=True, once=True)
            yield Contest({"along": along, **shape}, [found], unit=unit, warm_up=False)


class Spent:
    """Measurements, each made once, and the time that all of them took."""

    def __init__(self):
        self.seconds, self._begun = 0.0, []
        self.measured = cache(self._measure)

    def _measure(self, *what):
        start = time.monotonic()
        try:
            return jobs.measure(*what, timeout=max(self.left(), 0) + PATIENCE)
        finally:
            self.seconds += time.monotonic() - start

    def begin(self, *what):
        """A job along an axis: one share more may be spent."""
        self._begun.append(what)

    def left(self):
        """Seconds that are left of the shares of all that were begun."""
        return WHOLE * len(self._begun) / (len(jobs.JOBS) * len(AXES)) - self.seconds


_spent = Spent()
