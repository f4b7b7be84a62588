"""The folder that a run leaves, read back."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ._reading import read_bulk, read_layers, read_result
from ._staging import RECORD

PROPORTIONS, HISTORY, QUALITY, DIFFERENTIAL = (
    "proportions.tsv",
    "history.tsv",
    "quality.tsv",
    "differential.tsv",
)
# columns of these tables that hold names beside the first, which always does
NAME_COLUMNS = ("gene", "flag")


@dataclass(frozen=True)
class RunFolder:
    """What a run of the command line wrote.

    Attributes
    ----------
    path : Path
        The folder.
    record : dict
        Its ``run.json``.
    """

    path: Path
    record: dict

    def table(self, name):
        """DataFrame of one of the tables, None where the run wrote none."""
        path = self.path / name
        return read_result(path, NAME_COLUMNS) if path.is_file() else None

    def expression(self, kind="expression"):
        """Expression by cell type, as a dict of DataFrames samples × genes; empty where the run wrote none."""
        files = self.record.get("files", {}).get(kind, {})
        if isinstance(files, str):
            return read_layers(self.path / files)
        return {cell_type: read_bulk(self.path / file) for cell_type, file in files.items()}

    def genes(self):
        """Names of the genes of the expression."""
        return list(next(iter(self.expression().values())).columns)


def read_run(folder):
    """Read the record of a run of the command line.

    Parameters
    ----------
    folder : str or path-like
        Folder that ``skenigma`` wrote, or the ``run.json`` in it.

    Returns
    -------
    run : RunFolder
        Its ``record``, its ``table(name)`` by file name, and its ``expression()`` by cell type.

    Raises
    ------
    ValueError
        If ``run.json`` is not a record of skenigma.
    OSError
        If there is none.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "run.json").write_text('{"skenigma_run": 1, "command": "deconvolve"}')
    ...     run = read_run(folder)
    >>> run.record["command"]
    'deconvolve'
    """
    path = Path(folder)
    path = path if path.name == RECORD or path.suffix == ".json" else path / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: give the folder that a run of skenigma wrote.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(record, dict) or "skenigma_run" not in record:
        raise ValueError(f"{path} was not written by skenigma: it has no entry skenigma_run.")
    return RunFolder(path.parent, record)


def file_checksum(path):
    """SHA-256 of a file, as ``run.json`` has it.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    checksum : str
        In hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import file_checksum
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "empty")
    ...     path.touch()
    ...     file_checksum(path)[:16]
    'e3b0c44298fc1c14'
    """
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
