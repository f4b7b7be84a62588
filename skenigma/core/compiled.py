"""The passes of :mod:`skenigma.core.passes`, with the same arguments and results, as loops that numba compiles.

A sample's rows are read once and stay in the cache of the first level for everything that is done to them.
"""

import numba
import numpy as np


def _compile(function):
    """``function`` as machine code, kept on disk where that can be.

    As in a BLAS, sums may be reordered and products fused with sums; infinities and NaN stay what they are.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to write to
        return numba.njit(**options)(function)


@_compile
def survey(rows, proportions, sizes):
    """See :func:`skenigma.core.passes.survey`."""
    n_samples, n_cell_types = proportions.shape
    mean = np.zeros((n_cell_types, rows.shape[2]))
    squares, residual = np.empty(n_samples), np.empty(rows.shape[2])
    for j in range(n_samples):
        for i in range(len(residual)):
            residual[i] = -rows[j, n_cell_types, i]
        for k in range(n_cell_types):
            size, weight = sizes[j, k], proportions[j, k] * sizes[j, k]
            for i in range(len(residual)):
                residual[i] += weight * rows[j, k, i]
                mean[k, i] += size * rows[j, k, i]
        square = 0.0
        for i in range(len(residual)):
            square += residual[i] * residual[i]
        squares[j] = square
    return mean / n_samples, squares


@_compile
def step(rows, proportions, sizes, factor, shift, out):
    """See :func:`skenigma.core.passes.step`."""
    n_samples, n_cell_types = proportions.shape
    squares, products = np.empty((n_samples, n_cell_types)), np.empty((n_samples, n_cell_types))
    residual = np.empty(rows.shape[2])
    for j in range(n_samples):
        for i in range(len(residual)):
            residual[i] = -rows[j, n_cell_types, i]
        for k in range(n_cell_types):
            weight = proportions[j, k] * sizes[j, k]
            for i in range(len(residual)):
                residual[i] += weight * rows[j, k, i]
        for k in range(n_cell_types):
            size, pull = sizes[j, k], factor * proportions[j, k]
            square, product = 0.0, 0.0
            for i in range(len(residual)):
                start = rows[j, k, i]
                end = size * start - pull * residual[i] - shift[k, i]
                out[j, k, i] = end
                square += end * end
                product += end * start
            squares[j, k], products[j, k] = square, product
    return squares, products


@_compile
def squared_change(new, new_sizes, old, old_sizes):
    """See :func:`skenigma.core.passes.squared_change`."""
    n_samples, n_cell_types = new_sizes.shape
    change = np.zeros(n_cell_types)
    for j in range(n_samples):
        for k in range(n_cell_types):
            by, was, square = new_sizes[j, k], old_sizes[j, k], 0.0
            for i in range(new.shape[2]):
                difference = by * new[j, k, i] - was * old[j, k, i]
                square += difference * difference
            change[k] += square
    return change
