"""ComBat on arrays, against R's recorded outputs and against the model it stands on."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.regress.combat import combat

N_BULK = 40


def corrected(batches, **options):
    """Every batch through its map."""
    slope, intercept = combat(batches, **options)
    return [a * batch + b for a, b, batch in zip(slope, intercept, batches, strict=True)]


def pooled(batches):
    """Sizes of the batches, mean of all samples, and standard deviation within batches."""
    n = np.array([len(batch) for batch in batches])
    squares = sum(((batch - batch.mean(axis=0)) ** 2).sum(axis=0) for batch in batches)
    return n, np.concatenate(batches).mean(axis=0), np.sqrt(squares / n.sum())


def drawn(rng, n, location, scale):
    return location + scale * rng.normal(size=(n, len(location)))


@pytest.fixture
def batches():
    rng = np.random.default_rng(3)
    location, scale = rng.normal(6, 2, 300), rng.uniform(0.3, 2, 300)
    shift = rng.normal(0.5, 1, 300)
    return [
        drawn(rng, 30, location, scale),
        drawn(rng, 20, location + scale * shift, scale * rng.uniform(0.7, 1.5, 300)),
    ]


@pytest.fixture(params=["bmode", "smode"])
def recorded(request, package):
    before, after = (
        package.table(f"outputs/{request.param}_combat_{part}_log2.csv.gz").to_numpy().T
        for part in ("input", "output")
    )
    return before, after


class TestAgainstR:
    def test_defaults(self, recorded):
        before, after = recorded
        found = np.vstack(corrected([before[:N_BULK], before[N_BULK:]]))
        assert_allclose(found, after, rtol=0, atol=1e-12)  # rounding; R's own moves by 1e-14

    def test_exact_estimates_are_within_the_stopping_rule(self, recorded):
        before, after = recorded
        found = np.vstack(corrected([before[:N_BULK], before[N_BULK:]], tol=1e-13))
        difference = np.abs(found - after).max()
        assert 1e-9 < difference < 1e-6

    def test_order_of_batches(self, recorded):
        before, _ = recorded
        bulk, other = corrected([before[:N_BULK], before[N_BULK:]])
        swapped = corrected([before[N_BULK:], before[:N_BULK]])
        assert_allclose(swapped[1], bulk, rtol=1e-13)  # sums in another order
        assert_allclose(swapped[0], other, rtol=1e-13)


class TestShrinkage:
    """The estimates solve the two conditions of the model, for each batch by itself."""

    def test_fixed_point(self, batches):
        slope, intercept = combat(batches, tol=1e-13)
        n, location, scale = pooled(batches)
        for i, batch in enumerate(batches):
            delta = slope[i] ** -2
            gamma = (location - intercept[i] - slope[i] * location) / (slope[i] * scale)
            z = (batch - location) / scale
            own, spread = z.mean(axis=0), z.var(axis=0, ddof=1)
            precision = n[i] / delta + 1 / own.var(ddof=1)
            expected = (n[i] * own / delta + own.mean() / own.var(ddof=1)) / precision
            assert_allclose(
                gamma, expected, rtol=1e-9, atol=1e-11
            )  # tol, and what is lost by undoing the map
            a = spread.mean() ** 2 / spread.var(ddof=1) + 2
            b = spread.mean() * (a - 1)
            expected = (b + ((z - gamma) ** 2).sum(axis=0) / 2) / (n[i] / 2 + a - 1)
            assert_allclose(delta, expected, rtol=1e-9)

    def test_many_samples_leave_no_difference(self):
        rng = np.random.default_rng(0)
        location, scale = rng.normal(size=(2, 50))
        batches = [drawn(rng, 4000, location, 1.0), drawn(rng, 4000, location + 2 * scale, np.exp(scale / 4))]
        first, second = corrected(batches)
        assert_allclose(first.mean(axis=0), second.mean(axis=0), atol=0.02)  # shrinkage by 1 / 4000
        assert_allclose(first.std(axis=0), second.std(axis=0), rtol=0.03)

    def test_without_batch_effect_little_moves(self):
        rng = np.random.default_rng(1)
        batches = [rng.normal(size=(30, 400)), rng.normal(size=(30, 400))]
        plain = [b - b.mean(axis=0) + np.concatenate(batches).mean(axis=0) for b in batches]
        moved = np.abs(np.array(corrected(batches)) - batches).mean()
        assert moved < 0.5 * np.abs(np.array(plain) - batches).mean()

    def test_one_gene_has_nothing_to_shrink_to(self):
        batches = [np.array([[1.0], [2.0], [3.0]]), np.array([[11.0], [13.0], [15.0]])]
        first, second = corrected(batches)
        assert_allclose(first.mean(), 7.5)
        assert_allclose(second.mean(), 7.5)
        assert_allclose(first.std(), second.std())

    def test_genes_of_one_mind(self):
        """All genes shifted and scaled alike: the priors have no width, and nothing is divided by it."""
        values = np.random.default_rng(2).normal(size=(20, 1))
        batches = [np.repeat(values, 5, axis=1), np.repeat(3 * values + 2, 5, axis=1)]
        first, second = corrected(batches)
        assert_allclose(first, second)


class TestAnchor:
    def test_anchor_stays_and_the_other_comes_to_it(self, batches):
        slope, intercept = combat(batches, anchor=1)
        assert_array_equal(slope[1], 1.0)
        assert_array_equal(intercept[1], 0.0)
        moved = slope[0] * batches[0] + intercept[0]
        assert np.abs(moved.mean(axis=0) - batches[1].mean(axis=0)).mean() < 0.1
        assert np.abs(batches[0].mean(axis=0) - batches[1].mean(axis=0)).mean() > 1.0

    def test_mean_only_keeps_the_spread(self, batches):
        slope, intercept = combat(batches, mean_only=True)
        assert_array_equal(slope, 1.0)
        _, location, scale = pooled(batches)
        for i, batch in enumerate(batches):
            own = (batch.mean(axis=0) - location) / scale
            prior = 1 / own.var(ddof=1)
            gamma = (len(batch) * own + prior * own.mean()) / (len(batch) + prior)
            assert_allclose(intercept[i], -scale * gamma, rtol=1e-12, atol=1e-13)  # rounding


class TestConstantGenes:
    def test_keep_their_values_and_do_not_disturb_the_others(self, batches):
        expected = corrected([batch[:, 3:] for batch in batches])
        spoilt = [batch.copy() for batch in batches]
        spoilt[0][:, 0] = 0.0  # not seen in the first batch
        spoilt[1][:, 1] = 7.3  # flat but for rounding in the second
        spoilt[1][::2, 1] = np.nextafter(7.3, 8)
        spoilt[0][:, 2] = spoilt[1][:, 2] = 0.0
        found = corrected(spoilt)
        for batch, before, others in zip(found, spoilt, expected, strict=True):
            assert_array_equal(batch[:, :3], before[:, :3])
            assert_array_equal(batch[:, 3:], others)

    def test_all_constant(self):
        slope, intercept = combat([np.zeros((3, 2)), np.ones((4, 2))])
        assert_array_equal(slope, 1.0)
        assert_array_equal(intercept, 0.0)

    def test_float32_rounding_is_known(self, batches):
        spoilt = [batch.astype(np.float32) for batch in batches]
        spoilt[1][:, 1] = 7.3
        spoilt[1][::2, 1] = np.nextafter(np.float32(7.3), np.float32(8))
        slope, _ = combat(spoilt)
        assert_array_equal(slope[:, 1], 1.0)


def test_three_batches(batches):
    rng = np.random.default_rng(4)
    third = drawn(rng, 25, batches[0].mean(axis=0) - 3, batches[0].std(axis=0))
    found = corrected([*batches, third])
    means = np.array([batch.mean(axis=0) for batch in found])
    assert np.ptp(means, axis=0).mean() < 0.3


class TestBadInput:
    def test_one_sample(self):
        with pytest.raises(ValueError, match=r"at least two samples; they have \[3, 1\]"):
            combat([np.zeros((3, 2)), np.zeros((1, 2))])

    def test_widths(self):
        with pytest.raises(ValueError, match=r"same genes.*\(3, 2\), \(3, 4\)"):
            combat([np.zeros((3, 2)), np.zeros((3, 4))])
