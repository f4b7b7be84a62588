"""A matrix that is read by rows, visited block by block, here or on the workers that hold its rows."""

import numpy as np

from .._dask import active_client
from ._sources import package_of


def workers_of(store, n_rows):
    """The workers of the active client, for a dask array that has as many rows as are in use; else None."""
    client = active_client() if package_of(store) == "dask" and len(store) == n_rows else None
    if client is None:
        return None
    # only here: most installations have no dask
    from .._dask.rows import OnWorkers

    return OnWorkers(client, store)


class Visited:
    """A stretch of rows with their positions, that is visited block by block on the worker where it is read."""

    def __init__(self, source):
        self._matrix, self._positions = source

    def visit(self, function):
        """Which rows, and what a function answers of them, for each block."""
        return list(visited(self._matrix, function, self._positions[0]))


def visited(matrix, function, first=0):
    names = np.arange(matrix.first_row, matrix.first_row + len(matrix))
    names = names if matrix.index is None else np.asarray(matrix.index)
    for some, whole, block in matrix.whole_blocks():
        rows = slice(first + some.start, first + some.stop)
        yield rows, function(rows, names[some], whole, block)
