"""Texts opened within bounds, and the formats that ends of names stand for where files are written."""

import csv
import io
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..checks.memory import available_memory, check_memory
from ._checksums import open_input
from ._kinds import OPENERS

DELIMITERS = {".tsv": "\t", ".tab": "\t", ".txt": "\t", ".csv": ","}
# Characters up to which a line can be meant: a row of millions of numbers.
LONGEST_LINE = 2**26
# Bytes that a cell takes while a text is read as a whole: its number, its end, and its place in the text.
CELL_SIZE = 24
# The same of numbers that are read by blocks of rows, with room for more of them.
NUMBER_SIZE = 12
SMALLER_FILE = "Give fewer genes or samples, .parquet or .h5ad; a small file that unpacks to this is damaged."
KNOWN = ".tsv, .txt, .tab or .csv (each also .gz), .h5ad or .parquet"


@dataclass(frozen=True)
class Format:
    """What the end of a file's name says, where a file is written.

    Attributes
    ----------
    kind : {"text", "h5ad", "parquet"}
    delimiter : str or None
        Of a text.
    compressed : bool
        Whether a text is in gzip.
    """

    kind: str
    delimiter: str | None = None
    compressed: bool = False


def file_format(path):
    """Format of a file to write; a ValueError if the end of its name tells none."""
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compressed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if compressed else suffixes)[-1:]
    suffix = suffix[0] if suffix else ""
    if suffix in DELIMITERS:
        return Format("text", DELIMITERS[suffix], compressed)
    if suffix in (".h5ad", ".parquet") and not compressed:
        return Format(suffix[1:])
    raise ValueError(f"{path}: the end of the name does not tell the format. Let it be {KNOWN}.")


@dataclass(frozen=True)
class Text:
    """A text to read, wherever it lies.

    Attributes
    ----------
    path : Path
    packing, encoding : as in :class:`~skenigma.io._kinds.Kind`
    content : bytes or None
        The text itself, where it does not lie in the file as such: the sheet of a workbook.
    """

    path: Path
    packing: str | None = None
    encoding: str = "utf-8-sig"
    content: bytes | None = None

    def open(self, delimiter="\t", cell_size=None):
        """The text opened from its start, unpacked, within bounds."""
        return BoundedText(self, delimiter, cell_size)

    @contextmanager
    def open_bytes(self):
        """Its bytes from the start, unpacked; whoever reads them sees to bounds."""
        with open_input(self.path) if self.content is None else io.BytesIO(self.content) as raw:
            yield OPENERS[self.packing](raw) if self.packing else raw


class BoundedText:
    """A text opened for reading that ends in one clear error where it is none, or does not fit into memory.

    Parameters
    ----------
    text : Text
    delimiter : str
    cell_size : int, default=None
        Bytes that are held of every cell, where the text itself is not. None: both are.
    """

    def __init__(self, text, delimiter, cell_size=None):
        self._raw = open_input(text.path) if text.content is None else io.BytesIO(text.content)
        unpacked = OPENERS[text.packing](self._raw) if text.packing else self._raw
        self._file = io.TextIOWrapper(unpacked, encoding=text.encoding, newline="")
        self._path, self._delimiter, self._cell_size = text.path, delimiter, cell_size
        self._free = available_memory()
        self._lines = self._line_length = self._needed = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()
        self._raw.close()

    def __iter__(self):
        return self

    def __next__(self):
        if line := self.readline():
            return line
        raise StopIteration

    def readline(self):
        """The next line with its end, "" after the last."""
        return self._checked(self._file.readline(LONGEST_LINE + 1))

    def read(self, size=-1):
        """That many characters."""
        return self._checked(self._file.read(size))

    def _checked(self, text):
        position = text.find("\0")
        if position >= 0:
            line = self._lines + text.count("\n", 0, position) + 1
            raise ValueError(
                f"{self._path} holds a NUL character in line {line}, which would cut off names and numbers: it "
                f"is not text, or is damaged. Write it again, or remove these characters."
            )
        self._lines += text.count("\n")
        self._line_length = len(text) - text.rfind("\n") - 1 + ("\n" not in text) * self._line_length
        if self._line_length > LONGEST_LINE:
            raise ValueError(
                f"{self._path} has more than {LONGEST_LINE:,} characters in line {self._lines + 1}: it is not a "
                f"table of numbers, or its line breaks are missing."
            )
        cells = text.count(self._delimiter)
        self._needed += len(text) + CELL_SIZE * cells if self._cell_size is None else self._cell_size * cells
        if self._free is not None and self._needed > self._free:
            check_memory(
                self._needed, f"Reading {self._path}, no further than line {self._lines:,},", SMALLER_FILE
            )
        return text


def records_of(lines, delimiter):
    """Records of a text, from its lines, each a list of its fields."""
    # a row of a large table can be longer than the csv module expects
    csv.field_size_limit(2 * LONGEST_LINE)
    if delimiter == " ":
        return csv.reader(lines, delimiter=" ", skipinitialspace=True)
    return csv.reader(lines, delimiter=delimiter)


def layer_name(cell_type):
    """Name of a cell type's layer: HDF5 takes a slash in a name for a folder in the file."""
    return cell_type.replace("/", "|")
