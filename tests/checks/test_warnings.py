"""Every warning of the package points at the line of the user that led to it, by whatever way it came."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from skenigma import L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver
from skenigma.batch import BulkBatchCorrector, ReferenceBatchCorrector
from skenigma.proportions import fit_quality
from skenigma.reference import make_pseudobulk, make_reference, select_markers

RNG = np.random.default_rng(0)
GENES = [f"GENE{g}" for g in range(40)]
REFERENCE = pd.DataFrame(RNG.gamma(1, 40, (3, 40)), ["B", "NK", "T"], GENES)
THETA = RNG.dirichlet(np.ones(3), 12)
BULK = pd.DataFrame(THETA @ REFERENCE.to_numpy() * RNG.lognormal(0, 0.2, (12, 40)), columns=GENES)
CELLS = pd.DataFrame(RNG.poisson(np.repeat(REFERENCE.to_numpy(), 20, axis=0)), columns=GENES)
LABELS = np.repeat(REFERENCE.index, 20)
ALIEN = REFERENCE.set_axis(GENES[:4] + [f"other{g}" for g in range(36)], axis=1)
WITHOUT_B = THETA * [0, 1, 1] / (1 - THETA[:, [0]])
FEW_B = LABELS[15:]

WAYS = {
    "convergence": (L2MaxDeconvolver(REFERENCE, max_iter=2), "did not converge"),
    "size": (L2MaxDeconvolver(REFERENCE, renorm_size=0.1), "far below"),
    "genes": (ProportionEstimator(ALIEN), "share only 4 genes"),
    "genes of a model": (TraceNormDeconvolver(ALIEN, max_iter=2), "share only 4 genes"),
    "regression": (ProportionEstimator(REFERENCE, max_iter=1), "Robust regression did not converge"),
    "regression in a model": (
        L2MaxDeconvolver(REFERENCE, proportion_estimator=ProportionEstimator(max_iter=1)),
        "Robust regression did not converge",
    ),
    "a step": (make_pipeline(ProportionEstimator(REFERENCE, max_iter=1)), "did not converge"),
    "units": (BulkBatchCorrector(REFERENCE * 100), "mean total"),
    "few cells": (
        ReferenceBatchCorrector(CELLS.iloc[15:], FEW_B, n_samples=20, n_cells=50, random_state=0),
        "fewer than min_cells",
    ),
}
CALLS = {
    "fit": lambda estimator: estimator.fit(BULK),
    "fit_transform": lambda estimator: estimator.fit_transform(BULK),
}
FUNCTIONS = {
    "absent": (lambda: L2MaxDeconvolver(REFERENCE).fit(BULK, proportions=WITHOUT_B), "is 0 in every sample"),
    "transform": (
        lambda: ProportionEstimator(REFERENCE).fit(BULK).set_params(max_iter=1).transform(BULK),
        "did not converge",
    ),
    "logarithms of bulk": (
        lambda: BulkBatchCorrector(REFERENCE / 99).fit(BULK / 99),
        "is this the logarithm",
    ),
    "quality": (lambda: fit_quality(BULK, ALIEN, THETA), "share only 4 genes"),
    "reference": (lambda: make_reference(CELLS.iloc[15:], FEW_B), "fewer than min_cells"),
    "pseudobulk": (lambda: make_pseudobulk(CELLS.iloc[15:], FEW_B, 2, n_cells=5), "fewer than min_cells"),
    "markers": (lambda: select_markers(CELLS.iloc[15:], FEW_B), "fewer than min_cells"),
    "logarithms": (lambda: make_reference(np.log2(CELLS + 1), LABELS), "is this the logarithm"),
}


def first_places(call, match):
    """Files that the matching warnings point at."""
    with pytest.warns(UserWarning) as caught:  # noqa: PT030 - there may be others
        call()
    return {warning.filename for warning in caught if match in str(warning.message)}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(("estimator", "match"), WAYS.values(), ids=WAYS.keys())
def test_fits(estimator, match, call):
    assert first_places(lambda: call(estimator), match) == {__file__}


@pytest.mark.parametrize(("call", "match"), FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_functions(call, match):
    assert first_places(call, match) == {__file__}
