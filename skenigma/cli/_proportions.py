"""``skenigma proportions``."""

import pandas as pd

from ..checks.names import listing
from ..cohort import is_lazy
from ..io import read_proportions, read_reference
from ..io._choices import CHOICES
from ..io._runs import QUALITY
from ..io._written import read_result
from ..proportions import ProportionEstimator
from . import _memory, _scale
from ._large import bring_large_to_scale, read_any_bulk
from ._memory import add_memory
from ._options import READING, add_data, add_output, add_repeat, add_threads
from ._tables import quality_frame, warn_flagged, write_proportions
from ._understood import understand

NAME = "proportions"
USAGE = "--bulk FILE --reference FILE --out FOLDER"
DESCRIPTION = """\
Estimate the proportions of cell types in every bulk sample, by regressing it on the profiles of a reference.
Bulk and reference must be on the same scale, preferably not a logarithmic one: mixtures add up before the logarithm.
Proportions are shares of RNA, if the profiles have equal totals. The method 'log' also gives standard errors, a lower
bound, in proportions_std.tsv."""
EXAMPLES = """\
examples:
  skenigma proportions --bulk bulk.tsv.gz --reference reference.tsv --out proportions
  skenigma proportions --bulk bulk.h5ad --reference reference.csv --method nnls --out proportions --json"""
REQUIRED = ("bulk", "reference")
INPUTS = (*REQUIRED, "gene_lengths", "markers")
METHODS = ("auto", "log", "rlm", "nnls", "nusvr")
DEFAULTS = {
    **READING,
    **_scale.DEFAULTS,
    **_memory.DEFAULTS,
    "method": "auto",
    "markers": None,
    "threads": 1,
}
BEFORE = _scale.BEFORE


def add_options(parser):
    """Add the options of this command."""
    add_data(parser)
    _scale.add_scale(parser)
    group = parser.add_argument_group("method")
    add_method(group, "--method")
    add_threads(group)
    add_memory(group)
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
    group.add_argument(
        "--markers",
        metavar="FILE",
        help="estimate proportions from these genes only: markers.tsv of 'skenigma reference', or any table with a "
        "column 'gene'",
    )


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    _scale.check_scale(options)
    return options


def run(job):
    """Estimate, and write ``proportions.tsv``."""
    bulk, reference = read_data(job, by_blocks=True)
    # markers are for the estimate alone: quality is judged on all genes
    known = reference if job.options["markers"] is None else reference[read_markers(job, reference.columns)]
    estimator = ProportionEstimator(known, method=job.options["method"], n_jobs=job.options["threads"])
    estimator.fit(bulk)
    job.result = {"method": estimator.method_, "n_iter": estimator.n_iter_}
    write_proportions(job, estimator, bulk.index)
    write_quality(job, estimator.proportions_, bulk, reference)


def read_data(job, reference=None, *, by_blocks=False):
    """Bulk and reference of a job, on the scale of the fit; says what they are. A given reference is not read.

    With ``by_blocks`` a large bulk in AnnData is a :class:`~skenigma.cohort.LazyMatrix`.
    """
    options = job.options
    notes = {name: [] for name in CHOICES}
    how = {name: {choice: options[choice] for choice in choices} for name, choices in CHOICES.items()}
    path, rows = options["bulk"], options["bulk_rows"]
    bulk = read_any_bulk(job.budget, path, rows, how["bulk"], notes["bulk"], by_blocks=by_blocks)
    if reference is None:
        rows = options["reference_rows"].replace("-", " ")
        path, choices = options["reference"], how["reference"]
        reference = read_reference(path, rows=rows, **choices, notes=notes["reference"])
    say_notes(job, notes)
    if is_lazy(bulk):
        return bring_large_to_scale(job, bulk, reference)
    if options.get("float32"):
        bulk, reference = bulk.astype("float32"), reference.astype("float32")
    job.understood.update(understand(bulk, reference, job.console))
    genes = bulk.columns.intersection(reference.columns, sort=False)
    # of the values as they came: one total for both would hide different units
    _scale.refuse_scale(bulk, reference, genes, options["allow_scale"])
    return _scale.bring_to_scale(job, bulk, reference)


def say_notes(job, notes):
    """Say and record what was done while inputs were read, by the name of the input."""
    # what was read as it stands is not worth a line
    notes = {name: lines for name, lines in notes.items() if lines}
    job.console.facts([(name, line) for name, lines in notes.items() for line in lines])
    job.understood.setdefault("reading", {}).update(notes)


def read_known_proportions(job):
    """Proportions of the file that an option names, None where it names none."""
    if job.options["proportions"] is None:
        return None
    notes = []
    proportions = read_proportions(job.options["proportions"], notes=notes)
    say_notes(job, {"proportions": notes})
    return proportions


def read_markers(job, genes):
    """Marker genes of the file that an option names, of the genes of the profiles."""
    wanted = read_gene_list(job.options["markers"])
    found = genes.intersection(wanted, sort=False)
    if not len(found):
        raise ValueError(
            f"None of the markers in {job.options['markers']} is a gene in use: it has {listing(list(wanted))}."
        )
    job.console.facts([("markers", f"{len(found):,} of {len(wanted):,} are genes in use")])
    return found


def read_gene_list(path):
    """Genes in the column 'gene' of a table."""
    table = read_result(path, names=("gene",))
    if "gene" not in table:
        raise ValueError(f"{path} has no column 'gene'; it has {listing(list(table.columns))}.")
    return pd.Index(table["gene"]).unique()


def write_quality(job, proportions, bulk, reference):
    """Write ``quality.tsv``, and warn of samples to distrust."""
    quality = quality_frame(proportions, bulk, reference)
    job.write(quality, QUALITY)
    warn_flagged(quality, job.console)
