"""Writers: the same frame gives the same bytes."""

import csv
import gzip
import io
from collections.abc import Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd

from .._typing import PathLike
from ..checks.optional import import_optional
from ._engines import write_numbers
from ._formats import file_format, layer_name


def write_table(frame: pd.DataFrame, path: PathLike) -> None:
    """Write a DataFrame, in the format that the end of the name tells; equal frames give equal bytes.

    Parameters
    ----------
    frame : DataFrame
        The index becomes the first column.
    path : str or path-like
        Ends in ``.tsv``, ``.txt``, ``.tab`` or ``.csv``, each possibly with ``.gz``, or in ``.parquet``.

    Raises
    ------
    ValueError
        If the end of the name tells no format of tables.
    OSError
        If the file cannot be written.
    ImportError
        If the format needs a package that is not installed.

    Notes
    -----
    Numbers are written with as many digits as it takes to read the same number back: large tables by polars where it
    is installed (``pip install "skenigma[text]"``), in a fraction of the time, others by pandas, which writes some
    exponents in another way. This function writes in place;
    :func:`staged_file` and :func:`staged_folder` see to it that a file is whole or not there.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import pandas as pd
    >>> from skenigma.io import write_table
    >>> frame = pd.DataFrame({"B cell": [0.1]}, index=pd.Index(["donor1"], name="sample"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "proportions.csv")
    ...     write_table(frame, path)
    ...     print(path.read_text(), end="")
    sample,B cell
    donor1,0.1
    """
    form = file_format(path)
    if form.kind == "h5ad":
        raise ValueError(f"{path}: a table cannot be written as .h5ad. Use .tsv, .csv or .parquet.")
    if form.kind == "parquet":
        import_optional("pyarrow.parquet", "cli", f"Writing {path}")
        frame.to_parquet(path, engine="pyarrow", compression="zstd")
        return
    with _bytes(path, form) as file:
        _write_text(frame, file, form.delimiter)


def _write_text(frame, file, delimiter, *, header=True, large=False):
    """Write a table, or a part of one that is ``large`` as a whole."""
    if write_numbers(frame, file, delimiter, header=header, large=large):
        return
    # the file is not the wrapper's to close
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    frame.to_csv(text, sep=delimiter, lineterminator="\n", quoting=_quoting(frame), header=header)
    text.detach()


def write_table_parts(parts, path):
    """Write a table that is never in memory as a whole.

    Parameters
    ----------
    parts : iterable of DataFrame
        Its rows, a part after the other, of one type and more than twenty thousand numbers together. A text is that
        of :func:`write_table`, Parquet has a group of rows for each part.
    path : path-like
    """
    form = file_format(path)
    if form.kind == "parquet":
        _write_parquet(parts, path)
        return
    with _bytes(path, form) as file:
        for number, part in enumerate(parts):
            _write_text(part, file, form.delimiter, header=number == 0, large=True)


def _write_parquet(parts, path):
    parquet = import_optional("pyarrow.parquet", "cli", f"Writing {path}")
    arrow = import_optional("pyarrow", "cli", f"Writing {path}")
    writer = None
    try:
        for part in parts:
            table = arrow.Table.from_pandas(part)
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _quoting(frame):
    """Which texts stand in quotes: all, where one holds the carriage return that Python leaves without."""
    texts = [frame.index, frame.columns, *(frame[name] for name in frame.select_dtypes(exclude="number"))]
    returns = any(isinstance(text, str) and "\r" in text for column in texts for text in column)
    return csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL


@contextmanager
def _bytes(path, form):
    """A file to write the bytes of a text to; a compressed one holds neither its name nor the time."""
    with open(path, "wb") as raw:
        if not form.compressed:
            yield raw
            return
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
            yield packed


def write_anndata(
    path: PathLike,
    expression: Mapping[str, pd.DataFrame],
    bulk: pd.DataFrame,
    proportions: pd.DataFrame,
    *,
    proportions_std: pd.DataFrame | None = None,
) -> None:
    """Write expression of all cell types as one AnnData file: samples × genes, a layer per cell type.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.h5ad``.
    expression : Mapping of str to DataFrame of shape (n_samples, n_genes)
        Expression by cell type: the layers. A slash in a name becomes a bar there; ``uns["cell_types"]`` has the
        names as they are. It is asked for one cell type after the other, and holds no more than it has to.
    bulk : DataFrame of shape (n_samples, n_genes)
        The bulk: X.
    proportions : DataFrame of shape (n_samples, n_cell_types)
        Proportions: ``obsm["proportions"]``.
    proportions_std : DataFrame of shape (n_samples, n_cell_types), default=None
        Their standard errors: ``obsm["proportions_std"]``. None writes none.

    Raises
    ------
    OSError
        If the file cannot be written.
    ImportError
        If anndata is not installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import pandas as pd
    >>> from skenigma.io import read_bulk, write_anndata
    >>> bulk = pd.DataFrame([[3.5, 1.0]], index=["donor1"], columns=["CD19", "CD4"])
    >>> proportions = pd.DataFrame({"B cell": [1.0]}, index=["donor1"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "expression.h5ad")
    ...     write_anndata(path, {"B cell": bulk}, bulk, proportions)
    ...     read_bulk(path)
            CD19  CD4
    donor1   3.5  1.0
    """
    check_layers(expression, path)
    tables = {"proportions": proportions, "proportions_std": proportions_std}
    _write_annotation(path, bulk.index, bulk.columns, tables, expression, X=bulk.to_numpy())
    h5py = import_optional("h5py", "anndata", f"Writing {path}")
    # one layer after the other: all of them are as large as the whole result
    with h5py.File(path, "r+") as file:
        for kind in expression:
            write_element(file, f"layers/{layer_name(kind)}", np.asarray(expression[kind]))


def write_anndata_by_blocks(path, build, cell_types, bulk, tables, *, max_bytes):
    """Write what :func:`write_anndata` does, from blocks of samples of all cell types.

    Parameters
    ----------
    path : path-like
    build : callable
        Expression of some samples, ``build(samples=slice, cell_types=names)``, samples × cell types × genes.
    cell_types : list of str
    bulk : DataFrame or LazyMatrix of shape (n_samples, n_genes)
    tables : dict of str to DataFrame or None
        Entries of ``obsm``, samples × cell types.
    max_bytes : int
        About as much as the values of one block may take.
    """
    check_layers(cell_types, path)
    _write_annotation(path, bulk.index, bulk.columns, tables, cell_types)
    h5py = import_optional("h5py", "anndata", f"Writing {path}")
    shape, values = bulk.shape, bulk.to_numpy() if isinstance(bulk, pd.DataFrame) else bulk
    one = build(samples=slice(0, 1), cell_types=cell_types[:1])
    step = max(1, int(max_bytes / (8 * len(cell_types) * max(1, shape[1]))))
    with h5py.File(path, "r+") as file:
        arrays = [_new_array(file, "X", shape, values.dtype)]
        arrays += [_new_array(file, f"layers/{layer_name(kind)}", shape, one.dtype) for kind in cell_types]
        for start in range(0, shape[0], step):
            rows = slice(start, min(start + step, shape[0]))
            block = build(samples=rows, cell_types=cell_types)
            for array, part in zip(arrays, [values[rows], *np.moveaxis(block, 1, 0)], strict=True):
                array[rows] = part


def _new_array(file, name, shape, dtype):
    array = file.create_dataset(name, shape=shape, dtype=dtype)
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return array


def _write_annotation(path, samples, genes, tables, cell_types, X=None):
    """An AnnData without layers."""
    anndata = import_optional("anndata", "anndata", f"Writing {path}")
    adata = anndata.AnnData(
        X=X,
        obs=pd.DataFrame(index=samples),
        var=pd.DataFrame(index=genes),
        obsm={
            name: table.rename(columns=layer_name).rename_axis(None)
            for name, table in tables.items()
            if table is not None
        },
        uns={"cell_types": np.array(list(cell_types), dtype=object)},
    )
    adata.write_h5ad(path)


def write_element(group, name, values):
    """Write an element of an AnnData into a group of HDF5 or Zarr."""
    try:
        from anndata.io import write_elem
    except ImportError:  # before version 0.11
        from anndata.experimental import write_elem
    write_elem(group, name, values)


def check_layers(cell_types, path):
    """Refuse names of cell types that cannot be layers of an AnnData file."""
    if len({layer_name(kind) for kind in cell_types}) < len(cell_types):
        raise ValueError(f"{path}: names of cell types that differ in '/' and '|' only cannot be layers.")
    if places := [kind for kind in cell_types if kind in ("", ".")]:
        raise ValueError(
            f"{path}: '{places[0]}' cannot be a layer. Rename the cell type, or write tables (.tsv)."
        )
