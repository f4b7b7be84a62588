r"""The factor model of a large cohort: few readings, and memory that grows with the samples, not with their squares.

All that a step asks of the residual Y (samples × genes) is :math:`Y Y^T W`, with a few columns of W that change from
step to step. Where :math:`Y^T W` lies in the span of orthonormal columns Q over genes, this is
:math:`(Y Q)(Y Q)^T W`: the coordinates Y Q take the place of Y, and a step reads nothing. So rounds of two readings
alternate with fits in memory. The first gives the span of random sums of samples; each further one joins what the W
of the last fit make of the samples, and the leading directions that it left, in which weaker factors show. This is
the Rayleigh-Ritz procedure in a space that grows by the newest approximation: the error of a round is that of the one
before, times about the variance of noise over that of a factor.
"""

import numpy as np
from scipy import linalg
from scipy.sparse import csc_array

from ..blocks import each_block, row_products
from .directions import N_GROUPS
from .factor import Search, moderated_scale
from .factor_rest import explained, largest_values
from .factor_step import Genes, Parts
from .moments import random_groups

# Rounds of two readings. On simulated cohorts and mixtures of real profiles, 1,200 to 3,000 samples, the third left
# an error of what factors say of 0.005 to 2.6 % of the noise; a fourth changed little.
ROUNDS = 3
# Directions that a fit has left, which join although they were no factors.
N_LEFT = 20
# Numbers of a block that is multiplied with many directions.
PRODUCT_BLOCK = 2**21


class Coordinates(Genes):
    """The residual by its coordinates along directions over genes.

    Parameters
    ----------
    basis : ndarray of shape (n_genes, n_directions)
        Orthonormal columns.
    coordinates : ndarray of shape (n_samples, n_directions)
    squares : ndarray of shape (n_samples,)
        Mean over genes of the squared residual.
    """

    def __init__(self, basis, coordinates, squares):
        self.basis, self.residual, self.squares = basis, coordinates, squares
        self.number, self._gram = len(basis), None

    def to_genes(self, rows):
        """Rows along the directions as rows over genes."""
        return rows @ self.basis.T

    def left(self, parts, count):
        """Weights of samples of the leading directions that a fit leaves, shape (count, n_samples)."""
        whiten = 1 / np.sqrt(parts.variance)[:, None]
        rest = self.rest(parts) * whiten
        last = rest.shape[1] - 1
        _, vectors = linalg.eigh(rest.T @ rest, subset_by_index=(max(0, last - count + 1), last))
        return (rest @ vectors * whiten).T


class Residual:
    """Bulk minus what the reference says of it, which is formed as it is read.

    Parameters
    ----------
    bulk : ndarray or LazyMatrix of shape (n_samples, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    reference : ndarray of shape (n_cell_types, n_genes)
    """

    def __init__(self, bulk, proportions, reference):
        self._bulk = bulk
        self._proportions = proportions.astype(np.float64, copy=False)
        self._reference = reference.astype(np.float64, copy=False)
        self._kept = None  # genes that the reference does not explain but for rounding

    def _blocks(self):
        for rows, block in each_block(self._bulk, PRODUCT_BLOCK):
            yield rows, block, block - self._proportions[rows] @ self._reference

    def combine(self, mix, weights):
        """Combinations of samples, and weighted sums of squares of every gene: one reading.

        Parameters
        ----------
        mix : ndarray or csc_array of shape (n_combinations, n_samples)
        weights : ndarray of shape (n_samples,)

        Returns
        -------
        combined : ndarray of shape (n_combinations, n_genes)
        squares : ndarray of shape (n_genes,)
        """
        n_genes = self._bulk.shape[1]
        combined, squares, largest = (
            np.zeros((mix.shape[0], n_genes)),
            np.zeros(n_genes),
            np.zeros((2, n_genes)),
        )
        for rows, block, rest in self._blocks():
            combined += mix[:, rows] @ rest
            squares += weights[rows] @ rest**2
            if self._kept is None:
                for values, found in zip((block, rest), largest, strict=True):
                    np.maximum(found, largest_values(values), out=found)
        if self._kept is None:
            self._kept = ~explained(*largest, self._bulk.dtype)
        return combined * self._kept, squares * self._kept

    def along(self, combined, scale):
        """Coordinates in the span of combinations, of genes over their ``scale``: one reading."""
        inverse = self._kept / scale
        basis = linalg.qr((combined * inverse).T, mode="economic", overwrite_a=True, check_finite=False)[0]
        found, squares = np.empty((len(self._bulk), basis.shape[1])), np.empty(len(self._bulk))
        for rows, _, rest in self._blocks():
            rest *= inverse
            np.matmul(rest, basis, out=found[rows])
            squares[rows] = row_products(rest, rest)
        return Coordinates(basis, found, squares / len(basis))


def fit_factors_by_rows(
    bulk,
    proportions,
    reference,
    known,
    *,
    n_factors=None,
    max_factors=10,
    max_iter=1000,
    tol=1e-6,
    report=None,
):
    """Fit the factor model in six readings of the bulk.

    Parameters
    ----------
    bulk : ndarray or LazyMatrix of shape (n_samples, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    reference : ndarray of shape (n_cell_types, n_genes)
    known, n_factors, max_factors, max_iter, tol, report
        As of :func:`~skenigma.core.posterior.factor.fit_factors`. The steps and the bound are those of the last
        round.

    Returns
    -------
    FactorPosterior
    """
    residual, n_samples = Residual(bulk, proportions, reference), len(bulk)
    automatic = n_factors is None
    limit = min(max_factors, n_samples // 3) if automatic else n_factors
    combined, squares = residual.combine(_first_sums(proportions), np.ones(n_samples))
    scale, degrees = np.full(len(squares), np.sqrt(squares.sum() / bulk.size) or 1.0), np.inf
    for number in range(ROUNDS):
        genes = residual.along(combined, scale)
        fit = Search(genes, proportions, known, max_iter, tol, report)
        whole = Parts(fit, fit.state)  # of the first fit without factors, as in memory
        fit.search(limit, automatic)
        if number == ROUNDS - 1:
            break
        parts = Parts(fit, fit.state)
        whole = parts if number else whole
        mix = np.vstack([whole.weighted.T, parts.weighted.T, genes.left(parts, N_LEFT)])
        more, squares = residual.combine(mix, 1 / whole.variance)
        combined = np.vstack([combined, more])
        left = _squares_left(whole, more[: len(whole.precision)] / scale, squares / scale**2)
        ratio, found = moderated_scale(left, max(n_samples - whole.fitted_degrees(), 1.0))
        if ratio is not None:
            scale, degrees = scale * ratio, min(degrees, found)
    return fit.posterior(scale, degrees)


def _first_sums(proportions):
    """Sums of samples, which span the first directions: with the proportions, and with random signs over groups."""
    n_samples, n_types = proportions.shape
    group, sign = random_groups(n_samples)
    rows, samples = np.append(group + n_types, np.repeat(np.arange(n_types), n_samples)), np.arange(n_samples)
    values = np.append(sign, proportions.T)
    columns = np.tile(samples, n_types + 1)
    return csc_array((values, (rows, columns)), shape=(n_types + N_GROUPS, n_samples))


def _squares_left(parts, information, squares):
    """Weighted sum of squares that the model leaves of every gene."""
    loadings = parts.covariance @ information
    fitted = np.einsum("pg,pg->g", loadings, 2 * information - parts.weighted.T @ parts.design @ loadings)
    return np.maximum(squares - fitted, 0)
