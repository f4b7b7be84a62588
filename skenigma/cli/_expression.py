"""Expression in the folder of a run: its options, and how it is written."""

from functools import partial

import numpy as np
import pandas as pd

from ..io._runs import UNCERTAINTY
from ..io._stores import plan_of
from ..io._turning import write_turned
from ..io._writing import write_anndata_by_blocks
from ..report._contents import uncertainty_frame
from ._foresee import foresee
from ._job import file_names
from ._usage import UsageError

BINARY, ONE_FILE = ("parquet", "h5ad", "zarr"), ("h5ad", "zarr")
# Tables of one cell type up to this many times a block are built as a whole.
TABLES = 2
DEFAULTS = {"cell_types": None, "format": "tsv", "gzip": False}


def add_form(output):
    """Options on the form of the expression, in the group of the output."""
    output.add_argument(
        "--format", choices=("tsv", "csv", "parquet", "h5ad", "zarr"), help="of the expression (default: tsv)"
    )
    output.add_argument("--gzip", action="store_true", help="compress the expression (tsv and csv)")
    output.add_argument(
        "--cell-types",
        nargs="+",
        metavar="NAME",
        help="write the expression of these only; all are estimated",
    )


def check_form(options):
    """A UsageError if options on the form contradict each other."""
    if options["gzip"] and options["format"] in BINARY:
        raise UsageError(
            f"--gzip is for tsv and csv; {options['format']} files are compressed already or not at all"
        )


def wanted(names, cell_types):
    """The cell types to write, checked before anything is computed."""
    unknown = [name for name in names or () if name not in cell_types]
    if unknown:
        raise ValueError(
            f"--cell-types names {', '.join(unknown)}, but the reference has {', '.join(cell_types)}."
        )
    return list(cell_types) if names is None else [kind for kind in cell_types if kind in names]


def foresee_expression(job, kinds, cell_types, normalized):
    """Find what of the expression can be known before it is computed; ``normalized`` if that is written as well."""
    count = job.understood["n_samples"] * job.understood["n_genes_shared"]
    names = ["expression", "expression_normalized"] if normalized else ["expression"]
    found = [_expression_files(job.options, name, kinds) for name in names]
    if job.options["format"] in ONE_FILE:
        foresee(job, found, cell_types, count * len(kinds))
    else:
        foresee(job, [file for files in found for file in files.values()], cell_types, count)


def write_expression(job, kinds, expression, normalized, bulk, shares, shares_std, *, model, shares_of):
    """Write expression by cell type, each built when it is written, and note the files in the job.

    Parameters
    ----------
    job : Job
    kinds : list of str
        Cell types to write.
    expression : CellTypeExpression
    normalized : CellTypeExpression or None
    bulk : DataFrame or LazyMatrix of shape (n_samples, n_genes)
        What was deconvolved, on the genes of the expression.
    shares, shares_std : DataFrame of shape (n_samples, n_cell_types)
        Proportions and their standard errors, None where these are not known.
    model : estimator
        The fitted model.
    shares_of : str or None
        What the proportions are shares of.
    """
    if job.options["format"] == "zarr":
        found = {"expression": expression, "expression_normalized": normalized}
        _write_stores(job, kinds, found, bulk, shares_std, model, shares_of)
        return
    built = {"expression": expression.values}
    if normalized is not None:
        built["expression_normalized"] = normalized.values
    if expression.has_std:
        job.write(uncertainty_frame(expression), UNCERTAINTY)
        built["expression_std"] = expression.std
    tables = {"proportions": shares, "proportions_std": shares_std}
    for name, build in built.items():
        job.files[name] = files = _expression_files(job.options, name, kinds)
        if isinstance(files, str):
            room = {"max_bytes": job.budget.written}
            write_anndata_by_blocks(job.folder / files, build, kinds, bulk, tables, **room)
            continue
        for kind in kinds:
            one = partial(_of_one_type, build, kind)
            # what is turned, a part of it and its text are there at once
            room = {"max_bytes": TABLES * job.budget.written}
            path = job.folder / files[kind]
            path.parent.mkdir(exist_ok=True)
            write_turned(one, bulk.index, bulk.columns, path, **room)


def _of_one_type(build, kind, samples):
    return build(samples=samples, cell_types=[kind])[:, 0]


def _write_stores(job, kinds, found, bulk, shares_std, model, shares_of):
    """Write stores beside the folder of the results, where they outlive the end of the process."""
    tables = {} if shares_std is None else {"proportions_std": shares_std}
    about = {"model": type(model).__name__, "shares_of": shares_of or ""}
    profiles = pd.DataFrame(np.asarray(model.reference_), list(model.cell_types_))
    for name, expression in found.items():
        if expression is None:
            continue
        job.files[name] = file = _expression_files(job.options, name, kinds)
        if expression.has_std:
            job.write(uncertainty_frame(expression), UNCERTAINTY)
            job.files[f"{name}_std"] = file
        # profiles of some cell types would pass for all that the bulk consists of
        comparable = name == "expression" and len(kinds) == len(profiles)
        known = {"tables": tables, "about": about, "reference": profiles if comparable else None}
        plan = plan_of(expression, sample_names=bulk.index, bulk=bulk, cell_types=kinds, **known)
        with job.console.counted_blocks() as progress:
            job.write_store(plan, file, progress)


def _expression_files(options, name, kinds):
    """Name of the file for expression, or the names by cell type."""
    if options["format"] in ONE_FILE:
        return f"{name}.{options['format']}"
    end = f".{options['format']}" + (".gz" if options["gzip"] else "")
    return {kind: f"{name}/{file}" for kind, file in file_names(kinds, end).items()}
