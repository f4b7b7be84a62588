r"""Regression of many genes on a phenotype that acts through one weight per sample, cell type and gene.

Per gene g, with weights :math:`w_{jk}`, phenotype :math:`y_j` (one column or several) and nuisance columns N,

.. math:: z_j = N_j \gamma + \sum_k w_{jk}\, y_j \delta_k + \varepsilon_j .

All that the estimates of :math:`\delta` need are sums over samples which are linear in y and in its products. So the
normal equations of many phenotypes (the one that was observed and its permutations) are a few matrix products for a
block of genes, and no design is ever built or factorised for a permutation.
"""

from dataclasses import dataclass

import numpy as np

from .generalized import gene_blocks

# A column that keeps less than this share of its squared length beside the nuisance columns carries no effect.
NEGLIGIBLE = 1e-10


@dataclass
class Equations:
    """Normal equations S δ = r of B phenotypes in g genes, nuisance columns removed; P = K·m effects, type slowest.

    Attributes
    ----------
    gram : ndarray of shape (B, g, P, P)
        S.
    moment : ndarray of shape (B, g, P)
        r.
    squares : ndarray of shape (g,)
        Sum of squares that the nuisance columns leave.
    """

    gram: np.ndarray
    moment: np.ndarray
    squares: np.ndarray

    def least_squares(self):
        """Estimates, their variances at a residual variance of 1, and residual sums of squares."""
        inverse = np.linalg.inv(_regular(self.gram))
        estimate = np.einsum("bgpq,bgq->bgp", inverse, self.moment)
        explained = np.einsum("bgp,bgp->bg", estimate, self.moment)
        return estimate, inverse, np.maximum(self.squares - explained, 0.0)

    def residual_squares(self):
        """Residual sums of squares alone."""
        estimate = np.linalg.solve(_regular(self.gram), self.moment[..., None])[..., 0]
        return np.maximum(self.squares - np.einsum("bgp,bgp->bg", estimate, self.moment), 0.0)

    def posterior(self, variance, prior_precision):
        """Mean and covariance of δ under N(0, prior) and residual variances of shape (B, g)."""
        covariance = np.linalg.inv(self.gram / variance[..., None, None] + prior_precision)
        return np.einsum("bgpq,bgq->bgp", covariance, self.moment / variance[..., None]), covariance


def equations(response, weights, nuisance, coded):
    """Normal equations of every phenotype in every gene.

    Parameters
    ----------
    response : ndarray of shape (n, g)
    weights : ndarray of shape (n, K, g)
    nuisance : ndarray of shape (n, q, g)
        Columns of full rank in every gene.
    coded : ndarray of shape (B, n, m)
        The phenotypes' columns.

    Returns
    -------
    Equations
    """
    n_phenotypes, n_samples, n_coded = coded.shape
    n_types, n_genes = weights.shape[1:]
    basis = np.linalg.qr(nuisance.transpose(2, 0, 1))[0].transpose(1, 2, 0)  # (n, q, g)
    response = response - np.einsum("nqg,qg->ng", basis, np.einsum("nqg,ng->qg", basis, response))
    flat = coded.transpose(0, 2, 1).reshape(-1, n_samples)

    def sums(factor, values):
        """Sums over samples of products, one row per column of ``factor``."""
        return (factor @ values.reshape(n_samples, -1)).reshape(len(factor), *values.shape[1:])

    shape = n_phenotypes, n_genes, n_types * n_coded
    moment = sums(flat, weights * response[:, None]).reshape(n_phenotypes, n_coded, n_types, n_genes)
    moment = moment.transpose(0, 3, 2, 1).reshape(shape)
    gram = np.empty((n_phenotypes, n_genes, n_types, n_coded, n_types, n_coded))
    products = np.einsum("bna,bnc->bacn", coded, coded).reshape(-1, n_samples)
    for k in range(n_types):
        of_type = sums(products, weights[:, [k]] * weights[:, k:])
        of_type = of_type.reshape(n_phenotypes, n_coded, n_coded, n_types - k, n_genes)
        gram[:, :, k, :, k:] = of_type.transpose(0, 4, 1, 3, 2)
        gram[:, :, k:, :, k] = of_type.transpose(0, 4, 3, 2, 1)
    gram = gram.reshape(*shape, shape[-1])
    along = np.stack([sums(flat, weights[:, [k]] * basis) for k in range(n_types)], axis=1)  # (B·m, K, q, g)
    along = along.reshape(n_phenotypes, n_coded, *along.shape[1:]).transpose(0, 4, 2, 1, 3)
    along = along.reshape(*shape, -1)
    whole = np.einsum("bgpp->bgp", gram).copy()
    gram -= along @ along.swapaxes(-1, -2)
    _blank(gram, moment, whole)
    return Equations(gram, moment, np.einsum("ng,ng->g", response, response))


class CommonColumns:
    """Normal equations where all genes have the same columns and only the weights of values differ.

    The weighted columns of a gene then need not be built: all sums of their products are one product of matrices, of
    the weights and of the products of columns.

    Parameters
    ----------
    weights : ndarray of shape (n, g)
        Of values; positive, and not of many orders of magnitude.
    response : ndarray of shape (n, g)
    nuisance : ndarray of shape (n, q)
        Orthonormal columns.
    """

    def __init__(self, weights, response, nuisance):
        self._weights, self._weighted, self._nuisance = weights, weights * response, nuisance
        # W = 1/L with L Lᵀ the nuisance columns' own products: W times their moments are those of orthonormal columns
        self._whitening = np.linalg.inv(np.linalg.cholesky(_sums_of_products(weights, nuisance)))
        self._moment = (self._whitening @ (self._weighted.T @ nuisance)[:, :, None])[:, :, 0]
        squares = np.einsum("ng,ng->g", self._weighted, response) - np.sum(self._moment**2, axis=1)
        self._squares = np.maximum(squares, 0.0)

    def equations(self, designs):
        """Normal equations of designs of shape (B, n, P), columns (P) of one phenotype each."""
        n_genes, size = len(self._squares), designs.shape[2]
        gram = np.empty((len(designs), n_genes, size, size))
        moment = np.empty(gram.shape[:3])
        for design, own_gram, own_moment in zip(designs, gram, moment, strict=True):
            own_gram[:] = _sums_of_products(self._weights, design)
            along = self._along(design)
            own_moment[:] = self._weighted.T @ design - (along @ self._moment[:, :, None])[:, :, 0]
            whole = np.einsum("gpp->gp", own_gram).copy()
            own_gram -= along @ along.swapaxes(1, 2)
            _blank(own_gram, own_moment, whole)
        return Equations(gram, moment, self._squares)

    def coefficients(self, design, changes):
        """Coefficients (q, g) of the nuisance columns beside those of a design, (P, g)."""
        explained = (changes.T[:, None] @ self._along(design))[:, 0]
        return (self._whitening.swapaxes(1, 2) @ (self._moment - explained)[:, :, None])[:, :, 0].T

    def _along(self, design):
        """Products (g, P, q) of the columns and of nuisance columns that are orthonormal in every gene."""
        return _sums_of_products(self._weights, design, self._nuisance) @ self._whitening.swapaxes(1, 2)


def _sums_of_products(weights, left, right=None):
    """Weighted sums over samples, (g, a, b), of the products of columns (n, a) and (n, b), the same ones if None."""
    a, b = left.shape[1], left.shape[1] if right is None else right.shape[1]
    first, second = np.triu_indices(a) if right is None else (grid.ravel() for grid in np.indices((a, b)))
    whole = np.empty((weights.shape[1], a, b))
    sums = np.zeros((len(first), weights.shape[1]))
    by_column = np.ascontiguousarray(left.T), np.ascontiguousarray((left if right is None else right).T)
    for rows in gene_blocks(len(left), len(first)):
        sums += (by_column[0][first, rows] * by_column[1][second, rows]) @ weights[rows]
    whole[:, first, second] = sums.T
    if right is None:
        whole[:, second, first] = sums.T
    return whole


def _blank(gram, moment, whole):
    """Zero what is left, by rounding, of columns that the nuisance columns span."""
    diagonal = np.einsum("...pp->...p", gram)
    empty = diagonal <= NEGLIGIBLE * whole
    if empty.any():
        gram[empty] = 0.0
        gram.swapaxes(-1, -2)[empty] = 0.0
        moment[empty] = 0.0


def _regular(gram):
    """The matrix with a 1 on the diagonal of empty columns, and a ridge of rounding on the others."""
    diagonal = np.einsum("...pp->...p", gram)
    added = np.where(diagonal > 0, NEGLIGIBLE * diagonal, 1.0)
    regular = gram.copy()
    np.einsum("...pp->...p", regular)[...] += added
    return regular
