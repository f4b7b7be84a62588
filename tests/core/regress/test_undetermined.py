"""What the data leave open between cell types, against the splits that fit as well."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.regress import undetermined
from skenigma.core.regress.log_scale import log_scale_model, log_scale_regression
from skenigma.core.regress.log_scale_errors import share_errors
from skenigma.core.regress.undetermined import attainable_spread, undetermined_groups


@pytest.fixture(scope="module")
def profiles():
    return np.exp(np.random.default_rng(0).normal(2, 1, (5, 400)))


@pytest.fixture(scope="module")
def bulk(profiles):
    rng = np.random.default_rng(2)
    return rng.dirichlet(np.ones(5), 6) @ profiles * np.exp(0.2 * rng.normal(size=(6, 400)))


def information(profiles):
    return np.stack([profiles @ profiles.T, (profiles * profiles.mean(axis=0)) @ profiles.T])


def together(groups):
    return [np.flatnonzero(row).tolist() for row in groups[0]]


class TestGroups:
    def test_distinct_profiles_have_none(self, profiles):
        assert not undetermined_groups(information(profiles)).any()

    def test_copies_of_any_scale(self, profiles):
        """Two pairs at once, one of them a hundred times larger than the other."""
        profiles = profiles[[0, 1, 0, 2, 1]] * np.array([1, 1, 100, 1, 1])[:, None]
        groups = undetermined_groups(information(profiles))
        assert together(groups) == [[0, 2], [1, 4], [0, 2], [], [1, 4]]
        assert_array_equal(groups[0], groups[1])

    def test_nearly_the_same(self, profiles):
        near = profiles.copy()
        near[1] = near[0] * np.exp(0.003 * np.random.default_rng(1).normal(size=400))
        assert together(undetermined_groups(information(near))) == [[0, 1], [0, 1], [], [], []]

    def test_a_type_that_is_a_mixture_of_others(self, profiles):
        mixed = np.vstack([profiles, profiles[1] + profiles[3]])
        open_ways = [1, 3, 5]
        expected = [open_ways if k in open_ways else [] for k in range(6)]
        assert together(undetermined_groups(information(mixed))) == expected

    def test_no_information(self):
        assert not undetermined_groups(np.zeros((1, 3, 3))).any()

    def test_a_type_without_information_beside_copies(self, profiles):
        profiles = profiles[[0, 1, 0, 2]] * np.array([1, 0, 1, 1])[:, None]
        assert together(undetermined_groups(information(profiles))) == [[0, 2], [], [0, 2], []]

    def test_who_is_replaced_by_way_of_others(self):
        """Of four types along two ways the first two share none, and each shares one with the last two."""
        ways = np.array([[1, 0], [0, 1], [1, 1], [1, -1]]) / np.sqrt([1, 1, 2, 2])[:, None]
        assert undetermined_groups((ways @ ways.T)[None]).all()


class TestSpread:
    def test_is_the_mean_squared_distance_of_uniform_splits(self):
        """Two types of one profile: shares of 0 to .6, of which the estimate has .2, and the others keep theirs."""
        groups = np.zeros((1, 3, 3), dtype=bool)
        groups[0, :2, :2] = True
        found = attainable_spread(np.array([[0.2, 0.4, 0.4]]) * 7, np.ones(3), groups)
        splits = (np.arange(6000) + 0.5) / 10000
        expected = [np.mean((splits - 0.2) ** 2), np.mean((splits - 0.4) ** 2), 0]
        assert_allclose(found[0], expected, rtol=1e-6, atol=1e-15)  # a sum over 6,000 steps

    def test_totals_change_the_sum_of_all(self):
        """One unit of the first is three of the second: between them, from 1 to 3 of a sum with 1 of another."""
        groups = np.zeros((1, 3, 3), dtype=bool)
        groups[0, :2, :2] = True
        found = attainable_spread(np.array([[1.0, 0.0, 1.0]]), np.array([3.0, 1.0, 2.0]), groups)[0]
        for k, (low, high, estimate) in enumerate([(0, 1 / 2, 1 / 2), (0, 3 / 4, 0), (1 / 4, 1 / 2, 1 / 2)]):
            expected = (high - low) ** 2 / 12 + ((high + low) / 2 - estimate) ** 2
            assert_allclose(found[k], expected, rtol=1e-12)


class TestErrors:
    def test_a_mixture_of_two_covers_every_split(self, profiles, bulk):
        """The last is the sum of the first two: it may have all of what these have in common, or nothing."""
        mixed = np.vstack([profiles, profiles[0] + profiles[1]])
        model = log_scale_model(mixed, 0.01)
        found = log_scale_regression(model, bulk).coefficients
        reach = 2 * share_errors(model, bulk, found)
        shares = found / found.sum(axis=1, keepdims=True)
        both = np.minimum(found[:, 0], found[:, 1])  # what of the two goes into the sum
        for there in (np.zeros(6), found[:, 5] + both):
            rest = found.sum(axis=1) + found[:, 5] - there
            assert (np.abs(there / rest - shares[:, 5]) <= reach[:, 5]).all()

    def test_of_distinct_profiles_are_those_without(self, profiles, bulk, monkeypatch):
        model = log_scale_model(profiles, 0.01)
        found = log_scale_regression(model, bulk).coefficients
        errors = share_errors(model, bulk, found)
        monkeypatch.setattr(undetermined, "DETERMINED", -1.0)
        assert_array_equal(errors, share_errors(model, bulk, found))

    def test_two_copies_cover_every_split(self, profiles, bulk):
        """From nothing to all of their sum, in shares of cells of different content as well."""
        model = log_scale_model(profiles[[0, 1, 2, 3, 4, 0]], 0.01)
        found = log_scale_regression(model, bulk).coefficients
        for factors in (np.ones(6), np.array([1, 1, 1, 1, 1, 4.0])):
            reach = 2 * share_errors(model, bulk, found, factors)
            units = found * factors
            estimate = units / units.sum(axis=1, keepdims=True)
            for share in (0.0, 0.3, 1.0):
                split = found.copy()
                split[:, 0] = share * found[:, [0, 5]].sum(axis=1)
                split[:, 5] = (1 - share) * found[:, [0, 5]].sum(axis=1)
                split = split * factors
                split /= split.sum(axis=1, keepdims=True)
                assert (np.abs(split - estimate) <= reach)[:, [0, 5]].all()
