"""Frames and arrays as tables of numbers; columns of text are named."""

import re
from contextlib import contextmanager
from itertools import islice

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array

from .names import Noted, listing
from .numbers import RESCALE, is_convertible, of_objects, quoted, refuse_masked, unconvertible

# As a message quotes an entry.
DECIMAL_COMMA = re.compile(r"'\s*[+-]?\d+,\d+\s*'")


def as_pandas(frame):
    """Other frames with named columns (polars) as pandas, whose names every scikit-learn knows."""
    if isinstance(frame, pd.DataFrame) or not (hasattr(frame, "columns") and hasattr(frame, "to_numpy")):
        return frame
    return pd.DataFrame(frame.to_numpy(), columns=list(frame.columns))


def homogeneous_values(frame):
    """Values of a pandas frame of one NumPy type, dense or sparse, else None.

    scikit-learn looks at the type of every column, which for a frame of genes takes longer than a fit.
    """
    if not isinstance(frame, pd.DataFrame):
        return None
    if not frame.shape[1]:
        return np.empty(frame.shape)
    first = frame.dtypes.iloc[0]
    numpy_type = isinstance(first, (np.dtype, pd.SparseDtype))
    return frame.to_numpy() if numpy_type and np.all(frame.dtypes == first) else None


def check_table(table, what, **checks):
    """``check_array`` of a table, which names columns of text and takes sparse frames."""
    refuse_anndata(table, what)
    refuse_masked(table, what)
    if is_as_asked(table, **checks):
        return table
    values = homogeneous_values(table)
    with text_named(table, what):
        return check_array(table if values is None else values, input_name=what, **checks)


def is_as_asked(table, *, dtype=np.float64, ensure_all_finite=True, ensure_min_samples=1, **others):
    """Whether ``check_array`` with these options would return an array as it is: to ask takes longer than to look."""
    return (
        type(table) is np.ndarray
        and table.ndim == 2
        and table.dtype in (dtype if isinstance(dtype, list) else [dtype])
        and not (ensure_all_finite or others)
        and len(table) >= ensure_min_samples
        and table.shape[1] > 0
    )


@contextmanager
def text_named(frame, what):
    """Name the columns of text where a frame is not a table of numbers."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        message = _text_message(frame, what)
        if message:
            raise ValueError(message) from error
        if isinstance(error, OverflowError):
            raise ValueError(f"{what} holds integers that no float can hold: {error}. {RESCALE}") from error
        raise


def is_anndata(data):
    """Whether something is an AnnData, told by its looks: anndata need not be installed."""
    # not by X, which fails where it is to be read from a file that has none
    return all(hasattr(data, name) for name in ("obs", "var_names", "layers"))


def refuse_anndata(table, what):
    """Refuse an AnnData where a table is needed, which NumPy would take for one object."""
    if is_anndata(table):
        raise ValueError(
            f"{what} is an AnnData: pass a table, {what}.to_df() or {what}.to_df(layer=...), of samples or cell "
            f"types × genes. skenigma.anndata.deconvolve takes AnnData directly."
        )


def _text_message(frame, what):
    """What is no number in a table, and the remedy; nothing if all entries are numbers."""
    frame = as_pandas(frame)
    found = _text_columns(frame)
    if not found:
        return ""
    rows = _text_rows(frame) if len(found) == frame.shape[1] else []
    if rows:
        dropped = ", ".join(repr(str(row.name)) for row in rows)
        return (
            f"{what} has {len(rows)} row(s) that are not numbers: {listing(rows)}. Drop what describes genes: "
            f"{what}.drop(index=[{dropped}]).astype(float)."
        )
    message = f"{what} has {len(found)} column(s) that are not numbers: {listing(found)}. "
    if all(DECIMAL_COMMA.fullmatch(column.note) for column in found):
        return message + "These are decimal commas: read the table with decimal=','."
    if [column.name for column in found] == [frame.columns[0]]:
        message += "Names of rows must stand in the index: read the table with index_col=0. "
    return message + "Drop or convert other columns."


def _text_rows(frame):
    """The rows that hold no number, where all others hold nothing else."""
    first = frame.iloc[:, 0]
    texts = [not is_convertible(entry) for entry in first]
    names = [Noted(first.index[i], quoted(first.iloc[i])) for i in np.flatnonzero(texts)]
    numbers = frame[~np.array(texts, dtype=bool)]
    return names if len(numbers) and not _text_columns(numbers) else []


def _text_columns(frame):
    """Columns of a frame with an entry that is no number."""
    frame = as_pandas(frame)
    if not isinstance(frame, pd.DataFrame):
        return []
    found = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if of_objects(column) and (text := list(islice(unconvertible(column), 1))):
            found.append(Noted(name, quoted(text[0])))
    return found
