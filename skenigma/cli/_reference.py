"""``skenigma reference``."""

import argparse
import inspect

from ..io import read_cells
from ..reference import make_reference
from ._options import add_output, add_repeat, positive_integer

NAME = "reference"
USAGE = "--cells FILE --labels COLUMN --out FOLDER"
DESCRIPTION = """\
Average the cells of each type to a profile, in the file that the other commands read: reference.tsv. Cells must be
on the linear scale, counts or counts per 10,000 or per million, and not logarithms: mixtures add up before the
logarithm. Also written are cell_types.tsv, how many cells of each type there are and what was left out, and with
--markers the genes that tell the types apart, markers.tsv."""
EXAMPLES = """\
examples:
  skenigma reference --cells pbmc.h5ad --labels cell_type --out reference
  skenigma reference --cells pbmc.h5ad --labels cell_type --layer counts --total 1e6 --markers 100 --out reference
  skenigma deconvolve --bulk bulk.tsv --reference reference/reference.tsv --out run"""
INPUTS = ("cells",)
REQUIRED = ("cells", "labels")
MIN_CELLS = inspect.signature(make_reference).parameters["min_cells"].default
DEFAULTS = {"layer": None, "total": None, "min_cells": MIN_CELLS, "markers": None}
FILE, CELL_TYPES, MARKERS = "reference.tsv", "cell_types.tsv", "markers.tsv"


def add_options(parser):
    """Add the options of this command."""
    group = parser.add_argument_group("cells")
    group.add_argument("--cells", metavar="FILE", help="annotated cells, cells × genes (.h5ad)")
    group.add_argument(
        "--labels", metavar="COLUMN", help="column of obs that holds the cell type of each cell"
    )
    group.add_argument(
        "--layer", metavar="NAME", help="layer that holds the expression, or raw (default: X itself)"
    )
    group.add_argument(
        "--min-cells",
        type=positive_integer,
        metavar="N",
        help=f"leave out types with fewer cells (default: {MIN_CELLS})",
    )
    group = parser.add_argument_group("profiles")
    group.add_argument(
        "--total",
        type=_total,
        metavar="NUMBER",
        help="scale every cell to this total first, or to the median total: 1e6 for a bulk in counts per million "
        "(default: cells as they are, whose larger types weigh more)",
    )
    group.add_argument(
        "--markers", type=positive_integer, metavar="N", help="keep up to N marker genes per cell type only"
    )
    add_output(parser)
    add_repeat(parser)


def _total(text):
    """A positive number, or "median"."""
    if text == "median":
        return text
    try:
        total = float(text)
    except ValueError:
        total = 0.0
    if not 0 < total < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a positive number nor median")
    return total


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    return options


def run(job):
    """Make the reference, and write it."""
    options = job.options
    cells = read_cells(options["cells"])
    reference, report = make_reference(
        cells,
        options["labels"],
        layer=options["layer"],
        normalize=options["total"],
        min_cells=options["min_cells"],
        n_markers=options["markers"],
        return_report=True,
    )
    job.console.say(f"{cells.n_obs:,} cells; {'; '.join(str(report).splitlines())}")
    job.write(reference.T.rename_axis("gene"), FILE)
    job.write(report.cell_types.rename_axis("cell_type"), CELL_TYPES)
    job.files = {"reference": FILE, "cell_types": CELL_TYPES}
    if report.markers is not None:
        job.write(report.markers.set_index("cell_type"), MARKERS)
        job.files["markers"] = MARKERS
    job.understood = {
        "n_cells": cells.n_obs,
        "n_genes": reference.shape[1],
        "cell_types": [str(name) for name in reference.index],
    }
