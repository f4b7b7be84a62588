"""Settings made for a cohort of one size, used in another."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from skenigma import L2MaxDeconvolver, TraceNormDeconvolver
from skenigma.datasets import make_cohort

TIMES = 5
MODELS = {
    "l2max": L2MaxDeconvolver(renorm_size=20.0),
    "l2max, plain": L2MaxDeconvolver(renorm_size=None),
    "l2max, plain, auto step": L2MaxDeconvolver(renorm_size=None, tao_k="auto", alpha=0.5),
    "l2max, auto": L2MaxDeconvolver(renorm_size="auto"),
    # multipliers start at one size in a cohort of any, unless they start at zero
    "l2max, admm": L2MaxDeconvolver(solver="admm", init="zero"),
    "l2max, admm_fast": L2MaxDeconvolver(solver="admm_fast", init="zero"),
    "trace norm": TraceNormDeconvolver(gamma=0.7, alpha=0.3, init="zero"),
    "trace norm, fast": TraceNormDeconvolver(solver="admm_fast", gamma=0.7, init="zero"),
    "trace norm, proximal": TraceNormDeconvolver(solver="proximal", tao_k=0.8, epsilon=1e-5),
}


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=12, n_genes=60, n_cell_types=3, random_state=0)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_is_what_the_settings_do_to_a_cohort_of_that_size(cohort, model):
    """A cohort in which every sample occurs five times is one of that size, with the same expression."""
    bulk, theta = np.tile(cohort.bulk, (TIMES, 1)), np.tile(cohort.proportions, (TIMES, 1))
    model.set_params(reference=cohort.reference, n_samples_of_settings=None)
    large = model.fit(bulk, proportions=theta)
    expected, n_iter = large.cse_[:12].copy(), large.n_iter_
    small = model.set_params(n_samples_of_settings=12 * TIMES).fit(
        cohort.bulk, proportions=cohort.proportions
    )
    assert small.n_iter_ == n_iter
    # the same steps, with sums in another order, over up to 200 iterations
    assert_allclose(small.cse_, expected, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        L2MaxDeconvolver(solver="admm", epsilon=1e-9),
        L2MaxDeconvolver(solver="accelerated", epsilon=1e-9),
        TraceNormDeconvolver(solver="accelerated", epsilon=1e-9),
    ],
    ids=lambda model: f"{type(model).__name__}, {model.solver}",
)
def test_solvers_that_start_elsewhere_reach_the_same_minimum(cohort, model):
    """The multipliers of ADMM start at one size in a cohort of any."""
    bulk, theta = np.tile(cohort.bulk, (TIMES, 1)), np.tile(cohort.proportions, (TIMES, 1))
    model.set_params(reference=cohort.reference, n_samples_of_settings=None)
    expected = model.fit(bulk, proportions=theta).cse_[:12].copy()
    small = model.set_params(n_samples_of_settings=12 * TIMES).fit(
        cohort.bulk, proportions=cohort.proportions
    )
    # the minimum is flat: a proven share of 1e-9 is a distance of some 1e-4
    assert_allclose(small.cse_, expected, atol=1e-3)


def test_in_a_cohort_of_that_size_nothing_changes(cohort):
    options = {"renorm_size": "auto", "reference": cohort.reference}
    plain = L2MaxDeconvolver(**options).fit(cohort.bulk, proportions=cohort.proportions)
    model = L2MaxDeconvolver(n_samples_of_settings=12, **options)
    model.fit(cohort.bulk, proportions=cohort.proportions)
    # a factor of 1, divided by sums that are 1 but for rounding
    assert_allclose(model.cse_, plain.cse_, atol=1e-12)
    assert (model.alpha_, model.beta_) == (0.1, 50.0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_values_in_use_are_kept_for_this_fit_only(cohort):
    model = L2MaxDeconvolver(cohort.reference, renorm_size=200.0, n_samples_of_settings=48, max_iter=5)
    model.fit(cohort.bulk, proportions=cohort.proportions)
    # β n/n₀, size √(n/n₀), ε n/n₀
    assert_allclose((model.alpha_, model.beta_, model.renorm_size_, model.epsilon_), (0.1, 12.5, 100, 2.5e-4))
    model.set_params(n_samples_of_settings=None).fit(cohort.bulk, proportions=cohort.proportions)
    assert not hasattr(model, "beta_")


def test_a_large_cohort_settles_as_the_published_one_does():
    cohort = make_cohort(n_samples=600, n_genes=40, n_cell_types=3, random_state=0)
    given = {"proportions": cohort.proportions}
    with pytest.warns(
        ConvergenceWarning, match=r"for 100 samples, and here are 600: n_samples_of_settings=100"
    ):
        L2MaxDeconvolver(cohort.reference, renorm_size=40.0, max_iter=60).fit(cohort.bulk, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = L2MaxDeconvolver(cohort.reference, renorm_size=40.0, n_samples_of_settings=100, max_iter=60)
        model.fit(cohort.bulk, **given)
    assert model.n_iter_ < 40


def test_the_published_size_is_not_pointed_out():
    cohort = make_cohort(n_samples=100, n_genes=40, n_cell_types=3, random_state=0)
    with pytest.warns(ConvergenceWarning) as caught:
        L2MaxDeconvolver(cohort.reference, max_iter=2).fit(cohort.bulk, proportions=cohort.proportions)
    assert "n_samples_of_settings" not in str(caught[0].message)
