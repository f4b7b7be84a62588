r"""Posterior of cell-type-specific expression, given bulk, reference and proportions.

On the scale of f(x) = log2(x + 1). Y = f(X) is the bulk, M = f(ΘR) what the reference expects of it.

1. e = y − λ m, the centred bulk without as much of the expected effect of composition as can be trusted
   (:func:`.fit.composition_weight`).
2. The own part s of a row is e without most of the leading directions over samples (:mod:`.directions`).
3. Variance components of what is kept (:mod:`.variances`) give the share κ of a gene's own part that is of a type.
4. The posterior mean is f(r) + κ s, and its variance what κ s leaves of the prior's.

A row needs nothing of the others: fitted and new rows are mapped alike. How a posterior is fitted to a cohort stands
in :mod:`.fit`.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from .directions import Directions
from .variances import Components

LN2 = np.log(2.0)
# Fraction of a type's variance over donors that it shares with the other types.
SHARED = 0.1
# Mismatch below which the bulk is a mixture of the very profiles whose expression is sought, as in pseudo-bulk.
EXACT_MIXTURE = 0.02
# Expression measured on a share of the reads below this is as uncertain as at this share.
SMALLEST_SHARE = 1e-3
# Squares of own parts beyond this multiple of their variance are cut off: they say nothing about noise.
LARGEST_SQUARE = 20.0
# Noise of a sample relative to the cohort's, least and most.
NOISE_FACTORS = 0.05, 100.0
# Numbers of a block of genes (all samples) and of a block of rows (all genes).
BLOCK_SIZE = 2**18


def forward(values):
    """f: log2(x + 1)."""
    return np.log2(values + 1.0)


@dataclass(frozen=True)
class Settings:
    """What a caller decides.

    Attributes
    ----------
    composition : float or None
        λ; None finds it.
    threshold : float or None
        s*; None finds it, infinity keeps all directions.
    shared : float
        ρ.
    on_platform : bool
        Whether profiles are moved to the level at which the bulk measures a gene.
    measured : bool
        Whether deviations are those of a measured profile.
    variance : ndarray of shape (n_cell_types, n_genes), or None
        Variance between donors on the log scale.
    n_donors : int, ndarray of shape (n_cell_types,), or None
        Donors behind the reference, of each type.
    """

    composition: float | None = None
    threshold: float | None = None
    shared: float = SHARED
    on_platform: bool = False
    measured: bool = True
    variance: np.ndarray | None = None
    n_donors: object = None


@dataclass(frozen=True)
class Rows:
    """Samples, fitted or new, as the posterior needs them.

    Attributes
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    coordinates : ndarray of shape (n_samples, n_directions)
        Along the leading directions.
    design : ndarray of shape (n_samples, n_covariates)
        Covariates that are protected; no column where there are none.
    noise : ndarray of shape (n_samples,), or None
        Noise of each sample relative to the cohort's; None takes all to be the same.
    """

    bulk: np.ndarray
    proportions: np.ndarray
    coordinates: np.ndarray
    design: np.ndarray
    noise: np.ndarray | None = None

    def __getitem__(self, samples):
        parts = {name: value[samples] for name, value in vars(self).items() if value is not None}
        return replace(self, **parts)


@dataclass(frozen=True)
class Posterior:
    """A fitted posterior, which maps any rows.

    Attributes
    ----------
    reference : ndarray of shape (n_cell_types, n_genes)
    bulk_mean, expected_mean : ndarray of shape (n_genes,)
        Means of Y and M over the cohort.
    scale : ndarray of shape (n_genes,)
        Standard deviation of e; 1 where a gene does not vary.
    varies : ndarray of bool, shape (n_genes,)
    effects : ndarray of shape (n_covariates, n_genes)
        Of the protected covariates on e.
    design_mean : ndarray of shape (n_covariates,)
    delta2, composition, threshold : float
        δ², λ and s*.
    directions : Directions
    components : Components
    weights : ndarray of shape (n_cell_types, n_genes)
        Share of each type in the mean bulk of each gene.
    share : ndarray of shape (n_cell_types, n_genes)
        κ.
    ratio : ndarray of shape (n_genes,)
        Variance of the estimated over that of the true own part, ψ.
    spread : ndarray of shape (n_cell_types, n_genes)
        Variance of a type's gene relative to the component's.
    gene_spread : ndarray of shape (n_genes,)
        Moderated variance of a gene's own part over the fitted one, h.
    belonging : ndarray of shape (n_cell_types, n_genes)
        Share of a type's own variance in a gene's.
    degrees : ndarray of shape (n_cell_types, n_genes)
        Degrees of freedom of the posterior.
    offset : ndarray of shape (n_genes,)
        Of the bulk's platform against the reference's; zero unless asked for.
    removed_variance : ndarray of shape (n_genes,)
        Of what was taken for hidden directions.
    settings : Settings
    """

    reference: np.ndarray
    bulk_mean: np.ndarray
    expected_mean: np.ndarray
    scale: np.ndarray
    varies: np.ndarray
    effects: np.ndarray
    design_mean: np.ndarray
    delta2: float
    composition: float
    threshold: float
    directions: Directions
    components: Components
    weights: np.ndarray
    share: np.ndarray
    ratio: np.ndarray
    spread: np.ndarray
    gene_spread: np.ndarray
    belonging: np.ndarray
    degrees: np.ndarray
    offset: np.ndarray
    removed_variance: np.ndarray
    settings: Settings

    # Rows

    def rows(self, bulk, proportions, design=None):
        """New rows, ready to be expanded to values, and by :meth:`with_noise` to deviations."""
        if design is None:
            design = np.broadcast_to(self.design_mean, (len(bulk), len(self.design_mean)))
        rows = Rows(bulk, proportions, np.empty((len(bulk), 0)), design)
        coordinates = np.empty((len(bulk), len(self.directions.loadings)))
        for some in self._blocks(rows, bulk.shape[1]):
            coordinates[some] = self.directions.coordinates(self._scaled(rows[some]))
        return replace(rows, coordinates=coordinates)

    def with_noise(self, rows):
        """The same rows, their noise known."""
        noise = [self.noise_factors(self.own(rows[some])) for some in self._blocks(rows, rows.bulk.shape[1])]
        return replace(rows, noise=np.concatenate(noise))

    def cohort_rows(self, bulk, proportions, design, scaled=None):
        """Rows that were fitted, their noise known; ``scaled`` are their deviations, where these are held."""
        rows = Rows(bulk, proportions, np.empty((len(bulk), 0)), design)
        coordinates, noise = np.empty((len(bulk), len(self.directions.loadings))), np.empty(len(bulk))
        for some in self._blocks(rows, bulk.shape[1]):
            z = self._scaled(rows[some]) if scaled is None else scaled[some]
            coordinates[some] = self.directions.coordinates(z)
            own, _ = self.assemble(z, replace(rows[some], coordinates=coordinates[some]))
            noise[some] = self.noise_factors(own)
        return replace(rows, coordinates=coordinates, noise=noise)

    def noise_factors(self, own):
        """Noise of rows relative to the cohort's, from their own parts: large where there were few reads.

        The slope of what a gene's own part has beyond its signal on the noise that the cohort has there.
        """
        components = self.components
        noise = components.noise * np.exp2(-self.bulk_mean)
        signal = components.common + components.own @ self.weights**2
        total = signal + noise
        scale = self.ratio * self.gene_spread * total
        usable = self.varies & (scale > 0) & (noise > 0)
        if not usable.any():
            return np.ones(len(own))
        scale, signal, noise, total = (part[usable] for part in (scale, signal, noise, total))
        squares = np.minimum(own[:, usable] ** 2 / scale, LARGEST_SQUARE)
        shares = noise / total
        beyond = (squares - signal / total) @ shares / (shares @ shares)
        return np.clip(beyond, *NOISE_FACTORS)

    def _scaled(self, rows, genes=slice(None)):
        return scaled_deviations(self, rows, genes)

    def _parts(self, rows, genes=slice(None)):
        """Own part of rows, and the part that was taken for hidden directions; both (n_rows, n_genes)."""
        return self.assemble(self._scaled(rows, genes), rows, genes)

    def assemble(self, scaled, rows, genes=slice(None)):
        """The same from scaled deviations."""
        own = self.directions.keep(scaled, rows.coordinates, genes)
        removed = (scaled - own) * self.scale[genes]
        own *= self.scale[genes].astype(own.dtype, copy=False)
        if len(self.effects):
            own += (rows.design - self.design_mean) @ self.effects[:, genes]
        return own, removed

    def own(self, rows, genes=slice(None)):
        """What distinguishes rows, without most of the hidden directions: s, of shape (n_rows, n_genes)."""
        return self._parts(rows, genes)[0]

    # Moments

    def expand(self, rows, cell_types=slice(None), genes=slice(None)):
        """Estimated expression, shape (n_rows, n_cell_types, n_genes), on the scale of the bulk."""
        reference = self.reference[cell_types][:, genes]
        start = (reference + 1.0) * np.exp2(self.offset[genes])
        share = self.share[cell_types][:, genes].astype(rows.bulk.dtype, copy=False)
        values = np.empty((len(rows.bulk), *reference.shape), dtype=rows.bulk.dtype)
        for some in self._blocks(rows, reference.shape[1]):
            own = self.own(rows[some], genes)
            for k, block in enumerate(np.moveaxis(values[some], 1, 0)):
                np.exp2(own * share[k], out=block)
                block *= start[k]
                block -= 1.0
                np.maximum(block, 0, out=block)
        return values

    def mean(self, rows, cell_types=slice(None), genes=slice(None)):
        """Posterior mean on the log scale, shape (n_rows, n_cell_types, n_genes)."""
        start = forward(self.reference[cell_types][:, genes]) + self.offset[genes]
        return start + self.share[cell_types][:, genes] * self.own(rows, genes)[:, None]

    def variance(self, rows, cell_types=slice(None), genes=slice(None)):
        """Posterior variance on the log scale, shape (n_rows, n_cell_types, n_genes)."""
        types = np.arange(len(self.reference))[cell_types]
        n_genes = len(self.bulk_mean[genes])
        found = np.empty((len(rows.bulk), len(types), n_genes))
        step = max(1, BLOCK_SIZE // max(1, n_genes * len(self.reference)))
        for start in range(0, len(rows.bulk), step):
            some = slice(start, start + step)
            self._variance(rows[some], types, genes, found[some])
        return found

    def _variance(self, rows, types, genes, out):
        theta, components = rows.proportions, self.components
        reference = self.reference[:, genes].astype(np.float64, copy=False)
        expected = theta @ reference
        weights = _row_weights(theta, reference, expected)
        level = self.bulk_mean[genes] + forward(expected) - self.expected_mean[genes]
        bulk = components.of_bulk(np.moveaxis(weights, 1, 0), level)
        if rows.noise is not None:
            bulk += (rows.noise[:, None] - 1) * components.noise * np.exp2(-level)
        removed = self._parts(rows, genes)[1] ** 2
        for position, k in enumerate(types):
            share, spread = self.share[k, genes], self.spread[k, genes]
            ratio = self.ratio[genes]
            common = components.common + components.own[k] * weights[:, k]
            found = components.prior[k] - ratio * share * (2 * common - share * bulk)
            found = np.maximum(found, 0) * spread
            found += share**2 * self.belonging[k, genes] * removed
            found += self._measurement(k, genes, theta[:, k])
            found += self._baseline(k, genes)
            out[:, position] = found

    def _measurement(self, k, genes, theta):
        """Variance that measuring a profile adds, shape (n_rows, n_genes)."""
        if not self.settings.measured:
            return 0.0
        noise = self.components.noise / (self.reference[k, genes] + 1.0) * self.spread[k, genes]
        exact = 1 / (1 + self.delta2 / EXACT_MIXTURE)
        reads = 1 + exact * (1 / np.maximum(theta, SMALLEST_SHARE) - 1)
        return reads[:, None] * noise

    def _baseline(self, k, genes):
        """Variance of the reference profile, from few donors."""
        if self.settings.n_donors is None:
            return 0.0
        n_donors = np.broadcast_to(self.settings.n_donors, len(self.reference))[k]
        return self.components.prior[k] * self.spread[k, genes] / n_donors

    def quantiles(self, rows, level, cell_types=slice(None), genes=slice(None)):
        """Bounds of the central interval of a probability, on the scale of the bulk; may be below 0."""
        degrees = self.degrees[cell_types][:, genes]
        reach = stdtrit(degrees, 0.5 + level / 2) * np.sqrt((degrees - 2) / degrees)
        reach = reach * np.sqrt(self.variance(rows, cell_types, genes))
        mean = self.mean(rows, cell_types, genes)
        return np.exp2(mean - reach) - 1, np.exp2(mean + reach) - 1

    def deviations(self, rows, cell_types=slice(None), genes=slice(None)):
        """Half the distance on the scale of the bulk of one standard deviation up and down on the log scale."""
        found = np.empty((len(rows.bulk), *self.reference[cell_types][:, genes].shape))
        for some in self._blocks(rows, found.shape[2]):
            deviation = np.sqrt(self.variance(rows[some], cell_types, genes))
            np.sinh(np.multiply(deviation, LN2, out=deviation), out=found[some])
            found[some] *= np.exp2(self.mean(rows[some], cell_types, genes))
        return found

    def reliability(self):
        """Expected correlation of estimate and truth over samples, shape (n_cell_types, n_genes)."""
        components, weights, h = self.components, self.weights, self.gene_spread
        own, prior = components.own[:, None], components.prior[:, None]
        signal = (components.common + components.own @ weights**2) * h
        noise = components.noise * np.exp2(-self.bulk_mean)
        scale = h if self.settings.variance is None else self.spread
        truth = prior * scale + self.belonging * self.share**2 * self.removed_variance
        if self.settings.measured:
            truth = truth + components.noise / (self.reference + 1.0)
        product = truth * (signal + noise)
        together = np.sqrt(self.ratio * h * scale) * (components.common + weights * own)
        return np.divide(together, np.sqrt(product), out=np.zeros_like(product), where=product > 0).clip(0, 1)

    def log_density(self, rows):
        """Mean over the entries of rows of the log density of their e, the hidden directions known."""
        n_genes = int(self.varies.sum())
        if not n_genes:
            return 0.0
        along = self.directions.shares * n_genes
        rest = max(n_genes - along.sum(), 0.0) / max(n_genes - len(along), 1)
        rest = max(rest, np.finfo(float).tiny ** 0.5)
        constant = np.log(along).sum() + max(n_genes - len(along), 0) * np.log(rest)
        constant += n_genes * np.log(2 * np.pi) + 2 * np.log(self.scale[self.varies]).sum()
        total = 0.0
        for some in self._blocks(rows, len(self.scale)):
            scaled = self._scaled(rows[some]).astype(np.float64, copy=False)
            squares = rows.coordinates[some] ** 2
            outside = (scaled**2).sum(axis=1) - squares.sum(axis=1)
            total += (squares / along).sum() + outside.sum() / rest
        return -0.5 * (constant + total / len(rows.bulk)) / n_genes

    @staticmethod
    def _blocks(rows, n_genes):
        step = max(1, BLOCK_SIZE // max(1, n_genes))
        return [slice(start, start + step) for start in range(0, len(rows.bulk), step)]


def _row_weights(theta, reference, expected):
    """Share of each type in the expected bulk of rows, shape (n_rows, n_cell_types, n_genes)."""
    parts = theta[:, :, None] * reference
    where = (expected > 0)[:, None]
    return np.divide(
        parts, expected[:, None], out=np.broadcast_to(theta[:, :, None], parts.shape).copy(), where=where
    )


def scaled_deviations(about, rows, genes=slice(None)):
    """z: deviations that no covariate explains, scaled; zero in genes that do not vary.

    Parameters
    ----------
    about : Posterior
        Or anything that has the attributes of one that say how deviations are formed, up to ``varies``.
    rows : Rows
        Their coordinates are not asked for.
    genes : slice or ndarray, default=slice(None)

    Returns
    -------
    ndarray of shape (n_rows, n_genes)
    """
    y = forward(rows.bulk[:, genes]) - about.bulk_mean[genes]
    if about.composition:
        expected = forward(rows.proportions @ about.reference[:, genes])
        y -= about.composition * (expected - about.expected_mean[genes])
    if len(about.effects):
        y -= (rows.design - about.design_mean) @ about.effects[:, genes]
    return np.where(about.varies[genes], y / about.scale[genes], 0).astype(rows.bulk.dtype, copy=False)
