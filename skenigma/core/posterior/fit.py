"""Fit the posterior of a cohort: what is trusted of the reference, variance components, and what follows from them.

What the parts of the posterior stand for is said in :mod:`.model`.
"""

from types import SimpleNamespace

import numpy as np

from ..blocks import each_block
from ..regress.moderation import VariancePrior
from .directions import LARGEST_GRAM, Directions
from .model import BLOCK_SIZE, Posterior, Rows, Settings, forward, scaled_deviations
from .moments import PRODUCT_BLOCK, gather_moments
from .variances import fit_components, shares

# Mismatch of bulk and reference, as a variance over genes, at which half is believed of what the reference says.
TYPICAL_MISMATCH = 0.41
# Share of the variance at which half of a direction is kept, at the typical mismatch.
TYPICAL_SHARE = 0.05
# Median absolute deviation to standard deviation, of Gaussian values.
MAD_TO_SD = 1.4826
# A platform's offset of a gene is believed up to this many standard deviations of all genes' offsets.
LARGEST_OFFSET = 3.0
# Fewest degrees of freedom of the posterior: with 2, a t distribution has no variance.
FEWEST_DEGREES = 2.5
# Share of a sum of squares below which the difference to what covariates explain is rounding.
CANCELLED = 1e-13


def fit_posterior(bulk, reference, proportions, *, design=None, settings=None):
    """Fit the posterior of a cohort.

    Up to :data:`~.directions.LARGEST_GRAM` samples, deviations are held and their directions decomposed. Of more
    samples two readings by blocks of rows are enough, see :mod:`.moments` and :meth:`.Directions.of_blocks`; what is
    held then does not grow with the samples, but for a few numbers of each.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes), or object that reads it
        At least 0. What is not in memory has ``shape`` and ``dtype``, and yields rows by ``blocks()``.
    reference : ndarray of shape (n_cell_types, n_genes)
        At least 0, on the scale of the bulk.
    proportions : ndarray of shape (n_samples, n_cell_types)
    design : ndarray of shape (n_samples, n_covariates), default=None
        Covariates whose effects are not taken for hidden directions.
    settings : Settings, default=None

    Returns
    -------
    posterior : Posterior
    rows : Rows or None
        The cohort, ready to be expanded; None where it is not in memory, and each block is mapped when it is read.
    """
    settings = Settings() if settings is None else settings
    n_samples = len(bulk)
    design = np.empty((n_samples, 0)) if design is None else np.asarray(design, dtype=np.float64)
    find = _held if n_samples <= LARGEST_GRAM else _by_blocks
    facts, variance, explained, directions, scaled = find(bulk, reference, proportions, design, settings)
    explained = explained / (n_samples - 1)
    signal = explained + variance * directions.signal
    kept = explained + variance * directions.explained
    facts["ratio"] = np.divide(kept, signal, out=np.ones_like(variance), where=signal > 0)
    facts["removed_variance"] = variance * max(1 - 2 * directions.signal + directions.explained, 0.0)
    facts |= _moments(signal, n_samples - 1, reference, proportions.mean(axis=0), facts, settings)
    posterior = Posterior(reference=reference, directions=directions, settings=settings, **facts)
    if not isinstance(bulk, np.ndarray):
        return posterior, None
    return posterior, posterior.cohort_rows(bulk, proportions, design, scaled)


def _held(bulk, reference, proportions, design, settings):
    """What is to be known of the deviations, and these themselves."""
    scaled, facts = _deviations(bulk, reference, proportions, settings)
    facts["design_mean"], facts["effects"], explained, degrees = _protect(scaled, design)
    variance, facts["scale"], facts["varies"] = _scale(scaled, degrees, bulk.dtype)
    explained = (explained**2).sum(axis=0) if len(facts["effects"]) else np.zeros(len(variance))
    return facts, variance, explained, Directions.fit(scaled, facts["threshold"]), scaled


def _by_blocks(bulk, reference, proportions, design, settings):
    """The same in two readings; deviations are not held."""
    n_samples = len(bulk)
    centred = design - design.mean(axis=0)
    inverse = np.linalg.pinv(centred) if design.shape[1] else np.empty((0, n_samples))
    found = gather_moments(bulk, reference, proportions, inverse)
    facts = _judged(
        found.bulk_mean,
        found.expected_mean,
        (found.square_bulk, found.square_expected, found.product),
        n_samples,
        settings,
    )
    composition = facts["composition"]
    effects, total = found.effects(composition), found.squares(composition)
    explained = np.einsum("cg,cd,dg->g", effects, centred.T @ centred, effects, optimize=True)
    left = total - explained
    # what a difference of two equal sums leaves
    left[left < CANCELLED * total] = 0.0
    degrees = _degrees_left(centred)
    variance, scale, varies = _spread_of(left / degrees, bulk.dtype)
    facts |= {"design_mean": design.mean(axis=0), "effects": effects, "scale": scale, "varies": varies}
    about = SimpleNamespace(reference=reference, **facts)

    def blocks():
        for rows, block in each_block(bulk, PRODUCT_BLOCK):
            yield scaled_deviations(about, Rows(block, proportions[rows], None, design[rows]))

    groups = found.groups(composition)
    groups -= (found.signs @ centred) @ effects
    groups /= scale
    groups[:, ~varies] = 0.0
    del found  # two tables as large
    size = float(degrees * np.count_nonzero(varies))
    directions = Directions.of_blocks(blocks, groups, size, n_samples, facts["threshold"])
    return facts, variance, explained, directions, None


def _deviations(bulk, reference, proportions, settings):
    """e, and what it took to form it."""
    n_samples, n_genes = bulk.shape
    deviations = np.empty(bulk.shape, np.result_type(bulk.dtype, np.float32))
    values = bulk
    if not isinstance(bulk, np.ndarray):
        values = deviations
        for rows, block in each_block(bulk):
            values[rows] = block
    means = np.empty((2, n_genes))
    squares = np.empty((3, n_genes))
    step = max(1, BLOCK_SIZE // n_samples)
    blocks = [slice(start, start + step) for start in range(0, n_genes, step)]
    for genes in blocks:
        y, m = forward(values[:, genes]), forward(proportions @ reference[:, genes])
        means[:, genes] = y.mean(axis=0), m.mean(axis=0)
        y -= means[0, genes]
        m -= means[1, genes]
        squares[:, genes] = (y * y).sum(axis=0), (m * m).sum(axis=0), (y * m).sum(axis=0)
        deviations[:, genes] = y
    facts = _judged(*means, squares, n_samples, settings)
    if facts["composition"]:
        for genes in blocks:
            m = forward(proportions @ reference[:, genes]) - means[1, genes]
            deviations[:, genes] -= facts["composition"] * m
    return deviations, facts


def _judged(bulk_mean, expected_mean, squares, n_samples, settings):
    """How well bulk and reference match, and what that says of composition and directions."""
    expressed = expected_mean > 0
    delta2 = mismatch(bulk_mean[expressed], expected_mean[expressed])
    composition, threshold = settings.composition, settings.threshold
    return {
        "bulk_mean": bulk_mean,
        "expected_mean": expected_mean,
        "delta2": delta2,
        "composition": composition_weight(*squares, n_samples, delta2)
        if composition is None
        else composition,
        "threshold": half_share(delta2) if threshold is None else threshold,
    }


def _protect(deviations, design):
    """Take the effects of covariates out of deviations, in place.

    Returns
    -------
    design_mean, effects : ndarray
    explained : ndarray of shape (n_samples, n_genes), or None
    degrees : int
        Degrees of freedom that are left.
    """
    n_samples, n_covariates = design.shape
    mean = design.mean(axis=0)
    if not n_covariates:
        return mean, np.empty((0, deviations.shape[1])), None, n_samples - 1
    centred = design - mean
    inverse = np.linalg.pinv(centred)
    effects = inverse @ deviations
    explained = centred @ effects
    deviations -= explained
    return mean, effects, explained, _degrees_left(centred)


def _degrees_left(centred):
    """Degrees of freedom that centred covariates leave."""
    n_samples, n_covariates = centred.shape
    taken = np.linalg.matrix_rank(centred) if n_covariates else 0
    return max(n_samples - 1 - taken, 1)


def _scale(deviations, degrees, dtype):
    """Divide deviations by their standard deviation, in place; returns variance, scale and what varies."""
    variance = np.einsum("jg,jg->g", deviations, deviations, dtype=np.float64) / degrees
    variance, scale, varies = _spread_of(variance, dtype)
    deviations /= scale.astype(deviations.dtype)
    deviations[:, ~varies] = 0
    return variance, scale, varies


def _spread_of(variance, dtype):
    """Variance, 0 where it is rounding, its root, 1 there, and where it is not."""
    # of two logarithms each
    smallest = 64 * np.finfo(dtype).eps * 32
    varies = np.sqrt(variance) > smallest
    variance = np.where(varies, variance, 0.0)
    return variance, np.sqrt(np.where(varies, variance, 1.0)), varies


def _moments(signal, degrees, reference, theta, facts, settings):
    """Variance components and what follows from them."""
    reference = reference.astype(np.float64, copy=False)
    level, weights = facts["bulk_mean"], shares(theta, reference)
    usable = facts["varies"] & (facts["expected_mean"] > 0)
    if not usable.any():
        usable = facts["varies"]
    components = fit_components(signal[usable], weights[:, usable], level[usable], settings.shared)
    fitted = components.of_bulk(weights, level)
    together = components.common + weights * components.own[:, None]
    # a type that no sample holds keeps its profile
    share = np.divide(together, fitted, out=np.zeros_like(weights), where=(fitted > 0) & (theta > 0)[:, None])
    relative = np.divide(signal, fitted, out=np.zeros_like(fitted), where=fitted > 0)
    prior = VariancePrior.fit(relative[usable], degrees)
    gene_spread = prior.moderate(relative, degrees)
    own = weights**2 * components.own[:, None]
    belonging = np.divide(own, fitted, out=np.zeros_like(weights), where=fitted > 0)
    return {
        "components": components,
        "weights": weights,
        "share": share,
        "gene_spread": gene_spread,
        "spread": _spread(gene_spread, components, weights.shape, settings),
        "belonging": belonging,
        "degrees": np.maximum(prior.degrees, FEWEST_DEGREES) + belonging * degrees,
        "offset": _offset(signal / (degrees + 1), components, facts)
        if settings.on_platform
        else np.zeros(len(level)),
    }


def _spread(gene_spread, components, shape, settings):
    """Variance of a type's gene relative to the component's: known from donors, or as a root of the gene's."""
    if settings.variance is None:
        # a gene that varies in the bulk need not vary in each of its types
        return np.broadcast_to(np.sqrt(gene_spread), shape)
    prior = components.prior[:, None]
    return np.divide(settings.variance, prior, out=np.ones(shape), where=prior > 0)


def _offset(error, components, facts):
    """Level at which the bulk measures a gene against the reference, pulled to that of all genes."""
    delta = facts["bulk_mean"] - facts["expected_mean"]
    expressed = facts["expected_mean"] > 0
    centre = float(np.median(delta[expressed])) if expressed.any() else 0.0
    error = error + components.noise * np.exp2(-facts["expected_mean"])
    pulled = facts["delta2"] / np.maximum(facts["delta2"] + error, np.finfo(float).tiny)
    limit = LARGEST_OFFSET * np.sqrt(facts["delta2"])
    return np.where(expressed, centre + pulled * np.clip(delta - centre, -limit, limit), 0.0)


def mismatch(bulk_mean, expected_mean):
    """δ²: robust variance over genes of what the reference does not expect of the mean bulk."""
    delta = bulk_mean - expected_mean
    return float((MAD_TO_SD * np.median(np.abs(delta - np.median(delta)))) ** 2) if len(delta) else 0.0


def composition_weight(square_bulk, square_expected, product, n_samples, delta2):
    """λ: how much of the expected effect of composition is subtracted.

    Parameters
    ----------
    square_bulk, square_expected, product : ndarray of shape (n_genes,)
        Σ y², Σ m² and Σ y m over the samples.
    n_samples : int
    delta2 : float
        Mismatch.
    """
    variance = square_bulk / n_samples
    scale = variance + np.median(variance)
    weights = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    total = float(weights @ square_expected)
    slope = float(weights @ product) / total if total > 0 else 0.0
    return min(float(np.clip(slope, 0, 1)), 1 / (1 + delta2 / TYPICAL_MISMATCH))


def half_share(delta2):
    """s*: share of the variance at which half of a direction is kept."""
    return TYPICAL_SHARE * (TYPICAL_MISMATCH / max(delta2, 1e-9)) ** 2
