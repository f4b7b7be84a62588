"""The passes of :mod:`skenigma.core.passes`, with the same arguments and results, as loops that numba compiles.

A sample's rows are read once and stay in the cache of the first level for everything that is done to them.

The loops write into arrays that they are given: where numba returns arrays, it runs Python on the way out, and what a
signal's handler raises there would come out as a SystemError. They are compiled, or loaded, when this module is
imported.
"""

import numba
import numpy as np

SMALLEST = np.finfo(np.float64).tiny
VECTOR, MATRIX, TENSOR = "float64[::1]", "float64[:, ::1]", "float64[:, :, ::1]"


def _compile(*arguments):
    """Make a function machine code for ``arguments`` of these types, kept on disk where that can be.

    As in a BLAS, sums may be reordered and products fused with sums; infinities and NaN stay what they are.
    """
    signature = f"void({', '.join(arguments)})"
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}

    def compiled(function):
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except RuntimeError:  # no folder to write to
            return numba.njit(signature, **options)(function)

    return compiled


def survey(rows, proportions, sizes):
    """See :func:`skenigma.core.passes.survey`."""
    mean, squares = np.zeros((proportions.shape[1], rows.shape[2])), np.empty(len(rows))
    _survey(rows, proportions, sizes, mean, squares)
    return mean, squares


@_compile(TENSOR, MATRIX, MATRIX, MATRIX, VECTOR)
def _survey(rows, proportions, sizes, mean, squares):
    n_samples, n_cell_types = proportions.shape
    residual = np.empty(rows.shape[2])
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
    mean /= n_samples


def step(rows, proportions, sizes, factor, shift, out):
    """See :func:`skenigma.core.passes.step`."""
    squares, products = np.empty((2, *proportions.shape))
    _step(rows, proportions, sizes, factor, shift, out, squares, products)
    return squares, products


@_compile(TENSOR, MATRIX, MATRIX, "float64", MATRIX, TENSOR, MATRIX, MATRIX)
def _step(rows, proportions, sizes, factor, shift, out, squares, products):
    n_samples, n_cell_types = proportions.shape
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


def cut(norms, caps, products, old_sizes):
    """See :func:`skenigma.core.passes.cut`."""
    sizes, sums = np.empty(norms.shape), np.zeros((3, norms.shape[1]))
    _cut(norms, caps, products, old_sizes, sizes, sums)
    return sizes, *sums


@_compile(MATRIX, VECTOR, MATRIX, MATRIX, MATRIX, MATRIX)
def _cut(norms, caps, products, old_sizes, sizes, sums):
    squares, longest, common = sums
    for j in range(len(norms)):
        for k in range(len(caps)):
            cap = max(caps[k], SMALLEST)
            size = cap / max(norms[j, k], cap)
            left = size * norms[j, k]
            sizes[j, k] = size
            squares[k] += left * left
            longest[k] = max(longest[k], left)
            common[k] += size * old_sizes[j, k] * products[j, k]


def squared_change(new, new_sizes, old, old_sizes):
    """See :func:`skenigma.core.passes.squared_change`."""
    change = np.zeros(new_sizes.shape[1])
    _squared_change(new, new_sizes, old, old_sizes, change)
    return change


@_compile(TENSOR, MATRIX, TENSOR, MATRIX, VECTOR)
def _squared_change(new, new_sizes, old, old_sizes, change):
    for j in range(len(new)):
        for k in range(len(change)):
            by, was, square = new_sizes[j, k], old_sizes[j, k], 0.0
            for i in range(new.shape[2]):
                difference = by * new[j, k, i] - was * old[j, k, i]
                square += difference * difference
            change[k] += square
