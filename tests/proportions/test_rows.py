"""Proportions of a bulk that is read by rows: those of the bulk in memory, in two readings."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from skenigma import ProportionEstimator
from skenigma.cohort import lazy_matrix
from skenigma.core.regress.log_scale import log_scale_model
from skenigma.proportions import fit_quality, unexplained_genes

METHODS = ["rlm", "log", "nnls", "nusvr", "auto"]
# A sample's answer may depend on which others are iterated beside it, by rounding alone.
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    reference = rng.gamma(0.7, 100.0, (4, 40))
    reference[:, 30:] = 0.0  # in no profile
    bulk = rng.dirichlet(np.ones(4), 20) @ reference * np.exp(rng.normal(0, 0.2, (20, 40)))
    bulk[:, 30:] = rng.gamma(1.0, 5.0, (20, 10))
    return bulk, reference


def by_rows(values, rows):
    return lazy_matrix(values, block_bytes=8 * rows * values.shape[1])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_as_in_memory_whatever_the_blocks(cohort, method):
    bulk, reference = cohort
    expected = ProportionEstimator(reference, method=method, nu=(0.5,)).fit(bulk)
    for rows in (3, 20):
        matrix = by_rows(bulk, rows)
        found = ProportionEstimator(reference, method=method, nu=(0.5,)).fit(matrix)
        assert matrix.readings == 2
        assert found.method_ == expected.method_
        assert_allclose(found.proportions_, expected.proportions_, **ROUNDING)
        assert_allclose(found.quality_, expected.quality_, **ROUNDING)
        assert_allclose(found.transform(matrix), expected.transform(bulk), **ROUNDING)
        assert found.n_iter_ == expected.n_iter_
        assert (found.proportions_std_ is None) == (expected.proportions_std_ is None)


def test_what_is_added_before_logarithms_is_found_in_the_first_reading(cohort):
    bulk, reference = cohort
    low = 1.0 + bulk / bulk.mean()
    low[::2, 3] = 0.0
    low[:, 35] = 0.01  # in no profile
    matrix = by_rows(low, 3)
    found = ProportionEstimator(reference, method="log").fit(matrix)._log_scale
    used = low[:, :30]
    offsets = [row[row > 0].min() / row.mean() / 2 for row in used]
    assert 0.01 < np.median(offsets) < 1
    expected = log_scale_model(reference, np.median(offsets))
    assert_allclose(found.weights, expected.weights, **ROUNDING)


def test_standard_errors_and_figures_are_those_in_memory(cohort):
    bulk, reference = cohort
    model = ProportionEstimator(reference, method="log").fit(bulk)
    again = ProportionEstimator(reference, method="log").fit(by_rows(bulk, 7))
    assert_allclose(again.proportions_std_, model.proportions_std_, **ROUNDING)
    for found, expected in zip(
        again.transform_with_std(by_rows(bulk, 4)), model.transform_with_std(bulk), strict=True
    ):
        assert_allclose(found, expected, **ROUNDING)
    assert_allclose(again.quality(by_rows(bulk, 4)), model.quality(bulk), **ROUNDING)
    shares = model.proportions_
    assert_allclose(
        fit_quality(by_rows(bulk, 4), reference, shares), fit_quality(bulk, reference, shares), **ROUNDING
    )


def test_single_precision_stays_and_cells_are_shares_of_the_same(cohort):
    bulk, reference = (values.astype(np.float32) for values in cohort)
    content = [1.0, 2.0, 3.0, 0.5]
    expected = ProportionEstimator(reference, method="log", rna_content=content).fit(bulk)
    found = ProportionEstimator(reference, method="log", rna_content=content).fit(by_rows(bulk, 7))
    assert found.proportions_.dtype == np.float32
    # of values in single precision
    assert_allclose(found.proportions_, expected.proportions_, rtol=1e-5, atol=1e-7)


def test_all_samples_in_doubt_are_named_at_once(cohort):
    bulk, reference = cohort
    model = ProportionEstimator(reference, method="rlm", max_iter=1)
    with pytest.warns(ConvergenceWarning, match=r"20 sample\(s\): 0, 1, 2") as caught:
        model.fit(by_rows(bulk, 4))
    assert len(caught) == 1
    signed = -bulk
    signed[:9] = bulk[:9]
    with pytest.warns(UserWarning, match=r"non-negative least squares, in 11 sample\(s\): 9, 10, 11"):
        ProportionEstimator(reference, method="nnls").fit(by_rows(signed, 4))


@pytest.mark.parametrize("named", [False, True])
def test_what_is_refused_is_refused_by_its_name(cohort, named):
    bulk, reference = (values.copy() for values in cohort)
    names = [f"sample{j}" for j in range(20)]

    def matrix(values):
        found = by_rows(values, 4)
        if named:
            found.index = pd.Index(names)
        return found

    estimator = ProportionEstimator(reference, method="log")
    wrong = bulk.copy()
    wrong[17, :30] = 0.0
    with pytest.raises(ValueError, match="sample17" if named else "17") as error:
        estimator.fit(matrix(wrong))
    assert "without expression in all 30" in str(error.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = ProportionEstimator(reference, method="log").fit(bulk)
    with pytest.raises(ValueError, match="sample17" if named else "17"):
        fitted.transform(matrix(wrong))
    wrong[17, 5] = -1.0
    with pytest.raises(ValueError, match="Negative values in data") as error:
        estimator.fit(matrix(wrong))
    assert ("'sample17'" if named else "row 17") in str(error.value)


def test_unexplained_genes_are_those_in_memory(cohort):
    bulk, reference = cohort
    shares = ProportionEstimator(reference, method="nnls").fit(bulk).proportions_
    expected = unexplained_genes(bulk, reference, shares, minimum=-np.inf)
    assert len(expected) == 40
    matrix = by_rows(bulk, 7)
    found = unexplained_genes(matrix, reference, shares, minimum=-np.inf)
    assert matrix.readings == 2
    pd.testing.assert_frame_equal(found, expected, rtol=1e-10)


def test_samples_stay_in_the_order_of_the_store(cohort):
    bulk, reference = cohort
    model = ProportionEstimator(reference, method="nnls")
    found = model.fit(by_rows(bulk[::-1].copy(), 7)).proportions_
    # products of blocks of other sizes may be summed in another order, which some kernels do: a few roundings
    assert_allclose(found[::-1], model.fit(by_rows(bulk, 4)).proportions_, rtol=1e-12, atol=1e-14)
