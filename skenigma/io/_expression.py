"""Expression from any file: what holds no expression is left out and said, what is doubtful is refused by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype
from scipy import sparse

from ..checks.annotation import annotation_columns
from ..checks.entries import check_finite
from ..checks.names import SHOWN, listing
from ..checks.numbers import Cell, is_written_number, written_numbers
from ..checks.optional import import_optional
from ._anndata import expression_of, mtx_files, read_10x_folder, read_annotated
from ._checksums import check_file, unchanged_input
from ._excel import sheet_text
from ._folders import find_outputs, given_outputs
from ._formats import Text
from ._kinds import find_kind
from ._layout import is_corner
from ._portals import look_at_expression, table_of
from ._quantifiers import SUMMARIES, Output, find_output, read_outputs
from ._stores import check_complete, is_store, read_store
from ._tables import parse_numbers, refuse_repeated_columns

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
# What Excel writes in place of a value that a formula does not have.
EXCEL_ERRORS = ("#VALUE!", "#REF!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#N/A")


def read_expression(source, choices, what, notes):
    """Expression as a frame with ``what`` as rows and genes as columns.

    Parameters
    ----------
    source : str, path-like, or sequence of these
        A file, a folder, or several files of a quantifier.
    choices : Choices
    what : {"sample", "cell type"}
        What is not a gene.
    notes : list of str
        Takes a line for everything that was done besides reading.
    """
    if not isinstance(source, (str, Path)) and not hasattr(source, "__fspath__"):
        outputs = given_outputs(source)
        return _turned(read_outputs(outputs, choices, notes), outputs[0].path, choices, what, notes)
    path = Path(source)
    check_complete(path)
    if path.is_dir():
        return _from_folder(path, choices, what, notes)
    check_file(path)
    kind = find_kind(path)
    if kind.name in ("h5ad", "10x", "loom"):
        return _from_annotated(read_annotated(path, kind, notes), path, choices, what, notes)
    if kind.name == "parquet":
        choices.refuse(path, "a table in Parquet", "layer", "quantity", "strandedness")
        return _from_table(_parquet_expression(path, choices, notes), path, choices, what, notes)
    text = sheet_text(path, notes) if kind.name == "xlsx" else Text(path, kind.packing, kind.encoding)
    return _from_text(text, choices, what, notes)


def _from_folder(path, choices, what, notes):
    if is_store(path):
        return _from_annotated(read_store(path), path, choices, what, notes)
    if mtx_files(path) is not None:
        return _from_annotated(read_10x_folder(path, notes), path, choices, what, notes)
    outputs = find_outputs(path, notes)
    return _turned(read_outputs(outputs, choices, notes), path, choices, what, notes)


def _from_annotated(data, path, choices, what, notes):
    choices.refuse(path, "a matrix with annotation", "quantity", "strandedness")
    frame = named(to_numbers(expression_of(data, path, choices, notes), path), path)
    return _finished(frame, path, choices, what, notes)


def _from_text(text, choices, what, notes):
    choices.refuse(text.path, "a table", "layer")
    # before it counts as a plain table: columns of a quantifier are no samples
    look = look_at_expression(text)
    output = find_output(look)
    if output is not None:
        return _turned(
            read_outputs([Output(look, output.tool)], choices, notes), text.path, choices, what, notes
        )
    table = table_of(look, choices, notes)
    layout = _named_by_column(table.layout, text.path, choices, notes)
    # repeated genes are merged below where that is asked for, repeated samples never
    if choices.rows == "genes" or choices.duplicates == "refuse":
        refuse_repeated_columns(look, layout, "gene" if choices.rows != "genes" else what)
    frame = parse_numbers(text, layout, notes)
    if table.end is not None and len(frame) and frame.index[-1] == table.end:
        frame = frame.iloc[:-1]
    if table.rows is not None and table.rows != len(frame):
        raise ValueError(
            f"{text.path} says that it has {table.rows:,} genes, but holds {len(frame):,}: it is "
            f"damaged or truncated."
        )
    return _from_table(frame, text.path, choices, what, notes, unnamed=table.unnamed)


def _from_table(frame, path, choices, what, notes, unnamed=False):
    """Expression in a table whose index is its first column."""
    frame = not_empty(frame, path)
    if choices.rows != "genes":
        return _finished(to_numbers(frame, path), path, choices, what, notes)
    frame = _without_annotation(_without_summaries(frame, notes), path, notes)
    if unnamed or (frame.index == "").sum() > 1:
        frame = _without_unnamed(frame, notes)
    return _turned(to_numbers(frame, path), path, choices, what, notes)


def _named_by_column(layout, path, choices, notes):
    """The layout of a text with the names of genes from the column that was asked for."""
    if choices.gene_column is None or choices.gene_column == layout.names[layout.index]:
        return layout
    _refuse_gene_column(layout.names, path, choices)
    index = layout.names.index(choices.gene_column)
    notes.append(f"took the names of genes from column '{choices.gene_column}', instead of the first column")
    return replace(layout, index=index, columns=[i for i in layout.columns if i != index])


def _by_column(frame, path, choices, notes):
    """A frame with the names of genes from the column that was asked for."""
    name = choices.gene_column
    if name == frame.index.name:
        return frame
    _refuse_gene_column(list(frame.columns), path, choices)
    notes.append(f"took the names of genes from column '{name}', instead of the index")
    return frame.set_index(frame[name].astype(object).where(frame[name].notna(), "")).drop(columns=name)


def _refuse_gene_column(columns, path, choices):
    if choices.rows != "genes":
        raise ValueError(f"{path}: a gene column needs genes as rows; these are {choices.rows}.")
    if choices.gene_column not in columns:
        raise ValueError(f"{path} has no column '{choices.gene_column}'; it has {listing([*columns])}.")


def _without_summaries(frame, notes):
    summaries = frame.index.isin(SUMMARIES)
    if not summaries.any():
        return frame
    notes.append(f"left out rows that are not genes: {listing(list(frame.index[summaries]))}")
    return frame.loc[~summaries]


def _without_annotation(frame, path, notes):
    """The frame without columns that describe genes."""
    found = {str(note.name): note for note in annotation_columns(frame)}
    for name, column in frame.items():
        if str(name) not in found and _is_description(column):
            found[str(name)] = name
    if not found:
        return frame
    if len(found) == frame.shape[1]:
        raise ValueError(
            f"{path} has no column of expression: all seem to describe genes, {listing(list(found.values()))}. "
            f"Rename those that do not."
        )
    notes.append(f"left out columns that describe genes: {listing(list(found.values()), shown=10)}")
    return frame.drop(columns=list(found))


def _is_description(column):
    """Whether a column holds no number, and texts that do not stand for a missing one."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        return False
    entries = [entry for entry in column if not (entry is None or entry != entry)]
    others = [entry for entry in entries if isinstance(entry, str) and entry not in MISSING + EXCEL_ERRORS]
    return len(others) > len(entries) / 2 and not any(map(is_written_number, entries))


def _without_unnamed(frame, notes):
    unnamed = frame.index == ""
    if not unnamed.any():
        return frame
    notes.append(f"left out {int(unnamed.sum()):,} genes without a name")
    return frame.loc[~unnamed]


def _turned(frame, path, choices, what, notes):
    """Genes × samples as samples × genes."""
    frame = named(to_numbers(frame, path), path)
    return _finished(_merged(frame, path, choices.duplicates, notes).T, path, choices, what, notes)


def _finished(frame, path, choices, what, notes):
    """Names and values checked, repeated genes made one."""
    refuse_repeats(frame.index, path, what)
    if np.isnan(frame.to_numpy().min()):
        check_finite(frame.to_numpy(), str(path), list(frame.index), list(frame.columns))
    if frame.columns.has_duplicates:
        frame = _merged(frame.T, path, choices.duplicates, notes).T
    return frame


def _merged(frame, path, duplicates, notes):
    """Genes × samples, with one row for each gene."""
    names = frame.index
    if not names.has_duplicates:
        return frame
    repeated = list(names[names.duplicated()].unique())
    if duplicates == "refuse":
        raise ValueError(
            f"{path} has {len(repeated)} of {names.nunique():,} genes named more than once: {listing(repeated)}. "
            f"Sum the repeated ones (duplicates 'sum'), right for counts, CPM and TPM, keep the largest of each "
            f"('largest'), or average or drop them."
        )
    several = names.duplicated(keep=False)
    values = frame.to_numpy()
    if duplicates == "sum" and (values[several] < 0).any():
        raise ValueError(
            f"{path} has negative values, which do not add up: choose 'largest' for repeated genes."
        )
    codes, unique = pd.factorize(names)
    if duplicates == "sum":
        # a sparse product, which sums in the order of the file and needs no sorted copy
        ones = np.ones(len(codes), dtype=values.dtype)
        merged = sparse.csr_matrix((ones, (codes, np.arange(len(codes)))), (len(unique), len(codes))) @ values
    else:
        # of rows with one mean the first: the result does not depend on the sort
        order = np.lexsort((np.arange(len(names)), -values.mean(axis=1), codes))
        first = order[np.unique(codes[order], return_index=True)[1]]
        merged = values[first]
    how = "summed" if duplicates == "sum" else "kept the row of the largest mean of"
    notes.append(f"{how} {len(repeated):,} genes named more than once: {listing(repeated)}")
    return pd.DataFrame(merged, index=unique, columns=frame.columns)


@unchanged_input
def read_parquet(path, columns=None):
    """The frame in a Parquet file, or some of its columns."""
    import_optional("pyarrow.parquet", "cli", f"Reading {path}")
    try:
        return pd.read_parquet(path, engine="pyarrow", columns=columns)
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def _parquet_expression(path, choices, notes):
    """Expression in Parquet: its index is the one of pandas, or a column of names."""
    frame = read_parquet(path)
    if choices.gene_column is not None:
        return _by_column(frame, path, choices, notes)
    if not isinstance(frame.index, pd.RangeIndex) or not frame.shape[1]:
        return frame
    first = frame.columns[0]
    texts = [
        name for name in frame if not is_numeric_dtype(frame[name].dtype) and _is_description(frame[name])
    ]
    if first in texts or (is_corner(str(first)) and not is_float_dtype(frame[first].dtype)):
        return frame.set_index(first)
    if len(texts) == 1:
        notes.append(f"took the names of rows from column '{texts[0]}'")
        return frame.set_index(texts[0])
    raise ValueError(
        f"{path} does not say what its rows are: its index is a range, its first column, '{first}', holds "
        f"numbers, and {'no column holds' if not texts else 'several columns hold'} texts. Write it with the names "
        f"as index, of texts, or as first column."
    )


def named(frame, path):
    """The frame with names that are strings, without the spaces around them that a table does not show."""
    if frame.index.hasnans or frame.columns.hasnans:
        raise ValueError(f"{path} has a row or column without a name: give each one.")
    # spaces cannot be seen, and would keep names from matching
    names = {axis: [str(name).strip() for name in frame.axes[axis]] for axis in (0, 1)}
    ended = [name.replace("\0", "\\0") for axis in names.values() for name in axis if "\0" in name]
    if ended:
        raise ValueError(f"{path} has names with NUL characters: {listing(ended)}. Remove these characters.")
    # set_axis copies the values in pandas before 3.0
    frame = frame.copy(deep=False)
    frame.index, frame.columns = (pd.Index(names[axis], dtype=object) for axis in (0, 1))
    return frame


def not_empty(frame, path):
    """The frame with names that are strings; a ValueError if it holds nothing."""
    if not frame.size:
        raise ValueError(f"{path} holds no values: {frame.shape[0]} rows and {frame.shape[1]} columns.")
    return named(frame, path)


def to_numbers(frame, path):
    """The frame as floats; a ValueError names the first cells that are none."""
    for position in np.flatnonzero([not _is_number(dtype) for dtype in frame.dtypes]):
        # pandas leaves integers beyond 64 bits as they are written
        numbers = written_numbers(frame.iloc[:, position])
        if numbers is None:
            raise ValueError(_not_numbers(frame, path))
        frame = frame.copy(deep=False)
        frame.isetitem(position, numbers)
    # double precision only where something came with more than single
    single = all(dtype == np.float32 for dtype in frame.dtypes)
    target = np.float32 if single else np.float64
    return frame if (frame.dtypes == target).all() else frame.astype(target)


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
    return f"{message} {_remedy([wrong.iat[i, j] for i, j in found])}"


def _remedy(entries):
    """What to do about cells among numbers that are none."""
    texts = {entry.strip() for entry in entries if isinstance(entry, str)}
    if errors := sorted(texts.intersection(EXCEL_ERRORS)):
        return f"{', '.join(errors)} are errors of Excel formulas: correct them there, or enter the values again."
    if texts <= set(MISSING):
        return "Impute or drop missing values first."
    return "Correct these cells, or drop their rows or columns."


def refuse_repeats(names, path, what):
    """Refuse names that stand more than once."""
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"{path} has {what}s named more than once: {listing(list(repeated))}. Rename or drop the repeated ones."
        )
