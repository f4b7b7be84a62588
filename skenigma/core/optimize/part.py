"""Some samples of a cohort in the frame that all share: what one partition holds, and what it answers.

Everything that an iteration does to a sample happens here; what it does to the directions, and with the sums over
samples, in :mod:`.frame` and :mod:`.solvers`.
"""

from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
from scipy import linalg

from ..blocks import BLOCK_SIZE, as_source, row_blocks, row_products
from . import passes
from .mixture import Expression, Point, Samples, gradient_step

# Where less than this share of a sample's square lies outside, a difference of squares has lost digits: it is formed.
CANCELLED = 1e-3
# Columns for which there is room besides twice those that are needed.
ROOM = 256
# Numbers of an expression up to which a step is written to a second one. More do not stay in the cache: memory is
# then what a step waits for, and to find where it ends twice, for the caps and to move there, takes no longer.
TWICE = 2**20

# Methods of a part that change nothing of it.
ASKING = ("begin", "longest", "outside_of", "combine", "triangle", "triangle_ahead", "combine_ahead", "held")


class Look(NamedTuple):
    """What a look at the samples tells; those of several parts add up.

    Attributes
    ----------
    offset : ndarray of shape (n_cell_types, n_directions)
        Mean expression minus the reference.
    sums : list of 4 float
        As of :func:`skenigma.core.optimize.passes.compare`.
    outside : ndarray of shape (n_cell_types, n_probes), or None
        What random probes make of the mean beyond the frame: its length, estimated.
    """

    offset: np.ndarray
    sums: list
    outside: np.ndarray | None


class Part:
    """Some samples of a fit, in a frame of the directions that all of its samples share.

    Parameters
    ----------
    source : tuple
        Rows, a matrix or what is read by rows, and proportions.
    vectors : ndarray of shape (n_directions, n_dimensions)
        The directions, orthonormal.
    probes : ndarray of shape (n_dimensions, n_probes), or None
        Random directions by which lengths outside the frame are estimated; None where the frame is the whole space.
    start : Start
        With its profiles as coordinates.
    n_samples : int
        Of the whole cohort.

    Attributes
    ----------
    bulk : RowSource
    samples : Samples
    expression : Expression
        Current expression, but for ``sizes``.
    sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of the expression that are still to be applied.
    """

    def __init__(self, source, *, vectors, probes, start, n_samples):
        rows, proportions = source
        self.n_samples = n_samples
        coordinates = self._seen(as_source(rows), vectors, probes)
        self._spare = self._saved = self._proposal = self._pending = None
        self._free = []
        self.samples, self._start = Samples(proportions, coordinates), start
        self._begin(None)

    @property
    def expression(self):
        """Current expression, once it has moved to where the last step accepted ends."""
        if self._pending is not None:
            self._move()
        return self._expression

    @expression.setter
    def expression(self, expression):
        self._expression, self._pending = expression, None

    @property
    def share(self):
        """Part of the cohort's samples that is here."""
        return len(self.bulk) / self.n_samples

    def begin(self):
        """Squared norms of expression and samples, and those of the samples weighted by their proportions'."""
        return self.point.square, self.squares.sum(), self.samples.theta_squares @ self.squares

    def longest(self):
        """Largest norm of the expression in every cell type."""
        return self.point.longest

    def restart(self):
        """Put the expression back to where it started, in the frame as it is."""
        kept = self._saved and self._saved[0]
        self._let_go(self._spare, self._proposal, None if self._expression is kept else self._expression)
        self._spare = self._proposal = None
        self._begin(self._free.pop() if self._free else None)

    def _begin(self, room):
        # without room to grow until directions join, when it is known better how much
        empty = np.empty if room is None else partial(laid, room)
        self.hold(self.samples.start(self._start, empty))
        self.point = Point.of(self.expression)

    # an iteration

    def look(self, reference):
        """Compare the expression with what it should be.

        Returns
        -------
        Look
            Its means are weighted by the share of the samples that are here.
        """
        samples = self.samples
        if self._pending is None:
            rows, theta = self.expression.rows, samples.proportions
            offset, sums = passes.fastest().compare(rows, theta, self.sizes, samples.theta_squares, reference)
        else:
            offset, sums = passes.compared(*self._move(), samples.theta_squares, reference)
        self.weights = self.mean_scale()
        share = self.share
        if share != 1.0:
            offset *= share
            sums = [*sums[:2], sums[2] * share, sums[3] * share]
        if self._saved is not None:
            self._ahead.append(self.weights)
        return Look(offset, sums, None if self.weights is None else self.outside_of(self.weights))

    def step(self, factor, shift):
        """Take a gradient step; norms of where it ends, shape (n_samples, n_cell_types)."""
        self._proposal = self.spare()
        self._step = gradient_step(
            self.samples, self.expression, self.point.sizes, factor, shift, self._proposal, self.point.norms
        )
        self._moves = self.point.sizes, factor, shift
        return self._step.norms

    def cut(self, caps):
        """Cut it to norms of at most ``caps``.

        Returns
        -------
        change : ndarray of shape (n_cell_types,)
            Squared distance from where it started.
        square : float
            Squared norm of the result.
        longest : ndarray of shape (n_cell_types,)
            Its largest norms.
        """
        self._next, change = self._step.cut(caps)
        return change, self._next.square, self._next.longest

    def accept(self):
        """Make the result the current expression."""
        self.point, self.sizes = self._next, self._next.sizes
        if self._proposal is None:
            self._pending = self._moves
            return
        # the one before is written to next, unless it is kept to go back to
        self._spare = None if self._saved and self._saved[0] is self.expression else self.expression
        self.expression, self._proposal = self._proposal, None

    def _move(self):
        """Move to where the last step accepted ends; what :func:`passes.survey` tells there."""
        pending, self._pending = self._pending, None
        rows, theta = self._expression.rows, self.samples.proportions
        return passes.fastest().move_and_survey(rows, theta, *pending, self.sizes)

    def hold(self, expression):
        """Make ``expression``, which needs no factors, the current one."""
        self.expression, self.sizes = expression, np.ones(expression.own.shape[:2])

    def spare(self):
        """Expression to write an update to: the one before the current, if the frame has not changed since.

        None where the expression moves where it is.
        """
        spare, self._spare = self._spare, None
        if self.expression.rows.size > TWICE:
            self._free.clear()
            return None
        if spare is None:
            current = self.expression.rows
            spare = Expression(laid(self._free.pop() if self._free else None, current.shape))
            spare.rows[:, -1] = current[:, -1]
        return spare

    def _let_go(self, *expressions):
        """Keep the memory of expressions that are needed no more for the next that are."""
        self._free += [some.rows.base for some in expressions if some is not None]

    def apply_sizes(self):
        """Apply the factors that are still to be applied."""
        self._spare = self._proposal = self._step = None
        self._free.clear()
        self.expression.scale_by(self.sizes)
        self.hold(self.expression)

    # iterations ahead, to learn which directions they need

    def save(self):
        """Keep the current expression, and from now on what the means are made of."""
        self._saved = self.expression, self.sizes, self.point, self.weights
        self._ahead = [self.weights]
        rows = self.expression.rows
        if rows.size > TWICE:  # it moves where it is
            self.expression = Expression(rows.copy())

    def restore(self):
        """Go back to what was kept."""
        moved, spare, self._spare = self._expression, self._spare, None
        self.expression, self.sizes, self.point, self.weights = self._saved
        self._let_go(spare, self._proposal, None if moved is self.expression else moved)
        self._saved = self._proposal = None

    def triangle_ahead(self):
        """Triangular factor of the kept weights, each times what its sample holds outside the frame."""
        return np.linalg.qr((np.concatenate(self._ahead) * self.samples.lengths).T, mode="r")

    def combine_ahead(self, mix):
        """Combinations ``mix`` of what the kept weights make of the samples outside the frame: one reading."""
        return self.combine(mix @ np.concatenate(self._ahead))

    # the frame

    def mean(self):
        """Mean expression per cell type along the directions, shape (n_cell_types, n_directions)."""
        weights = (self.sizes.T / self.n_samples)[:, None]
        return np.matmul(weights, self.expression.inside.swapaxes(0, 1))[:, 0]

    def mean_scale(self):
        """Weights with which samples outside the frame enter the mean; None if the frame is the whole space."""
        return None if self.probes is None else self.sizes.T / self.n_samples * self.expression.scale.T

    def outside_of(self, weights):
        """What the probes make of a combination of what the samples hold outside the frame."""
        return weights @ self.probed

    def combine(self, weights=None):
        """A combination of what the samples hold outside the frame, by default their mean's: one reading."""
        weights = self.weights if weights is None else weights
        return self.bulk.combine(weights) - (weights @ self.samples.inside) @ self.vectors

    def join(self, added):
        """Widen the frame by directions: one reading.

        Returns
        -------
        joined : ndarray of shape (n_cell_types, n_added)
            Mean expression along them.
        """
        inside = self.bulk.along(added)
        self.probed -= inside @ (added @ self.probes)
        if len(self.vectors) < self.samples.rows.shape[1] - 1 + len(added):  # not shared with the frame
            self.vectors = np.vstack([self.vectors, added])
        scales = self._row_scales()

        def extended(rows, some):
            return np.concatenate([rows[:, :, 1:], scales[some, :, None] * inside[some, None]], axis=2)

        self._observe(self._extended(self.samples.rows, inside), scales, extended)
        return (self.sizes / self.n_samples * scales[:, :-1]).T @ inside

    def move(self, bulk, vectors, probes, turn):
        """Look at the samples in another basis, where ``turn`` takes coordinates along the directions."""
        scales, seen = self._row_scales(), self._seen(bulk, vectors, probes)

        def moved(rows, some):
            inside = scales[some, :, None] * seen[some, None, 1:]
            inside[:, :-1] += Expression(rows).beyond_scaled_sample() @ turn
            return inside

        self._observe(seen, scales, moved)

    def triangle(self, n_kept):
        """Triangular factor of what the expression holds beyond the first ``n_kept`` directions; number of rows."""
        rows, found = self.expression.rows, []
        for some in row_blocks(rows, 16 * BLOCK_SIZE):
            beyond = Expression(rows[some]).beyond_scaled_sample()[:, :, n_kept:]
            found.append(triangle(beyond.reshape(-1, beyond.shape[2])))
        return triangle(np.vstack(found)), self.point.norms.size

    def turn(self, rotation, n_held, n_kept):
        """Turn the directions after the first ``n_kept`` by ``rotation`` and keep the first ``n_held`` of them."""
        dropped = self.samples.inside[:, n_kept:] @ rotation[n_held:].T
        self.probed += dropped @ (rotation[n_held:] @ (self.vectors[n_kept:] @ self.probes))
        self.vectors = turned(self.vectors, rotation, n_held, n_kept)
        matrix = linalg.block_diag(np.eye(n_kept), rotation[:n_held])
        lengths = np.hypot(self.samples.lengths, np.sqrt(row_products(dropped, dropped)))
        rows = np.hstack([lengths[:, None], self.samples.inside @ matrix.T])
        self._observe(rows, self._row_scales(), lambda rows, some: rows[:, :, 1:] @ matrix.T)

    def held(self):
        """Samples and expression, without the room that it had to grow."""
        shape, room = self.expression.rows.shape, self.expression.rows.base
        if isinstance(room, np.ndarray) and room.ndim == 1:  # of laid
            self._expression = None  # no more of it than the room itself
            try:
                room.resize(prod(shape))  # in place
                rows = room.reshape(shape)
            except ValueError:  # something else refers to it
                rows = room[: prod(shape)].reshape(shape).copy()
            self.expression = Expression(rows)
        return self.samples, self.expression

    def _seen(self, bulk, vectors, probes):
        """The samples as rows of the frame, which reads them once."""
        self.bulk, self.vectors, self.probes = bulk, vectors, probes
        if probes is None:
            self.squares, self.probed = bulk.squares, None
            return np.hstack([np.zeros((len(bulk), 1)), bulk.whole()])
        seen = bulk.observe(np.vstack([vectors, probes.T]))
        self.squares, inside = bulk.squares, seen[:, : len(vectors)]
        self.probed = seen[:, len(vectors) :] - inside @ (vectors @ probes)
        return self._extended(np.sqrt(self.squares)[:, None], inside)

    def _extended(self, rows, inside):
        """Rows of the samples with ``inside`` along further directions, which are less to be outside of."""
        rows = np.hstack([rows, inside])
        squares = rows[:, 0] ** 2 - row_products(inside, inside)
        few = squares <= CANCELLED * self.squares
        for some, taken in self.bulk.taken(few):
            rest = taken - rows[some, 1:] @ self.vectors
            squares[some] = row_products(rest, rest)
        rows[:, 0] = np.sqrt(squares)
        return rows

    def _row_scales(self):
        """Factors of what the samples hold outside, of each row of the expression: of the samples themselves, 1."""
        return np.append(self.expression.scale, np.ones((len(self.bulk), 1)), axis=1)

    def _observe(self, samples, scales, inside):
        """Look at the samples, and at the expression, from the frame as it is now.

        The rows of the expression are written to where they are, block by block.

        Parameters
        ----------
        samples : ndarray of shape (n_samples, 1 + n_directions)
            Their rows.
        scales : ndarray of shape (n_samples, n_rows)
            Factors of what they hold outside, of each row of the expression.
        inside : callable
            Coordinates of a block of the expression along the directions, from its rows so far and a slice of
            samples.
        """
        self._let_go(self._spare)
        self._spare = None
        self.samples = self.samples.seen(samples)
        before = self.expression.rows
        rows = laid(before.base, (*before.shape[:2], samples.shape[1]))
        # wider rows come to lie where later ones were, and narrower rows where earlier ones were
        blocks = row_blocks(before)
        for some in reversed(blocks) if rows.shape[2] > before.shape[2] else blocks:
            rows[some, :, 1:] = inside(before[some], some)
            rows[some, :, 0] = scales[some] * samples[some, :1]
        self.expression = Expression(rows)


def laid(room, shape):
    """An array of this shape at the beginning of ``room``, or of new memory if that is None or too small.

    New memory has room for more columns: what is not written to yet takes none.
    """
    size = prod(shape)
    if room is None or room.size < size:
        room = np.empty(prod(shape[:2]) * (2 * shape[2] + ROOM))
    return room[:size].reshape(shape)


def turned(vectors, rotation, n_held, n_kept):
    """The first ``n_kept`` vectors, and the first ``n_held`` of the others after their rotation."""
    found = np.empty((n_kept + n_held, vectors.shape[1]))
    found[:n_kept] = vectors[:n_kept]
    np.matmul(rotation[:n_held], vectors[n_kept:], out=found[n_kept:])
    return found


def triangle(rows):
    """The triangular factor of ``rows``, by way of those of blocks that stay in the cache."""
    n_columns = rows.shape[1]
    size = max(n_columns, 4 * BLOCK_SIZE // n_columns)
    whole = len(rows) // size * size
    if whole > size:
        triangles = np.linalg.qr(rows[:whole].reshape(-1, size, n_columns), mode="r")
        rows = np.vstack([triangles.reshape(-1, n_columns), rows[whole:]])
    return np.linalg.qr(rows, mode="r")
