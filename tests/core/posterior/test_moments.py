"""Posterior of a cohort that is read by blocks of rows: the same as from held deviations, in two readings."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skenigma.core.blocks import each_block
from skenigma.core.posterior import fit as fit_module
from skenigma.core.posterior.directions import Directions
from skenigma.core.posterior.fit import fit_posterior
from skenigma.core.posterior.moments import forward, gather_moments, random_groups

# Sums of a few hundred terms in another order.
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}
FITTED = [
    "bulk_mean",
    "expected_mean",
    "scale",
    "varies",
    "effects",
    "delta2",
    "composition",
    "threshold",
    "share",
    "ratio",
    "spread",
    "gene_spread",
    "belonging",
    "degrees",
    "offset",
    "removed_variance",
]


class ByRows:
    """A matrix that is not in memory, and counts its readings."""

    def __init__(self, values, block_rows):
        self.values, self.block_rows, self.n_rows = values, block_rows, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        found = self.values[rows].copy()
        self.n_rows += len(found)
        return found

    def blocks(self):
        for start in range(0, len(self), self.block_rows):
            rows = slice(start, min(start + self.block_rows, len(self)))
            yield rows, self[rows]

    @property
    def readings(self):
        return self.n_rows / len(self)


@pytest.fixture(scope="module")
def cohort():
    """Counts with three hidden directions and the effects of two covariates; one gene is constant, one is 0."""
    rng = np.random.default_rng(0)
    n, n_types, n_genes = 90, 3, 120
    reference = rng.gamma(0.7, 80.0, (n_types, n_genes))
    theta = rng.dirichlet(np.full(n_types, 4.0), n)
    design = np.column_stack([rng.integers(0, 2, n), rng.normal(size=n)])
    hidden = rng.normal(size=(n, 3)) @ rng.normal(0, 0.5, (3, n_genes)) + design @ rng.normal(
        0, 0.3, (2, n_genes)
    )
    bulk = theta @ reference * np.exp2(hidden + rng.normal(0, 0.5, n_genes))
    bulk[:, 0], bulk[:, 1] = 7.0, 0.0
    reference[:, 0], reference[:, 1] = 9.0, 0.0
    return bulk, reference, theta, design


def assert_same(found, expected, **tolerance):
    for name in FITTED:
        assert_allclose(getattr(found, name), getattr(expected, name), err_msg=name, **tolerance)


def test_blocks_cover_the_rows_in_order_whatever_their_size():
    values = np.arange(35.0).reshape(7, 5)
    for matrix in (values, values.astype(np.float32), ByRows(values, 3)):
        for size in (1, 10, 100):
            rows, blocks = zip(*each_block(matrix, size), strict=True)
            assert_allclose(np.concatenate(blocks), values)
            assert np.concatenate([np.arange(7)[some] for some in rows]).tolist() == list(range(7))
            assert all(block.dtype == np.float64 for block in blocks)


@pytest.mark.parametrize("composition", [0.0, 0.4, 1.0])
def test_moments_are_those_of_the_deviations(cohort, composition):
    bulk, reference, theta, design = cohort
    centred = design - design.mean(axis=0)
    inverse = np.linalg.pinv(centred)
    found = gather_moments(ByRows(bulk, 7), reference, theta, inverse)
    y, m = forward(bulk), forward(theta @ reference)
    assert_allclose(found.bulk_mean, y.mean(axis=0), **ROUNDING)
    assert_allclose(found.expected_mean, m.mean(axis=0), **ROUNDING)
    y, m = y - y.mean(axis=0), m - m.mean(axis=0)
    e = y - composition * m
    assert_allclose(found.product, (y * m).sum(axis=0), **ROUNDING)
    assert_allclose(found.squares(composition), (e**2).sum(axis=0), **ROUNDING)
    assert_allclose(found.effects(composition), inverse @ e, **ROUNDING)
    group, sign = random_groups(len(bulk))
    sums = [sign[group == number] @ e[group == number] for number in range(len(found.bulk_groups))]
    assert_allclose(found.groups(composition), sums, **ROUNDING)


def test_nothing_is_left_of_an_exact_mixture_whose_composition_is_all_subtracted(cohort):
    _, reference, theta, _ = cohort
    found = gather_moments(theta @ reference, reference, theta, np.empty((0, len(theta))))
    assert found.squares(1.0).max() == 0.0


@pytest.mark.parametrize("covariates", [False, True])
def test_posterior_is_that_of_held_deviations_where_groups_span_them(cohort, covariates, monkeypatch):
    bulk, reference, theta, design = cohort
    # three hidden directions, two covariates and the composition: groups of 90 samples span them
    design = design if covariates else None
    expected, rows = fit_posterior(bulk, reference, theta, design=design)
    monkeypatch.setattr(fit_module, "LARGEST_GRAM", 10)
    found, again = fit_posterior(bulk, reference, theta, design=design)
    assert not found.varies[:2].any()
    assert len(found.directions.shares) == len(expected.directions.shares) > 0
    assert_allclose(np.sort(found.directions.shares), np.sort(expected.directions.shares), **ROUNDING)
    assert_same(found, expected, rtol=1e-9, atol=1e-11)
    assert_allclose(again.noise, rows.noise, rtol=1e-8)
    assert_allclose(found.expand(again), expected.expand(rows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("largest_held", [10, 1000])
def test_a_cohort_by_rows_is_fitted_as_in_memory_whatever_its_blocks(cohort, largest_held, monkeypatch):
    bulk, reference, theta, design = cohort
    monkeypatch.setattr(fit_module, "LARGEST_GRAM", largest_held)
    expected, rows = fit_posterior(bulk, reference, theta, design=design)
    for block_rows in (1, 7, 90):
        matrix = ByRows(bulk, block_rows)
        found, none = fit_posterior(matrix, reference, theta, design=design)
        assert none is None
        assert matrix.readings == (2.0 if largest_held == 10 else 1.0)
        assert_same(found, expected, **ROUNDING)
        some = slice(20, 25)
        new = found.with_noise(found.rows(bulk[some], theta[some], design[some]))
        assert_allclose(found.expand(new), expected.expand(rows[some]), **ROUNDING)
        assert_allclose(found.deviations(new), expected.deviations(rows[some]), rtol=1e-9)


def test_no_direction_is_sought_where_the_threshold_keeps_all(cohort, monkeypatch):
    bulk, reference, theta, _ = cohort
    monkeypatch.setattr(fit_module, "LARGEST_GRAM", 10)
    matrix = ByRows(bulk, 9)
    settings = fit_module.Settings(threshold=np.inf)
    found, _ = fit_posterior(matrix, reference, theta, settings=settings)
    assert (len(found.directions.shares), found.directions.signal, matrix.readings) == (0, 1.0, 1.0)


def test_directions_by_blocks_are_near_those_of_the_whole_decomposition():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 300)) + 2 * rng.normal(size=(400, 3)) @ rng.normal(size=(3, 300))
    z -= z.mean(axis=0)
    z /= z.std(axis=0, ddof=1)
    expected = Directions.fit(z, 0.5)
    group, sign = random_groups(len(z))
    # fewer groups than samples and genes
    groups = np.zeros((60, 300))
    np.add.at(groups, group % 60, sign[:, None] * z)
    found = Directions.of_blocks(lambda: np.array_split(z, 11), groups, (z**2).sum(), len(z), 0.5)
    # the first left out is below a tenth of the least of these: its fourth power enters
    assert_allclose(found.shares, expected.shares, rtol=1e-3)
    assert_allclose(found.loadings @ found.loadings.T, np.eye(3), atol=1e-10)
    kept = expected.keep(z, expected.coordinates(z))
    assert np.sqrt(np.mean((found.keep(z, found.coordinates(z)) - kept) ** 2)) < 0.01
