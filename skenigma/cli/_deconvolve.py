"""``skenigma deconvolve``."""

from pathlib import Path

import numpy as np
import pandas as pd

from .._fitted import fitted_values, numbers
from .._transformers import shares_of
from ..deconvolution._choice import MODELS, choose_model
from ..io import file_checksum, read_run
from ..io._runs import HISTORY, RELIABILITY
from ..proportions import ProportionEstimator
from ..report import history_frame
from ..report._contents import LOSSES, reliability_frame
from . import _choice, _expression, _memory, _scale
from ._choice import add_choose, check_choose, fit_choice
from ._expression import add_form, check_form, foresee_expression, wanted, write_expression
from ._level import note_level
from ._memory import add_memory
from ._options import READING, add_data, add_output, add_repeat, add_threads
from ._parameters import (
    AUTO,
    HELP,
    add_own_parameters,
    add_parameters,
    build_model,
    check_any_choice,
    model_name,
    only_model,
    used_parameters,
)
from ._proportions import add_method, read_data, read_known_proportions, read_markers, write_quality
from ._tables import proportion_frame, std_frame, write_proportions
from ._usage import UsageError

NAME = "deconvolve"
USAGE = "--bulk FILE --reference FILE --out FOLDER"
DESCRIPTION = """\
Estimate cell-type-specific expression: what every cell type expresses in every single sample. The proportions are
estimated first, unless they are given. Writes a folder with

  expression/     a table genes × samples per cell type, or expression.h5ad with a layer per cell type, or
                  expression.zarr, which is written by blocks: a repeat of the command goes on where one ended
  expression_std/ the same of the standard deviations, and uncertainty.tsv, if the model estimates any
  proportions.tsv samples × cell types, shares of RNA if the profiles have equal totals
  proportions_std.tsv
                  their standard errors, a lower bound, if they are estimated by 'log'
  quality.tsv     how well the proportions explain each sample
  reliability.tsv genes × cell types: the correlation with the truth over samples that the model expects, if it
                  says so
  history.tsv     loss, change and gradient norms of every iteration, if there are any
  run.json        versions, parameters, checksums of inputs and outputs: what it takes to repeat the run"""
EXAMPLES = """\
examples:
  skenigma deconvolve --bulk bulk.tsv --reference reference.tsv --out run --renorm-size auto
  skenigma deconvolve --bulk bulk.h5ad --reference reference.tsv --out run --format h5ad
  skenigma deconvolve --from run/run.json --out again"""
INPUTS = ("bulk", "reference", "proportions", "gene_lengths", "markers")
REQUIRED = ("bulk", "reference")
DEFAULTS: dict = {
    **READING,
    **_scale.DEFAULTS,
    "model": AUTO,
    **_choice.DEFAULTS,
    **_memory.DEFAULTS,
    "proportions": None,
    "proportion_method": None,
    "markers": None,
    "threads": 1,
    "float32": False,
    **_expression.DEFAULTS,
    "parameters": {},
}
BAYES = "bayes"
BEFORE = {**_scale.BEFORE, "model": "l2max"}


def add_options(parser):
    """Add the options of this command."""
    data = add_data(parser)
    data.add_argument("--proportions", metavar="FILE", help="known proportions, samples × cell types")
    _scale.add_scale(parser)
    group = parser.add_argument_group("method")
    group.add_argument(
        "--model",
        type=model_name,
        metavar="|".join([AUTO, *MODELS, "MODULE:CLASS"]),
        help="a posterior, with standard deviations, for linear values (bayes) or for centred or standardised ones "
        "(factor); auto (default) chooses between them by the data, says which and records it. Or a published model, "
        "with its published parameters: no sample stands out (l2max), samples differ along few directions "
        "(tracenorm). Or a model of your own: a class in a module that Python can import, and will run",
    )
    add_choose(group)
    add_method(group, "--proportion-method")
    group.add_argument("--float32", action="store_true", help="compute in single precision: half the memory")
    add_threads(group)
    add_memory(group)
    add_parameters(parser)
    add_own_parameters(parser)
    add_form(add_output(parser))
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    # from here on, as in a record, parameters are in one place, however they were given
    given = {name: options.pop(name) for name in HELP if name in options}
    given.update(options.pop("set", ()))
    options["parameters"] = {**options["parameters"], **given}
    if options["model"] == AUTO:
        options["model"] = only_model(options["parameters"]) or AUTO
    if options["model"] == AUTO:
        check_any_choice(options["parameters"])
    else:
        build_model(options["model"], options["parameters"])
    check_choose(options, given)
    _scale.check_scale(options)
    if options["proportions"] and options["markers"]:
        raise UsageError("--proportions are given: there is nothing to estimate from --markers")
    if options["proportions"] and options["proportion_method"]:
        raise UsageError("--proportions are given: there is nothing for --proportion-method to estimate")
    if not options["proportions"]:
        options["proportion_method"] = options["proportion_method"] or "auto"
    check_form(options)
    return options


def run(job):
    """Deconvolve, and write the folder."""
    options = job.options
    bulk, reference = read_data(job, by_blocks=reads_blocks(options))
    kinds = wanted(options["cell_types"], reference.index)
    proportions = read_known_proportions(job)
    reason = _choose(options, bulk, reference)
    markers = None if options["markers"] is None else read_markers(job, reference.columns)
    model = make_model(options, reference, markers)
    # before the fit, which may take long
    foresee_expression(job, kinds, list(reference.index), options["parameters"].get("normalize") is not None)
    job.console.facts([("model", f"{type(model).__name__}, {reason}"), ("parameters", _described(model))])
    choice = None
    with job.console.progress():
        if options["choose"]:
            model, choice = fit_choice(job, model, bulk, proportions)
        else:
            model.fit(bulk, proportions=proportions)
    job.result = {**_result(model), "chosen": reason, **({"choice": choice} if choice else {})}
    if proportions is None:
        job.result["proportion_method"] = model.proportion_estimator_.method_
    if hasattr(model, "converged_"):
        ended = "converged" if model.converged_ else "stopped"
        job.console.facts([("fit", f"{ended} after {model.n_iter_} iterations")])
    note_level(job, model.expression_)
    _write(job, model, bulk, kinds)


def _choose(options, bulk, reference):
    """Complete model and parameters in the options, by the data where none is named; why it is this model."""
    reason = "as named"
    if options["model"] == AUTO:
        genes = bulk.columns.intersection(reference.columns, sort=False)
        values = bulk[genes].to_numpy() if isinstance(bulk, pd.DataFrame) else bulk
        choice = choose_model(values, reference[genes].to_numpy())
        # options are recorded: a repeat fits this model, whatever would be chosen by then
        options["model"], reason = choice.name, choice.reason
    given = options["parameters"]
    if options["model"] == BAYES and "platform" not in given and _made_of_cells(options["reference"]):
        given = {**given, "platform": "bulk"}
        reason += "; on the platform of the bulk, since the reference was made of cells"
    options["parameters"] = used_parameters(build_model(options["model"], given))
    return reason


def reads_blocks(options):
    """Whether the model can read a bulk by blocks of samples, and nothing else needs all of it."""
    if options["choose"] or options["parameters"].get("normalize") is not None:
        return False
    if options["model"] in (AUTO, BAYES, "factor"):
        return True
    model = build_model(options["model"], options["parameters"])
    return hasattr(model, "reads_rows") and model.reads_rows()


def _made_of_cells(path):
    """Whether a reference is what 'skenigma reference' left, which averages cells."""
    try:
        run = read_run(Path(path).parent)
        written = run.record["outputs"].get(Path(path).name)
        return (
            run.record["command"] == "reference"
            and written is not None
            and written["sha256"] == file_checksum(path)
        )
    except (OSError, ValueError):  # no run, or none that can be read
        return False


def make_model(options, reference, markers=None):
    """The model that complete options describe, not fitted."""
    method = options["proportion_method"]
    known = None if markers is None else reference[markers]
    estimator = (
        None if method is None else ProportionEstimator(known, method=method, n_jobs=options["threads"])
    )
    return build_model(
        options["model"],
        options["parameters"],
        reference=reference,
        proportion_estimator=estimator,
        # the tensor is never built as a whole, unless it is to be normalised
        materialize=options["parameters"].get("normalize") is not None,
    )


def _described(model):
    return ", ".join(f"{name}={value}" for name, value in used_parameters(model).items())


def _result(model):
    """What the fit found, for the record."""
    outcome = fitted_values(model, "outcome")
    losses = fitted_values(model, "history").get("loss_history_")
    result = {
        "model": type(model).__name__,
        "n_samples": len(model.proportions_),
        "n_genes": len(model.gene_names_),
        "cell_types": list(model.cell_types_),
    }
    if "converged_" in outcome:
        result["converged"] = bool(outcome["converged_"])
    if "n_iter_" in outcome:
        result["n_iter"] = int(outcome["n_iter_"])
    if losses is not None:
        result["loss"] = dict(zip(LOSSES, losses[-1], strict=True))
    # also those of a model that is not of this package
    resolved = {name: value for name, value in numbers(model).items() if name not in outcome}
    return {**result, "resolved": resolved}


def _write(job, model, bulk, kinds):
    expression = model.expression_
    write_proportions(job, model, bulk.index)
    if fitted_values(model, "history"):
        job.write(history_frame(model), HISTORY)
    write_quality(job, model.proportions_, bulk, model.reference)
    reliability = reliability_frame(model)
    if reliability is not None:
        job.write(reliability.T, RELIABILITY)
    shares, std = (build(model, bulk.index) for build in (proportion_frame, std_frame))
    normalized = None if model.normalize is None else model.expression_normalized_
    if isinstance(bulk, pd.DataFrame) and not np.array_equal(bulk.columns, model.gene_names_):
        bulk = bulk[model.gene_names_]
    about = {"model": model, "shares_of": shares_of(model)}
    write_expression(job, kinds, expression, normalized, bulk, shares, std, **about)
