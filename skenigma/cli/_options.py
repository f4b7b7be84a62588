"""Options that several commands have."""

import argparse

from ..io._choices import DUPLICATES, QUANTITIES, STRANDS

FORMATS = """\
Files are recognised by what they contain. Tables: text split at tabs, commas or semicolons, compressed or not,
.parquet or .xlsx; AnnData: .h5ad. The page on input files lists everything else that is read."""
# How bulk and reference are read, where nothing is said.
READING = {
    "bulk_rows": "genes",
    "reference_rows": "genes",
    "layer": None,
    "gene_column": None,
    "quantity": None,
    "strandedness": "auto",
    "duplicates": "refuse",
}


def add_data(parser):
    """Bulk and reference."""
    group = parser.add_argument_group("data", FORMATS)
    group.add_argument(
        "--bulk",
        metavar="FILE",
        help="bulk expression, genes × samples (.h5ad: samples × genes), or a folder with the output of a "
        "quantifier: STAR, htseq-count, featureCounts, salmon, kallisto, RSEM or StringTie",
    )
    group.add_argument(
        "--reference",
        metavar="FILE",
        help="a profile per cell type, genes × cell types (.h5ad: the other way round)",
    )
    group.add_argument(
        "--bulk-rows",
        choices=("genes", "samples"),
        help="what the rows of the bulk table are (default: genes)",
    )
    group.add_argument(
        "--reference-rows",
        choices=("genes", "cell-types"),
        help="what the rows of the reference table are (default: genes)",
    )
    add_reading(group)
    return group


def add_reading(group):
    """What a file of bulk leaves to choose."""
    group.add_argument(
        "--layer",
        metavar="NAME",
        help="layer of the bulk's AnnData, or raw, or X (default: X if it holds no logarithms)",
    )
    group.add_argument(
        "--gene-column",
        metavar="NAME",
        help="column of the bulk with the names of the genes (default: the first; of .h5ad the names of var)",
    )
    group.add_argument(
        "--quantity", choices=QUANTITIES, help="what to take of the output of a quantifier (default: counts)"
    )
    group.add_argument(
        "--strandedness",
        choices=STRANDS,
        help="of the libraries, where STAR counted for each (default: auto, by the counts)",
    )
    group.add_argument(
        "--duplicates",
        choices=DUPLICATES,
        help="what to do with genes named more than once: refuse (default), sum, or keep the row with the "
        "largest mean",
    )


def add_output(parser, what="folder for the results, which must not exist"):
    """Where the results go."""
    group = parser.add_argument_group("output")
    group.add_argument("--out", metavar="PATH", help=what)
    group.add_argument("--force", action="store_true", help="replace the results of an earlier run")
    return group


def add_repeat(parser):
    """``--from``."""
    parser.add_argument_group("repeat").add_argument(
        "--from",
        dest="from_run",
        metavar="RUN.JSON",
        help="repeat a recorded run: the same parameters and, as their checksums prove, the same inputs; "
        "exit code 3 if an output differs by a byte",
    )


def add_threads(parser):
    """``--threads``."""
    parser.add_argument(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="threads of the linear algebra (default: 1). The last digits of results may depend on it, so it is "
        "recorded and repeated",
    )


def add_messages(parser):
    """What every command has."""
    group = parser.add_argument_group("messages")
    group.add_argument("-h", "--help", action="help", help="show this help and exit")
    group.add_argument("-q", "--quiet", action="store_true", help="show warnings and errors only")
    group.add_argument("--json", action="store_true", help="print a summary in JSON on stdout")
    group.add_argument("--debug", action="store_true", help="show where in the code an error arose")


def positive_integer(text):
    """A whole number of at least 1."""
    return _whole_number(text, 1)


def natural_number(text):
    """A whole number of at least 0."""
    return _whole_number(text, 0)


def _whole_number(text, least):
    # more digits than 18 are no number of anything here
    if not text.isdecimal() or len(text) > 18 or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)
