"""What estimators say and take: searches that compare scores, how they are shown, and genes by name."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skenigma import (
    EmpiricalBayesDeconvolver,
    FactorDeconvolver,
    L2MaxDeconvolver,
    ProportionEstimator,
    TraceNormDeconvolver,
)
from skenigma.datasets import make_cohort


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=12, n_genes=40, n_cell_types=3, random_state=0, as_frame=True)


class TestSearchesByScore:
    @pytest.mark.parametrize(
        ("model", "grid", "named"),
        [
            (L2MaxDeconvolver(renorm_size="auto"), {"alpha": [0.1, 0.2]}, "L2MaxDeconvolver across alpha"),
            (L2MaxDeconvolver(renorm_size="auto"), {"beta": [50.0]}, "across beta"),
            (TraceNormDeconvolver(beta=5.0), {"alpha": [0.5], "beta": [5.0]}, "across alpha, beta"),
            (FactorDeconvolver(n_factors=0), {"preprocess": [None]}, "FactorDeconvolver across preprocess"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else None,
    )
    def test_across_what_changes_their_unit_are_warned_of(self, cohort, model, grid, named):
        search = GridSearchCV(model.set_params(reference=cohort.reference), grid, cv=2, refit=False)
        with pytest.warns(UserWarning, match=f"{named}.*cannot be compared.*recovery_scorer"):
            search.fit(cohort.bulk)

    def test_within_a_pipeline_too(self, cohort):
        pipeline = Pipeline([("cse", L2MaxDeconvolver(cohort.reference, renorm_size="auto"))])
        with pytest.warns(UserWarning, match="cannot be compared"):
            GridSearchCV(pipeline, {"cse__beta": [50.0]}, cv=2, refit=False).fit(cohort.bulk)

    def test_others_are_silent(self, cohort):
        model = L2MaxDeconvolver(cohort.reference, renorm_size="auto")
        GridSearchCV(model, {"tao_k": [1.0]}, cv=2, refit=False).fit(cohort.bulk)
        GridSearchCV(model, {"beta": [50.0]}, scoring=_constant, cv=2, refit=False).fit(cohort.bulk)
        model.set_params(beta=40.0).fit(cohort.bulk).score(cohort.bulk)


def _constant(model, X, y=None):
    return 0.0


def test_convergence_warnings_name_the_setting(cohort):
    with pytest.warns(
        ConvergenceWarning,
        match=r"2 iterations with solver='proximal', alpha=0.3, beta=7.0, tao_k=1.0, renorm_size=90",
    ):
        L2MaxDeconvolver(cohort.reference, alpha=0.3, beta=7.0, renorm_size=90.0, max_iter=2).fit(cohort.bulk)
    with pytest.warns(ConvergenceWarning, match=r"with solver='admm', alpha=0.5, beta=1.0, gamma='auto'"):
        TraceNormDeconvolver(cohort.reference, max_iter=2).fit(cohort.bulk)


@pytest.mark.parametrize("model", [L2MaxDeconvolver, EmpiricalBayesDeconvolver, ProportionEstimator])
def test_a_reference_is_shown_by_its_shape(cohort, model):
    shown = repr(model(cohort.reference, n_components=3))
    assert shown == f"{model.__name__}(n_components=3, reference=<DataFrame of 3 × 40>)"
    assert "<ndarray of 3 × 40>" in repr(model(cohort.reference.to_numpy()))
    assert repr(model(n_components=3)) == f"{model.__name__}(n_components=3)"


@pytest.fixture(scope="module")
def fitted(cohort):
    # half of the genes of X are not in the reference
    return TraceNormDeconvolver(cohort.reference.iloc[:, ::2], beta=5.0).fit(cohort.bulk)


class TestGenesByName:
    def test_in_any_order_extra_ones_left_out(self, cohort, fitted):
        expected = fitted.predict_expression(cohort.bulk)
        other = cohort.bulk.iloc[:, ::-1].assign(other=1.0)
        assert_array_equal(fitted.predict_expression(other).values(), expected.values())
        # a gene that is not in use need not be there
        without = other.drop(columns=cohort.bulk.columns[1])
        assert_array_equal(fitted.predict_expression(without).values(), expected.values())
        assert list(fitted.predict_expression(other).sample_names) == list(cohort.bulk.index)

    def test_of_posteriors(self, cohort):
        linear = np.exp2(cohort.bulk)
        model = EmpiricalBayesDeconvolver(np.exp2(cohort.reference)).fit(
            linear, proportions=cohort.proportions
        )
        found = model.predict_expression(linear.iloc[:, ::-1], proportions=cohort.proportions)
        assert_allclose(found.values(), model.cse_, rtol=1e-9)

    def test_one_that_is_needed_is_named(self, cohort, fitted):
        lacking = cohort.bulk.drop(columns=[cohort.bulk.columns[0], cohort.bulk.columns[4]])
        with pytest.raises(ValueError, match="X lacks 2 of the 20 genes of the fit: 'gene1', 'gene5'"):
            fitted.predict_expression(lacking)

    def test_estimators_of_proportions_of_ones_own_see_all_columns(self, cohort):
        model = TraceNormDeconvolver(
            cohort.reference, beta=5.0, proportion_estimator=ProportionEstimator(method="nnls")
        ).fit(cohort.bulk)
        other = cohort.bulk.iloc[:, ::-1].assign(other=1.0)
        assert_allclose(
            model.predict_expression(other).values(), model.predict_expression(cohort.bulk).values()
        )

    def test_repeated_ones_are_refused(self, cohort, fitted):
        twice = pd.concat([cohort.bulk, cohort.bulk.iloc[:, [2]]], axis=1)
        with pytest.raises(ValueError, match="named more than once: 'gene3'"):
            fitted.predict_expression(twice)

    def test_transform_says_how_to_order_them(self, cohort, fitted):
        with pytest.raises(ValueError, match=r"X\[model\.feature_names_in_\], or predict_expression\(X\)"):
            fitted.transform(cohort.bulk.iloc[:, ::-1])
        estimator = ProportionEstimator(cohort.reference).fit(cohort.bulk)
        with pytest.raises(ValueError, match=r"Pass X\[model\.feature_names_in_\]\.$"):
            estimator.transform(cohort.bulk.iloc[:, ::-1])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted.transform(cohort.bulk.iloc[:, ::-1][fitted.feature_names_in_])
