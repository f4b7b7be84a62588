"""``skenigma reference``."""

import inspect

from .._library_size import PER_MILLION
from ..io import read_cells
from ..reference import make_reference, select_markers
from ..reference._cells import choose_layer, whole
from ._options import add_output, add_repeat, positive_integer
from ._scale import AS_IS, AUTO, total_or_word
from ._usage import UsageError

NAME = "reference"
USAGE = "--cells FILE --labels COLUMN --out FOLDER"
DESCRIPTION = """\
Average the cells of each type into a profile, in the file that the other commands read: reference.tsv. Cells must be
on the linear scale, counts or counts per 10,000 or per million, and not logarithms: mixtures add up before the
logarithm. Also written are cell_types.tsv, how many cells of each type there are and what was left out, and with
--markers the genes that tell the types apart, markers.tsv, for 'deconvolve --markers' and 'proportions --markers';
the profiles keep all genes."""
EXAMPLES = """\
examples:
  skenigma reference --cells pbmc.h5ad --labels cell_type --out reference
  skenigma reference --cells pbmc.h5ad --labels cell_type --layer counts --markers 100 --out reference
  skenigma deconvolve --bulk bulk.tsv --reference reference/reference.tsv --markers reference/markers.tsv --out run"""
INPUTS = ("cells",)
REQUIRED = ("cells", "labels")
MIN_CELLS = inspect.signature(make_reference).parameters["min_cells"].default
MEDIAN = "median"
DEFAULTS = {
    "layer": None,
    "gene_column": None,
    "total": AUTO,
    "min_cells": MIN_CELLS,
    "markers": None,
    "markers_only": False,
}
BEFORE = {"total": AS_IS, "markers_only": True}
FILE, CELL_TYPES, MARKERS = "reference.tsv", "cell_types.tsv", "markers.tsv"


def add_options(parser):
    """Add the options of this command."""
    group = parser.add_argument_group("cells")
    group.add_argument("--cells", metavar="FILE", help="annotated cells, cells × genes (.h5ad, .loom)")
    group.add_argument(
        "--labels", metavar="COLUMN", help="column of obs that holds the cell type of each cell"
    )
    group.add_argument(
        "--layer", metavar="NAME", help="layer that holds the expression, or raw (default: X itself)"
    )
    group.add_argument(
        "--gene-column",
        metavar="NAME",
        help="column of var with the names of the genes (default: its own names)",
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
        type=total_or_word(MEDIAN, AS_IS),
        metavar=f"{AUTO}|{MEDIAN}|{AS_IS}|NUMBER",
        help="scale every cell to this total first, or to the median total (default: auto, a million for counts, "
        "else as they are, where larger types weigh more)",
    )
    group.add_argument(
        "--markers", type=positive_integer, metavar="N", help="find up to N marker genes per cell type"
    )
    group.add_argument(
        "--markers-only", action="store_true", help="leave out all other genes of the profiles"
    )
    add_output(parser)
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    if options["markers_only"] and not options["markers"] and "from_run" not in options:
        raise UsageError("--markers-only needs --markers: how many")
    return options


def run(job):
    """Make the reference, and write it."""
    options = job.options
    notes = []
    cells = read_cells(options["cells"], gene_column=options["gene_column"], notes=notes)
    job.console.facts([("cells", note) for note in notes])
    total = _total(cells, options, job.console)
    how = {"layer": options["layer"], "normalize": total, "min_cells": options["min_cells"]}
    # only --markers-only cuts the reference down to its markers; else they are listed beside it
    cut = options["markers"] if options["markers_only"] else None
    reference, report = make_reference(cells, options["labels"], n_markers=cut, return_report=True, **how)
    markers = report.markers
    if options["markers"] and markers is None:
        markers = select_markers(cells, options["labels"], options["markers"], **how)
    job.console.say(f"{cells.n_obs:,} cells; {'; '.join(str(report).splitlines())}")
    job.write(reference.T.rename_axis("gene"), FILE)
    job.write(report.cell_types.rename_axis("cell_type"), CELL_TYPES)
    job.files = {"reference": FILE, "cell_types": CELL_TYPES}
    if markers is not None:
        job.write(markers.set_index("cell_type"), MARKERS)
        job.files["markers"] = MARKERS
    job.understood = {
        **({"reading": {"cells": notes}} if notes else {}),
        "n_cells": cells.n_obs,
        "n_genes": reference.shape[1],
        "cell_types": [str(name) for name in reference.index],
    }


def _total(cells, options, console):
    """What every cell is scaled to, as the reference is made; said where the data decide."""
    if options["total"] == AS_IS:
        return None
    if options["total"] != AUTO:
        return options["total"]
    total = cell_total(cells, options["layer"])
    # what was decided is recorded, so that a repeat does not decide anew
    options["total"] = AS_IS if total is None else total
    text = "as they are: no counts" if total is None else f"every cell to a total of {total:,.0f}: counts"
    console.facts([("scale", text)])
    return total


def cell_total(cells, layer):
    """What cells are scaled to where nobody says: a million for counts, None as they are for others."""
    return PER_MILLION if whole(choose_layer(cells, layer)[0]) else None
