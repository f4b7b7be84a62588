"""What benchmarks are made of: contestants that do one job, contests between them, cases that pose contests."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Sizes that a case is run at: to be quoted, to see that it works, to be tested.
LEVELS = ("full", "quick", "tiny")

CASES = {}


@dataclass(frozen=True)
class Options:
    """What the command line says to all cases.

    Attributes
    ----------
    threads : int or None
        Limit for the threads of BLAS and OpenMP; None leaves them as they are.
    original : benchmarks.original.Original
        The original R code, and what was recorded of it.
    """

    threads: int | None
    original: object


@dataclass(frozen=True)
class Contestant:
    """One way to do a job.

    Attributes
    ----------
    name : str
    run : callable
        Does the job once.
    reports : bool
        Whether ``run`` returns the number to compare (memory, iterations, a time of its own); else it is timed.
    factor : float
        What the number is multiplied by, where ``run`` does a part of the job; ``note`` then says so.
    once : bool
        Whether the number is the same every time: recorded, counted or computed.
    note : str
        What a reader of the number must know.
    """

    name: str
    run: Callable
    reports: bool = False
    factor: float = 1.0
    once: bool = False
    note: str = ""

    def measure(self):
        start = time.perf_counter()
        result = self.run()
        seconds = time.perf_counter() - start
        return self.factor * (result if self.reports else seconds)


@dataclass(frozen=True)
class Contest:
    """Contestants for the same job.

    Attributes
    ----------
    setting : dict
        Sizes and parameters: columns of the results.
    contestants : list of Contestant
        The first is the yardstick of the ratios.
    unit : str
        Of what is compared.
    agreement : callable or None
        Largest relative difference between what the contestants compute.
    warm_up : bool
        Whether to run everyone once before it counts; pointless where each run is a process of its own.
    """

    setting: dict
    contestants: list
    unit: str = "s"
    agreement: Callable | None = None
    warm_up: bool = True

    def rows(self, repeats):
        """One row of results per contestant, after all took turns ``repeats`` times."""
        difference = self.agreement() if self.agreement else np.nan
        values = self._take_turns(repeats)
        yardstick = self.contestants[0].name
        for contestant in self.contestants:
            found = np.array(values[contestant.name])
            yield self.setting | {
                "contestant": contestant.name,
                "unit": self.unit,
                "median": np.median(found),
                "lowest": found.min(),
                "highest": found.max(),
                "repeats": len(found),
                "ratio": typical_ratio(found, np.array(values[yardstick])),
                "yardstick": yardstick,
                "difference": difference,
                "note": contestant.note,
            }

    def _take_turns(self, repeats):
        for contestant in self.contestants:
            if self.warm_up and not contestant.once:
                contestant.run()
        values = {contestant.name: [] for contestant in self.contestants}
        for turn in range(repeats):
            for contestant in self.contestants:
                if turn == 0 or not contestant.once:
                    values[contestant.name].append(contestant.measure())
        return values


@dataclass(frozen=True)
class Case:
    """A question that contests answer.

    Attributes
    ----------
    name, title : str
    pose : callable
        Contests, from the options and one setting.
    settings : dict
        Settings of each level.
    repeats : int
        Turns unless the command line says otherwise.
    remarks : callable or None
        Lines to print below the results, from their table.
    draw : callable or None
        Draws the table of results into a figure; None draws ratios.
    """

    name: str
    title: str
    pose: Callable
    settings: dict
    repeats: int
    remarks: Callable | None
    draw: Callable | None

    def rows(self, options, level="full", repeats=None):
        """All rows of results, contest by contest."""
        for setting in self.settings[level]:
            for contest in self.pose(options, **setting):
                for row in contest.rows(repeats or self.repeats):
                    yield {"case": self.name} | row


def case(*, full, quick, tiny, repeats=5, remarks=None, draw=None):
    """Register a function as the case of its name; its docstring is the title."""

    def register(pose):
        settings = dict(zip(LEVELS, (full, quick, tiny), strict=True))
        title = pose.__doc__.splitlines()[0].rstrip(".")
        CASES[pose.__name__] = Case(pose.__name__, title, pose, settings, repeats, remarks, draw)
        return pose

    return register


def typical_ratio(values, yardstick):
    """Median of the ratios turn by turn, where both took all turns: what slows the machine down cancels."""
    if len(values) == len(yardstick):
        return np.median(values / yardstick)
    return np.median(values) / np.median(yardstick)


def largest_difference(found, expected):
    """Largest absolute difference, relative to the largest absolute value expected."""
    return float(np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected)))
