"""Stacked bars of proportions."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver, ProportionEstimator
from skenigma.datasets import make_cohort
from skenigma.plotting import ProportionDisplay

plt = pytest.importorskip("matplotlib.pyplot")

from matplotlib.colors import to_rgb  # noqa: E402

COUNTS = pytest.mark.parametrize("count", [10, 300])


def table(count, n_types=5):
    values = np.random.default_rng(0).dirichlet(np.linspace(0.5, 3, n_types), count)
    return pd.DataFrame(values, [f"S{j}" for j in range(count)], [f"type {k}" for k in range(n_types)])


def legend_texts(display):
    return [text.get_text() for text in display.legend_.get_texts()]


@pytest.mark.slow
def test_importing_and_creating_needs_no_matplotlib():
    code = """
import sys
from skenigma.plotting import ProportionDisplay
ProportionDisplay(proportions=[[1.0]], cell_types=["a"])
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'skenigma\[plot\]'"):
        ProportionDisplay.from_proportions(table(3))


@pytest.mark.slow
@COUNTS
def test_bars_are_the_proportions_stacked_by_mean_and_sorted(count):
    proportions = table(count)
    display = ProportionDisplay.from_proportions(proportions)
    stack = proportions.mean().sort_values(ascending=False).index
    expected = proportions.sort_values(stack[0], ascending=False)
    assert_array_equal(proportions.index[display.order_], expected.index)
    bottom = np.zeros(count)
    for bars, name in zip(display.bars_, stack, strict=True):
        assert bars.get_label() == name
        assert_allclose([bar.get_height() for bar in bars], expected[name])
        assert_allclose([bar.get_y() for bar in bars], bottom, atol=1e-12)
        bottom += expected[name]
    assert legend_texts(display) == list(stack[::-1])
    assert display.ax_.get_ylim() == (0, max(1, bottom.max()))
    assert display.ax_.get_xlabel() == f"{count} samples, sorted by {stack[0]}"


@pytest.mark.slow
def test_few_samples_are_named_and_many_are_not():
    few = ProportionDisplay.from_proportions(table(10))
    assert [label.get_text() for label in few.ax_.get_xticklabels()] == [f"S{j}" for j in few.order_]
    many = ProportionDisplay.from_proportions(table(300))
    assert list(many.ax_.get_xticks()) == []
    # no gap that would let the background through
    first, second = many.bars_[0][:2]
    assert_allclose(first.get_x() + first.get_width(), second.get_x())
    assert few.bars_[0][0].get_width() < 1


@pytest.mark.slow
@COUNTS
@pytest.mark.parametrize("size", [(6.4, 4.8), (3.6, 2.7)], ids=["640x480", "360x270"])
def test_everything_is_inside_the_figure_and_names_do_not_overlap(count, size):
    with plt.rc_context({"figure.figsize": size}):
        display = ProportionDisplay.from_proportions(table(count))
    display.figure_.canvas.draw()
    figure, names = display.figure_.bbox, display.ax_.get_xticklabels()
    parts = [display.ax_.xaxis.label, display.ax_.yaxis.label, display.legend_, *names]
    for extent in [part.get_window_extent() for part in parts]:
        assert min(extent.x0, extent.y0) >= 0
        assert extent.x1 <= figure.x1
        assert extent.y1 <= figure.y1
    extents = [name.get_window_extent() for name in names]
    assert all(left.x1 <= right.x0 for left, right in pairwise(extents))
    assert display.ax_.bbox.x1 <= display.legend_.get_window_extent().x0 + 1


@pytest.mark.parametrize("n_types", [5, 9, 20])
def test_colours_differ(n_types):
    display = ProportionDisplay.from_proportions(table(4, n_types))
    colours = np.array([to_rgb(bars[0].get_facecolor()) for bars in display.bars_])
    distances = np.linalg.norm(colours[:, None] - colours, axis=2)[~np.eye(n_types, dtype=bool)]
    assert distances.min() > 0.1


def test_sorting_and_colours_can_be_chosen():
    proportions = table(6)
    display = ProportionDisplay.from_proportions(proportions, sort_by="type 0")
    assert_array_equal(display.order_, np.argsort(-proportions["type 0"].to_numpy(), kind="stable"))
    kept = ProportionDisplay.from_proportions(
        proportions, sort_by=None, colours={f"type {k}": f"C{k}" for k in range(5)}
    )
    assert_array_equal(kept.order_, np.arange(6))
    assert kept.ax_.get_xlabel() == "6 samples"
    for bars in kept.bars_:
        assert to_rgb(bars[0].get_facecolor()) == to_rgb(f"C{bars.get_label()[-1]}")
    listed = ProportionDisplay.from_proportions(proportions, colours=["r", "g", "b", "c", "m"])
    assert {bars.get_label(): to_rgb(bars[0].get_facecolor()) for bars in listed.bars_}["type 1"] == to_rgb(
        "g"
    )


def test_options_are_forwarded_under_any_alias():
    display = ProportionDisplay.from_proportions(table(3), bar_kw={"ec": "red", "lw": 3})
    bar = display.bars_[0][0]
    assert to_rgb(bar.get_edgecolor()) == to_rgb("red")
    assert bar.get_linewidth() == 3


@pytest.mark.parametrize(
    "estimator", [ProportionEstimator(), L2MaxDeconvolver(renorm_size=None)], ids=lambda e: type(e).__name__
)
def test_fitted_estimators(estimator):
    cohort = make_cohort(n_samples=40, n_genes=200, n_cell_types=3, as_frame=True, random_state=0)
    estimator = clone(estimator).set_params(reference=cohort.reference).fit(cohort.bulk)
    display = ProportionDisplay.from_estimator(estimator)
    assert_array_equal(display.proportions, estimator.proportions_)
    assert sorted(legend_texts(display)) == list(cohort.cell_types)
    named = ProportionDisplay.from_estimator(estimator, sample_names=cohort.sample_names)
    assert named.ax_.get_xticklabels()[0].get_text() == cohort.sample_names[named.order_[0]]
    with pytest.raises(NotFittedError):
        ProportionDisplay.from_estimator(clone(estimator))


def test_given_axes_are_used():
    figure, (left, right) = plt.subplots(1, 2)
    display = ProportionDisplay.from_proportions(table(5), ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()


@pytest.mark.parametrize(
    ("proportions", "options", "message"),
    [
        ([[1.2, -0.2]], {}, r"negative values in 1 place\(s\): \(row 0, column 'celltype1'\)"),
        ([[np.nan, 1.0]], {}, "proportions contains NaN"),
        ([[0.5, 0.5]], {"cell_types": ["a"]}, "cell_types has 1 names, but proportions have 2"),
        ([[0.5, 0.5]], {"sample_names": ["a", "b"]}, "sample_names has 2 names, but proportions have 1"),
        ([[0.5, 0.5]], {"sort_by": "B"}, "sort_by='B' is not among the cell types 'celltype0', 'celltype1'"),
        ([[0.5, 0.5]], {"colours": {"celltype0": "r"}}, "colours has none for 'celltype1'"),
    ],
)
def test_bad_input(proportions, options, message):
    with pytest.raises(ValueError, match=message):
        ProportionDisplay.from_proportions(proportions, **options)


def test_standard_errors_are_drawn_and_called_a_lower_bound():
    std = np.array([[0.1, 0.02], [0.05, 0.03]])
    display = ProportionDisplay.from_proportions(
        [[0.2, 0.8], [0.4, 0.6]], cell_types=["B", "T"], std=std, sort_by=None
    )
    # T is at the bottom: its error bars end at proportion ± error
    segments = display.bars_[0].errorbar.lines[2][0].get_segments()
    assert_allclose([segment[:, 1] for segment in segments], [[0.78, 0.82], [0.57, 0.63]])
    segments = display.bars_[1].errorbar.lines[2][0].get_segments()
    assert_allclose([segment[:, 1] for segment in segments], [[0.9, 1.1], [0.95, 1.05]])
    assert "lower bound" in display.ax_.get_ylabel()
    with pytest.raises(ValueError, match=r"std has the shape \(1, 2\)"):
        ProportionDisplay.from_proportions([[0.2, 0.8], [0.4, 0.6]], cell_types=["B", "T"], std=std[:1])


def test_the_axis_says_what_the_shares_are_of():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1, 100, (3, 60))
    bulk = rng.dirichlet(np.ones(3), 9) @ profiles

    def label(estimator):
        return ProportionDisplay.from_estimator(estimator).ax_.get_ylabel()

    assert label(ProportionEstimator(profiles, method="nnls").fit(bulk)) == "share of RNA"
    cells = ProportionEstimator(profiles, method="log", rna_content=[1, 2, 3]).fit(bulk)
    assert label(cells) == "share of cells ± standard error (a lower bound)"
    model = EmpiricalBayesDeconvolver(profiles)  # its own estimator is "auto": "log" here
    assert label(model.fit(bulk)) == "share of RNA ± standard error (a lower bound)"
    assert label(model.fit(bulk, proportions=np.full((9, 3), 1 / 3))) == "proportion"


def test_an_estimator_brings_its_standard_errors():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1, 100, (3, 60))
    estimator = ProportionEstimator(profiles, method="log").fit(rng.dirichlet(np.ones(3), 5) @ profiles)
    assert ProportionDisplay.from_estimator(estimator).bars_[0].errorbar is not None
    assert ProportionDisplay.from_estimator(estimator.set_params(method="rlm").fit(profiles)).std is None
