"""Where a result is to be, whatever links lead there."""

import os
from contextlib import suppress
from pathlib import Path


def find_place(path):
    """Where a path leads; refused if nothing can be there."""
    path = Path(path).absolute()
    with suppress(FileNotFoundError):
        path.lstat()  # among others, a name that is too long
    target = Path(os.path.realpath(path))
    if path.is_symlink() and not target.exists() and (target.is_symlink() or not target.parent.is_dir()):
        raise FileNotFoundError(
            f"{path} is a symbolic link to {os.readlink(path)}, which is not there: make that folder, or choose "
            f"another name."
        )
    if os.path.ismount(target):
        raise FileExistsError(f"{path} is where a file system is mounted: choose a name inside it.")
    return target
