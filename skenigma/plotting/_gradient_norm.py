"""Display of the gradient norms of a fit."""

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.utils import check_array

from .._docstrings import filled
from .._parameters import set_parameters
from .._stored import Deconvolved
from ..checks.numbers import refuse_masked
from ._style import (
    ENTRIES,
    NEGLIGIBLE,
    VERMILLION,
    check_columns,
    figure_and_axes,
    fill_style,
    fitted_history,
    four_digits,
    legend_above_data,
    line_style,
    stored_history,
)

N_GRID = 512  # points of the density


@filled(ENTRIES)
class GradientNormDisplay:
    """Distribution of the gradient norms of a fit.

    Shows the density, over the updates of a fit, of the mean of the two gradient norms that
    :class:`~skenigma.L2MaxDeconvolver` records, with a tick for every update and a line at the mean
    over all of them. After a fit without renormalisation that mean is the published choice of
    `renorm_size` [1]_.

    It is recommended to use :meth:`from_estimator` or :meth:`from_anndata` to create a display. All parameters are
    stored as attributes.

    Parameters
    ----------
    gradient_norm : array-like of shape (n_updates, 2)
        Frobenius norms of the gradients of the reconstruction and of the reference term, before
        renormalisation, in units of expression: one row per update that was applied.
    renorm_size : float, default=None
        The norm to which the gradients were renormalised, shown as a second line; None when they
        were not.

    Attributes
    ----------
    {one_axes_drawn}
    line_ : matplotlib Line2D or None
        The density. None when all norms are equal, for which there is none.
    fill_ : matplotlib PolyCollection or None
        The area under the density.
    rug_ : matplotlib Line2D
        One tick per update.
    mean_line_ : matplotlib Line2D
        Line at the mean.
    renorm_line_ : matplotlib Line2D or None
        Line at `renorm_size`.
    legend_ : matplotlib Legend
        The legend, which names the mean.

    See Also
    --------
    LossCurveDisplay : The loss terms against the iteration.

    Notes
    -----
    The density is a Gaussian kernel estimate with Silverman's bandwidth
    0.9 min(s, IQR/1.34) n^(-1/5) [2]_, that of ``geom_density`` in R's ggplot2, but at least one
    step of the grid it is drawn on: late updates can be so alike that it would be a spike too
    narrow to see.

    References
    ----------
    .. [1] Wang W. "Why fixed renormalized gradient norm size = 200" (2022), ENIGMA vignette.
    .. [2] Silverman B. W. "Density Estimation for Statistics and Data Analysis" (1986), eq. 3.31;
       R function ``bw.nrd0``.

    Examples
    --------
    >>> from skenigma.plotting import GradientNormDisplay
    >>> display = GradientNormDisplay(gradient_norm=[[0, 14], [161, 13], [254, 13], [314, 13]])
    >>> display = display.plot()
    >>> display.legend_.get_texts()[0].get_text()
    'mean 97.75'
    """

    def __init__(self, *, gradient_norm, renorm_size=None):
        set_parameters(self, locals())

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Plot the gradient norms of a fitted estimator.

        Parameters
        ----------
        estimator : estimator instance
            Fitted estimator with the attribute ``gradient_norm_``: ``L2MaxDeconvolver`` with
            ``solver="proximal"``. ``renorm_size_`` is shown where it is there and not None.
        {drawn_on_axes}

        Raises
        ------
        {not_fitted}
        ValueError
            If `estimator` has recorded no gradient norms.
        {no_matplotlib}
        """
        gradient_norm = fitted_history(estimator, "gradient_norm_")
        display = cls(gradient_norm=gradient_norm, renorm_size=getattr(estimator, "renorm_size_", None))
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_anndata(cls, adata, *, key="skenigma", ax=None, **kwargs):
        """Plot the gradient norms of a fit that an AnnData holds.

        Parameters
        ----------
        {adata}
        {key}
        {drawn_on_axes}

        Raises
        ------
        ValueError
            If `adata` holds no deconvolution under `key`, or its fit has recorded no gradient norms.
        {no_matplotlib}
        """
        found = Deconvolved.of(adata, key)
        size = found.written.get("renorm_size")
        display = cls(
            gradient_norm=stored_history(found, "gradient_norm_"),
            renorm_size=None if size is None else float(size),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, line_kw=None, fill_kw=None, rug_kw=None, mean_line_kw=None):
        """Draw the display.

        Parameters
        ----------
        {axes}
        line_kw : dict, default=None
            Options of ``Axes.plot`` for the density.
        fill_kw : dict, default=None
            Options of ``Axes.fill_between`` for the area under it.
        rug_kw : dict, default=None
            Options of ``Axes.plot`` for the ticks.
        mean_line_kw : dict, default=None
            Options of ``Axes.plot`` for the line at the mean.

        Returns
        -------
        {itself}

        Raises
        ------
        ValueError
            If there is no gradient norm, or the norms have not the shape (n_updates, 2).
        {no_matplotlib}
        """
        norms = _average_norms(self.gradient_norm)
        self.figure_, self.ax_ = figure_and_axes(ax)

        peak = self._draw_density(norms, line_kw, fill_kw)
        self.rug_ = self._draw_rug(norms, rug_kw)
        mean = norms.mean()
        mean_style = {"color": VERMILLION, "label": f"mean {four_digits(mean)}"}
        self.mean_line_ = self._draw_vertical(mean, peak, mean_style, mean_line_kw)
        self.renorm_line_ = None
        if self.renorm_size is not None:
            label = f"renorm_size {four_digits(self.renorm_size)}"
            style = {"color": "black", "linestyle": "--", "label": label}
            self.renorm_line_ = self._draw_vertical(self.renorm_size, peak, style, None)

        self.ax_.set_xlabel("gradient norm per iteration\n(expression units)")
        self.ax_.set_ylim(bottom=0, auto=None)
        self.legend_ = legend_above_data(self.ax_, loc="upper left")
        return self

    def _draw_density(self, norms, line_kw, fill_kw):
        """Draw the density if there is one; return how high vertical lines go."""
        self.line_, self.fill_ = None, None
        if np.ptp(norms) <= NEGLIGIBLE * norms.max():
            # heights mean nothing without a density
            self.ax_.set_yticks([])
            return 1.0
        grid, density = _density(norms)
        (self.line_,) = self.ax_.plot(grid, density, **line_style({"color": "darkblue"}, line_kw))
        area_style = fill_style({"facecolor": "lightblue", "edgecolor": "none"}, fill_kw)
        self.fill_ = self.ax_.fill_between(grid, density, **area_style)
        self.ax_.set_ylabel("density")
        return density.max()

    def _draw_rug(self, norms, rug_kw):
        from matplotlib.markers import TICKUP

        style = {"color": "darkblue", "linestyle": "none", "marker": TICKUP, "markersize": 8, "alpha": 0.6}
        # heights in fractions of the axes: the ticks stand on the axis whatever the density's scale
        on_axis = self.ax_.get_xaxis_transform()
        (rug,) = self.ax_.plot(norms, np.zeros_like(norms), transform=on_axis, **line_style(style, rug_kw))
        return rug

    def _draw_vertical(self, position, height, style, options):
        # not axvline, which would run on through the legend
        (line,) = self.ax_.plot([position, position], [0, height], **line_style(style, options))
        return line


def _average_norms(gradient_norm):
    """Mean over the two gradients, per update."""
    refuse_masked(gradient_norm, "gradient_norm")
    norms = check_array(gradient_norm, dtype=float, ensure_min_samples=0, input_name="gradient_norm")
    check_columns(norms, 2, "gradient_norm", "the norms of two gradients per update")
    if len(norms) == 0:
        raise ValueError(
            "There is no gradient norm to show: the fit stopped at its first evaluation, "
            "so no update was applied. A smaller epsilon or a larger max_iter lets it go on."
        )
    return norms.mean(axis=1)


def _density(norms):
    """Gaussian kernel density on a grid that reaches three bandwidths beyond the data."""
    deviation = norms.std(ddof=1)
    quartile_range = np.subtract(*np.percentile(norms, [75, 25]))
    spread = min(deviation, quartile_range / 1.34)
    bandwidth = max(0.9 * spread * len(norms) ** -0.2, np.ptp(norms) / N_GRID)
    # a norm cannot be negative
    start = max(0.0, norms.min() - 3 * bandwidth)
    grid = np.linspace(start, norms.max() + 3 * bandwidth, N_GRID)
    # scipy takes the bandwidth in units of the standard deviation
    return grid, gaussian_kde(norms, bw_method=bandwidth / deviation)(grid)
