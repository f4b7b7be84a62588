"""What the tests of optimised models share: known proportions as an estimator, tolerances, the objective."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

# Rounding of a replayed row, relative to the largest entry: it is summed in another order than in the fit.
REPLAY = 1e-11


def objective(P, X, R, proportions, alpha, beta):
    """F of the model, term by term."""
    misfit = np.sum((X - np.einsum("jk,jkg->jg", proportions, P)) ** 2)
    offset = np.sum((P.mean(axis=0) - R) ** 2)
    penalty = np.sum(np.max(np.sum(P**2, axis=2), axis=0))
    return alpha * misfit + (1 - alpha) * offset + beta / 2 * penalty


def assert_close(got, expected, tolerance=REPLAY):
    """Equal up to a share of the largest entry."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


class Oracle(TransformerMixin, BaseEstimator):
    """Known proportions, as any transformer may return them: an array, or a frame."""

    def __init__(self, table=None, as_frame=False):
        self.table = table
        self.as_frame = as_frame

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        found = self.table.loc[X.index]
        return found if self.as_frame else found.to_numpy()


class NamedOracle(Oracle):
    def fit(self, X, y=None):
        self.cell_types_ = np.array(self.table.columns, dtype=object)
        return super().fit(X)


class Recorder:
    """Counts what a fit reports, and asks it to stop after some iterations."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.begun, self.ended, self.setups, self.teardowns = [], [], 0, 0

    def setup(self, estimator, context):
        self.setups += 1

    def teardown(self, estimator, context):
        self.teardowns += 1

    def on_fit_task_begin(self, estimator, context, **information):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context, **information):
        self.ended.append(context.task_name)
        return self.stop_after is not None and self.ended.count("iteration") >= self.stop_after
