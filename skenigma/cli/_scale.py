"""What bulk and reference are brought to before a fit, and what is refused instead."""

import argparse

from .._library_size import choose_total, divide_by_length, scale_to_total
from ..checks.units import scale_findings
from ..io import read_gene_lengths
from ._usage import UsageError

AUTO, AS_IS = "auto", "as-is"
DEFAULTS = {"total": AUTO, "gene_lengths": None, "length_column": None, "allow_scale": False}
# What a run did whose record does not name these options.
BEFORE = {"total": AS_IS, "allow_scale": True}


def add_scale(parser):
    """Options on the scale of bulk and reference."""
    group = parser.add_argument_group(
        "scale",
        "What is done is reported before the fit, and recorded. Expression is on the scale of the fit.",
    )
    group.add_argument(
        "--total",
        type=total_or_word(AS_IS),
        metavar=f"{AUTO}|{AS_IS}|NUMBER",
        help="total of every sample and profile over the shared genes (default: auto, a million for counts, which "
        "are whole numbers, or totals that differ more than threefold; else as they are)",
    )
    group.add_argument(
        "--gene-lengths",
        metavar="FILE",
        help="lengths of genes, by which the bulk is divided: TPM. A table of genes, or .h5ad, whose var is read",
    )
    group.add_argument(
        "--length-column", metavar="NAME", help="column that holds them (default: 'length', or the only one)"
    )
    group.add_argument(
        "--allow-scale",
        action="store_true",
        help="compute with logarithms, or with bulk and reference on different scales, which is otherwise refused",
    )


def total_or_word(*words):
    """Type of an option: a positive number, "auto" or one of some words."""

    def convert(text):
        if text in (AUTO, *words):
            return text
        try:
            total = float(text)
        except ValueError:
            total = 0.0
        if not 0 < total < float("inf"):
            known = ", ".join((AUTO, *words))
            raise argparse.ArgumentTypeError(f"{text!r} is neither a positive number nor one of {known}")
        return total

    return convert


def check_scale(options):
    """A UsageError if options on the scale contradict each other."""
    if options["gene_lengths"] and options["total"] == AS_IS:
        raise UsageError(f"--gene-lengths makes TPM of the bulk, and --total {AS_IS} leaves it as it is")
    if options["length_column"] and not options["gene_lengths"]:
        raise UsageError("--length-column names a column of --gene-lengths, which are not given")


def refuse_scale(bulk, reference, genes, allow):
    """Refuse logarithms, and bulk and reference of different kinds, unless they are allowed: fits warn of them."""
    if not allow:
        refuse_findings(scale_findings(bulk[genes].to_numpy(), reference[genes].to_numpy(), bulk.index))


def refuse_findings(findings):
    """Refuse what speaks against the scales so much that no result can be right."""
    for finding in findings:
        if finding.refuse:
            raise ValueError(f"{finding.message} Nothing was computed; --allow-scale insists.")


def bring_to_scale(job, bulk, reference):
    """Bulk and reference as they enter the fit; says and records what was done."""
    options = job.options
    lengths = options["gene_lengths"] is not None
    if lengths:
        bulk = divide_by_length(
            bulk, read_gene_lengths(options["gene_lengths"], column=options["length_column"])
        )
    asked = None if options["total"] == AS_IS else options["total"]
    scaling = choose_total(bulk, reference, asked, lengths=lengths)
    note_scaling(job, scaling)
    if scaling.total is None:
        return bulk, reference
    shared = bulk.columns.intersection(reference.columns, sort=False)
    return (
        scale_to_total(bulk[shared], scaling.total, "Bulk samples"),
        scale_to_total(reference[shared], scaling.total, "Cell types"),
    )


def note_scaling(job, scaling):
    """Say and record what bulk and reference are brought to."""
    job.console.facts([("scale", scaling)])
    # recorded as decided, so that a repeat does not decide anew
    job.options["total"] = AS_IS if scaling.total is None else scaling.total
    job.understood["one_scale"] = {"total": scaling.total, "reason": scaling.reason}
