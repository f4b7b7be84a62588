"""What holds for every public estimator on every cohort, however awkward: a new one joins by a line in its table."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skenigma import L2MaxDeconvolver, ProportionEstimator
from tests.models import MODELS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # awkward cohorts may and do warn

PROPORTIONS = {
    "rlm": ProportionEstimator(),
    "nnls": ProportionEstimator(method="nnls"),
    "nusvr": ProportionEstimator(method="nusvr", nu=[0.5], tol=1e-8),
    "log": ProportionEstimator(method="log"),
}
ESTIMATORS = PROPORTIONS | MODELS
# Those whose answer to c times the cohort is c times the answer, and what has to be scaled with it.
SCALED = {
    "fixed steps": (
        L2MaxDeconvolver(renorm_size=50.0, max_iter=30),
        lambda c: {"epsilon": 1e-3 * c * c, "renorm_size": 50.0 * c},
    ),
    "plain": (L2MaxDeconvolver(renorm_size=None, max_iter=30), lambda c: {"epsilon": 1e-3 * c * c}),
    "admm": (L2MaxDeconvolver(solver="admm", max_iter=30), lambda c: {"epsilon": 1e-3 * c * c}),
}
# Iterations that stop by a threshold may end one step apart where sums are taken in another order.
CLOSE = 1e-3


def table(*without):
    """A parameter per estimator."""
    return [name for name in ESTIMATORS if name not in without]


def determined(name, bulk):
    """Whether the data decide the answer: of a handful of samples the factor model has several, and warns."""
    return name != "factor" or len(bulk) > 6


bounded = settings(
    max_examples=8, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def cohorts(draw, scales=(1e-60, 1e-6, 1.0, 1e6, 1e60)):
    """Bulk, reference and proportions, some with constant genes, rare types, duplicates, or two samples only."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, genes, types = draw(st.sampled_from([2, 3, 8])), draw(st.integers(12, 30)), draw(st.integers(2, 3))
    reference = rng.gamma(1.0, 100.0, (types, genes))
    proportions = rng.dirichlet(np.full(types, 2.0), n)
    if draw(st.booleans()):  # a type that is all but absent
        proportions[:, 0] *= 1e-9
        proportions /= proportions.sum(axis=1, keepdims=True)
    bulk = proportions @ reference * rng.gamma(20.0, 0.05, (n, genes))
    if draw(st.booleans()):  # the same sample twice
        bulk[1], proportions[1] = bulk[0], proportions[0]
    if draw(st.booleans()):  # genes without variation
        bulk[:, :2] = reference[:, :2] = 50.0
    scale = draw(st.sampled_from(scales))
    return bulk * scale, reference * scale, proportions


def fitted(estimator, reference, bulk, proportions):
    """The estimator's fit, with given proportions where it takes them, and what it answers."""
    model = clone(estimator).set_params(reference=reference)
    known = {} if isinstance(model, ProportionEstimator) else {"proportions": proportions}
    return model.fit(bulk, **known), model.transform(bulk, **known)


def largest(values):
    return max(np.abs(values).max(), np.finfo(float).tiny)


def shaped(name, answer, n, types):
    return answer if name in PROPORTIONS else answer.reshape(n, types, -1)


def usable(name, bulk, reference, proportions):
    """Whether the estimator takes the cohort; a refusal has to be a ValueError that says why."""
    if name == "l2max, cv" and len(bulk) < 8:
        return None
    try:
        return fitted(ESTIMATORS[name], reference, bulk, proportions)
    except ValueError as error:
        if len(str(error)) < 30:  # says nothing
            raise
        return None


@pytest.mark.parametrize("name", table())
@given(cohort=cohorts())
@bounded
def test_finite_and_input_untouched(name, cohort):
    before = [part.copy() for part in cohort]
    found = usable(name, *cohort)
    for part, copy in zip(cohort, before, strict=True):
        assert_array_equal(part, copy)
    assume(found is not None)
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("name", table())
@given(cohort=cohorts(scales=(1.0, 1e3)))
@bounded
def test_rows_and_refits(name, cohort):
    bulk, _, proportions = cohort
    found = usable(name, *cohort)
    assume(found is not None)  # an estimator that refuses all of them fails
    model, answer = found
    tolerance = {"rtol": 1e-8, "atol": 1e-8 * largest(answer)}  # other blocks, other order of summation
    known = {} if name in PROPORTIONS else {"proportions": proportions}
    assert_allclose(clone(model).fit_transform(bulk, **known), answer, **tolerance)
    rows = slice(1, None)
    part = {key: value[rows] for key, value in known.items()}
    assert_allclose(model.transform(bulk[rows], **part), answer[rows], **tolerance)
    again = clone(model).fit(bulk[::-1] * 2, **{key: value[::-1] for key, value in known.items()})
    assert_array_equal(again.fit(bulk, **known).transform(bulk, **known), answer)


@pytest.mark.parametrize("name", table("l2max, cv"))  # its folds follow the order
@given(cohort=cohorts(scales=(1.0,)), seed=st.integers(0, 1000))
@bounded
def test_order_does_not_matter(name, cohort, seed):
    bulk, reference, proportions = cohort
    assume(determined(name, bulk))
    found = usable(name, *cohort)
    assume(found is not None)  # an estimator that refuses all of them fails
    rng = np.random.default_rng(seed)
    rows, genes, types = (rng.permutation(size) for size in (*bulk.shape, len(reference)))
    _, moved = fitted(
        ESTIMATORS[name], reference[types][:, genes], bulk[rows][:, genes], proportions[rows][:, types]
    )
    answer = shaped(name, found[1], len(bulk), len(types))[rows][:, types]
    if name not in PROPORTIONS:
        answer = answer[:, :, genes]
    assert_allclose(shaped(name, moved, len(bulk), len(types)), answer, rtol=0, atol=CLOSE * largest(answer))


@pytest.mark.parametrize("name", table("l2max, cv"))  # may choose another setting
@given(cohort=cohorts(scales=(1.0,)))
@bounded
def test_single_precision_is_near(name, cohort):
    assume(determined(name, cohort[0]))
    found = usable(name, *cohort)
    assume(found is not None)  # an estimator that refuses all of them fails
    _, single = fitted(
        ESTIMATORS[name], *(part.astype(np.float32) for part in (cohort[1], cohort[0], cohort[2]))
    )
    assert single.dtype == np.float32
    # 6e-8 in the input, times a condition of a few hundred, and iterations that may stop one step apart
    assert_allclose(single, found[1], rtol=0, atol=5 * CLOSE * largest(found[1]))


@pytest.mark.parametrize("name", SCALED)
@given(cohort=cohorts(scales=(1.0,)), factor=st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**30]))
@bounded
def test_scale(name, cohort, factor):
    bulk, reference, proportions = cohort
    model, changes = SCALED[name]
    _, answer = fitted(model, reference, bulk, proportions)
    _, scaled = fitted(
        clone(model).set_params(**changes(factor)), reference * factor, bulk * factor, proportions
    )
    # a power of two changes no digit, the epsilon that 1e-3 is multiplied to hardly
    assert_allclose(scaled, answer * factor, rtol=0, atol=CLOSE * largest(answer) * factor)
