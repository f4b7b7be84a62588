"""Iterations of samples whose frame is the whole space, several in one call of what numba compiles.

Where directions join, two states are held, and an iteration goes through :mod:`.compiled` in four calls, with Python
between them, which takes as long as the arithmetic of a hundred samples. Here one state is enough: every sample is
looked at twice, first at where a step would end, of which norms and distances are kept; then, once the caps are known
and there is a next iteration, the step is taken and cut, and mean and residual are added up in passing.
"""

import numpy as np

from .compiled import MATRIX, SMALLEST, TENSOR, VECTOR, _caps, _compile, _cut


@_compile(TENSOR, MATRIX, MATRIX, "float64", MATRIX, MATRIX, MATRIX, VECTOR)
def _take(rows, residual, proportions, factor, shift, sizes, mean, squares):
    """Take a step and multiply by ``sizes``; residuals, their squared norms, and the mean of where that leads."""
    n_samples, n_cell_types = proportions.shape
    shifts = np.zeros((n_cell_types, rows.shape[2]))
    shifts[:, 1:] = shift
    mixed = np.empty(rows.shape[2])
    mean[:] = 0.0
    for j in range(n_samples):
        for i in range(len(mixed)):
            mixed[i] = -rows[j, n_cell_types, i]
        for k in range(n_cell_types):
            size, theta = sizes[j, k], proportions[j, k]
            pull = factor * theta
            for i in range(len(mixed)):
                end = size * (rows[j, k, i] - pull * residual[j, i] - shifts[k, i])
                rows[j, k, i] = end
                mean[k, i] += end
                mixed[i] += theta * end
        square = 0.0
        for i in range(len(mixed)):
            residual[j, i] = mixed[i]
            square += mixed[i] * mixed[i]
        squares[j] = square
    mean /= n_samples


@_compile(TENSOR, MATRIX, MATRIX, MATRIX, "float64", "float64", MATRIX, TENSOR)
def _propose(rows, residual, proportions, norms, small, factor, shift, found):
    """What :func:`skenigma.core.optimize.passes.step` finds of a step, which is not taken yet."""
    left, nearest, apart = found
    n_samples, n_cell_types = proportions.shape
    # a sample's own direction is not shifted
    shifts = np.zeros((n_cell_types, rows.shape[2]))
    shifts[:, 1:] = shift
    for j in range(n_samples):
        for k in range(n_cell_types):
            pull = factor * proportions[j, k]
            square, product = 0.0, 0.0
            for i in range(rows.shape[2]):
                start = rows[j, k, i]
                end = start - pull * residual[j, i] - shifts[k, i]
                square += end * end
                product += end * start
            multiple, before = product / max(square, SMALLEST), norms[j, k] ** 2
            rest = max(before - multiple * product, 0.0)
            if rest < small * before:
                rest = 0.0
                for i in range(rows.shape[2]):
                    start = rows[j, k, i]
                    difference = start - multiple * (start - pull * residual[j, i] - shifts[k, i])
                    rest += difference * difference
            left[j, k], nearest[j, k], apart[j, k] = np.sqrt(square), multiple, rest


@_compile(MATRIX, MATRIX, VECTOR, VECTOR, VECTOR, VECTOR, MATRIX, VECTOR)
def _look(mean, reference, squares, theta_squares, rule, noise, shift, numbers):
    """Step factor, shift, and what the loss row is made of: as :class:`skenigma.core.optimize.steps.StepSizes`."""
    total, weighted, length, along = 0.0, 0.0, 0.0, 0.0
    for j in range(len(squares)):
        total += squares[j]
        weighted += theta_squares[j] * squares[j]
    for k in range(shift.shape[0]):
        for i in range(shift.shape[1]):
            away = mean[k, 1 + i] - reference[k, i]
            shift[k, i] = away
            length += away * away
            along += reference[k, i] * (mean[k, 1 + i] + away)
    size, step, gradient, shift_step, shift_gradient = rule
    gradient *= np.sqrt(weighted)
    shift_gradient *= np.sqrt(length)
    if not np.isnan(size):
        step *= size / gradient if gradient > noise[0] else 0.0
        shift_step *= size / shift_gradient if shift_gradient > noise[1] else 0.0
    shift *= shift_step
    numbers[0], numbers[1], numbers[2] = step, total, length
    numbers[3], numbers[4], numbers[5] = along, gradient, shift_gradient


@_compile(
    TENSOR, MATRIX, MATRIX, VECTOR, MATRIX, VECTOR, VECTOR, "float64", "float64", "float64",
    TENSOR, MATRIX, VECTOR, TENSOR, TENSOR, MATRIX, TENSOR, MATRIX,
)  # fmt: skip
def iterate(
    rows, residual, proportions, theta_squares, reference, rule, noise, weight, small, epsilon,
    held, mean, squares, found, shifts, caps, sums, numbers,
):  # fmt: skip
    """Take the step of the iteration before, find the next, and so on, until changes are below epsilon or not finite.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_cell_types + 1, n_columns)
        As of :mod:`skenigma.core.optimize.passes`; written.
    residual : ndarray of shape (n_samples, n_columns)
        Of ``rows``; written.
    proportions : ndarray of shape (n_samples, n_cell_types)
    theta_squares : ndarray of shape (n_samples,)
    reference : ndarray of shape (n_cell_types, n_columns - 1)
    rule : ndarray of shape (5,)
        Norm to which gradients are rescaled or NaN; step along θ_jk e_j and gradient norm per (Σ_j ‖θ_j‖² ‖e_j‖²)^½;
        the same along mean minus reference.
    noise : ndarray of shape (2,)
        Gradient norms up to which a gradient is zero up to rounding.
    weight, small : float
        As of :func:`~skenigma.core.optimize.passes.caps` and :func:`~skenigma.core.optimize.passes.step`.
    epsilon : float
        An iteration whose largest change is below it is the last.
    held : ndarray of shape (2, n_samples, n_cell_types)
        Factors of the cut to make, and the norms that it leaves; overwritten by those of the last.
    mean, squares, found
        Room for :func:`_take` and :func:`_propose`.
    shifts : ndarray of shape (1 + n_iterations, n_cell_types, n_columns - 1)
        That of the step to take, and what is found.
    caps : ndarray of shape (n_iterations, n_cell_types)
    sums : ndarray of shape (n_iterations, 3, n_cell_types)
        See :func:`~skenigma.core.optimize.passes.cut`.
    numbers : ndarray of shape (1 + n_iterations, 6)
        Factor of the step to take, then a row per iteration: its step factor; Σ_j ‖e_j‖², Σ_k ‖mean_k − r_k‖²,
        Σ_k ⟨r_k, 2 mean_k − r_k⟩ and both gradient norms of where it started. The first row says how many there are.
    """
    for t in range(len(caps)):
        _take(rows, residual, proportions, numbers[t, 0], shifts[t], held[0], mean, squares)
        _look(mean, reference, squares, theta_squares, rule, noise, shifts[t + 1], numbers[t + 1])
        _propose(rows, residual, proportions, held[1], small, numbers[t + 1, 0], shifts[t + 1], found)
        _caps(found[0], weight, caps[t])
        _cut(found[0], caps[t], found[1], found[2], held, sums[t])
        numbers[0, 1] = t + 1
        largest = 0.0
        for change in sums[t, 1]:
            largest = max(largest, change)
        if not epsilon <= largest < np.inf:
            break
