"""Frames and arrays as tables of numbers; columns of text are named."""

from contextlib import contextmanager
from itertools import islice

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array

from .names import Noted, listing
from .numbers import RESCALE, of_objects, quoted, refuse_masked, unconvertible


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
    refuse_masked(table, what)
    values = homogeneous_values(table)
    with text_named(table, what):
        return check_array(table if values is None else values, input_name=what, **checks)


@contextmanager
def text_named(frame, what):
    """Name the columns of text where a frame is no table of numbers."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        text = _text_columns(frame)
        if text:
            raise ValueError(
                f"{what} has {len(text)} column(s) that are not numbers: {listing(text)}. Names of rows must stand "
                f"in the index: read the table with index_col=0. Drop or convert other columns."
            ) from error
        if isinstance(error, OverflowError):
            raise ValueError(f"{what} holds integers that no float can hold: {error}. {RESCALE}") from error
        raise


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
