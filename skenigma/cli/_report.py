"""``skenigma report``."""

from pathlib import Path

from ..io import read_run, staged_file
from ..report import build_report
from ._job import UsageError
from ._options import add_output, positive_integer

NAME = "report"
SUMMARY = "show a run as one page of HTML"
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
    out = Path(given.get("out", run.path / "report.html"))
    options = {name: given[name] for name in ("title", "top") if name in given}
    with staged_file(out, force=given.get("force", False)) as staged:
        page = build_report(run, differential=given.get("differential"), **options)
        staged.write_text(page, encoding="utf-8")
    console.say(f"report written to {out}")
    return 0, {"command": NAME, "run": str(run.path), "out": str(out.absolute())}
