"""The mixture model on samples that move along shared directions only.

Every update of the maximum-L2-norm model adds to a sample's expression a multiple of the sample itself and
vectors that all samples share. Hence the expression of sample j in cell type k is always

    p_jk = (coordinates along shared directions) + a_jk · (part of x_j outside these directions)

and a state of coordinates and scales is all that an iteration touches. The functions here treat every sample
on its own; fitting and replaying call the same ones.
"""

from dataclasses import dataclass

import numpy as np

# Numbers that a block of samples may hold, so that several passes over it stay in the cache.
BLOCK_SIZE = 2**15
# Samples expanded by one matrix product: few, because each costs a row of multiplications with zeros.
EXPANDED_TOGETHER = 8
# A squared change below this share of the squared norm is computed from the difference, to keep its digits.
SMALL_CHANGE = 1e-5


@dataclass
class Samples:
    """Bulk samples seen from a frame of shared directions.

    Attributes
    ----------
    proportions : ndarray of shape (n_samples, n_cell_types)
    inside : ndarray of shape (n_samples, n_directions)
        Coordinates of the samples along the directions.
    outside : ndarray of shape (n_samples,)
        Squared norm of what the samples hold beyond the directions.
    """

    proportions: np.ndarray
    inside: np.ndarray
    outside: np.ndarray

    def start(self):
        """Expression with which every iteration starts: the sample itself, in every cell type."""
        n_rows = self.proportions.shape[1] + 1
        inside = np.repeat(self.inside[:, None], n_rows, axis=1)
        return Expression(inside, np.ones((len(inside), n_rows)))


class Expression:
    """Cell-type-specific expression as coordinates along shared directions and a scale of the rest.

    The sample itself is carried along as one more row after the cell types. So residual and gradient step are
    both small matrices times the rows of a sample, and every pass runs over contiguous memory.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_cell_types + 1, n_directions)
        Coordinates along the directions.
    scales : ndarray of shape (n_samples, n_cell_types + 1)
        Factors of the sample's part outside the directions; the last column is 1.
    """

    def __init__(self, rows, scales):
        self.rows, self.scales = rows, scales

    @property
    def inside(self):
        """Coordinates of the cell types' expression, shape (n_samples, n_cell_types, n_directions)."""
        return self.rows[:, :-1]

    @property
    def scale(self):
        """Scales of the cell types' expression, shape (n_samples, n_cell_types)."""
        return self.scales[:, :-1]

    def select(self, samples, cell_types):
        """Expression of some samples and cell types, each given as a slice or an array of positions."""
        n_cell_types = self.rows.shape[1] - 1
        kept = np.arange(n_cell_types)[cell_types]
        if len(kept) == n_cell_types and np.all(np.diff(kept) == 1):
            return Expression(self.rows[samples], self.scales[samples])
        kept = np.append(kept, n_cell_types)  # the sample itself comes along
        return Expression(self.rows[samples][:, kept], self.scales[samples][:, kept])

    def beyond_scaled_sample(self):
        """What the expression holds along the directions besides the scaled sample."""
        return self.inside - self.scale[:, :, None] * self.rows[:, -1:]

    def empty_like(self):
        """An expression of the same samples, its cell types not set."""
        rows, scales = np.empty_like(self.rows), np.empty_like(self.scales)
        rows[:, -1], scales[:, -1] = self.rows[:, -1], 1.0
        return Expression(rows, scales)

    def scale_by(self, sizes):
        """Multiply every cell type's expression by ``sizes`` (n_samples, n_cell_types), in place."""
        self.inside[...] *= sizes[:, :, None]
        self.scale[...] *= sizes

    def norms(self, samples):
        """Norm of every cell type's expression, shape (n_samples, n_cell_types)."""
        inside = np.einsum("jkd,jkd->jk", self.inside, self.inside)
        return np.sqrt(inside + self.scale**2 * samples.outside[:, None])


def row_products(left, right):
    """Inner products along the last axis."""
    return _vecdot(left, right) if _vecdot else np.einsum("...d,...d->...", left, right)


_vecdot = getattr(np, "vecdot", None)  # NumPy 2; a third faster than einsum


def squared_residuals(samples, expression, sizes=None):
    """Squared norm of the reconstruction Σ_k θ_jk p_jk minus the sample, per sample.

    ``sizes`` are factors of the expression, as in :func:`gradient_step`.
    """
    mix = np.full(expression.scales.shape, -1.0)
    np.multiply(samples.proportions, 1.0 if sizes is None else sizes, out=mix[:, :-1])
    inside = np.matmul(mix[:, None], expression.rows)[:, 0]
    scale = row_products(mix, expression.scales)
    return row_products(inside, inside) + scale**2 * samples.outside


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
    theta = samples.proportions
    n_samples, n_cell_types = theta.shape
    # row k of a sample's matrix: unit row k minus factor θ_k (θ, −1), the weights of the residual
    step = np.empty((n_samples, n_cell_types, n_cell_types + 1))
    along = factor * theta
    np.multiply(-along[:, :, None], (theta * sizes)[:, None], out=step[:, :, :-1])
    step[:, :, -1] = along
    step.reshape(n_samples, -1)[:, :: n_cell_types + 2] += sizes
    np.matmul(step, expression.scales[:, :, None], out=out.scales[:, :-1, None])
    squares, products = np.empty((2, n_samples, n_cell_types))
    # flat, so that it is subtracted in long runs; the samples themselves are not shifted
    assert out.rows.flags.c_contiguous, "the shift would be subtracted from a copy"
    flat_shift = np.append(shift, np.zeros(shift.shape[1]))
    for rows in row_blocks(expression.rows):
        block, start = out.rows[rows, :-1], expression.rows[rows]
        np.matmul(step[rows], start, out=block)
        out.rows[rows].reshape(len(start), -1)[...] -= flat_shift
        squares[rows] = row_products(block, block)
        products[rows] = row_products(block, start[:, :-1])
    outside = samples.outside[:, None]
    norms = np.sqrt(squares + out.scale**2 * outside)
    return norms, products + out.scale * expression.scale * outside


def cut_factors(norms, caps):
    """Factors that cut ``norms`` to ``caps``; 1 where nothing is cut, so that a norm of 0 does no harm."""
    return np.divide(caps, norms, out=np.ones_like(norms), where=norms > caps)


def squared_change(samples, new, old, products):
    """Squared distance between two expressions, per cell type.

    Parameters
    ----------
    samples : Samples
    new, old : tuple of (Expression, sizes, norms)
        An expression, factors of it, and its norms with these factors.
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
    (_, new_sizes, new_norms), (_, old_sizes, old_norms) = new, old
    kept = np.einsum("jk,jk->k", old_norms, old_norms)
    change = np.einsum("jk,jk->k", new_norms, new_norms) + kept
    change -= 2.0 * np.einsum("jk,jk,jk->k", new_sizes, old_sizes, products)
    close = change < SMALL_CHANGE * kept
    return np.where(close, _direct_change(samples, new, old), change) if close.any() else change


def _direct_change(samples, new, old):
    """The same from the differences themselves."""
    (new, new_sizes, _), (old, old_sizes, _) = new, old
    change = samples.outside @ (new_sizes * new.scale - old_sizes * old.scale) ** 2
    # diagonal matrices: for so short rows a matrix product is twice as fast as scaling them
    identity = np.eye(new_sizes.shape[1])
    by, was = (sizes[:, :, None] * identity for sizes in (new_sizes, old_sizes))
    for rows in row_blocks(new.rows):
        step = np.matmul(by[rows], new.inside[rows])
        step -= np.matmul(was[rows], old.inside[rows])
        change += row_products(step, step).sum(axis=0)
    return change


def reconstruction_gradient_norm(proportions, squared_residuals):
    """Frobenius norm of the gradient of the reconstruction term: ‖G1‖² = 4 Σ_j (Σ_k θ_jk²) ‖e_j‖²."""
    return 2.0 * np.sqrt(np.einsum("jk,jk,j->", proportions, proportions, squared_residuals))


def reference_gradient_norm(offset_size, n_samples):
    """Frobenius norm of the gradient of the reference term: ‖G2‖² = (4/n) Σ_k ‖m_k‖²."""
    return 2.0 * offset_size / np.sqrt(n_samples)


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
    inside = np.empty((len(bulk), len(vectors)))
    outside = np.empty(len(bulk))
    for rows in row_blocks(bulk, 16 * BLOCK_SIZE):
        block = bulk[rows].astype(np.float64, copy=False)
        inside[rows] = block @ vectors.T
        # the rest itself, not a difference of squared norms: that would lose half of the digits
        rest = block - inside[rows] @ vectors
        outside[rows] = np.einsum("jg,jg->j", rest, rest)
    return Samples(np.asarray(proportions, dtype=np.float64), inside, outside)


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
    (n_samples, n_cell_types), n_genes = expression.scale.shape, bulk.shape[1]
    along = expression.beyond_scaled_sample()
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
        left[range(count), :, range(len(vectors), left.shape[2])] = expression.scale[rows]
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
    step = max(1, size // max(1, rows[0].size)) if len(rows) else 1
    return [slice(start, start + step) for start in range(0, len(rows), step)]
