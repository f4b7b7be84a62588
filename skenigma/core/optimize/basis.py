"""Orthonormal basis of everything a cohort spans.

Every step of the solvers commutes with an orthogonal change of basis in gene space, so they work on the
coordinates of bulk and reference in a basis of their span, of dimension at most samples plus cell types,
however many genes there are.
"""

import numpy as np
from scipy import linalg

from .states import Span

# Smallest reciprocal condition number of the Gram matrix with which its Cholesky factor serves as coordinates.
GRAM_CONDITION = 1e-6
# Genes per block of the products over genes: a block of a few hundred rows stays in the cache.
BLOCK_GENES = 1024


class SpanBasis:
    """Orthonormal basis of the span of all rows of ``bulk`` and ``reference``.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    reference : ndarray of shape (n_cell_types, n_genes)
    compress : bool, default=True
        Whether to change the basis where that makes the rows shorter. False keeps the genes as they are.

    Attributes
    ----------
    bulk : ndarray of shape (n_samples, n_dimensions)
        Coordinates of the samples, float64.
    reference : ndarray of shape (n_cell_types, n_dimensions)
        Coordinates of the reference profiles, float64.

    Notes
    -----
    With L the Cholesky factor of the Gram matrix S Sᵀ of all rows S, the rows of L are coordinates in the
    orthonormal basis L⁻¹ S. This costs a fraction of an orthogonal factorisation. Where the Gram matrix is too
    ill conditioned for it (repeated samples, say), QR takes its place.
    """

    def __init__(self, bulk, reference, *, compress=True):
        rows = _Rows(bulk, reference)
        self._n_genes = rows.n_genes
        self._compressed = compress and rows.n_genes > rows.n_rows
        if self._compressed:
            coordinates, self.to_genes = _from_gram(rows) or _from_qr(rows)
        else:
            coordinates, self.to_genes = rows.columns(slice(None)), np.asarray
        self.bulk, self.reference = coordinates[: len(bulk)], coordinates[len(bulk) :]

    def span(self):
        """The basis as vectors over genes, without the cohort."""
        n_dimensions = self.bulk.shape[1]
        vectors = self.to_genes(np.eye(n_dimensions)) if self._compressed else None
        return Span(vectors, self._n_genes)


class _Rows:
    """Bulk on top of reference, in float64, without a copy of the whole."""

    def __init__(self, bulk, reference):
        self.parts = bulk, reference
        self.n_rows, self.n_genes = len(bulk) + len(reference), bulk.shape[1]

    def columns(self, genes):
        return np.vstack([part[:, genes] for part in self.parts], dtype=np.float64)

    def blocks(self):
        for start in range(0, self.n_genes, BLOCK_GENES):
            genes = slice(start, start + BLOCK_GENES)
            yield genes, self.columns(genes)


def _from_gram(rows):
    """Coordinates and the way back to genes from the Gram matrix, or None if that is ill conditioned."""
    gram = np.zeros((rows.n_rows, rows.n_rows))
    for _, block in rows.blocks():
        gram += block @ block.T
    # unit diagonal: samples of different size say nothing about accuracy
    lengths = np.sqrt(np.diag(gram))
    if not np.all(lengths > 0):
        return None
    gram /= lengths[:, None] * lengths
    norm = np.abs(gram).sum(axis=0).max()
    factor, failed = linalg.lapack.dpotrf(gram, lower=1, clean=1)
    if failed or linalg.lapack.dpocon(factor, norm, uplo="L")[0] < GRAM_CONDITION:
        return None

    def to_genes(coordinates):
        weights = linalg.lapack.dtrtri(factor, lower=1)[0] / lengths
        if np.array_equal(coordinates, np.eye(rows.n_rows)):  # all vectors, which most ask for
            return _multiply_triangular(weights, rows.columns(slice(None)))
        weights = coordinates @ weights
        vectors = np.empty((len(coordinates), rows.n_genes))
        for genes, block in rows.blocks():
            np.matmul(weights, block, out=vectors[:, genes])
        return vectors

    return lengths[:, None] * factor, to_genes


def _multiply_triangular(lower, matrix):
    """``lower @ matrix`` at half the cost, in the place of ``matrix``."""
    # BLAS knows columns: to it, a matrix by rows is its transpose
    return linalg.blas.dtrmm(1.0, lower, matrix.T, side=1, lower=1, trans_a=1, overwrite_b=1).T


def _from_qr(rows):
    """Coordinates and the way back to genes from an orthogonal factorisation."""
    vectors, triangle = linalg.qr(
        rows.columns(slice(None)).T, mode="economic", check_finite=False, overwrite_a=True
    )
    return triangle.T, lambda coordinates: coordinates @ vectors.T
