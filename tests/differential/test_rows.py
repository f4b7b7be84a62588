"""Tests of a bulk that is read by rows: the same tables as in memory."""

import errno
import os

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver
from skenigma._by_genes import by_genes
from skenigma.checks import memory
from skenigma.cohort import lazy_matrix
from skenigma.core.regress import hidden
from skenigma.differential import (
    _bulk,
    differential_expression,
    factor_test,
    interaction_test,
    log_fold_change_test,
    marginal_test,
)
from skenigma.reliability import gene_significance


def by_rows(values, rows=7):
    return lazy_matrix(values, block_bytes=8 * rows * values.shape[1])


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    reference = rng.lognormal(4, 1, (3, 40))
    theta = rng.dirichlet(np.full(3, 3.0), 40)
    sick = np.arange(40) % 2
    bulk = theta @ reference * rng.lognormal(0, 0.2, (40, 40))
    bulk[sick == 1, :5] *= 2
    return bulk, reference, theta, sick


def assert_same(found, expected):
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-12)


def test_a_bulk_by_genes_is_the_bulk_of_the_samples_in_their_order(cohort):
    bulk = cohort[0]
    matrix = by_rows(bulk)
    assert_array_equal(by_genes(matrix), bulk)
    assert matrix.readings == 1
    some = np.array([30, 2, 9])
    found = by_genes(matrix, some)
    assert_array_equal(found, bulk[some])
    # genes are stored one after the other
    assert found.strides[1] == found.strides[0] * len(some)


def test_no_room_for_the_file_is_said_before_it_is_written_to(cohort, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if not hasattr(os, "posix_fallocate"):
        pytest.skip("there is no such call on this system")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="no room in") as error:
        by_genes(by_rows(cohort[0]))
    assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize("options", [{}, {"errors": "ols"}, {"n_permutations": 9}, {"levels": [1, 0]}])
def test_interaction_test_takes_rows(cohort, options):
    bulk, _, theta, sick = cohort
    matrix = by_rows(bulk)
    found = interaction_test(matrix, theta, sick, **options)
    # checks, and the layout by genes
    assert matrix.readings == 2
    assert_same(found, interaction_test(bulk, theta, sick, **options))


def test_samples_that_are_left_out_are_not_tested(cohort):
    bulk, _, theta, sick = cohort
    known = sick.astype(float)
    known[[3, 8]] = np.nan
    found = interaction_test(by_rows(bulk), theta, known, missing="drop")
    assert_same(found, interaction_test(bulk, theta, known, missing="drop"))


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize(
    "options",
    [{"n_factors": 2}, {"robust": False}, {"levels": [1, 0], "covariates": np.arange(40.0) % 7}],
    ids=lambda options: " ".join(options),
)
def test_log_fold_change_test_takes_rows(cohort, options, rows):
    bulk, reference, theta, sick = cohort
    options = {"reference": reference, "n_permutations": 9, **options}
    matrix = by_rows(bulk, rows)
    found = log_fold_change_test(matrix, theta, sick, **options)
    # checks, depth, and the layout by genes
    assert matrix.readings == 3
    assert_same(found, log_fold_change_test(bulk, theta, sick, **options))


def test_log_fold_change_test_without_the_products_of_samples(cohort, monkeypatch):
    """A cohort with a hidden factor, as if it had too many samples for their products with each other."""
    bulk, reference, theta, sick = cohort
    rng = np.random.default_rng(1)
    bulk = bulk * 2 ** (rng.normal(size=(40, 1)) * rng.normal(size=40))
    options = {"reference": reference, "n_permutations": 9, "n_factors": 2}
    expected = log_fold_change_test(bulk, theta, sick, **options)
    without = log_fold_change_test(bulk, theta, sick, **options | {"n_factors": 0})
    assert np.abs(found_effects(expected) - found_effects(without)).max() > 0.01  # there is one
    monkeypatch.setattr(hidden, "MOST_PRODUCTS", 0)
    assert_same(log_fold_change_test(by_rows(bulk), theta, sick, **options), expected)
    assert_same(log_fold_change_test(bulk, theta, sick, **options), expected)


def found_effects(table):
    return table.set_index(["cell_type", "gene"]).effect.sort_index()


@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "row '9', column 'x5'"), (0.0, r"no counts in sample 9")]
)
def test_samples_without_fold_changes_are_named(cohort, value, message):
    bulk, reference, theta, sick = cohort
    bulk = bulk.copy()
    bulk[9, 5 if value else slice(None)] = value
    for given in (bulk, by_rows(bulk, 1)):
        with pytest.raises(ValueError, match=message):
            log_fold_change_test(given, theta, sick, reference=reference)


def test_factor_test_takes_rows_where_they_fit(cohort, monkeypatch):
    bulk, reference, theta, sick = cohort
    centred = bulk - theta @ reference
    found = factor_test(by_rows(centred), theta, sick, reference=0 * reference)
    assert_same(found, factor_test(centred, theta, sick, reference=0 * reference))
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**10)
    with pytest.raises(MemoryError, match="method='interaction' takes a bulk of any size"):
        factor_test(by_rows(centred), theta, sick, reference=0 * reference)


def test_a_value_that_is_missing_is_named_by_sample_and_gene(cohort):
    bulk, _, theta, sick = cohort
    wrong = bulk.copy()
    wrong[22, 4] = np.nan
    with pytest.raises(ValueError, match=r"bulk contains NaN in 1 place\(s\)") as error:
        interaction_test(by_rows(wrong), theta, sick)
    assert "row 22, column" in str(error.value)


def test_a_fitted_model_is_tested_on_the_rows_of_its_fit(cohort):
    bulk, reference, _, sick = cohort
    expected = differential_expression(EmpiricalBayesDeconvolver(reference).fit(bulk), sick, X=bulk)
    matrix = by_rows(bulk)
    model = EmpiricalBayesDeconvolver(reference, materialize=False).fit(matrix)
    assert_same(differential_expression(model, sick, X=matrix), expected)
    added = differential_expression(model, sick, X=matrix, significance_level=0.05)
    assert_same(added, differential_expression(model, sick, X=bulk, significance_level=0.05))
    with pytest.raises(ValueError, match="posterior mean"):
        differential_expression(model, sick, method="marginal")


def test_expression_by_rows_is_tested_like_that_of_a_bulk_in_memory(cohort):
    bulk, reference, theta, sick = cohort
    settings = {"renorm_size": None, "tao_k": "auto"}
    expected = L2MaxDeconvolver(reference, **settings).fit(bulk, proportions=theta)
    model = L2MaxDeconvolver(reference, materialize=False, **settings).fit(by_rows(bulk), proportions=theta)
    assert model.expression_.reads_rows
    assert not expected.expression_.reads_rows
    found = differential_expression(model, sick, method="marginal")
    assert_same(found, differential_expression(expected, sick, method="marginal"))
    assert_same(marginal_test(model.expression_, sick), marginal_test(expected.expression_, sick))


def test_expression_by_rows_is_built_for_a_strip_of_genes_at_a_time(monkeypatch):
    tensor, asked = np.random.default_rng(0).normal(size=(4, 3, 25)), []

    class Expression:
        shape = tensor.shape

        def values(self, genes):
            asked.append(genes)
            return tensor[:, :, genes]

    monkeypatch.setattr(_bulk, "STRIP", 4 * 3 * 10)
    strips = _bulk.Strips(Expression())
    for start in range(0, 25, 4):
        genes = slice(start, min(start + 4, 25))
        assert_array_equal(strips(genes), tensor[:, :, genes])
    # ten genes each, from the first that is not held
    assert asked == [slice(0, 10), slice(8, 18), slice(16, 25)]


def test_gene_significance_reads_the_rows_three_times(cohort):
    bulk, reference, theta, _ = cohort
    expected = gene_significance(bulk, theta, refine="auto", reference=reference)
    matrix = by_rows(bulk)
    assert_same(gene_significance(matrix, theta, refine="auto", reference=reference), expected)
    assert matrix.readings == 3
    orthonormal, _ = np.linalg.qr(theta)
    rest = bulk - orthonormal @ (orthonormal.T @ bulk)
    first = expected[expected.gene == "x0"].iloc[0]
    error = np.sqrt((rest[:, 0] ** 2).sum() / 37 * np.linalg.inv(theta.T @ theta)[0, 0])
    assert_allclose(first.statistic, first.coefficient / error, rtol=1e-10)
