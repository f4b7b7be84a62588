"""``skenigma batch``."""

import inspect

import pandas as pd

from .._library_size import divide_by_length, scale_to_total
from ..batch import BulkBatchCorrector, ReferenceBatchCorrector
from ..io import read_cells, read_gene_lengths
from ..io._choices import CHOICES
from ..proportions import ProportionEstimator
from ..reference import make_reference
from . import _memory, _scale
from ._earlier import refuse_lacking
from ._large import read_any_bulk
from ._memory import add_memory
from ._options import READING, add_data, add_output, add_repeat, add_threads, natural_number, positive_integer
from ._proportions import read_data, say_notes
from ._reference import cell_total
from ._usage import UsageError

NAME = "batch"
USAGE = "--bulk FILE (--reference FILE | --cells FILE --labels COLUMN) --out FOLDER"
DESCRIPTION = """\
Correct for differences between two platforms, gene by gene (ComBat on log2(x + 1)). With profiles the bulk is
corrected: it is compared with the profiles mixed by its own proportions. With annotated cells the reference is
corrected: pseudo-bulk is mixed from the cells, compared with the bulk, and the profiles are restored from it. Writes
bulk.tsv and reference.tsv for 'skenigma deconvolve', both on one scale, and effect.tsv: log2(x + 1) of a gene becomes
slope * log2(x + 1) + intercept. Values must be linear and at least 0."""
EXAMPLES = """\
examples:
  skenigma batch --bulk bulk.tsv --reference reference.tsv --out corrected
  skenigma batch --bulk bulk.tsv --cells pbmc.h5ad --labels cell_type --target bulk --mean-only --out corrected
  skenigma deconvolve --bulk corrected/bulk.tsv --reference corrected/reference.tsv --out run"""
INPUTS = ("bulk", "reference", "cells", "new", "gene_lengths")
REQUIRED = ("bulk",)
# from the function, so that the help cannot say another number than is used
MIN_CELLS = inspect.signature(make_reference).parameters["min_cells"].default
POOLED = "pooled"
DEFAULTS: dict = {
    **READING,
    **_scale.DEFAULTS,
    "reference": None,
    "cells": None,
    "labels": None,
    "cells_layer": None,
    "min_cells": MIN_CELLS,
    "new": None,
    "target": POOLED,
    "mean_only": False,
    "seed": 0,
    "threads": 1,
    **_memory.DEFAULTS,
}
BULK, REFERENCE, NEW, EFFECT = "bulk.tsv", "reference.tsv", "new.tsv", "effect.tsv"


def add_options(parser):
    """Add the options of this command."""
    data = add_data(parser)
    data.add_argument(
        "--cells", metavar="FILE", help="annotated cells, cells × genes (.h5ad), for --reference"
    )
    data.add_argument(
        "--labels", metavar="COLUMN", help="column of obs that holds the cell type of each cell"
    )
    data.add_argument("--cells-layer", metavar="NAME", help="layer that holds their expression, or raw")
    data.add_argument(
        "--min-cells",
        type=positive_integer,
        metavar="N",
        help=f"leave out types with fewer cells (default: {MIN_CELLS})",
    )
    data.add_argument(
        "--new", metavar="FILE", help="new samples, corrected like the bulk but not used: written to new.tsv"
    )
    _scale.add_scale(parser)
    method = parser.add_argument_group("method")
    method.add_argument(
        "--target",
        choices=(POOLED, "reference", "bulk"),
        help="what is corrected is brought, per gene, to the mean over both (pooled, default, as published), or all "
        "the way: the bulk to the reference, or the reference of cells to the bulk",
    )
    method.add_argument("--mean-only", action="store_true", help="shift every gene, and keep its variance")
    method.add_argument(
        "--seed",
        type=natural_number,
        metavar="N",
        help="seed of the mixtures: the same seed gives the same mixtures (default: 0)",
    )
    add_threads(method)
    add_memory(method)
    add_output(parser)
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    if bool(options["reference"]) == bool(options["cells"]):
        raise UsageError("give --reference, a table of profiles, or --cells with --labels")
    if bool(options["cells"]) != bool(options["labels"]):
        raise UsageError("--labels is the column with the cell types of --cells: give both or none")
    corrected = "bulk" if options["reference"] else "reference"
    if options["target"] == corrected:
        raise UsageError(
            f"it is the {corrected} that is corrected here: --target {corrected} would change nothing"
        )
    if options["new"] and corrected == "reference":
        raise UsageError(
            "--new is for --reference: with --cells the bulk is not corrected, nor are new samples"
        )
    _scale.check_scale(options)
    return options


def run(job):
    """Correct, and write the folder."""
    options = job.options
    how = {"target": options["target"], "mean_only": options["mean_only"]}
    if options["cells"]:
        bulk, reference, corrector = _of_cells(job, how)
        # of cells, what is corrected is the reference that they were made
        reference = corrector.reference_
    else:
        bulk, reference = read_data(job)
        estimator = ProportionEstimator(method="auto", n_jobs=options["threads"])
        corrector = BulkBatchCorrector(reference, proportion_estimator=estimator, **how)
        scaled = bulk
        bulk = _corrected(corrector.fit(scaled), scaled)
        # the bulk has lost genes that the reference lacks, and so must the reference
        reference = reference[bulk.columns]
        if options["new"]:
            job.write(_corrected(corrector, _read_new(job, scaled.columns)).T.rename_axis("gene"), NEW)
            job.files["new"] = NEW
    effect = pd.DataFrame(
        {"slope": corrector.slope_, "intercept": corrector.intercept_},
        pd.Index(corrector.gene_names_, name="gene"),
    )
    job.write(bulk.T.rename_axis("gene"), BULK)
    job.write(reference.T.rename_axis("gene"), REFERENCE)
    job.write(effect, EFFECT)
    job.files |= {"bulk": BULK, "reference": REFERENCE, "effect": EFFECT}
    # a gene without information keeps its values: slope 1 and intercept 0, exactly
    shift = float(((corrector.slope_ - 1) ** 2 + corrector.intercept_**2 > 0).mean())
    job.result = {"corrected": "reference" if options["cells"] else "bulk", "changed_genes": shift}
    job.console.facts([("corrected", f"the {job.result['corrected']}, {100 * shift:.3g} % of the genes")])


def _of_cells(job, how):
    """Bulk and reference on one scale, and a corrector of the reference, fitted."""
    options = job.options
    cells = read_cells(options["cells"])
    # profiles and the pseudo-bulk must come from cells of one scale, or the units pass for a platform
    total = cell_total(cells, options["cells_layer"])
    made = {"layer": options["cells_layer"], "normalize": total, "min_cells": options["min_cells"]}
    bulk, reference = read_data(job, make_reference(cells, options["labels"], **made))
    corrector = ReferenceBatchCorrector(cells, options["labels"], random_state=options["seed"], **made, **how)
    job.seeds = {"random_state": options["seed"]}
    corrector.fit(bulk)
    return bulk[corrector.gene_names_], reference, corrector


def _corrected(corrector, bulk):
    return pd.DataFrame(corrector.transform(bulk), bulk.index, list(corrector.gene_names_))


def _read_new(job, genes):
    """New samples on the genes and the scale of the bulk."""
    options, notes = job.options, []
    how = {name: options[name] for name in CHOICES["bulk"]}
    new = read_any_bulk(job.budget, options["new"], options["bulk_rows"], how, notes, by_blocks=False)
    say_notes(job, {"new": notes})
    refuse_lacking(options["new"], new, genes, "the bulk")
    # genes first: the total is one over those of the bulk
    new = new[genes]
    if options["gene_lengths"]:
        new = divide_by_length(
            new, read_gene_lengths(options["gene_lengths"], column=options["length_column"])
        )
    total = job.understood["one_scale"]["total"]
    return new if total is None else scale_to_total(new, total, "New samples")
