"""The few directions that the samples of a cohort share, found while the solver runs.

The maximum-L2-norm model moves its samples along shared directions: what a sample holds beyond them is only
ever scaled. The directions are those of the means that the iteration meets, so they appear one after the other,
and numerically they are few.
"""

from functools import cached_property, partial
from math import sqrt

import numpy as np
from scipy import linalg

from .part import ASKING, Look, Part, turned
from .partitions import in_one_piece, total

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


class Frame:
    """The samples of one fit in a frame of the directions they turn out to share.

    Parameters
    ----------
    bulk : RowSource, ndarray or LazyMatrix of shape (n_samples, n_dimensions)
    reference : ndarray of shape (n_cell_types, n_dimensions)
    proportions : ndarray of shape (n_samples, n_cell_types)
    start : Start
        Where the expression starts: the same function of every sample.
    place : callable, default=in_one_piece
        Where the samples are, see :mod:`.partitions`.
    known : ndarray of shape (n_known, n_dimensions), optional
        Further directions that are known to be needed.

    Attributes
    ----------
    vectors : ndarray of shape (n_directions, n_dimensions)
        The directions, orthonormal. The first span the reference and the profiles of the start.
    start : Start
        With its profiles as coordinates along these.
    reference : ndarray of shape (n_cell_types, n_directions)
        Coordinates of the reference.
    parts : executor
        The samples: objects of :class:`~skenigma.core.optimize.part.Part`.
    basis : SpanBasis or None
        Of whose coordinates the dimensions are since :meth:`move`.
    n_joins : int
        How often directions have joined.
    n_looks_ahead : int
        How often :meth:`look_ahead` was called.
    """

    def __init__(self, bulk, reference, proportions, start, place=in_one_piece, known=None):
        self.n_samples, n_dimensions = bulk.shape
        self._room = np.empty((0, n_dimensions))
        if n_dimensions <= WHOLE:
            self._probes, self.vectors = None, np.eye(n_dimensions)
            self._n_kept = n_dimensions
        else:
            # a generator of its own: the same cohort has the same fit
            probes = np.random.default_rng(0).standard_normal((n_dimensions, N_PROBES))
            self._probes = probes / np.sqrt(N_PROBES)
            self.vectors = np.empty((0, n_dimensions))
            given = reference if start.profiles is None else np.vstack([reference, start.profiles])
            self._append(given, _noise(given))
            self._n_kept = len(self.vectors)
            if known is not None:
                self._append(known, _noise(known))
        self._reduce_at = max(FIRST_REDUCTION, 2 * self._n_kept)
        self.basis, self.n_joins = None, 0
        self._shifts, self.n_looks_ahead, self._needed_until = [], 0, 0
        self.reference = reference @ self.vectors.T
        self.start = start.along(self.vectors)
        make = partial(
            Part, vectors=self.vectors, probes=self._probes, start=self.start, n_samples=self.n_samples
        )
        self.parts = place(make, bulk, proportions, ASKING)

    @property
    def is_whole(self):
        """Whether it was the whole space from the start."""
        return self._probes is None

    @property
    def _here(self):
        """Parts in this process: they share the directions, of which parts elsewhere have a copy."""
        return getattr(self.parts, "parts", ())

    @property
    def part(self):
        """All samples, where they are in one piece."""
        (part,) = self._here
        return part

    def begin(self):
        """Squared norms, summed over all samples; see :meth:`Part.begin`."""
        return total(self.parts.all("begin"))

    def look(self):
        """Compare all samples with what they should be: the :class:`Look` of the cohort, and what is outside."""
        looks = self.parts.all("look", self.reference)
        if len(looks) == 1:
            look = looks[0]
        else:
            offset, outside = total([look.offset for look in looks]), None
            sums = np.sum([look.sums for look in looks], axis=0).tolist()
            sums[2] = float(np.vdot(offset, offset))
            if self._probes is not None:
                outside = total([look.outside for look in looks])
            look = Look(offset, sums, outside)
        if look.outside is None:
            return look, None
        return look, Outside(look.outside, lambda: total(self.parts.all("combine")))

    def step(self, factor, shift):
        """Take a gradient step; norms of where it ends, shape (n_samples, n_cell_types)."""
        found = self.parts.all("step", factor, shift)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def cut(self, caps):
        """Cut it: squared change of every cell type, and squared norm and largest norms of the result."""
        found = self.parts.all("cut", caps)
        if len(found) == 1:
            return found[0]
        change, square, longest = zip(*found, strict=True)
        return total(change), total(square), np.max(longest, axis=0)

    def accept(self):
        """Make the result the current expression."""
        self.parts.all("accept")

    def outside(self, weights):
        """What ``weights`` (n_cell_types, n_samples) make of the parts outside the frame of samples in one piece.

        An :class:`Outside`, or None for None.
        """
        if weights is None:
            return None
        part = self.part
        return Outside(part.outside_of(weights), lambda: part.combine(weights))

    def widen(self, outside, reach, typical_norm, ahead=None):
        """Let directions outside the frame join it if a step of length ``reach`` along them matters.

        Parameters
        ----------
        outside : Outside or None
            What the mean holds there.
        reach : float
            Factor with which the samples will be moved along it.
        typical_norm : float
            Norm of the expression of a sample.
        ahead : callable, optional
            What the means of this and later iterations hold there, to join in place of ``outside``: each reading
            of the bulk then serves several iterations.

        Returns
        -------
        joined : ndarray of shape (n_cell_types, n_added)
            Coordinates of the mean along the added directions.
        """
        cutoff = TOLERANCE * typical_norm
        if outside is None or reach * outside.estimate <= PATIENCE * cutoff:
            return np.empty((len(self.reference), 0))
        self.n_joins += 1
        added = self._append(outside.vectors if ahead is None else ahead(), cutoff / reach)
        self.reference = np.hstack([self.reference, np.zeros((len(self.reference), len(added)))])
        for part in self._here:
            part.vectors = self.vectors
        return total(self.parts.all("join", added))

    def move(self, basis):
        """Go on in the coordinates of a basis that holds the samples, which are one part; then readings are short."""
        # directions that were found at the edge of rounding lie in the span only in part, so that they are no longer
        # orthonormal there; those of the reference stay what they are
        vectors, turn = np.linalg.qr(basis.to_coordinates(self.vectors).T)
        signs = np.where(np.diagonal(turn) < 0, -1.0, 1.0)
        self.vectors, turn = np.ascontiguousarray((vectors * signs).T), (turn.T * signs)
        self._probes, self.basis = basis.to_coordinates(self._probes.T).T, basis
        self._shifts = list(self._padded_shifts(len(turn)) @ turn)
        self.reference = self.reference @ turn
        self.part.move(basis.rows, self.vectors, self._probes, turn)

    def restart(self):
        """Put all samples back to where they started, in the frame as it is."""
        self.parts.all("restart")
        self._shifts = []

    def look_ahead(self, moves, n_iterations):
        """Directions that this and the next iterations need, from iterations within the frame as it is.

        Parameters
        ----------
        moves : iterable of callable
            Each makes one iteration, and returns whether there are more: of this run, then of those that follow it
            from the start.
        n_iterations : int
            Of each run.

        Returns
        -------
        vectors : ndarray of shape (n_found, n_dimensions)
            Combinations of what the samples hold outside the frame: one reading.

        Notes
        -----
        Their steps along directions that are still outside are left out, so that the weights with which samples
        enter later means are not exact. What they lack shows in the next look at the samples.
        """
        self.n_looks_ahead += 1
        self._needed_until = len(self._shifts) + n_iterations
        self.parts.all("save")
        for number, move in enumerate(moves):
            if number:
                self.parts.all("restart")
            for _ in range(n_iterations):
                if not move():
                    break
        self.parts.all("restore")
        triangle = np.linalg.qr(np.vstack(self.parts.all("triangle_ahead")), mode="r")
        directions, sizes, _ = np.linalg.svd(triangle.T, full_matrices=False)
        mix = directions[:, sizes > TOLERANCE * sizes[0]].T
        return total(self.parts.all("combine_ahead", mix))

    def record(self, shift):
        """Keep the shift of an applied update, to be rotated along with the frame."""
        self._shifts.append(shift)

    def shifts(self):
        """All recorded shifts in the frame as it is now, shape (n_updates, n_cell_types, n_directions)."""
        return self._padded_shifts(len(self.vectors))

    def reduce(self, typical_norm, always=False):
        """Drop directions along which the expression has come to hold nothing but the scaled samples.

        Steps in the past that went along them have since been shrunk away. Directions that were looked ahead for
        stay until the iterations that need them are over.
        """
        n_directions, kept = len(self.vectors), self._n_kept
        early = n_directions < self._reduce_at or len(self._shifts) < self._needed_until
        if n_directions == kept or (early and not always):
            return
        found, counts = zip(*self.parts.all("triangle", kept), strict=True)
        rotation, held = _by_size(np.vstack(found))
        n_held = int(np.sum(held > TOLERANCE * typical_norm * sqrt(sum(counts))))
        self.parts.all("turn", rotation, n_held, kept)
        self.vectors = self._here[0].vectors if self._here else turned(self.vectors, rotation, n_held, kept)
        for part in self._here:
            part.vectors = self.vectors
        matrix = linalg.block_diag(np.eye(kept), rotation[:n_held])
        self._shifts = list(self._padded_shifts(matrix.shape[1]) @ matrix.T)
        self.reference = self.reference @ matrix.T
        self._reduce_at = max(FIRST_REDUCTION, int(GROWTH * len(self.vectors)))

    def _padded_shifts(self, n_directions):
        padded = np.zeros((len(self._shifts), len(self.reference), n_directions))
        for row, shift in zip(padded, self._shifts, strict=True):
            row[:, : shift.shape[1]] = shift
        return padded

    def _append(self, directions, cutoff):
        """Add what ``directions`` hold beyond the frame, without singular values up to ``cutoff``; returns it."""
        added = _orthonormal(self._project_out(directions), cutoff)
        # a second projection removes what rounding left of the old directions; what it halves was nothing else
        added = _orthonormal(self._project_out(added), 0.5)
        self._keep(added)
        return added

    def _keep(self, added):
        """Put directions after the others, with room for more: memory that is not written to yet is none."""
        count, needed = len(self.vectors), len(self.vectors) + len(added)
        if self.vectors.base is not self._room or needed > len(self._room):
            self._room = np.empty((2 * needed + FIRST_REDUCTION, added.shape[1]))
            self._room[:count] = self.vectors
        self._room[count:needed] = added
        self.vectors = self._room[:needed]

    def _project_out(self, directions):
        return directions - (directions @ self.vectors.T) @ self.vectors


class Outside:
    """A combination of what the samples hold outside the frame.

    To form it takes a reading of the bulk, longer than all else in an iteration, so that its length is estimated
    first.

    Parameters
    ----------
    probed : ndarray of shape (n_combinations, n_probes)
        What random probes make of it.
    form : callable
        The combination itself.

    Attributes
    ----------
    estimate : float
        Estimate of its length.
    """

    def __init__(self, probed, form):
        self._form = form
        self.estimate = np.linalg.norm(probed)

    @cached_property
    def vectors(self):
        """The combination itself, shape (n_combinations, n_dimensions)."""
        return self._form()

    def length(self, negligible):
        """Length; an estimate where it is ``negligible``."""
        return self.estimate if self.estimate <= negligible else np.linalg.norm(self.vectors)


def _noise(rows):
    """Length of what rounding makes of rows."""
    return np.finfo(np.float64).eps * np.sqrt(rows.size) * np.linalg.norm(rows)


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


def _by_size(rows):
    """Orthonormal vectors of the whole space, and how far ``rows`` reach along the first of these, largest first."""
    vectors, triangle, _ = linalg.qr(rows.T, pivoting=True, check_finite=False)
    return vectors.T, np.abs(np.diag(triangle))
