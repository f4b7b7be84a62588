"""The bridge to scikit-learn's callbacks, which exist from version 1.9 on."""

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in under older scikit-learn: fits run without callbacks."""


def iteration_monitor(estimator, X, max_iterations):
    """Report every iteration of a fit to the callbacks set on ``estimator``.

    Parameters
    ----------
    estimator : estimator
    X : array-like
        What ``fit`` was given.
    max_iterations : int
        Most iterations there can be.

    Returns
    -------
    report : callable
        To be called after each iteration; a true answer asks to stop.
    finish : callable
        To be called once, after the last.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        return (lambda: False), (lambda: None)
    fit = estimator._init_callback_context(max_subtasks=max_iterations)
    fit.call_on_fit_task_begin(estimator=estimator, X=X)

    def report():
        iteration = fit.subcontext(task_name="iteration")
        iteration.call_on_fit_task_begin(estimator=estimator, X=X)
        return iteration.call_on_fit_task_end(estimator=estimator, X=X)

    return report, lambda: fit.call_on_fit_task_end(estimator=estimator, X=X)
