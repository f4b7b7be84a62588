"""Renames that the standard library lacks: one that replaces nothing, and one that exchanges two names."""

import ctypes
import errno
import os
import sys
from contextlib import suppress
from functools import cache

# How the systems that have such renames call them.
CALLS = {"linux": "renameat2", "darwin": "renamex_np"}
FLAGS = {"linux": {"new": 1, "exchange": 2}, "darwin": {"new": 4, "exchange": 2}}
HERE = -100  # AT_FDCWD: paths are relative to the working folder
# What a kernel, a file system or a container answers that does not know the call. Where EINVAL or EPERM have another
# cause, the ordinary calls that follow fail for it.
UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}


def rename_new(source, target):
    """Give a file or folder a free name.

    Parameters
    ----------
    source, target : path-like
        On one file system.

    Raises
    ------
    FileExistsError
        If anything has that name, be it an empty folder. Two processes that ask for one name at once do not both get
        it.
    OSError
        If the system refuses.
    """
    if not _renamed(source, target, "new"):
        _rename_claimed(source, target)


def exchange(source, target):
    """Exchange the names of two files or folders, so that at no moment one of them is missing.

    Returns
    -------
    done : bool
        False where the system or the file system cannot; nothing has changed then.
    """
    return _renamed(source, target, "exchange")


def _renamed(source, target, kind):
    """Whether the system's own call did it; an OSError if it knows the call and refused."""
    call = _call()
    if call is None:
        return False
    flag = FLAGS[sys.platform][kind]
    if call(os.fsencode(source), os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))


@cache
def _call():
    """The system's rename with flags, as a function of source, target and flag; None where there is none."""
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), CALLS[sys.platform])
    except (KeyError, OSError, TypeError, AttributeError):
        return None
    if sys.platform == "darwin":
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)
        return function
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return lambda source, target, flag: function(HERE, source, HERE, target, flag)


def _rename_claimed(source, target):
    """The same by what every system has: the name is claimed first, by a call that fails where it is taken."""
    if os.name == "nt":
        os.rename(source, target)  # replaces nothing there
    elif os.path.isdir(source):
        os.mkdir(target)
        _rename_over_claim(source, target, os.rmdir)  # an empty folder is all that this replaces
    else:
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            _rename_over_claim(source, target, os.unlink)
        else:
            os.unlink(source)


def _rename_over_claim(source, target, unclaim):
    try:
        os.rename(source, target)
    except BaseException:
        with suppress(OSError):
            unclaim(target)
        raise
