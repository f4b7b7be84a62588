"""Tables in texts, once their layout is known: the values, and the names of rows and columns."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd

from ..checks.names import listing
from ..checks.numbers import is_written_number
from ._engines import read_numbers
from ._errors import clear_errors
from ._formats import NUMBER_SIZE
from ._layout import DECIMAL_COMMA, counted, is_decimal_comma
from ._turned import TurnedTable

# Characters that pandas reads at a time; or more, for so many rows: beginning a column takes as long as a few hundred
# numbers, of about so many characters.
PART, FEWEST_ROWS, NUMBER_LENGTH = 2**22, 150, 12
# before version 3, pandas rounds the last digit of a number unless told otherwise; since then it never does
# (nor ends the process at a number such as 3e8123456789012345)
EXACT = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}


def parse(text, layout, *, missing=(), names=()):
    """The table in a text, as a frame with the names of the rows as index, of texts.

    The one place where large texts become numbers: by blocks of rows, so that neither the text nor the table is held
    twice.

    Parameters
    ----------
    text : Text
    layout : Layout
    missing : sequence of str
        Cells that stand for no value.
    names : sequence of int
        Positions of fields that are texts whatever stands there.
    """
    with clear_errors(text):
        numbers = None
        if layout.columns and not missing and not names:
            numbers = read_numbers(text, layout) or _read_by_parts(text, layout)
        if numbers is not None:
            return _framed(*numbers, layout)
        with text.open(layout.delimiter) as file:
            for _ in range(layout.skipped):
                file.readline()
            return _framed(*_read(file, layout, missing, names, skiprows=int(layout.has_header)), layout)


def _read(file, layout, missing=(), names=(), skiprows=0):
    """Names of the rows, and the other columns, of a text that is read by pandas."""
    taken = [layout.index, *layout.columns]
    # where all are taken, pandas refuses rows that are too long
    chosen = {} if len(taken) == len(layout.names) else {"usecols": sorted(taken)}
    frame = pd.read_csv(
        file,
        sep=layout.delimiter,
        header=None,
        names=range(len(layout.names)),
        skiprows=skiprows,
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
    return index, frame[layout.columns] if list(frame.columns) != layout.columns else frame


def _read_by_parts(text, layout):
    """Names and numbers of a large table, whose text is never held as a whole; None where it is anything else.

    A column is of numbers where each part of it is, and these are the same.
    """
    size = max(PART, FEWEST_ROWS * NUMBER_LENGTH * len(layout.names))
    # pandas takes a first row of any length: this one is as long as it has to be, and left out
    first = f"{layout.delimiter.join('0' for _ in layout.names)}\n".encode()
    names, table = [], TurnedTable(len(layout.columns))
    try:
        with text.open(layout.delimiter, cell_size=NUMBER_SIZE) as file:
            if any('"' in file.readline() for _ in range(layout.skipped + layout.has_header)):
                return None
            while part := file.read(size):
                part += file.readline()
                # a small text is as well read at once, and a text in quotes can go on in the next line
                if '"' in part or (len(part) < size and not names):
                    return None
                index, frame = _read(io.BytesIO(first + part.encode()), layout)
                if any(dtype.kind not in "fiu" for dtype in frame.dtypes):
                    return None
                names.append(index[1:])
                table.append(frame.to_numpy(dtype=np.float64)[1:])
    # what is wrong is said by who reads the whole, and knows the line
    except (pd.errors.ParserError, UnicodeDecodeError):
        return None
    return np.concatenate(names), table.finish()


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
