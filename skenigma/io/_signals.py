"""Signals that ask the process to end: they wait while a step must not be cut in two."""

import signal
import threading
import time
from contextlib import contextmanager

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds in which a second signal is taken for the same request: it must not cut the tidying up.
ONE_REQUEST = 1.0


class Terminated(BaseException):
    """The process was asked to end."""


class _State:
    """What the handler shares with the blocks; the handler runs between any two steps of the main thread."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.active, self.held, self.waiting, self.raised, self.time = False, 0, [], None, 0.0


_state = _State()


def _end(number, frame):
    """Handler: raise what unwinds the process, or wait."""
    if _state.held:
        _state.waiting.append(number)
        return
    if _state.raised is not None and time.monotonic() - _state.time < ONE_REQUEST:
        return
    _state.raised, _state.time = number, time.monotonic()
    raise _exception(number)


def _exception(number):
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated()


@contextmanager
def ending_signals(final=False):
    """Let a request to end the process unwind it, so that nothing half-written stays.

    Parameters
    ----------
    final : bool, default=False
        Whether nothing follows the block but the end of the process: signals are then ignored after it, because its
        outcome is settled.

    Yields
    ------
    raised : callable
        Number of the signal that has ended the block, None if none has. Libraries may make another exception of that
        which it raised, or lose it.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        _state.clear()
        # what is ignored, under nohup or in the background, stays so; None is a handler that is not Python's
        before = {
            number: handler
            for number in ENDING
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
        }
    try:
        _state.active = True
        for number in before:
            signal.signal(number, _end)
        yield lambda: _state.raised
    finally:
        _state.held += 1  # none may cut this short
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if final else handler)
        _state.clear()


@contextmanager
def held_signals():
    """Let signals wait until the block has ended.

    They are delivered then, unless the block raised: the process ends for that reason.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only, and cut nothing here
        return
    _state.held += 1
    before = {}
    try:
        if _state.held == 1:
            _state.waiting.clear()
            before = {
                number: handler
                for number in ENDING
                if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None, _end)
            }
            for number in before:
                signal.signal(number, _end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.held -= 1
    if not _state.held and _state.waiting:
        signal.raise_signal(_state.waiting.pop(0))


def raise_lost_signal():
    """Raise again what a signal raised and a library lost: an exception cannot leave every callback."""
    if _state.active and _state.raised is not None:
        raise _exception(_state.raised)
