"""Estimated against true values."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.datasets import make_cohort
from skenigma.metrics import concordance, per_gene_correlation, per_sample_correlation
from skenigma.plotting import RecoveryDisplay

plt = pytest.importorskip("matplotlib.pyplot")

from matplotlib.collections import PathCollection, PolyCollection  # noqa: E402


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=30, n_genes=100, n_cell_types=4, as_frame=True, random_state=0)


@pytest.fixture(scope="module")
def model(cohort):
    return L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)


def texts(display):
    return [text.get_text() for text in display.texts_]


@pytest.mark.slow
def test_importing_and_creating_needs_no_matplotlib():
    code = """
import sys
from skenigma.plotting import RecoveryDisplay
RecoveryDisplay(true=[[1.0]], estimated=[[1.0]], cell_types=["a"])
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'skenigma\[plot\]'"):
        RecoveryDisplay.from_predictions([[0.4, 0.6], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]])


def test_proportions_are_points_with_correlation_and_concordance(cohort, model):
    display = RecoveryDisplay.from_estimator(model, cohort.proportions)
    truth, found = cohort.proportions.to_numpy(), model.proportions_
    assert [panel.get_title() for panel in display.axes_] == list(cohort.cell_types)
    for k, drawn in enumerate(display.points_):
        assert isinstance(drawn, PathCollection)
        assert_allclose(drawn.get_offsets(), np.column_stack([truth[:, k], found[:, k]]))
    r = [np.corrcoef(truth[:, k], found[:, k])[0, 1] for k in range(4)]
    assert_allclose(display.correlations_["r"], r)
    assert_allclose(display.correlations_["CCC"], concordance(truth, found))
    assert texts(display)[0] == f"r {r[0]:.2f}\nCCC {concordance(truth, found)[0]:.2f}"
    assert display.axes_[0].get_ylabel() == "estimated proportion"


def test_expression_is_counted_with_both_mean_correlations(cohort, model):
    display = RecoveryDisplay.from_estimator(model, cohort.cse)
    for drawn in display.points_:
        assert isinstance(drawn, PolyCollection)
        assert drawn.get_array().sum() == 3000
    assert len({drawn.norm.vmax for drawn in display.points_}) == 1
    per_gene = per_gene_correlation(cohort.cse, model.cse_).mean(axis=1)
    per_sample = per_sample_correlation(cohort.cse, model.cse_).mean(axis=0)
    assert_allclose(display.correlations_, np.column_stack([per_gene, per_sample]))
    assert texts(display)[1] == f"per gene {per_gene[1]:.2f}\nper sample {per_sample[1]:.2f}"
    assert display.axes_[0].get_xlabel() == "true expression"


def test_constant_estimates_are_left_out_of_the_means(cohort):
    flat = np.array(cohort.cse)
    flat[:, 0, :10], flat[:, 1] = 0, 1
    display = RecoveryDisplay.from_predictions(cohort.cse, flat)
    assert_allclose(display.correlations_["per gene"], [1, np.nan, 1, 1])
    assert texts(display)[1] == "per gene nan\nper sample nan"


def test_compact_fits_are_expanded(cohort, model):
    compact = L2MaxDeconvolver(cohort.reference, renorm_size=None, materialize=False).fit(cohort.bulk)
    found = RecoveryDisplay.from_estimator(compact, cohort.cse).correlations_
    assert_allclose(found, RecoveryDisplay.from_estimator(model, cohort.cse).correlations_, rtol=1e-9)


def test_line_of_equality_and_limits_are_shared_by_both_axes(cohort, model):
    display = RecoveryDisplay.from_estimator(model, cohort.cse)
    for panel in display.axes_:
        assert panel.get_xlim() == panel.get_ylim()
        (line,) = panel.get_lines()
        assert_array_equal(line.get_xdata(), line.get_ydata())
        assert panel.get_aspect() == 1


@pytest.mark.slow
def test_logarithmic_scale(cohort):
    truth = np.exp(cohort.cse[:, :, :20])
    display = RecoveryDisplay.from_predictions(truth, truth + 1, log_scale=True)
    x, y = display.points_[0].get_offsets().T
    assert_allclose(x, np.log2(truth[:, 0].ravel() + 1))
    assert_allclose(y, np.log2(truth[:, 0].ravel() + 2))
    assert display.axes_[0].get_ylabel() == "estimated expression\nlog2(x + 1)"
    with pytest.raises(ValueError, match="log_scale needs values of at least 0"):
        RecoveryDisplay.from_predictions(cohort.cse, cohort.cse, log_scale=True)


def test_frames_are_matched_by_name(cohort):
    shuffled = cohort.proportions.iloc[::-1, ::-1]
    display = RecoveryDisplay.from_predictions(cohort.proportions, shuffled)
    assert_allclose(display.correlations_, 1)
    offsets = display.points_[0].get_offsets()
    assert_allclose(offsets[:, 0], offsets[:, 1])


@pytest.mark.slow
@pytest.mark.parametrize("n_types", [1, 3, 8])
def test_panels_are_inside_the_figure_and_do_not_overlap(n_types):
    truth = np.random.default_rng(0).dirichlet(np.ones(n_types), 20)
    truth += 0.01 * np.arange(20)[:, None]
    display = RecoveryDisplay.from_predictions(truth, truth**2)
    display.figure_.canvas.draw()
    boxes = [panel.get_tightbbox() for panel in display.axes_]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= display.figure_.bbox.x1
        assert box.y1 <= display.figure_.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_given_axes_are_used_or_divided(cohort, model):
    figure, panels = plt.subplots(2, 2)
    display = RecoveryDisplay.from_estimator(model, cohort.proportions, ax=panels)
    assert_array_equal(display.axes_, panels.ravel())
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    display = RecoveryDisplay.from_estimator(model, cohort.proportions, ax=right)
    assert display.figure_ is figure
    figure.canvas.draw()
    assert all(panel.get_position().x0 > left.get_position().x1 for panel in display.axes_)
    with pytest.raises(ValueError, match="2 axes were given for 4 panels"):
        RecoveryDisplay.from_estimator(model, cohort.proportions, ax=[left, right])


def test_options_are_forwarded_under_any_alias(cohort, model):
    display = RecoveryDisplay.from_estimator(
        model, cohort.proportions, scatter_kw={"facecolor": "red"}, line_kw={"ls": ":"}
    )
    assert_allclose(display.points_[0].get_facecolor()[0, :3], [1, 0, 0])
    assert display.axes_[0].get_lines()[0].get_linestyle() == ":"
    hexagons = RecoveryDisplay.from_estimator(model, cohort.cse, hexbin_kw={"gridsize": 5})
    assert len(hexagons.points_[0].get_array()) < 40


def test_bad_input(cohort, model):
    with pytest.raises(NotFittedError):
        RecoveryDisplay.from_estimator(L2MaxDeconvolver(), cohort.cse)
    with pytest.raises(ValueError, match="cse_true has shape"):
        RecoveryDisplay.from_estimator(model, cohort.cse[:, :, 1:])
    estimator = ProportionEstimator(cohort.reference).fit(cohort.bulk)
    with pytest.raises(ValueError, match="This ProportionEstimator estimates no expression"):
        RecoveryDisplay.from_estimator(estimator, cohort.cse)
    with pytest.raises(ValueError, match="columns of proportions_pred do not name cell type 'celltype4'"):
        RecoveryDisplay.from_predictions(cohort.proportions, cohort.proportions.iloc[:, :3])
