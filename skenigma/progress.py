"""Progress of what takes long, in a notebook or a terminal; off unless it is asked for.

What takes long opens a :func:`task` and counts; who wants to see it says so by :func:`show_progress`, or, as the
command line does, by :func:`watching` with a display of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .checks.optional import import_optional

__all__ = ["show_progress"]

# Makes a display of a task, or None where nobody looks. A variable of the context: other threads show nothing.
_DISPLAY: ContextVar[Callable | None] = ContextVar("display", default=None)


@contextmanager
def show_progress(**options: Any) -> Iterator[None]:
    """Show progress bars inside a ``with`` block.

    Bars show the iterations of the models that are fitted by iteration, the settings of
    :class:`~skenigma.L2MaxDeconvolverCV`, the cohorts of :func:`~skenigma.reliability.bootstrap_reliability`,
    and the cell types that :func:`skenigma.anndata.deconvolve` writes. It works in terminals and in
    notebooks, where the package ipywidgets turns it into a widget.

    Parameters
    ----------
    **options : dict
        Passed to ``tqdm``, such as ``file``, where to write (by default to stderr), or ``mininterval``, the seconds
        between updates.

    Yields
    ------
    None

    Raises
    ------
    ImportError
        If tqdm is not installed, which ``pip install 'skenigma[progress]'`` brings.

    Notes
    -----
    The number of iterations until convergence is not known beforehand, so the bar of a fit counts without a
    known end. Work inside another task, such as the fits of a bootstrap, has no separate bar; neither have
    fits in other threads and processes. Without the ``with`` block nothing is shown, and tqdm is not
    imported.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver, show_progress
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> with show_progress():
    ...     model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
    """
    tqdm = import_optional("tqdm.auto", "progress", "show_progress").tqdm
    with watching(lambda description, total: tqdm(desc=description, total=total, **options)):
        yield


@contextmanager
def watching(display):
    """Let tasks be shown by ``display(description, total)``, which returns what has ``update()`` and ``close()``."""
    token = _DISPLAY.set(display)
    try:
        yield
    finally:
        _DISPLAY.reset(token)


@contextmanager
def task(description, total=None):
    """Something that takes long.

    Parameters
    ----------
    description : str
        What is done, for whoever looks.
    total : int or None, default=None
        How many steps it has; None where that is not known.

    Yields
    ------
    count : callable
        To be called after each step.
    """
    display = _DISPLAY.get()
    if display is None:
        yield _nothing
        return
    token = _DISPLAY.set(None)  # tasks inside are part of this one
    shown = display(description, total)
    try:
        yield shown.update
    finally:
        shown.close()
        _DISPLAY.reset(token)


def _nothing():
    """Count the steps of a task that nobody looks at."""
