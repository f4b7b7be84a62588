import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import trapezoid
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from skenigma.plotting import GradientNormDisplay, LossCurveDisplay

plt = pytest.importorskip("matplotlib.pyplot")

from matplotlib.colors import to_rgba  # noqa: E402

SIZES = pytest.mark.parametrize("size", [(6.4, 4.8), (3.2, 2.4)], ids=["640x480", "320x240"])
DISPLAYS = pytest.mark.parametrize("display", [GradientNormDisplay, LossCurveDisplay])


class Fitted(BaseEstimator):
    """An estimator with the attributes of a fit, and nothing else."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def fit(self, X, y=None):
        return self


@pytest.fixture
def gradient_norm():
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(400, 30, 40), rng.normal(20, 1, 40)])


@pytest.fixture
def loss_history():
    decay = np.exp(-np.arange(30) / 4)
    history = np.column_stack([1e5 * (1 - decay), 4e5 * (1 + decay), 60 + 1e4 * decay])
    history[0, 0] = 1e-26  # the start reconstructs the bulk but for rounding
    return history


@pytest.fixture
def estimator(gradient_norm, loss_history):
    return Fitted(gradient_norm_=gradient_norm, loss_history_=loss_history, renorm_size_=None)


def legend_texts(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def highest_point(display):
    """Height in the figure, in pixels, of the highest point of any line."""
    lines = display.ax_.get_lines()
    return max(np.nanmax(line.get_transform().transform(line.get_xydata())[:, 1]) for line in lines)


# Both displays


@pytest.mark.slow
@DISPLAYS
def test_importing_and_creating_a_display_needs_no_matplotlib(display):
    code = f"""
import sys
from skenigma.plotting import {display.__name__}
{display.__name__}({"gradient_norm" if display is GradientNormDisplay else "loss_history"}=[[1, 2, 3]])
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@DISPLAYS
def test_drawing_without_matplotlib_says_what_to_install(display, estimator, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'skenigma\[plot\]'"):
        display.from_estimator(estimator)


@DISPLAYS
def test_plot_creates_a_figure_and_returns_itself(display, estimator):
    drawn = display.from_estimator(estimator)
    assert isinstance(drawn, display)
    assert drawn.ax_.figure is drawn.figure_
    assert drawn.plot() is drawn
    assert len(plt.get_fignums()) == 2


@DISPLAYS
def test_given_axes_are_used(display, estimator):
    figure, (left, right) = plt.subplots(1, 2)
    drawn = display.from_estimator(estimator, ax=right)
    assert drawn.ax_ is right
    assert drawn.figure_ is figure
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


@DISPLAYS
def test_axes_of_a_subfigure_can_be_given(display, estimator):
    subfigure = plt.figure(layout="constrained").subfigures(1, 2)[1]
    assert display.from_estimator(estimator, ax=subfigure.subplots()).figure_ is subfigure


@DISPLAYS
def test_unfitted_estimator(display):
    with pytest.raises(NotFittedError):
        display.from_estimator(Fitted(alpha=0.1))


@pytest.mark.parametrize(
    ("display", "attribute"), [(GradientNormDisplay, "gradient_norm_"), (LossCurveDisplay, "loss_history_")]
)
@pytest.mark.parametrize("attributes", [{}, {"gradient_norm_": None, "loss_history_": None}])
def test_fit_that_recorded_nothing(display, attribute, attributes):
    with pytest.raises(ValueError, match=f"This Fitted has recorded no {attribute}"):
        display.from_estimator(Fitted(n_iter_=3, **attributes))


@DISPLAYS
@SIZES
def test_legend_is_clear_of_the_data_and_labels_are_inside_the_figure(display, estimator, size):
    estimator.renorm_size_ = 200
    with plt.rc_context({"figure.figsize": size}):
        drawn = display.from_estimator(estimator)
    drawn.figure_.canvas.draw()
    legend = drawn.legend_.get_window_extent()
    assert highest_point(drawn) < legend.y0
    assert legend.y1 < drawn.ax_.bbox.y1
    labels = [drawn.ax_.xaxis.label, drawn.ax_.yaxis.label]
    for extent in [label.get_window_extent() for label in labels]:
        assert min(extent.x0, extent.y0) >= 0
        assert extent.x1 <= drawn.figure_.bbox.x1
        assert extent.y1 <= drawn.figure_.bbox.y1


@DISPLAYS
def test_legend_is_clear_of_the_data_in_axes_that_the_layout_has_shrunk(display, estimator):
    figure, ax = plt.subplots(layout="constrained", figsize=(4, 4))
    figure.suptitle("a title\nof many\nlines", fontsize=30)
    drawn = display.from_estimator(estimator, ax=ax)
    figure.canvas.draw()
    assert highest_point(drawn) < drawn.legend_.get_window_extent().y0


@DISPLAYS
def test_limits_set_before_are_left_alone(display, estimator):
    _, ax = plt.subplots()
    ax.set_ylim(top=1e9)
    assert display.from_estimator(estimator, ax=ax).ax_.get_ylim()[1] == 1e9


@pytest.mark.slow
@DISPLAYS
def test_two_displays_on_one_axes(display, estimator):
    first = display.from_estimator(estimator)
    larger = Fitted(
        gradient_norm_=estimator.gradient_norm_ / 10 + 500, loss_history_=1e4 * estimator.loss_history_
    )
    second = display.from_estimator(larger, ax=first.ax_)
    second.figure_.canvas.draw()
    assert highest_point(second) < second.legend_.get_window_extent().y0


# GradientNormDisplay


def test_mean_line_stands_at_the_mean_and_says_so(gradient_norm):
    display = GradientNormDisplay(gradient_norm=gradient_norm).plot()
    mean = gradient_norm.mean()
    assert_allclose(display.mean_line_.get_xdata(), [mean, mean], rtol=1e-14)
    assert_allclose(display.mean_line_.get_ydata(), [0, display.line_.get_ydata().max()])
    assert legend_texts(display) == [f"mean {mean:.1f}"]


def test_mean_of_the_vignette(vignette):
    norms = vignette.run("l2max_none")["gradient_norm"]
    display = GradientNormDisplay.from_estimator(Fitted(gradient_norm_=norms))
    # the vignette prints 201.1309
    assert_allclose(display.mean_line_.get_xdata(), 201.1309, atol=5e-5)
    assert legend_texts(display) == ["mean 201.1"]
    # "majority of gradients have gradient norm size around 210"
    grid, density = display.line_.get_data()
    assert 210 < grid[density.argmax()] < 220


@pytest.mark.parametrize(("scale", "text"), [(1e-5, "mean 0.00325"), (1e3, "mean 325000"), (1, "mean 325")])
def test_mean_is_readable_on_any_scale(scale, text):
    display = GradientNormDisplay(gradient_norm=scale * np.array([[500, 100], [600, 100]])).plot()
    assert legend_texts(display) == [text]


def test_rug_has_one_tick_per_update_on_the_axis(gradient_norm):
    display = GradientNormDisplay(gradient_norm=gradient_norm).plot()
    assert_allclose(display.rug_.get_xdata(), gradient_norm.mean(axis=1))
    on_axis = display.rug_.get_transform().transform(display.rug_.get_xydata())[:, 1]
    assert_allclose(on_axis, display.ax_.bbox.y0)
    assert display.ax_.get_ylim()[0] == 0


def test_density_is_the_kernel_estimate(gradient_norm):
    display = GradientNormDisplay(gradient_norm=gradient_norm).plot()
    grid, density = display.line_.get_data()
    norms = gradient_norm.mean(axis=1)
    spread = min(norms.std(ddof=1), np.subtract(*np.percentile(norms, [75, 25])) / 1.34)
    bandwidth = 0.9 * spread * len(norms) ** -0.2
    expected = norm.pdf(grid[:, None], norms, bandwidth).mean(axis=1)
    assert_allclose(density, expected, rtol=1e-9)  # sums of 40 exponentials, in another order
    # three bandwidths on either side hold all but 0.3 % of the outermost kernels
    assert_allclose(trapezoid(density, grid), 1, atol=1e-3)


def test_density_is_filled_in_light_blue(gradient_norm):
    display = GradientNormDisplay(gradient_norm=gradient_norm).plot()
    assert display.line_.get_color() == "darkblue"
    assert_allclose(display.fill_.get_facecolor(), [to_rgba("lightblue")])
    top = display.fill_.get_paths()[0].vertices[:, 1].max()
    assert_allclose(top, display.line_.get_ydata().max())


def test_density_starts_at_zero_at_the_earliest():
    display = GradientNormDisplay(gradient_norm=[[0, 0], [1, 1], [2, 2], [3, 3]]).plot()
    assert display.line_.get_xdata().min() == 0


@pytest.mark.parametrize("rest", [100.0, 100 + 1e-7 * np.arange(50)], ids=["equal", "alike"])
def test_density_of_updates_that_are_alike_is_still_resolved(rest):
    norms = np.r_[1.0, np.broadcast_to(rest, 50)]
    display = GradientNormDisplay(gradient_norm=np.column_stack([norms, norms])).plot()
    grid, density = display.line_.get_data()
    assert_allclose(trapezoid(density, grid), 1, atol=0.01)  # a missed or cut spike takes 98 % with it


@pytest.mark.parametrize("norms", [[[300.0, 100.0]], [[300.0, 100.0]] * 3, [[0.0, 0.0]] * 2])
def test_without_spread_only_ticks_and_lines_are_drawn(norms):
    display = GradientNormDisplay(gradient_norm=norms).plot()
    assert display.line_ is None
    assert display.fill_ is None
    assert len(display.rug_.get_xdata()) == len(norms)
    assert_allclose(display.mean_line_.get_xdata(), np.mean(norms))
    assert list(display.ax_.get_yticks()) == []
    display.figure_.canvas.draw()


def test_renorm_size_is_a_second_line(estimator):
    assert GradientNormDisplay.from_estimator(estimator).renorm_line_ is None
    estimator.renorm_size_ = 200.0
    display = GradientNormDisplay.from_estimator(estimator)
    assert_allclose(display.renorm_line_.get_xdata(), 200)
    assert legend_texts(display)[1] == "renorm_size 200"
    assert display.renorm_line_.get_linestyle() != display.mean_line_.get_linestyle()


def test_gradient_axes_are_labelled(gradient_norm):
    ax = GradientNormDisplay(gradient_norm=gradient_norm).plot().ax_
    assert ax.get_xlabel() == "gradient norm per iteration\n(expression units)"
    assert ax.get_ylabel() == "density"


def test_gradient_options_are_forwarded_under_any_alias(estimator):
    display = GradientNormDisplay.from_estimator(
        estimator,
        line_kw={"c": "red", "label": "density"},
        fill_kw={"fc": "yellow"},
        rug_kw={"ms": 20},
        mean_line_kw={"ls": ":", "label": "average"},
    )
    assert display.line_.get_color() == "red"
    assert_allclose(display.fill_.get_facecolor(), [to_rgba("yellow")])
    assert display.rug_.get_markersize() == 20
    assert display.mean_line_.get_linestyle() == ":"
    assert legend_texts(display) == ["density", "average"]


def test_fill_takes_a_plain_colour(gradient_norm):
    display = GradientNormDisplay(gradient_norm=gradient_norm).plot(fill_kw={"color": "yellow"})
    assert_allclose(display.fill_.get_facecolor(), [to_rgba("yellow")])


def test_no_update_is_explained():
    with pytest.raises(ValueError, match="stopped at its first evaluation, so no update was applied"):
        GradientNormDisplay(gradient_norm=np.empty((0, 2))).plot()


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        (np.ones((4, 3)), "gradient_norm has 3 columns, 2 expected"),
        (np.ones(4), "Expected 2D array"),
        ([[1.0, np.nan]], "gradient_norm contains NaN"),
    ],
)
def test_bad_gradient_norms(norms, message):
    with pytest.raises(ValueError, match=message):
        GradientNormDisplay(gradient_norm=norms).plot()


# LossCurveDisplay


def test_terms_against_the_iteration(loss_history):
    display = LossCurveDisplay(loss_history=loss_history).plot(log_scale=False)
    for line, values in zip(display.lines_, loss_history.T, strict=True):
        assert_array_equal(line.get_xdata(), np.arange(1, 31))
        assert_array_equal(line.get_ydata(), values)
    assert legend_texts(display) == ["reconstruction", "reference", "penalty"]
    assert display.ax_.get_yscale() == "linear"


def test_rounding_noise_is_left_out_of_the_logarithmic_axis(loss_history):
    display = LossCurveDisplay(loss_history=loss_history).plot()
    assert display.ax_.get_yscale() == "log"
    reconstruction, *others = display.lines_
    assert np.isnan(reconstruction.get_ydata()[0])
    assert_array_equal(reconstruction.get_ydata()[1:], loss_history[1:, 0])
    for line, values in zip(others, loss_history.T[1:], strict=True):
        assert_array_equal(line.get_ydata(), values)
    assert 10 < display.ax_.get_ylim()[0] < 60


def test_rounding_noise_is_left_out_of_a_single_iteration():
    display = LossCurveDisplay(loss_history=[[1e-26, 1e6, 1e4]]).plot()
    assert [np.isnan(line.get_ydata()[0]) for line in display.lines_] == [True, False, False]


def test_small_terms_are_not_taken_for_rounding_noise():
    display = LossCurveDisplay(loss_history=[[1e-8, 1e8, 1.0], [1e-12, 1e8, 1e-11]]).plot()
    assert not any(np.isnan(line.get_ydata()).any() for line in display.lines_)


@pytest.mark.parametrize("history", [[[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]] * 2])
def test_zeros_can_be_drawn(history):
    display = LossCurveDisplay(loss_history=history).plot()
    display.figure_.canvas.draw()
    assert np.isnan(display.lines_[1].get_ydata()).all()


def test_lines_differ_by_colour_style_and_marker(loss_history):
    lines = LossCurveDisplay(loss_history=loss_history).plot().lines_
    for looks in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, looks)() for line in lines}) == 3


@pytest.mark.parametrize("n_iter", [1, 2, 5, 38, 1000])
def test_markers_are_few_but_never_missing(n_iter):
    lines = LossCurveDisplay(loss_history=np.ones((n_iter, 3))).plot().lines_
    for line in lines:
        start, step = line.get_markevery()
        assert 1 <= len(range(start, n_iter, step)) <= 24
    assert n_iter < 38 or len({line.get_markevery()[0] for line in lines}) == 3


def test_loss_axes_are_labelled(loss_history):
    ax = LossCurveDisplay(loss_history=loss_history[:3]).plot().ax_
    assert ax.get_xlabel() == "iteration"
    assert ax.get_ylabel() == "loss term\n(squared expression units)"
    assert_array_equal(ax.get_xticks() % 1, 0)


def test_terms_can_be_named(loss_history):
    display = LossCurveDisplay(loss_history=loss_history[:, :2], terms=("a", "b")).plot()
    assert legend_texts(display) == ["a", "b"]


def test_loss_options_are_forwarded_under_any_alias(estimator):
    display = LossCurveDisplay.from_estimator(estimator, log_scale=False, line_kw={"lw": 3, "ls": ":"})
    assert display.ax_.get_yscale() == "linear"
    assert {(line.get_linewidth(), line.get_linestyle()) for line in display.lines_} == {(3, ":")}


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (np.ones((4, 2)), "loss_history has 2 columns, 3 expected: .*reconstruction, reference, penalty"),
        (np.empty((0, 3)), "Found array with 0 sample"),
        ([[1.0, 2.0, np.inf]], "loss_history contains infinity"),
    ],
)
def test_bad_loss_histories(history, message):
    with pytest.raises(ValueError, match=message):
        LossCurveDisplay(loss_history=history).plot()
