"""Standard output and error as they may be: closed, full, a pipe that nobody reads, of few letters."""

import contextlib
import os
import sys


def ready_streams():
    """Make both fit for any text, and see that no file is opened in place of one that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number is taken; what libraries write to it must not reach a file of results
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a question mark for what the terminal has no letter for
            stream.reconfigure(errors="replace")


def write_message(text):
    """Write to stderr if anyone is there; what is said is less than what is done, so no failure counts."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # a ValueError if it is closed
        _abandon(sys.stderr)


def write_output(text):
    """Write to stdout; an OSError if it cannot be, but not if its reader has gone, who wants no more."""
    try:
        if sys.stdout is None:
            raise OSError("stdout is closed")
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon(sys.stdout)
    except (OSError, ValueError) as error:
        _abandon(sys.stdout)
        raise OSError(getattr(error, "strerror", None) or str(error)) from error


def encodable(text):
    """Whether stdout has all letters of a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def visible(text):
    """A text whose control characters are shown, not obeyed: names come from files, and may hold any."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter):
    return letter.encode("unicode_escape").decode("ascii")


def _abandon(stream):
    """Send what is left in a buffer nowhere, so that it does not fail again when Python ends."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
