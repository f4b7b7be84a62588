"""The folder that a run leaves: read back, and told from what anyone else has put there."""

import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .._typing import PathLike
from ..checks.names import listing
from ._checksums import file_checksum
from ._inputs import input_entry, read_as_recorded
from ._records import RECORD, load_record
from ._seal import is_sealed
from ._stores import is_store
from ._written import read_genes, read_layers, read_result, read_written

PROPORTIONS, PROPORTIONS_STD, HISTORY, QUALITY, UNCERTAINTY, RELIABILITY, DIFFERENTIAL = (
    "proportions.tsv",
    "proportions_std.tsv",
    "history.tsv",
    "quality.tsv",
    "uncertainty.tsv",
    "reliability.tsv",
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
        """DataFrame of one of the tables, None where the run wrote none.

        Raises a ValueError if the file is not as the run wrote it.
        """
        read = partial(read_result, names=NAME_COLUMNS)
        return self._as_written(name, read) if name in self.record["outputs"] else None

    def expression(self, kind="expression"):
        """Expression by cell type, as a mapping of DataFrames samples × genes; empty where the run wrote none.

        What a Zarr store holds is read when it is asked for.

        Raises a ValueError if a file is not as the run wrote it.
        """
        files = self.record["files"].get(kind, {})
        if isinstance(files, str):
            return self._as_written(files, partial(read_layers, kind=kind))
        return {cell_type: self._as_written(file, read_written) for cell_type, file in files.items()}

    def cell_type_table(self, cell_type, kind="expression"):
        """Expression of one cell type, as a DataFrame samples × genes, where the run wrote a file for each."""
        return self._as_written(self.record["files"][kind][cell_type], read_written)

    def genes(self):
        """Names of the genes of the expression, without reading its values into memory."""
        files = self.record["files"]["expression"]
        file = files if isinstance(files, str) else next(iter(files.values()))
        return self._as_written(file, read_genes)

    def _as_written(self, name, read):
        """What a reader makes of a file of the run; a ValueError if it is not what the run wrote."""
        path, recorded = self.path / name, self.record["outputs"][name]["sha256"]
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing, though the run wrote it.")
        # a record may come from anyone, and must not make this read what lies elsewhere
        if self.path.resolve() not in path.resolve().parents:
            raise ValueError(
                f"{path} leads out of the folder of the run by a symbolic link, and is not read."
            )
        changed = f"{path} was changed since the run wrote it (its SHA-256 differs)."
        return read_as_recorded(read, path, recorded, changed)


def read_run(folder: PathLike) -> RunFolder:
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
        If ``run.json`` is not a record of skenigma, or a damaged one.
    OSError
        If there is none.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.cli import main
    >>> from skenigma.io import read_run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "cohort")
    ...     code = main(["simulate", "--samples", "6", "--genes", "20", "--out", str(path), "--quiet"])
    ...     run = read_run(path)
    >>> run.record["command"]
    'simulate'
    """
    path = Path(folder)
    path = path if path.name == RECORD or path.suffix == ".json" else path / RECORD
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}: give the folder that a run of skenigma wrote.")
    return RunFolder(path.parent, load_record(path))


STRANGE, CHANGED = "what no run wrote", "what was changed since a run wrote it"


def own_files(folder, shown=None):
    """The files of a folder that holds nothing but what runs of skenigma wrote, as they wrote it.

    Parameters
    ----------
    folder : Path
        Folder of a run, or an empty one. Runs and reports in that of a run, as ``differential`` and ``report`` leave
        them, belong to it.
    shown : Path, default=None
        Name of the folder in messages, if that is another.

    Returns
    -------
    states : dict of Path to tuple
        By path in the folder, what tells whether a file is still the same.

    Raises
    ------
    FileExistsError
        If it holds anything else, or a file that was changed; the message names the first.
    """
    try:
        found = list(_inspect(folder)) if any(folder.iterdir()) else []
    except (OSError, ValueError) as error:
        reason = str(error).rstrip(".") if (folder / RECORD).exists() else f"it holds no {RECORD}"
        raise FileExistsError(
            f"{shown or folder} is not known to be the folder of an earlier run, and is never replaced: {reason}. "
            f"Choose another name, or remove it yourself."
        ) from error
    for problem in (STRANGE, CHANGED):
        names = [path.relative_to(folder).as_posix() for path, _, what in found if what == problem]
        if names:
            raise FileExistsError(
                f"{shown or folder} holds {problem}, and is not replaced: {listing(names)}. Move that elsewhere, or "
                f"choose another name."
            )
    return {path.relative_to(folder): state for path, state, _ in found}


def file_states(folder):
    """The same, but without a look into the files."""
    return {path.relative_to(folder): _state(path) for path in _walk(folder)}


def remove_files(folder, names):
    """Remove these files of a folder, and then what is empty; whether all of it is gone."""
    # folders from the innermost outwards, each only if nothing is left in it
    inner = {parent for name in names for parent in name.parents} | {Path()}
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for parent in sorted(inner, key=lambda path: len(path.parts), reverse=True):
        try:
            (folder / parent).rmdir()
        except OSError:
            return False
    return True


def _inspect(folder):
    """Every entry of a run's folder, its state, and what speaks against its removal."""
    outputs = load_record(folder / RECORD)["outputs"]
    inner = {parent for name in outputs for parent in (folder / name).parents}
    for path in _walk(folder, inner):
        state, recorded = _state(path), outputs.get(path.relative_to(folder).as_posix())
        if stat.S_ISDIR(state[0]) and (path / RECORD).is_file():
            yield from _inspect(path)
        elif stat.S_ISDIR(state[0]) and recorded is not None and is_store(path):
            same = input_entry(path)["sha256"] == recorded["sha256"]
            yield from ((inner, _state(inner), None if same else CHANGED) for inner in _walk(path))
        else:
            yield path, state, _problem(path, state, recorded)


def _problem(path, state, recorded):
    if not stat.S_ISREG(state[0]):
        return STRANGE
    if recorded is None:
        return None if path.name == RECORD or is_sealed(path) else STRANGE
    # by size first: a checksum reads all of the file
    same = path.stat().st_size == recorded["size"] and file_checksum(path) == recorded["sha256"]
    return None if same else CHANGED


def _walk(folder, inner=None):
    """Paths in a folder and the folders ``inner`` in it, or all; other folders as such, links never followed."""
    for path in sorted(folder.iterdir()):
        if not path.is_symlink() and path.is_dir() and (inner is None or path in inner):
            yield from _walk(path, inner)
        else:
            yield path


def _state(path):
    status = path.lstat()
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns
