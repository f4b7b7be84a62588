"""The mixture model on samples that move along shared directions only.

Every update of the maximum-L2-norm model adds to a sample's expression a multiple of the sample itself and
vectors that all samples share. Hence the expression of sample j in cell type k is always

    p_jk = (coordinates along shared directions) + a_jk · (part of x_j outside these directions)

and a state of coordinates and scales is all that an iteration touches. The functions here treat every sample
on its own; fitting and replaying call the same ones.
"""

from copy import copy
from math import sqrt
from typing import NamedTuple

import numpy as np

from ..blocks import BLOCK_SIZE, row_blocks, row_products
from . import passes

# Samples expanded by one matrix product: few, because each costs a row of multiplications with zeros.
EXPANDED_TOGETHER = 8
# A squared distance below this share of the squared norm is computed from the difference, to keep its digits.
SMALL_DISTANCE = 1e-6


class Samples:
    """Bulk samples seen from a frame of shared directions.

    Parameters
    ----------
    proportions : ndarray of shape (n_samples, n_cell_types)
    rows : ndarray of shape (n_samples, 1 + n_directions)
        Length of what a sample holds beyond the directions, then its coordinates along them.

    Attributes
    ----------
    theta_squares : ndarray of shape (n_samples,)
        Sum of the squares of the proportions of a sample.
    """

    def __init__(self, proportions, rows):
        self.proportions, self.rows = np.array(proportions, order="C"), rows  # theirs may be read-only
        self.theta_squares = row_products(proportions, proportions)

    def seen(self, rows):
        """The same samples from another frame."""
        samples = copy(self)
        samples.rows = rows
        return samples

    def select(self, some):
        """Some of the samples, given as a slice."""
        return Samples(self.proportions[some], self.rows[some])

    @property
    def lengths(self):
        """Length of what a sample holds beyond the directions, shape (n_samples,)."""
        return self.rows[:, 0]

    @property
    def inside(self):
        """Coordinates along the directions, shape (n_samples, n_directions)."""
        return self.rows[:, 1:]

    def start(self, start, empty=np.empty):
        """Expression with which an iteration starts: the same function of every sample.

        Parameters
        ----------
        start : Start
            Its profiles as coordinates along the directions.
        empty : callable
            Makes an array of a shape, to be written to.
        """
        n_cell_types = self.proportions.shape[1]
        rows = empty((len(self.rows), n_cell_types + 1, self.rows.shape[1]))
        rows[:] = self.rows[:, None]
        rows[:, :-1] *= start.factor
        if start.profiles is not None:
            rows[:, :-1, 1 : 1 + start.profiles.shape[1]] += start.profiles
        return Expression(rows)


class Expression:
    """Cell-type-specific expression as coordinates along shared directions and along the rest of each sample.

    What sample j holds beyond the directions is one more direction, its own: the first column is a_jk times the
    length of that part. The sample itself is carried along as one more row after the cell types. So residual and
    gradient step are both small matrices times the rows of a sample, every norm is that of a row, and every pass runs
    over contiguous memory.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_cell_types + 1, 1 + n_directions)
    """

    def __init__(self, rows):
        self.rows = np.ascontiguousarray(rows)  # a choice of cell types may lie otherwise

    @property
    def own(self):
        """Rows of the cell types, shape (n_samples, n_cell_types, 1 + n_directions)."""
        return self.rows[:, :-1]

    @property
    def inside(self):
        """Coordinates of the cell types along the directions, shape (n_samples, n_cell_types, n_directions)."""
        return self.rows[:, :-1, 1:]

    @property
    def scale(self):
        """Factors a_jk, shape (n_samples, n_cell_types); 0 where there is nothing to scale."""
        lengths = self.rows[:, -1:, 0]
        scaled = self.rows[:, :-1, 0]
        return np.divide(scaled, lengths, out=np.zeros_like(scaled), where=lengths > 0)

    def select(self, samples, cell_types):
        """Expression of some samples and cell types, each given as a slice or an array of positions."""
        n_cell_types = self.rows.shape[1] - 1
        kept = np.arange(n_cell_types)[cell_types]
        if len(kept) == n_cell_types and np.all(np.diff(kept) == 1):
            return Expression(self.rows[samples])
        kept = np.append(kept, n_cell_types)  # the sample itself comes along
        return Expression(self.rows[samples][:, kept])

    def beyond_scaled_sample(self):
        """What the expression holds along the directions besides the scaled sample."""
        return self.inside - self.scale[:, :, None] * self.rows[:, -1:, 1:]

    def empty_like(self):
        """An expression of the same samples, its cell types not set."""
        rows = np.empty_like(self.rows)
        rows[:, -1] = self.rows[:, -1]
        return Expression(rows)

    def scale_by(self, sizes):
        """Multiply every cell type's expression by ``sizes`` (n_samples, n_cell_types), in place."""
        self.own[...] *= sizes[:, :, None]

    def norms(self):
        """Norm of every cell type's expression, shape (n_samples, n_cell_types)."""
        return np.sqrt(row_products(self.own, self.own))


def survey(samples, expression, sizes):
    """Mean expression, in the rows of the frame, and squared norms of the residuals.

    Returns
    -------
    mean : ndarray of shape (n_cell_types, 1 + n_directions)
        The first column is of no use: the part of a sample beyond the directions is a direction of its own.
    squares : ndarray of shape (n_samples,)
        Of the reconstruction Σ_k θ_jk p_jk minus the sample.
    """
    return passes.fastest().survey(expression.rows, samples.proportions, sizes)


class Point(NamedTuple):
    """Where an iteration stands, apart from the expression itself.

    Attributes
    ----------
    sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of the expression that are still to be applied.
    norms : ndarray of shape (n_samples, n_cell_types)
        Its norms, the factors applied.
    longest : ndarray of shape (n_cell_types,)
        Largest norm of a sample in each cell type.
    square : float
        Squared norm of the whole.
    """

    sizes: np.ndarray
    norms: np.ndarray
    longest: np.ndarray
    square: float

    @classmethod
    def of(cls, expression):
        """The point of an expression that needs no factors."""
        norms = expression.norms()
        return cls(np.ones(norms.shape), norms, norms.max(axis=0), np.vdot(norms, norms))


class Step(NamedTuple):
    """What a gradient step has led to.

    Attributes
    ----------
    norms : ndarray of shape (n_samples, n_cell_types)
        Norms of the expression where it ended.
    nearest : ndarray of shape (n_samples, n_cell_types)
        The multiple of this expression that comes nearest to where the step started.
    apart : ndarray of shape (n_samples, n_cell_types)
        Squared distance of the two.
    """

    norms: np.ndarray
    nearest: np.ndarray
    apart: np.ndarray

    def cut(self, caps):
        """Cut the expression to norms of at most ``caps``, shape (n_cell_types,).

        Returns
        -------
        point : Point
        squared_change : ndarray of shape (n_cell_types,)
            Squared distance from where the step started, over all samples.

        Notes
        -----
        From p to c q it is ‖p − a q‖² + (c − a)² ‖q‖², where a q is nearest to p. Both summands keep their digits
        when p and c q agree in many, and no pass over the rows is needed.
        """
        sizes, left, longest, change, square = passes.fastest().cut(
            self.norms, caps, self.nearest, self.apart
        )
        return Point(sizes, left, longest, square), change


def gradient_step(samples, expression, sizes, factor, shift, out, norms=None):
    """Take one gradient step: p_jk minus ``factor`` θ_jk e_j, with the residual e_j, minus a shared shift.

    Parameters
    ----------
    samples : Samples
    expression : Expression
        Where the step starts, but for ``sizes``; not changed.
    sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of ``expression``: what the last cut left of it. The step takes them in, which saves a pass.
    factor : float
        Step along the gradient of the reconstruction term.
    shift : ndarray of shape (n_cell_types, n_directions)
        Step along the gradient of the reference term, the same for every sample.
    out : Expression or None
        Where the step ends; written. The samples themselves must be in it, as in :meth:`Expression.empty_like`. With
        None, no more than the :class:`Step` is found.
    norms : ndarray of shape (n_samples, n_cell_types), optional
        Norms of where it starts. Without them, no more than the norms of the :class:`Step` are of use.

    Returns
    -------
    Step
    """
    norms, small = (sizes, 0.0) if norms is None else (norms, SMALL_DISTANCE)
    end = None if out is None else out.rows
    return Step(
        *passes.fastest().step(expression.rows, samples.proportions, sizes, norms, small, factor, shift, end)
    )


def reconstruction_gradient_norm(samples, squared_residuals):
    """Frobenius norm of the gradient of the reconstruction term: ‖G1‖² = 4 Σ_j (Σ_k θ_jk²) ‖e_j‖²."""
    return 2.0 * sqrt(samples.theta_squares @ squared_residuals)


def reference_gradient_norm(offset_size, n_samples):
    """Frobenius norm of the gradient of the reference term: ‖G2‖² = (4/n) Σ_k ‖m_k‖²."""
    return 2.0 * offset_size / sqrt(n_samples)


def lipschitz_constant(proportions, alpha):
    """Bound on the curvature of data terms without 1/2: 2α·max_j‖θ_j‖² + 2(1−α)/n."""
    largest = np.max(np.einsum("jk,jk->j", proportions, proportions))
    return 2.0 * alpha * largest + 2.0 * (1.0 - alpha) / len(proportions)


def observe(bulk, vectors, proportions):
    """Bulk samples seen from the frame ``vectors``, none of which need be in their span.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    vectors : ndarray of shape (n_directions, n_genes)
        Orthonormal directions.
    proportions : ndarray of shape (n_samples, n_cell_types)

    Returns
    -------
    Samples
    """
    seen = np.empty((len(bulk), 1 + len(vectors)))
    for rows in row_blocks(bulk, 16 * BLOCK_SIZE):
        block = bulk[rows].astype(np.float64, copy=False)
        inside = block @ vectors.T
        # the rest itself, not a difference of squared norms: that would lose half of the digits
        rest = block - inside @ vectors
        seen[rows, 1:] = inside
        seen[rows, 0] = np.sqrt(row_products(rest, rest))
    return Samples(np.asarray(proportions, dtype=np.float64), seen)


def expand(expression, bulk, vectors):
    """Expression over genes: a_jk x_j + (what lies along the directions besides) times the directions.

    Parameters
    ----------
    expression : Expression
    bulk : ndarray of shape (n_samples, n_genes)
    vectors : ndarray of shape (n_directions, n_genes)

    Returns
    -------
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
        In the type of ``bulk``.
    """
    along, scale = expression.beyond_scaled_sample(), expression.scale
    (n_samples, n_cell_types), n_genes = scale.shape, bulk.shape[1]
    cse = np.empty((n_samples, n_cell_types, n_genes), dtype=bulk.dtype)
    # one product per few samples, [coordinates, scales on a diagonal] times [directions; samples], writes the
    # result once; adding the scaled samples afterwards would read and write the whole tensor again
    right = np.empty((len(vectors) + EXPANDED_TOGETHER, n_genes), dtype=bulk.dtype)
    right[: len(vectors)] = vectors
    for start in range(0, n_samples, EXPANDED_TOGETHER):
        rows = slice(start, min(start + EXPANDED_TOGETHER, n_samples))
        count = rows.stop - start
        left = np.zeros((count, n_cell_types, len(vectors) + count), dtype=bulk.dtype)
        left[:, :, : len(vectors)] = along[rows]
        left[range(count), :, range(len(vectors), left.shape[2])] = scale[rows]
        right[len(vectors) : left.shape[2]] = bulk[rows]
        target = cse[rows].reshape(-1, n_genes)
        np.matmul(left.reshape(-1, left.shape[2]), right[: left.shape[2]], out=target)
    return cse


def mix(expression, weights, bulk, vectors):
    """Combinations over genes of a sample's cell types, without these: as of :func:`expand`, summed.

    Parameters
    ----------
    expression : Expression
    weights : ndarray of shape (n_samples, n_cell_types)
    bulk : ndarray of shape (n_samples, n_genes), or None
        None where the samples hold nothing outside the directions.
    vectors : ndarray of shape (n_directions, n_genes)

    Returns
    -------
    mixed : ndarray of shape (n_samples, n_genes)
    """
    along = np.matmul(weights[:, None], expression.beyond_scaled_sample())[:, 0]
    mixed = along.astype(vectors.dtype, copy=False) @ vectors
    if bulk is not None:
        mixed += row_products(weights, expression.scale)[:, None] * bulk
    return mixed


def expand_inside(expression, vectors, dtype):
    """Expression over genes, like :func:`expand`, where the samples hold nothing outside the directions."""
    inside = expression.inside
    n_samples, n_cell_types, n_directions = inside.shape
    flat = inside.reshape(n_samples * n_cell_types, n_directions).astype(dtype, copy=False)
    cse = flat @ vectors.astype(dtype, copy=False)
    return cse.reshape(n_samples, n_cell_types, -1)
