"""``skenigma differential``."""

from functools import partial

import numpy as np
import pandas as pd

from ..checks.validation import listing
from ..differential import interaction_test, joint_test, marginal_test
from ..io import read_bulk, read_phenotype, read_run
from ..io._checksums import read_as_recorded
from ..io._runs import DIFFERENTIAL, PROPORTIONS
from ..normalization import normalize
from ._job import UsageError
from ._options import add_output, add_repeat, add_threads
from ._understood import counted, shortened

NAME = "differential"
SUMMARY = "find genes that differ between groups, by cell type"
USAGE = "RUN --phenotype FILE"
DESCRIPTION = """\
Test, by cell type, which genes go with a phenotype, in the folder that 'skenigma deconvolve' wrote. The default,
'interaction', tests on the bulk with the estimated proportions; 'marginal' and 'joint' test the estimated expression.
Writes differential.tsv, sorted by p-value, with false discovery rates per cell type."""
EXAMPLES = """\
examples:
  skenigma differential run --phenotype phenotype.tsv
  skenigma differential run --phenotype clinic.csv --column response --covariates age sex --method marginal"""
INPUTS = ("run", "phenotype", "bulk")
REQUIRED = ("run", "phenotype")
METHODS = ("interaction", "marginal", "joint")
DEFAULTS = {
    "bulk": None,
    "column": None,
    "covariates": None,
    "method": METHODS[0],
    "fold_change": False,
    "threads": 1,
}
SIGNIFICANT = 0.05


def add_options(parser):
    """Add the options of this command."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder that 'skenigma deconvolve' wrote")
    group = parser.add_argument_group("data")
    group.add_argument("--phenotype", metavar="FILE", help="table of samples × variables")
    group.add_argument(
        "--column", metavar="NAME", help="variable to test (default: the only one that there is)"
    )
    group.add_argument("--covariates", nargs="+", metavar="NAME", help="variables to adjust for")
    group.add_argument(
        "--bulk", metavar="FILE", help="where the bulk lies now, if it was moved since the run"
    )
    method = parser.add_argument_group("method")
    method.add_argument("--method", choices=METHODS, help=f"the test (default: {METHODS[0]})")
    method.add_argument("--fold-change", action="store_true", help="effects as ratios, not as differences")
    add_threads(method)
    add_output(parser, "folder for the results (default: RUN/differential)")
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    run = read_run(options["run"])
    if run.record["command"] != "deconvolve":
        raise UsageError(f"{run.path} is a run of '{run.record['command']}': give one of 'deconvolve'")
    options["run"] = str(run.path / "run.json")
    options.setdefault("out", str(run.path / "differential"))
    if options["method"] == "interaction" and not options["bulk"]:
        options["bulk"] = run.record["inputs"]["bulk"]["path"]
    return options


def run(job):
    """Test, and write ``differential.tsv``."""
    options, folder = job.options, read_run(job.options["run"])
    proportions = folder.table(PROPORTIONS)
    if proportions is None:
        raise ValueError(f"{folder.path} lists no {PROPORTIONS}: it is no whole run.")
    table = _for_samples(read_phenotype(options["phenotype"]), proportions.index, options["phenotype"])
    phenotype = table[_column(table, options)]
    covariates = table[_known(table, options["covariates"])] if options["covariates"] else None
    job.understood = _understand(phenotype, covariates, job.console)
    found = _test(folder, options, proportions, phenotype, covariates)
    job.write(found.set_index("cell_type"), DIFFERENTIAL)
    job.result = {
        "method": options["method"],
        "column": phenotype.name,
        "significant": _significant(found, proportions.columns),
    }
    job.console.facts(
        [(f"q < {SIGNIFICANT}", ", ".join(f"{kind} {n:,}" for kind, n in job.result["significant"].items()))]
    )


def _test(folder, options, proportions, phenotype, covariates):
    """The table of the method that is asked for."""
    how = {"covariates": covariates, "fold_change": options["fold_change"]}
    if options["method"] == "interaction":
        return interaction_test(_bulk(folder, options["bulk"]), proportions, phenotype, **how)
    test = {"marginal": marginal_test, "joint": joint_test}[options["method"]]
    names, genes, cse = _expression(folder, proportions)
    return test(cse, phenotype.to_numpy(), cell_types=names, gene_names=genes, **how)


def _bulk(folder, path):
    """The bulk of the run, on the genes of the run."""
    record = folder.record
    bulk = read_as_recorded(
        partial(read_bulk, rows=record["options"]["bulk_rows"]),
        path,
        record["inputs"]["bulk"]["sha256"],
        f"{path} is not the bulk of the run in {folder.path}: its SHA-256 differs.",
    )
    return bulk[folder.genes()]


def _expression(folder, proportions):
    """Cell types, genes and tensor of the run, without what the expression owes to the proportions."""
    normalized = "expression_normalized" in folder.record["files"]
    kind = "expression_normalized" if normalized else "expression"
    frames = folder.expression(kind)
    unknown = [name for name in frames if name not in proportions.columns]
    if unknown:
        raise ValueError(f"{folder.path} lists expression of {listing(unknown)}, which {PROPORTIONS} lacks.")
    first = next(iter(frames.values()))
    cse = np.stack([frame.to_numpy() for frame in frames.values()], axis=1)
    if not normalized:
        shares = proportions[list(frames)].to_numpy()
        cse = normalize("frac", cse, shares)
    return list(frames), first.columns, cse


def _for_samples(table, samples, path):
    """Rows of the samples of the run."""
    table.index = table.index.map(str)
    missing = samples.difference(table.index, sort=False)
    if len(missing):
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(samples)} samples: {listing(list(missing))}; its rows are "
            f"{listing(list(table.index))}."
        )
    return table.loc[samples]


def _column(table, options):
    if options["column"]:
        return _known(table, [options["column"]])[0]
    if table.shape[1] == 1:
        return table.columns[0]
    raise UsageError(
        f"{options['phenotype']} has the columns {', '.join(table.columns)}: choose one with --column"
    )


def _known(table, names):
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise ValueError(
            f"The phenotype has no column {listing(unknown)}; it has {listing(list(table.columns))}."
        )
    return names


def _understand(phenotype, covariates, console):
    """Say what is tested."""
    levels = phenotype.value_counts(sort=False).sort_index()
    quantity = pd.api.types.is_numeric_dtype(phenotype) and len(levels) > 2
    if quantity:
        text = f"a quantity from {phenotype.min():.4g} to {phenotype.max():.4g}"
    else:
        text = shortened([f"{level} {count:,}" for level, count in levels.items()])
    names = [] if covariates is None else list(covariates.columns)
    console.facts(
        [
            ("samples", counted(len(phenotype), "sample")),
            (str(phenotype.name), text),
            ("covariates", shortened(names) if names else "none"),
        ]
    )
    return {"n_samples": len(phenotype), "column": phenotype.name, "phenotype": text, "covariates": names}


def _significant(found, cell_types):
    """Number of genes per cell type with a false discovery rate below 0.05."""
    counts = found.cell_type[found.q_value < SIGNIFICANT].value_counts()
    return {kind: int(counts.get(kind, 0)) for kind in cell_types if (found.cell_type == kind).any()}
