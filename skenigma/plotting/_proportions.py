"""Display of the proportions of cell types in every sample."""

import numpy as np
import pandas as pd
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from .._docstrings import filled
from .._parameters import set_parameters
from .._stored import Deconvolved
from .._transformers import proportions_std, shares_of
from ..checks.entries import check_nonnegative
from ..checks.names import listing, numbered
from ..checks.numbers import refuse_masked
from ._style import ENTRIES, distinct_colours, figure_and_axes, legend_beside, patch_style

# With more samples than this, bars touch and have no names.
N_NAMED = 50
# Names longer than this, or more of them than fit side by side, stand upright.
SHORT_NAME, N_LEVEL = 4, 16


@filled(ENTRIES)
class ProportionDisplay:
    """Proportions of cell types as one stacked bar per sample.

    Cell types are stacked by their mean, the most abundant at the bottom, and samples are sorted by one of them, so
    that its course can be read off along the axis. Up to 50 samples have bars of their own with their names; of more,
    a continuous picture is drawn.

    It is recommended to use :meth:`from_estimator`, :meth:`from_anndata` or :meth:`from_proportions` to create a
    display. All parameters are stored as attributes.

    Parameters
    ----------
    proportions : array-like of shape (n_samples, n_cell_types)
        Proportions, not negative.
    cell_types : sequence of str
        Names of the columns.
    sample_names : sequence of str, default=None
        Names of the rows; None numbers them.
    std : array-like of shape (n_samples, n_cell_types), default=None
        Standard errors, a lower bound of the uncertainty, drawn as error bars at the top of each part of a bar. None
        draws none.
    shares_of : str, default=None
        What the proportions are shares of, such as "RNA" or "cells", for the label of the axis. None does not say.
    colours : dict or sequence of matplotlib colours, default=None
        Colours by the name of the cell type, or in the order of `cell_types`. None takes a palette that all readers
        tell apart.

    Attributes
    ----------
    {one_axes_drawn}
    bars_ : list of matplotlib BarContainer
        Bars of each cell type, from the bottom.
    legend_ : matplotlib Legend
        The legend, in the order of the stack.
    order_ : ndarray of int, shape (n_samples,)
        Rows of `proportions` from left to right.

    See Also
    --------
    RecoveryDisplay : Estimated against true proportions.

    Examples
    --------
    >>> from skenigma.plotting import ProportionDisplay
    >>> display = ProportionDisplay.from_proportions([[0.2, 0.8], [0.4, 0.6]], cell_types=["B", "T"])
    >>> [text.get_text() for text in display.legend_.get_texts()]
    ['B', 'T']
    >>> display.order_.tolist()
    [0, 1]
    """

    def __init__(self, *, proportions, cell_types, sample_names=None, std=None, shares_of=None, colours=None):
        set_parameters(self, locals())

    @classmethod
    def from_estimator(cls, estimator, *, sample_names=None, ax=None, **kwargs):
        """Plot the proportions of the samples that an estimator was fitted to, with standard errors if it has any.

        The axis says whether they are shares of RNA or of cells, unless they were given to a model.

        Parameters
        ----------
        {fitted}
        sample_names : sequence of str, default=None
            Names of the samples; None takes those that the estimator knows.
        {drawn_on_axes}

        Raises
        ------
        {not_fitted}
        {no_matplotlib}
        """
        check_is_fitted(estimator, "proportions_")
        if sample_names is None:
            sample_names = getattr(getattr(estimator, "expression_", None), "sample_names", None)
        display = cls(
            proportions=estimator.proportions_,
            cell_types=estimator.cell_types_,
            sample_names=sample_names,
            std=proportions_std(estimator),
            shares_of=shares_of(estimator),
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_anndata(cls, adata, *, key="skenigma", ax=None, **kwargs):
        """Plot the proportions that an AnnData holds, with standard errors if there are any.

        Cell types have the colours of ``uns["<groupby>_colors"]``, where there are any, see
        :func:`skenigma.anndata.deconvolve`.

        Parameters
        ----------
        {adata}
        {key}
        {drawn_on_axes}

        Raises
        ------
        {no_deconvolution}
        {no_matplotlib}
        """
        found = Deconvolved.of(adata, key)
        display = cls(
            proportions=found.proportions.to_numpy(),
            cell_types=found.cell_types,
            sample_names=list(found.sample_names),
            std=None if found.proportions_std is None else found.proportions_std.to_numpy(),
            shares_of=found.shares_of,
            colours=found.type_colours,
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_proportions(
        cls,
        proportions,
        *,
        cell_types=None,
        sample_names=None,
        std=None,
        shares_of=None,
        ax=None,
        **kwargs,
    ):
        """Plot given proportions.

        Parameters
        ----------
        proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
            Proportions, not negative.
        cell_types, sample_names : sequence of str, default=None
            Names; None takes those of a DataFrame, or numbers them.
        std : array-like of shape (n_samples, n_cell_types), default=None
            Standard errors, in the order of `proportions`.
        shares_of : str, default=None
            What they are shares of, such as "RNA" or "cells", for the label of the axis.
        {drawn_on_axes}

        Raises
        ------
        ValueError
            If proportions are negative or not finite, or names are of another number.
        {no_matplotlib}
        """
        if isinstance(proportions, pd.DataFrame):
            cell_types = proportions.columns if cell_types is None else cell_types
            sample_names = proportions.index if sample_names is None else sample_names
        elif cell_types is None:
            cell_types = numbered("celltype", np.shape(proportions)[1])
        display = cls(
            proportions=proportions,
            cell_types=cell_types,
            sample_names=sample_names,
            std=std,
            shares_of=shares_of,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, sort_by="auto", colours=None, bar_kw=None):
        """Draw the display.

        Parameters
        ----------
        {axes}
        sort_by : str or None, default="auto"
            Cell type by whose proportion the samples are sorted, the largest first. "auto" is the most abundant, None
            keeps the samples in their order.
        colours : dict or sequence of matplotlib colours, default=None
            Colours in place of the attribute of this name.
        bar_kw : dict, default=None
            Options of ``Axes.bar``.

        Returns
        -------
        {itself}

        Raises
        ------
        ValueError
            If proportions are negative or not finite, names are of another number, or `sort_by` is not among them.
        {no_matplotlib}
        """
        refuse_masked(self.proportions, "proportions")
        values = check_array(self.proportions, dtype=float, input_name="proportions")
        cell_types, names = self._names(values)
        check_nonnegative(values, "proportions", names, cell_types, "Proportions must be at least 0.")
        errors = self._errors(values)
        self.figure_, self.ax_ = figure_and_axes(ax)
        stack = np.argsort(-values.mean(axis=0), kind="stable")
        colours = self._colours(self.colours if colours is None else colours, cell_types, stack)
        self.order_ = self._order(values, cell_types, stack, sort_by)
        named = len(values) <= N_NAMED
        style = {"width": 0.85 if named else 1.0, "linewidth": 0.5 if named else 0, "edgecolor": "white"}
        bottom = np.zeros(len(values))
        self.bars_ = []
        for k in stack:
            heights = values[self.order_, k]
            options = {**style, "color": colours[k], "label": cell_types[k]}
            if errors is not None and named:
                options |= {"yerr": errors[self.order_, k], "error_kw": {"elinewidth": 0.8}}
            self.bars_.append(
                self.ax_.bar(np.arange(len(values)), heights, bottom=bottom, **patch_style(options, bar_kw))
            )
            bottom = bottom + heights
        self._label(names, named, bottom.max())
        if errors is not None and named:
            self.ax_.set_ylabel(f"{self.ax_.get_ylabel()} ± standard error (a lower bound)")
        # the legend reads like the stack, from the top down
        self.legend_ = legend_beside(self.ax_, self.bars_[::-1])
        return self

    def _errors(self, values):
        if self.std is None:
            return None
        errors = check_array(self.std, dtype=float, input_name="std")
        if errors.shape != values.shape:
            raise ValueError(f"std has the shape {errors.shape}, but proportions have {values.shape}.")
        return errors

    def _names(self, values):
        """Names of cell types and samples as strings; samples None if they are numbered."""
        cell_types = [str(name) for name in self.cell_types]
        names = None if self.sample_names is None else [str(name) for name in self.sample_names]
        for kind, found, expected in (
            ("cell_types", cell_types, values.shape[1]),
            ("sample_names", names, len(values)),
        ):
            if found is not None and len(found) != expected:
                raise ValueError(f"{kind} has {len(found)} names, but proportions have {expected}.")
        return cell_types, names

    def _colours(self, colours, cell_types, stack):
        if isinstance(colours, dict):
            missing = [name for name in cell_types if name not in colours]
            if missing:
                raise ValueError(f"colours has none for {listing(missing)}.")
            return [colours[name] for name in cell_types]
        if colours is not None:
            return list(colours)
        # the most abundant cell types get the colours that are told apart best
        found = dict(zip(stack, distinct_colours(len(stack)), strict=True))
        return [found[k] for k in range(len(stack))]

    def _order(self, values, cell_types, stack, sort_by):
        self._sorted_by = cell_types[stack[0]] if sort_by == "auto" else sort_by
        if sort_by is None:
            return np.arange(len(values))
        if self._sorted_by not in cell_types:
            raise ValueError(f"sort_by={sort_by!r} is not among the cell types {listing(cell_types)}.")
        return np.argsort(-values[:, cell_types.index(self._sorted_by)], kind="stable")

    def _label(self, names, named, top):
        ax = self.ax_
        sorting = "" if self._sorted_by is None else f", sorted by {self._sorted_by}"
        ax.set_xlabel(f"{len(self.order_)} samples{sorting}")
        ax.set_ylabel("proportion" if self.shares_of is None else f"share of {self.shares_of}")
        ax.set_xlim(-0.5, len(self.order_) - 0.5)
        ax.set_ylim(0, max(1.0, top))
        if not named:
            ax.set_xticks([])
            return
        shown = [str(row) if names is None else names[row] for row in self.order_]
        level = len(shown) <= N_LEVEL and max(map(len, shown)) <= SHORT_NAME
        small = "small" if len(shown) <= N_NAMED // 2 else "x-small"
        ax.set_xticks(np.arange(len(shown)), shown, rotation=0 if level else 90, fontsize=small)
        ax.tick_params(axis="x", length=0)
