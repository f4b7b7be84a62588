"""What estimators keep: of one fit only, and untouched by what comes after it."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skenigma import L2MaxDeconvolver, L2MaxDeconvolverCV, ProportionEstimator, TraceNormDeconvolver
from skenigma.batch import BulkBatchCorrector, ReferenceBatchCorrector
from tests.models import MODELS

N_TYPES = 3
SHORT = {"max_iter": 5}

# few iterations end without convergence, and proportions of noise need no positive coefficient
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def cohort(seed, n_samples, n_genes):
    """Bulk and reference on the linear scale."""
    rng = np.random.default_rng(seed)
    types, genes = [f"type{k}" for k in range(N_TYPES)], [f"gene{g}" for g in range(n_genes)]
    reference = pd.DataFrame(rng.gamma(1, 10, (N_TYPES, n_genes)), types, genes)
    mixture = rng.dirichlet(np.ones(N_TYPES), n_samples) @ reference.to_numpy()
    samples = [f"sample{j}" for j in range(n_samples)]
    return pd.DataFrame(mixture * rng.lognormal(0, 0.2, mixture.shape), samples, genes), reference


def cells_of(reference):
    """Cells and their labels."""
    rates = np.repeat(reference.to_numpy(), 20, axis=0)
    cells = pd.DataFrame(np.random.default_rng(0).poisson(rates), columns=reference.columns)
    return {"cells": cells, "labels": np.repeat(reference.index, 20)}


ESTIMATORS = {
    "rlm": ProportionEstimator(),
    "nnls": ProportionEstimator(method="nnls"),
    "nusvr": ProportionEstimator(method="nusvr", nu=[0.5]),
    "proximal": L2MaxDeconvolver(tao_k="auto", preprocess="log", **SHORT),
    "auto": L2MaxDeconvolver(renorm_size="auto", normalize="quantile", **SHORT),
    "admm": L2MaxDeconvolver(solver="admm", normalize="pc", output_cell_types=["type2"], **SHORT),
    "accelerated": L2MaxDeconvolver(solver="accelerated", materialize=False, normalize="frac", **SHORT),
    "trace_norm": TraceNormDeconvolver(normalize="frac", **SHORT),
    "trace_norm_proximal": TraceNormDeconvolver(
        solver="proximal", tao_k="auto", beta="auto", materialize=False, **SHORT
    ),
    "cv": L2MaxDeconvolverCV(alphas=[0.1], betas=[10], cv=2, normalize="frac", random_state=0, **SHORT),
    "bulk_batch": BulkBatchCorrector(),
    "reference_batch": ReferenceBatchCorrector(
        n_samples=10, n_cells=50, estimator=L2MaxDeconvolver(**SHORT), random_state=0
    ),
}
known = {type(estimator) for estimator in ESTIMATORS.values()}
ESTIMATORS.update({name: model for name, model in MODELS.items() if type(model) not in known})
# Settings under which the fewest attributes are set.
PLAIN = {
    "normalize": None,
    "materialize": False,
    "output_cell_types": None,
    "solver": "admm",
    "tao_k": 1.0,
    "estimator": None,
}


def given(estimator, reference):
    """A clone with its profiles or cells."""
    own = {"reference": reference} if "reference" in estimator.get_params() else cells_of(reference)
    return clone(estimator).set_params(**own)


def hashes(estimator):
    return {name: joblib.hash(value) for name, value in vars(estimator).items()}


@pytest.fixture(params=ESTIMATORS.values(), ids=ESTIMATORS.keys())
def estimator(request):
    return request.param


def test_nothing_that_follows_a_fit_changes_it(estimator):
    bulk, reference = cohort(0, 12, 40)
    fitted = given(estimator, reference).fit(bulk)
    before = hashes(fitted), joblib.hash(bulk)
    result = fitted.transform(bulk.iloc[:5])
    fitted.get_feature_names_out()
    if isinstance(fitted, ProportionEstimator):
        fitted.quality(bulk.iloc[:5])
    elif hasattr(fitted, "score"):
        fitted.score(bulk.iloc[:5])
    if hasattr(fitted, "cell_type_expression"):
        fitted.cell_type_expression("type1", samples=[0, 2])
    result[:] = -1.0  # what a caller does with a result is no concern of the model
    assert (hashes(fitted), joblib.hash(bulk)) == before


def test_a_second_fit_keeps_nothing_of_the_first(estimator):
    bulk, reference = cohort(0, 12, 40)
    fitted = given(estimator, reference).fit(bulk)
    other_bulk, other_reference = cohort(1, 10, 30)
    plain = {name: value for name, value in PLAIN.items() if name in fitted.get_params()}
    if isinstance(fitted, TraceNormDeconvolver) and fitted.solver == "admm":
        plain["solver"] = "proximal"
    fresh = given(estimator, other_reference).set_params(**plain)
    refitted = fitted.set_params(**fresh.get_params(deep=False))
    # an array: the names of the first genes and samples must go too
    values = other_bulk.to_numpy()
    assert hashes(refitted.fit(values)) == hashes(fresh.fit(values))
