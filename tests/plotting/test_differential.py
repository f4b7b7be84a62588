import subprocess
import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma import L2MaxDeconvolver
from skenigma.datasets import make_cohort
from skenigma.differential import differential_expression
from skenigma.plotting import DifferentialExpressionDisplay

plt = pytest.importorskip("matplotlib.pyplot")

from matplotlib.colors import to_rgba  # noqa: E402

SIZES = pytest.mark.parametrize("size", [(6.4, 4.8), (3.2, 2.4)], ids=["640x480", "320x240"])


@pytest.fixture
def volcano():
    """1,000 genes of which 60 are called; effects and p-values of a plausible shape, names as long as Ensembl's."""
    rng = np.random.default_rng(0)
    effect = rng.standard_normal(1000)
    effect[:60] *= 4
    p_value = 10 ** -np.minimum(np.abs(effect) ** 1.5 * rng.uniform(0.5, 1, 1000), 300)
    q_value = np.where(np.arange(1000) < 60, 0.01, 0.5)
    names = np.array([f"ENSG{i:011d}" for i in range(1000)], dtype=object)
    return {"effect": effect, "p_value": p_value, "q_value": q_value, "gene_names": names}


@pytest.fixture
def table():
    """A small table of two cell types, not in their order, with every kind of row."""
    return pd.DataFrame(
        [
            ("B cell", "up", 3.0, 5.0, 1e-6, 1e-4, ""),
            ("T cell", "other", 9.0, 5.0, 1e-5, 1e-4, ""),
            ("B cell", "down", -2.0, -5.0, 1e-5, 1e-3, ""),
            ("B cell", "weak", 1.0, 1.0, 0.3, 0.4, ""),
            ("B cell", "separated", 4.0, 1e-3, 0.99, 1.0, "separated"),
            ("B cell", "constant", 0.0, np.nan, np.nan, np.nan, "constant"),
            ("B cell", "infinite", np.inf, 2.0, 0.04, 0.1, "zero_mean"),
        ],
        columns=["cell_type", "gene", "effect", "statistic", "p_value", "q_value", "flag"],
    )


@pytest.fixture(scope="module")
def simulated():
    return make_cohort(n_samples=60, n_genes=80, n_cell_types=3, random_state=0, as_frame=True)


@pytest.fixture(scope="module")
def model(simulated):
    return L2MaxDeconvolver(simulated.reference, renorm_size=None).fit(simulated.bulk)


def legend_texts(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def names(display):
    return [label.get_text() for label in display.labels_]


# matplotlib on demand


@pytest.mark.slow
def test_importing_and_creating_a_display_needs_no_matplotlib():
    code = """
import sys
from skenigma.plotting import DifferentialExpressionDisplay
DifferentialExpressionDisplay(effect=[1], p_value=[0.1], q_value=[0.2])
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_without_matplotlib_says_what_to_install(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'skenigma\[plot\]'"):
        DifferentialExpressionDisplay.from_results(table, "B cell")


# Figures and axes


def test_plot_creates_a_figure_and_returns_itself(table):
    display = DifferentialExpressionDisplay.from_results(table, "B cell")
    assert isinstance(display, DifferentialExpressionDisplay)
    assert display.ax_.figure is display.figure_
    assert display.plot() is display
    assert len(plt.get_fignums()) == 2


def test_given_axes_are_used(table):
    figure, (left, right) = plt.subplots(1, 2)
    display = DifferentialExpressionDisplay.from_results(table, "B cell", ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()


def test_axes_of_a_subfigure_can_be_given(volcano):
    subfigure = plt.figure(layout="constrained").subfigures(1, 2)[1]
    display = DifferentialExpressionDisplay(**volcano).plot(ax=subfigure.subplots())
    assert display.figure_ is subfigure
    assert display.labels_


# What is drawn


def test_points_of_each_kind(table):
    display = DifferentialExpressionDisplay.from_results(table, "B cell")
    drawn = {kind: line.get_xydata().round(6).tolist() for kind, line in display.points_.items()}
    assert drawn == {
        "not called": [[1.0, round(-np.log10(0.3), 6)]],
        "lower": [[-2.0, 5.0]],
        "higher": [[3.0, 6.0]],
        "flagged": [[4.0, round(-np.log10(0.99), 6)]],
    }
    assert display.ax_.get_title() == "B cell"


def test_legend_counts_all_genes(table):
    display = DifferentialExpressionDisplay.from_results(table, "B cell")
    assert legend_texts(display) == [
        "not called (1)",
        "lower (1)",
        "higher (1)",
        "flagged (1)",
        "not shown (2)",
    ]
    assert display.legend_.get_title().get_text() == "called: q < 0.05"
    few = DifferentialExpressionDisplay.from_results(table, "T cell")
    assert legend_texts(few) == ["higher (1)"]
    assert list(few.points_) == ["higher"]


def test_threshold(table):
    display = DifferentialExpressionDisplay.from_results(table, "B cell", threshold=5e-4)
    assert "lower" not in display.points_
    assert len(display.points_["higher"].get_xdata()) == 1
    assert names(display) == ["up"]


def test_fold_changes_are_drawn_on_a_logarithmic_axis():
    display = DifferentialExpressionDisplay(
        effect=[0.25, 4.0, 1.1, 0.0, np.inf],
        p_value=[1e-4] * 5,
        q_value=[1e-3, 1e-3, 0.5, 1e-3, 1e-3],
        fold_change=True,
    ).plot()
    assert display.ax_.get_xscale() == "log"
    assert_array_equal(display.points_["lower"].get_xdata(), [0.25])
    assert_array_equal(display.points_["higher"].get_xdata(), [4.0])
    assert "not shown (2)" in legend_texts(display)
    assert display.ax_.get_xlabel() == "fold change"


def test_p_values_of_zero_are_drawn_high_up():
    display = DifferentialExpressionDisplay(
        effect=[1.0, 2.0], p_value=[0.0, 1e-10], q_value=[0.0, 0.0]
    ).plot()
    heights = display.points_["higher"].get_ydata()
    assert_allclose(heights, [307.65, 10], atol=0.01)
    low, high = display.ax_.get_ylim()
    assert low < heights.min()
    assert high > heights.max()


def test_options(table):
    display = DifferentialExpressionDisplay.from_results(
        table, "B cell", points_kw={"ms": 9}, label_kw={"color": "red", "size": 12}
    )
    assert all(points.get_markersize() == 9 for points in display.points_.values())
    assert [label.get_color() for label in display.labels_] == ["red", "red"]
    assert [label.get_fontsize() for label in display.labels_] == [12, 12]
    plain = DifferentialExpressionDisplay.from_results(table, "B cell")
    assert to_rgba(plain.points_["lower"].get_color()) != to_rgba(plain.points_["higher"].get_color())


def test_nothing_to_show():
    display = DifferentialExpressionDisplay(effect=[0.0], p_value=[np.nan], q_value=[np.nan]).plot()
    assert display.points_ == {}
    assert legend_texts(display) == ["not shown (1)"]


# Names


def test_the_most_significant_are_named(table):
    display = DifferentialExpressionDisplay.from_results(table, "B cell")
    assert names(display) == ["up", "down"]
    assert names(DifferentialExpressionDisplay.from_results(table, "B cell", n_labels=1)) == ["up"]
    assert names(DifferentialExpressionDisplay.from_results(table, "B cell", n_labels=0)) == []


def test_names_belong_to_their_points(volcano):
    display = DifferentialExpressionDisplay(**volcano).plot()
    position = dict(
        zip(volcano["gene_names"], zip(volcano["effect"], volcano["p_value"], strict=True), strict=True)
    )
    ranked = volcano["gene_names"][:60][np.argsort(volcano["p_value"][:60])]
    found = names(display)
    assert 3 <= len(found) <= 10
    assert found == [name for name in ranked[:10] if name in found]
    for label in display.labels_:
        effect, p_value = position[label.get_text()]
        assert_allclose(label.xy, [effect, -np.log10(p_value)])


def test_without_names_none_are_drawn(volcano):
    del volcano["gene_names"]
    assert DifferentialExpressionDisplay(**volcano).plot().labels_ == []


@pytest.mark.slow
@SIZES
@pytest.mark.parametrize("n_labels", [10, 60])
def test_names_cover_neither_each_other_nor_the_legend_nor_many_points(volcano, size, n_labels):
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    figure.suptitle("a title\nof two lines")
    display = DifferentialExpressionDisplay(**volcano).plot(ax=ax, n_labels=n_labels)
    figure.canvas.draw()
    extents = [label.get_window_extent() for label in display.labels_]
    assert extents
    legend = display.legend_.get_window_extent()
    assert not any(first.overlaps(second) for first, second in combinations([*extents, legend], 2))
    points = np.vstack(
        [line.get_transform().transform(line.get_xydata()) for line in display.points_.values()]
    )
    for extent in extents:
        assert ax.bbox.x0 <= extent.x0
        assert extent.x1 <= ax.bbox.x1
        assert ax.bbox.y0 <= extent.y0
        assert extent.y1 <= ax.bbox.y1
        assert np.sum(np.all((points > extent.min) & (points < extent.max), axis=1)) <= 1
    assert max(points[:, 1]) < legend.y0


# From results and from an estimator


def test_one_cell_type_need_not_be_named(table):
    only = table[table.cell_type == "T cell"]
    assert DifferentialExpressionDisplay.from_results(only).ax_.get_title() == "T cell"


def test_several_cell_types(table):
    with pytest.raises(ValueError, match="2 cell types, 'B cell', 'T cell': choose one"):
        DifferentialExpressionDisplay.from_results(table)


def test_unknown_cell_type(table):
    with pytest.raises(ValueError, match="no cell type 'NK cell'; it has 'B cell', 'T cell'"):
        DifferentialExpressionDisplay.from_results(table, "NK cell")


@pytest.mark.parametrize("method", ["interaction", "marginal", "joint"])
@pytest.mark.parametrize("fold_change", [False, True])
def test_from_estimator(simulated, model, method, fold_change):
    options = {"method": method, "X": simulated.bulk, "fold_change": fold_change}
    display = DifferentialExpressionDisplay.from_estimator(
        model, simulated.phenotype, cell_type="celltype2", n_labels=3, **options
    )
    table = differential_expression(model, simulated.phenotype, **options)
    expected = table[table.cell_type == "celltype2"]
    assert_array_equal(display.effect, expected.effect)
    assert_array_equal(display.p_value, expected.p_value)
    assert_array_equal(display.gene_names, expected.gene)
    assert_array_equal(display.flagged, expected.flag.isin(["constant", "singular", "separated"]))
    assert display.fold_change is fold_change
    assert len(display.labels_) <= 3


def test_from_estimator_with_covariates(simulated, model):
    covariates = np.random.default_rng(0).standard_normal((60, 1))
    options = {"cell_type": "celltype1", "method": "marginal"}
    plain = DifferentialExpressionDisplay.from_estimator(model, simulated.phenotype, **options)
    adjusted = DifferentialExpressionDisplay.from_estimator(
        model, simulated.phenotype, covariates=covariates, **options
    )
    assert not np.allclose(np.sort(plain.p_value), np.sort(adjusted.p_value))


@pytest.mark.parametrize("name", ["p_value", "q_value", "gene_names", "flagged"])
def test_lengths_must_agree(volcano, name):
    values = {"flagged": np.zeros(1000, dtype=bool), **volcano}
    values[name] = values[name][1:]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DifferentialExpressionDisplay(**values).plot()
