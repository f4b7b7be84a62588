"""What the command line says: all on stderr, so that stdout holds the summary alone."""

import sys
import time
import warnings
from contextlib import contextmanager, nullcontext

from ..progress import watching
from ._streams import visible, write_message

# Often enough for the eye, seldom enough to cost short steps nothing.
SECONDS_BETWEEN_UPDATES = 0.1


class Console:
    """Lines on stderr.

    Parameters
    ----------
    quiet : bool, default=False
        Whether to show warnings and errors only.

    Attributes
    ----------
    warnings : list of str
        Those shown, for the record.
    written : Path or None
        Where the results are, as soon as they are complete: what is said of a signal or an error depends on it.
    kept : Path or None
        What a repeat of the command goes on with, in ``NAME.unfinished`` or whole.
    """

    def __init__(self, quiet=False):
        self.quiet = quiet
        self.warnings = []
        self.written = None
        self.kept = None

    def say(self, line=""):
        """Show a line, unless quiet."""
        if not self.quiet:
            self._show(line)

    def facts(self, facts):
        """Show pairs of a name and a text in two columns."""
        width = max((len(name) for name, _ in facts), default=0)
        for name, text in facts:
            self.say(f"  {name:<{width}}  {text}")

    def warn(self, message):
        """Show a warning in one line, once, and keep it for the record."""
        message = one_line(message)
        if message not in self.warnings:
            self.warnings.append(message)
            self._show(f"skenigma: warning: {message}")

    def error(self, message):
        """Show an error in one line."""
        self._show(f"skenigma: error: {one_line(message)}")

    def has_written(self, path):
        """Note that the results are complete."""
        self.written = path

    def keeps(self, path):
        """Note where something is written that outlives the end of the process."""
        self.kept = path

    def traceback(self, text):
        """Show where in the code an error arose."""
        for line in text.splitlines():
            self._show(line)

    @contextmanager
    def progress(self):
        """Show on a terminal how far what takes long has come, in one line."""
        with watching(Counter) if self._is_watched() else nullcontext():
            yield

    def _is_watched(self):
        return sys.stderr is not None and sys.stderr.isatty() and not self.quiet

    @contextmanager
    def counted_blocks(self):
        """Count blocks of samples that are written in one line of the terminal.

        Yields
        ------
        progress : callable or None
            Takes the number of blocks that are written, and of all; None where nobody looks.
        """
        if not self._is_watched():
            yield None
            return
        counter = BlockCounter()
        try:
            yield counter
        finally:
            write_message("\r\033[K")

    @contextmanager
    def shown_warnings(self):
        """Show Python's warnings as lines: those that speak of data and fits."""
        from sklearn.exceptions import ConvergenceWarning  # here, because scikit-learn takes a second to load

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for category in (UserWarning, RuntimeWarning, ConvergenceWarning):
                warnings.simplefilter("always", category)
            warnings.showwarning = lambda message, *place, **more: self.warn(message)
            yield

    def _show(self, line):
        write_message(visible(line) + "\n")


class Counter:
    """How far a task has come, in one line of the terminal: nothing that an extra would have to bring.

    Parameters
    ----------
    description : str
    total : int or None
        Number of steps, where it is known.
    """

    def __init__(self, description, total):
        self.description, self.total = description, total
        self.count, self.start, self.shown = 0, time.monotonic(), 0.0

    def update(self):
        """Count a step."""
        self.count += 1
        now = time.monotonic()
        if now - self.shown > SECONDS_BETWEEN_UPDATES:
            self.shown = now
            of = "" if self.total is None else f" of {self.total:,}"
            write_message(f"\r  {self.description}: {self.count:,}{of}, {now - self.start:.1f} s\033[K")

    def close(self):
        """Leave the line empty."""
        write_message("\r\033[K")


class BlockCounter:
    """Counts blocks in one line of the terminal."""

    def __init__(self):
        self.start, self.shown = time.monotonic(), 0.0

    def __call__(self, number, n_blocks):
        now = time.monotonic()
        if now - self.shown > SECONDS_BETWEEN_UPDATES:
            self.shown = now
            line = f"  block {number:,} of {n_blocks:,} written, {now - self.start:.1f} s"
            write_message(f"\r{line}\033[K")


def one_line(message):
    """A message without line breaks."""
    return " ".join(str(message).split())
