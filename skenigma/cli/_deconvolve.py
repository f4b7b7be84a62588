"""``skenigma deconvolve``."""

from functools import partial
from pathlib import Path

from .._parameters import fitted_values, numbers
from ..deconvolution._choice import choose_model
from ..io import file_checksum, read_proportions, read_run, write_anndata
from ..io._runs import HISTORY, RELIABILITY, UNCERTAINTY
from ..proportions import ProportionEstimator
from ..report import history_frame
from ..report._contents import LOSSES, reliability_frame, uncertainty_frame
from . import _scale
from ._foresee import foresee
from ._job import file_names
from ._options import READING, add_data, add_output, add_repeat, add_threads
from ._parameters import (
    AUTO,
    HELP,
    MODELS,
    add_own_parameters,
    add_parameters,
    build_model,
    check_any_choice,
    model_name,
    used_parameters,
)
from ._proportions import add_method, read_data, read_markers, say_notes, write_quality
from ._tables import proportion_frame, std_frame, write_proportions
from ._usage import UsageError

NAME = "deconvolve"
USAGE = "--bulk FILE --reference FILE --out FOLDER"
DESCRIPTION = """\
Estimate cell-type-specific expression: what every cell type expresses in every single sample. The proportions are
estimated first, unless they are given. Writes a folder with

  expression/     a table genes × samples per cell type, or expression.h5ad with a layer per cell type
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
    "proportions": None,
    "proportion_method": None,
    "markers": None,
    "threads": 1,
    "float32": False,
    "cell_types": None,
    "format": "tsv",
    "gzip": False,
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
        help="posterior with standard deviations of linear values (bayes) or of centred or standardised ones "
        "(factor); auto (default) takes the one that suits the data, and says and records it. The published models, "
        "with their published parameters: no sample stands out (l2max), samples differ along few directions "
        "(tracenorm). Or a model of your own: a class in a module that Python can import, and will run",
    )
    add_method(group, "--proportion-method")
    group.add_argument("--float32", action="store_true", help="compute in single precision: half the memory")
    add_threads(group)
    add_parameters(parser)
    add_own_parameters(parser)
    output = add_output(parser)
    output.add_argument(
        "--format", choices=("tsv", "csv", "parquet", "h5ad"), help="of the expression (default: tsv)"
    )
    output.add_argument("--gzip", action="store_true", help="compress the expression (tsv and csv)")
    output.add_argument(
        "--cell-types",
        nargs="+",
        metavar="NAME",
        help="write the expression of these only; all are estimated",
    )
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    given = {name: options.pop(name) for name in HELP if name in options}
    given.update(options.pop("set", ()))
    options["parameters"] = {**options["parameters"], **given}
    if options["model"] == AUTO:
        check_any_choice(options["parameters"])
    else:
        build_model(options["model"], options["parameters"])
    _scale.check_scale(options)
    if options["proportions"] and options["markers"]:
        raise UsageError("--proportions are given: there is nothing to estimate from --markers")
    if options["proportions"] and options["proportion_method"]:
        raise UsageError("--proportions are given: there is nothing for --proportion-method to estimate")
    if not options["proportions"]:
        options["proportion_method"] = options["proportion_method"] or "auto"
    if options["gzip"] and options["format"] in ("parquet", "h5ad"):
        raise UsageError(
            f"--gzip is for tsv and csv; {options['format']} files are compressed already or not at all"
        )
    return options


def run(job):
    """Deconvolve, and write the folder."""
    options = job.options
    bulk, reference = read_data(job)
    kinds = _wanted(options["cell_types"], reference.index)
    proportions = _known_proportions(job)
    reason = _choose(options, bulk, reference)
    model = build_model(
        options["model"],
        options["parameters"],
        reference=reference,
        proportion_estimator=_estimator(job, reference),
        # the tensor is never built as a whole, unless it is to be normalised
        materialize=options["parameters"].get("normalize") is not None,
    )
    _foresee(job, kinds, list(reference.index))
    job.console.facts([("model", f"{type(model).__name__}, {reason}"), ("parameters", _described(model))])
    if hasattr(model, "max_iter"):
        job.console.progress(model)
    model.fit(bulk, proportions=proportions)
    job.result = {**_result(model), "chosen": reason}
    if proportions is None:
        job.result["proportion_method"] = model.proportion_estimator_.method_
    if hasattr(model, "converged_"):
        ended = "converged" if model.converged_ else "stopped"
        job.console.facts([("fit", f"{ended} after {model.n_iter_} iterations")])
    _write(job, model, bulk, kinds)


def _known_proportions(job):
    if job.options["proportions"] is None:
        return None
    notes = []
    proportions = read_proportions(job.options["proportions"], notes=notes)
    say_notes(job, {"proportions": notes})
    return proportions


def _choose(options, bulk, reference):
    """Complete model and parameters in the options, by the data where none is named; why it is this model."""
    reason = "as named"
    if options["model"] == AUTO:
        genes = bulk.columns.intersection(reference.columns, sort=False)
        choice = choose_model(bulk[genes].to_numpy(), reference[genes].to_numpy())
        options["model"], reason = choice.name, choice.reason
    given = options["parameters"]
    if options["model"] == BAYES and "platform" not in given and _made_of_cells(options["reference"]):
        given = {**given, "platform": "bulk"}
        reason += "; on the platform of the bulk, since the reference was made of cells"
    options["parameters"] = used_parameters(build_model(options["model"], given))
    return reason


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


def _wanted(names, cell_types):
    """The cell types to write, checked before anything is computed."""
    unknown = [name for name in names or () if name not in cell_types]
    if unknown:
        raise ValueError(
            f"--cell-types names {', '.join(unknown)}, but the reference has {', '.join(cell_types)}."
        )
    return list(cell_types) if names is None else [kind for kind in cell_types if kind in names]


def _foresee(job, kinds, cell_types):
    """What of the expression can be known before it is computed."""
    written = ["expression"]
    if job.options["parameters"].get("normalize") is not None:
        written.append("expression_normalized")
    count = job.understood["n_samples"] * job.understood["n_genes_shared"]
    found = [_expression_files(job.options, name, kinds) for name in written]
    if job.options["format"] == "h5ad":
        foresee(job, found, cell_types, count * len(kinds))
    else:
        foresee(job, [file for files in found for file in files.values()], cell_types, count)


def _estimator(job, reference):
    method = job.options["proportion_method"]
    if method is None:
        return None
    known = None if job.options["markers"] is None else reference[read_markers(job, reference.columns)]
    return ProportionEstimator(known, method=method, n_jobs=job.options["threads"])


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
    resolved = {name: value for name, value in numbers(model).items() if name not in outcome}
    return {**result, "resolved": resolved}


def _write(job, model, bulk, kinds):
    expression = model.expression_
    write_proportions(job, model, bulk.index)
    if fitted_values(model, "history"):
        job.write(history_frame(model), HISTORY)
    write_quality(job, model, bulk, model.reference)
    reliability = reliability_frame(model)
    if reliability is not None:
        job.write(reliability.T, RELIABILITY)
    built = {"expression": expression.to_frame}
    if model.normalize is not None:
        built["expression_normalized"] = model.expression_normalized_.to_frame
    if expression.has_std:
        job.write(uncertainty_frame(expression), UNCERTAINTY)
        built["expression_std"] = partial(expression.to_frame, std=True)
    for name, build in built.items():
        builders = {kind: partial(build, kind) for kind in kinds}
        job.files[name] = _write_expression(job, name, builders, model, bulk)


def _write_expression(job, name, builders, model, bulk):
    """Write expression by cell type, each built when it is written; returns the names of the files."""
    files = _expression_files(job.options, name, builders)
    if isinstance(files, str):
        frames = {kind: build() for kind, build in builders.items()}
        shares, std = (build(model, bulk.index) for build in (proportion_frame, std_frame))
        write_anndata(job.folder / files, frames, bulk[model.gene_names_], shares, proportions_std=std)
        return files
    for kind, build in builders.items():
        job.write(build().T.rename_axis("gene"), files[kind])
    return files


def _expression_files(options, name, kinds):
    """Name of the file for expression, or the names by cell type."""
    if options["format"] == "h5ad":
        return f"{name}.h5ad"
    end = f".{options['format']}" + (".gz" if options["gzip"] else "")
    return {kind: f"{name}/{file}" for kind, file in file_names(kinds, end).items()}
