"""Large results written part after part, of which those that are complete outlive the process.

While a result is written it lies in ``NAME.unfinished`` beside its place, together with a journal: a first line on
what it is to be, and a line for every part that is complete. It gets its name when all of it is there.
"""

import errno
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .._version import __version__
from ._places import find_place
from ._renames import exchange, rename_new
from ._signals import held_signals, raise_lost_signal

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished"
JOURNAL, RESULT, REPLACED = "journal.jsonl", "result", "replaced"
VERSION = 1
# the part that is there before any block
BEGUN = "begun"
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Remedies:
    """How whoever asked for a result goes on with it, begins it anew, or leaves it: for messages.

    Attributes
    ----------
    again, anew : str
        Parts of sentences: "call to_zarr with the same arguments again".
    """

    again: str = "call to_zarr with the same arguments again"
    anew: str = "resume=False"


@dataclass
class Work:
    """A result that is being written.

    Attributes
    ----------
    path : Path
        Where to write it.
    facts : dict
        What it was begun with; whoever goes on takes this.
    done : dict of str to str
        Checksums of complete parts, by name.
    """

    path: Path
    facts: dict
    done: dict = field(default_factory=dict)

    def __post_init__(self):
        self._file = None

    @property
    def folder(self):
        """The folder with journal and result."""
        return self.path.parent

    def __str__(self):
        blocks = sum(part != BEGUN for part in self.done)
        return f"{blocks:,} of {self.facts['n_blocks']:,} blocks"

    def note(self, part, checksum):
        """Note that a part is complete."""
        self.done[part] = checksum
        self._file.write(json.dumps({"part": part, "sha256": checksum}).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def resumable(target, key, facts, *, is_own, same="keep", other="refuse", remedies=None):
    """Write a folder part after part, going on where an earlier process ended; it has its name when it is whole.

    Parameters
    ----------
    target : Path
        Where the folder is to be.
    key : str
        Checksum of what decides the result.
    facts : dict
        Of a result that is begun, for whoever goes on with it; among them ``n_blocks``, the number of its blocks.
    is_own : callable
        Called with a folder; the key of the result that it holds as it was written, None if it is something else.
    same : {"keep", "replace"}
        What to do with what is there, unfinished or whole, of this result.
    other : {"refuse", "replace"}
        The same of other results.
    remedies : Remedies, default=None

    Yields
    ------
    work : Work or None
        None if the result is there already.

    Raises
    ------
    ValueError
        If another result is there, and is not to be replaced.
    FileExistsError
        If anything else is there, which is never replaced.
    OSError
        If it cannot be written. What is complete is kept.
    """
    remedies = remedies or Remedies()
    target = find_place(target)
    found = _key_of(target, is_own)
    folder = target.with_name(target.name + UNFINISHED)
    if found == key and same == "keep":
        if _is_left(folder, key):
            _clean_up(folder)
        yield None
        return
    if found is not None and found != key and other == "refuse":
        raise ValueError(
            f"{target} holds another result: of other data, another model or another version of skenigma. Choose "
            f"another name, or replace it with {remedies.anew}."
        )
    with _locked(folder, key, facts, same, other, remedies) as work:
        try:
            yield work
        except OSError as error:
            raise _kept(error, work, remedies) from error
        with held_signals():
            raise_lost_signal()
            _finish(work, target, is_own)
    _clean_up(folder)


def unfinished(target):
    """The folder in which a result of this name lies unfinished; None if there is none."""
    target = Path(target)
    # joined, because "." has no name that with_name could replace
    folder = target.parent / (target.name + UNFINISHED)
    return folder if (folder / JOURNAL).is_file() else None


def progress_of(folder):
    """How many parts of an unfinished result are complete, as a text."""
    return str(_read(folder / JOURNAL) or "0 blocks")


def _key_of(target, is_own):
    """Key of the result in a place, None if that is free; refused if anything else is there."""
    if not target.exists():
        return None
    if target.is_dir() and not any(target.iterdir()):
        return None
    key = is_own(target) if target.is_dir() else None
    if key is None:
        raise FileExistsError(
            f"{target} is not what skenigma wrote, or was changed since, and is never replaced: choose another name, "
            f"or remove it yourself."
        )
    return key


@contextmanager
def _locked(folder, key, facts, same, other, remedies):
    """The work in a folder, which no other process writes to meanwhile."""
    header = {"skenigma_journal": VERSION, "version": __version__, "key": key, **facts}
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        _check_journal(folder)
    with open(folder / JOURNAL, "a+b") as file:
        _lock(file, folder)
        work = _read(folder / JOURNAL)
        if work and work.facts["key"] != key and other == "refuse":
            raise ValueError(
                f"{folder} holds another result, of which {work} are complete: of other data, another model or "
                f"another version of skenigma. Continue that run, remove the folder, or replace it with "
                f"{remedies.anew}."
            )
        if work is None or work.facts["key"] != key or same != "keep":
            with suppress(FileNotFoundError):
                shutil.rmtree(folder / RESULT)
            work = Work(folder / RESULT, header)
            file.truncate(0)
            file.write(json.dumps(header).encode() + b"\n")
            file.flush()
        elif not _ends_a_line(file):
            file.write(b"\n")
        work._file = file
        yield work


def _check_journal(folder):
    """Refuse a folder that holds no journal and is not empty."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    if set(there) - {JOURNAL, RESULT, REPLACED} or (there and JOURNAL not in there):
        raise FileExistsError(
            f"{folder} is not what skenigma left, and is never replaced: choose another name, or move it elsewhere."
        )


def _lock(file, folder):
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileExistsError(
            f"{folder} is being written by another process: wait for it, or choose another name."
        ) from None
    except OSError:  # a file system without locks
        return
    if not os.path.exists(folder / JOURNAL) or not os.path.samestat(
        os.fstat(file.fileno()), os.stat(folder / JOURNAL)
    ):
        raise FileExistsError(f"{folder} has just been finished by another process: look at what it wrote.")


def _read(path):
    """The work that a journal tells of, None if it was not even begun."""
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    # what follows the last end of a line was cut by the end of the process
    entries = [json.loads(line) for line in lines[:-1] if _is_json(line)]
    if not entries:
        return None
    facts, *parts = entries
    if facts.get("skenigma_journal") != VERSION:
        raise FileExistsError(
            f"{path} is a journal of another version of skenigma: remove {path.parent}, or choose another name."
        )
    # of a part that was written again the last line counts
    return Work(path.with_name(RESULT), facts, {entry["part"]: entry["sha256"] for entry in parts})


def _is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _ends_a_line(file):
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _kept(error, work, remedies):
    """The same error, with a word on what is kept."""
    full = error.errno in FULL
    what = "the disk is full" if full else f"no more can be written, {error.strerror or error}".rstrip(".")
    first = "Make room, and" if full else "When that is fixed,"
    message = (
        f"{what}: {work} are complete, and kept in {work.folder}. {first} "
        f"{remedies.again}, which continues from there."
    )
    return OSError(message)


def _finish(work, target, is_own):
    """Give a whole result its name."""
    if not target.exists():
        rename_new(work.path, target)
    elif not any(target.iterdir()):
        os.rename(work.path, target)
    else:
        _key_of(target, is_own)  # it may have changed meanwhile
        if not exchange(work.path, target):
            rename_new(target, work.folder / REPLACED)
            rename_new(work.path, target)


def _is_left(folder, key):
    """Whether a folder is what a process left of a result that has its name, and no other is at work there."""
    try:
        with open(folder / JOURNAL, "r+b") as file:
            _lock(file, folder)
            work = _read(folder / JOURNAL)
    except (FileNotFoundError, NotADirectoryError, FileExistsError):  # none, in use or of another version
        return False
    return work is None or work.facts["key"] == key


def _clean_up(folder):
    """Remove what is left in the folder of a result that has its name."""
    if not (folder / JOURNAL).is_file():
        return
    for name in (RESULT, REPLACED):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / JOURNAL).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
