"""Inputs of a run, a file or a folder of files: what the record says of them, and whether they are still the same."""

import hashlib
from pathlib import Path

from ._anndata import mtx_files
from ._checksums import check_file, file_checksum, watched_readings
from ._folders import candidates
from ._stores import is_store, store_files


def input_files(path):
    """Files of an input: those of a folder that a reader can take, or the file itself."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    if is_store(path):
        return store_files(path)
    return mtx_files(path) or candidates(path)


def check_input(path):
    """Refuse what cannot be read again: a run is repeated by the checksums of its inputs."""
    for file in input_files(path) or [path]:
        check_file(file)


def input_entry(path, readings=None):
    """Path, size and SHA-256 of an input for the record.

    Parameters
    ----------
    path : Path
    readings : Readings, default=None
        What was read: these bytes count. What was not is taken as it lies there.

    Returns
    -------
    entry : dict
        The checksum of a folder is that of the names and checksums of its files.
    """
    files = input_files(path)
    found = [_entry(file, readings) for file in files]
    if files == [Path(path)]:
        (checksum,) = (entry["sha256"] for entry in found)
    else:
        lines = [
            f"{entry['sha256']}  {file.relative_to(path).as_posix()}\n"
            for file, entry in zip(files, found, strict=True)
        ]
        checksum = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    return {"path": str(path), "size": sum(entry["size"] for entry in found), "sha256": checksum}


def _entry(file, readings):
    entry = None if readings is None else readings.entry(file)
    return entry or {"size": file.stat().st_size, "sha256": file_checksum(file)}


def read_as_recorded(read, path, checksum, refusal):
    """What a reader makes of an input; a ValueError with the message ``refusal`` if its checksum is another."""
    try:
        with watched_readings() as readings:
            found = read(path)
    except ValueError as error:
        raise (error if input_entry(path)["sha256"] == checksum else ValueError(refusal)) from None
    if input_entry(path, readings)["sha256"] != checksum:
        raise ValueError(refusal)
    return found
