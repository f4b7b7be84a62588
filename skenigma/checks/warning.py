"""Warnings that point at the user's line, however deep in the package they arise."""

import sys
import warnings

# What lies between a user's line and a warning: this package, and what wraps its methods.
INSIDE = {"skenigma", "sklearn", "joblib"}


def warn(message, category=UserWarning):
    """Warn at the innermost line that is not of this package or of one that wraps its methods.

    A fixed ``stacklevel`` would be right for one way in only: ``fit``, ``fit_transform`` and functions that fit pass
    through different numbers of frames.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame) in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def is_called_by(module):
    """Whether the user's line called this through a module of another package, such as a search of scikit-learn."""
    frame = sys._getframe(1)
    while frame is not None and _package(frame) in INSIDE:
        if frame.f_globals["__name__"].startswith(module):
            return True
        frame = frame.f_back
    return False


def _package(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]
