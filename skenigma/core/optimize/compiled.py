"""The passes of :mod:`skenigma.core.optimize.passes`, arguments and results alike, as loops that numba compiles.

A sample's rows are read one after the other, as they lie in memory, which the processor then fetches ahead of time;
they stay in the cache of the first level for everything that is done to them.

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
    """See :func:`skenigma.core.optimize.passes.survey`."""
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


def compare(rows, proportions, sizes, theta_squares, reference):
    """See :func:`skenigma.core.optimize.passes.compare`."""
    mean, squares = np.zeros((proportions.shape[1], rows.shape[2])), np.empty(len(rows))
    offset, sums = np.empty(reference.shape), np.empty(4)
    _compare(rows, proportions, sizes, theta_squares, reference, mean, squares, offset, sums)
    return offset, sums.tolist()


@_compile(TENSOR, MATRIX, MATRIX, VECTOR, MATRIX, MATRIX, VECTOR, MATRIX, VECTOR)
def _compare(rows, proportions, sizes, theta_squares, reference, mean, squares, offset, sums):
    _survey(rows, proportions, sizes, mean, squares)
    sums[:] = 0.0
    for j in range(len(squares)):
        sums[0] += squares[j]
        sums[1] += theta_squares[j] * squares[j]
    for k in range(offset.shape[0]):
        for i in range(offset.shape[1]):
            away = mean[k, 1 + i] - reference[k, i]
            offset[k, i] = away
            sums[2] += away * away
            sums[3] += reference[k, i] * (mean[k, 1 + i] + away)


def step(rows, proportions, sizes, norms, small, factor, shift, out=None):
    """See :func:`skenigma.core.optimize.passes.step`."""
    found = np.empty((3, *proportions.shape))
    if out is None:  # every sample in the place of the one before, in the cache
        out = np.empty((1, *rows.shape[1:]))
    # read-only where a model was loaded as a memory map, for which nothing was compiled; it is small
    shift = np.require(shift, requirements=("C", "W"))
    _step(rows, proportions, sizes, norms, small, factor, shift, out, found)
    return found


@_compile(TENSOR, MATRIX, MATRIX, MATRIX, "float64", "float64", MATRIX, TENSOR, TENSOR)
def _step(rows, proportions, sizes, norms, small, factor, shift, out, found):
    n_samples, n_cell_types = proportions.shape
    left, nearest, apart = found
    residual = np.empty(rows.shape[2])
    # a sample's own direction is not shifted
    shifts = np.zeros((n_cell_types, rows.shape[2]))
    shifts[:, 1:] = shift
    for j in range(n_samples):
        at = j if len(out) == n_samples else 0
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
                end = size * start - pull * residual[i] - shifts[k, i]
                out[at, k, i] = end
                square += end * end
                product += end * start
            product *= size
            multiple, before = product / max(square, SMALLEST), norms[j, k] ** 2
            rest = max(before - multiple * product, 0.0)
            if rest < small * before:
                rest = 0.0
                for i in range(len(residual)):
                    difference = size * rows[j, k, i] - multiple * out[at, k, i]
                    rest += difference * difference
            left[j, k], nearest[j, k], apart[j, k] = np.sqrt(square), multiple, rest


def move_and_survey(rows, proportions, sizes, factor, shift, new_sizes):
    """See :func:`skenigma.core.optimize.passes.move_and_survey`."""
    mean, squares = np.zeros((proportions.shape[1], rows.shape[2])), np.empty(len(rows))
    shift = np.require(shift, requirements=("C", "W"))
    _move_and_survey(rows, proportions, sizes, factor, shift, new_sizes, mean, squares)
    return mean, squares


@_compile(TENSOR, MATRIX, MATRIX, "float64", MATRIX, MATRIX, MATRIX, VECTOR)
def _move_and_survey(rows, proportions, sizes, factor, shift, new_sizes, mean, squares):
    n_samples, n_cell_types = proportions.shape
    residual, after = np.empty(rows.shape[2]), np.empty(rows.shape[2])
    shifts = np.zeros((n_cell_types, rows.shape[2]))
    shifts[:, 1:] = shift
    for j in range(n_samples):
        for i in range(len(residual)):
            residual[i] = after[i] = -rows[j, n_cell_types, i]
        for k in range(n_cell_types):
            weight = proportions[j, k] * sizes[j, k]
            for i in range(len(residual)):
                residual[i] += weight * rows[j, k, i]
        for k in range(n_cell_types):
            size, pull = sizes[j, k], factor * proportions[j, k]
            new_size, weight = new_sizes[j, k], proportions[j, k] * new_sizes[j, k]
            for i in range(len(residual)):
                end = size * rows[j, k, i] - pull * residual[i] - shifts[k, i]
                rows[j, k, i] = end
                after[i] += weight * end
                mean[k, i] += new_size * end
        square = 0.0
        for i in range(len(after)):
            square += after[i] * after[i]
        squares[j] = square
    mean /= n_samples


def caps(norms, weight):
    """See :func:`skenigma.core.optimize.passes.caps`."""
    found = np.empty(norms.shape[1])
    _caps(norms, weight, found)
    return found


@_compile(MATRIX, "float64", VECTOR)
def _caps(norms, weight, caps):
    n_samples = len(norms)
    own = np.empty(n_samples)
    for k in range(len(caps)):
        for j in range(n_samples):
            own[j] = norms[j, k]
        # Newton's method from 0: the balance is concave, so that the cap grows to the right one, without sorting
        cap, count, before = own.sum() / (n_samples + weight), n_samples, n_samples + 1
        while 0 < count < before:
            before, count, total = count, 0, 0.0
            for j in range(n_samples):
                if own[j] > cap:
                    count += 1
                    total += own[j]
            if 0 < count < before:
                cap = total / (count + weight)
        caps[k] = cap


def cut(norms, caps, nearest, apart):
    """See :func:`skenigma.core.optimize.passes.cut`."""
    found, sums = np.empty((2, *norms.shape)), np.empty((3, len(caps)))
    _cut(norms, caps, nearest, apart, found, sums)
    return *found, sums[0], sums[1], sums.item(2, 0)


@_compile(MATRIX, VECTOR, MATRIX, MATRIX, TENSOR, MATRIX)
def _cut(norms, caps, nearest, apart, found, sums):
    sizes, left = found
    longest, change, square = sums
    sums[:] = 0.0
    for j in range(len(norms)):
        for k in range(len(caps)):
            cap = max(caps[k], SMALLEST)
            size = cap / max(norms[j, k], cap)
            sizes[j, k], left[j, k] = size, size * norms[j, k]
            longest[k] = max(longest[k], left[j, k])
            change[k] += (norms[j, k] * (size - nearest[j, k])) ** 2 + apart[j, k]
            square[0] += left[j, k] ** 2


def step_beyond(rows, current, other, proportions, momentum, pull, weights, shift):
    """See :func:`skenigma.core.optimize.passes.step_beyond`."""
    found, residual = np.empty((2, *proportions.shape)), np.empty((len(rows), rows.shape[2]))
    _step_beyond(rows, current, other, proportions, momentum, pull, weights, shift, found, residual)
    return *found, residual


@_compile(TENSOR, "int64", "int64", MATRIX, "float64", MATRIX, MATRIX, MATRIX, TENSOR, MATRIX)
def _step_beyond(rows, current, other, proportions, momentum, pull, weights, shift, found, residual):
    squares, gradients = found
    n_samples, n_cell_types = proportions.shape
    for j in range(n_samples):
        residual[j] = 0.0
        for k in range(n_cell_types):
            theta = proportions[j, k]
            for i in range(rows.shape[2]):
                here = rows[j, current + k, i]
                residual[j, i] += theta * (here + momentum * (here - rows[j, other + k, i]))
        for i in range(rows.shape[2]):
            residual[j, i] -= rows[j, 2 * n_cell_types, i]
        for k in range(n_cell_types):
            along, part = pull[j, k], 1.0 / weights[j, k]
            square, steepness = 0.0, 0.0
            for i in range(rows.shape[2]):
                here = rows[j, current + k, i]
                gradient = along * residual[j, i] + shift[k, i]
                end = here + momentum * (here - rows[j, other + k, i]) - part * gradient
                rows[j, other + k, i] = end
                square += end * end
                steepness += gradient * gradient
            squares[j, k], gradients[j, k] = square, steepness


def cut_and_compare(rows, current, other, proportions, factors, residual):
    """See :func:`skenigma.core.optimize.passes.cut_and_compare`."""
    squared, radial = found = np.empty((2, *proportions.shape))
    mixed, shared = np.zeros(1), np.zeros((proportions.shape[1], rows.shape[2]))
    at_rest = np.empty(len(rows))
    _cut_and_compare(rows, current, other, proportions, factors, residual, found, mixed, shared, at_rest)
    return squared, radial, float(mixed[0]), shared, at_rest


@_compile(TENSOR, "int64", "int64", MATRIX, MATRIX, MATRIX, TENSOR, VECTOR, MATRIX, VECTOR)
def _cut_and_compare(rows, current, other, proportions, factors, residual, found, mixed, shared, at_rest):
    squared, radial = found
    n_samples, n_cell_types = proportions.shape
    mixture = np.empty(rows.shape[2])
    for j in range(n_samples):
        mixture[:] = 0.0
        for k in range(n_cell_types):
            factor, theta = factors[j, k], proportions[j, k]
            square, outward, along = 0.0, 0.0, 0.0
            for i in range(rows.shape[2]):
                here, after = rows[j, current + k, i], factor * rows[j, other + k, i]
                rows[j, other + k, i] = after
                change = after - here
                mixture[i] += theta * here
                shared[k, i] += change
                square += change * change
                outward += change * after
                along += change * residual[j, i]
            squared[j, k], radial[j, k] = square, outward
            mixed[0] += theta * along
        square = 0.0
        for i in range(rows.shape[2]):
            rest = mixture[i] - rows[j, 2 * n_cell_types, i]
            square += rest * rest
        at_rest[j] = square
