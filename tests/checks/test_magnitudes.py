"""Numbers whose squares cannot be summed, and masks: refused alike by all that takes arrays."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skenigma import L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver
from skenigma.batch import BulkBatchCorrector
from skenigma.checks.numbers import LIMITS
from skenigma.datasets import make_cohort
from skenigma.differential import interaction_test, joint_test, marginal_test
from skenigma.metrics import (
    concordance,
    per_gene_correlation,
    per_sample_correlation,
    recovery_score,
    root_mean_squared_error,
)
from skenigma.model_selection import simulate_like
from skenigma.proportions import fit_quality
from skenigma.reliability import gene_significance

COHORT = make_cohort(14, 25, 3, random_state=0)
BULK, REFERENCE = np.abs(COHORT.bulk) + 0.1, np.abs(COHORT.reference) + 0.1
SHARES, CSE = COHORT.proportions, np.abs(COHORT.cse) + 0.1
GROUP = np.arange(14) % 2


def fitted(model):
    """What a model makes of a cohort, in its own words."""

    def call(size):
        found = model.set_params(reference=size * REFERENCE).fit(size * BULK, proportions=SHARES)
        return (
            found.expression_.values(),
            found.loss_history_,
            found.transform(size * BULK, proportions=SHARES),
        )

    return call


def regressed(method):
    def call(size):
        found = ProportionEstimator(size * REFERENCE, method=method).fit(size * BULK)
        return found.proportions_, found.quality_.to_numpy()

    return call


TAKES = {
    "rlm": regressed("rlm"),
    "nnls": regressed("nnls"),
    "nusvr": regressed("nusvr"),
    "fit_quality": lambda size: fit_quality(size * BULK, size * REFERENCE, SHARES).to_numpy(),
    "l2max": fitted(L2MaxDeconvolver(max_iter=20)),
    "l2max plain": fitted(L2MaxDeconvolver(renorm_size=None, max_iter=20)),
    "l2max admm": fitted(L2MaxDeconvolver(solver="admm", max_iter=20)),
    "l2max accelerated": fitted(L2MaxDeconvolver(solver="accelerated", max_iter=20)),
    "l2max pc": fitted(L2MaxDeconvolver(normalize="pc", max_iter=20)),
    "trace norm": fitted(TraceNormDeconvolver(max_iter=20)),
    "trace norm auto": fitted(TraceNormDeconvolver(beta="auto", max_iter=20)),
    "batch": lambda size: BulkBatchCorrector(size * REFERENCE).fit_transform(size * BULK),
    "interaction": lambda size: interaction_test(size * BULK, SHARES, GROUP).p_value,
    "covariate": lambda size: interaction_test(BULK, SHARES, GROUP, covariates=size * BULK[:, :1]).p_value,
    "marginal": lambda size: marginal_test(size * CSE, GROUP).p_value,
    "quantity": lambda size: marginal_test(CSE, size * BULK[:, 0]).p_value,
    "joint": lambda size: joint_test(size * CSE, GROUP).p_value,
    "rmse": lambda size: root_mean_squared_error(size * CSE, size * 1.1 * CSE),
    "per gene": lambda size: per_gene_correlation(size * CSE, size * (CSE + CSE**2)),
    "per sample": lambda size: per_sample_correlation(size * CSE, size * (CSE + CSE**2)),
    "significance": lambda size: gene_significance(size * BULK, SHARES).p_value,
    "simulate_like": lambda size: simulate_like(size * BULK, size * REFERENCE, SHARES, random_state=0).bulk,
}

# cohorts that are nothing but numbers converge nowhere, and units are not those that batches are corrected in
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def arrays(found):
    return found if isinstance(found, tuple) else (found,)


@pytest.fixture(params=TAKES)
def take(request):
    return TAKES[request.param]


class TestMagnitudes:
    @pytest.mark.parametrize("exponent", [-320, -250, -200, -160, -143, 143, 160, 200, 250, 300])
    def test_one_refusal_everywhere(self, take, exponent):
        with pytest.raises(
            ValueError, match=r"between 1e-140 and 1e\+140, or squares cannot be summed\. Divide"
        ):
            take(10.0**exponent)

    @pytest.mark.parametrize("exponent", [-138, -60, 60, 137])
    def test_what_is_accepted_is_computed(self, take, exponent):
        try:
            found = take(10.0**exponent)
        except ValueError as error:
            if "diverged" not in str(error):  # settings in units of the data do not fit it
                raise
            return
        for array, expected in zip(arrays(found), arrays(take(1.0)), strict=True):
            assert np.isfinite(array).all() == np.isfinite(expected).all()

    @pytest.mark.parametrize("name", ["rlm", "nnls", "interaction", "marginal", "joint", "significance"])
    @pytest.mark.parametrize("exponent", [-138, 138])
    def test_units_do_not_matter_up_to_the_bounds(self, name, exponent):
        found, expected = (TAKES[name](size) for size in (10.0**exponent, 1.0))
        if isinstance(found, tuple):
            found, expected = found[0], expected[0]
        else:
            found, expected = found.sort_index(), expected.sort_index()
        # the iteration of the logistic model stops at a change of 1e-8, and powers of 10 are rounded
        assert_allclose(found, expected, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("exponent", [-30, -17, 17, 30])
    def test_single_precision_is_narrower(self, exponent):
        X, profiles = ((10.0**exponent * values).astype(np.float32) for values in (BULK, REFERENCE))
        for model in (
            ProportionEstimator(profiles),
            L2MaxDeconvolver(profiles),
            TraceNormDeconvolver(profiles),
        ):
            with pytest.raises(ValueError, match=r"for float32 it must lie between 1e-15 and 1e\+15"):
                model.fit(X)

    def test_nothing_but_zeros_is_no_magnitude(self):
        assert np.isfinite(
            ProportionEstimator(REFERENCE).fit_transform(np.vstack([BULK, 0 * BULK[:1]]))
        ).all()

    @pytest.mark.parametrize("dtype", LIMITS)
    def test_bounds_leave_room_for_squares(self, dtype):
        low, high = (np.dtype(dtype).type(limit) for limit in LIMITS[dtype])
        assert np.isfinite(high * high * dtype.type(1e7))
        assert low * low > np.finfo(dtype).tiny


@pytest.mark.parametrize("preprocess", ["log", "sqrt"])
@pytest.mark.parametrize("materialize", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_steps_too_long_for_the_way_back(preprocess, materialize, dtype):
    """The iterate is finite on its own scale, and its inverse is not."""
    size = (
        {"log": 1e5, "sqrt": 1e80}[preprocess]
        if dtype == np.float64
        else {"log": 2e4, "sqrt": 1e12}[preprocess]
    )
    model = L2MaxDeconvolver(
        REFERENCE.astype(dtype), preprocess=preprocess, renorm_size=size, max_iter=3, materialize=materialize
    )
    with pytest.raises(ValueError, match=r"diverged"):
        model.fit(BULK.astype(dtype), proportions=SHARES).expression_.values()


def masked(values):
    found = np.ma.masked_array(values)
    found[2, 1] = np.ma.masked
    return found


GROUPS = np.ma.masked_array(GROUP, mask=np.arange(14) == 3)
MASKED = {
    "X": [
        lambda: ProportionEstimator(REFERENCE).fit(masked(BULK)),
        lambda: L2MaxDeconvolver(REFERENCE).fit(masked(BULK)),
    ],
    "reference": [lambda: ProportionEstimator(masked(REFERENCE)).fit(BULK)],
    "proportions": [
        lambda: L2MaxDeconvolver(REFERENCE).fit(BULK, proportions=masked(SHARES)),
        lambda: fit_quality(BULK, REFERENCE, masked(SHARES)),
        lambda: interaction_test(BULK, masked(SHARES), GROUP),
        lambda: gene_significance(BULK, masked(SHARES)),
    ],
    "bulk": [
        lambda: interaction_test(masked(BULK), SHARES, GROUP),
        lambda: gene_significance(masked(BULK), SHARES),
        lambda: simulate_like(masked(BULK), REFERENCE, SHARES),
    ],
    "cse": [lambda: marginal_test(masked(CSE), GROUP), lambda: joint_test(masked(CSE), GROUP)],
    "phenotype": [lambda: marginal_test(CSE, GROUPS), lambda: interaction_test(BULK, SHARES, GROUPS)],
    "covariates": [lambda: marginal_test(CSE, GROUP, covariates=masked(BULK[:, :2]))],
    "cse_true": [lambda: recovery_score(masked(CSE), CSE), lambda: root_mean_squared_error(masked(CSE), CSE)],
    "cse_pred": [
        lambda: per_gene_correlation(CSE, masked(CSE)),
        lambda: per_sample_correlation(CSE, masked(CSE)),
    ],
    "proportions_pred": [lambda: concordance(SHARES, masked(SHARES))],
}


@pytest.mark.parametrize(
    ("what", "call"),
    [
        pytest.param(what, call, id=f"{what}{number}")
        for what, calls in MASKED.items()
        for number, call in enumerate(calls)
    ],
)
def test_masks_are_never_lost(what, call):
    with pytest.raises(ValueError, match=rf"{what} is a masked array with \d+ masked value"):
        call()


def test_a_mask_that_hides_nothing_is_none():
    expected = ProportionEstimator(REFERENCE).fit_transform(BULK)
    assert_allclose(
        ProportionEstimator(REFERENCE).fit_transform(np.ma.masked_array(BULK)), expected, rtol=1e-14
    )
