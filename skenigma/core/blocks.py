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


def along(rows, few):
    """``rows @ few.T``, coordinates of many rows along few vectors.

    By the block it takes half the time: a BLAS copies the whole of its left factor otherwise.
    """
    found = np.empty((len(rows), len(few)))
    for some in row_blocks(rows):
        np.matmul(rows[some], few.T, out=found[some])
    return found


def combine(weights, rows):
    """``weights @ rows``, few combinations of many rows, by the block for the same reason."""
    found = np.zeros((len(weights), rows.shape[1]))
    for some in row_blocks(rows):
        found += weights[:, some] @ rows[some]
    return found


def row_products(left, right):
    """Inner products along the last axis."""
    return _vecdot(left, right) if _vecdot else np.einsum("...d,...d->...", left, right)


_vecdot = getattr(np, "vecdot", None)  # NumPy 2; a third faster than einsum
