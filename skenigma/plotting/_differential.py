"""Display of differential expression in one cell type: a volcano."""

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from .._docstrings import filled
from .._parameters import set_parameters
from .._stored import Deconvolved
from ..checks.numbers import refuse_masked
from ..differential import differential_expression
from ._differential_table import rows_of, tested
from ._labels import Room
from ._style import BLUE, ENTRIES, VERMILLION, figure_and_axes, legend_above_data, line_style

# p-values below this are drawn here: they are zero but for the range of floating-point numbers.
SMALLEST = np.finfo(np.float64).tiny
# How points of each kind look.
KINDS = {
    "not called": {"color": "#999999", "alpha": 0.6},
    "lower": {"color": BLUE},
    "higher": {"color": VERMILLION},
    "flagged": {"color": "#555555", "marker": "D", "markerfacecolor": "none", "markeredgewidth": 0.8},
}


@filled(ENTRIES)
class DifferentialExpressionDisplay:
    """Volcano of one cell type: effect and significance of every gene.

    Genes whose false discovery rate is below a threshold are coloured by the direction of their effect, and the most
    significant ones are named, as far as the names find room.

    It is recommended to use :meth:`from_results`, :meth:`from_estimator` or :meth:`from_anndata` to create a display.
    All parameters are stored as attributes.

    Parameters
    ----------
    effect : array-like of shape (n_genes,)
        Effect of the phenotype on each gene, in units of expression, or fold changes.
    p_value : array-like of shape (n_genes,)
        Their p-values; NaN where there is no test.
    q_value : array-like of shape (n_genes,)
        False discovery rates; NaN where there is no test.
    gene_names : array-like of str, shape (n_genes,), default=None
        Names of the genes. None leaves all of them unnamed.
    flagged : array-like of bool, shape (n_genes,), default=None
        Genes whose p-value is not to be trusted; drawn with open markers. None flags none.
    cell_type : str, default=None
        Name of the cell type, the title.
    fold_change : bool, default=False
        Whether the effects are fold changes, drawn on a logarithmic axis.
    contrast : str, default=None
        What an effect compares, in the label of its axis.

    Attributes
    ----------
    {one_axes_drawn}
    points_ : dict of str to matplotlib Line2D
        The points of each kind that occurs: "not called", "lower", "higher" and "flagged".
    labels_ : list of matplotlib Annotation
        Names of genes that found room, the most significant first.
    legend_ : matplotlib Legend
        The legend, which counts the genes.

    See Also
    --------
    skenigma.differential.differential_expression : The table that it shows.

    Notes
    -----
    A name is left out where it would cover another name, the legend or several points, or leave the axes; a larger
    figure has room for more. The places are found for the size that the figure has when it is drawn.

    Genes without p-value, or with an effect that the axis cannot show, are counted in the legend as not shown.
    p-values too small for a floating-point number are drawn at 2e-308.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import interaction_test
    >>> from skenigma.plotting import DifferentialExpressionDisplay
    >>> cohort = make_cohort(n_genes=200, random_state=0, as_frame=True)
    >>> table = interaction_test(cohort.bulk, cohort.proportions, cohort.phenotype)
    >>> display = DifferentialExpressionDisplay.from_results(table, cell_type="celltype1")
    >>> display.ax_.get_title()
    'celltype1'
    """

    def __init__(
        self,
        *,
        effect,
        p_value,
        q_value,
        gene_names=None,
        flagged=None,
        cell_type=None,
        fold_change=False,
        contrast=None,
    ):
        set_parameters(self, locals())

    @classmethod
    def from_results(cls, table, cell_type=None, *, fold_change=False, ax=None, **kwargs):
        """Plot one cell type of a table of differential expression.

        Parameters
        ----------
        table : DataFrame
            From :func:`~skenigma.differential.differential_expression` or one of the tests.
        cell_type : str, default=None
            Cell type to show. None is possible if the table holds a single one.
        fold_change : bool, default=False
            Whether the table was made with ``fold_change=True``.
        {drawn_on_axes}

        Raises
        ------
        ValueError
            If the table has no such cell type, or several and none is chosen.
        {no_matplotlib}
        """
        rows = rows_of(table, cell_type)
        display = cls(
            effect=rows["effect"].to_numpy(),
            p_value=rows["p_value"].to_numpy(),
            q_value=rows["q_value"].to_numpy(),
            gene_names=rows["gene"].to_numpy(),
            # a mean of zero spoils the effect, not the test
            flagged=~rows["flag"].isin(["", "zero_mean"]).to_numpy(),
            cell_type=rows["cell_type"].iloc[0],
            fold_change=fold_change,
            contrast=rows["contrast"].iloc[0] if "contrast" in rows else None,
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator,
        phenotype,
        *,
        cell_type,
        method="auto",
        X=None,
        covariates=None,
        fold_change=False,
        ax=None,
        **kwargs,
    ):
        """Test one fitted deconvolver and plot a cell type.

        For several cell types, make the table once by :func:`~skenigma.differential.differential_expression` and use
        :meth:`from_results`.

        Parameters
        ----------
        estimator : L2MaxDeconvolver or TraceNormDeconvolver
            Fitted to the cohort.
        phenotype : array-like or Series of shape (n_samples,)
            See :func:`~skenigma.differential.differential_expression`.
        cell_type : str
            Cell type to show.
        method : {"auto", "log_fold_change", "interaction", "marginal", "joint"}, default="auto"
            Which test, see :func:`~skenigma.differential.differential_expression`.
        X : array-like or DataFrame of shape (n_samples, n_genes), default=None
            The bulk of the fit; needed by "log_fold_change" and "interaction".
        covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
            What else to adjust for.
        fold_change : bool, default=False
            Show fold changes in place of differences.
        {drawn_on_axes}

        Raises
        ------
        {not_fitted}
        ValueError
            If the test refuses its input, or there is no such cell type.
        {no_matplotlib}
        """
        table = differential_expression(
            estimator, phenotype, method=method, X=X, covariates=covariates, fold_change=fold_change
        )
        return cls.from_results(table, cell_type, fold_change=fold_change, ax=ax, **kwargs)

    @classmethod
    def from_anndata(
        cls,
        adata,
        phenotype,
        *,
        cell_type,
        key="skenigma",
        method="auto",
        covariates=None,
        reference_level=None,
        ax=None,
        **kwargs,
    ):
        """Test the bulk of an AnnData by what was deconvolved from it, and plot a cell type.

        For several cell types, make the table once by one of the tests of :mod:`skenigma.differential` and use
        :meth:`from_results`.

        Parameters
        ----------
        {adata}
        phenotype : str, array-like or Series of shape (n_samples,)
            A column of ``obs`` by its name, or see :func:`~skenigma.differential.differential_expression`.
        cell_type : str
            Cell type to show.
        {key}
        method : {{"auto", "log_fold_change", "factor", "interaction"}}, default="auto"
            Which test: those of the bulk. "auto" is :func:`~skenigma.differential.log_fold_change_test` where bulk
            and reference have no negative value, else :func:`~skenigma.differential.factor_test`.
        covariates : sequence of str, DataFrame or array-like, default=None
            What else to adjust for: columns of ``obs`` by their names, or a table.
        reference_level : scalar, default=None
            The class that others are compared with. None takes the first.
        {drawn_on_axes}

        Raises
        ------
        ValueError
            If `adata` holds no deconvolution under `key`, ``obs`` lacks a column, the test refuses its input, or
            there is no such cell type.
        {no_matplotlib}
        """
        found = Deconvolved.of(adata, key)
        table = tested(found, phenotype, method, covariates, reference_level)
        return cls.from_results(table, cell_type, ax=ax, **kwargs)

    def plot(self, ax=None, *, threshold=0.05, n_labels=10, points_kw=None, label_kw=None):
        """Draw the display.

        Parameters
        ----------
        {axes}
        threshold : float, default=0.05
            False discovery rate below which a gene is called.
        n_labels : int, default=10
            How many of the called genes to name at most, the most significant first.
        points_kw : dict, default=None
            Options of ``Axes.plot`` for all points.
        label_kw : dict, default=None
            Options of ``Axes.annotate`` for the names.

        Returns
        -------
        {itself}

        Raises
        ------
        ValueError
            If effects, p-values, false discovery rates and names are not equally many.
        {no_matplotlib}
        """
        effect, height, kinds = self._check(threshold)
        self.figure_, self.ax_ = figure_and_axes(ax)
        if self.fold_change:
            self.ax_.set_xscale("log", base=2)
        self.points_ = {
            kind: self._draw_points(kind, effect[members], height[members], points_kw)
            for kind, members in kinds.items()
            if members.any()
        }
        shown = np.any(list(kinds.values()), axis=0)
        self._draw_no_effect(height[shown])
        self.ax_.set_xlabel(self._effect_label())
        self.ax_.set_ylabel("$-\\log_{10}$ p")
        if self.cell_type is not None:
            self.ax_.set_title(self.cell_type)
        self.legend_ = self._draw_legend(np.sum(~shown), threshold)
        self.labels_ = self._name(effect, height, kinds, n_labels, label_kw)
        return self

    def _effect_label(self):
        if self.contrast is None:
            return "fold change" if self.fold_change else "effect (expression units)"
        logarithms = self.contrast.startswith("log2")
        return self.contrast if self.fold_change or logarithms else f"{self.contrast} (expression units)"

    def _check(self, threshold):
        """Effects, heights, and which genes are of which kind."""
        for name in ("effect", "p_value", "q_value", "flagged"):
            refuse_masked(getattr(self, name), name)
        effect, p_value, q_value = (
            column_or_1d(np.asarray(values, dtype=float))
            for values in (self.effect, self.p_value, self.q_value)
        )
        check_consistent_length(effect, p_value, q_value, self.gene_names, self.flagged)
        flagged = np.zeros(len(effect), dtype=bool) if self.flagged is None else np.asarray(self.flagged)
        height = -np.log10(np.maximum(p_value, SMALLEST))
        shown = np.isfinite(effect) & ~np.isnan(p_value)
        if self.fold_change:
            shown &= effect > 0
        called, up = q_value < threshold, effect > (1 if self.fold_change else 0)
        kinds = {
            "not called": shown & ~flagged & ~called,
            "lower": shown & ~flagged & called & ~up,
            "higher": shown & ~flagged & called & up,
            "flagged": shown & flagged,
        }
        return effect, height, kinds

    def _draw_points(self, kind, effect, height, options):
        style = {"linestyle": "none", "marker": "o", "markersize": 3.5, "markeredgewidth": 0, **KINDS[kind]}
        style["label"] = f"{kind} ({len(effect)})"
        (points,) = self.ax_.plot(effect, height, **line_style(style, options))
        return points

    def _draw_no_effect(self, height):
        # not axvline, which would run on through the legend
        nothing = 1 if self.fold_change else 0
        self.ax_.plot([nothing] * 2, [0, max(height, default=1)], color="#bbbbbb", linewidth=0.8, zorder=0)

    def _draw_legend(self, n_hidden, threshold):
        if n_hidden:
            self.ax_.plot([], [], linestyle="none", label=f"not shown ({n_hidden})")
        return legend_above_data(
            self.ax_,
            "upper left",
            title=f"called: q < {threshold:g}",
            title_fontsize="small",
            alignment="left",
            ncols=2,
            columnspacing=1,
            handletextpad=0.2,
        )

    def _name(self, effect, height, kinds, n_labels, options):
        """Name the most significant of the called genes where there is room."""
        if self.gene_names is None:
            return []
        # the layout is final once drawn; a subfigure cannot lay itself out, its canvas' figure can
        self.figure_.canvas.figure.draw_without_rendering()
        pixels = self.ax_.transData.transform(np.column_stack([effect, height]))
        points = pixels[np.any(list(kinds.values()), axis=0)]
        called = np.flatnonzero(kinds["lower"] | kinds["higher"])
        ranked = called[np.lexsort((-np.abs(effect[called]), -height[called]))][:n_labels]
        room = Room(self.ax_, points, taken=[self.legend_.get_window_extent()])
        names = np.asarray(self.gene_names, dtype=object)
        labels = [
            room.place(str(names[gene]), (effect[gene], height[gene]), pixels[gene], options)
            for gene in ranked
        ]
        return [label for label in labels if label is not None]
