"""Command line: ``python -m benchmarks``."""

import argparse
import pathlib
import shlex
import sys
import time

from threadpoolctl import threadpool_limits

from . import cases, machine  # noqa: F401 - importing the cases registers them
from .harness import CASES, Options
from .original import Original
from .report import Report

RESULTS = pathlib.Path(__file__).parent / "results"


def parser():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks of skenigma.")
    parser.add_argument("--case", action="append", choices=CASES, help="run this case only; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument(
        "--repeats", type=positive, metavar="N", help="turns of every contestant; default: 5, or 3"
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="limit for the threads of BLAS and OpenMP"
    )
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder for CSV and figures")
    parser.add_argument(
        "--r-script", action="append", default=[], metavar="PATH",
        help="script of the original that defines cell_deconvolve, to be timed too; repeat it to source several",
    )  # fmt: skip
    return parser


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def run(names, options, report, level="full", repeats=None):
    """Run cases, one after the other; what lacks an optional package is skipped, and says so."""
    for name in names:
        case = CASES[name]
        try:
            rows = list(case.rows(options, level, repeats))
        except ModuleNotFoundError as error:
            report.skip(case, error)
        else:
            report.add(case, rows)


def main(arguments=None):
    given = parser().parse_args(arguments)
    if given.list:
        print(*(f"{case.name:<14}{case.title}" for case in CASES.values()), sep="\n")
        return
    options = Options(given.threads, Original(given.r_script))
    command = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
    start = time.monotonic()
    with threadpool_limits(given.threads):
        report = Report(given.out, machine.describe(command))
        run(given.case or CASES, options, report, "quick" if given.quick else "full", given.repeats)
    print(f"\nAll of it took {(time.monotonic() - start) / 60:.1f} minutes. Results are in {given.out}.")


if __name__ == "__main__":
    main()
