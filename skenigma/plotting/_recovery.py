"""Display of estimated against true values, per cell type."""

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from .._docstrings import filled
from .._parameters import set_parameters
from .._stored import Deconvolved
from ..checks.labels import cell_types_of
from ..checks.names import listing, numbered, refuse_repeats, row_names
from ..checks.tables import is_anndata
from ..metrics import concordance, per_gene_correlation, per_sample_correlation
from ..metrics._checks import check_tables
from ._style import BLUE, ENTRIES, axes_grid, line_style, points_style

# More points than this are counted in hexagons.
N_POINTS = 2000
# Of more points than this, evenly spaced ones are counted.
N_COUNTED = 500_000
GRID_SIZE = 50


@filled(ENTRIES)
class RecoveryDisplay:
    """Estimated against true values, one panel per cell type.

    Few points are drawn one by one, many are counted in hexagons, on a logarithmic scale of colours that all panels
    share. The dashed line is equality. Each panel says how well the estimate follows the truth:

    - proportions: ``r``, Pearson's correlation over samples, and ``CCC``, Lin's concordance, which also sees offsets.
    - expression: the mean correlation ``per gene`` (over samples) and ``per sample`` (over genes). A cloud along the
      line shows the second: that highly expressed genes are found to be so. It says little about the first.

    It is recommended to use :meth:`from_estimator`, :meth:`from_anndata` or :meth:`from_predictions` to create a
    display. All parameters are stored as attributes.

    Parameters
    ----------
    true, estimated : array-like of shape (n_samples, n_cell_types) or (n_samples, n_cell_types, n_genes)
        Proportions or cell-type-specific expression.
    cell_types : sequence of str
        Names of the cell types.
    colours : dict of str to matplotlib colours, default=None
        Colours of points by the name of the cell type. None draws all in one colour. Hexagons have the colours of
        their counts.

    Attributes
    ----------
    {all_axes_drawn}
    points_ : list of matplotlib PathCollection or PolyCollection
        What was drawn, per cell type.
    texts_ : list of matplotlib Text
        Correlations, per cell type.
    correlations_ : DataFrame
        The same as numbers, one row per cell type; means leave NaN out.

    See Also
    --------
    skenigma.metrics : The measures, and more.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.plotting import RecoveryDisplay
    >>> from skenigma import ProportionEstimator
    >>> cohort = make_cohort(n_samples=30, n_genes=100, n_cell_types=3, random_state=0)
    >>> estimator = ProportionEstimator(cohort.reference).fit(cohort.bulk)
    >>> display = RecoveryDisplay.from_estimator(estimator, cohort.proportions)
    >>> display.correlations_.columns.tolist()
    ['r', 'CCC']
    """

    def __init__(self, *, true, estimated, cell_types, colours=None):
        set_parameters(self, locals())

    @classmethod
    def from_estimator(cls, estimator, true, *, ax=None, **kwargs):
        """Plot what an estimator was fitted to against its truth.

        Parameters
        ----------
        {fitted}
        true : array-like of shape (n_samples, n_cell_types) or (n_samples, n_cell_types, n_genes)
            True proportions, to be compared with ``proportions_``, or true expression, with that of the fit.
        {drawn_on_grid}

        Raises
        ------
        {not_fitted}
        ValueError
            If the truth has another shape.
        {no_matplotlib}
        """
        check_is_fitted(estimator)
        if np.ndim(true) == 2:
            estimated = pd.DataFrame(estimator.proportions_, _samples(estimator, true), estimator.cell_types_)
            names = _in_order_of(true, estimator.cell_types_)
        else:
            estimated, names = _expression(estimator), estimator.cell_types_
        return cls(true=true, estimated=estimated, cell_types=names).plot(ax=ax, **kwargs)

    @classmethod
    def from_anndata(cls, adata, true, *, key="skenigma", ax=None, **kwargs):
        """Plot what an AnnData holds against its truth.

        Points have the colours of ``uns["<groupby>_colors"]``, where there are any, see
        :func:`skenigma.anndata.deconvolve`.

        Parameters
        ----------
        {adata}
        true : str, DataFrame, array-like or AnnData
            True proportions: an entry of ``adata.obsm`` by its name, or a table of shape (n_samples, n_cell_types),
            matched by name where both are named. Or true expression: an array of shape (n_samples, n_cell_types,
            n_genes), or an AnnData of sorted samples with the columns ``sample`` and ``cell_type`` in ``obs``, as
            :func:`skenigma.anndata.cse_to_anndata` makes them, on the scale of the bulk.
        {key}
        {drawn_on_grid}

        Raises
        ------
        ValueError
            If `adata` holds no deconvolution under `key`, or the truth lacks samples, cell types or genes of it, or
            has another shape.
        {no_matplotlib}
        """
        found = Deconvolved.of(adata, key)
        if isinstance(true, str):
            true = found.table(true)
        if is_anndata(true):
            true = _sorted_expression(true, found)
        if np.ndim(true) == 2:
            estimated, names = found.proportions, _in_order_of(true, found.cell_types)
        else:
            estimated, names = found.expression.values(), found.cell_types
        display = cls(true=true, estimated=estimated, cell_types=names, colours=found.type_colours)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(cls, true, estimated, *, cell_types=None, ax=None, **kwargs):
        """Plot given estimates against the truth.

        Parameters
        ----------
        true, estimated : array-like of shape (n_samples, n_cell_types) or (n_samples, n_cell_types, n_genes)
            Proportions or expression; two DataFrames are matched by name.
        cell_types : sequence of str, default=None
            Names of the cell types; None takes those of a DataFrame, or numbers them.
        {drawn_on_grid}

        Raises
        ------
        ValueError
            If shapes or names do not fit together, or values are not finite.
        {no_matplotlib}
        """
        if cell_types is None:
            named = isinstance(true, pd.DataFrame)
            cell_types = true.columns if named else numbered("celltype", np.shape(true)[1])
        return cls(true=true, estimated=estimated, cell_types=cell_types).plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, log_scale=False, scatter_kw=None, hexbin_kw=None, line_kw=None):
        """Draw the display.

        Parameters
        ----------
        {panels}
        log_scale : bool, default=False
            Whether to draw log2(x + 1), for expression on the linear scale.
        scatter_kw : dict, default=None
            Options of ``Axes.scatter``, for few points.
        hexbin_kw : dict, default=None
            Options of ``Axes.hexbin``, for many.
        line_kw : dict, default=None
            Options of ``Axes.plot`` for the line of equality.

        Returns
        -------
        {itself}

        Raises
        ------
        ValueError
            If shapes do not fit together, values are not finite, or negative with `log_scale`.
        {no_matplotlib}
        """
        true, estimated = self._values()
        if log_scale and min(true.min(), estimated.min()) < 0:
            raise ValueError("log_scale needs values of at least 0: draw these on their own scale.")
        self.figure_, self.axes_ = axes_grid(ax, true.shape[1])
        self.points_, self.texts_ = [], []
        for k, panel in enumerate(self.axes_):
            self._draw_panel(panel, k, true, estimated, log_scale, scatter_kw, hexbin_kw, line_kw)
        self._share_colours()
        self._label("log2(x + 1), " if log_scale else "")
        return self

    def _values(self):
        """Both as arrays of one shape; sets ``correlations_``, which checks them."""
        names = [str(name) for name in self.cell_types]
        estimated = self.estimated
        if np.ndim(self.true) == 2:
            ccc = concordance(self.true, estimated)
            estimated = check_tables(self.true, estimated, "true", "estimated")[1]
            tables = (np.asarray(table, dtype=float)[:, :, None] for table in (self.true, estimated))
            r = per_gene_correlation(*tables)[:, 0]
            self.correlations_ = pd.DataFrame({"r": r, "CCC": ccc}, index=names)
        else:
            tables = {
                "per gene": per_gene_correlation(self.true, estimated).T,
                "per sample": per_sample_correlation(self.true, estimated),
            }
            means = {name: _defined_mean(table) for name, table in tables.items()}
            self.correlations_ = pd.DataFrame(means, index=names)
        return np.asarray(self.true), np.asarray(estimated)

    def _draw_panel(self, panel, k, true, estimated, log_scale, scatter_kw, hexbin_kw, line_kw):
        x, y = true[:, k].ravel(), estimated[:, k].ravel()
        step = -(-len(x) // N_COUNTED)
        x, y = x[::step], y[::step]
        if log_scale:
            x, y = np.log2(x + 1), np.log2(y + 1)
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        margin = 0.04 * (high - low) or 0.5
        limits = low - margin, high + margin
        if len(x) <= N_POINTS:
            colour = BLUE if self.colours is None else self.colours[self.correlations_.index[k]]
            style = {"s": 12, "color": colour, "alpha": 0.6, "linewidths": 0}
            drawn = panel.scatter(x, y, **points_style(style, scatter_kw))
        else:
            style = {"gridsize": GRID_SIZE, "bins": "log", "mincnt": 1, "cmap": "viridis", "linewidths": 0.1}
            drawn = panel.hexbin(x, y, extent=(*limits, *limits), **{**style, **(hexbin_kw or {})})
        panel.plot(
            limits, limits, **line_style({"color": "black", "linestyle": "--", "linewidth": 1}, line_kw)
        )
        panel.set(xlim=limits, ylim=limits, aspect="equal", title=self.correlations_.index[k])
        self.points_.append(drawn)
        self.texts_.append(self._write(panel, self.correlations_.iloc[k]))

    def _write(self, panel, correlations):
        lines = [f"{name} {value:.2f}" for name, value in correlations.items()]
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 2}
        return panel.text(
            0.04, 0.96, "\n".join(lines), transform=panel.transAxes, va="top", fontsize="small", bbox=box
        )

    def _share_colours(self):
        """One scale of colours for all panels with hexagons, with its bar."""
        counted = [drawn for drawn in self.points_ if drawn.get_array() is not None]
        if counted:
            top = max(drawn.get_array().max() for drawn in counted)
            for drawn in counted:
                drawn.norm.vmin, drawn.norm.vmax = 1, max(top, 2)
            self.figure_.colorbar(counted[0], ax=list(self.axes_), label="points", shrink=0.6)

    def _label(self, scale):
        kind = "proportion" if np.ndim(self.true) == 2 else "expression"
        for panel in self.axes_:
            place = panel.get_subplotspec()
            # without a place in a grid there is no neighbour to share a label with
            if place is None or place.is_first_col():
                panel.set_ylabel(f"estimated {kind}")
            panel.set_xlabel(f"true {kind}")
        if scale:
            self.axes_[0].set_ylabel(f"estimated {kind}\n{scale[:-2]}")


def _in_order_of(true, cell_types):
    """Names of the panels, in the order of true proportions where these are named."""
    if isinstance(true, pd.DataFrame) and row_names(true.T) is not None:
        return cell_types_of(true)
    return cell_types


def _sorted_expression(data, found):
    """Expression of sorted samples in the order of the samples, cell types and genes of a deconvolution."""
    lacking = [name for name in ("sample", "cell_type") if name not in data.obs]
    if lacking:
        raise ValueError(f"obs of the truth has no column {listing(lacking)}: they say which row is what.")
    rows = pd.MultiIndex.from_arrays([data.obs[name].astype(str) for name in ("sample", "cell_type")])
    refuse_repeats(rows, "Rows of the truth", "Keep one for each sample and cell type.")
    genes = _places(data.var_names.map(str), pd.Index(found.gene_names), "genes")
    places = _places(rows, pd.MultiIndex.from_product([found.sample_names, found.cell_types]), "rows")
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    return values[places][:, genes].reshape(len(found.sample_names), len(found.cell_types), -1)


def _places(names, wanted, kind):
    """Positions of names, all of which must be there."""
    places = names.get_indexer(wanted)
    if (places < 0).any():
        raise ValueError(f"The truth lacks the {kind} {listing(list(wanted[places < 0]))}.")
    return places


def _samples(estimator, true):
    """Labels of the samples of a fit; where it has none, those of the truth, which is in the same order."""
    names = row_names(getattr(estimator, "quality_", None))
    if names is None:
        names = getattr(getattr(estimator, "expression_", None), "sample_names", None)
    return getattr(true, "index", None) if names is None else names


def _expression(estimator):
    """Expression of the fit as a tensor, which a compact fit has to build."""
    if hasattr(estimator, "cse_"):
        return estimator.cse_
    if not hasattr(estimator, "cell_type_expression"):
        raise ValueError(
            f"This {type(estimator).__name__} estimates no expression: compare it with true proportions, of shape "
            f"(n_samples, n_cell_types)."
        )
    tables = [estimator.cell_type_expression(k).to_numpy() for k in range(len(estimator.cell_types_))]
    return np.stack(tables, axis=1)


def _defined_mean(table):
    """Mean of every column without its NaN; NaN where nothing else is there."""
    count = np.sum(~np.isnan(table), axis=0)
    return np.divide(np.nansum(table, axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
