"""What every display shares: colours that all readers tell apart, figures, legends, matplotlib on demand."""

from functools import partial
from importlib import import_module

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..checks.optional import import_optional

# What constructors of displays end with: where to draw, and what they return.
AXES = """ax : matplotlib Axes, default=None
    Axes to draw on. None creates a figure."""
GRID = """ax : matplotlib Axes or array of them, default=None
    Where to draw, see :meth:`plot`."""
DRAWN = """**kwargs : dict
    Passed to :meth:`plot`.

Returns
-------
display : {class}
    The display, drawn."""
# Entries that the docstrings of displays share.
ENTRIES = {
    "axes": AXES,
    "panels": """ax : matplotlib Axes or array of them, default=None
    None creates a figure. One Axes is divided into a grid; of an array, there must be as many as cell types.""",
    "fitted": """estimator : estimator instance
    Fitted :class:`~skenigma.ProportionEstimator` or deconvolver.""",
    "adata": """adata : AnnData
    What :func:`skenigma.anndata.deconvolve` returned, or read from a file.""",
    "key": """key : str, default="skenigma"
    The key that it was given.""",
    "no_deconvolution": """ValueError
    If `adata` holds no deconvolution under `key`.""",
    "one_axes_drawn": """ax_ : matplotlib Axes
    Axes with the plot.
figure_ : matplotlib Figure
    Figure containing the plot.""",
    "all_axes_drawn": """axes_ : ndarray of matplotlib Axes
    One per cell type.
figure_ : matplotlib Figure
    Figure containing the plot.""",
    "drawn_on_axes": f"{AXES}\n{DRAWN}",
    "drawn_on_grid": f"{GRID}\n{DRAWN}",
    "itself": """display : {class}
    The display itself.""",
    "not_fitted": """sklearn.exceptions.NotFittedError
    If `estimator` is not fitted.""",
    "no_matplotlib": """ImportError
    If matplotlib is not installed.""",
}

# Okabe & Ito's palette, told apart by readers with any kind of colour vision
BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
SKY, YELLOW, GREY = "#56B4E9", "#F0E442", "#808080"
LINE_STYLES = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILLION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": ORANGE, "linestyle": ":", "marker": "D"},
    {"color": PURPLE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
)
# Norms and losses that are smaller than others by this: far above rounding, far below anything worth seeing.
NEGLIGIBLE = 1e-12


def fitted_history(estimator, attribute):
    """Return what a fit has recorded, or say why there is nothing."""
    check_is_fitted(estimator)
    history = getattr(estimator, attribute, None)
    if history is None:
        raise ValueError(
            f"This {type(estimator).__name__} has recorded no {attribute}: "
            "its solver does not compute what this display shows."
        )
    return history


def stored_history(found, name):
    """What a fit has recorded, out of an AnnData, or say why there is nothing."""
    if name not in found.histories:
        raise ValueError(
            f"uns['{found.key}'] has no {name.rstrip('_')}: the solver of this {found.model or 'model'} does not "
            f"compute what this display shows, or only the expression was written."
        )
    return found.histories[name]


def check_columns(array, expected, name, meaning):
    if array.shape[1] != expected:
        raise ValueError(f"{name} has {array.shape[1]} columns, {expected} expected: {meaning}.")


def four_digits(value):
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")


def figure_and_axes(ax):
    pyplot = import_optional("matplotlib.pyplot", "plot", "Drawing a plot")
    if ax is None:
        _, ax = pyplot.subplots(layout="constrained")
    return ax.figure, ax


def _style(module, artist, defaults, options):
    """Let `options` override `defaults`, under any of the names matplotlib has for them."""
    from matplotlib.cbook import normalize_kwargs

    kind = getattr(import_module(f"matplotlib.{module}"), artist)
    return {**normalize_kwargs(defaults, kind), **normalize_kwargs(options, kind)}


line_style = partial(_style, "lines", "Line2D")
fill_style = partial(_style, "collections", "PolyCollection")
points_style = partial(_style, "collections", "PathCollection")
patch_style = partial(_style, "patches", "Patch")
text_style = partial(_style, "text", "Text")


def integer_ticks(axis):
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


def legend_above_data(ax, loc, **options):
    """Add a legend and raise the upper limit until all data lie below it."""
    legend = ax.legend(loc=loc, fontsize="small", frameon=False, **options)
    if ax.get_autoscaley_on():
        # lays the figure out, so that the sizes are final; a subfigure cannot, its canvas' figure can
        ax.figure.canvas.figure.draw_without_rendering()
        share = (ax.bbox.y1 - legend.get_window_extent().y0) / ax.bbox.height
        # in tiny axes the data keep at least half of the height
        raise_upper_limit(ax, min(share, 0.5))
    return legend


def raise_upper_limit(ax, share):
    """Leave the upper `share` of the axes free, on a linear or a logarithmic axis."""
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(ax.get_ylim())
    (top,) = scale.inverted().transform([low + (high - low) / (1 - share)])
    # auto=None leaves autoscaling on, so that more can be drawn on the same axes
    ax.set_ylim(top=top, auto=None)


def distinct_colours(count):
    """Colours that are told apart, the clearest first: the palette, then lighter and darker kinds of it."""
    from matplotlib.colors import to_rgb

    base = np.array(
        [to_rgb(colour) for colour in (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, YELLOW, GREY)]
    )
    kinds = np.concatenate([base, 0.5 + 0.5 * base, 0.55 * base])
    return [tuple(kinds[index % len(kinds)]) for index in range(count)]


def as_hex(colour):
    """A colour in any way that matplotlib knows as "#rrggbb", or with its opacity "#rrggbbaa"."""
    return import_optional("matplotlib.colors", "plot", "A colour by name").to_hex(colour, keep_alpha=True)


def legend_beside(ax, handles):
    """Add a legend to the right of the axes, in as many columns as its height takes."""
    columns = -(-len(handles) // 16)
    return ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize="small",
        frameon=False,
        ncols=columns,
    )


def axes_grid(ax, count):
    """A figure and ``count`` axes: new ones, those given, or those that one given axes is divided into."""
    if isinstance(ax, (list, tuple, np.ndarray)):
        axes = np.ravel(ax)
        if len(axes) != count:
            raise ValueError(f"{len(axes)} axes were given for {count} panels.")
        return axes[0].figure, axes
    columns = min(count, 3 if count < 7 else 4)
    rows = -(-count // columns)
    if ax is None:
        pyplot = import_optional("matplotlib.pyplot", "plot", "Drawing a plot")
        figure = pyplot.figure(figsize=(2.6 * columns + 0.9, 2.7 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, columns)
    elif count == 1:
        return ax.figure, np.array([ax])
    else:
        figure, grid = ax.figure, ax.get_subplotspec().subgridspec(rows, columns)
        ax.set_axis_off()
    return figure, np.array([figure.add_subplot(grid[index]) for index in range(count)])
