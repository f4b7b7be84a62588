"""The level of an expression against the bulk, and the warning of a fit that has lost it."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma import (
    EmpiricalBayesDeconvolver,
    FactorDeconvolver,
    L2MaxDeconvolver,
    L2MaxDeconvolverCV,
    ProportionEstimator,
    TraceNormDeconvolver,
)
from skenigma.datasets import make_cohort
from skenigma.deconvolution import _level
from skenigma.deconvolution._level import level_of
from skenigma.exceptions import LevelWarning, ReferenceWarning, ScaleWarning


@pytest.fixture(scope="module")
def linear():
    """Counts per million without noise: bulk, reference and proportions."""
    rng = np.random.default_rng(0)
    reference = np.exp(rng.normal(3, 2, 150) + rng.normal(0, 1, (3, 150)))
    reference *= 1e6 / reference.sum(axis=1, keepdims=True)
    theta = rng.dirichlet(np.full(3, 3.0), 16)
    bulk = theta @ reference * np.exp(rng.normal(0, 0.2, (16, 150)))
    return bulk, reference, theta


@pytest.fixture(scope="module")
def signed():
    cohort = make_cohort(n_samples=30, n_genes=150, random_state=0)
    return cohort.bulk, cohort.reference, cohort.proportions


def level_by_definition(bulk, proportions, values):
    """In loops, from the docstring of CellTypeExpression."""
    levels = []
    for x, theta, cse in zip(bulk, proportions, values, strict=True):
        mixed = sum(share * profile for share, profile in zip(theta, cse, strict=True))
        along = sum(np.sign(m if m else entry) * entry for m, entry in zip(mixed, x, strict=True))
        levels.append(np.abs(mixed).sum() / along if along > 0 else 0.0)
    return levels


@pytest.mark.parametrize("data", ["linear", "signed"])
@pytest.mark.parametrize(
    "options", [{}, {"materialize": False}, {"preprocess": "sqrt"}, {"normalize": "frac"}]
)
def test_level_is_what_it_is_said_to_be(request, data, options):
    bulk, reference, theta = request.getfixturevalue(data)
    if data == "signed" and "preprocess" in options:
        pytest.skip("negative values have no root")
    model = L2MaxDeconvolver(reference, renorm_size="auto", **options).fit(bulk, proportions=theta)
    expected = level_by_definition(bulk, theta, model.expression_.values())
    # sums of 150 products in another order
    assert_allclose(model.expression_.level, expected, rtol=1e-12)
    assert_allclose(model.level_, np.median(expected), rtol=1e-12)
    new = model.predict_expression(bulk[3:6], proportions=theta[3:6])
    # a replay equals its fit to 1e-10
    assert_allclose(new.level, expected[3:6], rtol=1e-9)
    if model.normalize is not None:
        assert model.expression_normalized_.level is None


def test_of_values_of_at_least_0_it_is_the_ratio_of_totals(linear):
    bulk, reference, theta = linear
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta)
    mixed = np.einsum("jk,jkg->jg", theta, model.cse_)
    assert_allclose(model.expression_.level, mixed.sum(axis=1) / bulk.sum(axis=1), rtol=1e-12)


def test_noise_that_is_left_out_does_not_lower_it(signed):
    """A posterior mean explains a part of the variance, and is right about that part."""
    bulk, reference, theta = signed
    model = FactorDeconvolver(reference).fit(bulk, proportions=theta)
    mixed = np.einsum("jk,jkg->jg", theta, model.cse_)
    assert np.median(np.sum(mixed * bulk, axis=1) / np.sum(bulk**2, axis=1)) < 0.6
    assert 0.6 < model.level_ < 1.1


@pytest.mark.parametrize("whole", [0, 20_000])
def test_of_many_genes_those_with_most_of_the_bulk_are_measured(monkeypatch, whole):
    monkeypatch.setattr("skenigma.expression._sources.MIXED_WHOLE", whole)
    rng = np.random.default_rng(0)
    bulk = rng.gamma(1, 1, (4, 2100)) + 1
    bulk[:, 50:2050] *= 1000
    reference = bulk[:2].copy()
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=np.full((4, 2), 0.5))
    mixed = np.einsum("jk,jkg->jg", model.proportions_, model.cse_)[:, 50:2050]
    assert_allclose(model.expression_.level, mixed.sum(axis=1) / bulk[:, 50:2050].sum(axis=1), rtol=1e-12)


def test_level_of_mixtures_of_zeros_and_away_from_the_bulk():
    mixed = np.array([[0.0, 2, -1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    bulk = np.array([[-3.0, 1, 2, 4], [-1, -2, 0, 0], [0, 0, 0, 0], [1, 0, -1, 0]])
    # of the first, 3 over 3 + 1 - 2 + 4
    assert_array_equal(level_of(mixed, bulk), [0.5, 0, np.nan, 0])


def test_genes_with_most_of_the_bulk_are_those_of_either_sign():
    bulk = np.ones((4, 2100))
    bulk[:, 50:2050] = -1000
    assert_array_equal(_level._largest(bulk), np.arange(50, 2050))


def test_level_is_measured_by_blocks(linear, monkeypatch):
    bulk, reference, theta = linear
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta)
    monkeypatch.setattr(_level, "BLOCK", 3 * 3 * 150)  # three samples each
    assert_allclose(_level.measure_level(model.expression_, bulk), model.expression_.level, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::skenigma.exceptions.SampleWarning")
def test_a_sample_without_expression_has_none(linear):
    bulk, reference, theta = linear
    bulk = bulk.copy()
    bulk[2] = 0
    model = TraceNormDeconvolver(reference, preprocess="sqrt").fit(bulk, proportions=theta)
    assert list(np.flatnonzero(np.isnan(model.expression_.level))) == [2]
    assert np.isfinite(model.level_)


HEALTHY = {
    "empirical bayes": (EmpiricalBayesDeconvolver(), "linear"),
    "empirical bayes, on the platform of the bulk": (EmpiricalBayesDeconvolver(platform="bulk"), "linear"),
    "trace norm": (TraceNormDeconvolver(preprocess="sqrt"), "linear"),
    "trace norm, signed": (TraceNormDeconvolver(), "signed"),
    "factor": (FactorDeconvolver(), "signed"),
}


@pytest.mark.parametrize(("model", "data"), HEALTHY.values(), ids=HEALTHY)
def test_healthy_fits_are_silent(request, model, data):
    bulk, reference, theta = request.getfixturevalue(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(reference=reference).fit(bulk, proportions=theta)
    assert 0.5 < model.level_ < 2


COLLAPSED = {
    "l2max": (
        L2MaxDeconvolver(),
        r"adds up to .* of it .* renorm_size=200 is far below .* Use renorm_size='auto'",
    ),
    "l2max, auto": (L2MaxDeconvolver(renorm_size="auto"), "smaller beta"),
    "l2max, plain": (L2MaxDeconvolver(renorm_size=None), "smaller beta"),
    "l2max, admm": (L2MaxDeconvolver(solver="admm"), "smaller beta"),
    "l2max, accelerated": (L2MaxDeconvolver(solver="accelerated"), "smaller beta"),
    "l2max, sqrt": (L2MaxDeconvolver(preprocess="sqrt"), "smaller beta"),
    "l2max, compact": (L2MaxDeconvolver(materialize=False), "smaller beta"),
    "l2max, cv": (
        L2MaxDeconvolverCV(alphas=[0.1], betas=[50.0], renorm_sizes=[None], random_state=0),
        "smaller beta",
    ),
    "trace norm": (TraceNormDeconvolver(beta=1e6), "smaller beta"),
    "trace norm, proximal": (TraceNormDeconvolver(beta=1e6, solver="proximal", tao_k="auto"), "smaller beta"),
}


@pytest.mark.parametrize(("model", "remedy"), COLLAPSED.values(), ids=COLLAPSED)
def test_a_collapsed_fit_says_so_and_what_to_do(linear, model, remedy):
    bulk, reference, theta = linear
    with pytest.warns(
        LevelWarning, match=f"{type(model).__name__} does not have the level of the bulk.*{remedy}"
    ):
        model.set_params(reference=reference).fit(bulk, proportions=theta)
    assert model.level_ < 0.5


def test_the_level_of_a_posterior_can_be_wrong_too(linear):
    bulk, reference, theta = linear
    with pytest.warns(LevelWarning, match="adds up to 4.* of it .*Bring bulk and reference to one scale"):
        EmpiricalBayesDeconvolver(4 * reference).fit(bulk, proportions=theta)
    noise = np.random.default_rng(0).normal(size=bulk.shape)
    with pytest.warns(LevelWarning, match="on one scale"):
        FactorDeconvolver(np.zeros_like(reference)).fit(noise, proportions=theta)


def test_estimators_look_at_scale(linear):
    bulk, reference, theta = linear
    with pytest.warns(ScaleWarning, match="different units: X is 20 times the reference"):
        EmpiricalBayesDeconvolver(bulk[:3] / 20, platform="bulk").fit(bulk[:3], proportions=np.eye(3))
    deep = bulk * np.where(np.arange(16) == 3, 10, 1)[:, None]
    with pytest.warns(ScaleWarning, match="Library sizes differ"):
        EmpiricalBayesDeconvolver(reference).fit(deep, proportions=theta)


def test_a_reference_that_is_invented_is_said_to_be(signed):
    with pytest.warns(ReferenceWarning, match=r"2 profiles were learned from X.*celltype0.*pass reference="):
        TraceNormDeconvolver().fit(signed[0])
    with pytest.warns(ReferenceWarning):
        ProportionEstimator(n_components=2).fit(signed[0])


class TestCalibration:
    """P_k times mean_j(Σ_g x_jg) / mean_j(Σ_g p_jkg), after the way back from the scale of the model."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"preprocess": "sqrt", "renorm_size": "auto"},
            {"preprocess": "log", "materialize": False},
            {"solver": "admm"},
            {"normalize": "frac"},
        ],
        ids=str,
    )
    def test_is_its_formula(self, linear, options):
        bulk, reference, theta = linear
        plain = L2MaxDeconvolver(reference, **options).fit(bulk, proportions=theta)
        model = L2MaxDeconvolver(reference, calibrate=True, **options).fit(bulk, proportions=theta)
        before = plain.expression_.values()
        factors = bulk.sum(axis=1).mean() / before.sum(axis=2).mean(axis=0)
        # a sum by blocks and one over all
        assert_allclose(model.calibration_, factors, rtol=1e-12)
        assert_allclose(model.expression_.values(), before * factors[:, None], rtol=1e-12)
        assert_allclose(
            model.expression_.values(cell_types=[2, 0], genes=[5, 7]),
            (before * factors[:, None])[:, [2, 0]][:, :, [5, 7]],
            rtol=1e-12,
        )
        assert 0.9 < model.level_ < 1.1
        # replays equal fits to 1e-10 of the largest value
        new = model.predict_expression(bulk[:3], proportions=theta[:3]).values()
        assert_allclose(new, model.expression_.values()[:3], atol=1e-10 * bulk.max())

    def test_the_trace_norm_has_it_too(self, linear):
        bulk, reference, theta = linear
        options = {"preprocess": "sqrt", "calibrate": True}
        model = TraceNormDeconvolver(reference, **options).fit(bulk, proportions=theta)
        assert_allclose(model.cse_.sum(axis=2).mean(axis=0), np.full(3, bulk.sum(axis=1).mean()), rtol=1e-12)

    def test_is_let_go_by_the_next_fit(self, linear):
        bulk, reference, theta = linear
        model = L2MaxDeconvolver(reference, calibrate=True).fit(bulk, proportions=theta)
        assert not hasattr(model.set_params(calibrate=False).fit(bulk, proportions=theta), "calibration_")

    @pytest.mark.filterwarnings("ignore:The proportion of")
    def test_a_profile_that_stands_in_stays(self, linear):
        bulk, reference, theta = linear
        absent = np.column_stack([theta[:, 0] + theta[:, 1], 0 * theta[:, 1], theta[:, 2]])
        model = L2MaxDeconvolver(reference, calibrate=True).fit(bulk, proportions=absent)
        assert model.calibration_[1] == 1
        assert_allclose(model.cse_[:, 1], np.broadcast_to(reference[1], (16, 150)))

    def test_signed_values_have_no_totals(self, signed):
        bulk, reference, theta = signed
        with pytest.raises(ValueError, match="calibrate=True compares totals"):
            L2MaxDeconvolver(reference, calibrate=True).fit(bulk, proportions=theta)


def test_two_negative_values_are_pointed_out_before_they_change_the_method(linear):
    bulk, reference, theta = linear
    assert ProportionEstimator(reference, method="auto").fit(bulk).method_ == "log"
    stray = bulk.copy()
    stray[0, :2] = -1.0
    with pytest.warns(ScaleWarning, match="X has 2 negative value"):
        estimator = ProportionEstimator(reference, method="auto").fit(stray)
    assert estimator.method_ == "rlm"
    with pytest.warns(ScaleWarning, match="nothing is clipped at 0"):
        model = TraceNormDeconvolver(reference, max_iter=500, beta=1e4).fit(stray, proportions=theta)
    assert not model.positive_
