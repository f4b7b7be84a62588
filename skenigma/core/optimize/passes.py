"""The passes over the rows of all samples that an iteration makes: nearly all of its arithmetic.

``rows`` holds, per sample, the expression of every cell type and, as the last row, the sample itself: shape
(n_samples, n_cell_types + 1, n_columns). ``sizes`` (n_samples, n_cell_types) are factors of the expression that are
still to be applied; with them, p_jk stands for the product below, θ_jk for the proportions, x_j for the sample, and
e_j = Σ_k θ_jk p_jk − x_j for its residual.

The functions here are made of NumPy calls. :mod:`skenigma.core.optimize.compiled` has the same as loops, two to
three times as fast, for where numba is installed; :func:`fastest` returns what there is.
"""

import os
import signal
import sys
import threading
from contextlib import contextmanager
from functools import cache

import numpy as np

from ..blocks import BLOCK_SIZE, row_blocks, row_products

# Set to 0, this variable of the environment keeps to NumPy even where numba is installed.
VARIABLE = "SKENIGMA_COMPILED"
# A cap of 0 belongs to norms of 0.
SMALLEST = np.finfo(np.float64).tiny


@cache
def fastest():
    """The module with the fastest passes: the compiled ones, or this one."""
    if os.environ.get(VARIABLE, "1") != "0":
        try:
            with _signals_waiting():
                from . import compiled, compiled_in_place  # noqa: F401 - loaded here, like the others
        except ImportError:  # not installed, or not for this version of NumPy
            pass
        else:
            return compiled
    return sys.modules[__name__]


@contextmanager
def _signals_waiting():
    """Let signals wait: what their handlers raise while numba loads is lost in its callbacks.

    The handlers themselves are exchanged: a blocked signal would be taken by a thread of the BLAS.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler runs here
        yield
        return
    caught = []
    handled = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    before = {
        number: signal.signal(number, lambda number, frame: caught.append(number)) for number in handled
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in caught:
            signal.raise_signal(number)


def survey(rows, proportions, sizes):
    """Look at all samples.

    Returns
    -------
    mean : ndarray of shape (n_cell_types, n_columns)
        Mean of the p_jk over the samples.
    squares : ndarray of shape (n_samples,)
        Squared norms of the e_j.
    """
    n_samples, n_cell_types = proportions.shape
    mix = np.empty((n_samples, 1, n_cell_types + 1))
    np.multiply(proportions, sizes, out=mix[:, 0, :-1])
    mix[:, 0, -1] = -1.0
    weights = (sizes.T / n_samples)[:, None]
    mean, squares = np.zeros((n_cell_types, 1, rows.shape[2])), np.empty(n_samples)
    for some in row_blocks(rows, 4 * BLOCK_SIZE):
        residual = np.matmul(mix[some], rows[some])[:, 0]
        squares[some] = row_products(residual, residual)
        mean += np.matmul(weights[:, :, some], rows[some, :-1].swapaxes(0, 1))
    return mean[:, 0], squares


def compare(rows, proportions, sizes, theta_squares, reference):
    """Compare all samples with what they should be: the mixtures with the bulk, and the means with the reference.

    Parameters
    ----------
    rows, proportions, sizes
    theta_squares : ndarray of shape (n_samples,)
        Sums of the squared proportions.
    reference : ndarray of shape (n_cell_types, n_columns - 1)
        Along all columns but the first, in which each sample has a direction of its own.

    Returns
    -------
    offset : ndarray of shape (n_cell_types, n_columns - 1)
        Mean of the p_jk minus the reference r_k.
    sums : list of 4 float
        Σ_j ‖e_j‖²; Σ_j (Σ_k θ_jk²) ‖e_j‖²; Σ_k ‖offset_k‖²; Σ_k ⟨r_k, mean_k + offset_k⟩.
    """
    return compared(*survey(rows, proportions, sizes), theta_squares, reference)


def compared(mean, squares, theta_squares, reference):
    """What :func:`compare` returns, from what :func:`survey` does."""
    offset = mean[:, 1:] - reference
    sums = squares.sum(), theta_squares @ squares, np.vdot(offset, offset)
    return offset, [float(value) for value in (*sums, np.vdot(reference, mean[:, 1:] + offset))]


def step(rows, proportions, sizes, norms, small, factor, shift, out=None):
    """Find p_jk − ``factor`` θ_jk e_j − ``shift``_k for every p_jk, and write it into ``out``, if that is given.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_cell_types + 1, n_columns)
        Not changed.
    proportions, sizes : ndarray of shape (n_samples, n_cell_types)
    norms : ndarray of shape (n_samples, n_cell_types)
        Norms of the p_jk.
    small : float
        Where ``apart`` is below this share of the squared norm, it is not found by a subtraction, which would leave
        it without digits.
    factor : float
    shift : ndarray of shape (n_cell_types, n_columns - 1)
        Along all columns but the first: a sample's own direction is not shifted.
    out : ndarray of the shape of ``rows``, optional
        The samples themselves must be in it.

    Returns
    -------
    left : ndarray of shape (n_samples, n_cell_types)
        Norms of what was found.
    nearest : ndarray of shape (n_samples, n_cell_types)
        The multiple of it that comes nearest to p_jk.
    apart : ndarray of shape (n_samples, n_cell_types)
        Squared distance of the two. So from p_jk to any multiple c of what was written it is
        ``apart`` + (c − ``nearest``)² ``left``².
    """
    squares, products = np.empty((2, *proportions.shape))
    for some, end in _steps(rows, proportions, sizes, factor, shift, out):
        squares[some] = row_products(end, end)
        products[some] = row_products(end, rows[some, :-1])
    products *= sizes
    nearest = products / np.maximum(squares, SMALLEST)
    before = norms**2
    apart = np.maximum(before - nearest * products, 0.0)
    if (apart.sum(axis=0) < small * before.sum(axis=0)).any():
        ends = _steps(rows, proportions, sizes, factor, shift) if out is None else _blocks_of(out)
        apart = _squared_distances(rows, sizes, ends, nearest)
    return np.sqrt(squares), nearest, apart


def move_and_survey(rows, proportions, sizes, factor, shift, new_sizes):
    """Take a step, of which :func:`step` found where it ends, in place, and look at all samples there.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_cell_types + 1, n_columns)
        Overwritten, but for the samples themselves.
    proportions, sizes, factor, shift
        As of :func:`step`.
    new_sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of where it ends.

    Returns
    -------
    mean, squares
        As of :func:`survey`, with ``new_sizes``.
    """
    for some, end in _steps(rows, proportions, sizes, factor, shift):
        rows[some, :-1] = end
    return survey(rows, proportions, new_sizes)


def _steps(rows, proportions, sizes, factor, shift, out=None):
    """Where a step ends, block by block: which samples, and what is in ``out``, or in memory for one block."""
    matrices = _step_matrices(proportions, sizes, factor)
    # flat, so that the shift is subtracted in long runs
    flat_shift = np.pad(shift, ((0, 1), (1, 0))).ravel()
    blocks = row_blocks(rows)
    room = np.empty_like(rows[blocks[0]]) if out is None else out
    assert room.flags.c_contiguous, "the shift would be subtracted from a copy"
    flat = room.reshape(len(room), -1)
    for some in blocks:
        start = rows[some]
        at = slice(0, len(start)) if out is None else some
        np.matmul(matrices[some], start, out=room[at, :-1])
        flat[at] -= flat_shift
        yield some, room[at, :-1]


def _blocks_of(rows):
    return ((some, rows[some, :-1]) for some in row_blocks(rows))


def _step_matrices(proportions, sizes, factor):
    """Row k of a sample's matrix: ``sizes`` times unit row k, minus factor θ_k (θ · ``sizes``, −1), which is e."""
    n_samples, n_cell_types = proportions.shape
    pull = factor * proportions
    matrices = np.empty((n_samples, n_cell_types, n_cell_types + 1))
    np.multiply(pull[:, :, None], (-sizes * proportions)[:, None], out=matrices[:, :, :-1])
    matrices[:, :, -1] = pull
    matrices.reshape(n_samples, -1)[:, :: n_cell_types + 2] += sizes
    return matrices


def _squared_distances(rows, sizes, ends, end_sizes):
    """Squared distances between the p_jk of two states, the second by blocks; shape (n_samples, n_cell_types)."""
    squares = np.empty(sizes.shape)
    # diagonal matrices: for so short rows a matrix product is twice as fast as scaling them
    identity = np.eye(squares.shape[1])
    of_rows, of_ends = (factors[:, :, None] * identity for factors in (sizes, end_sizes))
    for some, end in ends:
        difference = np.matmul(of_rows[some], rows[some, :-1])
        difference -= np.matmul(of_ends[some], end)
        squares[some] = row_products(difference, difference)
    return squares


def caps(norms, weight):
    """Caps of the proximal operator of ``weight``/2 · max², per cell type.

    Parameters
    ----------
    norms : ndarray of shape (n_samples, n_cell_types)
    weight : float

    Returns
    -------
    caps : ndarray of shape (n_cell_types,)
        The t_k with ``weight`` t_k = Σ_j max(0, v_jk − t_k).
    """
    totals = np.sort(np.ascontiguousarray(norms.T))[:, ::-1].cumsum(axis=1)
    totals /= np.arange(1, len(norms) + 1) + weight
    # whichever rows are cut, their balance gives no more than the right ones do
    return totals.max(axis=1)


def cut_factors(norms, caps):
    """Factors that cut ``norms`` to ``caps``; 1 where nothing is cut, so that a norm of 0 does no harm."""
    caps = np.maximum(caps, SMALLEST)
    return caps / np.maximum(norms, caps)


def cut(norms, caps, nearest, apart):
    """Cut what :func:`step` has written to norms of at most ``caps``.

    Parameters
    ----------
    norms, nearest, apart : ndarray of shape (n_samples, n_cell_types)
    caps : ndarray of shape (n_cell_types,)

    Returns
    -------
    sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of the cut, as of :func:`cut_factors`.
    left : ndarray of shape (n_samples, n_cell_types)
        The norms that are left.
    longest : ndarray of shape (n_cell_types,)
        The largest of these.
    change : ndarray of shape (n_cell_types,)
        Squared distance from where the step started to what is left, over all samples.
    square : float
        Sum of the squared norms that are left.
    """
    sizes = cut_factors(norms, caps)
    left = norms * sizes
    change = ((sizes - nearest) * norms) ** 2
    change += apart
    return sizes, left, left.max(axis=0), change.sum(axis=0), float(np.vdot(left, left))


def step_beyond(rows, current, other, proportions, momentum, pull, weights, shift):
    """Step from beyond the current ones of two states, stored as one, to where the other is.

    With p_jk for the current state and o_jk for the other, y_jk = p_jk + ``momentum`` (p_jk − o_jk), and the other
    becomes y_jk − (``pull``_jk e_j + ``shift``_k) / ``weights``_jk, with the residual e_j of y.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, 2 * n_cell_types + 1, n_columns)
        Both states and the samples themselves. The other state is overwritten.
    current, other : int
        Where the rows of the states begin: 0 and n_cell_types, or the other way round.
    proportions, pull, weights : ndarray of shape (n_samples, n_cell_types)
    momentum : float
    shift : ndarray of shape (n_cell_types, n_columns)

    Returns
    -------
    squares : ndarray of shape (n_samples, n_cell_types)
        Squared norms of what was written.
    gradients : ndarray of shape (n_samples, n_cell_types)
        Squared norms of ``pull`` e + ``shift``.
    residual : ndarray of shape (n_samples, n_columns)
        The e_j of y.
    """
    n_samples, n_cell_types = proportions.shape
    now, then = (slice(first, first + n_cell_types) for first in (current, other))
    squares, gradients = np.empty((2, *proportions.shape))
    residual = np.empty((n_samples, rows.shape[2]))
    for some in row_blocks(rows):
        here, before, theta = rows[some, now], rows[some, then], proportions[some, None]
        point = here + momentum * (here - before)
        residual[some] = np.matmul(theta, point)[:, 0] - rows[some, -1]
        gradient = pull[some, :, None] * residual[some, None]
        gradient += shift
        gradients[some] = row_products(gradient, gradient)
        gradient /= weights[some, :, None]
        point -= gradient
        squares[some] = row_products(point, point)
        before[...] = point
    return squares, gradients, residual


def cut_and_compare(rows, current, other, proportions, factors, residual):
    """Multiply what :func:`step_beyond` has written by ``factors``, and compare it with the current state.

    Parameters
    ----------
    rows, current, other, proportions
        As of :func:`step_beyond`.
    factors : ndarray of shape (n_samples, n_cell_types)
    residual : ndarray of shape (n_samples, n_columns)

    Returns
    -------
    squared : ndarray of shape (n_samples, n_cell_types)
        Squared lengths of the changes d_jk, the other state minus the current one.
    radial : ndarray of shape (n_samples, n_cell_types)
        Their inner products with the other state.
    mixed : float
        Inner product of Σ_k θ_jk d_jk with ``residual``.
    shared : ndarray of shape (n_cell_types, n_columns)
        Sum of the d_jk over the samples.
    at_rest : ndarray of shape (n_samples,)
        Squared norms of the residuals of the current state.
    """
    n_samples, n_cell_types = proportions.shape
    now, then = (slice(first, first + n_cell_types) for first in (current, other))
    squared, radial = np.empty((2, *proportions.shape))
    mixed, shared, at_rest = 0.0, np.zeros((n_cell_types, rows.shape[2])), np.empty(n_samples)
    for some in row_blocks(rows):
        here, after, theta = rows[some, now], rows[some, then], proportions[some, None]
        rest = np.matmul(theta, here)[:, 0] - rows[some, -1]
        at_rest[some] = row_products(rest, rest)
        after *= factors[some, :, None]
        change = after - here
        squared[some] = row_products(change, change)
        radial[some] = row_products(change, after)
        mixed += np.vdot(np.matmul(theta, change)[:, 0], residual[some])
        shared += change.sum(axis=0)
    return squared, radial, float(mixed), shared, at_rest
