"""How a table stands in a text: where it begins, what splits its fields, and what its columns are called."""

import re
from dataclasses import dataclass, field

from ..checks.numbers import is_written_number, quoted
from ._errors import clear_errors
from ._formats import DELIMITERS, Text, records_of

NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "spaces", "|": "bars"}
# Lines that are looked at to tell how a table is written, and characters after which fewer are enough.
MOST_LINES, FEWEST_LINES, MOST_CHARACTERS = 60, 8, 2**20
# What stands over a column of names, in lower case, without spaces, dots, dashes and underscores.
_CORNERS = """
gene genes geneid geneids genename genenames genesymbol genesymbols symbol symbols hugosymbol
hgncsymbol ensembl ensemblid ensemblgeneid ensg entrez entrezid entrezgeneid feature featureid
features featurename probe probeid probeset idref id ids name names rowname rownames target targetid
transcript transcriptid tracking trackingid sample samples sampleid samplename celltype celltypes
mixture inputsample hybridizationref description
"""
CORNERS = frozenset(_CORNERS.split())
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# what can be thousands as well as decimals
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)


@dataclass(frozen=True)
class Look:
    """The beginning of a text.

    Attributes
    ----------
    text : Text
    preamble : list of str
        Lines before the table.
    delimiter : str
    header : list of str
        First record of the table.
    rows : list of list of str
        Some of the records that follow.
    """

    text: Text
    preamble: list
    delimiter: str
    header: list
    rows: list

    @property
    def path(self):
        """Of the file, for messages."""
        return self.text.path


@dataclass(frozen=True)
class Layout:
    """Where a table stands in a text.

    Attributes
    ----------
    delimiter : str
    skipped : int
        Lines before the header, or before the first row where there is none.
    has_header : bool
        Whether a record of names comes first.
    names : list of str
        One for each field of a row.
    index : int
        Position of the field with the names of the rows.
    columns : list of int
        Positions of the fields with values.
    decimal : str
    """

    delimiter: str
    skipped: int
    has_header: bool
    names: list
    index: int = 0
    columns: list = field(default_factory=list)
    decimal: str = "."


def look_at(text, preamble=None):
    """Look at how a text begins.

    Parameters
    ----------
    text : Text
    preamble : int, default=None
        Number of lines before the table; None leaves out blank lines and comments.
    """
    with clear_errors(text), text.open() as file:
        lines, whole = _first_lines(file, preamble or 0)
    start = _preamble_length(lines) if preamble is None else preamble
    before, lines = lines[:start], lines[start:]
    if not lines:
        raise ValueError(f"{text.path} holds no table: there is nothing but {len(before)} lines of comment.")
    delimiter = _delimiter(text.path, lines, whole)
    header, *rows = _records(lines, delimiter, whole)
    if preamble is None and (commented := _commented_header(before, delimiter, header, rows)):
        before, header, rows = before[:-1], commented, [header, *rows]
    return Look(text, before, delimiter, [name.strip() for name in header], rows)


def _first_lines(file, preamble):
    lines, size = [], 0
    for line in file:
        lines.append(line)
        size += len(line)
        counted = len(lines) - preamble
        if counted >= MOST_LINES or (counted >= FEWEST_LINES and size > MOST_CHARACTERS):
            return lines, False
    return lines, True


def _preamble_length(lines):
    """How many lines come before the table: blank ones and comments."""
    # by "sep=;" Excel is told what splits the fields
    count = int(bool(lines) and re.match(r'"?sep=', lines[0], re.IGNORECASE) is not None)
    while count < len(lines) and (not lines[count].strip() or lines[count].startswith("#")):
        count += 1
    # a table whose only line with a "#" is its header has no comments
    return count if count < len(lines) else max(count - 1, 0)


def _commented_header(before, delimiter, header, rows):
    """The header, where it is the last line that begins with "#": as wide as the rows, over values."""
    last = next(records_of(before[-1:], delimiter), []) if before and before[-1].startswith("#") else []
    if len(last) < 2 or len(last) != len(header) or not all(map(is_written_number, header[1:])):
        return None
    return [last[0].lstrip("# "), *(name.strip() for name in last[1:])]


def _records(lines, delimiter, whole):
    records = [record for record in records_of(lines, delimiter) if record]
    # the last one looked at may go on
    return records if whole or len(records) < 3 else records[:-1]


def _delimiter(path, lines, whole):
    """What splits the fields: what gives all rows one width, and the header the same one."""
    suffix = next((end for end in reversed([s.lower() for s in path.suffixes]) if end in DELIMITERS), None)
    expected = DELIMITERS.get(suffix, "\t")
    found = {}
    for delimiter in NAMES:
        if not any(delimiter in line for line in lines):
            continue
        widths = [len(record) for record in _records(lines, delimiter, whole)]
        body = set(widths[1:]) or {widths[0]}
        regular = len(body) == 1 and max(body) > 1
        gap = abs(widths[0] - max(body))
        if regular and (gap <= 1 or widths[0] > 1):
            found[delimiter] = (gap == 0, gap == 1, delimiter == expected, delimiter in "\t,;", max(body))
    if found:
        return max(found, key=found.get)
    if any(expected in line for line in lines):
        return expected
    header = lines[0].rstrip("\r\n")
    others = [other for other in NAMES if other in header]
    raise ValueError(
        f"{path} has one column only: a table needs names and values."
        if not others
        else f"{path} is not a regular table: no character splits its lines into equally many fields. Its first line "
        f"is {quoted(header)}."
    )


def find_layout(look, notes, *, values):
    """Layout of a table, from how it begins.

    Parameters
    ----------
    look : Look
    notes : list of str
        Takes a line for everything that is not as it would be in a plain table.
    values : bool
        Whether the columns hold numbers throughout, so that a first record of numbers cannot be a header.
    """
    path, header, rows = look.path, look.header, look.rows
    if not rows:
        raise ValueError(f"{path} holds a header and no rows.")
    if look.preamble and any(line.strip() for line in look.preamble):
        notes.append(f"left out {counted(len(look.preamble), 'line')} before the header")
    if values:
        _refuse_missing_header(path, header, rows)
    header, index = _header_of_rows(path, header, rows, notes)
    width = len(header)
    empty = [
        i
        for i in range(index + 1, width)
        if not header[i] and all(not row[i] for row in rows if i < len(row))
    ]
    columns = [i for i in range(width) if i > index and i not in empty]
    if not columns:
        raise ValueError(
            f"{path} has one column only when split at {NAMES[look.delimiter]}: a table needs names and values."
        )
    decimal = _decimal(look, columns)
    if decimal == ",":
        notes.append("read commas as decimal points")
    return Layout(look.delimiter, len(look.preamble), True, header, index, columns, decimal)


def _header_of_rows(path, header, rows, notes):
    """A header with a field for each of a row, and where the names of the rows stand in it."""
    width = len(rows[0])
    if width == len(header) + 1 and all(row[-1:] == [""] for row in rows):
        # every row ends in a delimiter
        header = [*header, ""]
    if len(header) == width + 1 and header[-1] == "":
        header = header[:-1]
        notes.append("left out a delimiter at the end of the header")
    index = 0
    if len(header) == width - 1:
        # as R writes tables: row names have no field in the header
        index = _short_header(path, header, rows)
        header = ["", *header]
    elif len(header) != width:
        raise ValueError(
            f"{path} is not a regular table: its header has {len(header)} fields and its first row {width}. Give "
            f"every column one name."
        )
    elif _has_row_numbers(header, rows):
        index = 1
    if index:
        notes.append(f"left out the numbers of the rows; '{header[1]}' holds their names")
    return header, index


def counted(number, noun):
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_corner(name):
    """Whether a name is one that stands over a column of names."""
    return re.sub(r"[\s._-]+|\(.*\)", "", name).lower() in CORNERS


def _refuse_missing_header(path, header, rows):
    """Refuse a table whose first line can be the first gene: it would be lost."""
    if len(header) < 2 or not all(map(is_written_number, header[1:])):
        return
    if header[0] == "" or is_corner(header[0]) or len(rows[0]) != len(header):
        return
    raise ValueError(
        f"{path} seems to have no header: its first line is {quoted(' '.join(header[:4]))}, a name and numbers. Add "
        f"a line with the names of the columns; if it is one, let it begin with 'gene'."
    )


def _short_header(path, header, rows):
    """Position of the names, where the header has one field less: R's way, names of rows have none.

    A header with a name for the names lacks one of a column, which cannot be told.
    """
    if not is_corner(header[0]):
        return 0
    if not any(is_written_number(row[1]) for row in rows):
        return 1
    raise ValueError(
        f"{path}: the header has one field less than the rows, but a name for the column of names, '{header[0]}': "
        f"the name of another column is missing, and values would stand under the wrong one. Name every column."
    )


def _has_row_numbers(header, rows):
    """Whether the first column counts the rows, and the second has the names, as R and pandas write frames."""
    if len(header) < 3 or header[0] not in ("", "X", "Unnamed: 0") or not is_corner(header[1]):
        return False
    first = rows[0][0]
    if first not in ("0", "1") or any(is_written_number(row[1]) for row in rows):
        return False
    return [row[0] for row in rows] == [str(int(first) + i) for i in range(len(rows))]


def _decimal(look, columns):
    """What stands before decimals: a comma only if nothing else can be meant."""
    if look.delimiter == ",":
        return "."
    cells = {row[i].strip() for row in look.rows for i in columns if i < len(row)}
    return "," if is_decimal_comma(look.path, cells) else "."


def is_decimal_comma(path, cells):
    """Whether cells with commas are numbers with decimal commas; a ValueError if they can be thousands."""
    commas = {cell for cell in cells if DECIMAL_COMMA.fullmatch(cell) or GROUPED.fullmatch(cell)}
    others = cells - commas
    if not commas or any("." in cell and is_written_number(cell) for cell in others):
        return False
    if all(GROUPED.fullmatch(cell) for cell in commas):
        raise ValueError(
            f"{path} holds numbers such as {quoted(min(commas))}: whether the comma stands before decimals or "
            f"between thousands cannot be told. Write them with decimal points, and without commas between thousands."
        )
    return True
