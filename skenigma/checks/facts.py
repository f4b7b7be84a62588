"""What checks need to know of a bulk that is not in memory, found out in one reading."""

from dataclasses import dataclass

import numpy as np

from .entries import refuse_infinite
from .names import row_names
from .numbers import check_size
from .samples import Likeness
from .units import LOOKED_AT

# How many evenly spaced rows are looked at to tell what values are, and to find the genes with most of the bulk.
SPACED = LOOKED_AT, 16


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
    expressed, least_expressed : ndarray of shape (n_samples,)
        Sum, and smallest positive value, of every sample over the genes that a profile expresses; infinity where
        none is positive.
    mean : ndarray of shape (n_genes,)
        Mean over the samples.
    likeness : ndarray of shape (n_samples,)
        How every sample agrees with the middle one, see :mod:`skenigma.checks.samples`.
    spaced : dict
        Some rows by their positions, spaced evenly, which need not be read again one by one.
    """

    minimum: float
    maximum: float
    n_negative: int
    totals: np.ndarray
    largest: np.ndarray
    filled: np.ndarray
    expressed: np.ndarray
    least_expressed: np.ndarray
    mean: np.ndarray
    likeness: np.ndarray
    spaced: dict


def examine(matrix, what="X", names=None, expressed=None):
    """Read a lazy matrix once: refuse what no fit can use, and keep what checks ask for, as ``matrix.facts``.

    Parameters
    ----------
    matrix : LazyMatrix
        Of the genes in use; all genes of its source are checked.
    what : str, default="X"
        For messages.
    names : ndarray of str, or None
        Of all genes of its source.
    expressed : ndarray of bool, shape (n_genes,), default=None
        The genes that a profile expresses; None is all.

    Raises
    ------
    ValueError
        If a value is NaN or infinite (the message names the first of its block by sample and gene), or all are so
        large or small that squares cannot be summed.
    """
    rows, n_samples = row_names(matrix), len(matrix)
    first_row = matrix.first_row if rows is None else 0  # a nameless sample is called by its number
    likeness, spaced = Likeness(matrix.shape), {}
    totals, largest, expressed_totals, least = (np.empty(n_samples) for _ in range(4))
    chosen = slice(None) if expressed is None or expressed.all() else np.flatnonzero(expressed)
    kept = np.concatenate([np.linspace(0, n_samples - 1, count).astype(int) for count in SPACED])
    filled, mean = np.empty(n_samples, dtype=bool), np.zeros(matrix.shape[1])
    minimum, maximum, n_negative, size = np.inf, -np.inf, 0, 0.0
    for some, whole, block in matrix.whole_blocks():
        refuse_infinite(whole, what, rows, names, first_row=first_row + some.start)
        size = max(size, float(whole.max(initial=0.0)), -float(whole.min(initial=0.0)))
        totals[some] = block.sum(axis=1, dtype=np.float64)
        largest[some] = block.max(axis=1, initial=-np.inf)
        filled[some] = block.any(axis=1)
        of_profiles = block[:, chosen]
        expressed_totals[some] = of_profiles.sum(axis=1, dtype=np.float64)
        least[some] = of_profiles.min(axis=1, initial=np.inf, where=of_profiles > 0)
        mean += block.sum(axis=0, dtype=np.float64)
        low = float(block.min(initial=np.inf))
        minimum, maximum = min(minimum, low), max(maximum, float(largest[some].max()))
        n_negative += int(np.count_nonzero(block < 0)) if low < 0 else 0
        likeness.add(some, block)
        spaced |= {row: block[row - some.start].copy() for row in kept if some.start <= row < some.stop}
    check_size(size, matrix.dtype, what)
    matrix.facts = Facts(
        minimum,
        maximum,
        n_negative,
        totals,
        largest,
        filled,
        expressed_totals,
        least,
        mean / max(1, n_samples),
        likeness.of(filled),
        spaced,
    )
