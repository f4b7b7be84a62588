"""The few directions that the samples of a cohort share, found while the solver runs.

The maximum-L2-norm model moves its samples along shared directions: what a sample holds beyond them is only
ever scaled. The directions are those of the means that the iteration meets, so they appear one after the other,
and numerically they are few.
"""

from functools import cached_property

import numpy as np
from scipy import linalg

from ..blocks import BLOCK_SIZE, as_source, row_products
from . import passes
from .mixture import Expression, Samples

# A direction joins if a step along it would move samples by this share of their norm; it is dropped
# when the expression has come to hold less than that along it. Less is rounding.
TOLERANCE = 1e-13
# Directions join together, when what is outstanding is this many times the tolerance.
PATIENCE = 10
# Up to this many dimensions, the frame has all of them from the start.
WHOLE = 128
# The frame is reduced when it has this many directions, or this many times what the last reduction left.
FIRST_REDUCTION = 128
GROWTH = 1.7
# The length of what lies outside the frame is estimated by this many random probes before it is formed. The estimate
# (χ with 32 degrees of freedom) has a standard deviation of an eighth, and is less than half with probability 5e-6:
# then a direction joins at twice the length at which it should.
N_PROBES = 32
# Where less than this share of a sample's square lies outside, a difference of squares has lost digits: it is formed.
CANCELLED = 1e-3


class Frame:
    """The samples of one fit in a frame of the directions they turn out to share.

    Parameters
    ----------
    bulk : RowSource or ndarray of shape (n_samples, n_dimensions)
    reference : ndarray of shape (n_cell_types, n_dimensions)
    proportions : ndarray of shape (n_samples, n_cell_types)
    start : Start
        Where the expression starts: the same function of every sample.

    Attributes
    ----------
    vectors : ndarray of shape (n_directions, n_dimensions)
        The directions, orthonormal. The first span the reference and the profiles of the start.
    start : Start
        With its profiles as coordinates along these.
    samples : Samples
    expression : Expression
        Current expression, but for ``sizes``.
    sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of the expression that are still to be applied.
    reference : ndarray of shape (n_cell_types, n_directions)
        Coordinates of the reference.
    bulk : RowSource
        The samples, of shape (n_samples, n_dimensions).
    """

    def __init__(self, bulk, reference, proportions, start):
        self.n_samples = len(bulk)
        self.bulk = bulk = as_source(bulk)
        self._squares = bulk.squares
        self._is_whole = bulk.shape[1] <= WHOLE
        if self._is_whole:
            self.vectors = np.eye(bulk.shape[1])
            rows = np.hstack([np.zeros((len(bulk), 1)), bulk.whole()])
        else:
            # a generator of its own: the same cohort has the same fit
            probes = np.random.default_rng(0).standard_normal((bulk.shape[1], N_PROBES))
            self._probes = probes / np.sqrt(N_PROBES)
            self._probed = bulk.along(self._probes.T)
            self.vectors = np.empty((0, bulk.shape[1]))
            known = reference if start.profiles is None else np.vstack([reference, start.profiles])
            noise = np.finfo(np.float64).eps * np.sqrt(known.size) * np.linalg.norm(known)
            rows = self._extended(np.sqrt(self._squares)[:, None], self._add(known, noise))
        self._n_kept = len(self.vectors)
        self._reduce_at = max(FIRST_REDUCTION, 2 * self._n_kept)
        self._shifts = []
        self._spare = None
        self.reference = reference @ self.vectors.T
        self.start = start.along(self.vectors)
        self.samples = Samples(proportions, rows)
        self.hold(self.samples.start(self.start))

    def mean(self):
        """Mean expression per cell type: its coordinates, and weights of what the samples hold outside the frame.

        The latter are those of :meth:`outside`, or None if the samples hold nothing there.
        """
        weights = (self.sizes.T / self.n_samples)[:, None]
        return np.matmul(weights, self.expression.inside.swapaxes(0, 1))[:, 0], self._mean_scale()

    def compare(self):
        """What :func:`skenigma.core.optimize.passes.compare` finds, and the weights of :meth:`mean`, in one pass."""
        samples = self.samples
        offset, sums = passes.fastest().compare(
            self.expression.rows, samples.proportions, self.sizes, samples.theta_squares, self.reference
        )
        return offset, self._mean_scale(), sums

    def _mean_scale(self):
        return None if self._is_whole else self.sizes.T / self.n_samples * self.expression.scale.T

    def outside(self, weights):
        """What ``weights`` (n_cell_types, n_samples) make of the samples' parts outside the frame.

        An :class:`Outside`, or None for None.
        """
        return None if weights is None else Outside(self, weights)

    def hold(self, expression):
        """Make ``expression``, which needs no factors, the current one."""
        self.expression, self.sizes = expression, np.ones(expression.own.shape[:2])

    def apply_sizes(self):
        """Apply the factors that are still to be applied."""
        self.expression.scale_by(self.sizes)
        self.hold(self.expression)

    def widen(self, outside, reach, typical_norm):
        """Let directions outside the frame join it if a step of length ``reach`` along them matters.

        Parameters
        ----------
        outside : Outside or None
            What the mean holds there.
        reach : float
            Factor with which the samples will be moved along it.
        typical_norm : float
            Norm of the expression of a sample.

        Returns
        -------
        joined : ndarray of shape (n_cell_types, n_added)
            Coordinates of that along the added directions.
        """
        cutoff = TOLERANCE * typical_norm
        if outside is None or reach * outside.estimate <= PATIENCE * cutoff:
            return np.empty((len(self.reference), 0))
        inside = self._add(outside.vectors, cutoff / reach)
        scales = self._row_scales()
        added = scales[:, :, None] * inside[:, None]
        self.reference = np.hstack([self.reference, np.zeros((len(self.reference), inside.shape[1]))])
        self._observe(
            self._extended(self.samples.rows, inside), scales, self.expression.rows[:, :, 1:], added
        )
        return np.einsum("jk,jkd->kd", self.sizes / self.n_samples, added[:, :-1])

    def spare(self):
        """Expression to write an update to: the one before the current, if the frame has not changed since."""
        spare, self._spare = self._spare, None
        return self.expression.empty_like() if spare is None else spare

    def replace(self, expression, sizes):
        """Make another expression, and its factors, the current ones."""
        self._spare, self.expression, self.sizes = self.expression, expression, sizes

    def record(self, shift):
        """Keep the shift of an applied update, to be rotated along with the frame."""
        self._shifts.append(shift)

    def shifts(self):
        """All recorded shifts in the frame as it is now, shape (n_updates, n_cell_types, n_directions)."""
        return self._padded_shifts(len(self.vectors))

    def reduce(self, typical_norm, always=False):
        """Drop directions along which the expression has come to hold nothing but the scaled samples.

        Steps in the past that went along them have since been shrunk away.
        """
        n_directions = len(self.vectors)
        if n_directions == self._n_kept or (n_directions < self._reduce_at and not always):
            return
        beyond = self.expression.beyond_scaled_sample()[:, :, self._n_kept :]
        beyond = beyond.reshape(-1, beyond.shape[2])
        rotation, held = _by_size(_triangle(beyond))
        n_held = int(np.sum(held > TOLERANCE * typical_norm * np.sqrt(len(beyond))))
        self._rotate(rotation, n_held)
        self._reduce_at = max(FIRST_REDUCTION, int(GROWTH * len(self.vectors)))

    def _rotate(self, rotation, n_held):
        """Turn the directions after the reference's by ``rotation`` and keep the first ``n_held`` of them."""
        kept = self._n_kept
        turned = rotation @ self.vectors[kept:]
        dropped = self.samples.inside[:, kept:] @ rotation[n_held:].T
        self._probed += dropped @ (turned[n_held:] @ self._probes)
        self.vectors = np.vstack([self.vectors[:kept], turned[:n_held]])
        matrix = linalg.block_diag(np.eye(kept), rotation[:n_held])
        self._shifts = list(self._padded_shifts(matrix.shape[1]) @ matrix.T)
        self.reference = self.reference @ matrix.T
        lengths = np.hypot(self.samples.lengths, np.sqrt(row_products(dropped, dropped)))
        rows = np.hstack([lengths[:, None], self.samples.inside @ matrix.T])
        self._observe(rows, self._row_scales(), self.expression.rows[:, :, 1:] @ matrix.T)

    def _padded_shifts(self, n_directions):
        padded = np.zeros((len(self._shifts), len(self.reference), n_directions))
        for row, shift in zip(padded, self._shifts, strict=True):
            row[:, : shift.shape[1]] = shift
        return padded

    def _add(self, directions, cutoff):
        """Add the part of ``directions`` beyond the frame, without singular values up to ``cutoff``.

        Returns the samples' coordinates along the added directions.
        """
        added = _orthonormal(self._project_out(directions), cutoff)
        # a second projection removes what rounding left of the old directions; what it halves was nothing else
        added = _orthonormal(self._project_out(added), 0.5)
        inside = self.bulk.along(added)
        self._probed -= inside @ (added @ self._probes)
        self.vectors = np.vstack([self.vectors, added])
        return inside

    def _extended(self, rows, inside):
        """Rows of the samples with ``inside`` along further directions, which are less to be outside of."""
        rows = np.hstack([rows, inside])
        squares = rows[:, 0] ** 2 - row_products(inside, inside)
        few = squares <= CANCELLED * self._squares
        if few.any():
            rest = self.bulk.take(few) - rows[few, 1:] @ self.vectors
            squares[few] = row_products(rest, rest)
        rows[:, 0] = np.sqrt(squares)
        return rows

    def _row_scales(self):
        """Factors of what the samples hold outside, of each row of the expression: of the samples themselves, 1."""
        return np.append(self.expression.scale, np.ones((self.n_samples, 1)), axis=1)

    def _project_out(self, directions):
        return directions - (directions @ self.vectors.T) @ self.vectors

    def _observe(self, rows, scales, *inside):
        """Look at the samples, and at the expression, from the frame as it is now.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, 1 + n_directions)
            The samples.
        scales : ndarray of shape (n_samples, n_rows)
            Factors of what they hold outside, of each row of the expression.
        inside : ndarrays of shape (n_samples, n_rows, any)
            Coordinates of the expression, some after the other.
        """
        self._spare = None
        self.samples = self.samples.seen(rows)
        beyond = (scales * rows[:, :1])[:, :, None]
        self.expression = Expression(np.concatenate([beyond, *inside], axis=2))


class Outside:
    """A combination of what the samples hold outside the frame.

    To form it takes longer than all else in an iteration, so that its length is estimated first.

    Attributes
    ----------
    estimate : float
        Estimate of its length.
    """

    def __init__(self, frame, weights):
        self._frame, self._weights = frame, weights
        self.estimate = np.linalg.norm(weights @ frame._probed)

    @cached_property
    def vectors(self):
        """The combination itself, shape (n_combinations, n_dimensions)."""
        frame, weights = self._frame, self._weights
        return frame.bulk.combine(weights) - (weights @ frame.samples.inside) @ frame.vectors

    def length(self, negligible):
        """Length; an estimate where it is ``negligible``."""
        return self.estimate if self.estimate <= negligible else np.linalg.norm(self.vectors)


def _orthonormal(rows, cutoff):
    """Orthonormal vectors that span ``rows`` but for what is no longer than ``cutoff``."""
    if not rows.size:
        return rows
    # LAPACK itself: for so few rows, scipy.linalg.qr takes longer to call it than it takes
    packed, _, factors, _, _ = linalg.lapack.dgeqp3(rows.T)
    sizes = np.abs(np.diagonal(packed))
    n_long = int(np.count_nonzero(sizes > cutoff))  # largest first
    vectors, _, _ = linalg.lapack.dorgqr(packed[:, : len(sizes)], factors)
    return vectors.T[:n_long]


def _triangle(rows):
    """The triangular factor of ``rows``, by way of those of blocks that stay in the cache."""
    n_columns = rows.shape[1]
    size = max(n_columns, 4 * BLOCK_SIZE // n_columns)
    whole = len(rows) // size * size
    if whole > size:
        triangles = np.linalg.qr(rows[:whole].reshape(-1, size, n_columns), mode="r")
        rows = np.vstack([triangles.reshape(-1, n_columns), rows[whole:]])
    return np.linalg.qr(rows, mode="r")


def _by_size(rows):
    """Orthonormal vectors of the whole space, and how far ``rows`` reach along the first of these, largest first."""
    vectors, triangle, _ = linalg.qr(rows.T, pivoting=True, check_finite=False)
    return vectors.T, np.abs(np.diag(triangle))
