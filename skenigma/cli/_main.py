"""Entry point: parse, run, and turn what goes wrong into one line and an exit code."""

import errno
import signal
import sys
import traceback
from functools import partial

from ..io._journal import progress_of, unfinished
from ..io._signals import Terminated, ending_signals, held_signals
from ._console import Console
from ._parser import build_parser, find_command
from ._streams import encodable, ready_streams, write_output
from ._usage import UsageError

# The last two are 128 and the number of the signal, as shells have it.
FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments after the name of the program; None takes them from ``sys.argv``, and leaves signals ignored in the
        end, when only the exit code is still to be returned.

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
    ready_streams()
    console = Console()
    given: dict = {}
    with ending_signals(final=argv is None) as raised:
        try:
            # within the handlers already: a signal may arrive while modules are loaded
            if (code := _parse(argv, given)) is None:
                code = _run(given, console)
            return code
        except BaseException as error:  # all end in one line, and none is lost: --debug shows it
            with held_signals():
                return _explain(error, raised(), given, console)


def _parse(argv, given):
    """Put the options into ``given``; an exit code if that is all."""
    try:
        given.update(vars(build_parser().parse_args(argv)))
    except SystemExit as stop:  # after help, or an error of usage
        write_output("")
        return stop.code or 0
    return None


def _run(given, console):
    """Run the command; returns the exit code."""
    # what computes is loaded when there is something to compute
    from ._job import execute
    from ._record import to_json

    options = dict(given)
    command = find_command(options.pop("command"))
    console.quiet = given.get("quiet", False)
    if given.get("json") and sys.stdout is None:
        raise UsageError("--json prints on stdout, which is closed")
    with console.shown_warnings():
        # the report is no job: it writes no folder
        run = getattr(command, "execute", None) or partial(execute, command)
        code, summary = run(options, console)
    if given.get("json"):
        # a terminal may lack letters that names have
        text = to_json(summary)
        _print((text if encodable(text) else to_json(summary, ascii_only=True)) + "\n")
    return code


def _print(text):
    try:
        write_output(text)
    except OSError as error:
        raise OSError(f"the summary cannot be written to stdout: {error}") from error


def _explain(error, number, given, console):
    """Show what ended the run in one line; returns the exit code.

    ``number`` is that of a signal, if one was raised: what then arrives here can be anything, since libraries turn
    an exception that passes through their callbacks into others.
    """
    if given.get("debug"):
        console.traceback("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    if number == signal.SIGINT or (number is None and isinstance(error, KeyboardInterrupt)):
        console.error(f"interrupted: {_outcome(console)}")
        return INTERRUPTED
    if number is not None or isinstance(error, Terminated):
        console.error(f"terminated: {_outcome(console)}")
        return TERMINATED
    if isinstance(error, UsageError):
        console.error(f"{error} (see skenigma {given['command']} --help)")
        return MISUSED
    if not isinstance(error, Exception):
        raise error
    message = _sentence(error, console)
    if console.written is not None and str(console.written) not in message:
        message = f"{message.rstrip('.')}. The results are complete, and are in {console.written}."
    console.error(message)
    return FAILED


def _outcome(console):
    if console.written is None and console.kept is not None and (folder := unfinished(console.kept)):
        return (
            f"{progress_of(folder)} of the expression are kept in {folder}: the same command continues there"
        )
    if console.written is None:
        return "nothing was written"
    return f"the results were complete by then, and are in {console.written}"


def _sentence(error, console):
    """What an error says, or what it means."""
    match error:
        case OSError():
            return _system_error(error, console)
        case MemoryError():
            return f"not enough memory: {error or 'an array is too large for this machine'}"
        # what this package refuses, in a sentence for users; all else is a defect
        case ValueError() | ImportError():
            return str(error)
    return (
        f"unexpected {type(error).__name__}: {error}. This is a bug in skenigma: please report it, with the "
        f"output of --debug."
    )


def _system_error(error, console):
    """Sentence on an error of the operating system."""
    if error.errno is None or not error.strerror:
        return str(error)  # raised here, with a sentence of its own
    if error.errno in FULL:
        what = (
            "the disk is full" if error.errno == errno.ENOSPC else f"no more can be written, {error.strerror}"
        )
        return f"{what}{_place(error)}: {_outcome(console)}. Make room, or choose another --out."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}{_place(error)}: choose a place where you have permission to read and write."
    return f"{error.strerror}{_place(error)}"


def _place(error):
    return f" ({error.filename})" if error.filename else ""
