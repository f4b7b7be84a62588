"""``skenigma proportions``."""

from ..io import read_bulk, read_reference
from ..io._runs import QUALITY
from ..proportions import ProportionEstimator
from ._options import add_data, add_output, add_repeat, add_threads
from ._tables import quality_frame, warn_flagged, write_proportions
from ._understood import understand

NAME = "proportions"
USAGE = "--bulk FILE --reference FILE --out FOLDER"
DESCRIPTION = """\
Estimate the proportions of cell types in every bulk sample, by regressing it on the profiles of a reference.
Bulk and reference must be on the same scale, best not on a logarithmic one: mixtures add up before the logarithm.
Proportions are shares of RNA, if the profiles have equal totals. The method 'log' also gives standard errors, a lower
bound, in proportions_std.tsv."""
EXAMPLES = """\
examples:
  skenigma proportions --bulk bulk.tsv.gz --reference reference.tsv --out proportions
  skenigma proportions --bulk bulk.h5ad --reference reference.csv --method nnls --out proportions --json"""
INPUTS = ("bulk", "reference")
REQUIRED = INPUTS
METHODS = ("auto", "log", "rlm", "nnls", "nusvr")
DEFAULTS = {"bulk_rows": "genes", "reference_rows": "genes", "method": "auto", "threads": 1}


def add_options(parser):
    """Add the options of this command."""
    add_data(parser)
    group = parser.add_argument_group("method")
    add_method(group, "--method")
    add_threads(group)
    add_output(parser)
    add_repeat(parser)


def add_method(group, option):
    """The option for the method of estimating proportions."""
    group.add_argument(
        option,
        choices=METHODS,
        help="comparison on the logarithmic scale (log), robust regression as published (rlm), non-negative least "
        "squares (nnls), or ν-support-vector regression (nusvr); auto (default) is log where bulk and reference are "
        "linear and not negative, else rlm",
    )


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    return options


def run(job):
    """Estimate, and write ``proportions.tsv``."""
    bulk, reference = read_data(job)
    estimator = ProportionEstimator(reference, method=job.options["method"], n_jobs=job.options["threads"])
    estimator.fit(bulk)
    job.result = {"method": estimator.method_, "n_iter": estimator.n_iter_}
    write_proportions(job, estimator, bulk.index)
    write_quality(job, estimator, bulk, reference)


def read_data(job):
    """Bulk and reference of a job; says what they are."""
    options = job.options
    bulk = read_bulk(options["bulk"], rows=options["bulk_rows"])
    reference = read_reference(options["reference"], rows=options["reference_rows"].replace("-", " "))
    if options.get("float32"):
        bulk, reference = bulk.astype("float32"), reference.astype("float32")
    job.understood = understand(bulk, reference, job.console)
    return bulk, reference


def write_quality(job, fitted, bulk, reference):
    """Write ``quality.tsv``, and warn of samples to distrust."""
    quality = quality_frame(fitted, bulk, reference)
    job.write(quality, QUALITY)
    warn_flagged(quality, job.console)
