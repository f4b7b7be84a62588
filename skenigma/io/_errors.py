"""Errors of reading a text."""

import csv
import gzip
import lzma
import zlib

import pandas as pd


class clear_errors:  # noqa: N801, a context manager
    """Errors of reading a text as sentences that name the file."""

    def __init__(self, text):
        self._path, self._packing = text.path, text.packing

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        match error:
            case gzip.BadGzipFile() | EOFError() | zlib.error() | lzma.LZMAError():
                raise ValueError(f"{self._path} is not a complete {self._packing} file: {error}") from error
            case UnicodeDecodeError():
                raise ValueError(
                    f"{self._path} is not text in UTF-8: {error}. Save it as UTF-8 ('CSV UTF-8' in Excel)."
                ) from error
            case pd.errors.ParserError() | csv.Error():
                raise ValueError(f"{self._path} is not a regular table: {str(error).strip()}") from error
            case pd.errors.EmptyDataError():
                raise ValueError(f"{self._path} holds a header and no rows.") from None
