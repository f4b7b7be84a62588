"""scikit-learn's contract, for every public estimator in every configuration that changes its code path."""

import re

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import skenigma
from skenigma import (
    EmpiricalBayesDeconvolver,
    FactorDeconvolver,
    L2MaxDeconvolver,
    L2MaxDeconvolverCV,
    ProportionEstimator,
    TraceNormDeconvolver,
)
from skenigma.presets import PackageL2MaxDeconvolver, PackageTraceNormDeconvolver
from tests.models import MODELS

# All but the defaults stop early: the checks ask for the contract, not for convergence.
CONFIGURATIONS = [
    ProportionEstimator(),
    ProportionEstimator(method="nnls"),
    ProportionEstimator(method="nusvr", nu=[0.5]),
    ProportionEstimator(method="log"),
    ProportionEstimator(method="auto"),
    ProportionEstimator(n_components=1),
    L2MaxDeconvolver(),
    L2MaxDeconvolver(renorm_size=None, max_iter=20),
    L2MaxDeconvolver(renorm_size=None, tao_k="auto", beta=1.0, max_iter=20),
    L2MaxDeconvolver(renorm_size="auto", max_iter=20),
    L2MaxDeconvolver(normalize="frac", positive=True, max_iter=20),
    L2MaxDeconvolver(normalize="pc", max_iter=20),
    L2MaxDeconvolver(normalize="quantile", max_iter=20),
    L2MaxDeconvolver(proportion_estimator=ProportionEstimator(method="nnls"), max_iter=20),
    L2MaxDeconvolver(materialize=False, normalize="frac", max_iter=20),
    L2MaxDeconvolver(output_cell_types=["celltype0"], max_iter=20),
    L2MaxDeconvolver(solver="admm", max_iter=20),
    L2MaxDeconvolver(solver="accelerated", max_iter=20),
    TraceNormDeconvolver(),
    TraceNormDeconvolver(solver="admm_fast", beta="auto", max_iter=20),
    TraceNormDeconvolver(materialize=False, output_cell_types=["celltype0"], max_iter=20),
    TraceNormDeconvolver(solver="proximal", tao_k="auto", normalize="frac", max_iter=20),
    EmpiricalBayesDeconvolver(),
    EmpiricalBayesDeconvolver(platform="bulk", composition=0.5, materialize=False),
    EmpiricalBayesDeconvolver(normalize="frac", output_cell_types=["celltype0"]),
    FactorDeconvolver(),
    FactorDeconvolver(n_factors=1, materialize=False, max_iter=20),
    # the checks' data have totals of 0 and below, which cannot be scaled
    PackageL2MaxDeconvolver(do_cpm=False, renorm_size=None, max_iter=20),
    PackageTraceNormDeconvolver(do_cpm=False, max_iter=20),
    L2MaxDeconvolverCV(),
    L2MaxDeconvolverCV(alphas=[0.1], betas=[50], cv=2, max_iter=20),
]
CONFIGURATIONS += [model for model in MODELS.values() if type(model) not in map(type, CONFIGURATIONS)]

# Checks that scikit-learn keeps for its own estimators.
UNOFFICIAL_CHECKS = [
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_dataframe_column_names_consistency",
    "check_n_features_in_after_fitting",
    "check_inplace_ensure_writeable",
]

# The checks feed noise, few samples and one gene: fits that end at max_iter, and samples that resemble no
# profile, are what the estimators ought to warn about there.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:No cell type has a positive coefficient:UserWarning"),
    pytest.mark.filterwarnings("ignore:The proportion of .* is 0 in every sample:UserWarning"),
    pytest.mark.filterwarnings("ignore:X has no negative value and goes up to:UserWarning"),
    pytest.mark.filterwarnings(
        "ignore::skenigma.exceptions.SampleWarning"
    ),  # cohorts of few or equal samples
    # the set_output checks fit a frame and transform an array, and the other way round
    pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning"),
]


def public_estimators(namespace):
    """Every estimator class among the public names of a module."""
    members = (getattr(namespace, name) for name in namespace.__all__)
    return {member for member in members if isinstance(member, type) and issubclass(member, BaseEstimator)}


def settings(estimator):
    """The class and whatever differs from its defaults: what a table row stands for."""
    defaults = {name: repr(value) for name, value in type(estimator)().get_params(deep=False).items()}
    given = estimator.get_params(deep=False).items()
    changed = [f"{name}={value!r}" for name, value in given if repr(value) != defaults[name]]
    return f"{type(estimator).__name__}({', '.join(changed)})"


def shortened(estimator):
    """A clone that takes few iterations: the official checks have run the defaults to their end."""
    given = estimator.get_params(deep=False)
    shorter = {"max_iter": min(given["max_iter"], 20)} if "max_iter" in given else {}
    return clone(estimator).set_params(**shorter)


def test_every_public_estimator_has_a_row_with_its_defaults():
    rows = [row for row in CONFIGURATIONS if type(row).__module__.startswith("skenigma")]
    with_defaults = {type(row) for row in rows if settings(row) == f"{type(row).__name__}()"}
    assert public_estimators(skenigma) == with_defaults


def quick(estimator):
    """Whether the checks of a row are over soon: defaults, but for the factor model, whose fits are long."""
    is_default = settings(estimator) == f"{type(estimator).__name__}()"
    return is_default != isinstance(estimator, FactorDeconvolver)


QUICK = [row for row in CONFIGURATIONS if quick(row)]
OTHERS = [row for row in CONFIGURATIONS if not quick(row)]


def refusals(estimator):
    """Checks whose data are refused for a good reason."""
    if getattr(estimator, "method", None) == "log":
        return {"check_estimators_dtypes": "one of its samples is zero in all genes, and has no proportions"}
    return {}


@parametrize_with_checks(QUICK, expected_failed_checks=refusals)
def test_official_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(OTHERS, expected_failed_checks=refusals)
def test_official_checks_of_other_settings(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(row, id=settings(row), marks=[] if quick(row) else [pytest.mark.slow])
        for row in CONFIGURATIONS
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if re.search("global|polars", name) else [])
        for name in UNOFFICIAL_CHECKS
    ],
)
def test_unofficial_checks(estimator, name):
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip(f"this scikit-learn has no {name}")
    if name.endswith("polars"):
        pytest.importorskip("polars")
    check(type(estimator).__name__, shortened(estimator))
