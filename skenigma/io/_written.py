"""Tables that this package wrote, read as they were written: nothing about them has to be found out."""

from pathlib import Path

from ..checks.optional import import_optional
from ._anndata import read_anndata
from ._checksums import check_file
from ._errors import clear_errors
from ._expression import named, not_empty, read_parquet, to_numbers
from ._formats import Text, file_format, layer_name, records_of
from ._layout import Layout
from ._stores import STD, VALUES, StoredLayers, read_element
from ._tables import parse

# how a run writes that there is no number
NOT_A_NUMBER = ("", "nan")


def read_layers(path, kind="expression"):
    """Expression by cell type from an AnnData file or store, as DataFrames samples × genes.

    Those of a store are read when they are asked for.
    """
    if Path(path).is_dir():
        return StoredLayers(path, STD if kind == "expression_std" else VALUES)
    adata = read_anndata(path)
    return {kind: adata.to_df(layer=layer_name(kind)) for kind in adata.uns["cell_types"]}


def read_written(path):
    """Expression of a cell type in a table that a run wrote, as it was written: samples × genes."""
    if file_format(path).kind == "parquet":
        return to_numbers(named(read_parquet(path), path), path).T
    return to_numbers(_read_plain(path), path).rename_axis(None).T


def read_genes(path):
    """Names of the genes of an expression that a run wrote, in any of its formats."""
    if Path(path).is_dir():
        return list(StoredLayers(path).genes)
    form = file_format(path).kind
    if form == "h5ad":
        with import_optional("h5py", "anndata", f"Reading {path}").File(path, "r") as file:
            return list(read_element(file["var"]).index.astype(str))
    if form == "parquet":
        return list(named(read_parquet(path, []), path).index)
    return list(_read_plain(path, NOT_A_NUMBER, n_columns=1).index)


def read_result(path, names=()):
    """A table that a run wrote, as it was written.

    Parameters
    ----------
    path : str or path-like
    names : sequence of str, default=()
        Columns of names: whatever stands there is one.

    Returns
    -------
    frame : DataFrame
        Empty cells of numbers are NaN, and empty texts empty.
    """
    frame = _read_plain(path, NOT_A_NUMBER, names)
    return frame.fillna({name: "" for name in frame.select_dtypes(exclude="number")})


def _read_plain(path, missing=(), names=(), n_columns=None):
    """A table that this package wrote, or its first columns: nothing about it has to be found out."""
    check_file(path)
    form, packed = file_format(path), "gzip" if file_format(path).compressed else None
    text = Text(Path(path), packed)
    with clear_errors(text), text.open(form.delimiter) as file:
        header = next(records_of(file, form.delimiter), [])
    layout = Layout(form.delimiter, 0, True, header, 0, list(range(1, len(header)))[:n_columns])
    positions = [i for i in layout.columns if header[i] in names]
    frame = parse(text, layout, missing=missing, names=positions)
    return not_empty(frame, path).rename_axis(frame.index.name)
