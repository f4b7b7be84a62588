"""Expression in the forms in which solvers and replays leave it, behind one face.

Each form answers ``norms()`` and ``grams()``; those with samples behind them also ``squared_residuals()`` and
``mean()``, over genes and without building the tensor, and ``expand(samples, cell_types, genes)``, which builds
the part of it that is asked for: each argument is a slice or an array of positions.
"""

from dataclasses import dataclass

import numpy as np

from ..blocks import as_source, row_blocks, row_products
from .mixture import Expression, Samples, expand, expand_inside, mix, survey

ALL = slice(None)


@dataclass
class Tensor:
    """Expression as an array (n_cell_types, n_samples, n_dimensions)."""

    values: np.ndarray

    def norms(self):
        """Norm of every sample in every cell type, shape (n_samples, n_cell_types)."""
        return np.sqrt(np.einsum("kjd,kjd->jk", self.values, self.values))

    def grams(self):
        """Smaller Gram matrix of every cell type's expression."""
        for rows in self.values:
            yield rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows


@dataclass
class FramedState:
    """Expression along few shared directions, and scaled samples beyond them.

    Attributes
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    samples : Samples
    expression : Expression
    vectors : ndarray of shape (n_directions, n_genes)
    """

    bulk: np.ndarray
    samples: Samples
    expression: Expression
    vectors: np.ndarray

    def expand(self, samples=ALL, cell_types=ALL, genes=ALL):
        """Expression over genes, shape (n_samples, n_cell_types, n_genes), of what is asked for."""
        step = getattr(self.bulk, "block_rows", None)
        positions = np.arange(len(self.bulk))[samples] if step is not None else ()
        if len(positions) <= (step or 0):
            return self._expand(samples, cell_types, genes)
        # what is not in memory is read by blocks
        found = None
        for start in range(0, len(positions), step):
            block = self._expand(positions[start : start + step], cell_types, genes)
            if found is None:
                found = np.empty((len(positions), *block.shape[1:]), dtype=block.dtype)
            found[start : start + step] = block
        return found

    def _expand(self, samples, cell_types, genes):
        chosen = self.expression.select(samples, cell_types)
        if not self.samples.lengths[samples].any():
            return expand_inside(chosen, self.vectors[:, genes], self.bulk.dtype)
        return expand(chosen, self.bulk[samples][:, genes], self.vectors[:, genes])

    def mixed(self, weights, samples=ALL, genes=ALL):
        """Σ_k w_jk p_jk over genes, shape (n_samples, n_genes), in double precision and without the tensor."""
        beyond = self.bulk[samples][:, genes] if self.samples.lengths[samples].any() else None
        return mix(self.expression.select(samples, ALL), weights, beyond, self.vectors[:, genes])

    def norms(self):
        """Norm of every sample in every cell type, shape (n_samples, n_cell_types)."""
        return self.expression.norms()

    def squared_residuals(self):
        """Squared norm of reconstruction minus sample, shape (n_samples,)."""
        return survey(self.samples, self.expression, np.ones(self.samples.proportions.shape))[1]

    def mean(self):
        """Mean over samples, shape (n_cell_types, n_genes)."""
        along = self.expression.beyond_scaled_sample().mean(axis=0)
        return as_source(self.bulk).combine(self.expression.scale.T) / len(self.bulk) + along @ self.vectors


@dataclass
class SpanState:
    """Expression in the span of the cohort, and scaled parts of samples outside it.

    Attributes
    ----------
    coordinates : ndarray of shape (n_samples, n_dimensions)
        The samples in the span.
    outside : ndarray of shape (n_samples, n_genes), or None
        What they hold outside it; None if nothing.
    proportions : ndarray of shape (n_samples, n_cell_types)
    inside : ndarray of shape (n_samples, n_cell_types, n_dimensions)
    scale : ndarray of shape (n_samples, n_cell_types)
        Factor of ``outside``.
    span : Span
    dtype : dtype
        Type of the expanded expression.
    """

    coordinates: np.ndarray
    outside: np.ndarray | None
    proportions: np.ndarray
    inside: np.ndarray
    scale: np.ndarray
    span: object
    dtype: np.dtype

    def _outside_squares(self):
        return 0.0 if self.outside is None else np.einsum("jg,jg->j", self.outside, self.outside)

    def expand(self, samples=ALL, cell_types=ALL, genes=ALL):
        """Expression over genes, shape (n_samples, n_cell_types, n_genes), of what is asked for."""
        span, inside = self.span.select(genes), self.inside[samples][:, cell_types]
        if span.vectors is None:
            inside = inside[:, :, genes]
        scale = self.scale[samples][:, cell_types]
        outside = None if self.outside is None else self.outside[samples][:, None, genes]
        cse = np.empty((*scale.shape, span.n_genes), dtype=self.dtype)
        for rows in row_blocks(cse, 2**22):
            flat = inside[rows].reshape(-1, inside.shape[2])
            cse[rows] = span.to_genes(flat).reshape(cse[rows].shape)
            if outside is not None:
                cse[rows] += scale[rows, :, None] * outside[rows]
        return cse

    def mixed(self, weights, samples=ALL, genes=ALL):
        """Σ_k w_jk p_jk over genes, shape (n_samples, n_genes), in double precision and without the tensor."""
        mixed = np.matmul(weights[:, None], self.inside[samples])[:, 0]
        span = self.span.select(genes)
        mixed = mixed[:, genes] if span.vectors is None else mixed @ span.vectors
        if self.outside is not None:
            mixed += row_products(weights, self.scale[samples])[:, None] * self.outside[samples][:, genes]
        return mixed

    def norms(self):
        """Norm of every sample in every cell type, shape (n_samples, n_cell_types)."""
        inside = np.einsum("jkd,jkd->jk", self.inside, self.inside)
        return np.sqrt(inside + self.scale**2 * np.reshape(self._outside_squares(), (-1, 1)))

    def grams(self):
        """Gram matrix of every cell type's expression."""
        if self.outside is None:
            yield from Tensor(self.inside.swapaxes(0, 1)).grams()
            return
        outside = self.outside @ self.outside.T
        for rows, scale in zip(self.inside.swapaxes(0, 1), self.scale.T, strict=True):
            yield rows @ rows.T + np.outer(scale, scale) * outside

    def squared_residuals(self):
        """Squared norm of reconstruction minus sample, shape (n_samples,)."""
        inside = np.einsum("jk,jkd->jd", self.proportions, self.inside) - self.coordinates
        scale = np.einsum("jk,jk->j", self.proportions, self.scale) - 1.0
        return np.einsum("jd,jd->j", inside, inside) + scale**2 * self._outside_squares()

    def mean(self):
        """Mean over samples, shape (n_cell_types, n_genes)."""
        mean = self.span.to_genes(self.inside.mean(axis=0))
        return mean if self.outside is None else mean + self.scale.T @ self.outside / len(self.outside)


@dataclass
class Span:
    """Orthonormal vectors over genes, or the genes themselves.

    Attributes
    ----------
    vectors : ndarray of shape (n_dimensions, n_genes), or None
        None where coordinates are genes.
    n_genes : int
    """

    vectors: np.ndarray | None
    n_genes: int

    def to_genes(self, coordinates):
        """Expand ``coordinates`` (n_rows, n_dimensions)."""
        return coordinates if self.vectors is None else coordinates @ self.vectors

    def select(self, genes):
        """The same over some of the genes, where the vectors need no longer be orthonormal."""
        vectors = None if self.vectors is None else self.vectors[:, genes]
        return Span(vectors, len(np.arange(self.n_genes)[genes]))

    def split(self, bulk):
        """Coordinates of ``bulk``, and what it holds outside the span (None if it cannot)."""
        bulk = bulk.astype(np.float64, copy=False)
        if self.vectors is None:
            return bulk, None
        coordinates = bulk @ self.vectors.T
        return coordinates, bulk - coordinates @ self.vectors


def objective(state, reference, alpha, penalty):
    """Objective of a model: c/2 (α Σ_j ‖e_j‖² + (1 − α) Σ_k ‖mean_k − r_k‖²) + penalty."""
    offset = state.mean() - reference
    smooth = alpha * np.sum(state.squared_residuals()) + (1.0 - alpha) * np.vdot(offset, offset)
    return float(0.5 * penalty.curvature * smooth + penalty.value(state))
