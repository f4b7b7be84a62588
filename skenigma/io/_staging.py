"""Writing whole or not at all: beside the target under a hidden name first, then renamed.

What is staged has the hidden name ``.NAME.….unfinished`` while it is written and ``.NAME.….complete`` from then to
its rename. A result that a new one has replaced is ``.NAME.….replaced`` until it is removed. So whatever is left by a
process that was killed is called what it is.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .._typing import PathLike
from ._places import find_place
from ._renames import exchange, rename_new
from ._runs import file_states, own_files, remove_files
from ._signals import held_signals, raise_lost_signal

UNFINISHED, COMPLETE, REPLACED = "unfinished", "complete", "replaced"
LONGEST_NAME = 180  # bytes of the name in a hidden one, which must not be too long where the name is not
# what a rename answers where something is in its way
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)


@contextmanager
def staged_file(
    path: PathLike, *, force: bool = False, replaceable: Callable | None = None, done: Callable | None = None
) -> Iterator[Path]:
    """Write a file beside its place, and move it there when all went well.

    Parameters
    ----------
    path : str or path-like
        Where the file is to be; a symbolic link is followed.
    force : bool, default=False
        Whether a file that is there may be replaced.
    replaceable : callable, default=None
        Called with the path of a file that would be replaced, at first and again in the end; whether it may be. None
        allows any.
    done : callable, default=None
        Called with the path as soon as the file is there, before a signal can say otherwise.

    Yields
    ------
    staged : Path
        What to write to: a file in the same folder with the same end of the name. It is removed if the block raises.

    Raises
    ------
    FileExistsError
        If the file is there and must not be replaced, at first or in the end.
    OSError
        If the folder cannot be written to.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import staged_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with staged_file(pathlib.Path(folder, "answer.txt")) as staged:
    ...         _ = staged.write_text("42")
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['answer.txt']
    """
    target = find_place(path)
    if target.exists():
        _check_replaceable_file(target, force, replaceable)
    with _staging_folder(target) as folder:
        staged = folder / target.name
        yield staged
        with held_signals():
            raise_lost_signal()
            _move_file(staged, target, force, replaceable)
            (done or _nothing)(target)


@contextmanager
def staged_folder(
    path: PathLike, *, force: bool = False, keep: Sequence[PathLike] = (), done: Callable | None = None
) -> Iterator[Path]:
    """Fill a folder beside its place, and move it there when all went well.

    Parameters
    ----------
    path : str or path-like
        Where the folder is to be: a free name or an empty folder. A symbolic link is followed.
    force : bool, default=False
        Whether the folder of an earlier run may be replaced. Only one that holds nothing but what runs wrote, as they
        wrote it, ever is.
    keep : sequence of str or path-like, default=()
        Files that must survive: if one of them lies in the folder that would be replaced, nothing is done.
    done : callable, default=None
        Called with the path of the finished folder as soon as it is there, before a signal can say otherwise.

    Yields
    ------
    staged : Path
        Folder to write to. It is removed if the block raises.

    Raises
    ------
    FileExistsError
        If the folder is there and must not be replaced, at first or in the end. In the end, what was written is kept
        under another name, which the message tells.
    OSError
        If the folder cannot be written to.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import staged_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = pathlib.Path(folder, "run")
    ...     with staged_folder(target) as staged:
    ...         _ = (staged / "table.tsv").write_text("gene")
    ...         unfinished = target.exists()
    ...     unfinished, sorted(path.name for path in target.iterdir())
    (False, ['table.tsv'])
    """
    target = find_place(path)
    there = target.exists()
    states = _check_replaceable_folder(target, force, keep) if there else None
    with _staging_folder(target) as staged:
        yield staged
        with held_signals():
            raise_lost_signal()
            _move_folder(staged, target, there, states if force else None, force, done or _nothing)


def hidden_complete(path):
    """Whole results that processes which were killed left beside ``path``."""
    target = Path(os.path.realpath(path))
    mark = secrets.token_hex(4)
    pattern = re.escape(_hidden_name(target, COMPLETE, mark)).replace(mark, "[0-9a-f]{8}")
    with suppress(OSError):
        return sorted(found for found in target.parent.iterdir() if re.fullmatch(pattern, found.name))
    return []


def _nothing(path):
    """What is called if nobody wants to know."""


def _check_replaceable_file(target, force, replaceable):
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder, a file is needed.")
    if not force:
        raise FileExistsError(f"{target} exists already: choose another name, or replace it with --force.")
    if not stat.S_ISREG(target.stat().st_mode):
        raise FileExistsError(f"{target} is not a regular file, and is never replaced: choose another name.")
    if replaceable is not None and not replaceable(target):
        raise FileExistsError(
            f"{target} is not what an earlier run left, or was changed since, and is never replaced: choose another "
            f"name, or remove it yourself."
        )


def _check_replaceable_folder(target, force, keep):
    """States of the files that would be replaced; refused if there is anything else."""
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file; a folder is to be written: choose another name.")
    if any(target.iterdir()) and not force:
        raise FileExistsError(f"{target} exists already: choose another name, or replace it with --force.")
    inside = [str(kept) for kept in keep if _lies_in(kept, target)]
    if inside:
        raise FileExistsError(f"{target} holds {inside[0]}, which is read here: choose another name.")
    if _lies_in(Path.cwd() / "any", target):
        raise FileExistsError(f"{target} is the working folder, or contains it: choose a name inside it.")
    states = own_files(target)
    _check_rights(target, states)
    return states


def _lies_in(path, folder):
    """Whether a path lies in a folder, by whatever name."""
    parents = Path(os.path.realpath(path)).parents
    return any(parent.exists() and os.path.samefile(parent, folder) for parent in parents)


def _check_rights(target, states):
    """Refuse a folder that the system would not let go in the end."""
    inner = {target / name for name in states} | {target}
    locked = [path for path in {*(path.parent for path in inner), target} if not os.access(path, os.W_OK)]
    parent = target.parent.stat()
    sticky = os.name == "posix" and parent.st_mode & stat.S_ISVTX
    if sticky and os.geteuid() not in (0, parent.st_uid, target.stat().st_uid):
        locked.append(target)
    if locked:
        raise PermissionError(errno.EACCES, "No right to replace it", str(sorted(locked)[0]))


@contextmanager
def _staging_folder(target):
    """A hidden folder beside the target; it and the folders made for it are gone in the end, if it is still there."""
    made, staged = [], None
    try:
        with held_signals():
            made = [parent for parent in target.parents if not parent.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = _hidden_folder(target)
        yield staged
    finally:
        with held_signals():
            if staged is not None:
                shutil.rmtree(staged, ignore_errors=True)
            for parent in made:
                with suppress(OSError):  # what holds something stays
                    parent.rmdir()


def _hidden_name(target, word, mark):
    name = target.name
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[:-1]
    return f".{name}.{mark}.{word}"


def _hidden(target, word):
    """A hidden name beside the target that nobody has."""
    return target.with_name(_hidden_name(target, word, secrets.token_hex(4)))


def _hidden_folder(target):
    """A new folder of that kind, with the rights that any new folder gets here."""
    while True:
        folder = _hidden(target, UNFINISHED)
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def _move_file(staged, target, force, replaceable):
    """Put a staged file in its place."""
    try:
        rename_new(staged, target)
    except FileExistsError:
        _check_replaceable_file(target, force, replaceable)
        _sync(staged)
        if not exchange(staged, target):
            os.replace(staged, target)
        elif replaceable is not None and not replaceable(staged):  # it has changed since the look at it
            exchange(staged, target)
            _check_replaceable_file(target, force, replaceable)


def _move_folder(staged, target, there, states, force, done):
    """Put a staged folder in its place, or keep it beside that."""
    whole, old = staged, None
    try:
        if there:
            _take_over(target, staged)
        whole = _hidden(target, COMPLETE)
        os.rename(staged, whole)
        old, states = _settle(whole, target, there, states, force)
    except OSError as error:
        kept = _keep(whole, target)
        done(kept)
        reason = str(error) if error.errno is None else f"{error.strerror}: {target}"
        raise type(error)(f"{reason.rstrip('.')}. The results are complete, and are in {kept}.") from error
    done(target)
    if old is not None and not remove_files(old, states):
        warnings.warn(f"The old result could not be removed; what is left of it is in {old}.", stacklevel=2)


def _settle(whole, target, there, states, force):
    """Rename the whole to the target; returns where the old result is now, if there was one, and its files."""
    try:
        if there:
            _rename_over_empty(whole, target)
        else:
            rename_new(whole, target)
        return None, None
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        if not force:
            raise FileExistsError(
                f"{target} was made while the results for it were computed, and is not replaced"
            ) from error
    return _replace(whole, target, states)


def _rename_over_empty(whole, target):
    """Rename over an empty folder; an OSError if it holds anything."""
    if os.name == "nt":
        with suppress(FileNotFoundError):
            os.rmdir(target)
    os.rename(whole, target)


def _replace(whole, target, states):
    """Put the whole in place of an old result; returns where that is now, and its files."""
    _sync(whole)
    _check_is_folder(target)
    if exchanged := exchange(whole, target):
        old, back = whole, exchange
    else:
        old, back = _hidden(target, COMPLETE), rename_new
        rename_new(target, old)
    try:
        # what counts is what was there in the end; nobody finds it by its old name any more
        _check_is_folder(old, target)
        if file_states(old) != states:
            states = own_files(old, target)
        if not exchanged:
            rename_new(whole, target)
    except BaseException:
        back(old, target)
        raise
    with suppress(OSError):
        old = old.rename(_hidden(target, REPLACED))
    return old, states


def _check_is_folder(path, shown=None):
    if path.is_symlink() or not path.is_dir():
        raise FileExistsError(f"{shown or path} is no longer a folder")


def _keep(whole, target):
    """Give a whole result whose place is taken the next free name; returns where it is."""
    for number in range(2, 1000):
        kept = target.with_name(f"{target.name}.{number}")
        try:
            rename_new(whole, kept)
            return kept
        except FileExistsError:
            continue
        except OSError:
            break
    return whole


def _take_over(target, staged):
    """Group and rights of the folder that is replaced: someone chose them."""
    with suppress(OSError, AttributeError):
        os.chown(staged, -1, target.stat().st_gid)
    with suppress(OSError):
        staged.chmod(stat.S_IMODE(target.stat().st_mode))


def _sync(path):
    """Have it on the disk before what it replaces is removed."""
    for file in [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]:
        descriptor = os.open(file, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
