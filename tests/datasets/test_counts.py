"""Simulated counts: the recipe, what its truth means, and what is refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.datasets import make_counts

SMALL = {"n_samples": 12, "n_genes": 400, "n_cell_types": 4, "n_cells": 80}


@pytest.fixture(scope="module")
def cohort():
    return make_counts(**SMALL, n_changed=50, changed_types=2, random_state=0)


def test_shapes_and_names(cohort):
    assert cohort.bulk.shape == (12, 400)
    assert cohort.cells.shape == (80, 400)
    assert cohort.cse.shape == (12, 4, 400)
    assert list(cohort.changed.index) == list(cohort.proportions.columns) == list(cohort.cell_types)
    assert set(cohort.labels) == set(cohort.cell_types)
    assert cohort.labels.value_counts().min() >= 10
    assert cohort.phenotype.sum() == 6
    assert "12, genes 400" in cohort.DESCR


def test_counts_are_the_mixture(cohort):
    assert cohort.bulk.to_numpy().dtype.kind == cohort.cells.to_numpy().dtype.kind == "i"
    assert_allclose(cohort.proportions.sum(axis=1), 1)
    assert_allclose(cohort.cse.sum(axis=2), 1e6)
    totals = cohort.bulk.sum(axis=1)
    assert totals.between(1.8e6, 1.1e7).all()
    mixture = np.einsum("jk,jkg->jg", cohort.proportions, cohort.cse)
    shares = cohort.bulk.to_numpy() / totals.to_numpy()[:, None] * 1e6
    high = mixture > 1000
    # gamma of shape 100: a deviation of a tenth, of which 6 are more than a thousand entries show
    assert_allclose(shares[high], mixture[high], rtol=0.6)
    assert np.std(np.log(shares[high] / mixture[high])) == pytest.approx(0.1, abs=0.02)


def test_changed_genes(cohort):
    changed = cohort.changed.to_numpy()
    assert_array_equal((changed != 0).sum(axis=1), [50, 50, 0, 0])
    assert_allclose(np.abs(changed[changed != 0]), np.log2(3))
    logs = np.log2(cohort.cse)
    cases = cohort.phenotype.to_numpy() == 1
    found = logs[cases].mean(axis=0) - logs[~cases].mean(axis=0)
    # six donors a side, whose logarithms vary by 0.4 to 1
    assert found[changed > 0].mean() - found[changed < 0].mean() == pytest.approx(2 * np.log2(3), abs=0.3)
    assert abs(found[2:].mean()) < 0.2


def test_platform():
    same = make_counts(**SMALL, platform=0.0, n_changed=0, random_state=1)
    other = make_counts(**SMALL, platform=2.0, n_changed=0, random_state=1)

    def distance(cohort):
        """Between bulk and cells of the first cell type."""
        cells = cohort.cells[cohort.labels == cohort.cell_types[0]].sum() + 1
        return np.std(np.log(cohort.cse[:, 0].mean(axis=0)) - np.log(cells))

    assert distance(other) > 1.5 * distance(same)


def test_random_state():
    one, again = make_counts(**SMALL, random_state=3), make_counts(**SMALL, random_state=3)
    assert_array_equal(one.bulk, again.bulk)
    assert (make_counts(**SMALL, random_state=4).bulk != one.bulk).to_numpy().any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_samples": 1}, "n_samples must be at least 2"),
        ({"n_genes": 100}, "n_genes must be at least 160"),
        ({"n_cells": 30}, "n_cells must be at least 40"),
        ({"n_changed": 500}, "n_changed must be at most 400"),
        ({"changed_types": 5}, "changed_types must be at most 4"),
    ],
)
def test_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_counts(**(SMALL | wrong))
