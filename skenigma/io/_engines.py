"""Large tables of numbers in texts by way of polars, where it is installed: many times faster than pandas.

What polars would take for something else than pandas does is left to pandas: the same numbers are read either way.
The bytes that are written may differ in how exponents are written, so that a run records its writer.
"""

from codecs import BOM_UTF8 as BOM
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

import numpy as np

from ..checks.optional import import_optional
from . import _formats
from ._formats import LONGEST_LINE, NUMBER_SIZE
from ._turned import TurnedTable

POLARS, PANDAS = "polars", "pandas"
# Numbers of a table from which the time to import polars is made up for.
LARGE = 20_000
# Bytes of a text that are held at a time.
CHUNK = 2**20
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
    try:
        together = "".join(names)
    except TypeError:  # one is no text
        return False
    return not any(sign in together for sign in (delimiter, '"', "\r", "\n"))


class _NotPlain(Exception):  # noqa: N818, nothing is wrong with it
    """A text is no large table of plain numbers."""


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
        Columns in the order of the layout, each of which lies together in memory.
    """
    try:
        return _read_plain(text, layout)
    except (_NotPlain, UnicodeDecodeError):
        return None


def _read_plain(text, layout):
    rows, free = _Rows(layout), _formats.available_memory()
    if layout.decimal != "." or text.encoding.lower() not in ("utf-8-sig", "utf-8"):
        raise _NotPlain
    names, table, polars = [], TurnedTable(rows.width), None
    with text.open_bytes() as file:
        _pass_header(file, layout)
        for block in _blocks(file):
            some, cells = rows.split(block)
            if polars is None and (len(some) * rows.width <= LARGE or not (polars := _polars())):
                raise _NotPlain
            names += some
            if free is not None and NUMBER_SIZE * len(names) * rows.width > free:
                raise _NotPlain
            values = _numbers(cells, layout.delimiter, polars)
            if values.size != len(some) * rows.width:
                raise _NotPlain
            table.append(values.reshape(-1, rows.width))
    return np.array(names, dtype=object), table.finish()


class _Rows:
    """Rows of bytes, cut into names and numbers.

    The numbers of a block are handed on as one column: to begin a column takes polars as long as to read hundreds of
    numbers, and there can be thousands of columns.
    """

    def __init__(self, layout):
        self.width, self._index = len(layout.columns), layout.index
        self._before = layout.columns[0]
        self._behind = len(layout.names) - self._before - self.width
        self._delimiter, self._count = layout.delimiter.encode(), len(layout.names) - 1
        together = layout.columns == list(range(self._before, self._before + self.width))
        if layout.delimiter == " " or not together or self._index >= self._before:
            raise _NotPlain

    def split(self, block):
        """Names, and all numbers, each on a line of its own."""
        lines = block.removesuffix(b"\n").split(b"\n")
        if max(map(len, lines)) > LONGEST_LINE or np.any(self._counts(block, len(lines)) != self._count):
            raise _NotPlain
        names, numbers = [], []
        for line in lines:
            fields = line.split(self._delimiter, self._before)
            names.append(fields[self._index].decode())
            numbers.append(
                fields[-1].rsplit(self._delimiter, self._behind)[0] if self._behind else fields[-1]
            )
        return names, b"\n".join(numbers).replace(self._delimiter, b"\n")

    def _counts(self, block, n_lines):
        """How many delimiters there are in each line: to ask NumPy takes a third of the time of ``bytes.count``."""
        signs = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(signs == ord(b"\n"))[: n_lines - 1]
        places = np.flatnonzero(signs == self._delimiter[0])
        return np.diff(np.searchsorted(places, ends), prepend=0, append=len(places))


def _numbers(cells, delimiter, polars):
    """Numbers of lines; an empty one, or a word such as nan or inf, is for pandas to judge."""
    try:
        found = polars.read_csv(
            cells, has_header=False, separator=delimiter, schema={"number": polars.Float64}
        ).to_series()
    except polars.exceptions.PolarsError as error:
        raise _NotPlain from error
    values = found.to_numpy()
    if not (np.isfinite(values.sum()) or np.isfinite(values).all()):
        raise _NotPlain
    return values


def _pass_header(file, layout):
    for _ in range(layout.skipped + layout.has_header):
        line = file.readline(LONGEST_LINE)
        if not line.endswith(b"\n") or QUOTE in line or b"\r" in line.rstrip(b"\r\n"):
            raise _NotPlain


def _blocks(file):
    """Whole lines of a plain text, about as many bytes at a time as are read."""
    begun, length = [], 0
    while chunk := file.read(CHUNK):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield _plain(b"".join([*begun, chunk[:end]]))
            begun, length = [], 0
        begun.append(chunk[end:])
        length += len(begun[-1])
        if length > LONGEST_LINE:
            raise _NotPlain
    if length:
        yield _plain(b"".join(begun))


def _plain(block):
    """Lines without quotes and what else pandas has a rule for, each ended by a line feed."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if b"\0" in block or QUOTE in block or b"\r" in block or block.startswith(BOM):
        raise _NotPlain
    return block
