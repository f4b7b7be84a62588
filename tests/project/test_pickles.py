"""A pickle of another version ends in one line, whatever that version had where."""

import copy
import pickle

import numpy as np
import pytest

from skenigma import L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver, _pickles
from skenigma.datasets import make_cohort

COHORT = make_cohort(12, 30, 3, random_state=0)


@pytest.fixture(
    params=[ProportionEstimator(), L2MaxDeconvolver(beta=5000.0), TraceNormDeconvolver(beta=100.0)]
)
def model(request):
    return request.param.set_params(reference=COHORT.reference).fit(COHORT.bulk)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_this_version(model, protocol):
    again = pickle.loads(pickle.dumps(model, protocol=protocol))
    np.testing.assert_array_equal(again.transform(COHORT.bulk), model.transform(COHORT.bulk))


def test_copies(model):
    for again in (copy.copy(model), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.transform(COHORT.bulk), model.transform(COHORT.bulk))


def test_another_version(model, monkeypatch):
    written = pickle.dumps(model)
    monkeypatch.setattr(_pickles, "__version__", "9.9")
    with pytest.raises(
        ValueError, match=r"saved by skenigma 0\.\S+, and this is 9\.9: fit it again, or install"
    ):
        pickle.loads(written)


@pytest.mark.parametrize(
    "lost", [b"skenigma.deconvolution", b"skenigma.expression", b"skenigma.normalization"]
)
def test_another_version_that_has_its_parts_elsewhere(lost, monkeypatch):
    """The version is read before any name is looked up."""
    model = L2MaxDeconvolver(COHORT.reference, beta=5000.0, normalize="pc").fit(COHORT.bulk)
    written = pickle.dumps(model, protocol=2)
    assert lost in written
    written = written.replace(lost, lost[:-1] + b"x")
    with pytest.raises(ImportError):
        pickle.loads(written)
    monkeypatch.setattr(_pickles, "__version__", "9.9")
    with pytest.raises(ValueError, match="saved by skenigma"):
        pickle.loads(written)


def test_expression_alone(monkeypatch):
    expression = L2MaxDeconvolver(COHORT.reference, beta=5000.0).fit(COHORT.bulk).expression_
    written = pickle.dumps(expression)
    np.testing.assert_array_equal(pickle.loads(written).values(), expression.values())
    monkeypatch.setattr(_pickles, "__version__", "9.9")
    with pytest.raises(ValueError, match="This CellTypeExpression was saved by skenigma"):
        pickle.loads(written)


@pytest.mark.parametrize("name", ["CellTypeExpression", "Conversion", "Converted", "Held", "Normalized"])
def test_names_of_expression_in_earlier_pickles_of_this_version(name):
    assert pickle.loads(f"cskenigma.expression\n{name}\n.".encode()).__name__ == name


def test_classes_without_an_address_can_be_copied():
    class Local(ProportionEstimator):
        pass

    model = Local(COHORT.reference).fit(COHORT.bulk)
    assert type(copy.deepcopy(model)) is Local
