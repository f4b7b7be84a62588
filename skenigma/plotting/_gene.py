"""Display of one gene over samples, with the interval of every value."""

import numpy as np

from .._docstrings import filled
from .._parameters import set_parameters
from .._stored import Deconvolved
from ..checks.validation import check_deconvolver
from ._style import BLUE, ENTRIES, VERMILLION, axes_grid, fill_style, line_style, points_style

GENE_ENTRIES = {
    **ENTRIES,
    "chosen_types": """cell_types : array-like of str or int, default=None
    Cell types to draw; None draws all.""",
    "level": """level : float in (0, 1), default=0.9
    Probability of the interval.""",
    "truth": """true : array-like of shape (n_samples, n_cell_types), default=None
    True expression of the gene in the cell types drawn, where it is known.""",
    "colours": """colours : dict of str to matplotlib colours, default=None
    Colours by the name of the cell type. None draws all in one colour.""",
}


@filled(GENE_ENTRIES)
class GeneExpressionDisplay:
    """One gene over the samples, a panel per cell type: estimates, their interval, and the reference profile.

    Samples are in the order of the estimates, so that the interval can be compared with their trend: if it is
    wider than the whole rise of the line, the order of the samples is not known.

    It is recommended to use :meth:`from_estimator`, :meth:`from_anndata` or :meth:`from_expression` to create a
    display. All parameters are stored as attributes.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_cell_types)
        Estimated expression of the gene.
    gene : str
        Its name.
    cell_types : sequence of str
        Names of the cell types.
    low, high : ndarray of shape (n_samples, n_cell_types), default=None
        Bounds of the interval; None where the model has none.
    level : float, default=None
        Probability of the interval, for the legend.
    reference : ndarray of shape (n_cell_types,), default=None
        Expression in the profiles.
    true : array-like of shape (n_samples, n_cell_types), default=None
        True expression, where it is known.
    {colours}

    Attributes
    ----------
    {all_axes_drawn}
    lines_ : list of matplotlib Line2D
        Estimates, per cell type.
    bands_ : list of matplotlib PolyCollection
        Intervals, per cell type; empty where there are none.

    See Also
    --------
    RecoveryDisplay : Estimated against true values of all genes.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma import EmpiricalBayesDeconvolver
    >>> from skenigma.plotting import GeneExpressionDisplay
    >>> rng = np.random.default_rng(0)
    >>> reference, theta = rng.gamma(1, 50, (2, 60)), rng.dirichlet([2, 2], 20)
    >>> bulk = theta @ reference * rng.lognormal(0, 0.3, (20, 60))
    >>> model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta)
    >>> display = GeneExpressionDisplay.from_estimator(model, "x3")
    >>> [panel.get_title() for panel in display.axes_]
    ['celltype0', 'celltype1']
    """

    def __init__(
        self,
        *,
        values,
        gene,
        cell_types,
        low=None,
        high=None,
        level=None,
        reference=None,
        true=None,
        colours=None,
    ):
        set_parameters(self, locals())

    @classmethod
    def from_estimator(cls, estimator, gene, *, cell_types=None, level=0.9, true=None, ax=None, **kwargs):
        """Plot a gene of the fitted cohort.

        Parameters
        ----------
        estimator : estimator instance
            Fitted model of cell-type-specific expression. Without deviations there is no band.
        gene : str or int
            Name of the gene, or its position in ``gene_names_``.
        {chosen_types}
        {level}
        {truth}
        {drawn_on_grid}

        Raises
        ------
        {not_fitted}
        ValueError
            If there is no such gene or cell type.
        {no_matplotlib}
        """
        check_deconvolver(estimator)
        profiles = np.asarray(estimator.reference_)
        given = {"cell_types": cell_types, "level": level, "true": true, "reference": profiles}
        return cls.from_expression(estimator.expression_, gene, ax=ax, **given, **kwargs)

    @classmethod
    def from_anndata(
        cls, adata, gene, *, key="skenigma", cell_types=None, level=0.9, true=None, ax=None, **kwargs
    ):
        """Plot a gene of the expression that an AnnData holds.

        Panels have the colours of ``uns["<groupby>_colors"]``, where there are any, see
        :func:`skenigma.anndata.deconvolve`. Intervals are normal on the scale of the model, by the standard
        deviations in the layers; those of :meth:`from_estimator` are of Student's t where the model knows its degrees
        of freedom.

        Parameters
        ----------
        {adata}
        gene : str or int
            Name of the gene, or its position in ``var_names``.
        {key}
        {chosen_types}
        {level}
        {truth}
        {drawn_on_grid}

        Raises
        ------
        ValueError
            If `adata` holds no expression under `key`, or there is no such gene or cell type.
        {no_matplotlib}
        """
        found = Deconvolved.of(adata, key)
        given = {"cell_types": cell_types, "level": level, "true": true, "colours": found.type_colours}
        reference = found.reference.to_numpy() if found.has_reference else None
        return cls.from_expression(found.expression, gene, reference=reference, ax=ax, **given, **kwargs)

    @classmethod
    def from_expression(
        cls,
        expression,
        gene,
        *,
        cell_types=None,
        level=0.9,
        reference=None,
        true=None,
        colours=None,
        ax=None,
        **kwargs,
    ):
        """Plot a gene of any expression, such as that of new samples.

        Parameters
        ----------
        expression : CellTypeExpression
            What a model, or its ``predict_expression``, returns.
        gene : str or int
            Name of the gene, or its position.
        {chosen_types}
        {level}
        reference : ndarray of shape (n_cell_types, n_genes), default=None
            Profiles of all cell types and genes of the expression.
        {truth}
        {colours}
        {drawn_on_grid}

        Raises
        ------
        ValueError
            If there is no such gene or cell type.
        {no_matplotlib}
        """
        part = {"cell_types": cell_types, "genes": [gene]}
        bounds = {}
        if expression.has_std:
            low, high = (bound[:, :, 0] for bound in expression.interval(level, **part))
            bounds = {"low": low, "high": high, "level": level}
        names, genes = _names(expression.cell_types, cell_types), _names(expression.gene_names, [gene])
        if reference is not None:
            rows = [list(expression.cell_types).index(name) for name in names]
            reference = reference[rows, list(expression.gene_names).index(genes[0])]
        values = expression.values(**part)[:, :, 0]
        about = {"gene": genes[0], "cell_types": names, "colours": colours}
        display = cls(values=values, reference=reference, true=true, **about, **bounds)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, log_scale=True, line_kw=None, fill_kw=None, scatter_kw=None):
        """Draw the display.

        Parameters
        ----------
        {panels}
        log_scale : bool, default=True
            Whether to draw log2(x + 1).
        line_kw : dict, default=None
            Options of ``Axes.plot`` for the estimates.
        fill_kw : dict, default=None
            Options of ``Axes.fill_between`` for the interval.
        scatter_kw : dict, default=None
            Options of ``Axes.scatter`` for the truth.

        Returns
        -------
        {itself}

        Raises
        ------
        ValueError
            If the truth has another shape than the estimates, or values are negative with `log_scale`.
        {no_matplotlib}
        """
        values = np.asarray(self.values)
        true = None if self.true is None else np.asarray(self.true, dtype=float)
        if true is not None and true.shape != values.shape:
            raise ValueError(
                f"true has shape {true.shape}, the estimates {values.shape}: samples × cell types drawn."
            )
        if log_scale and min(values.min(), 0 if true is None else true.min()) < 0:
            raise ValueError("log_scale needs values of at least 0: draw these on their own scale.")
        scale = (lambda x: np.log2(x + 1)) if log_scale else (lambda x: x)
        self.figure_, self.axes_ = axes_grid(ax, values.shape[1])
        self.lines_, self.bands_ = [], []
        for k, panel in enumerate(self.axes_):
            order = np.argsort(values[:, k], kind="stable")
            self._draw_panel(panel, k, order, scale, line_kw, fill_kw)
            if true is not None:
                style = {"s": 10, "color": VERMILLION, "zorder": 3, "label": "true"}
                panel.scatter(np.arange(len(order)), scale(true[order, k]), **points_style(style, scatter_kw))
            panel.set(title=str(self.cell_types[k]), xlabel="samples, by estimate")
        self.axes_[0].set_ylabel(f"{self.gene}, log2(x + 1)" if log_scale else str(self.gene))
        self.axes_[0].legend(fontsize="small", frameon=False)
        return self

    def _draw_panel(self, panel, k, order, scale, line_kw, fill_kw):
        place = np.arange(len(order))
        colour = BLUE if self.colours is None else self.colours[self.cell_types[k]]
        if self.low is not None:
            style = {"color": colour, "alpha": 0.25, "linewidth": 0, "label": f"{self.level:.0%} interval"}
            bounds = (scale(bound[order, k]) for bound in (self.low, self.high))
            self.bands_.append(panel.fill_between(place, *bounds, **fill_style(style, fill_kw)))
        style = {"color": colour, "linewidth": 1.5, "label": "estimate"}
        self.lines_.extend(panel.plot(place, scale(self.values[order, k]), **line_style(style, line_kw)))
        if self.reference is not None:
            panel.axhline(
                scale(self.reference[k]), color="black", linestyle="--", linewidth=1, label="reference"
            )


def _names(all_names, chosen):
    """Names of what is chosen by name or position."""
    if chosen is None:
        return list(all_names)
    return [name if isinstance(name, str) else all_names[name] for name in chosen]
