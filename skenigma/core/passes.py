"""The passes over the rows of all samples that an iteration makes: nearly all of its arithmetic.

``rows`` holds, per sample, the expression of every cell type and, as the last row, the sample itself: shape
(n_samples, n_cell_types + 1, n_columns). ``sizes`` (n_samples, n_cell_types) are factors of the expression that are
still to be applied; with them, p_jk stands for the product below, θ_jk for the proportions, x_j for the sample, and
e_j = Σ_k θ_jk p_jk − x_j for its residual.

The functions here are made of NumPy calls. :mod:`skenigma.core.compiled` has the same as loops, two to three times as
fast, for where numba is installed; :func:`fastest` returns what there is.
"""

import os
import signal
import sys
import threading
from contextlib import contextmanager
from functools import cache

import numpy as np

from .blocks import BLOCK_SIZE, row_blocks, row_products

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
                from . import compiled
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


def step(rows, proportions, sizes, factor, shift, out):
    """Move every p_jk to p_jk − ``factor`` θ_jk e_j − ``shift``_k, written into ``out``.

    Parameters
    ----------
    rows, out : ndarray of shape (n_samples, n_cell_types + 1, n_columns)
        ``rows`` are not changed; the samples themselves must be in ``out``.
    proportions, sizes : ndarray of shape (n_samples, n_cell_types)
    factor : float
    shift : ndarray of shape (n_cell_types + 1, n_columns)
        Its last row, for the samples themselves, is 0.

    Returns
    -------
    squares : ndarray of shape (n_samples, n_cell_types)
        Squared norms of what was written.
    products : ndarray of shape (n_samples, n_cell_types)
        Its inner products with ``rows``, without ``sizes``.
    """
    matrices = _step_matrices(proportions, sizes, factor)
    # flat, so that the shift is subtracted in long runs
    assert out.flags.c_contiguous, "the shift would be subtracted from a copy"
    flat, flat_shift = out.reshape(len(out), -1), shift.ravel()
    squares, products = np.empty((2, *proportions.shape))
    for some in row_blocks(out):
        start, end = rows[some], out[some, :-1]
        np.matmul(matrices[some], start, out=end)
        flat[some] -= flat_shift
        squares[some] = row_products(end, end)
        products[some] = row_products(end, start[:, :-1])
    return squares, products


def _step_matrices(proportions, sizes, factor):
    """Row k of a sample's matrix: ``sizes`` times unit row k, minus factor θ_k (θ · ``sizes``, −1), which is e."""
    n_samples, n_cell_types = proportions.shape
    pull = factor * proportions
    matrices = np.empty((n_samples, n_cell_types, n_cell_types + 1))
    np.multiply(pull[:, :, None], (-sizes * proportions)[:, None], out=matrices[:, :, :-1])
    matrices[:, :, -1] = pull
    matrices.reshape(n_samples, -1)[:, :: n_cell_types + 2] += sizes
    return matrices


def cut_factors(norms, caps):
    """Factors that cut ``norms`` to ``caps``; 1 where nothing is cut, so that a norm of 0 does no harm."""
    caps = np.maximum(caps, SMALLEST)
    return caps / np.maximum(norms, caps)


def cut(norms, caps, products, old_sizes):
    """Cut ``norms`` to ``caps``, and add up over the samples.

    Parameters
    ----------
    norms, products, old_sizes : ndarray of shape (n_samples, n_cell_types)
    caps : ndarray of shape (n_cell_types,)

    Returns
    -------
    sizes : ndarray of shape (n_samples, n_cell_types)
        Factors of the cut, as of :func:`cut_factors`.
    squares : ndarray of shape (n_cell_types,)
        Sums of the squared norms that are left.
    longest : ndarray of shape (n_cell_types,)
        The largest of these norms.
    common : ndarray of shape (n_cell_types,)
        Sums of ``products`` times both factors, ``sizes`` and ``old_sizes``.
    """
    sizes = cut_factors(norms, caps)
    left = np.multiply(norms, sizes).T.copy()  # by cell type: sums and maxima run along memory
    common = sizes * old_sizes
    common *= products
    return sizes, row_products(left, left), left.max(axis=1), common.sum(axis=0)


def squared_change(new, new_sizes, old, old_sizes):
    """Squared distance between the p_jk of two states, per cell type: shape (n_cell_types,)."""
    change = np.zeros(new_sizes.shape[1])
    # diagonal matrices: for so short rows a matrix product is twice as fast as scaling them
    identity = np.eye(len(change))
    by, was = (sizes[:, :, None] * identity for sizes in (new_sizes, old_sizes))
    for some in row_blocks(new):
        difference = np.matmul(by[some], new[some, :-1])
        difference -= np.matmul(was[some], old[some, :-1])
        change += row_products(difference, difference).sum(axis=0)
    return change
