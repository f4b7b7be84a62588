r"""Leading directions over samples, and how much of each is kept.

Deviations e (samples × genes) are scaled to z = e/sd. Of :math:`z z^\top / G = U \mathrm{diag}(\ell) U^\top` a
direction m has the share :math:`s_m = \ell_m / \sum \ell` and is kept with the gain :math:`\pi_m = 1 / (1 +
s_m/s^*)`: what many genes do together over the samples is quality, batch and error of the proportions rather than
expression of one cell type (surrogate variables: Leek and Storey 2007; PEER: Stegle et al. 2012).

Directions far below :math:`s^*` are kept all but whole, each nearly as the next. They are not computed: one gain
stands for all of them.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

# A direction is computed if its share is above this multiple of s*; the gains of the others differ by less than it.
TAIL = 0.05
# Largest number of samples whose n × n matrix is decomposed; beyond, they are read by blocks, at a cost linear in n.
LARGEST_GRAM = 1000
# Groups of samples whose signed sums span the genes that are then looked at: directions are sought in this many.
N_GROUPS = 256
# Eigenvalues this far below the largest are zeros: centring leaves one.
ZERO = 1e-10


@dataclass(frozen=True)
class Directions:
    """Directions over genes and their gains.

    Attributes
    ----------
    loadings : ndarray of shape (n_directions, n_genes)
        Orthonormal rows, for scaled deviations.
    shares : ndarray of shape (n_directions,)
        Share of the variance along each.
    gains : ndarray of shape (n_directions,)
        How much of each is kept.
    tail_gain : float
        How much is kept of all that lies along none of them.
    signal : float
        Share of the variance that is kept as a prior: the mean of the gain over the variance.
    explained : float
        Share of the variance of what is kept: the mean of the squared gain.
    """

    loadings: np.ndarray
    shares: np.ndarray
    gains: np.ndarray
    tail_gain: float
    signal: float
    explained: float

    @classmethod
    def fit(cls, scaled, threshold):
        """From scaled deviations (n_samples, n_genes), zero in genes that do not vary; ``threshold`` is s*."""
        total = float(np.einsum("jg,jg->", scaled, scaled, dtype=np.float64))
        loadings, shares = np.empty((0, scaled.shape[1]), scaled.dtype), np.empty(0)
        if _is_sought(total, threshold):
            loadings, shares = _of_gram(scaled, total, TAIL * threshold)
        return cls._with_gains(loadings, shares, total, scaled.shape, threshold)

    @classmethod
    def of_blocks(cls, blocks, groups, total, n_samples, threshold):
        """The same from one reading, for any number of samples.

        Exact where there are no more directions than ``groups``. Otherwise the directions are those of the Nyström
        approximation in the span of what the deviations make of the groups [1]_. On simulated spectra, flat and
        steep, what is kept had a third of the error that one gain for all smaller directions has, or less.

        Parameters
        ----------
        blocks : callable
            Iterates over the scaled deviations, any number of rows at a time.
        groups : ndarray of shape (n_groups, n_genes)
            Random combinations of all scaled deviations, such as sums with random signs over groups of samples.
        total : float
            Sum of the squares of all scaled deviations.
        n_samples : int
        threshold : float
            s*.

        Returns
        -------
        Directions

        References
        ----------
        .. [1] Halko, Martinsson and Tropp (2011), Finding structure with randomness. SIAM Review 53, section 5.5.
        """
        loadings, shares = np.empty((0, groups.shape[1])), np.empty(0)
        if _is_sought(total, threshold):
            loadings, shares = _of_span(blocks, groups, total, TAIL * threshold)
        return cls._with_gains(loadings, shares, total, (n_samples, groups.shape[1]), threshold)

    @classmethod
    def _with_gains(cls, loadings, shares, total, shape, threshold):
        gains = gain(shares, threshold)
        rest = max(1.0 - shares.sum(), 0.0)
        n_rest = max(min(shape[0] - 1, shape[1]) - len(shares), 1)
        # a row that was not fitted has parts outside of all directions: where nothing is left over, these are its own
        tail_gain = 1.0 if total == 0 else float(gain(rest / n_rest, threshold))
        signal = float(gains @ shares + tail_gain * rest)
        explained = float(gains**2 @ shares + tail_gain**2 * rest)
        return cls(loadings, shares, gains, tail_gain, signal, explained)

    def coordinates(self, scaled):
        """Positions of rows along the directions, shape (n_rows, n_directions)."""
        return scaled @ self.loadings.T

    def keep(self, scaled, coordinates, genes=slice(None)):
        """What is kept of scaled deviations of some genes, given the coordinates of all genes."""
        weights = (coordinates * (self.gains - self.tail_gain)).astype(scaled.dtype, copy=False)
        kept = weights @ self.loadings[:, genes]
        kept += scaled * self.tail_gain
        return kept


def gain(share, threshold):
    """How much of a direction is kept: half where its share is the threshold."""
    return 1.0 / (1.0 + share / threshold)


def _is_sought(total, threshold):
    """Whether any direction can have a share above the cutoff."""
    return total > 0 and TAIL * threshold < 1


def _of_gram(scaled, total, cutoff):
    """Loadings and shares above ``cutoff`` from the n × n matrix of inner products."""
    products = (scaled @ scaled.T).astype(np.float64, copy=False)
    values, vectors = linalg.eigh(products, subset_by_value=(cutoff * total, np.inf))
    real = values > ZERO * max(values.max(initial=0.0), total / len(scaled))
    values, vectors = values[real], vectors[:, real]
    loadings = (vectors / np.sqrt(values)).T.astype(scaled.dtype, copy=False) @ scaled
    return loadings, values / total


def _of_span(blocks, groups, total, cutoff):
    """The same of deviations Z by blocks: of (Z'ZB)(B'Z'ZB)⁻¹(Z'ZB)', which is Z'Z where B spans all of Z."""
    basis = linalg.qr(groups.T, mode="economic")[0]
    inner, outer = np.zeros((basis.shape[1],) * 2), np.zeros(basis.T.shape)
    for scaled in blocks():
        along = scaled @ basis
        inner += along.T @ along
        outer += along.T @ scaled
    values, vectors = linalg.eigh(inner)
    real = values > ZERO * values.max(initial=0.0)
    root = (vectors[:, real] / np.sqrt(values[real])).T @ outer
    values, vectors = linalg.eigh(root @ root.T)
    above = values > max(cutoff, ZERO) * total
    return (vectors[:, above] / np.sqrt(values[above])).T @ root, values[above] / total
