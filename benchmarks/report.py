"""Results to read: tables, a CSV file, figures."""

import itertools
import json

import numpy as np
import pandas as pd

LAST_COLUMNS = [
    "contestant", "unit", "median", "lowest", "highest", "repeats", "ratio", "yardstick", "difference", "note",
]  # fmt: skip
COUNTED = {"genes": "genes", "samples": "samples", "cell_types": "cell types", "cells": "cells"}
HIDDEN = {"case", "along", *LAST_COLUMNS}


class Report:
    """Results in a folder, and their tables on the screen.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it does not exist; files of the same names in it are replaced.
    machine : dict
        What :func:`benchmarks.machine.describe` returns.
    """

    def __init__(self, folder, machine):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        (folder / "machine.json").write_text(json.dumps(machine, indent=2) + "\n", encoding="utf-8")
        self.rows = []
        self.lines = []
        self._say(*(f"- {name}: {value}" for name, value in machine.items()))

    def add(self, case, rows):
        """One case: its table and remarks, printed; its figure, and all files so far, written."""
        frame = pd.DataFrame(rows)
        remarks = case.remarks(frame) if case.remarks else []
        self._say("", f"## {case.title}", "", *table(frame))
        self._say(*itertools.chain.from_iterable(("", remark) for remark in [*remarks, *differences(frame)]))
        self._draw(case, frame)
        self.rows += rows
        self._write()

    def skip(self, case, reason):
        self._say("", f"## {case.title}", "", f"Not run: {reason}.")
        self._write()

    def frame(self):
        """All rows, the columns of results last."""
        frame = pd.DataFrame(self.rows)
        if frame.empty:
            return frame
        first = [name for name in frame.columns if name not in LAST_COLUMNS]
        frame = frame[first + LAST_COLUMNS]
        whole = [name for name in frame if _is_whole(frame[name])]
        return frame.astype(dict.fromkeys(whole, "Int64"))

    def _say(self, *lines):
        for line in lines:
            print(line, flush=True)
        self.lines += lines

    def _draw(self, case, frame):
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        (case.draw or draw_ratios)(frame, figure)
        figure.suptitle(case.title, fontsize="medium")
        figure.savefig(self.folder / f"{case.name}.png", dpi=150)
        self.lines += ["", f"![{case.title}]({case.name}.png)"]

    def _write(self):
        self.frame().to_csv(self.folder / "results.csv", index=False)
        (self.folder / "report.md").write_text("\n".join(self.lines) + "\n", encoding="utf-8")


def describe(row, separator=", "):
    """Setting of a row: sizes, then parameters."""
    known = {name: value for name, value in row.items() if name not in HIDDEN and not pd.isna(value)}
    sizes = " × ".join(f"{known.pop(name):,} {word}" for name, word in COUNTED.items() if name in known)
    parameters = ", ".join(_parameter(name, value) for name, value in known.items())
    return separator.join(filter(None, [sizes, parameters]))


def _parameter(name, value):
    name = name.replace("_", " ")
    return f"{value} {name}" if isinstance(value, int) else f"{name} {value}"


def number(value):
    """Three digits, without powers of ten where people count without them."""
    if value == 0 or 1e-3 <= abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"


def table(frame):
    """Lines of a table in Markdown, aligned to be read as it stands."""
    cells = [("setting", "contestant", "median", "range", "repeats", "times the first", "")]
    previous = None
    for row in frame.to_dict("records"):
        setting = describe(row)
        cells.append(
            (
                setting if (setting, row["unit"]) != previous else "",
                row["contestant"],
                f"{number(row['median'])} {row['unit']}",
                f"{number(row['lowest'])} to {number(row['highest'])}" if row["repeats"] > 1 else "",
                str(row["repeats"]),
                number(row["ratio"]),
                row["note"],
            )
        )
        previous = setting, row["unit"]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [lines[0], "|-" + "-|-".join("-" * width for width in widths) + "-|", *lines[1:]]


def differences(frame):
    """How far contestants that compute the same are apart."""
    largest = frame["difference"].max()
    if not np.isnan(largest):
        yield f"Largest relative difference between what contestants computed: {largest:.1e}."


def slopes(frame):
    """Exponents of growth, one line per contestant and direction."""
    for (along, name), part in frame.groupby(["along", "contestant"], sort=False):
        yield f"- {name}: grows as {along} to the power of {slope(part[along], part['median']):.2f}"


def slope(sizes, values):
    """Slope of the straight line through a log-log plot."""
    return np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float)), 1)[0]


def styles(names):
    """A colour and marker per contestant: those of the plots, and the same colours with other markers after these."""
    from skenigma.plotting._style import LINE_STYLES

    count, looks = len(LINE_STYLES), {}
    for i, name in enumerate(dict.fromkeys(names)):
        marker = LINE_STYLES[(i + i // count) % count]["marker"]
        looks[name] = {**LINE_STYLES[i % count], "marker": marker}
    return looks


def draw_ratios(frame, figure):
    """Every contestant as a multiple of the first, contest by contest."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = frame.to_dict("records")
    labels = [f"{describe(row, chr(10))} ({_quantity(row['unit'])})" for row in rows]
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    figure.set_size_inches(9, 1.8 + 0.5 * len(places))
    ax = figure.subplots()
    for name, style in styles(frame["contestant"]).items():
        points = [
            (row["ratio"], places[label])
            for row, label in zip(rows, labels, strict=True)
            if row["contestant"] == name
        ]
        ax.plot(*zip(*points, strict=True), label=name, **(style | {"linestyle": "none"}))
    ax.set(xscale="log", yticks=range(len(places)), ylim=(len(places) - 0.5, -0.5))
    ax.set_yticklabels(places, fontsize="small")
    ax.set_xlabel(f"multiple of {_yardsticks(frame)}")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    if frame["ratio"].max() < 50 * frame["ratio"].min():
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)


def _is_whole(column):
    """Whether a column holds whole numbers, as floats only because some are missing."""
    return column.dtype == float and bool((column.dropna() % 1 == 0).all())


def _quantity(unit):
    return {"s": "time", "MB": "memory"}.get(unit, unit)


def _yardsticks(frame):
    """What the ratios are ratios to; where it differs between units, for each of them."""
    first = dict(zip(frame["unit"], frame["yardstick"], strict=True))
    if len(set(first.values())) == 1:
        return frame["yardstick"].iloc[0]
    return " or ".join(f"{yardstick} ({_quantity(unit)})" for unit, yardstick in first.items())


def draw_growth(frame, figure):
    """Times against sizes, on logarithmic axes, with the fitted exponents."""
    from matplotlib.ticker import NullLocator

    figure.set_size_inches(10, 5.5)
    directions = list(dict.fromkeys(frame["along"]))
    axes = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    looks = styles(frame["contestant"])
    for ax, along in zip(axes, directions, strict=True):
        for name, part in frame[frame["along"] == along].groupby("contestant", sort=False):
            power = slope(part[along], part["median"])
            ax.loglog(part[along], part["median"], label=f"{name}: {along}$^{{{power:.2f}}}$", **looks[name])
        other = {"genes": "samples", "samples": "genes"}[along]
        ax.set_xlabel(f"{along}, at {frame.loc[frame['along'] == along, other].iloc[0]:,} {other}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(sizes := frame.loc[frame["along"] == along, along].unique(), [f"{n:,}" for n in sizes])
        ax.grid(alpha=0.3, which="both")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize="small", frameon=False)
    axes[0].set_ylabel("seconds")
