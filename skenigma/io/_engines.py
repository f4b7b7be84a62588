"""Large tables of numbers in texts by way of polars, where it is installed: many times faster than pandas.

What polars would take for something else than pandas does is left to pandas: the same numbers are read either way.
The bytes that are written may differ in how exponents are written, so that a run records its writer.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

import numpy as np

from ..checks.optional import import_optional
from . import _formats
from ._formats import CELL_SIZE, LONGEST_LINE

POLARS, PANDAS = "polars", "pandas"
# Numbers of a table from which the time to import polars is made up for.
LARGE = 20_000
CHUNK = 2**22
QUOTE = b'"'

_chosen: ContextVar = ContextVar("writer", default=None)


def available_writer():
    """Name of what writes large tables: polars where it is installed, else pandas."""
    return POLARS if _polars() else PANDAS


@contextmanager
def chosen_writer(name):
    """Have tables written by ``name`` in the block, so that a repeated run has the bytes of the first.

    Raises
    ------
    ImportError
        If it is not installed.
    ValueError
        If there is no such writer.
    """
    if name not in (POLARS, PANDAS):
        raise ValueError(f"There is no writer {name!r} of tables. Known are {POLARS!r} and {PANDAS!r}.")
    if name == POLARS:
        import_optional("polars", "text", "A repeat of this run, whose tables were written by polars,")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def _polars():
    try:
        return import_module("polars")
    except ImportError:
        return None


def write_numbers(frame, file, delimiter, *, header=True, large=False):
    """Write a large table of floats to a binary file; false if it is none, and nothing was written.

    Parameters
    ----------
    frame : DataFrame
        Its index becomes the first column.
    file : binary file
    delimiter : str
    header : bool, default=True
        Whether to write the names of the columns.
    large : bool, default=False
        Whether it is part of a table that is large.
    """
    kinds = set(frame.dtypes)
    if (frame.size < LARGE and not large) or len(kinds) != 1 or kinds.pop() not in (np.float64, np.float32):
        return False
    if _chosen.get() == PANDAS or not (polars := _polars()):
        return False
    names = ["" if frame.index.name is None else frame.index.name, *frame.columns]
    if not _are_plain([*names, *frame.index], delimiter):
        return False
    columns = [polars.Series("names", frame.index.to_numpy(), dtype=polars.String)]
    columns += [polars.Series(str(i), column.to_numpy()) for i, (_, column) in enumerate(frame.items())]
    table = polars.DataFrame(columns).with_columns(polars.selectors.float().fill_nan(None))
    # the header by hand: polars has no columns without a name, nor two of one name
    if header:
        file.write((delimiter.join(names) + "\n").encode())
    table.write_csv(file, include_header=False, separator=delimiter, quote_style="never", null_value="")
    return True


def _are_plain(names, delimiter):
    """Whether names are texts that stand in a table without quotes."""
    if not all(isinstance(name, str) for name in names):
        return False
    return not any(sign in name for name in names for sign in (delimiter, '"', "\r", "\n"))


def read_numbers(text, layout):
    """The table in a large text of plain numbers; None where it is anything else, which is then read by pandas.

    Parameters
    ----------
    text : Text
    layout : Layout

    Returns
    -------
    names : ndarray of str, shape (n_rows,)
    values : ndarray of shape (n_rows, n_columns)
        Columns in the order of the layout.
    """
    if (
        layout.decimal != "."
        or layout.delimiter == " "
        or text.encoding.lower() not in ("utf-8-sig", "utf-8")
    ):
        return None
    content = _body(text, layout)
    if content is None or not (polars := _polars()):
        return None
    values = set(layout.columns)
    types = [polars.Float64 if i in values else polars.String for i in range(len(layout.names))]
    schema = {str(i): kind for i, kind in enumerate(types)}
    try:
        table = polars.read_csv(content, has_header=False, separator=layout.delimiter, schema=schema)
    except (polars.exceptions.PolarsError, UnicodeDecodeError):
        return None  # cells that are no numbers, or rows of another width: pandas says which
    if table.schema != polars.Schema(schema):
        return None
    names = table.get_column(str(layout.index)).fill_null("").to_numpy().astype(object)
    values = table.select(map(str, layout.columns)).to_numpy()
    # an empty cell, or a word such as nan or inf, is for pandas to judge
    return (names, values) if np.isfinite(values.sum()) or np.isfinite(values).all() else None


def _body(text, layout):
    """Bytes of a large text after the header; None if it is small, or no plain table."""
    with text.open_bytes() as file:
        for _ in range(layout.skipped + layout.has_header):
            line = file.readline(LONGEST_LINE)
            if not line.endswith(b"\n") or QUOTE in line or b"\r" in line.rstrip(b"\r\n"):
                return None
        chunks, needed, free = [], 0, _formats.available_memory()
        delimiter = layout.delimiter.encode()
        while chunk := file.read(CHUNK):
            chunks.append(chunk)
            needed += len(chunk) + CELL_SIZE * chunk.count(delimiter)
            if b"\0" in chunk or (free is not None and needed > free):
                return None
    content = b"".join(chunks)
    plain = QUOTE not in content and content.count(b"\r") == content.count(b"\r\n") and _has_lines(content)
    return content if needed > LARGE * CELL_SIZE and plain else None


def _has_lines(content):
    """Whether no line is longer than can be meant."""
    position = 0
    while len(content) - position > LONGEST_LINE:
        position = content.rfind(b"\n", position, position + LONGEST_LINE) + 1
        if not position:
            return False
    return True
