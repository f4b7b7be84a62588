"""What a model asks of an estimator of proportions, whoever wrote it."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import KNeighborsRegressor

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver, ProportionEstimator
from skenigma.batch import BulkBatchCorrector
from skenigma.datasets import make_cohort

N_GENES = 30
# products of another order of rows
ROUNDING = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(scope="module")
def data():
    """A bulk with genes that the reference lacks, in front of and between the others; and true proportions."""
    cohort = make_cohort(40, N_GENES, 3, random_state=0, as_frame=True)
    reference = 100 * np.exp(0.5 * cohort.reference)
    bulk = cohort.proportions @ reference * np.random.default_rng(0).lognormal(0, 0.05, cohort.bulk.shape)
    bulk.insert(0, "other1", 100.0)
    bulk.insert(9, "other2", 200.0)
    return bulk, reference, cohort.proportions


def model(reference, **options):
    return L2MaxDeconvolver(reference, renorm_size=None, max_iter=3, epsilon=1e9, **options)


class Plain:
    """Knows the answer, and nothing of scikit-learn."""

    def __init__(self, table):
        self.table = table

    def fit(self, X):
        self.columns = list(X)
        return self

    def transform(self, X):
        assert list(X) == self.columns
        return self.table.loc[X.index].to_numpy()


class Predicting(BaseEstimator):
    def __init__(self, table=None):
        self.table = table

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        return self.table.loc[X.index].to_numpy()


@pytest.mark.parametrize("kind", [Plain, Predicting])
@pytest.mark.parametrize("asks", [model, EmpiricalBayesDeconvolver, BulkBatchCorrector])
def test_two_methods_will_do(data, kind, asks):
    bulk, reference, theta = data
    estimator = kind(theta)
    fitted = clone(asks(reference, proportion_estimator=estimator)).fit(bulk)
    assert_array_equal(fitted.proportions_, theta)
    assert not hasattr(estimator, "columns")  # a copy was fitted
    known = asks(reference).fit(bulk, proportions=theta)
    new, told = bulk.iloc[::-1], {} if asks is BulkBatchCorrector else {"proportions": theta.iloc[::-1]}
    # rounding, in shares of the values
    assert_allclose(fitted.transform(new), known.transform(new, **told), rtol=1e-10)


def test_a_trained_regression(data):
    """As one trained on pseudo-bulk, whose answers add up to 1."""
    bulk, reference, theta = data
    trained = KNeighborsRegressor(3).fit(bulk, theta)
    fitted = model(reference, proportion_estimator=FrozenEstimator(trained)).fit(bulk)
    assert_allclose(fitted.proportions_, trained.predict(bulk), **ROUNDING)


def test_a_frozen_estimator_keeps_its_reference(data):
    """Although it passes on the methods for what a model has matched."""
    bulk, reference, _ = data
    alone = ProportionEstimator(reference, method="nnls").fit(bulk).set_params(reference=None)
    fitted = model(2 * reference, proportion_estimator=FrozenEstimator(alone)).fit(bulk.iloc[:20])
    assert_array_equal(fitted.proportions_, alone.transform(bulk.iloc[:20]))


class Matched(BaseEstimator):
    """Keeps what it was given."""

    def __init__(self, table=None, reference=None):
        self.table, self.reference = table, reference

    def fit(self, X, y=None):
        self.fitted = "as it came"
        return self

    def transform(self, X):
        return self.table.loc[X.index].to_numpy()

    def fit_matched(self, model, bulk, sample_names, estimate):
        self.fitted, self.given = "matched", bulk
        self.names = list(model.cell_types_), list(model.gene_names_), list(sample_names)
        self.profiles = model.reference_
        if estimate:
            self.proportions_ = self.transform_matched(bulk, sample_names)

    def transform_matched(self, bulk, sample_names):
        assert bulk.shape == (len(sample_names), N_GENES)
        return self.table.loc[sample_names].to_numpy()


@pytest.mark.parametrize("asks", [model, BulkBatchCorrector])
def test_what_a_model_has_matched(data, asks):
    bulk, reference, theta = data
    shuffled = reference.iloc[:, ::-1]
    fitted = asks(shuffled, proportion_estimator=Matched(theta)).fit(bulk)
    estimator = fitted.proportion_estimator_
    assert estimator.fitted == "matched"
    assert estimator.names == (list(reference.index), list(reference), list(bulk.index))
    assert_array_equal(estimator.given, bulk[list(reference)])
    assert_array_equal(estimator.profiles, reference)
    assert_array_equal(fitted.proportions_, theta)
    assert np.isfinite(fitted.transform(bulk.iloc[:4])).all()


def test_known_proportions_are_not_estimated(data):
    bulk, reference, theta = data
    other = theta.iloc[:, ::-1]
    fitted = model(reference, proportion_estimator=Matched(theta)).fit(bulk, proportions=other)
    assert not hasattr(fitted.proportion_estimator_, "proportions_")
    assert_array_equal(fitted.proportions_, theta)
    assert np.isfinite(fitted.transform(bulk.iloc[:4])).all()


def test_a_reference_of_its_own_is_matched_by_itself(data):
    bulk, reference, theta = data
    fitted = model(reference, proportion_estimator=Matched(theta, reference)).fit(bulk)
    assert fitted.proportion_estimator_.fitted == "as it came"
    assert_array_equal(fitted.proportions_, theta)


@pytest.mark.parametrize("given", [None, ProportionEstimator()])
def test_the_fitted_one_takes_the_bulk_of_the_model(data, given):
    """With genes that the reference lacks, whether it was given or is the default."""
    bulk, reference, _ = data
    estimator = model(reference, proportion_estimator=given).fit(bulk).proportion_estimator_
    alone = ProportionEstimator(reference).fit(bulk)
    assert_array_equal(estimator.proportions_, alone.proportions_)
    assert_array_equal(estimator.transform(bulk), alone.transform(bulk))
    pd.testing.assert_frame_equal(estimator.quality(bulk), alone.quality(bulk))
    assert list(estimator.gene_names_) == list(alone.gene_names_)


def test_what_is_no_estimator_is_refused(data):
    bulk, reference, _ = data
    with pytest.raises(ValueError, match="proportion_estimator"):
        model(reference, proportion_estimator=object()).fit(bulk)
