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
# Largest number of samples whose n × n matrix is decomposed; beyond, a subspace is iterated, at a cost linear in n.
LARGEST_GRAM = 1000
# Directions sought in the first place, and at most, when a subspace is iterated; times that it meets the data.
FIRST_RANK, LARGEST_RANK, N_ITERATIONS = 32, 256, 4
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
        cutoff = TAIL * threshold
        if total == 0 or cutoff >= 1:
            loadings, shares = np.empty((0, scaled.shape[1]), scaled.dtype), np.empty(0)
        else:
            find = _of_gram if len(scaled) <= LARGEST_GRAM else _of_subspace
            loadings, shares = find(scaled, total, cutoff)
        gains = gain(shares, threshold)
        rest = max(1.0 - shares.sum(), 0.0)
        n_rest = max(min(len(scaled) - 1, scaled.shape[1]) - len(shares), 1)
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


def _of_gram(scaled, total, cutoff):
    """Loadings and shares above ``cutoff`` from the n × n matrix of inner products."""
    products = (scaled @ scaled.T).astype(np.float64, copy=False)
    values, vectors = linalg.eigh(products, subset_by_value=(cutoff * total, np.inf))
    real = values > ZERO * max(values.max(initial=0.0), total / len(scaled))
    values, vectors = values[real], vectors[:, real]
    loadings = (vectors / np.sqrt(values)).T.astype(scaled.dtype, copy=False) @ scaled
    return loadings, values / total


def _of_subspace(scaled, total, cutoff):
    """The same by subspace iteration (Halko, Martinsson and Tropp 2011), from a fixed start."""
    rank = FIRST_RANK
    while True:
        rank = min(rank, *scaled.shape)
        start = np.random.default_rng(0).standard_normal((len(scaled), rank)).astype(scaled.dtype, copy=False)
        basis = linalg.qr(scaled.T @ start, mode="economic")[0]
        for _ in range(N_ITERATIONS):
            basis = linalg.qr(scaled.T @ (scaled @ basis), mode="economic")[0]
        _, lengths, turn = linalg.svd(scaled @ basis, full_matrices=False)
        shares = lengths.astype(np.float64) ** 2 / total
        above = shares > max(cutoff, ZERO)
        if not above.all() or rank in (LARGEST_RANK, *scaled.shape):
            return (turn[above] @ basis.T), shares[above]
        rank = min(2 * rank, LARGEST_RANK)
