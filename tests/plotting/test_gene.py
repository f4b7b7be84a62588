"""One gene over the samples, with its band."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver
from skenigma.plotting import GeneExpressionDisplay

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    reference, theta = rng.gamma(1, 50, (3, 60)), rng.dirichlet(np.ones(3), 20)
    return theta @ reference * rng.lognormal(0, 0.3, (20, 60)), reference, theta


@pytest.fixture(scope="module")
def model(cohort):
    bulk, reference, theta = cohort
    return EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta)


def test_lines_and_bands_are_those_of_the_expression(cohort, model):
    display = GeneExpressionDisplay.from_estimator(model, "x7", level=0.8, log_scale=False)
    low, high = model.expression_.interval(0.8)
    for k, (line, band) in enumerate(zip(display.lines_, display.bands_, strict=True)):
        order = np.argsort(model.cse_[:, k, 7], kind="stable")
        assert_allclose(line.get_ydata(), model.cse_[order, k, 7])
        corners = band.get_paths()[0].vertices
        for bound in (low, high):
            for place, value in enumerate(bound[order, k, 7]):
                assert np.isclose(corners, [place, value], rtol=1e-9).all(axis=1).any()
    dashed = display.axes_[1].lines[1]
    assert_allclose(dashed.get_ydata(), cohort[1][1, 7])
    legend = [text.get_text() for text in display.axes_[0].get_legend().get_texts()]
    assert legend == ["80% interval", "estimate", "reference"]


def test_cell_types_are_chosen_and_the_truth_is_drawn_in_their_order(model):
    truth = np.arange(40.0).reshape(20, 2)
    display = GeneExpressionDisplay.from_estimator(
        model, 3, cell_types=["celltype2", "celltype0"], true=truth
    )
    assert [panel.get_title() for panel in display.axes_] == ["celltype2", "celltype0"]
    assert display.axes_[0].get_ylabel() == "x3, log2(x + 1)"
    order = np.argsort(model.cse_[:, 2, 3], kind="stable")
    assert_allclose(display.lines_[0].get_ydata(), np.log2(model.cse_[order, 2, 3] + 1))
    points = display.axes_[0].collections[1].get_offsets()
    assert_allclose(points[:, 1], np.log2(truth[order, 0] + 1))


def test_new_samples_and_given_axes(cohort, model):
    bulk, _, theta = cohort
    expression = model.predict_expression(bulk[:5], proportions=theta[:5])
    _, axes = plt.subplots(1, 3)
    display = GeneExpressionDisplay.from_expression(expression, "x0", ax=axes)
    assert_array_equal(display.axes_, axes)
    assert len(display.lines_[0].get_ydata()) == 5


def test_a_model_without_deviations_has_no_band(cohort):
    bulk, reference, theta = cohort
    model = L2MaxDeconvolver(reference, renorm_size="auto").fit(bulk, proportions=theta)
    assert GeneExpressionDisplay.from_estimator(model, "x0").bands_ == []


def test_what_cannot_be_drawn_is_refused(model):
    with pytest.raises(ValueError, match="true has shape"):
        GeneExpressionDisplay.from_estimator(model, "x0", true=np.ones((20, 2)))
    with pytest.raises(ValueError, match="gene"):
        GeneExpressionDisplay.from_estimator(model, "nothing")
    with pytest.raises(NotFittedError):
        GeneExpressionDisplay.from_estimator(EmpiricalBayesDeconvolver(), "x0")
    with pytest.raises(ValueError, match="at least 0"):
        GeneExpressionDisplay(values=np.array([[-1.0]]), gene="a", cell_types=["b"]).plot()
