"""Readers: a file → a DataFrame with samples (or cell types) as rows; what cannot be meant is refused by name."""

import csv
import gzip
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype

from ..checks.names import SHOWN, listing
from ..checks.numbers import Cell, is_written_number, written_numbers
from ..checks.optional import import_optional
from ._checksums import check_file, unchanged_input
from ._formats import NAMES, file_format, layer_name, open_text, rows_of

# the first column while a text is read: no column of a file has this name
INDEX = "\0"
# before version 3, pandas rounds the last digit of a number unless told otherwise; since then it never does
# (nor ends the process at a number such as 3e8123456789012345)
EXACT = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}
# how a run writes that there is no number
NOT_A_NUMBER = ("", "nan")
# what a table of the samples has where a value is missing
MISSING = (
    "",
    "NA",
    "N/A",
    "n/a",
    "<NA>",
    "#N/A",
    "#NA",
    "NaN",
    "nan",
    "-NaN",
    "-nan",
    "NULL",
    "null",
    "None",
)


def read_bulk(path, *, rows="genes"):
    r"""Read bulk expression, as samples × genes.

    Parameters
    ----------
    path : str or path-like
        Table with delimiters (``.tsv``, ``.txt``, ``.tab``, ``.csv``; also ``.gz``) or ``.parquet``, genes × samples
        with the genes' names in the first column; or ``.h5ad``, samples × genes as AnnData has it.
    rows : {"genes", "samples"}, default="genes"
        What the rows of a table are. Of no effect on ``.h5ad``.

    Returns
    -------
    bulk : DataFrame of shape (n_samples, n_genes)
        Of float64, or float32 if the file says so.

    Raises
    ------
    ValueError
        If the file is no such table, or names a sample or gene twice; the message names the first offenders.
    OSError
        If the file cannot be read.
    ImportError
        If its format needs a package that is not installed.
    MemoryError
        If the table does not fit into the memory that is available.

    Notes
    -----
    Names are read as they stand, whatever they could mean: a sample can be named NA. Spaces around them go. A text
    with NUL characters is refused, and one with a line of more than 67 million characters.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_bulk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "bulk.tsv")
    ...     _ = path.write_text("gene\tdonor1\tdonor2\nCD19\t3.5\t0\nCD4\t1\t2\n")
    ...     read_bulk(path)
            CD19  CD4
    donor1   3.5  1.0
    donor2   0.0  2.0
    """
    return _expression(path, turned=rows == "genes", what="sample")


def read_reference(path, *, rows="genes"):
    r"""Read reference profiles, as cell types × genes.

    Parameters
    ----------
    path : str or path-like
        Table with delimiters or ``.parquet``, genes × cell types with the genes' names in the first column; or
        ``.h5ad`` with one row per cell type. Formats as for :func:`read_bulk`.
    rows : {"genes", "cell types"}, default="genes"
        What the rows of a table are. Of no effect on ``.h5ad``.

    Returns
    -------
    reference : DataFrame of shape (n_cell_types, n_genes)
        Of float64, or float32 if the file says so.

    Raises
    ------
    ValueError
        If the file is no such table, or names a cell type or gene twice; the message names the first offenders.
    OSError
        If the file cannot be read.
    ImportError
        If its format needs a package that is not installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_reference
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "reference.csv")
    ...     _ = path.write_text("gene,B cell,T cell\nCD19,9,0\nCD4,0,7\n")
    ...     read_reference(path)
            CD19  CD4
    B cell   9.0  0.0
    T cell   0.0  7.0
    """
    return _expression(path, turned=rows == "genes", what="cell type")


def read_proportions(path):
    r"""Read proportions, as samples × cell types.

    Parameters
    ----------
    path : str or path-like
        Table of samples × cell types with the samples' names in the first column; formats as for
        :func:`read_bulk`.

    Returns
    -------
    proportions : DataFrame of shape (n_samples, n_cell_types)
        As they are in the file.

    Raises
    ------
    ValueError
        If the file is no such table, or names a sample or cell type twice.
    OSError
        If the file cannot be read.
    ImportError
        If its format needs a package that is not installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_proportions
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "proportions.tsv")
    ...     _ = path.write_text("sample\tB cell\tT cell\ndonor1\t0.25\t0.75\n")
    ...     read_proportions(path)
            B cell  T cell
    donor1    0.25    0.75
    """
    frame = _numbers(_read_frame(path, columns="cell type"), path)
    _refuse_repeats(frame.index, path, "sample")
    return frame


def read_phenotype(path, *, groups=()):
    r"""Read what is known of the samples: one row per sample, one column per variable.

    Parameters
    ----------
    path : str or path-like
        Table with the samples' names in the first column (``.h5ad``: its ``obs``); formats as for :func:`read_bulk`.
    groups : sequence of str, default=()
        Texts that are names of groups here, although elsewhere they mean a missing value: "NA" for North America.

    Returns
    -------
    phenotype : DataFrame of shape (n_samples, n_variables)
        Numbers where a column holds nothing else; missing values are NaN. Missing is what is empty, or NA, N/A, NaN,
        NULL or None in the ways these are written; names of samples and of variables are never missing.

    Raises
    ------
    ValueError
        If the file is no such table, or names a sample or variable twice.
    OSError
        If the file cannot be read.
    ImportError
        If its format needs a package that is not installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_phenotype
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "phenotype.tsv")
    ...     _ = path.write_text("sample\tgroup\tage\ndonor1\tcase\t61\ndonor2\tcontrol\t47\n")
    ...     read_phenotype(path)
              group  age
    donor1     case   61
    donor2  control   47
    """
    if file_format(path).kind == "h5ad":
        frame = _named(_read_anndata(path).obs, path)
    else:
        frame = _read_frame(
            path, columns="variable", missing=tuple(word for word in MISSING if word not in groups)
        )
    _refuse_repeats(frame.index, path, "sample")
    return frame


def read_cells(path):
    """Read annotated single cells.

    Parameters
    ----------
    path : str or path-like
        An AnnData file, ``.h5ad``, cells × genes.

    Returns
    -------
    cells : AnnData
        As it is in the file; for :func:`~skenigma.reference.make_reference`.

    Raises
    ------
    ValueError
        If the file is no AnnData.
    OSError
        If the file cannot be read.
    ImportError
        If anndata is not installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import anndata
    >>> import numpy as np
    >>> from skenigma.io import read_cells
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "cells.h5ad")
    ...     anndata.AnnData(np.eye(3)).write_h5ad(path)
    ...     read_cells(path).shape
    (3, 3)
    """
    if file_format(path).kind != "h5ad":
        raise ValueError(f"{path} is no AnnData: annotated cells are read from .h5ad.")
    return _read_anndata(path)


def read_layers(path):
    """Expression by cell type from the layers of an AnnData file, as DataFrames samples × genes."""
    adata = _read_anndata(path)
    return {kind: adata.to_df(layer=layer_name(kind)) for kind in adata.uns["cell_types"]}


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
    frame = _read_text(Path(path), file_format(path), "variable", NOT_A_NUMBER, names)
    frame = _named(frame, path).rename_axis(frame.index.name)
    return frame.fillna({name: "" for name in frame.select_dtypes(exclude="number")})


def check_orientation(bulk, reference):
    """Refuse a bulk or a reference that is turned the wrong way round, by the genes that they share.

    Parameters
    ----------
    bulk : DataFrame of shape (n_samples, n_genes)
        As :func:`read_bulk` returns it.
    reference : DataFrame of shape (n_cell_types, n_genes)
        As :func:`read_reference` returns it.

    Returns
    -------
    genes : Index
        Names of the genes that both have, in the order of the bulk.

    Raises
    ------
    ValueError
        If more names are shared along another axis, or none at all.

    Examples
    --------
    >>> import pandas as pd
    >>> from skenigma.io import check_orientation
    >>> bulk = pd.DataFrame([[1.0, 2.0]], index=["donor1"], columns=["CD19", "CD4"])
    >>> reference = pd.DataFrame([[9.0, 0.0]], index=["B cell"], columns=["CD4", "CD8A"])
    >>> check_orientation(bulk, reference).tolist()
    ['CD4']
    >>> check_orientation(bulk.T, reference)
    Traceback (most recent call last):
        ...
    ValueError: The bulk is turned the wrong way round: 1 of its samples ('CD4') are genes of the reference...
    """
    shared = bulk.columns.intersection(reference.columns, sort=False)
    turned = {
        ("bulk",): bulk.index.intersection(reference.columns, sort=False),
        ("reference",): bulk.columns.intersection(reference.index, sort=False),
        ("bulk", "reference"): bulk.index.intersection(reference.index, sort=False),
    }
    wrong, names = max(turned.items(), key=lambda item: len(item[1]))
    if len(names) > len(shared):
        raise ValueError(_turned_message(wrong, names))
    if not len(shared):
        raise ValueError(
            f"Bulk and reference share no gene: the bulk has {listing(bulk.columns)}; the reference has "
            f"{listing(reference.columns)}. Use the same kind of gene identifier in both."
        )
    return shared


def _turned_message(wrong, names):
    first = f"{len(names)} of its {{}} ({listing(names)}) are genes of the {{}}"
    found = {
        ("bulk",): "The bulk is turned the wrong way round: " + first.format("samples", "reference"),
        ("reference",): "The reference is turned the wrong way round: " + first.format("cell types", "bulk"),
        (
            "bulk",
            "reference",
        ): f"Bulk and reference are both turned the wrong way round: they share {len(names)} "
        f"names of samples and cell types ({listing(names)}), and no more genes",
    }[wrong]
    options = {"bulk": "--bulk-rows samples", "reference": "--reference-rows cell-types"}
    return (
        f"{found}. Tables are read as genes × samples and genes × cell types, AnnData the other way round. Turn it, "
        f"or say so: {' '.join(options[side] for side in wrong)}."
    )


def _expression(path, turned, what):
    """A table of expression with genes as columns."""
    frame = _numbers(_read_frame(path, columns=what if turned else "gene"), path)
    if turned and file_format(path).kind != "h5ad":
        frame = frame.T
    _refuse_repeats(frame.index, path, what)
    _refuse_repeats(frame.columns, path, "gene")
    return frame


def _read_frame(path, columns, missing=()):
    """The table in a file, with its first column as index; ``columns`` says what the others are."""
    check_file(path)
    path, form = Path(path), file_format(path)
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty.")
    if form.kind == "h5ad":
        frame = _read_anndata(path).to_df()
    elif form.kind == "parquet":
        frame = _read_parquet(path)
    else:
        frame = _read_text(path, form, columns, missing)
    if not frame.size:
        raise ValueError(f"{path} holds no values: {frame.shape[0]} rows and {frame.shape[1]} columns.")
    return _named(frame, path)


def _named(frame, path):
    """The frame with names that are strings, without the spaces around them that a table does not show."""
    if frame.index.hasnans or frame.columns.hasnans:
        raise ValueError(f"{path} has a row or column without a name: give each one.")
    names = {axis: [str(name).strip() for name in frame.axes[axis]] for axis in (0, 1)}
    ended = [name.replace("\0", "\\0") for axis in names.values() for name in axis if "\0" in name]
    if ended:
        raise ValueError(f"{path} has names with NUL characters: {listing(ended)}. Remove these characters.")
    return frame.set_axis(pd.Index(names[0], dtype=object)).set_axis(pd.Index(names[1], dtype=object), axis=1)


@unchanged_input
def _read_anndata(path):
    """The AnnData in a file."""
    anndata = import_optional("anndata", "anndata", f"Reading {path}")
    try:
        return anndata.read_h5ad(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except Exception as error:  # h5py and anndata raise many kinds for a file that is not theirs
        raise ValueError(f"{path} cannot be read as AnnData: {error}") from error


@unchanged_input
def _read_parquet(path):
    """The table in a Parquet file; its index is the pandas index, else the first column."""
    import_optional("pyarrow.parquet", "cli", f"Reading {path}")
    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    if isinstance(frame.index, pd.RangeIndex) and frame.shape[1]:
        frame = frame.set_index(frame.columns[0])
    return frame.rename_axis(None)


def _read_text(path, form, columns, missing=(), text=()):
    """The table in a text; ``missing`` are the cells that stand for no value, ``text`` the columns of names."""
    try:
        corner, header = _header(path, form, columns)
        with open_text(path, form) as file:
            frame = pd.read_csv(
                file,
                sep=form.delimiter,
                header=None,
                names=header,
                skiprows=1,
                dtype={INDEX: str} | {name: str for name in text if name in header},
                # in a column of names every text is a name, and none is missing
                na_values={name: missing for name in header[1:] if name not in text} if missing else None,
                keep_default_na=False,
                low_memory=False,
                skip_blank_lines=True,
                **EXACT,
            )
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error
    except (pd.errors.ParserError, csv.Error) as error:
        raise ValueError(f"{path} is no regular table: {str(error).strip()}") from error
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} holds a header and no rows.") from None
    index = frame.pop(INDEX).fillna("").to_numpy(dtype=object)
    return frame.set_axis(pd.Index(index, name=corner), axis=0)


def _header(path, form, columns):
    """What stands in the corner, and names for the columns, the first of which is the index.

    A header that is one field shorter than the rows is R's way of writing: the names of the rows have none.
    """
    with open_text(path, form) as file:
        lines = rows_of(file, form)
        header, first = next(lines, []), next(lines, [])
    if len(header) < 2 and len(first) < 2:
        raise ValueError(_one_column(path, form.delimiter, "".join(header)))
    if len(header) == len(first) - 1:
        header = ["", *header]
    if first and len(first) != len(header):
        raise ValueError(
            f"{path} is no regular table: its header has {len(header)} fields and its first row {len(first)}."
        )
    header = [name.strip() for name in header]
    _refuse_repeats(pd.Index(header[1:]), path, columns)
    return header[0], [INDEX, *header[1:]]


def _one_column(path, delimiter, line):
    message = f"{path} has one column only when split at {NAMES[delimiter]}"
    others = [other for other in NAMES if other != delimiter and other in line]
    if not others:
        return f"{message}: a table needs names and values."
    other = max(others, key=line.count)
    remedy = {
        ",": "let its name end in .csv",
        "\t": "let its name end in .tsv",
    }.get(other, "write it with tabs (.tsv) or commas (.csv)")
    return f"{message}; its header seems to be split at {NAMES[other]}: {remedy}."


def _numbers(frame, path):
    """The frame as floats; a ValueError names the first cells that are none."""
    for position in np.flatnonzero([not _is_number(dtype) for dtype in frame.dtypes]):
        # pandas leaves integers beyond 64 bits as they are written
        numbers = written_numbers(frame.iloc[:, position])
        if numbers is None:
            raise ValueError(_not_numbers(frame, path))
        frame = frame.copy(deep=False)
        frame.isetitem(position, numbers)
    single = all(dtype == np.float32 for dtype in frame.dtypes)
    return frame.astype(np.float32 if single else np.float64)


def _is_number(dtype):
    return isinstance(dtype, np.dtype) and dtype.kind in "fiu"


def _not_numbers(frame, path):
    """Message on columns that hold more than numbers."""
    wrong = frame.loc[:, [not _is_number(dtype) for dtype in frame.dtypes]]
    if all(map(is_bool_dtype, wrong.dtypes)):
        return (
            f"{path}: the values of column {listing(wrong.columns)} are {wrong.dtypes.iloc[0]}, not numbers."
        )
    written = np.column_stack([column.map(is_written_number) for _, column in wrong.items()]).astype(bool)
    found = np.argwhere(~written)
    shown = [Cell(wrong.iat[i, j], wrong.index[i], wrong.columns[j]) for i, j in found[:SHOWN]]
    message = f"{path} holds {len(found)} cell(s) that are not numbers: {listing(shown, total=len(found))}."
    if not written.any(axis=0).all():
        return f"{message} Remove columns of annotation; only names (first column) and values belong here."
    return f"{message} Impute or drop missing values first."


def _refuse_repeats(names, path, what):
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        remedy = "Sum, average or drop" if what == "gene" else "Rename or drop"
        raise ValueError(
            f"{path} has {what}s named more than once: {listing(list(repeated))}. {remedy} the repeated ones."
        )
