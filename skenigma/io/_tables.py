"""Tables in texts, once their layout is known: the values, and the names of rows and columns."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ..checks.names import listing
from ..checks.numbers import is_written_number
from ._engines import read_numbers
from ._errors import clear_errors
from ._layout import DECIMAL_COMMA, counted, is_decimal_comma

# before version 3, pandas rounds the last digit of a number unless told otherwise; since then it never does
# (nor ends the process at a number such as 3e8123456789012345)
EXACT = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}


def parse(text, layout, *, missing=(), names=()):
    """The table in a text, as a frame with the names of the rows as index, of texts.

    The one place where large texts become numbers.

    Parameters
    ----------
    text : Text
    layout : Layout
    missing : sequence of str
        Cells that stand for no value.
    names : sequence of int
        Positions of fields that are texts whatever stands there.
    """
    if not missing and not names:
        with clear_errors(text):
            numbers = read_numbers(text, layout)
        if numbers is not None:
            return _framed(*numbers, layout)
    taken = [layout.index, *layout.columns]
    # where all are taken, pandas refuses rows that are too long
    chosen = {} if len(taken) == len(layout.names) else {"usecols": sorted(taken)}
    with clear_errors(text), text.open(layout.delimiter) as file:
        for _ in range(layout.skipped):
            file.readline()
        frame = pd.read_csv(
            file,
            sep=layout.delimiter,
            header=None,
            names=range(len(layout.names)),
            skiprows=int(layout.has_header),
            dtype={layout.index: str} | dict.fromkeys(names, str),
            # in a column of names every text is a name, and none is missing
            na_values={i: missing for i in layout.columns if i not in names} if missing else None,
            keep_default_na=False,
            low_memory=False,
            skip_blank_lines=True,
            skipinitialspace=layout.delimiter == " ",
            decimal=layout.decimal,
            **chosen,
            **EXACT,
        )
    index = frame.pop(layout.index).fillna("").to_numpy(dtype=object)
    frame = frame[layout.columns] if list(frame.columns) != layout.columns else frame
    return _framed(index, frame, layout)


def _framed(index, values, layout):
    """A table with the names of its layout."""
    frame = values if isinstance(values, pd.DataFrame) else pd.DataFrame(values, copy=False)
    frame.columns = pd.Index([layout.names[i] for i in layout.columns], dtype=object)
    frame.index = pd.Index(index, name=layout.names[layout.index] or None)
    return frame


def parse_numbers(text, layout, notes, **how):
    """``parse``, with decimal commas also where the beginning of the text has none, and without empty rows."""
    frame = parse(text, layout, **how)
    texts = [i for i, dtype in enumerate(frame.dtypes) if dtype.kind not in "fiub"]
    if texts and layout.decimal == "." and layout.delimiter != "," and not (frame.dtypes == np.float64).any():
        cells = set().union(*(frame.iloc[:, i].astype(str).str.strip() for i in texts[:1000]))
        if is_decimal_comma(text.path, cells) and not cells.difference(filter(_is_number, cells)):
            notes.append("read commas as decimal points")
            frame = parse(text, replace(layout, decimal=","), **how)
    return _without_empty_rows(frame, texts, notes)


def _is_number(cell):
    return is_written_number(cell) or DECIMAL_COMMA.fullmatch(cell) is not None


def _without_empty_rows(frame, texts, notes):
    """The frame without rows that hold delimiters alone, as spreadsheets append them."""
    if not texts or not (frame.index == "").any():
        return frame
    empty = frame.index == ""
    rows = frame.loc[empty]
    empty[empty] = (rows.isna() | (rows == "")).all(axis=1).to_numpy()
    if not empty.any():
        return frame
    notes.append(f"left out {counted(int(empty.sum()), 'empty row')}")
    return frame.loc[~empty]


def refuse_repeated_columns(look, layout, what):
    """Refuse names that two columns have."""
    header = pd.Index([layout.names[i] for i in layout.columns])
    repeated = header[header.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"{look.path} has {what}s named more than once: {listing(list(repeated))}. Rename or drop the "
            f"repeated ones."
        )
