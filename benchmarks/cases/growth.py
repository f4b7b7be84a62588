"""Growth of every job with samples, genes and cell types: time, memory and their exponents."""

import sys
import time
from collections import defaultdict

import numpy as np

from ..harness import Contest, Contestant, case
from ..jobs import JOBS
from ..report import number, slope, styles

CENTRE = {"samples": 1000, "genes": 20000, "cell_types": 8}
SIZES = {
    "samples": (250, 1000, 2000, 5000, 20000),
    "genes": (1000, 20000, 60000),
    "cell_types": (5, 8, 20, 40),
}
# Jobs that take many seconds at the centre go along samples with a tenth of the genes, and all go along cell types
# with a quarter of the samples.
FEW_GENES, FEW_SAMPLES = {"genes": 2000}, {"samples": 250}
LONG = [
    "model factor", "proportions rlm", "proportions log", "test interaction", "test marginal", "test factor",
    "corrector of the reference", "table, the bulk read from .tsv", "plot of proportions",
]  # fmt: skip
# These go along genes with a quarter of the samples, too.
LONGEST = ["test joint", "test log_fold_change", "table, all cell types as .tsv"]
# Jobs whose time grows with the square or the cube of a size.
OWN = {
    "model trace norm": {
        "samples": ((100, 250, 500, 1000, 2000), FEW_GENES),
        "genes": ((1000, 20000, 60000), {"samples": 100}),
        "cell_types": ((5, 8, 20, 40), {"samples": 100} | FEW_GENES),
    },
    "proportions nusvr": {
        "samples": ((250, 1000, 2000), {"genes": 500}),
        "genes": ((1000, 5000, 20000, 60000), {"samples": 10}),
        "cell_types": ((5, 8, 20, 40), {"samples": 100, "genes": 500}),
    },
}
# Seconds of all jobs together, cohorts drawn and models fitted included; what is left undone then is left out.
WHOLE = 1650.0
# Seconds of processor time that a job may be foreseen to take, and after which it is ended.
FORESEEABLE, ENDED = 60.0, 120
# Exponent with which the time of a job is foreseen until it was measured at two sizes.
FORESEEN = 1.0


def axes_of(name):
    """Sizes of a job along every axis, and where the other sizes are not those of the centre."""
    if name in OWN:
        return OWN[name]
    few_genes = FEW_GENES if name in LONG + LONGEST else {}
    others = {
        "samples": few_genes,
        "genes": FEW_SAMPLES if name in LONGEST else {},
        "cell_types": FEW_SAMPLES | few_genes,
    }
    return {axis: (sizes, others[axis]) for axis, sizes in SIZES.items()}


def points(axes):
    """Shapes, the smallest first, each with what is measured there: pairs of a job and an axis."""
    found = defaultdict(list)
    for name, own in axes.items():
        for axis, (sizes, others) in own.items():
            for size in sizes:
                found[tuple((CENTRE | others | {axis: size}).values())].append((name, axis))
    return dict(sorted(found.items(), key=lambda item: np.prod(item[0], dtype=float)))


class Course:
    """Sizes and times of one job along one axis so far."""

    def __init__(self):
        self.sizes, self.seconds, self.ended = [], [], False

    def foreseen(self, size):
        """Seconds at a size, from the growth between the last two."""
        if not self.sizes:
            return 0.0
        power = FORESEEN
        if len(self.sizes) > 1:
            power = max(slope(self.sizes[-2:], self.seconds[-2:]), FORESEEN)
        return self.seconds[-1] * (size / self.sizes[-1]) ** power

    def add(self, size, seconds):
        self.sizes.append(size)
        self.seconds.append(seconds)


def remarks(frame):
    """A table of exponents, time and memory, of the sizes from the centre on where there are several."""
    lines = [
        "| job | unit | " + " | ".join(axis.replace("_", " ") for axis in CENTRE) + " |",
        "|---" * 5 + "|",
    ]
    for (name, unit), part in frame.groupby(["contestant", "unit"], sort=False):
        cells = [_exponent(part[part["along"] == axis], axis, unit) for axis in CENTRE]
        lines.append(f"| {name} | {unit} | " + " | ".join(cells) + " |")
    yield "\n".join(lines)


def _exponent(part, axis, unit):
    part = part.sort_values(axis)
    beyond = part[part[axis] >= CENTRE[axis]]
    part = beyond if len(beyond) > 1 else part
    if part.empty:
        return "–"
    first, last = part.iloc[0], part.iloc[-1]
    cell = f"{number(first['median'])} {unit} at {first[axis]:,}"
    if len(part) > 1:
        cell += f", {number(last['median'])} at {last[axis]:,}: {slope(part[axis], part['median']):.2f}"
    others = [f"{first[other]:,} {other.replace('_', ' ')}" for other in CENTRE if other != axis]
    return f"{cell} ({', '.join(others)})"


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
            sizes = sorted(set(shown[along]))
            ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
            ax.minorticks_off()
            ax.grid(alpha=0.3)
        row[0].set_ylabel({"s": "seconds of processor time", "MB": "MB beyond the input"}[unit])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)


def plan(names, axes):
    """Jobs along the same axes, all around their smallest sizes."""
    centre = {axis: sizes[0] for axis, sizes in axes.items()}
    return {
        name: {axis: (sizes, {k: v for k, v in centre.items() if k != axis}) for axis, sizes in axes.items()}
        for name in names
    }


@case(
    full=[{"axes": {name: axes_of(name) for name in JOBS}}],
    quick=[{"axes": plan(JOBS, {"samples": (100, 200), "genes": (500, 1000), "cell_types": (4, 8)})}],
    tiny=[
        {
            "axes": plan(
                ["model L2-max", "table, the bulk read from .tsv", "plot of proportions"],
                {"samples": (12, 24), "genes": (60,), "cell_types": (3,)},
            )
        }
    ],
    repeats=1,
    remarks=remarks,
    draw=draw,
)
def growth(options, axes):
    """Growth of time and memory of everything with samples, genes and cell types, a process per job."""
    from ..held import Holder  # which lacks a module on Windows

    courses, start = defaultdict(Course), time.monotonic()
    with Holder(options.threads) as holder:
        for shape, asked in points(axes).items():
            found = _measured(holder, courses, shape, asked, start)
            for unit, place in (("s", 0), ("MB", 1)):
                for (name, axis), values in found.items():
                    setting = {"along": axis} | dict(zip(CENTRE, shape, strict=True))
                    once = Contestant(name, lambda value=values[place]: value, reports=True, once=True)
                    yield Contest(setting, [once], unit=unit, warm_up=False)


def _measured(holder, courses, shape, asked, start):
    """Time and memory of jobs at one shape, each measured once, of those that are not foreseen to take too long."""
    found, known = {}, {}
    for name, axis in asked:
        course, size = courses[name, axis], shape[list(CENTRE).index(axis)]
        foreseen = course.foreseen(size)
        if course.ended or foreseen > FORESEEABLE or time.monotonic() - start + foreseen > WHOLE:
            course.ended = True
            continue
        if name not in known:
            known[name] = holder.measure(name, shape, ENDED)
            _say(name, shape, known[name], start)
        if known[name] is None:
            course.ended = True
            continue
        course.add(size, known[name][0])
        found[name, axis] = known[name]
    return found


def _say(name, shape, found, start):
    """How far it has come, for who waits."""
    took = "ended" if found is None else f"{found[0]:.2f} s, {found[1]:.0f} MB"
    print(f"{time.monotonic() - start:.0f} s: {name} at {shape}: {took}", file=sys.stderr, flush=True)
