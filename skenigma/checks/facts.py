"""What checks need to know of a bulk that is not in memory, found out in one reading."""

from dataclasses import dataclass

import numpy as np

from .entries import refuse_infinite
from .names import row_names
from .numbers import check_size
from .samples import Likeness


@dataclass(frozen=True)
class Facts:
    """What one reading has told of a matrix.

    Attributes
    ----------
    minimum, maximum : float
    n_negative : int
        How many values are negative.
    totals : ndarray of shape (n_samples,)
        Sum of every sample.
    largest : ndarray of shape (n_samples,)
        Largest value of every sample.
    filled : ndarray of bool, shape (n_samples,)
        Whether a sample has any value other than 0.
    mean : ndarray of shape (n_genes,)
        Mean over the samples.
    likeness : ndarray of shape (n_samples,)
        How every sample agrees with the middle one, see :mod:`skenigma.checks.samples`.
    """

    minimum: float
    maximum: float
    n_negative: int
    totals: np.ndarray
    largest: np.ndarray
    filled: np.ndarray
    mean: np.ndarray
    likeness: np.ndarray


def examine(matrix, what="X", names=None):
    """Read a lazy matrix once: refuse what no fit can use, and keep what checks ask for, as ``matrix.facts``.

    Parameters
    ----------
    matrix : LazyMatrix
        Of the genes in use; all genes of its source are checked.
    what : str, default="X"
        For messages.
    names : ndarray of str, or None
        Of all genes of its source.

    Raises
    ------
    ValueError
        If a value is NaN or infinite (the message names the first of its block by sample and gene), or all are so
        large or small that squares cannot be summed.
    """
    rows, n_samples = row_names(matrix), len(matrix)
    first_row = matrix.first_row if rows is None else 0  # a nameless sample is called by its number
    likeness = Likeness(matrix)
    totals, largest, alike = (np.empty(n_samples) for _ in range(3))
    filled, mean = np.empty(n_samples, dtype=bool), np.zeros(matrix.shape[1])
    minimum, maximum, n_negative, size = np.inf, -np.inf, 0, 0.0
    for some, whole, block in matrix.whole_blocks():
        refuse_infinite(whole, what, rows, names, first_row=first_row + some.start)
        size = max(size, float(whole.max(initial=0.0)), -float(whole.min(initial=0.0)))
        totals[some] = block.sum(axis=1, dtype=np.float64)
        largest[some] = block.max(axis=1, initial=-np.inf)
        filled[some] = block.any(axis=1)
        mean += block.sum(axis=0, dtype=np.float64)
        low = float(block.min(initial=np.inf))
        minimum, maximum = min(minimum, low), max(maximum, float(largest[some].max()))
        n_negative += int(np.count_nonzero(block < 0)) if low < 0 else 0
        alike[some] = likeness.of(block)
    check_size(size, matrix.dtype, what)
    matrix.facts = Facts(
        minimum, maximum, n_negative, totals, largest, filled, mean / max(1, n_samples), alike
    )
