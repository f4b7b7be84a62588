"""``skenigma differential``."""

from functools import partial

import numpy as np
import pandas as pd

from ..checks.labels import cause
from ..checks.names import listing
from ..checks.scales import SCALES
from ..cohort import is_lazy
from ..differential import (
    factor_test,
    interaction_test,
    joint_test,
    log_fold_change_test,
    marginal_test,
    untested,
)
from ..differential._tensor import refuse_posterior_means
from ..io import read_phenotype, read_run
from ..io._expression import MISSING
from ..io._fitted import read_fitted
from ..io._runs import DIFFERENTIAL, PROPORTIONS
from ..normalization import normalize
from . import _memory
from ._earlier import check_run, fill_in_inputs
from ._large import read_any_bulk
from ._memory import add_memory
from ._options import add_output, add_repeat, add_threads
from ._understood import counted, shortened
from ._usage import UsageError

NAME = "differential"
USAGE = "RUN --phenotype FILE"
DESCRIPTION = """\
Test, by cell type, which genes are associated with a phenotype, in the folder that 'skenigma deconvolve' wrote.
'log_fold_change' tests on the bulk with proportions and reference, and is the default where no value is negative;
'factor' does so for signed, centred or standardised values; 'interaction' tests on bulk and proportions; 'marginal'
and 'joint' test the estimated expression, unless it is a posterior mean. Effects compare the other group with the one
that --reference-level names. Writes differential.tsv, sorted by p-value, with false discovery rates per cell type."""
EXAMPLES = """\
examples:
  skenigma differential run --phenotype phenotype.tsv
  skenigma differential run --phenotype clinic.csv --column response --covariates age sex --method marginal
  skenigma differential run --phenotype clinic.csv --column state --levels healthy sick --missing drop"""
INPUTS = ("run", "phenotype", "bulk", "reference")
REQUIRED = ("run", "phenotype")
METHODS = ("auto", "log_fold_change", "factor", "interaction", "marginal", "joint")
DEFAULTS = {
    "bulk": None,
    "reference": None,
    "levels": None,
    "exclude": None,
    "reference_level": None,
    "missing": "raise",
    "column": None,
    "covariates": None,
    "method": METHODS[0],
    "fold_change": False,
    "threads": 1,
    **_memory.DEFAULTS,
}
SIGNIFICANT = 0.05
# Inputs of the run that a test reads again.
NEEDS = {
    "auto": ("bulk", "reference"),
    "log_fold_change": ("bulk", "reference"),
    "factor": ("bulk", "reference"),
    "interaction": ("bulk",),
    "marginal": (),
    "joint": (),
}


def add_options(parser):
    """Add the options of this command."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder that 'skenigma deconvolve' wrote")
    group = parser.add_argument_group("data")
    group.add_argument("--phenotype", metavar="FILE", help="table of samples × variables")
    group.add_argument("--column", metavar="NAME", help="variable to test (default: the only one there is)")
    group.add_argument("--covariates", nargs="+", metavar="NAME", help="variables to adjust for")
    group.add_argument("--levels", nargs="+", metavar="NAME", help="groups to compare; others are left out")
    group.add_argument("--exclude", nargs="+", metavar="NAME", help="groups, or values, to leave out")
    group.add_argument(
        "--reference-level", metavar="NAME", help="group that others are compared with (default: the first)"
    )
    group.add_argument(
        "--missing",
        choices=("raise", "drop"),
        help="what to do with samples without phenotype or covariate: refuse, or leave them out (default: raise)",
    )
    group.add_argument("--bulk", metavar="FILE", help="where the bulk is now, if it was moved since the run")
    group.add_argument(
        "--reference", metavar="FILE", help="where the reference is now, if it was moved since the run"
    )
    method = parser.add_argument_group("method")
    method.add_argument("--method", choices=METHODS, help="the test (default: see above)")
    method.add_argument("--fold-change", action="store_true", help="effects as ratios, not as differences")
    add_threads(method)
    add_memory(method)
    add_output(parser, "folder for the results (default: RUN/differential)")
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    run = check_run(options, "deconvolve")
    options.setdefault("out", str(run.path / "differential"))
    if options["levels"] and options["exclude"]:
        raise UsageError("--levels names the groups to compare: --exclude has nothing to add")
    fill_in_inputs(options, run, {name: name for name in NEEDS[options["method"]]})
    return options


def run(job):
    """Test, and write ``differential.tsv``."""
    options, folder = job.options, read_run(job.options["run"])
    proportions = folder.table(PROPORTIONS)
    if proportions is None:
        raise ValueError(f"{folder.path} lists no {PROPORTIONS}: it is not a complete run.")
    table = _for_samples(_read_phenotype(options), proportions.index, options["phenotype"])
    phenotype = table[choose_column(table, options)]
    covariates = table[_known(table, options["covariates"])] if options["covariates"] else None
    job.understood = _understand(phenotype, covariates, job.console)
    _refuse_missing(phenotype, covariates, options)
    method, found = _test(job, folder, proportions, phenotype, covariates)
    job.write(found.set_index("cell_type"), DIFFERENTIAL)
    job.result = {
        "method": method,
        "column": phenotype.name,
        "contrast": found.contrast.iloc[0],
        "significant": _significant(found, proportions.columns),
        "untested": untested(found),
    }
    job.console.facts(_said(job.result, len(found)))


def _read_phenotype(options):
    """The table, in which a group named like a missing value is one if an option names it."""
    # "NA" or "none" may be the name of a group, which only an option can tell
    named = {*(options["levels"] or ()), *(options["exclude"] or ()), options["reference_level"]}
    return read_phenotype(options["phenotype"], groups=sorted(named - {None}))


def _refuse_missing(phenotype, covariates, options):
    """Refuse samples without a value, in words of this program; what stands in its place may be a group."""
    if options["missing"] == "drop":
        return
    for column in (phenotype, *(() if covariates is None else (covariates[name] for name in covariates))):
        lacking = column.index[column.isna()]
        if not len(lacking):
            continue
        message = f"'{column.name}' is missing in {len(lacking)} sample(s): {listing(list(lacking))}"
        if column is phenotype and not pd.api.types.is_numeric_dtype(column):
            message += _group(column, lacking, options["phenotype"])
        raise ValueError(f"{message}. To leave these samples out: --missing drop.")


def _group(phenotype, lacking, path):
    """What stands where a value is taken for missing, and how to say that it is a group."""
    written = read_phenotype(path, groups=MISSING)[phenotype.name]
    words = [word for word in written.set_axis(written.index.map(str)).loc[lacking].unique() if word]
    if not words:
        return ""
    levels = " ".join(map(str, [*phenotype.dropna().unique()[:2], *words]))
    return f", where {listing(words)} stands. If that is a group, name it: --levels {levels}"


def _said(result, n_tests):
    """What came out: calls, and tests that were not made, which are no negative answers."""
    n_untested = sum(result["untested"].values())
    tests = f"{n_tests - n_untested:,} of {n_tests:,} have a p-value"
    if n_untested:
        tests += "; none: " + ", ".join(f"{flag} {count:,}" for flag, count in result["untested"].items())
    calls = ", ".join(f"{kind} {n:,}" for kind, n in result["significant"].items())
    return [
        ("test", result["method"]),
        ("effect", result["contrast"]),
        ("tests", tests),
        (f"q < {SIGNIFICANT}", calls if n_untested < n_tests else "nothing could be tested"),
    ]


def _test(job, folder, proportions, phenotype, covariates):
    """The method that was taken, and its table."""
    options, method = job.options, job.options["method"]
    how = {"covariates": covariates, "missing": options["missing"], **_levels(phenotype, options)}
    if method in ("marginal", "joint"):
        # only models that give posterior means write deviations
        if "expression_std" in folder.record["files"]:
            refuse_posterior_means(True, f"the run in {folder.path}")
        test = {"marginal": marginal_test, "joint": joint_test}[method]
        names, genes, cse = _expression(folder, proportions, job.budget)
        how |= {"cell_types": names, "gene_names": genes, "fold_change": options["fold_change"]}
        # the tensor has no names: both are in the order of the run
        return method, test(cse, phenotype.rename_axis(None).reset_index(drop=True), **how)
    bulk = read_fitted(folder, "bulk", options["bulk"], read_large=partial(read_any_bulk, job.budget))
    reference = None if method == "interaction" else read_fitted(folder, "reference", options["reference"])
    # logarithms need values of at least 0, and their effects are fold changes already
    if method == "auto":
        counts = _smallest(bulk) >= 0 and reference.to_numpy().min() >= 0
        method = "log_fold_change" if counts and not options["fold_change"] else "interaction"
    if method == "interaction":
        return method, interaction_test(
            bulk, proportions, phenotype, fold_change=options["fold_change"], **how
        )
    if options["fold_change"]:
        kind = "differences" if method == "factor" else "logarithms of fold changes already"
        raise UsageError(f"--fold-change: the effects of {method} are {kind}")
    if method == "factor":
        # on the scale of the run, as from a fitted model
        forward = SCALES[folder.record["options"]["parameters"].get("preprocess")].forward
        bulk, reference = bulk.apply(forward) if is_lazy(bulk) else forward(bulk), forward(reference)
        return method, factor_test(bulk, proportions, phenotype, reference=reference, **how)
    return method, log_fold_change_test(bulk, proportions, phenotype, reference=reference, **how)


def _smallest(bulk):
    """Smallest value of a table, or of a bulk that is read by blocks."""
    if not is_lazy(bulk):
        return bulk.to_numpy().min()
    return min(block.min() for _, block in bulk.blocks())


def _levels(phenotype, options):
    """The levels that options name, as the phenotype has them."""
    there = {
        f"{value:g}" if isinstance(value, float) else str(value): value
        for value in phenotype.dropna().unique()
    }

    def known(names):
        unknown = [name for name in names if name not in there]
        if unknown:
            raise ValueError(
                f"{phenotype.name} has no level {listing(unknown)}; it has {listing(sorted(there))}."
            )
        return [there[name] for name in names]

    levels = known(options["levels"]) if options["levels"] else None
    if options["exclude"]:
        known(options["exclude"])
        levels = sorted(value for name, value in there.items() if name not in options["exclude"])
    first = options["reference_level"]
    return {"levels": levels, "reference_level": None if first is None else known([first])[0]}


def _expression(folder, proportions, budget):
    """Cell types, genes and tensor of the run, without what the expression owes to the proportions."""
    # the estimates owe some of their variation to the proportions, which would be tested in their place
    normalized = "expression_normalized" in folder.record["files"]
    kind = "expression_normalized" if normalized else "expression"
    genes = folder.genes()
    n_samples, n_genes = len(proportions), len(genes)
    n_types = len(folder.record["options"].get("cell_types") or proportions.columns)
    budget.check(
        # the values of all types, and what they are after the shares are taken out
        2 * 8 * n_samples * n_types * n_genes,
        f"A test on the expression of {n_samples:,} samples, {n_types:,} cell types and {n_genes:,} genes",
        "Take --method interaction, which tests on the bulk, or write fewer --cell-types.",
    )
    frames = folder.expression(kind)
    unknown = [name for name in frames if name not in proportions.columns]
    if unknown:
        raise ValueError(f"{folder.path} lists expression of {listing(unknown)}, which {PROPORTIONS} lacks.")
    cse = np.stack([frame.to_numpy() for frame in frames.values()], axis=1)
    if not normalized:
        shares = proportions[list(frames)].to_numpy()
        cse = normalize("frac", cse, shares)
    return list(frames), genes, cse


def _for_samples(table, samples, path):
    """Rows of the samples of the run."""
    table.index = table.index.map(str)
    missing = samples.difference(table.index, sort=False)
    if len(missing):
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(samples)} samples: {listing(list(missing))}; its rows are "
            f"{listing(list(table.index))}. {cause(table.index, samples)}Rename them so that both are the same."
        )
    return table.loc[samples]


def choose_column(table, options):
    """The variable that is named, or the only one that there is."""
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
    # two numbers are two groups, such as 0 and 1
    quantity = pd.api.types.is_numeric_dtype(phenotype) and len(levels) > 2
    if quantity:
        text = f"a quantity from {phenotype.min():.4g} to {phenotype.max():.4g}"
    else:
        text = shortened([f"{level} {count:,}" for level, count in levels.items()])
    if phenotype.isna().any():
        text += f"; missing {phenotype.isna().sum():,}"
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
