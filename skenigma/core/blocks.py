"""Rows by the block, so that several passes over them stay in the cache, or in memory."""

from functools import cached_property
from math import inf

import numpy as np

# Numbers that a block of rows may hold.
BLOCK_SIZE = 2**15
# Numbers of a block that is looked at once, and of one that is multiplied with many vectors.
FEW_BLOCK, MANY_BLOCK = 2**17, 2**19
# Multiplications up to which OpenBLAS takes a block as it is; it copies larger ones first, which takes twice as long.
# Blocks of fewer rows or numbers than these are no faster. Measured with 2 to 40 vectors of 1,000 to 20,000 columns.
UNCOPIED, FEWEST_ROWS, LEAST = 10**6, 4, 2**14
# The same of combinations of rows: up to so many of them, of so many rows at a time.
COMBINED, SUMMED = 8, 12


def row_blocks(rows, size=BLOCK_SIZE):
    """Slices over the first axis, each of about ``size`` numbers and at least one row.

    A matrix that is not in memory is read by as many rows at a time as suits it, its ``block_rows``.
    """
    step = getattr(rows, "block_rows", None)
    if step is not None:
        return [slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
    if 0 < rows.size <= size:
        return (slice(0, len(rows)),)
    step = max(1, size // max(1, rows[0].size)) if len(rows) else 1
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def each_block(values, size=BLOCK_SIZE):
    """Rows of a matrix by the block, in double precision.

    Parameters
    ----------
    values : ndarray, or object with ``blocks()``
        What is not in memory yields blocks of its own, with the rows that each is, and is read once.
    size : int
        Numbers of a block, about.

    Yields
    ------
    rows : slice
        Which ones.
    block : ndarray
        Not to be written to.
    """
    parts = values.blocks() if hasattr(values, "blocks") else [(slice(0, len(values)), values)]
    for part, held in parts:
        for some in row_blocks(held, size):
            rows = slice(part.start + some.start, part.start + min(some.stop, len(held)))
            yield rows, held[some].astype(np.float64, copy=False)


def spaced(count, most):
    """Positions, evenly spaced and at most ``most``, out of ``count``."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(int)


class RowSource:
    """A large matrix that is read by blocks of its rows, never changed, and never copied as a whole.

    Parameters
    ----------
    values : ndarray or LazyMatrix of shape (n_rows, n_columns)
        Of any type; a block is float64 while it is in use. What is not in memory is sliced by rows, as often as the
        methods here are called: each is one reading.
    triangular : bool, default=False
        Whether row j holds zeros after column j, which are then not read.

    Attributes
    ----------
    shape : tuple of int
    size : int
        Number of entries.
    """

    def __init__(self, values, *, triangular=False):
        self.values, self._triangular = values, triangular
        self.shape, self.size = values.shape, values.size

    def __len__(self):
        return self.shape[0]

    @cached_property
    def squares(self):
        """Squared norms of the rows, shape (n_rows,)."""
        squares = np.empty(len(self))
        for some, _, block in self._blocks(FEW_BLOCK):
            squares[some] = row_products(block, block)
        return squares

    @property
    def total(self):
        """Sum of the squares of all entries."""
        return self.squares.sum()

    def whole(self):
        """All of it as a float64 array, for few columns."""
        return self.values[:].astype(np.float64, copy=False)

    def take(self, mask):
        """The rows of a mask, or at positions, in float64."""
        return self.values[mask].astype(np.float64, copy=False)

    def taken(self, mask):
        """The same by blocks of bounded memory, each with the positions of its rows."""
        positions = np.flatnonzero(mask)
        step = max(1, getattr(self.values, "block_rows", MANY_BLOCK // max(1, self.shape[1])))
        for start in range(0, len(positions), step):
            some = positions[start : start + step]
            yield some, self.take(some)

    def observe(self, few):
        """The same as ``along``, and the ``squares`` in passing."""
        found, squares = np.empty((len(self), len(few))), np.empty(len(self))
        for some, columns, block in self._blocks(self._size_with(len(few))):
            np.matmul(block, few[:, columns].T, out=found[some])
            squares[some] = row_products(block, block)
        self.squares = squares
        return found

    def along(self, few):
        """``rows @ few.T``: coordinates along few vectors."""
        found = np.empty((len(self), len(few)))
        for some, columns, block in self._blocks(self._size_with(len(few))):
            np.matmul(block, few[:, columns].T, out=found[some])
        return found

    def combine(self, weights):
        """``weights @ rows``: few combinations."""
        found = np.zeros((len(weights), self.shape[1]))
        for some, columns, block in self._blocks(self._size_with(len(weights), COMBINED, SUMMED)):
            found[:, columns] += weights[:, some] @ block
        return found

    def _size_with(self, count, most_vectors=inf, most_rows=inf):
        """Numbers of a block that is multiplied with ``count`` vectors."""
        width = self.shape[1]
        n_rows = min(most_rows, UNCOPIED // max(1, count * width))
        return max(LEAST, n_rows * width) if count <= most_vectors and n_rows >= FEWEST_ROWS else MANY_BLOCK

    def _blocks(self, size):
        """Which rows, which of their columns hold anything, and these entries."""
        room = None  # one for all blocks of another type
        for some in row_blocks(self.values, size):
            columns = slice(0, min(some.stop, self.shape[1]) if self._triangular else self.shape[1])
            block = self.values[some, columns]
            if block.dtype != np.float64:
                room = np.empty((block.shape[0], self.shape[1])) if room is None else room
                target = room[: block.shape[0], : block.shape[1]]
                np.copyto(target, block)
                block = target
            yield some, columns, block


def as_source(rows):
    """A matrix, or what is one by blocks already, as a :class:`RowSource`."""
    return rows if isinstance(rows, RowSource) else RowSource(rows)


def squared_norm(rows):
    """Sum of the squares of a matrix, or of a :class:`RowSource`."""
    return rows.total if isinstance(rows, RowSource) else np.vdot(rows, rows)


def row_products(left, right):
    """Inner products along the last axis."""
    return _vecdot(left, right) if _vecdot else np.einsum("...d,...d->...", left, right)


_vecdot = getattr(np, "vecdot", None)  # NumPy 2; a third faster than einsum
