"""Checksums of files: of what lies there, and of what a reader has read."""

import hashlib
import io
import os
import stat
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path

from .._typing import PathLike

KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
CHANGED = "{} changed while it was read: run again when nothing writes to it."
# a variable of the context: readings of another thread are none of this run's
_readings = ContextVar("readings", default=None)


def file_checksum(path: PathLike) -> str:
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


def check_file(path):
    """Refuse what cannot be read again: a run is repeated by the checksums of its inputs."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, a file is needed.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    kind = KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise ValueError(
            f"{path} is {kind}, which can be read only once: save its contents to a file, and pass that."
        )


class Readings:
    """What readers have read: a checksum by path, of the very bytes that they were given."""

    def __init__(self, outer=None):
        self._found, self._states, self._outer = {}, {}, outer

    def entry(self, path):
        """Path, size and SHA-256 of a file as it was read; None if it was not."""
        return self._found.get(os.path.realpath(path))

    def start(self, path, state):
        """Note the state of a file that is opened."""
        self._compare(path, state)
        if self._outer is not None:
            self._outer.start(path, state)

    def finish(self, path, state, size, checksum):
        """Note what was read of a file, to its end."""
        self._compare(path, state)
        self._found[os.path.realpath(path)] = {"path": str(path), "size": size, "sha256": checksum}
        if self._outer is not None:
            self._outer.finish(path, state, size, checksum)

    def _compare(self, path, state):
        """A file may be opened more than once, first for its header: it must be one file throughout."""
        if self._states.setdefault(os.path.realpath(path), state) != state:
            raise ValueError(CHANGED.format(path))


@contextmanager
def watched_readings():
    """Have all that the readers of this package read in the block hashed as they read it.

    Yields
    ------
    readings : Readings
    """
    readings = Readings(_readings.get())
    token = _readings.set(readings)
    try:
        yield readings
    finally:
        _readings.reset(token)


def open_input(path):
    """A file opened for reading bytes; hashed as it is read where readings are watched."""
    readings = _readings.get()
    file = open(path, "rb", buffering=0)  # noqa: SIM115, what is returned closes it
    if readings is not None:
        file = _HashedFile(file, path, readings)
    return io.BufferedReader(file, 2**20)


def unchanged_input(read):
    """Decorator for readers that jump about in a file: where watched, it has the same bytes before and after."""

    @wraps(read)
    def watched(path, *args):
        check_file(path)
        readings = _readings.get()
        if readings is None:
            return read(path, *args)
        # such readers take parts of a file in any order, so that no hash runs along
        state, before = _state(os.stat(path)), file_checksum(path)
        readings.start(path, state)
        found = read(path, *args)
        if file_checksum(path) != before:
            raise ValueError(CHANGED.format(path))
        readings.finish(path, _state(os.stat(path)), os.stat(path).st_size, before)
        return found

    return watched


def note_content(path, status, content):
    """Note what was read of a file at once."""
    readings = _readings.get()
    if readings is not None:
        readings.finish(path, _state(status), len(content), hashlib.sha256(content).hexdigest())


def _state(status):
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _HashedFile(io.RawIOBase):
    """Bytes of a file, hashed on their way, from the first to the last."""

    def __init__(self, file, path, readings):
        self._file, self._path, self._readings = file, path, readings
        self._digest, self._size, self._ended = hashlib.sha256(), 0, False
        readings.start(path, _state(os.fstat(file.fileno())))

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self._file.readinto(buffer)
        self._digest.update(memoryview(buffer)[:count])
        self._size += count
        if not count and not self._ended:
            self._ended = True
            state = _state(os.fstat(self._file.fileno()))
            self._readings.finish(self._path, state, self._size, self._digest.hexdigest())
        return count

    def close(self):
        self._file.close()
        super().close()
