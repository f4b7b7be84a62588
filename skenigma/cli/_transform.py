"""``skenigma transform``."""

from functools import partial

import pandas as pd

from .._transformers import shares_of
from ..checks.facts import examine
from ..checks.units import scale_findings
from ..cohort import is_lazy
from ..deconvolution._flow import normalized_like_fit
from ..io import read_run
from ..io._choices import CHOICES
from ..io._fitted import on_genes, read_fitted_pair, scale_like
from . import _expression, _memory
from ._deconvolve import reads_blocks
from ._earlier import check_run, fill_in_inputs, refuse_lacking
from ._expression import add_form, check_form, foresee_expression, wanted, write_expression
from ._large import in_single_precision, read_any_bulk
from ._level import note_level
from ._memory import add_memory
from ._options import FORMATS, READING, add_output, add_reading, add_repeat, add_threads
from ._parameters import model_name
from ._proportions import read_known_proportions, say_notes, write_quality
from ._refit import check_own_model, refit
from ._tables import write_shares
from ._understood import counted
from ._usage import UsageError

NAME = "transform"
USAGE = "RUN --bulk FILE --out FOLDER"
DESCRIPTION = """\
Estimate the expression of new samples with a run of 'skenigma deconvolve', or their proportions with one of
'proportions'. The model is fitted again from the inputs that the run recorded, whose checksums are verified, and each
new sample is mapped on its own, as those of the cohort were: other samples in the file make no difference. Genes are
matched by name, in any order; those that the run does not use are left out. Counts are scaled to the same total as
those of the run. Writes the same tables as the run."""
EXAMPLES = """\
examples:
  skenigma transform run --bulk new.tsv --out new
  skenigma transform run --bulk new.tsv --fitted-bulk moved/bulk.tsv --format h5ad --out new"""
INPUTS = ("run", "bulk", "proportions", "fitted_bulk", "reference")
REQUIRED = ("run", "bulk")
DEFAULTS: dict = {
    **{name: READING[name] for name in ("bulk_rows", *CHOICES["bulk"])},
    "proportions": None,
    "fitted_bulk": None,
    "reference": None,
    "allow_scale": False,
    "model": None,
    "threads": None,
    **_memory.DEFAULTS,
    **_expression.DEFAULTS,
}


def add_options(parser):
    """Add the options of this command."""
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="folder that 'skenigma deconvolve' or 'proportions' wrote"
    )
    group = parser.add_argument_group("data", FORMATS)
    group.add_argument(
        "--bulk", metavar="FILE", help="bulk of the new samples, genes × samples (.h5ad: samples × genes)"
    )
    group.add_argument(
        "--bulk-rows",
        choices=("genes", "samples"),
        help="what the rows of that table are (default: genes)",
    )
    add_reading(group)
    group.add_argument(
        "--proportions", metavar="FILE", help="known proportions of the new samples, samples × cell types"
    )
    group.add_argument(
        "--fitted-bulk", metavar="FILE", help="where the bulk of the run is now, if it was moved"
    )
    group.add_argument(
        "--reference", metavar="FILE", help="where the reference of the run is now, if it was moved"
    )
    group.add_argument(
        "--allow-scale",
        action="store_true",
        help="compute even though the new samples and the reference seem to be of different scales",
    )
    method = parser.add_argument_group("method")
    method.add_argument(
        "--model",
        type=model_name,
        metavar="MODULE:CLASS",
        help="the model of the run, if that is one of your own: a record must not decide what code is run",
    )
    add_threads(method)
    add_memory(method)
    add_form(add_output(parser))
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    run = check_run(options, "deconvolve", "proportions")
    check_own_model(run, options["model"])
    if options["proportions"] and run.record["command"] == "proportions":
        raise UsageError("--proportions are given: there is nothing that this run could add")
    fill_in_inputs(options, run, {"fitted_bulk": "bulk", "reference": "reference"})
    options["threads"] = options["threads"] or run.record["options"].get("threads", 1)
    check_form(options)
    return options


def run(job):
    """Fit the run again, and write what it makes of the new samples."""
    options, folder = job.options, read_run(job.options["run"])
    ran = folder.record["options"]
    expressed = folder.record["command"] == "deconvolve"
    normalizes = expressed and ran["parameters"].get("normalize") is not None
    large = partial(read_any_bulk, job.budget, by_blocks=not expressed or reads_blocks(ran))
    bulk, reference = read_fitted_pair(folder, options["fitted_bulk"], options["reference"], read_large=large)
    new = _read_new(job, folder, reference, by_blocks=not normalizes)
    if ran.get("float32"):
        reference, bulk, new = (in_single_precision(table) for table in (reference, bulk, new))
    kinds = wanted(options["cell_types"], reference.index)
    known = read_known_proportions(job)
    if expressed:
        foresee_expression(job, kinds, list(reference.index), normalizes)
    model = refit(job, folder, bulk, reference)
    if not expressed:
        _write_proportions(job, model, new, reference, known)
        return
    expression = model.predict_expression(new, proportions=known)
    # standard errors are of proportions that were estimated, not of known ones
    estimator = getattr(model, "proportion_estimator_", None) if known is None else None
    shares = pd.DataFrame(expression.proportions, new.index.rename("sample"), list(model.cell_types_))
    std = _write_proportions(job, estimator, new, reference, shares)
    after = normalized_like_fit(model, expression)
    about = {"model": model, "shares_of": None if estimator is None else shares_of(estimator)}
    write_expression(job, kinds, expression, after, new, shares, std, **about)
    job.result.update(
        model=type(model).__name__,
        n_samples=len(new),
        n_genes=new.shape[1],
        cell_types=list(model.cell_types_),
    )
    note_level(job, expression)


def _read_new(job, folder, reference, *, by_blocks):
    """The new samples on the genes and the scale of the run; says what they are."""
    options = job.options
    how, notes = {name: options[name] for name in CHOICES["bulk"]}, []
    path, rows = options["bulk"], options["bulk_rows"]
    table = read_any_bulk(job.budget, path, rows, how, notes, by_blocks=by_blocks)
    say_notes(job, {"bulk": notes})
    if is_lazy(table):
        job.budget.check_blocks(table.shape, len(reference), path)
        # before anything is done to its values: what is missing is named where it stands
        examine(table, "bulk", table.columns)
    genes = reference.columns
    refuse_lacking(path, table, genes, "the run")
    # genes first: the total of the run is one over its genes
    new = scale_like(folder, on_genes(table, genes), "bulk")
    others = table.shape[1] - len(genes)
    job.console.facts(
        [
            ("new samples", counted(len(new), "sample")),
            ("genes", f"{counted(len(genes), 'gene')} of the run; {others:,} others left out"),
        ]
    )
    if is_lazy(new):
        examine(new, "bulk", table.columns)
    values = new if is_lazy(new) else new.to_numpy()
    for finding in scale_findings(values, reference.to_numpy(), new.index):
        if finding.refuse and not options["allow_scale"]:
            raise ValueError(f"{finding.message} Nothing was computed; --allow-scale insists.")
        job.console.warn(finding.message)
    job.understood.update(
        n_samples=len(new),
        n_genes_shared=len(genes),
        cell_types=list(reference.index),
        one_scale=folder.record["understood"].get("one_scale", {"total": None}),
    )
    return new


def _write_proportions(job, estimator, new, reference, shares):
    """Write proportions, given or estimated, with standard errors if there are any, which are returned."""
    samples = new.index.rename("sample")
    std = None
    if estimator is not None:
        names = list(estimator.cell_types_)
        if shares is None:
            shares = pd.DataFrame(estimator.transform(new), samples, names)
        if estimator.method_ == "log":
            std = pd.DataFrame(estimator.transform_with_std(new)[1], samples, names)
    write_shares(job, shares, std, None if estimator is None else shares_of(estimator))
    write_quality(job, shares.to_numpy(), new, reference)
    return std
