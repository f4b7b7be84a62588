"""What a run was fitted to, read again from its inputs, of which their checksums prove that they are the same."""

from functools import partial

from .._library_size import divide_by_length, scale_to_total
from ._choices import CHOICES
from ._inputs import read_as_recorded
from ._lengths import read_gene_lengths
from ._reading import read_bulk, read_reference


def read_fitted(folder, name, path, genes=None):
    """Bulk or reference of a run of 'deconvolve', on its genes and on the scale of its fit.

    Parameters
    ----------
    folder : RunFolder
    name : {"bulk", "reference"}
    path : str
        Where it lies now.
    genes : list of str, default=None
        Those of the expression; None reads them from its files.

    Returns
    -------
    table : DataFrame
        Samples or cell types × genes.
    """
    table = _read(folder, name, path)
    return scale_like(folder, table[folder.genes() if genes is None else genes], name)


def read_fitted_pair(folder, bulk, reference):
    """Bulk and reference of any run, from where they lie now, on its genes and on the scale of its fit."""
    bulk, reference = (_read(folder, name, path) for name, path in (("bulk", bulk), ("reference", reference)))
    if "expression" in folder.record["files"]:
        genes = folder.genes()
    else:
        genes = bulk.columns.intersection(reference.columns, sort=False)
    bulk = scale_like(folder, bulk[genes], "bulk")
    # genes without a length are not among those in use
    return bulk, scale_like(folder, reference[bulk.columns], "reference")


def _read(folder, name, path):
    read = {"bulk": read_bulk, "reference": read_reference}[name]
    options = folder.record["options"]
    # what was said of the reading is in the record; older records have no choices
    how = {choice: options[choice] for choice in CHOICES[name] if choice in options}
    rows = options[f"{name}_rows"].replace("-", " ")
    return as_recorded(folder, name, path, partial(read, rows=rows, **how, notes=[]))


def scale_like(folder, table, name):
    """A table on the genes of a run, brought to what the run brought its own to."""
    if name == "bulk" and "gene_lengths" in folder.record["inputs"]:
        table = divide_by_length(table, _lengths(folder))
    total = folder.record["understood"].get("one_scale", {}).get("total")
    if total is None:
        return table
    return scale_to_total(table, total, "Bulk samples" if name == "bulk" else "Cell types")


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
