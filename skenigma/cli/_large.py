"""A bulk in AnnData that is not read into memory: what is decided of one that is, decided by blocks of samples."""

from pathlib import Path

import numpy as np
import pandas as pd

from .._library_size import choose_total, known_lengths, refuse_empty
from ..checks.facts import examine
from ..checks.units import scale_findings
from ..io import read_bulk, read_gene_lengths
from ..io._choices import Choices
from ..io._large import is_by_rows, open_annotated, prepared, read_rows, shape_of
from . import _scale
from ._understood import understand

# What to do where a bulk is too large to be read into memory.
AS_H5AD = "Write it as .h5ad with samples as rows, which is read by blocks"
AS_ROWS = "Write its matrix by samples, adata.X.tocsr(), which is read by blocks"
ALL_AT_ONCE = "What is asked for here needs all samples at once: choose fewer samples or genes"


def read_any_bulk(budget, path, rows, how, notes, *, by_blocks=True):
    """A bulk as a table; one that is large, as a matrix that is read by blocks where it can be.

    Parameters
    ----------
    budget : Budget
    path : str
    rows : {"genes", "samples"}
        Of a table.
    how : dict
        Choices that its reader takes, see :mod:`skenigma.io._choices`.
    notes : list of str
        Takes a line for everything that is done besides reading.
    by_blocks : bool, default=True
        Whether what follows takes such a matrix.

    Returns
    -------
    bulk : DataFrame or LazyMatrix

    Raises
    ------
    ValueError, MemoryError
        If all of it has to be in memory, and there is too little; before it is read, where a file tells its size.
    """
    path, choices = Path(path), Choices(rows, **how)
    group = open_annotated(path)
    shape = None if group is None else shape_of(group, choices)
    if shape is not None and budget.is_large(shape):
        if by_blocks and is_by_rows(group, choices):
            return read_rows(group, path, choices, notes, budget.read)
        budget.check_held(shape, path, AS_ROWS if by_blocks else ALL_AT_ONCE)
    bulk = read_bulk(path, rows=rows, **how, notes=notes)
    if shape is None:  # a text tells its size when it has been read
        budget.check_read(bulk.shape, path, AS_H5AD if by_blocks else ALL_AT_ONCE)
    return bulk


def in_single_precision(bulk):
    """A table, or a matrix that is read by blocks, in single precision."""
    return bulk.astype(np.float32) if isinstance(bulk, pd.DataFrame) else prepared(bulk, dtype=np.float32)


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
