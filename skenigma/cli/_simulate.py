"""``skenigma simulate``."""

import inspect

import pandas as pd

from ..datasets import make_cohort
from ..io._runs import PROPORTIONS
from ._foresee import foresee
from ._job import file_names
from ._options import add_output, add_repeat, natural_number, positive_integer
from ._usage import UsageError

NAME = "simulate"
USAGE = "--out FOLDER"
DESCRIPTION = """\
Simulate bulk samples of two groups by the recipe of the published benchmark, in the files that the other commands
read: bulk, reference, proportions, phenotype; and the truth: expression/ per cell type, and changed.tsv (1 where a
gene is higher in cases, -1 where it is lower). Values are centred on 0, as for standardised expression."""
EXAMPLES = """\
examples:
  skenigma simulate --out cohort
  skenigma simulate --samples 300 --genes 20000 --cell-types 8 --seed 7 --format parquet --out cohort"""
INPUTS = ()
REQUIRED = ()
# option: parameter of make_cohort, type, what it means
PARAMETERS = {
    "samples": ("n_samples", positive_integer, "number of bulk samples; the second half are cases"),
    "genes": ("n_genes", positive_integer, "number of genes"),
    "cell_types": ("n_cell_types", positive_integer, "number of cell types"),
    "effect": ("effect", float, "how far a changed gene lies from its profile in cases"),
    "changed": ("changed", float, "share of the genes that change, in every cell type"),
    "noise": ("noise", float, "standard deviation of the noise on the bulk"),
    "cse_noise": ("cse_noise", float, "standard deviation of a gene in a cell type over samples"),
}
SIGNATURE = inspect.signature(make_cohort).parameters
DEFAULTS = {
    **{option: SIGNATURE[parameter].default for option, (parameter, _, _) in PARAMETERS.items()},
    "seed": 0,
    "format": "tsv",
    "gzip": False,
}


def add_options(parser):
    """Add the options of this command."""
    group = parser.add_argument_group("cohort")
    for option, (_, kind, text) in PARAMETERS.items():
        metavar = "N" if kind is positive_integer else "NUMBER"
        name = "--" + option.replace("_", "-")
        group.add_argument(name, type=kind, metavar=metavar, help=f"{text} (default: {DEFAULTS[option]})")
    group.add_argument(
        "--seed", type=natural_number, metavar="N", help="the same seed gives the same cohort (default: 0)"
    )
    output = add_output(parser)
    output.add_argument(
        "--format", choices=("tsv", "csv", "parquet"), help="of bulk, reference and truth (default: tsv)"
    )
    output.add_argument("--gzip", action="store_true", help="compress these (tsv and csv)")
    add_repeat(parser)


def check(options):
    """Options completed; a UsageError if they contradict each other."""
    if options["gzip"] and options["format"] == "parquet":
        raise UsageError("--gzip is for tsv and csv")
    return options


def run(job):
    """Simulate, and write the folder."""
    options = job.options
    parameters = {parameter: options[option] for option, (parameter, _, _) in PARAMETERS.items()}
    end = f".{options['format']}" + (".gz" if options["gzip"] else "")
    # a mistyped number of samples or genes shows before hours of writing
    foresee(job, ["bulk" + end], [], (options["cell_types"] + 1) * options["samples"] * options["genes"])
    cohort = make_cohort(**parameters, as_frame=True, random_state=options["seed"])
    expression = {kind: cohort.cse[:, k] for k, kind in enumerate(cohort.cell_types)}
    files = {kind: f"expression/{name}" for kind, name in file_names(expression, end).items()}

    job.write(cohort.bulk.T.rename_axis("gene"), "bulk" + end)
    job.write(cohort.reference.T.rename_axis("gene"), "reference" + end)
    job.write(cohort.changed.T.rename_axis("gene"), "changed.tsv")
    job.write(cohort.proportions.rename_axis("sample"), PROPORTIONS)
    job.write(
        cohort.phenotype.map({0: "control", 1: "case"}).rename("group").rename_axis("sample").to_frame(),
        "phenotype.tsv",
    )
    for kind, values in expression.items():
        frame = pd.DataFrame(values.T, index=cohort.gene_names, columns=cohort.sample_names)
        job.write(frame.rename_axis("gene"), files[kind])

    job.seeds = {"random_state": options["seed"]}
    job.understood = {
        "n_samples": len(cohort.bulk),
        "n_genes": cohort.bulk.shape[1],
        "cell_types": list(cohort.cell_types),
    }
    job.files = {"bulk": "bulk" + end, "reference": "reference" + end, "expression": files}
