"""A bulk in AnnData that is not read into memory: what is decided of one that is, decided by blocks of samples."""

from pathlib import Path

import numpy as np

from .._library_size import choose_total, known_lengths, refuse_empty
from ..checks.facts import examine
from ..checks.units import scale_findings
from ..io import read_gene_lengths
from ..io._choices import CHOICES, Choices
from ..io._large import open_annotated, prepared, read_rows, shape_of
from . import _scale
from ._understood import understand


def open_large(job, notes):
    """The bulk of a job as a matrix that is read by blocks; None where it is to be read into memory."""
    options = job.options
    path = Path(options["bulk"])
    choices = Choices(options["bulk_rows"], **{name: options[name] for name in CHOICES["bulk"]})
    group = open_annotated(path)
    shape = None if group is None else shape_of(group, choices)
    if shape is None or not job.budget.is_large(shape):
        return None
    return read_rows(group, path, choices, notes, job.budget.read)


def bring_large_to_scale(job, bulk, reference):
    """Bulk and reference on the genes that they share, as they enter the fit; says what they are."""
    options = job.options
    if options.get("float32"):
        reference = reference.astype(np.float32)
    job.budget.check_blocks(bulk.shape, len(reference), options["bulk"])
    examine(bulk, "bulk", bulk.columns)
    job.understood.update(understand(bulk, reference, job.console))
    genes = bulk.columns.intersection(reference.columns, sort=False)
    # examined again: totals and extremes are now those of the genes in use
    shared = _examined(bulk.select(bulk.columns.get_indexer(genes)))
    if not options["allow_scale"]:
        _scale.refuse_findings(scale_findings(shared, reference[genes].to_numpy(), shared.index))
    lengths = None
    if options["gene_lengths"] is not None:
        found = known_lengths(
            bulk, read_gene_lengths(options["gene_lengths"], column=options["length_column"])
        )
        bulk = bulk.select(bulk.columns.get_indexer(found.index))
        bulk = _examined(prepared(bulk, lengths=found.to_numpy()))
        genes = bulk.columns.intersection(reference.columns, sort=False)
        shared, lengths = shared.select(shared.columns.get_indexer(genes)), found[genes].to_numpy()
    asked = None if options["total"] == _scale.AS_IS else options["total"]
    totals = (
        shared.facts.totals if lengths is None else _examined(prepared(shared, lengths=lengths)).facts.totals
    )
    scaling = choose_total(bulk, reference, asked, lengths=lengths is not None, shared_totals=totals)
    _scale.note_scaling(job, scaling)
    dtype = np.dtype(np.float32) if options.get("float32") else None
    if scaling.total is not None:
        refuse_empty(totals, shared, "Bulk samples")
        reference = _scale.scale_to_total(reference[genes], scaling.total, "Cell types")
    # unchanged, it need not be read again
    if scaling.total is None and lengths is None and dtype is None:
        return shared, reference
    return _examined(prepared(shared, lengths=lengths, total=scaling.total, dtype=dtype)), reference


def _examined(matrix):
    """A matrix with what is known of its values after one reading."""
    examine(matrix, "bulk", matrix.columns)
    return matrix
