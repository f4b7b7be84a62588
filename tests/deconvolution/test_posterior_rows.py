"""The posterior models on a bulk that is read by rows: as in memory, in few readings."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skenigma import EmpiricalBayesDeconvolver, FactorDeconvolver
from skenigma.cohort import lazy_matrix
from skenigma.core.posterior import fit as fit_module
from tests.core.posterior.test_model import mixtures

# Sums in another order.
ROUNDING = {"rtol": 1e-10, "atol": 1e-10}


def by_rows(values, rows=13):
    return lazy_matrix(values, block_bytes=8 * rows * values.shape[1])


@pytest.fixture(scope="module")
def cohort():
    bulk, reference, _, _ = mixtures(n=60, n_genes=150, hidden=0.5, platform=0.4)
    return bulk, reference, pd.DataFrame({"age": np.arange(60.0), "sex": ["f", "m"] * 30})


@pytest.fixture(autouse=True)
def _cohorts_are_large(monkeypatch):
    """Sixty samples are fitted as more than a thousand are: by blocks, in memory or not."""
    monkeypatch.setattr(fit_module, "LARGEST_GRAM", 20)


@pytest.mark.parametrize("covariates", [False, True])
def test_empirical_bayes_by_rows_is_that_in_memory_whatever_the_blocks(cohort, covariates):
    bulk, reference, known = cohort
    told = {"covariates": known} if covariates else {}
    expected = EmpiricalBayesDeconvolver(reference).fit(bulk, **told)
    low, high = expected.expression_.interval(0.9)
    assert len(expected.hidden_directions_) > 0
    for rows in (7, 60):
        matrix = by_rows(bulk, rows)
        found = EmpiricalBayesDeconvolver(reference, materialize=False).fit(matrix, **told)
        # checks, proportions, moments, directions, level
        assert matrix.readings == 5
        for name in ("proportions_", "reliability_", "composition_", "mismatch_", "hidden_share_", "level_"):
            assert_allclose(getattr(found, name), getattr(expected, name), err_msg=name, **ROUNDING)
        expression = found.expression_
        assert_allclose(expression.level, expected.expression_.level, **ROUNDING)
        assert_allclose(expression.values(), expected.cse_, **ROUNDING)
        assert_allclose(expression.std(), expected.cse_std_, rtol=1e-9)
        some = [50, 3, 4]
        assert_allclose(expression.interval(0.9, samples=some)[0], low[some], rtol=1e-9, atol=1e-9)
        assert_allclose(
            expression.interval(0.9, samples=some, genes=[5])[1], high[some][:, :, [5]], rtol=1e-9
        )
        # posterior means, and in bounded memory
        assert expression.is_posterior_mean
        assert_allclose(
            np.concatenate([block for _, block in expression.blocks(2**14)]), expected.cse_, **ROUNDING
        )


def test_a_normalisation_reads_the_rows_once_for_each_cell_type(cohort):
    bulk, reference, _ = cohort
    expected = EmpiricalBayesDeconvolver(reference, normalize="frac").fit(bulk)
    matrix = by_rows(bulk)
    found = EmpiricalBayesDeconvolver(reference, normalize="frac", materialize=False).fit(matrix)
    assert matrix.readings == 5 + 3
    assert_allclose(found.expression_normalized_.values(), expected.cse_normalized_, rtol=1e-9, atol=1e-9)


def test_one_reading_for_what_is_asked_of_new_samples(cohort):
    bulk, reference, known = cohort
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, covariates=known)
    expected = model.transform(bulk, covariates=known)
    assert_allclose(model.transform(by_rows(bulk), covariates=known), expected, **ROUNDING)
    score = model.score(bulk, covariates=known)
    assert_allclose(model.score(by_rows(bulk), covariates=known), score, **ROUNDING)
    matrix = by_rows(bulk)
    predicted = model.predict_expression(matrix, covariates=known)
    before = matrix.readings
    assert_allclose(predicted.values(), expected.reshape(60, 3, 150), **ROUNDING)
    assert matrix.readings == before + 1


def test_covariates_are_matched_by_name(cohort):
    bulk, reference, known = cohort
    samples = pd.Index([f"s{j}" for j in range(60)])
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, covariates=known)
    expected = model.transform(bulk, covariates=known)
    matrix = by_rows(bulk)
    matrix.index = samples
    named = known.set_axis(samples).iloc[::-1]
    assert_allclose(model.transform(matrix, covariates=named), expected, **ROUNDING)


def test_a_negative_value_and_an_empty_sample_are_named(cohort):
    bulk, reference, _ = cohort
    wrong = bulk.copy()
    wrong[41, 7] = -1.0
    with pytest.raises(ValueError, match="Negative values in data") as error:
        EmpiricalBayesDeconvolver(reference).fit(by_rows(wrong))
    assert "(row 41, column 'x7')" in str(error.value)
    wrong[41] = 0.0
    refused = pytest.raises(ValueError, match=r"1 sample\(s\) of X are zero in every gene in use: 41")
    with pytest.warns(UserWarning, match="zero in every gene"), refused:
        EmpiricalBayesDeconvolver(reference).fit(by_rows(wrong))


# Factor model


@pytest.fixture(scope="module")
def signed():
    rng = np.random.default_rng(0)
    reference, theta = rng.normal(size=(3, 70)), rng.dirichlet(np.ones(3), 50)
    factors = rng.normal(size=(50, 1)) * rng.normal(size=70)
    return theta @ reference + factors + 0.5 * rng.normal(size=(50, 70)), reference, theta


def test_factor_model_by_rows_is_that_in_memory_whatever_the_blocks(signed):
    bulk, reference, _ = signed
    expected = FactorDeconvolver(reference).fit(bulk)
    assert expected.n_factors_ == 1
    for rows in (7, 50):
        matrix = by_rows(bulk, rows)
        found = FactorDeconvolver(reference, materialize=False).fit(matrix)
        # checks, proportions, residual, reliability, level
        assert matrix.readings == 5
        for name in ("scores_", "loadings_", "own_variance_", "reliability_", "level_", "proportions_"):
            assert_allclose(
                getattr(found, name), getattr(expected, name), err_msg=name, rtol=1e-9, atol=1e-10
            )
        assert_allclose(found.expression_.values(), expected.cse_, **ROUNDING)
        assert_allclose(found.expression_.std(), expected.cse_std_, rtol=1e-9)
        assert_allclose(found.score(by_rows(bulk, rows)), expected.score(bulk), **ROUNDING)
        assert_allclose(found.transform(by_rows(bulk, rows)), expected.transform(bulk), **ROUNDING)


def test_repeated_samples_are_named_from_the_store(signed):
    bulk, reference, theta = signed
    twice = bulk.copy()
    twice[31] = twice[4]
    with pytest.warns(UserWarning, match="equal to another in every gene: '4 and 31'"):
        FactorDeconvolver(reference, n_factors=0).fit(by_rows(twice), proportions=theta)


def test_a_large_factor_model_is_the_same_by_rows_in_ten_readings(signed, monkeypatch):
    """And that of the whole residual, where there are no more samples than directions."""
    bulk, reference, _ = signed
    whole = FactorDeconvolver(reference).fit(bulk)
    monkeypatch.setattr("skenigma.deconvolution._factor.HELD", 0)
    expected = FactorDeconvolver(reference).fit(bulk)
    matrix = by_rows(bulk, 7)
    found = FactorDeconvolver(reference, materialize=False).fit(matrix)
    # checks, proportions, three rounds of two, reliability, level
    assert matrix.readings == 10
    for name in ("scores_", "scores_std_", "loadings_", "own_variance_", "reliability_", "level_"):
        given = getattr(expected, name)
        assert_allclose(getattr(found, name), given, err_msg=name, rtol=1e-9, atol=1e-10)
    # the same steps on the same numbers but for rounding, which steps carry on
    for name in ("cse_", "cse_std_", "own_variance_", "reliability_", "gene_scale_", "shift_"):
        given, other = getattr(expected, name), getattr(whole, name)
        assert_allclose(given, other, err_msg=name, rtol=1e-6, atol=1e-8)
    assert_allclose(found.expression_.values(), expected.cse_, **ROUNDING)
    assert_allclose(found.transform(bulk), expected.cse_.reshape(len(bulk), -1), **ROUNDING)
