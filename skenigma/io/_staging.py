"""Writing whole or not at all: beside the target under a hidden name first, then renamed."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

RECORD = "run.json"


@contextmanager
def staged_file(path, *, force=False):
    """Write a file beside its place, and move it there when all went well.

    Parameters
    ----------
    path : str or path-like
        Where the file is to be.
    force : bool, default=False
        Whether a file that is there may be replaced.

    Yields
    ------
    staged : Path
        What to write to: a file in the same folder with the same end of the name. It is removed if the block raises.

    Raises
    ------
    FileExistsError
        If the file is there and `force` is False.
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
    path = Path(path).absolute()
    _refuse_existing(path, force)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, a file is needed.")
    with _made_parents(path):
        folder = _hidden_folder(path)
        try:
            yield folder / path.name
            os.replace(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_folder(path, *, force=False, keep=()):
    """Fill a folder beside its place, and move it there when all went well.

    Parameters
    ----------
    path : str or path-like
        Where the folder is to be.
    force : bool, default=False
        Whether a folder that is there may be replaced. Only one that is empty or holds a ``run.json`` is ever
        replaced.
    keep : sequence of str or path-like, default=()
        Files that must survive: if one of them lies in the folder that would be replaced, nothing is done.

    Yields
    ------
    staged : Path
        Folder to write to. It is removed if the block raises.

    Raises
    ------
    FileExistsError
        If the folder is there and must not be replaced.
    OSError
        If the folder cannot be written to.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import staged_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = pathlib.Path(folder, "run")
    ...     with staged_folder(target) as staged:
    ...         _ = (staged / "run.json").write_text("{}")
    ...         unfinished = target.exists()
    ...     unfinished, sorted(path.name for path in target.iterdir())
    (False, ['run.json'])
    """
    path = Path(path).absolute()
    _refuse_existing(path, force)
    _refuse_foreign(path, keep)
    with _made_parents(path):
        staged = _hidden_folder(path)
        try:
            yield staged
            _move_in(staged, path)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _refuse_existing(path, force):
    empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not force and not empty:
        raise FileExistsError(f"{path} exists already: choose another name, or replace it with --force.")


def _refuse_foreign(path, keep):
    """Refuse to replace what no run of skenigma made, or what this one reads."""
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file; a folder is to be written: choose another name.")
    if any(path.iterdir()) and not (path / RECORD).is_file():
        raise FileExistsError(
            f"{path} holds no {RECORD}, so it is not the folder of an earlier run and is never replaced: choose "
            f"another name, or remove it yourself."
        )
    inside = [str(kept) for kept in keep if path.resolve() in Path(kept).resolve().parents]
    if inside:
        raise FileExistsError(f"{path} holds {inside[0]}, which is read here: choose another name.")


@contextmanager
def _made_parents(path):
    """The folders above ``path``, made where missing; those made are removed again if the block raises."""
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _hidden_folder(path):
    """A new folder beside ``path`` with the rights that any new folder gets."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".unfinished", dir=path.parent))
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    return folder


def _move_in(staged, path):
    """Put the staged folder in its place; what was there comes back if that fails."""
    if not path.exists():
        os.rename(staged, path)
        return
    old = _hidden_folder(path)
    os.rename(path, old / path.name)
    try:
        os.rename(staged, path)
    except BaseException:
        os.rename(old / path.name, path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
