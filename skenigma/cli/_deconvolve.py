"""``skenigma deconvolve``."""

from functools import partial

import pandas as pd

from ..io import read_proportions, write_anndata
from ..io._runs import HISTORY, PROPORTIONS
from ..proportions import ProportionEstimator
from ..report import history_frame
from ._job import UsageError, file_names
from ._options import add_data, add_output, add_repeat, add_threads
from ._parameters import HELP, MODELS, add_parameters, build_model, used_parameters
from ._proportions import add_method, read_data, write_quality
from ._tables import proportion_frame

NAME = "deconvolve"
SUMMARY = "estimate what every cell type expresses in every single sample"
USAGE = "--bulk FILE --reference FILE --out FOLDER"
DESCRIPTION = """\
Estimate cell-type-specific expression: what every cell type expresses in every single sample. The proportions are
estimated first, unless they are given. Writes a folder with

  expression/     a table genes × samples per cell type, or expression.h5ad with a layer per cell type
  proportions.tsv samples × cell types
  quality.tsv     how well the proportions explain each sample
  history.tsv     loss, change and gradient norms of every iteration
  run.json        versions, parameters, checksums of inputs and outputs: what it takes to repeat the run"""
EXAMPLES = """\
examples:
  skenigma deconvolve --bulk bulk.tsv --reference reference.tsv --out run --renorm-size auto
  skenigma deconvolve --bulk bulk.h5ad --reference reference.tsv --out run --format h5ad
  skenigma deconvolve --from run/run.json --out again"""
INPUTS = ("bulk", "reference", "proportions")
REQUIRED = ("bulk", "reference")
DEFAULTS = {
    "bulk_rows": "genes",
    "reference_rows": "genes",
    "model": "l2max",
    "proportions": None,
    "proportion_method": None,
    "threads": 1,
    "float32": False,
    "cell_types": None,
    "format": "tsv",
    "gzip": False,
    "parameters": {},
}


def add_options(parser):
    """Add the options of this command."""
    data = add_data(parser)
    data.add_argument("--proportions", metavar="FILE", help="known proportions, samples × cell types")
    group = parser.add_argument_group("method")
    group.add_argument(
        "--model",
        choices=tuple(MODELS),
        help="no sample stands out (l2max, default), or samples differ along few directions (tracenorm)",
    )
    add_method(group, "--proportion-method")
    group.add_argument("--float32", action="store_true", help="compute in single precision: half the memory")
    add_threads(group)
    add_parameters(parser)
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
    options["parameters"] = used_parameters(build_model(options["model"], {**options["parameters"], **given}))
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
    proportions = None if options["proportions"] is None else read_proportions(options["proportions"])
    model = build_model(
        options["model"],
        options["parameters"],
        reference=reference,
        proportion_estimator=_estimator(options),
        # the tensor is never built as a whole, unless it is to be normalised
        materialize=options["parameters"]["normalize"] is not None,
    )
    job.console.facts([("model", _described(model))])
    job.console.progress(model)
    model.fit(bulk, proportions=proportions)
    job.result = _result(model)
    if proportions is None:
        job.result["proportion_method"] = model.proportion_estimator_.method_
    job.console.facts(
        [("fit", f"{'converged' if model.converged_ else 'stopped'} after {model.n_iter_} iterations")]
    )
    _write(job, model, bulk, kinds)


def _wanted(names, cell_types):
    """The cell types to write, checked before anything is computed."""
    unknown = [name for name in names or () if name not in cell_types]
    if unknown:
        raise ValueError(
            f"--cell-types names {', '.join(unknown)}, but the reference has {', '.join(cell_types)}."
        )
    return list(cell_types) if names is None else [kind for kind in cell_types if kind in names]


def _estimator(options):
    method = options["proportion_method"]
    return None if method is None else ProportionEstimator(method=method, n_jobs=options["threads"])


def _described(model):
    values = ", ".join(f"{name}={value}" for name, value in used_parameters(model).items())
    return f"{type(model).__name__}, {values}"


def _result(model):
    """What the fit found, for the record."""
    resolved = ("renorm_size_", "tao_k_", "gamma_", "beta_", "epsilon_", "positive_")
    return {
        "model": type(model).__name__,
        "n_samples": len(model.proportions_),
        "n_genes": len(model.gene_names_),
        "cell_types": list(model.cell_types_),
        "converged": bool(model.converged_),
        "n_iter": int(model.n_iter_),
        "loss": dict(zip(("reconstruction", "reference", "penalty"), model.loss_history_[-1], strict=True)),
        "resolved": {name: getattr(model, name) for name in resolved if hasattr(model, name)},
    }


def _write(job, model, bulk, kinds):
    job.write(proportion_frame(model, bulk.index), PROPORTIONS)
    job.write(history_frame(model), HISTORY)
    write_quality(job, model, bulk, model.reference)
    job.files["expression"] = _write_expression(
        job, "expression", {kind: partial(model.cell_type_expression, kind) for kind in kinds}, model, bulk
    )
    if model.normalize is not None:
        frames = {kind: partial(_normalized, model, kind, bulk.index) for kind in kinds}
        job.files["expression_normalized"] = _write_expression(
            job, "expression_normalized", frames, model, bulk
        )


def _normalized(model, kind, samples):
    """Normalised expression of one cell type."""
    position = list(model.cell_types_).index(kind)
    return pd.DataFrame(model.cse_normalized_[:, position], index=samples, columns=model.gene_names_)


def _write_expression(job, name, builders, model, bulk):
    """Write expression by cell type, each built when it is written; returns the names of the files."""
    form = job.options["format"]
    if form == "h5ad":
        path = f"{name}.h5ad"
        frames = {kind: build() for kind, build in builders.items()}
        write_anndata(job.folder / path, frames, bulk[model.gene_names_], proportion_frame(model, bulk.index))
        return path
    end = f".{form}" + (".gz" if job.options["gzip"] else "")
    files = {kind: f"{name}/{file}" for kind, file in file_names(builders, end).items()}
    for kind, build in builders.items():
        job.write(build().T.rename_axis("gene"), files[kind])
    return files
