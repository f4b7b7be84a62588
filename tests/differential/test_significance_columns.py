"""Columns of the gene-significance test in the table of changed genes, as in version 0.1.6 of the R package."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

from skenigma import L2MaxDeconvolver
from skenigma.differential import differential_expression
from skenigma.reliability import gene_significance

GENES = [f"g{i}" for i in range(40)]


@pytest.fixture(scope="module", params=[False, True], ids=["profiles differ", "profiles alike"])
def fitted(request):
    rng = np.random.default_rng(0)
    reference = pd.DataFrame(rng.gamma(0.5, 20.0, (3, 40)), ["a", "b", "c"], GENES)
    if request.param:
        reference.loc["b"] = reference.loc["a"] * np.exp(0.05 * rng.standard_normal(40))
    theta = pd.DataFrame(rng.dirichlet([2.0] * 3, 24), columns=reference.index)
    bulk = theta @ reference * np.exp(0.3 * rng.standard_normal((24, 40)))
    options = {"renorm_size": None, "epsilon": 1e30, "positive": True}  # any expression will do
    return L2MaxDeconvolver(reference, **options).fit(bulk, proportions=theta), bulk, np.repeat([0, 1], 12)


@pytest.mark.parametrize("method", ["marginal", "interaction"])
def test_columns_and_order(fitted, method):
    model, bulk, phenotype = fitted
    plain = differential_expression(model, phenotype, method=method, X=bulk)
    table = differential_expression(model, phenotype, method=method, X=bulk, significance_level=0.05)
    names = ["cell_type", "gene"]
    assert table.columns.tolist() == [*plain.columns, "significant", "significance"]
    together = table[plain.columns].sort_values(names, ignore_index=True)
    assert_frame_equal(together, plain.sort_values(names, ignore_index=True))
    shares = pd.DataFrame(model.proportions_, columns=model.cell_types_)
    tested = gene_significance(bulk, shares, refine="auto", reference=model.reference_)
    expected = tested.assign(significance=tested.get("score", tested["q_value"]))
    expected = expected[[*names, "significant", "significance"]]
    assert_frame_equal(table[names].merge(expected), table[expected.columns])
    n_significant = int(table["significant"].sum())
    assert 0 < n_significant < len(table)
    assert_array_equal(table["significant"], np.arange(len(table)) < n_significant)
    for part in (table[:n_significant], table[n_significant:]):
        assert part["q_value"].is_monotonic_increasing


def test_level_is_that_of_the_calls(fitted):
    model, bulk, phenotype = fitted
    table = differential_expression(model, phenotype, method="marginal", X=bulk, significance_level=1e-4)
    assert (table["significance"][table["significant"]] < 1e-4).all()


def test_a_level_is_a_probability(fitted):
    model, bulk, phenotype = fitted
    with pytest.raises(ValueError, match="significance_level == 5"):
        differential_expression(model, phenotype, method="marginal", X=bulk, significance_level=5)


def test_the_bulk_is_needed(fitted):
    model, _, phenotype = fitted
    with pytest.raises(ValueError, match="significance_level tests the bulk"):
        differential_expression(model, phenotype, method="marginal", significance_level=0.05)
