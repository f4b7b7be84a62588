"""Stages of the posterior on the log scale: each by its formula, by planted truth, and by recorded figures."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from skenigma.core.posterior.directions import Directions, gain
from skenigma.core.posterior.fit import composition_weight, fit_posterior, half_share, mismatch
from skenigma.core.posterior.model import Settings, forward
from skenigma.core.posterior.variances import fit_components, shares

# Sums of a few thousand terms in another order.
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}


def mixtures(
    n=40, n_types=3, n_genes=600, seed=0, spread=0.3, common=0.1, noise=0.05, hidden=0.0, platform=0.0
):
    """Bulk, reference, proportions and truth, from the model itself."""
    rng = np.random.default_rng(seed)
    reference = rng.gamma(0.7, 80.0, (n_types, n_genes))
    theta = rng.dirichlet(np.full(n_types, 4.0), n)
    own = rng.normal(0, spread, (n, n_types, n_genes)) + rng.normal(0, common, (n, 1, n_genes))
    truth = np.maximum((reference + 1) * np.exp2(own) - 1, 0)
    factor = rng.normal(0, hidden, (n, 1)) * rng.normal(0, 1, n_genes) + platform * rng.normal(0, 1, n_genes)
    factor = factor + rng.normal(0, noise, (n, n_genes))
    bulk = np.maximum((np.einsum("jk,jkg->jg", theta, truth) + 1) * np.exp2(factor) - 1, 0)
    return bulk, reference, theta, truth


# Leading directions


def scaled_deviations(n, n_genes, strength, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, n_genes)) + strength * rng.normal(size=(n, 1)) * rng.normal(size=n_genes)
    values -= values.mean(axis=0)
    return values / values.std(axis=0, ddof=1)


def test_gains_and_kept_part_are_those_of_the_whole_decomposition():
    z, threshold = scaled_deviations(20, 300, 1.5), 0.08
    found = Directions.fit(z, threshold)
    left, lengths, right = np.linalg.svd(z, full_matrices=False)
    share = lengths[:19] ** 2 / (lengths**2).sum()
    pi = 1 / (1 + share / threshold)
    assert_allclose(found.signal, pi @ share, **ROUNDING)
    assert_allclose(found.explained, pi**2 @ share, **ROUNDING)
    kept = (left[:, :19] * lengths[:19] * pi) @ right[:19]
    assert_allclose(found.keep(z, found.coordinates(z)), kept, **ROUNDING)
    new = np.random.default_rng(1).normal(size=(2, 300))  # what lies along no direction is a row's own
    expected = new - ((new @ right[:19].T) * (1 - pi)) @ right[:19]
    assert_allclose(found.keep(new, found.coordinates(new)), expected, **ROUNDING)


def test_half_of_a_direction_is_kept_at_the_threshold():
    assert gain(0.05, 0.05) == 0.5
    assert_allclose(half_share(0.41), 0.05)
    assert_allclose(half_share(0.82), 0.05 / 4)


def test_directions_far_below_the_threshold_are_not_computed_and_hardly_matter():
    z, threshold = scaled_deviations(60, 2000, 1.0), 0.4
    found = Directions.fit(z, threshold)
    assert len(found.shares) < 10
    left, lengths, right = np.linalg.svd(z, full_matrices=False)
    pi = gain(lengths**2 / (lengths**2).sum(), threshold)
    kept = (left * lengths * pi) @ right
    difference = found.keep(z, found.coordinates(z)) - kept
    # gains of what is not computed lie between 1/(1 + 0.05) and 1, and one stands for all
    assert np.abs(difference).max() < 0.05 * np.abs(z).max()
    assert np.sqrt((difference**2).mean()) < 0.005
    assert_allclose(found.signal, pi @ lengths**2 / (lengths**2).sum(), rtol=1e-3)


def test_where_nothing_varies_everything_is_kept():
    found = Directions.fit(np.zeros((5, 7)), 0.05)
    assert found.loadings.shape == (0, 7)
    assert (found.signal, found.explained) == (1.0, 1.0)


# Composition


def test_composition_weight_is_a_weighted_slope_within_bounds():
    rng = np.random.default_rng(0)
    m = rng.normal(size=(30, 50))
    y = 0.4 * m + rng.normal(0, 0.1, (30, 50)) * rng.gamma(1, 1, 50)
    m, y = m - m.mean(axis=0), y - y.mean(axis=0)
    omega = 1 / (y.var(axis=0) + np.median(y.var(axis=0)))
    slope = (omega * y * m).sum() / (omega * m * m).sum()
    sums = (y**2).sum(axis=0), (m**2).sum(axis=0), (y * m).sum(axis=0)
    assert_allclose(composition_weight(*sums, 30, 0.0), slope, **ROUNDING)
    assert_allclose(composition_weight(*sums, 30, 0.41 * 9), 0.1, **ROUNDING)
    assert composition_weight(*sums[:2], -sums[2], 30, 0.0) == 0
    assert composition_weight(np.zeros(3), np.zeros(3), np.zeros(3), 5, 0.1) == 0


def test_mismatch_is_a_robust_variance():
    delta = np.random.default_rng(0).normal(1.0, 0.6, 20_000)
    delta[:200] += 30  # genes of a type that the reference lacks
    assert_allclose(mismatch(delta, np.zeros(20_000)), 0.36, rtol=0.05)  # ± 1 % of sampling, 1 % of outliers


# Variance components


def test_shares_sum_to_one_and_unknown_genes_are_shared_like_the_rna():
    found = shares(np.array([0.2, 0.8]), np.array([[3.0, 0.0, 0.0], [2.0, 1.0, 0.0]]))
    assert_allclose(found, [[0.6 / 2.2, 0, 0.2], [1.6 / 2.2, 1, 0.8]])


def test_planted_components_are_found():
    rng = np.random.default_rng(0)
    weights, level = rng.dirichlet(np.full(4, 0.3), 20_000).T, rng.uniform(1, 12, 20_000)
    total = np.array([0.2, 0.1, 0.3, 0.2])
    truth = 0.1 * 0.25 * total.sum() + 0.9 * (total[:, None] * weights**2).sum(axis=0) + 0.5 * 2**-level
    observed = truth * rng.chisquare(30, 20_000) / 30
    found = fit_components(observed, weights, level, 0.1)
    # pulled together by the ridge, by half of the distance to their mean at the most
    assert_allclose(found.total, total, atol=0.06)
    assert_array_equal(np.argsort(found.total)[[0, 3]], [1, 2])
    assert_allclose(found.noise, 0.5, rtol=0.1)
    assert_allclose(found.common, 0.1 * found.total.mean(), **ROUNDING)
    assert_allclose(found.own, 0.9 * found.total, **ROUNDING)
    assert_allclose(found.of_bulk(weights, level), truth, rtol=0.3)


def test_without_variance_there_are_no_components():
    found = fit_components(np.zeros(5), np.ones((1, 5)), np.ones(5), 0.1)
    assert_array_equal(found.prior, [0.0])


# Posterior


def by_entry(posterior, rows, j, k, g):
    """Mean and variance of one value, written out."""
    p, c = posterior, posterior.components
    theta, r = rows.proportions[j], p.reference[:, g]
    expected = theta @ r
    scaled = (
        forward(rows.bulk[j]) - p.bulk_mean - p.composition * (forward(theta @ p.reference) - p.expected_mean)
    ) / p.scale
    d = p.directions
    kept = d.tail_gain * scaled[g]
    for m in range(len(d.shares)):
        kept += (d.gains[m] - d.tail_gain) * d.loadings[m, g] * (d.loadings[m] @ scaled)
    own, removed = p.scale[g] * kept, p.scale[g] * (scaled[g] - kept)
    w = theta * r / expected
    q = c.common + (w**2 * c.own).sum()
    q += rows.noise[j] * c.noise * 2 ** -(p.bulk_mean[g] + np.log2(expected + 1) - p.expected_mean[g])
    kappa = p.share[k, g]
    psi = p.ratio[g]
    left = c.common + c.own[k] - 2 * kappa * psi * (c.common + w[k] * c.own[k]) + kappa**2 * psi * q
    h = np.sqrt(p.gene_spread[g])
    variance = h * left + p.belonging[k, g] * kappa**2 * removed**2
    exact = 1 / (1 + p.delta2 / 0.02)
    variance += h * c.noise / (r[k] + 1) * (1 + exact * (1 / theta[k] - 1))
    return np.log2(r[k] + 1) + kappa * own, variance


def test_mean_and_variance_are_those_of_the_formulas():
    bulk, reference, theta, _ = mixtures(n=12, n_genes=80, hidden=0.4)
    posterior, rows = fit_posterior(bulk, reference, theta)
    mean, variance, values = posterior.mean(rows), posterior.variance(rows), posterior.expand(rows)
    for j, k, g in [(0, 0, 0), (3, 2, 17), (11, 1, 79), (5, 0, 40)]:
        expected = by_entry(posterior, rows, j, k, g)
        assert_allclose((mean[j, k, g], variance[j, k, g]), expected, **ROUNDING)
        assert_allclose(values[j, k, g], max(2 ** expected[0] - 1, 0), rtol=1e-9, atol=1e-9)


def test_bounds_and_deviations_are_quantiles_on_the_scale_of_the_bulk():
    bulk, reference, theta, _ = mixtures(n=10, n_genes=50)
    posterior, rows = fit_posterior(bulk, reference, theta)
    mean, sd = posterior.mean(rows), np.sqrt(posterior.variance(rows))
    low, high = posterior.quantiles(rows, 0.8)
    # a t distribution of the posterior's variance
    t = stats.t(posterior.degrees, mean, sd * np.sqrt((posterior.degrees - 2) / posterior.degrees))
    assert_allclose(low, 2 ** t.ppf(0.1) - 1, **ROUNDING)
    assert_allclose(high, 2 ** t.ppf(0.9) - 1, **ROUNDING)
    assert_allclose(posterior.deviations(rows), (2 ** (mean + sd) - 2 ** (mean - sd)) / 2, **ROUNDING)


def test_share_and_spread_are_those_of_the_formulas():
    bulk, reference, theta, _ = mixtures(n=15, n_genes=200)
    p, _ = fit_posterior(bulk, reference, theta)
    c, w = p.components, shares(theta.mean(axis=0), reference)
    q = c.common + (c.own[:, None] * w**2).sum(axis=0) + c.noise * 2 ** -forward(bulk).mean(axis=0)
    assert_allclose(p.share, (c.common + w * c.own[:, None]) / q, **ROUNDING)
    assert_allclose(p.belonging, w**2 * c.own[:, None] / q, **ROUNDING)
    assert_allclose(p.gene_spread.mean(), 1, atol=0.15)  # moderated variances over fitted ones
    assert p.degrees.min() >= 2.5


def test_parts_and_rows_are_what_the_whole_has_there():
    bulk, reference, theta, _ = mixtures(n=20, n_genes=150, hidden=0.5)
    posterior, rows = fit_posterior(bulk, reference, theta)
    whole, variance = posterior.expand(rows), posterior.variance(rows)
    samples, types, genes = np.array([7, 2]), np.array([2, 0]), np.array([5, 140, 3])
    part = posterior.expand(rows[samples], types, genes)
    assert_allclose(part, whole[np.ix_(samples, types, genes)], **ROUNDING)
    assert_allclose(
        posterior.variance(rows[samples], types, genes), variance[np.ix_(samples, types, genes)], **ROUNDING
    )
    again = posterior.with_noise(posterior.rows(bulk[samples], theta[samples]))
    assert_allclose(posterior.expand(again), whole[samples], **ROUNDING)
    assert_allclose(posterior.variance(again), variance[samples], rtol=1e-8)


def test_bands_cover_what_the_model_draws():
    bulk, reference, theta, truth = mixtures(n=60, n_genes=3000, seed=3, spread=0.25, noise=0.1)
    posterior, rows = fit_posterior(bulk, reference, theta, settings=Settings(measured=False))
    deviation = np.sqrt(posterior.variance(rows) * (posterior.degrees - 2) / posterior.degrees)
    standard = np.abs(forward(truth) - posterior.mean(rows)) / deviation
    expressed = reference > 5  # the noise of a gene that is hardly there is cut off at zero
    for level in (0.5, 0.8, 0.95):
        covered = standard <= stats.t.ppf(0.5 + level / 2, posterior.degrees)
        # drawn with equal variances, of which the prior's spread and shared fraction know nothing
        assert_allclose(covered[:, expressed].mean(), level, atol=0.06)


def test_a_hidden_factor_costs_accuracy_and_is_removed():
    bulk, reference, theta, truth = mixtures(n=60, n_genes=1000, hidden=0.5, platform=0.6)
    posterior, rows = fit_posterior(bulk, reference, theta)
    whole, whole_rows = fit_posterior(bulk, reference, theta, settings=Settings(threshold=np.inf))
    means = posterior.mean(rows), whole.mean(whole_rows)
    error, largest = (np.sqrt(((forward(truth) - mean) ** 2).mean()) for mean in means)
    assert error < 0.8 * largest
    factor = np.linalg.svd(forward(bulk) - forward(bulk).mean(axis=0))[0][:, 0]
    along = (np.abs(factor @ own).sum() for own in (posterior.own(rows), whole.own(whole_rows)))
    assert next(along) < 0.4 * next(along)


def test_effects_of_protected_covariates_stay():
    rng = np.random.default_rng(0)
    bulk, reference, theta, _ = mixtures(n=40, n_genes=500, platform=0.6)
    case = np.repeat([0.0, 1.0], 20)
    effect = 1.5 * rng.normal(size=500)
    bulk = (bulk + 1) * np.exp2(case[:, None] * effect) - 1
    bulk = np.maximum(bulk, 0)
    slopes = []
    for design in (None, case[:, None]):
        posterior, rows = fit_posterior(bulk, reference, theta, design=design)
        own = posterior.own(rows)
        slopes.append(np.polyfit(effect, own[20:].mean(axis=0) - own[:20].mean(axis=0), 1)[0])
    assert slopes[0] < 0.7
    assert slopes[1] > 0.85
    again = posterior.rows(bulk[[3, 30]], theta[[3, 30]], design=case[[3, 30], None])
    assert_allclose(posterior.own(again), own[[3, 30]], **ROUNDING)


def test_the_level_of_the_platform_is_found_where_it_is_asked_for():
    bulk, reference, theta, truth = mixtures(n=40, n_genes=2000, platform=0.5)
    offset = np.median(forward(bulk) - forward(np.einsum("jk,jkg->jg", theta, truth)), axis=0)
    by_reference, _ = fit_posterior(bulk, reference, theta)
    assert not by_reference.offset.any()
    by_bulk, _ = fit_posterior(bulk, reference, theta, settings=Settings(on_platform=True))
    expressed = reference.mean(axis=0) > 20
    assert np.corrcoef(by_bulk.offset[expressed], offset[expressed])[0, 1] > 0.95
    assert (by_bulk.offset**2).mean() < 1.1 * (offset**2).mean()


def test_samples_with_fewer_reads_are_known_to_be_noisier():
    rng = np.random.default_rng(0)
    bulk, reference, theta, _ = mixtures(n=30, n_genes=3000, noise=0.0)
    depth = np.exp(rng.uniform(np.log(2e4), np.log(2e6), 30))
    counts = rng.poisson(bulk / bulk.sum(axis=1, keepdims=True) * depth[:, None])
    seen = counts / counts.sum(axis=1, keepdims=True) * bulk.sum(axis=1).mean()
    rows = fit_posterior(seen, reference, theta)[1]
    assert np.corrcoef(np.log(rows.noise), np.log(depth))[0, 1] < -0.95
    order = np.argsort(depth)
    variance = fit_posterior(seen, reference, theta, settings=Settings(measured=False))[0].variance(rows)
    assert variance[order[:10]].mean() > 1.02 * variance[order[-10:]].mean()


def test_a_sample_with_little_of_a_type_knows_less_of_it():
    bulk, reference, theta, _ = mixtures(n=40, n_types=2, n_genes=800, seed=1, platform=0.5)
    posterior, rows = fit_posterior(bulk, reference, theta, settings=Settings(measured=False))
    order = np.argsort(theta[:, 0])
    mostly = posterior.weights[0] > 0.5
    variance = posterior.variance(rows)[:, 0, mostly].mean(axis=1)
    assert variance[order[:10]].mean() > 1.1 * variance[order[-10:]].mean()


def test_donors_behind_the_reference_replace_the_prior():
    bulk, reference, theta, _ = mixtures(n=20, n_genes=100)
    known = np.full(reference.shape, 0.5)
    plain, rows = fit_posterior(bulk, reference, theta, settings=Settings(measured=False))
    told, _ = fit_posterior(
        bulk, reference, theta, settings=Settings(measured=False, variance=known, n_donors=4)
    )
    assert_array_equal(told.expand(rows), plain.expand(rows))
    unseen = np.sqrt(plain.gene_spread) * 0 + 0.5  # a gene of which the bulk says nothing has the prior
    assert_allclose(
        told.spread * told.components.prior[:, None], np.broadcast_to(unseen, reference.shape), **ROUNDING
    )
    assert (told.variance(rows) >= 0.5 / 4).all()


def test_reliability_is_the_correlation_over_samples():
    bulk, reference, theta, truth = mixtures(n=300, n_genes=400, seed=2, noise=0.02, platform=0.4)
    posterior, rows = fit_posterior(bulk, reference, theta, settings=Settings(measured=False))
    expected = posterior.reliability()
    own, true = posterior.own(rows), forward(truth)
    found = np.array([[np.corrcoef(own[:, g], true[:, k, g])[0, 1] for g in range(400)] for k in range(3)])
    expressed = reference > 20
    assert np.corrcoef(expected[expressed], found[expressed])[0, 1] > 0.9
    assert_allclose(expected[expressed].mean(), found[expressed].mean(), atol=0.06)


# What is degenerate


@pytest.mark.parametrize("n_types", [1, 3])
def test_exact_mixtures_of_the_reference_give_it_back(n_types):
    _, reference, theta, _ = mixtures(n=10, n_types=n_types, n_genes=50)
    posterior, rows = fit_posterior(theta @ reference, reference, theta)
    assert_allclose(posterior.expand(rows), np.broadcast_to(reference, (10, *reference.shape)), rtol=1e-9)
    variance = posterior.variance(rows)
    assert np.isfinite(variance).all()
    assert (variance >= 0).all()
    assert np.isfinite(posterior.reliability()).all()


def test_constant_and_absent_genes_and_types_are_finite():
    bulk, reference, theta, _ = mixtures(n=12, n_genes=60)
    bulk[:, 0], reference[:, 1], bulk[:, 2], reference[:, 2] = 5.0, 0.0, 0.0, 0.0
    theta[:, 0] = 0
    theta /= theta.sum(axis=1, keepdims=True)
    posterior, rows = fit_posterior(bulk, reference, theta)
    for values in (
        posterior.expand(rows),
        posterior.variance(rows),
        posterior.reliability(),
        posterior.degrees,
    ):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert_array_equal(posterior.expand(rows)[:, :, 2], 0)


@pytest.mark.parametrize("n", [2, 3])
def test_few_samples(n):
    bulk, reference, theta, _ = mixtures(n=n, n_genes=60)
    posterior, rows = fit_posterior(bulk, reference, theta)
    assert np.isfinite(posterior.expand(rows)).all()
    assert np.isfinite(posterior.variance(rows)).all()


def test_single_precision_stays():
    bulk, reference, theta, _ = mixtures(n=20, n_genes=200, hidden=0.5)
    double, rows = fit_posterior(bulk, reference, theta)
    arrays = (values.astype(np.float32) for values in (bulk, reference, theta))
    single, few = fit_posterior(*arrays)
    assert single.expand(few).dtype == np.float32
    assert_allclose(single.expand(few), double.expand(rows), rtol=2e-3, atol=2e-3)


def test_order_of_samples_genes_and_types_does_not_matter():
    bulk, reference, theta, _ = mixtures(n=15, n_genes=120, hidden=0.5)
    expected = fit_posterior(bulk, reference, theta)
    rng = np.random.default_rng(0)
    samples, types, genes = rng.permutation(15), rng.permutation(3), rng.permutation(120)
    found = fit_posterior(
        bulk[np.ix_(samples, genes)], reference[np.ix_(types, genes)], theta[np.ix_(samples, types)]
    )
    order = np.ix_(samples, types, genes)
    # the components are found by an iteration, to about 1e-12
    assert_allclose(found[0].expand(found[1]), expected[0].expand(expected[1])[order], rtol=1e-8)
    assert_allclose(found[0].variance(found[1]), expected[0].variance(expected[1])[order], rtol=1e-7)


def test_log_density_is_that_of_a_gaussian_with_the_directions():
    bulk, reference, theta, _ = mixtures(n=25, n_genes=40, hidden=0.8, platform=0.8)
    posterior, rows = fit_posterior(bulk, reference, theta, settings=Settings(threshold=0.3))
    p, d = posterior, posterior.directions
    assert 0 < len(d.shares) < 24
    along = d.shares * 40
    rest = (40 - along.sum()) / (40 - len(along))
    covariance = rest * np.eye(40) + (d.loadings.T * (along - rest)) @ d.loadings
    covariance *= np.outer(p.scale, p.scale)
    e = forward(bulk) - p.bulk_mean - p.composition * (forward(theta @ reference) - p.expected_mean)
    expected = stats.multivariate_normal(np.zeros(40), covariance).logpdf(e).mean() / 40
    assert_allclose(p.log_density(rows), expected, rtol=1e-8)


# Recorded figures: an independent prototype of the formulas, on real blood with the proportions of the file


def test_figures_of_real_blood(truth_folder):
    with np.load(truth_folder / "gse60424.npz") as file:
        bulk, reference, theta = (file[name] for name in ("bulk", "reference", "theta"))
    posterior, _ = fit_posterior(bulk, reference, theta)
    found = posterior.delta2, posterior.composition, posterior.threshold, posterior.components.noise
    # recorded to three or four digits
    assert_allclose(found, [0.3094, 0.5699, 0.0878, 0.3048], atol=6e-4)
    assert_allclose(posterior.components.total, [0.191, 0.151, 0.164, 0.110, 0.158], atol=6e-4)
