"""Display of the loss terms of a fit."""

import numpy as np
from sklearn.utils import check_array

from .._docstrings import filled
from .._parameters import set_parameters
from .._stored import Deconvolved
from ..checks.numbers import refuse_masked
from ._style import (
    ENTRIES,
    LINE_STYLES,
    NEGLIGIBLE,
    check_columns,
    figure_and_axes,
    fitted_history,
    integer_ticks,
    legend_above_data,
    line_style,
    stored_history,
)

N_MARKERS = 12  # about this many per line


@filled(ENTRIES)
class LossCurveDisplay:
    """Loss terms of a fit against the iteration.

    It is recommended to use :meth:`from_estimator` or :meth:`from_anndata` to create a display. All parameters are
    stored as attributes.

    Parameters
    ----------
    loss_history : array-like of shape (n_iter, n_terms)
        Loss terms, in squared units of expression; row i belongs to the values that went into
        iteration i.
    terms : sequence of str, default=("reconstruction", "reference", "penalty")
        Names of the columns of `loss_history`.

    Attributes
    ----------
    {one_axes_drawn}
    lines_ : list of matplotlib Line2D
        One line per term.
    legend_ : matplotlib Legend
        The legend.

    See Also
    --------
    GradientNormDisplay : Distribution of the gradient norms.

    Notes
    -----
    The terms are drawn as the estimator recorded them: unweighted by ``L2MaxDeconvolver``, weighted
    by ``TraceNormDeconvolver``.

    A fit starts at a point that reconstructs the bulk exactly, so that the reconstruction term of
    the first iteration is rounding noise, some thirty orders of magnitude below the others. On a
    logarithmic axis, values below 1e-12 of the largest of their term, or below 1e-24 of the largest
    of all, are left out.

    Examples
    --------
    >>> from skenigma.plotting import LossCurveDisplay
    >>> history = [[1e-27, 9.0, 4.0], [2.0, 5.0, 1.0], [3.0, 4.0, 0.2]]
    >>> display = LossCurveDisplay(loss_history=history).plot()
    >>> [line.get_label() for line in display.lines_]
    ['reconstruction', 'reference', 'penalty']
    """

    def __init__(self, *, loss_history, terms=("reconstruction", "reference", "penalty")):
        set_parameters(self, locals())

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Plot the loss terms of a fitted estimator.

        Parameters
        ----------
        estimator : estimator instance
            Fitted estimator with the attribute ``loss_history_``.
        {drawn_on_axes}

        Raises
        ------
        {not_fitted}
        ValueError
            If `estimator` has recorded no loss.
        {no_matplotlib}
        """
        return cls(loss_history=fitted_history(estimator, "loss_history_")).plot(ax=ax, **kwargs)

    @classmethod
    def from_anndata(cls, adata, *, key="skenigma", ax=None, **kwargs):
        """Plot the loss terms of a fit that an AnnData holds.

        Parameters
        ----------
        {adata}
        {key}
        {drawn_on_axes}

        Raises
        ------
        ValueError
            If `adata` holds no deconvolution under `key`, or its fit has recorded no loss.
        {no_matplotlib}
        """
        history = stored_history(Deconvolved.of(adata, key), "loss_history_")
        return cls(loss_history=history).plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, log_scale=True, line_kw=None):
        """Draw the display.

        Parameters
        ----------
        {axes}
        log_scale : bool, default=True
            Whether the axis of the loss is logarithmic.
        line_kw : dict, default=None
            Options of ``Axes.plot`` for every line.

        Returns
        -------
        {itself}

        Raises
        ------
        ValueError
            If `loss_history` is empty or has not one column per term.
        {no_matplotlib}
        """
        refuse_masked(self.loss_history, "loss_history")
        history = check_array(self.loss_history, dtype=float, input_name="loss_history")
        check_columns(history, len(self.terms), "loss_history", f"for the terms {', '.join(self.terms)}")
        self.figure_, self.ax_ = figure_and_axes(ax)

        if log_scale:
            history = _without_rounding_noise(history)
            self.ax_.set_yscale("log")
        self.lines_ = [
            self._draw_term(index, name, values, line_kw)
            for index, (name, values) in enumerate(zip(self.terms, history.T, strict=True))
        ]
        self.ax_.set_xlabel("iteration")
        self.ax_.set_ylabel("loss term\n(squared expression units)")
        integer_ticks(self.ax_.xaxis)
        self.legend_ = legend_above_data(self.ax_, loc="upper right")
        return self

    def _draw_term(self, index, name, values, line_kw):
        step = max(1, len(values) // N_MARKERS)
        # each term's markers start elsewhere, so that they do not hide each other
        start = index * step // len(self.terms)
        style = {**LINE_STYLES[index % len(LINE_STYLES)], "markersize": 4, "markevery": (start, step)}
        style["label"] = name
        iterations = np.arange(1, len(values) + 1)
        (line,) = self.ax_.plot(iterations, values, **line_style(style, line_kw))
        return line


def _without_rounding_noise(history):
    """Replace values that are zero up to rounding by NaN, which matplotlib leaves out."""
    # the second bound is for a history of one row, where every value is the largest of its term
    largest = np.maximum(history.max(axis=0), NEGLIGIBLE * history.max())
    return np.where(history > NEGLIGIBLE * largest, history, np.nan)
