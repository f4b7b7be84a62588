"""Orthonormal basis of everything a cohort spans.

Every step of the solvers commutes with an orthogonal change of basis in gene space, so they work on the
coordinates of bulk and reference in a basis of their span, of dimension at most samples plus cell types,
however many genes there are.
"""

from copy import copy
from functools import cached_property

import numpy as np
from scipy import linalg

from ..blocks import RowSource
from .states import Span

# Smallest reciprocal condition number of the Gram matrix with which its Cholesky factor serves as coordinates.
GRAM_CONDITION = 1e-6
# Genes per block of the products over genes: a block of a few hundred rows stays in the cache.
BLOCK_GENES = 1024
# Samples per profile up to which compression pays for a solver that reads the rows, and how many times longer an
# orthogonal factorisation takes than a Gram matrix. Measured with 5 and 20 cell types, 2,000 and 20,000 genes.
WORTH_SAMPLES = 60
QR_COST = 6
# Samples per profile for each time that directions join, from where on these readings took longer than a Gram matrix,
# and genes per sample from which on that is small beside the bulk. Measured with 1,000 and 3,000 samples.
WORTH_A_JOIN = 12
GENES_PER_SAMPLE = 6


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
    by_rows : bool
        Whether it was made for a solver that reads rows.

    Notes
    -----
    With L the Cholesky factor of the Gram matrix S Sᵀ of all rows S, the rows of L are coordinates in the
    orthonormal basis L⁻¹ S. This costs a fraction of an orthogonal factorisation. Where the Gram matrix is too
    ill conditioned for it (repeated samples, say), QR takes its place. Nothing is computed before it is asked for.
    """

    def __init__(self, bulk, reference, *, compress=True):
        self._given, self.by_rows = _Rows(bulk, reference), False
        self._compressed = compress and self._given.n_genes > self._given.n_rows

    @cached_property
    def _found(self):
        """Coordinates of all rows, and the ways from them to genes and back."""
        return self._by_gram or _from_qr(self._given)

    @cached_property
    def _by_gram(self):
        return _from_gram(self._given)

    @cached_property
    def bulk(self):
        """Coordinates of the samples, float64, shape (n_samples, n_dimensions)."""
        if not self._compressed:
            return self._given.parts[0].astype(np.float64)  # what keeps it must not refer to the caller's
        return self._found[0][: self._given.n_samples]

    @cached_property
    def rows(self):
        """The same by blocks, as a :class:`RowSource`: of a basis that does not compress, the bulk itself."""
        if not self._compressed:
            return RowSource(self._given.parts[0])
        return RowSource(self.bulk, triangular=True)

    @property
    def reference(self):
        """Coordinates of the reference profiles, float64, shape (n_profiles, n_dimensions)."""
        if not self._compressed:
            return self._given.parts[1].astype(np.float64, copy=False)
        return self._found[0][self._given.n_samples :]

    def to_genes(self, coordinates):
        """Expand coordinates (n_rows, n_dimensions) to genes."""
        return self._found[1](coordinates) if self._compressed else np.asarray(coordinates)

    def to_coordinates(self, vectors):
        """Coordinates of ``vectors`` (n_rows, n_genes) in the span."""
        return self._found[2](vectors) if self._compressed else np.asarray(vectors)

    @property
    def given_bulk(self):
        """The samples over genes, as they were given."""
        return self._given.parts[0]

    @property
    def shape(self):
        """Numbers of samples, profiles and genes."""
        return self._given.n_samples, self._given.n_rows - self._given.n_samples, self._given.n_genes

    def pays(self, n_runs=1):
        """Whether compression takes less time than it saves a solver that reads the rows a few times.

        Its cost grows with the square of the number of samples, that of reading with samples times profiles.

        Parameters
        ----------
        n_runs : int, default=1
            Number of times that the solver will run.
        """
        n_samples, n_profiles, _ = self.shape
        worth = WORTH_SAMPLES * n_profiles * n_runs
        if n_samples * QR_COST <= worth:
            return True
        return n_samples <= worth and self._compressed and self._by_gram is not None

    def for_rows(self, n_runs=1):
        """The basis for a solver that reads rows: that of the genes, unless compression pays, see :meth:`pays`."""
        chosen = copy(self) if self.pays(n_runs) else SpanBasis(*self._given.parts, compress=False)
        chosen.by_rows = True
        return chosen

    @cached_property
    def shorter(self):
        """The compressed basis in place of that of the genes, None where rows would not become much shorter."""
        bulk, _ = self._given.parts
        small = GENES_PER_SAMPLE * self._given.n_rows <= self._given.n_genes
        if self._compressed or not small or not isinstance(bulk, np.ndarray):
            return None
        basis = SpanBasis(*self._given.parts)
        basis.by_rows = True
        return basis if basis._by_gram is not None else None

    @property
    def n_joins_worth(self):
        """How often directions may join before :attr:`shorter` would have taken less time: 0 once it is there."""
        n_samples, n_profiles, _ = self.shape
        return 0 if "shorter" in vars(self) else n_samples / (WORTH_A_JOIN * n_profiles)

    @property
    def samples(self):
        """The samples as a solver takes them: ``rows`` where it reads them by blocks, else ``bulk``."""
        return self.rows if self.by_rows else self.bulk

    def span(self):
        """The basis as vectors over genes, without the cohort."""
        vectors = self.to_genes(np.eye(self._given.n_rows)) if self._compressed else None
        return Span(vectors, self._given.n_genes)


class _Rows:
    """Bulk on top of reference, in float64, without a copy of the whole."""

    def __init__(self, bulk, reference):
        self.parts = bulk, reference
        self.n_samples, self.n_rows = len(bulk), len(bulk) + len(reference)
        self.n_genes = bulk.shape[1]

    def columns(self, genes):
        return np.vstack([part[:, genes] for part in self.parts], dtype=np.float64)

    def blocks(self):
        for start in range(0, self.n_genes, BLOCK_GENES):
            genes = slice(start, start + BLOCK_GENES)
            yield genes, self.columns(genes)


def _from_gram(rows):
    """What :class:`SpanBasis` needs from the Gram matrix, or None if that is ill conditioned."""
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

    def to_coordinates(vectors):
        products = np.zeros((len(vectors), rows.n_rows))
        for genes, block in rows.blocks():
            products += vectors[:, genes] @ block.T
        return linalg.solve_triangular(factor, (products / lengths).T, lower=True, check_finite=False).T

    return lengths[:, None] * factor, to_genes, to_coordinates


def _multiply_triangular(lower, matrix):
    """``lower @ matrix`` at half the cost, in place of ``matrix``."""
    # BLAS knows columns: to it, a matrix by rows is its transpose
    return linalg.blas.dtrmm(1.0, lower, matrix.T, side=1, lower=1, trans_a=1, overwrite_b=1).T


def _from_qr(rows):
    """The same from an orthogonal factorisation."""
    vectors, triangle = linalg.qr(
        rows.columns(slice(None)).T, mode="economic", check_finite=False, overwrite_a=True
    )
    return triangle.T, lambda coordinates: coordinates @ vectors.T, lambda given: given @ vectors
