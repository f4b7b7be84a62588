"""What a run was fitted to, read again from its inputs, of which their checksums prove that they are the same."""

from functools import partial

import pandas as pd

from .._library_size import divide_by_length, known_lengths, scale_to_total
from ..checks.names import listing
from ..cohort import is_lazy
from ._choices import CHOICES
from ._inputs import read_as_recorded
from ._large import prepared
from ._lengths import read_gene_lengths
from ._reading import read_bulk, read_reference


def read_fitted(folder, name, path, genes=None, *, read_large=None):
    """Bulk or reference of a run of 'deconvolve', on its genes and on the scale of its fit.

    Parameters
    ----------
    folder : RunFolder
    name : {"bulk", "reference"}
    path : str
        Where it lies now.
    genes : list of str, default=None
        Those of the expression; None reads them from its files.
    read_large : callable, default=None
        Reads a bulk of ``path, rows, how, notes``, as :func:`read_bulk` does or as a LazyMatrix; None reads tables.

    Returns
    -------
    table : DataFrame or LazyMatrix
        Samples or cell types × genes.
    """
    table = _read(folder, name, path, read_large)
    return scale_like(folder, on_genes(table, folder.genes() if genes is None else genes), name)


def read_fitted_pair(folder, bulk, reference, *, read_large=None):
    """Bulk and reference of any run, from where they lie now, on its genes and on the scale of its fit."""
    bulk, reference = _read(folder, "bulk", bulk, read_large), _read(folder, "reference", reference)
    if "expression" in folder.record["files"]:
        genes = folder.genes()
    else:
        genes = bulk.columns.intersection(reference.columns, sort=False)
    bulk = scale_like(folder, on_genes(bulk, genes), "bulk")
    # genes without a length are not among those in use
    return bulk, scale_like(folder, reference[bulk.columns], "reference")


def _read(folder, name, path, read_large=None):
    options = folder.record["options"]
    # what was said of the reading is in the record; older records have no choices
    how = {choice: options[choice] for choice in CHOICES[name] if choice in options}
    rows = options[f"{name}_rows"].replace("-", " ")
    if name == "bulk" and read_large is not None:
        read = partial(read_large, rows=rows, how=how, notes=[])
    else:
        read = partial({"bulk": read_bulk, "reference": read_reference}[name], rows=rows, **how, notes=[])
    return as_recorded(folder, name, path, read)


def on_genes(table, genes):
    """A table, or a matrix that is read by rows, on some of its genes, by their names."""
    if not is_lazy(table):
        return table[genes]
    missing = pd.Index(genes).difference(table.columns, sort=False)
    if len(missing):
        raise ValueError(f"The bulk lacks {len(missing)} genes of the run: {listing(list(missing))}.")
    return table.select(table.columns.get_indexer(genes))


def scale_like(folder, table, name):
    """A table on the genes of a run, brought to what the run brought its own to."""
    lengths = _lengths(folder) if name == "bulk" and "gene_lengths" in folder.record["inputs"] else None
    total = folder.record["understood"].get("one_scale", {}).get("total")
    if is_lazy(table):
        return _rows_to_scale(table, lengths, total)
    if lengths is not None:
        table = divide_by_length(table, lengths)
    if total is None:
        return table
    return scale_to_total(table, total, "Bulk samples" if name == "bulk" else "Cell types")


def _rows_to_scale(matrix, lengths, total):
    """The same of a bulk that is read by rows."""
    if lengths is not None:
        found = known_lengths(matrix, lengths)
        matrix, lengths = on_genes(matrix, found.index), found.to_numpy()
    return matrix if lengths is None and total is None else prepared(matrix, lengths=lengths, total=total)


def _lengths(folder):
    """Lengths of genes that a run was given."""
    column = folder.record["options"].get("length_column")
    return as_recorded(folder, "gene_lengths", None, partial(read_gene_lengths, column=column))


def as_recorded(folder, name, path, read):
    """What a reader makes of an input of a run, where the record says if ``path`` is None; it must be the same."""
    path = folder.record["inputs"][name]["path"] if path is None else path
    return read_as_recorded(
        read,
        path,
        folder.record["inputs"][name]["sha256"],
        f"{path} is not the {name} of the run in {folder.path}: its SHA-256 differs.",
    )
