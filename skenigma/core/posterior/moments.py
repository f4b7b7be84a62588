"""Moments of a cohort on the log scale, in one reading by blocks of rows, and deviations by the block.

All that a fit needs of Y = f(X) and M = f(ΘR) are sums over samples, and sums with random signs over groups of them,
of Y and of D = Y − M: the centred e = (Y − Ȳ) − λ(M − M̄) is (1 − λ)(Y − Ȳ) + λ(D − D̄), so that λ may follow from the
same reading. With D, nothing cancels where the bulk is a mixture of the very profiles.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..blocks import each_block
from .directions import N_GROUPS
from .model import forward

# Numbers of a block whose logarithms are taken, and of one that is multiplied with many directions.
BLOCK_SIZE, PRODUCT_BLOCK = 2**17, 2**21


@dataclass(frozen=True)
class Moments:
    """Sums over the samples of a cohort.

    Attributes
    ----------
    n_samples : int
    bulk_mean, expected_mean, difference_mean : ndarray of shape (n_genes,)
        Of Y, M and D.
    square_bulk, square_expected, product, square_difference : ndarray of shape (n_genes,)
        Of centred values: Σ y², Σ m², Σ y m and Σ d².
    signs : csr_array of shape (n_groups, n_samples)
        Which group a sample is in, by 1 or −1.
    bulk_groups, difference_groups : ndarray of shape (n_groups, n_genes)
        ``signs`` times centred Y and D.
    bulk_effects, difference_effects : ndarray of shape (n_covariates, n_genes)
        Coefficients of the covariates on Y and D, by least squares.
    """

    n_samples: int
    bulk_mean: np.ndarray
    expected_mean: np.ndarray
    difference_mean: np.ndarray
    square_bulk: np.ndarray
    square_expected: np.ndarray
    product: np.ndarray
    square_difference: np.ndarray
    signs: csr_array
    bulk_groups: np.ndarray
    difference_groups: np.ndarray
    bulk_effects: np.ndarray
    difference_effects: np.ndarray

    def squares(self, composition):
        """Σ e² of every gene."""
        crossed = self.square_bulk - self.product  # Σ y d
        rest = 1 - composition
        found = rest**2 * self.square_bulk + composition**2 * self.square_difference
        return np.maximum(found + 2 * composition * rest * crossed, 0)

    def groups(self, composition):
        """Sums of e over the groups."""
        return (1 - composition) * self.bulk_groups + composition * self.difference_groups

    def effects(self, composition):
        """Coefficients of the covariates on e."""
        return (1 - composition) * self.bulk_effects + composition * self.difference_effects


def gather_moments(bulk, reference, proportions, inverse):
    """Moments of a cohort, in one reading.

    Parameters
    ----------
    bulk : ndarray or LazyMatrix of shape (n_samples, n_genes)
    reference : ndarray of shape (n_cell_types, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    inverse : ndarray of shape (n_covariates, n_samples)
        Pseudo-inverse of the centred covariates.

    Returns
    -------
    Moments
    """
    n_samples, n_genes = bulk.shape
    sums = _CentredSums(n_genes)
    group, sign = random_groups(n_samples)
    signs = csr_array((sign, (group, np.arange(n_samples))), shape=(N_GROUPS, n_samples))
    groups = np.zeros((2, N_GROUPS, n_genes))
    effects = np.zeros((2, len(inverse), n_genes))
    for rows, block in each_block(bulk, BLOCK_SIZE):
        y, m = forward(block), forward(proportions[rows] @ reference)
        d = y - m
        for values, of_groups, of_effects in zip((y, d), groups, effects, strict=True):
            of_effects += inverse[:, rows] @ values
            for into, way, row in zip(group[rows], sign[rows], values, strict=True):
                of_groups[into] += way * row
        sums.add(y, m, d)
    counts = np.asarray(signs.sum(axis=1)).reshape(-1, 1)
    groups[0] -= counts * sums.means[0]
    groups[1] -= counts * sums.means[2]
    return Moments(n_samples, *sums.means, *sums.products, signs, *groups, *effects)


def random_groups(n_samples):
    """A group and a sign for every sample, the same for the same number of samples."""
    random = np.random.default_rng(0)
    return random.integers(N_GROUPS, size=n_samples), random.choice([-1.0, 1.0], n_samples)


class _CentredSums:
    """Means of y, m and d, and sums of their centred squares and products: yy, mm, ym and dd.

    Blocks are centred by themselves and joined as in Chan, Golub and LeVeque (1983), Algorithms for computing the
    sample variance. The American Statistician 37: a gene that does not vary keeps a variance of rounding.
    """

    def __init__(self, n_genes):
        self._count = 0
        self.means, self.products = np.zeros((3, n_genes)), np.zeros((4, n_genes))

    def add(self, *block):
        """Take in rows of y, m and d, which are overwritten."""
        count = len(block[0])
        total = self._count + count
        means = np.stack([values.mean(axis=0) for values in block])
        for values, mean in zip(block, means, strict=True):
            values -= mean
        apart = means - self.means
        for place, (left, right) in enumerate(((0, 0), (1, 1), (0, 1), (2, 2))):
            within = np.einsum("jg,jg->g", block[left], block[right])
            self.products[place] += within + apart[left] * apart[right] * (self._count * count / total)
        self.means += apart * (count / total)
        self._count = total
