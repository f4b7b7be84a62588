"""The R package's functions by their own arguments, against what the R package recorded."""

import inspect
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skenigma import L2MaxDeconvolver, TraceNormDeconvolver
from skenigma.normalization import normalize
from skenigma.presets import enigma_l2_max_norm, enigma_losses, enigma_trace_norm

L2_RUNS = [
    f"l2_{settings}_{scale}_{method}"
    for settings in ("default", "mild")
    for scale in ("sqrt", "log")
    for method in ("frac", "PC", "quantile")
]


@pytest.fixture(scope="module")
def runs(package):
    return json.loads(package.path("manifest.json").read_text())["runs"]


@pytest.fixture(scope="module")
def bulk(package):
    return package.table("outputs/bmode_bulk_corrected.csv.gz").T


@pytest.fixture(scope="module")
def reference(package):
    return package.table("inputs/reference_cpm.csv.gz").T


@pytest.fixture(scope="module")
def shares(package):
    return package.table("outputs/theta_rlr_bmode.csv.gz")


def arguments(function, entry):
    """Those of a recorded run that the function knows."""
    return {name: entry[name] for name in inspect.signature(function).parameters if name in entry}


def relative_difference(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", L2_RUNS)
def test_l2_max_norm(package, runs, bulk, reference, shares, name):
    entry, recorded = runs[name], package.run(name)
    model = enigma_l2_max_norm(reference, **arguments(enigma_l2_max_norm, entry)).fit(
        bulk, proportions=shares
    )
    assert model.n_iter_ == entry["n_loss_rows"]
    spread = moved_by_rounding(package, runs, shares, name)
    assert relative_difference(model.cse_, recorded["CSE"]) < 2 * spread["CSE"]
    assert relative_difference(model.cse_normalized_, recorded["CSE_norm"]) < 2 * spread["CSE_norm"]


def moved_by_rounding(package, runs, shares, name):
    """How far R's own result moves by rounding: the package's first step goes along noise.

    The manifest holds it for a change of the bulk in the last bit. "quantile" was recorded with another BLAS than
    the same run of "frac", and moves more: genes that trade places get each other's quantiles.
    """
    if "quantile" not in name:
        return {key: runs[name]["rounding_spread"][f"{key}_rel_fro"] for key in ("CSE", "CSE_norm")}
    one, other = package.run(name.replace("quantile", "frac"))["CSE"], package.run(name)
    moved = normalize("quantile", one, shares.to_numpy())
    return {
        "CSE": relative_difference(one, other["CSE"]),
        "CSE_norm": relative_difference(moved, other["CSE_norm"]),
    }


@pytest.fixture(scope="module", params=["sqrt", "log"])
def name(request):
    return f"l2_mild_{request.param}_frac_xint09"


@pytest.fixture(scope="module")
def model(runs, bulk, reference, shares, name):
    given = {**arguments(enigma_l2_max_norm, runs[name]), "X_int": 0.9}
    return enigma_l2_max_norm(reference, **given).fit(bulk, proportions=shares)


class TestWithoutRoundingNoise:
    """Recorded runs that start at 0.9 times the transformed bulk, so that the first gradient is a true one."""

    def test_expression(self, model, package, name):
        recorded = package.run(name)
        assert model.n_iter_ == len(recorded["loss_history"])
        # R itself moves by 1e-15 when the bulk changes in the last bit; rounding of 68 iterations in another order
        assert relative_difference(model.cse_, recorded["CSE"]) < 1e-12
        assert relative_difference(model.cse_normalized_, recorded["CSE_norm"]) < 1e-12

    def test_losses(self, model, package, bulk, shares, name):
        losses = enigma_losses(model, bulk, proportions=shares)
        # sums of squares; the last of the second column is a difference to the 200 times larger objective
        assert_allclose(losses, package.run(name)["loss_history"], rtol=1e-10)

    def test_changes(self, model, package, name):
        ranges = np.column_stack([model.delta_history_.min(axis=1), model.delta_history_.max(axis=1)])
        # differences of nearly equal expressions: the last are 1e-11 of their squares
        assert_allclose(ranges, package.run(name)["ratio"], rtol=1e-8)


def test_convergence_error_is_a_warning_here(package, bulk, reference, shares):
    """Where the package aborts, the iteration has begun to oscillate: it is not cut short, and is not believed."""
    changes = package.run("edge_l2_err_small_beta")["ratio"].max(axis=1)
    assert changes[-1] - changes[-11] > 2
    model = enigma_l2_max_norm(reference, preprocess="sqrt", beta=1e-3, max_iter=100)
    with pytest.warns(UserWarning, match=r"did not converge in 100 iterations.*larger beta.*smaller tao_k"):
        model.fit(bulk, proportions=shares)
    # the same iteration, but for the noise of the first step: the jump comes in the same step
    grown = np.diff(model.delta_history_.max(axis=1)) > 1e5
    assert np.flatnonzero(grown)[0] + 2 == len(changes) == 28


@pytest.mark.parametrize("name", [run for run in L2_RUNS if "frac" in run])
def test_losses_but_for_the_first_step(package, runs, bulk, reference, shares, name):
    """R's first step goes along rounding noise, of which the second row of losses holds most."""
    given = arguments(enigma_l2_max_norm, runs[name])
    model = enigma_l2_max_norm(reference, **given).fit(bulk, proportions=shares)
    found, recorded = enigma_losses(model, bulk, proportions=shares), package.run(name)["loss_history"]
    assert_allclose(found[0, 1:], recorded[0, 1:], rtol=1e-12)  # at the start, where the residual is noise
    assert_allclose(found[1], recorded[1], rtol=0.06)
    assert_allclose(found[5:], recorded[5:], rtol=6e-3)
    assert_allclose(found[-1], recorded[-1], rtol=1e-5)
    # the same run of R with another BLAS, which rounds otherwise: no step of ours could be both
    other = package.run(name.replace("frac", "quantile"))["loss_history"]
    assert np.abs(other[1] / recorded[1] - 1).max() > 6e-4


TRACE_RUNS = [
    f"trace_{solver}_{start}"
    for solver in ("admm", "admm_fast", "proximalpoint")
    for start in ("log_init_bulk", "log_init_zero", "sqrt_init_zero")
]
STARTS = {"bulk": None, "zero": False}


@pytest.mark.parametrize("name", TRACE_RUNS)
def test_trace_norm(package, runs, bulk, reference, shares, name):
    recorded = package.run(name)
    given = {**arguments(enigma_trace_norm, runs[name]), "X_int": STARTS[runs[name]["init"]]}
    model = enigma_trace_norm(reference, **given)
    model.fit(bulk, proportions=shares)
    assert model.n_iter_ == len(recorded["ratio"])
    # R itself moves by 2e-13 when the bulk changes in the last bit; 2^x multiplies what differs in x
    assert relative_difference(model.cse_, recorded["CSE"]) < 1e-10
    assert relative_difference(model.cse_normalized_, recorded["CSE_norm"]) < 1e-10


@pytest.mark.parametrize(
    ("function", "kind"),
    [(enigma_l2_max_norm, L2MaxDeconvolver), (enigma_trace_norm, TraceNormDeconvolver)],
)
def test_returns_an_ordinary_estimator(function, kind):
    model = function(preprocess="log", norm_method="PC", pos=False, alpha=0.3, max_iter=7)
    assert isinstance(model, kind)
    expected = {"preprocess": "log", "normalize": "pc", "positive": False, "alpha": 0.3, "max_iter": 7}
    assert expected.items() <= model.get_params().items()


def test_defaults_of_the_editions():
    later = enigma_trace_norm(preprocess="log", edition="0.1.6")
    assert (later.solver, later.gamma, later.epsilon) == ("proximal", 0.5, 1e-3)
    first = enigma_trace_norm(preprocess="log")
    assert (first.solver, first.gamma, first.epsilon) == ("admm", "auto", "auto")


def test_factor_of_two_between_solvers():
    """As in the recorded runs that start at zero, see test_splitting; the one from the bulk makes no step."""
    model = enigma_trace_norm(preprocess="log", solver="proximalpoint", beta=3.0, tao_k=0.25)
    assert (model.solver, model.beta, model.tao_k) == ("proximal", 1.5, 0.5)
    assert enigma_trace_norm(preprocess="log", solver="admm", beta=3.0).beta == 3.0


def test_scale_must_be_named():
    with pytest.raises(TypeError, match="preprocess"):
        enigma_l2_max_norm()


def test_wrong_arguments_are_refused_in_fit(bulk, reference):
    for wrong in ({"norm_method": "xx"}, {"norm_method": 3}, {"preprocess": "none"}):
        model = enigma_l2_max_norm(reference, **({"preprocess": "log"} | wrong))
        with pytest.raises(ValueError, match="parameter of PackageL2MaxDeconvolver must be"):
            model.fit(bulk)


def test_losses_of_another_model(bulk, reference):
    for model in (
        L2MaxDeconvolver(reference),
        TraceNormDeconvolver(reference, preprocess="log").fit(bulk),
        L2MaxDeconvolver(reference, preprocess="log", beta=1e4, renorm_size=100.0).fit(bulk),
    ):
        with pytest.raises(ValueError, match=r"renorm_size=100000.*enigma_l2_max_norm"):
            enigma_losses(model, bulk)
