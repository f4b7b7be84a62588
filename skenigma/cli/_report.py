"""``skenigma report``."""

from pathlib import Path

from ..io import read_phenotype, read_run, staged_file
from ..io._records import RECORD
from ..io._runs import DIFFERENTIAL
from ..io._seal import is_sealed, sealed
from ..report import build_report
from ._differential import choose_column
from ._options import add_output, positive_integer
from ._usage import UsageError

NAME = "report"
USAGE = "RUN"
DESCRIPTION = """\
Write a self-contained web page on a run of 'skenigma deconvolve' or 'proportions', for readers who did not run
it: in words, what can be relied on and what to do about the rest; proportions by group, with a test; the genes that
differ in each cell type, all of which can be searched and downloaded (if 'skenigma differential' was run on it); the
expression of every gene with its interval; which genes deserve trust; and everything that is needed to repeat the
run. It needs no network, and can be mailed and printed. Bulk, reference and phenotype are read where the run read
them; what is no longer there is left out, and the page says so."""
EXAMPLES = """\
examples:
  skenigma report run
  skenigma report run --phenotype clinic.csv --column response
  skenigma report run --out report.html --title "Cohort A" --top 20"""


def add_options(parser):
    """Add the options of this command."""
    parser.add_argument("run", metavar="RUN", help="folder that 'skenigma deconvolve' or 'proportions' wrote")
    parser.add_argument(
        "--differential",
        metavar="FOLDER",
        help="results of 'skenigma differential' (default: RUN/differential)",
    )
    parser.add_argument(
        "--phenotype",
        metavar="FILE",
        help="table of samples × variables, for proportions by group (default: what 'skenigma differential' tested)",
    )
    parser.add_argument("--column", metavar="NAME", help="variable in it (default: the only one there is)")
    parser.add_argument("--title", metavar="TEXT", help="heading of the page")
    parser.add_argument(
        "--top",
        type=positive_integer,
        metavar="N",
        help="genes per cell type to print, and to show without JavaScript (default: 10)",
    )
    add_output(parser, "file for the page (default: RUN/report.html)")


def execute(given, console):
    """Write the page; returns the exit code and the summary."""
    run = read_run(given["run"])
    if run.record["command"] not in ("deconvolve", "proportions"):
        raise UsageError(f"{run.path} is a run of '{run.record['command']}': there is nothing to report on")
    out = Path(given.get("out", run.path / "report.html")).absolute()
    _refuse_input(out, run, given.get("differential"), given.get("phenotype"))
    options = {name: given[name] for name in ("title", "top") if name in given}
    options["phenotype"] = _phenotype(given)
    with staged_file(
        out, force=given.get("force", False), replaceable=is_sealed, done=console.has_written
    ) as staged:
        staged.write_bytes(sealed(build_report(run, differential=given.get("differential"), **options)))
    console.say(f"report written to {out}")
    return 0, {"command": NAME, "run": str(run.path), "out": str(out)}


def _phenotype(given):
    """The variable that divides the samples, None where none is given."""
    if "phenotype" not in given:
        if "column" in given:
            raise UsageError("--column names a variable of a phenotype: give it with --phenotype")
        return None
    table = read_phenotype(given["phenotype"])
    return table[choose_column(table, {"column": None, **given})]


def _refuse_input(out, run, differential, phenotype):
    """Refuse to write over anything that the run or the report reads or the run wrote, by whatever name."""
    record = run.record
    # --force may replace a report, never what it is made of
    read = [run.path / name for name in (RECORD, *record["outputs"])]
    read += [Path(entry["path"]) for entry in record["inputs"].values()]
    folder = run.path / "differential" if differential is None else Path(differential)
    read += [folder, folder / RECORD, folder / DIFFERENTIAL]
    read += [] if phenotype is None else [Path(phenotype)]
    for path in read:
        # by the file as well as by its name: a link leads to the same place
        if out == path.absolute() or (out.exists() and path.exists() and out.samefile(path)):
            raise FileExistsError(f"{out} belongs to the run that is reported on: choose another name.")
