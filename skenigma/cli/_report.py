"""``skenigma report``."""

from pathlib import Path

from ..io import read_run, staged_file
from ..io._records import RECORD
from ..io._runs import DIFFERENTIAL
from ..io._seal import is_sealed, sealed
from ..report import build_report
from ._options import add_output, positive_integer
from ._usage import UsageError

NAME = "report"
USAGE = "RUN"
DESCRIPTION = """\
Write one self-contained page of HTML on a run of 'skenigma deconvolve' or 'proportions': proportions, quality of each
sample, losses, gradient norms, the top differential genes of each cell type (if 'skenigma differential' was run on
it), parameters and versions. It needs no network and can be mailed and printed."""
EXAMPLES = """\
examples:
  skenigma report run
  skenigma report run --out report.html --title "Cohort A" --top 20"""


def add_options(parser):
    """Add the options of this command."""
    parser.add_argument("run", metavar="RUN", help="folder that 'skenigma deconvolve' or 'proportions' wrote")
    parser.add_argument(
        "--differential",
        metavar="FOLDER",
        help="results of 'skenigma differential' (default: RUN/differential)",
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of the page")
    parser.add_argument(
        "--top",
        type=positive_integer,
        metavar="N",
        help="differential genes to show per cell type (default: 10)",
    )
    add_output(parser, "file for the page (default: RUN/report.html)")


def execute(given, console):
    """Write the page; returns the exit code and the summary."""
    run = read_run(given["run"])
    if run.record["command"] not in ("deconvolve", "proportions"):
        raise UsageError(f"{run.path} is a run of '{run.record['command']}': there is nothing to report on")
    out = Path(given.get("out", run.path / "report.html")).absolute()
    _refuse_input(out, run, given.get("differential"))
    options = {name: given[name] for name in ("title", "top") if name in given}
    with staged_file(
        out, force=given.get("force", False), replaceable=is_sealed, done=console.has_written
    ) as staged:
        staged.write_bytes(sealed(build_report(run, differential=given.get("differential"), **options)))
    console.say(f"report written to {out}")
    return 0, {"command": NAME, "run": str(run.path), "out": str(out)}


def _refuse_input(out, run, differential):
    """Refuse to write over anything that the run or the report reads or the run wrote, by whatever name."""
    record = run.record
    read = [run.path / name for name in (RECORD, *record["outputs"])]
    read += [Path(entry["path"]) for entry in record["inputs"].values()]
    folder = run.path / "differential" if differential is None else Path(differential)
    read += [folder, folder / RECORD, folder / DIFFERENTIAL]
    for path in read:
        if out == path.absolute() or (out.exists() and path.exists() and out.samefile(path)):
            raise FileExistsError(f"{out} belongs to the run that is reported on: choose another name.")
