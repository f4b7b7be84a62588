"""``skenigma reliability``."""

from functools import partial

from ..io import read_run
from ..io._fitted import read_fitted_pair
from ..io._runs import PROPORTIONS, RELIABILITY
from ..reliability import bootstrap_reliability, gene_significance
from ..reliability._contribution import contributions
from . import _memory
from ._earlier import check_run, fill_in_inputs
from ._large import read_any_bulk
from ._memory import add_memory
from ._options import add_output, add_repeat, add_threads, natural_number, positive_integer
from ._parameters import model_name
from ._refit import check_own_model, refit
from ._understood import counted
from ._usage import UsageError

NAME = "reliability"
USAGE = "RUN"
DESCRIPTION = """\
How far to trust the expression of each gene in each cell type, of a run of 'skenigma deconvolve'. Writes genes.tsv, a
row per cell type and gene:

  contribution    share of the gene's bulk that comes from the cell type, by mean proportions and profiles: what
                  varies in the bulk can only tell of the cell types that it comes from. Not for centred values
  coefficient, statistic, p_value, q_value, significant
                  regression of the bulk on the proportions: whether the bulk says that the cell type contributes
  reliability     correlation of estimate and truth over samples that the model expects, if it says so
  mean, standard_error, stability
                  with --bootstrap: mean expression, its standard error, and the share of resampled cohorts in which
                  it lies on the same side of the other cell types"""
EXAMPLES = """\
examples:
  skenigma reliability run
  skenigma reliability run --bootstrap 100 --seed 1 --out reliability"""
INPUTS = ("run", "bulk", "reference")
REQUIRED = ("run",)
DEFAULTS: dict = {
    "bulk": None,
    "reference": None,
    "bootstrap": None,
    "seed": 0,
    "refine": False,
    "model": None,
    "threads": None,
    **_memory.DEFAULTS,
}
GENES = "genes.tsv"


def add_options(parser):
    """Add the options of this command."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder that 'skenigma deconvolve' wrote")
    group = parser.add_argument_group("data")
    for name in ("bulk", "reference"):
        group.add_argument(
            f"--{name}", metavar="FILE", help=f"where the {name} is now, if it was moved since the run"
        )
    method = parser.add_argument_group("method")
    method.add_argument(
        "--refine",
        action="store_true",
        help="call genes significant that belong to a cell type more than other genes do, as the original suggests "
        "where profiles are much correlated",
    )
    method.add_argument(
        "--bootstrap",
        type=positive_integer,
        metavar="N",
        help="resample the cohort N times, at least 2, and fit the model to each",
    )
    method.add_argument(
        "--seed", type=natural_number, metavar="N", help="the same seed draws the same cohorts (default: 0)"
    )
    method.add_argument(
        "--model",
        type=model_name,
        metavar="MODULE:CLASS",
        help="the model of the run, if it is one of your own, with --bootstrap: a record must not decide what code "
        "is run",
    )
    add_threads(method)
    add_memory(method)
    add_output(parser, "folder for the results (default: RUN/reliability)")
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    run = check_run(options, "deconvolve")
    if options["bootstrap"] is not None:
        check_own_model(run, options["model"])
        if options["bootstrap"] < 2:
            raise UsageError("--bootstrap needs at least 2 cohorts")
    options.setdefault("out", str(run.path / "reliability"))
    fill_in_inputs(options, run, {"bulk": "bulk", "reference": "reference"})
    options["threads"] = options["threads"] or run.record["options"].get("threads", 1)
    return options


def run(job):
    """Judge the genes, and write ``genes.tsv``."""
    options, folder = job.options, read_run(job.options["run"])
    # resampled cohorts are drawn from all samples
    large = partial(read_any_bulk, job.budget, by_blocks=options["bootstrap"] is None)
    bulk, reference = read_fitted_pair(folder, options["bulk"], options["reference"], read_large=large)
    # the tests go by position: in the order of the profiles
    proportions = folder.table(PROPORTIONS)[list(reference.index)]
    job.console.facts(
        [
            ("samples", counted(len(bulk), "sample")),
            ("genes", f"{counted(bulk.shape[1], 'gene')} in {counted(len(reference), 'cell type')}"),
        ]
    )
    table = gene_significance(bulk, proportions, refine=options["refine"])
    # of centred values, shares mean nothing
    if reference.to_numpy().min() >= 0:
        shares = contributions(proportions.to_numpy(), reference.to_numpy())
        table.insert(2, "contribution", shares.ravel())
    expected = folder.table(RELIABILITY)
    if expected is not None:
        table["reliability"] = expected.T.loc[reference.index, bulk.columns].to_numpy().ravel()
    if options["bootstrap"] is not None:
        table = _with_bootstrap(job, folder, bulk, reference, table)
    job.write(table.set_index("cell_type"), GENES)
    job.files = {"genes": GENES}
    calls = table["significant"].groupby(table["cell_type"], sort=False).sum()
    job.understood = {"n_samples": len(bulk), "n_genes": bulk.shape[1], "cell_types": list(reference.index)}
    job.result["significant"] = {kind: int(count) for kind, count in calls.items()}
    job.console.facts([(f"significant in {kind}", counted(int(n), "gene")) for kind, n in calls.items()])


def _with_bootstrap(job, folder, bulk, reference, table):
    """The table with what resampled cohorts tell."""
    options = job.options
    # fitted again in another precision, it would be another model
    if folder.record["options"].get("float32"):
        bulk, reference = bulk.astype("float32"), reference.astype("float32")
    model = refit(job, folder, bulk, reference)
    found = bootstrap_reliability(
        model,
        bulk,
        n_bootstraps=options["bootstrap"],
        n_jobs=options["threads"],
        random_state=options["seed"],
    )
    job.seeds = {"random_state": options["seed"]}
    job.result["n_bootstraps"], job.result["n_converged"] = found.n_bootstraps, found.n_converged
    columns = found.to_frame().drop(columns=["cell_type", "gene"])
    # both tables go through cell types, and then genes, in the order of the run
    return table.assign(**columns)
