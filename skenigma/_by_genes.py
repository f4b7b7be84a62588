"""A bulk that is read by rows, laid out by genes in a temporary file, for what needs all samples of a gene."""

import os
import tempfile

import numpy as np

from .checks.memory import readable


def by_genes(matrix, samples=slice(None)):
    """A bulk whose columns are read as fast as its rows were, and is not in memory either.

    Parameters
    ----------
    matrix : LazyMatrix of shape (n_samples, n_genes)
        Read once.
    samples : slice or ndarray of int, default=slice(None)
        Which ones, in any order.

    Returns
    -------
    values : ndarray of shape (n_chosen, n_genes)
        In double precision, mapped from a file without a name, which goes when the array does.

    Raises
    ------
    OSError
        If there is no room for the file.
    """
    n_chosen = len(np.arange(len(matrix))[samples])
    return laid_out((n_chosen, matrix.shape[1]), chosen_blocks(matrix, samples))


def chosen_blocks(matrix, samples=slice(None)):
    """Some samples of a bulk that is read by rows, in the order in which they are read.

    Parameters
    ----------
    matrix : LazyMatrix
        Read once.
    samples : slice or ndarray of int, default=slice(None)
        Which ones, in any order.

    Yields
    ------
    positions : ndarray of int
        Where the rows of a block stand among the chosen samples.
    block : ndarray of shape (n_rows, n_genes)
        In the type of the bulk.
    """
    places = np.full(len(matrix), -1)
    chosen = np.arange(len(matrix))[samples]
    places[chosen] = np.arange(len(chosen))
    for rows, block in matrix.blocks():
        some = places[rows] >= 0
        if some.any():
            yield places[rows][some], block if some.all() else block[some]


def laid_out(shape, parts):
    """A table, given by its rows, in a temporary file that holds it by columns.

    Parameters
    ----------
    shape : tuple of int
    parts : iterable of tuple
        Where some rows stand, as a slice or positions, and their values.

    Returns
    -------
    values : ndarray of that shape
        As from :func:`by_genes`.
    """
    values = room_by_genes(shape)
    for rows, block in parts:
        values[rows] = block
    return values


def room_by_genes(shape):
    """An array of double precision in a temporary file, that holds one column after the other."""
    size = 8 * shape[0] * shape[1]
    with tempfile.TemporaryFile(prefix="skenigma-") as file:
        try:
            # a map of a file for which there is no room would end the process when it is written to
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            else:
                file.truncate(max(size, 1))
        except OSError as error:
            room = tempfile.gettempdir()
            raise OSError(
                error.errno,
                f"A bulk that is read by rows is laid out by genes in a temporary file of {readable(size)}, and "
                f"there is no room in {room} ({error.strerror}). Free some space, or "
                f"set TMPDIR to a folder that has enough.",
            ) from error
        return np.memmap(file, np.float64, "r+", shape=shape, order="F")
