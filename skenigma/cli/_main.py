"""Entry point: parse, run, and turn what goes wrong into one line and an exit code."""

import errno
import os
import signal
import sys
import threading
from contextlib import contextmanager

from . import _report
from ._console import Console
from ._job import UsageError, execute
from ._parser import COMMANDS, build_parser
from ._record import to_json

FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143


class Terminated(BaseException):
    """The process was asked to end."""


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments after the name of the program; None takes them from ``sys.argv``.

    Returns
    -------
    code : int
        0 if all went well, 1 if the data or the machine did not allow it, 2 if the arguments were not understood, 3
        if a repeat differs from the recorded run, 130 if interrupted, 143 if terminated.

    Examples
    --------
    >>> from skenigma.cli import main
    >>> main(["--version"])
    skenigma ...
    0
    """
    _tolerate_ascii()
    try:
        given = vars(build_parser().parse_args(argv))
    except SystemExit as stop:
        return stop.code or 0
    command = COMMANDS[given.pop("command")]
    console = Console(given.get("quiet", False))
    try:
        with _ended_by_signal(), console.shown_warnings():
            run = _report.execute if command is _report else lambda *args: execute(command, *args)
            code, summary = run(given, console)
    except BaseException as error:  # all end in one line, and none is lost: --debug shows it
        if given.get("debug"):
            raise
        return _explain(error, command, console)
    if given.get("json"):
        _print(to_json(summary))
    return code


def _explain(error, command, console):
    """Show an error in one line; returns the exit code."""
    match error:
        case KeyboardInterrupt():
            console.error("interrupted: nothing was written")
            return INTERRUPTED
        case Terminated():
            console.error("terminated: nothing was written")
            return TERMINATED
        case UsageError():
            console.error(f"{error} (see skenigma {command.NAME} --help)")
            return MISUSED
        case OSError():
            console.error(_system_error(error))
        case MemoryError():
            console.error(f"not enough memory: {error or 'an array is too large for this machine'}")
        case ValueError() | ImportError():
            console.error(error)
        case Exception():
            console.error(
                f"unexpected {type(error).__name__}: {error}. This is a defect of skenigma: please report it, with "
                f"what --debug shows."
            )
        case _:
            raise error
    return FAILED


def _system_error(error):
    """Sentence on an error of the operating system."""
    if error.errno is None or not error.strerror:
        return str(error)  # raised here, with a sentence of its own
    if error.errno == errno.ENOSPC:
        return f"the disk is full{_place(error)}: nothing was written. Make room, or choose another --out."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}{_place(error)}: choose a place that you may read and write."
    return f"{error.strerror}{_place(error)}"


def _place(error):
    return f" ({error.filename})" if error.filename else ""


@contextmanager
def _ended_by_signal():
    """Let a request to end the process unwind it, so that nothing half-written stays."""

    def end(number, frame):
        raise Terminated

    # signals can be handled in the main thread only
    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # under nohup a hang-up is ignored, and stays so
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tolerate_ascii():
    """Show a question mark for what the terminal has no letter for, and do not fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _print(text):
    """Print on stdout, also where its reader is gone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # what is left in the buffer must not fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
