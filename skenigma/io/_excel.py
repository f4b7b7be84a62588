"""Workbooks of Excel, ``.xlsx``: the first sheet as text, which is then read as any other."""

import csv
import datetime
import io
import warnings
from pathlib import Path

from ..checks.names import listing
from ..checks.optional import import_optional
from ._checksums import unchanged_input
from ._formats import Text


@unchanged_input
def sheet_text(path, notes):
    """The first sheet of a workbook as a text with tabs; numbers with all digits, dates as Excel shows them."""
    openpyxl = import_optional("openpyxl", "excel", f"Reading {path}")
    # opened here, because openpyxl goes by the name of a file, and a workbook may be called .tsv
    with open(path, "rb") as file, warnings.catch_warnings():
        # openpyxl warns of formats and styles, which make no difference here
        warnings.simplefilter("ignore")
        try:
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=True)
        except Exception as error:  # openpyxl raises many kinds for a damaged file
            raise ValueError(f"{path} cannot be read as an Excel workbook: {error}") from error
        names = workbook.sheetnames
        written = _written(workbook.worksheets[0])
        workbook.close()
    if not written:
        raise ValueError(f"{path}: its first sheet, '{names[0]}', is empty.")
    others = f"; other sheets are not read: {listing(names[1:])}" if len(names) > 1 else ""
    notes.append(f"read sheet '{names[0]}' of the workbook{others}")
    return Text(Path(path), content=written.encode())


def _written(sheet):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    for row in sheet.iter_rows(values_only=True):
        if any(value is not None for value in row):
            writer.writerow([_cell(value, first=i == 0) for i, value in enumerate(row)])
    return file.getvalue()


def _cell(value, first):
    """A cell as text; in the first column a date is a name that Excel has taken for one, and looks like 2-Sep."""
    if first and isinstance(value, datetime.datetime):
        return f"{value.day}-{value:%b}"
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
