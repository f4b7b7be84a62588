"""The page on cohorts that stay on disk says how often X is read: as often as it is."""

import pathlib
import re

import numpy as np
import pytest

from skenigma import EmpiricalBayesDeconvolver, FactorDeconvolver, L2MaxDeconvolver, ProportionEstimator
from skenigma.cohort import lazy_matrix

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "user_guide" / "by_rows.md"
# What the page calls by its name, or by that of the row above and "its".
FITS = {
    "ProportionEstimator": "| `ProportionEstimator.fit`",
    "L2MaxDeconvolver": "| `L2MaxDeconvolver.fit`",
    "EmpiricalBayesDeconvolver": "| `EmpiricalBayesDeconvolver.fit`",
    "FactorDeconvolver": "| `FactorDeconvolver.fit`",
}


def on_page(beginning):
    """The number of readings in a row of the table."""
    (found,) = re.findall(re.escape(beginning) + r"[^|]*\| (\d+)", PAGE.read_text(encoding="utf-8"))
    return int(found)


@pytest.fixture(scope="module")
def cohort():
    rng, n_samples, n_genes = np.random.default_rng(0), 600, 300
    reference, theta = rng.gamma(0.3, 1.0, (5, n_genes)), rng.dirichlet(np.ones(5), n_samples)
    reference *= 1000 / reference.sum(axis=1, keepdims=True)
    return (theta @ reference) * rng.lognormal(0.0, 0.3, (n_samples, n_genes)), reference, theta


def read(bulk):
    return lazy_matrix(bulk, block_bytes=8 * bulk.shape[1] * 100)


def models(reference):
    yield ProportionEstimator(reference, method="nnls")
    yield L2MaxDeconvolver(reference, materialize=False, n_samples_of_settings=100)
    yield FactorDeconvolver(reference, materialize=False, n_factors=0)
    # a reading less up to 1,000 samples, as the page says
    yield EmpiricalBayesDeconvolver(reference, materialize=False)


@pytest.mark.slow  # seven fits
@pytest.mark.filterwarnings("ignore:X has no negative value")
def test_a_fit_reads_as_often_as_the_page_says(cohort):
    bulk, reference, theta = cohort
    for model in models(reference):
        name, matrix = type(model).__name__, read(bulk)
        model.fit(matrix)
        less = name == "EmpiricalBayesDeconvolver"
        # rows that are looked at one by one are not a reading
        assert int(matrix.readings) == on_page(FITS[name]) - less, name
        if name == "ProportionEstimator":
            continue
        given = read(bulk)
        model.fit(given, proportions=theta)
        assert int(given.readings) == int(matrix.readings) - 1, name
        if name == "L2MaxDeconvolver":
            for method in ("transform", "score"):
                new = read(bulk)
                getattr(model, method)(new, proportions=theta)
                assert new.readings == on_page("| its `transform`, `score`"), method
