"""Rows by the block, so that several passes over them stay in the cache."""

import numpy as np

# Numbers that a block of rows may hold.
BLOCK_SIZE = 2**15


def row_blocks(rows, size=BLOCK_SIZE):
    """Slices over the first axis, each of about ``size`` numbers and at least one row."""
    if 0 < rows.size <= size:
        return (slice(0, len(rows)),)
    step = max(1, size // max(1, rows[0].size)) if len(rows) else 1
    return [slice(start, start + step) for start in range(0, len(rows), step)]


class ManyRows:
    """A large matrix to be multiplied with few vectors at a time.

    By the block that takes half the time: a BLAS copies the whole of a large factor otherwise. Where all rows of a
    block end in zeros, as in a triangular matrix, these are not read.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_columns)
    """

    def __init__(self, rows):
        self.rows = rows
        self._blocks = [(some, slice(0, _width(rows[some]))) for some in row_blocks(rows)]

    def along(self, few):
        """``rows @ few.T``: coordinates along few vectors."""
        found = np.empty((len(self.rows), len(few)))
        for some, columns in self._blocks:
            np.matmul(self.rows[some, columns], few[:, columns].T, out=found[some])
        return found

    def combine(self, weights):
        """``weights @ rows``: few combinations."""
        found = np.zeros((len(weights), self.rows.shape[1]))
        for some, columns in self._blocks:
            found[:, columns] += weights[:, some] @ self.rows[some, columns]
        return found


def _width(rows):
    """Number of leading columns beyond which there are only zeros."""
    # scipy.linalg.bandwidth would tell, but overlooks entries of matrices with more columns than rows (SciPy 1.17)
    holding = np.flatnonzero(rows.any(axis=0))
    return holding[-1] + 1 if len(holding) else 0


def row_products(left, right):
    """Inner products along the last axis."""
    return _vecdot(left, right) if _vecdot else np.einsum("...d,...d->...", left, right)


_vecdot = getattr(np, "vecdot", None)  # NumPy 2; a third faster than einsum
