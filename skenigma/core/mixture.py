"""The mixture model on samples that move along shared directions only.

Every update of the maximum-L2-norm model adds to a sample's expression a multiple of the sample itself and
vectors that all samples share. Hence the expression of sample j in cell type k is always

    p_jk = (coordinates along shared directions) + a_jk · (part of x_j outside these directions)

and a state of coordinates and scales is all that an iteration touches. The functions here treat every sample
on its own; fitting and replaying call the same ones.
"""

from functools import cached_property
from math import sqrt

import numpy as np

# Numbers that a block of samples may hold, so that several passes over it stay in the cache.
BLOCK_SIZE = 2**15
# Samples expanded by one matrix product: few, because each costs a row of multiplications with zeros.
EXPANDED_TOGETHER = 8
# A squared change below this share of the squared norm is computed from the difference, to keep its digits.
SMALL_CHANGE = 1e-6
# A cap of 0 belongs to norms of 0.
SMALLEST = np.finfo(np.float64).tiny


class Samples:
    """Bulk samples seen from a frame of shared directions.

    Parameters
    ----------
    proportions : ndarray of shape (n_samples, n_cell_types)
    rows : ndarray of shape (n_samples, 1 + n_directions)
        Length of what a sample holds beyond the directions, then its coordinates along them.
    mixing : Mixing, optional
        Of the proportions, where it is known.
    """

    def __init__(self, proportions, rows, mixing=None):
        self.proportions, self.rows = proportions, rows
        self.mixing = Mixing(proportions) if mixing is None else mixing

    def seen(self, rows):
        """The same samples from another frame."""
        return Samples(self.proportions, rows, self.mixing)

    @property
    def lengths(self):
        """Length of what a sample holds beyond the directions, shape (n_samples,)."""
        return self.rows[:, 0]

    @property
    def inside(self):
        """Coordinates along the directions, shape (n_samples, n_directions)."""
        return self.rows[:, 1:]

    def start(self):
        """Expression with which every iteration starts: the sample itself, in every cell type."""
        return Expression(np.repeat(self.rows[:, None], self.proportions.shape[1] + 1, axis=1))


class Mixing:
    """What every iteration needs of the proportions.

    Attributes
    ----------
    squares : ndarray of shape (n_samples,)
        Sum of the squares of the proportions of a sample.
    """

    def __init__(self, proportions):
        self._proportions = proportions
        self.squares = row_products(proportions, proportions)

    @cached_property
    def products(self):
        """Products of the proportions of a sample, shape (n_samples, n_cell_types, n_cell_types)."""
        return self._proportions[:, :, None] * self._proportions[:, None, :]


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
        self.rows = rows

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


def row_products(left, right):
    """Inner products along the last axis."""
    return _vecdot(left, right) if _vecdot else np.einsum("...d,...d->...", left, right)


_vecdot = getattr(np, "vecdot", None)  # NumPy 2; a third faster than einsum


def residuals(samples, expression, sizes=1.0):
    """Reconstruction Σ_k θ_jk p_jk minus the sample, in the rows of the frame: shape (n_samples, 1 + n_directions).

    ``sizes`` are factors of the expression, as in :func:`gradient_step`.
    """
    n_samples, n_cell_types = samples.proportions.shape
    mix = np.empty((n_samples, 1, n_cell_types + 1))
    np.multiply(samples.proportions, sizes, out=mix[:, 0, :-1])
    mix[:, 0, -1] = -1.0
    return np.matmul(mix, expression.rows)[:, 0]


def gradient_step(samples, expression, sizes, factor, shift, out):
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
    out : Expression
        Where the step ends; written. The samples themselves must be in it, as in :meth:`Expression.empty_like`.

    Returns
    -------
    norms : ndarray of shape (n_samples, n_cell_types)
        Norms of ``out``.
    products : ndarray of shape (n_samples, n_cell_types)
        Inner products of ``out`` with ``expression``, without ``sizes``.
    """
    step = _step_matrices(samples, sizes, factor)
    # flat, so that it is subtracted in long runs; the samples themselves are not shifted, nor what is their own
    assert out.rows.flags.c_contiguous, "the shift would be subtracted from a copy"
    flat_shift = np.zeros(out.rows.shape[1:])
    flat_shift[:-1, 1:] = shift
    flat_shift = flat_shift.ravel()
    flat = out.rows.reshape(len(out.rows), -1)
    squares, products = np.empty((2, *samples.proportions.shape))
    for rows in row_blocks(out.rows):
        block, start = out.own[rows], expression.rows[rows]
        np.matmul(step[rows], start, out=block)
        flat[rows] -= flat_shift
        squares[rows] = row_products(block, block)
        products[rows] = row_products(block, start[:, :-1])
    return np.sqrt(squares, out=squares), products


def _step_matrices(samples, sizes, factor):
    """Row k of a sample's matrix: unit row k minus factor θ_k (θ, −1), the weights of the residual."""
    n_samples, n_cell_types = samples.proportions.shape
    step = np.empty((n_samples, n_cell_types, n_cell_types + 1))
    np.multiply(samples.mixing.products, (-factor * sizes)[:, None], out=step[:, :, :-1])
    np.multiply(samples.proportions, factor, out=step[:, :, -1])
    step.reshape(n_samples, -1)[:, :: n_cell_types + 2] += sizes
    return step


def cut_factors(norms, caps):
    """Factors that cut ``norms`` to ``caps``; 1 where nothing is cut, so that a norm of 0 does no harm."""
    caps = np.maximum(caps, SMALLEST)
    return caps / np.maximum(norms, caps)


class Point:
    """Where an iteration stands.

    Parameters
    ----------
    expression : Expression
        But for ``sizes``.
    sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of it that are still to be applied.
    norms : ndarray of shape (n_samples, n_cell_types)
        Norms with these factors.

    Attributes
    ----------
    squares : ndarray of shape (n_cell_types,)
        Squared norm of each cell type's expression.
    total : float
        Their sum.
    """

    def __init__(self, expression, sizes, norms):
        self.expression, self.sizes, self.norms = expression, sizes, norms
        self.squares = row_products(norms.T, norms.T)
        self.total = self.squares.sum()


def squared_change(new, old, products):
    """Squared distance between two points, per cell type.

    Parameters
    ----------
    new, old : Point
    products : ndarray of shape (n_samples, n_cell_types)
        Inner products of the two expressions, without the factors.

    Returns
    -------
    squared_change : ndarray of shape (n_cell_types,)

    Notes
    -----
    ‖p − q‖² = ‖p‖² + ‖q‖² − 2⟨p, q⟩ needs no pass over the rows, but loses the digits by which p and q agree. Where
    that is too many, the difference itself is formed.
    """
    common = new.sizes * old.sizes
    common *= products
    change = new.squares + old.squares - 2.0 * common.sum(axis=0)
    return change if (change > SMALL_CHANGE * old.squares).all() else _direct_change(new, old)


def _direct_change(new, old):
    """The same from the differences themselves."""
    change = np.zeros(new.sizes.shape[1])
    # diagonal matrices: for so short rows a matrix product is twice as fast as scaling them
    identity = np.eye(len(change))
    by, was = (point.sizes[:, :, None] * identity for point in (new, old))
    for rows in row_blocks(new.expression.rows):
        step = np.matmul(by[rows], new.expression.own[rows])
        step -= np.matmul(was[rows], old.expression.own[rows])
        change += row_products(step, step).sum(axis=0)
    return change


def reconstruction_gradient_norm(mixing, squared_residuals):
    """Frobenius norm of the gradient of the reconstruction term: ‖G1‖² = 4 Σ_j (Σ_k θ_jk²) ‖e_j‖²."""
    return 2.0 * sqrt(mixing.squares @ squared_residuals)


def reference_gradient_norm(offset_size, n_samples):
    """Frobenius norm of the gradient of the reference term: ‖G2‖² = (4/n) Σ_k ‖m_k‖²."""
    return 2.0 * offset_size / sqrt(n_samples)


def lipschitz_constant(proportions, alpha):
    """Bound on the curvature of the smooth terms: 2α·max_j‖θ_j‖² + 2(1−α)/n."""
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


def expand_inside(expression, vectors, dtype):
    """Expression over genes, like :func:`expand`, where the samples hold nothing outside the directions."""
    inside = expression.inside
    n_samples, n_cell_types, n_directions = inside.shape
    flat = inside.reshape(n_samples * n_cell_types, n_directions).astype(dtype, copy=False)
    cse = flat @ vectors.astype(dtype, copy=False)
    return cse.reshape(n_samples, n_cell_types, -1)


def row_blocks(rows, size=BLOCK_SIZE):
    """Slices over the first axis, each of about ``size`` numbers and at least one row."""
    if 0 < rows.size <= size:
        return (slice(0, len(rows)),)
    step = max(1, size // max(1, rows[0].size)) if len(rows) else 1
    return [slice(start, start + step) for start in range(0, len(rows), step)]
