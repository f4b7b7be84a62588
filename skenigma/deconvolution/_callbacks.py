"""Who is told of every iteration: the progress, and scikit-learn's callbacks, which exist from version 1.9 on."""

from contextlib import contextmanager

from ..progress import task

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in under older scikit-learn: fits run without callbacks."""


@contextmanager
def iteration_monitor(estimator, X, max_iterations):
    """Report every iteration of a fit to the progress and to the callbacks set on ``estimator``.

    Parameters
    ----------
    estimator : estimator
    X : array-like
        What ``fit`` was given.
    max_iterations : int
        Most iterations there can be.

    Yields
    ------
    report : callable
        To be called after each iteration; a true answer asks to stop. Where there is none to expect, it has a true
        attribute ``only_watches``.
    """
    with task(f"{type(estimator).__name__}, at most {max_iterations:,} iterations") as count:
        if not getattr(estimator, "_skl_callbacks", None):
            # not what a display returns, which would ask to stop
            report = lambda: count() and False  # noqa: E731
            report.only_watches = True
            yield report
            return
        fit = estimator._init_callback_context(max_subtasks=max_iterations)
        fit.call_on_fit_task_begin(estimator=estimator, X=X)

        def report():
            count()
            iteration = fit.subcontext(task_name="iteration")
            iteration.call_on_fit_task_begin(estimator=estimator, X=X)
            return iteration.call_on_fit_task_end(estimator=estimator, X=X)

        yield report
        fit.call_on_fit_task_end(estimator=estimator, X=X)
