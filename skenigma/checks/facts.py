"""What checks need to know of a bulk that is not in memory, found out in one reading."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from .entries import refuse_infinite
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
        Of all genes of its source, if that does not know them.
    expressed : ndarray of bool, shape (n_genes,), default=None
        The genes that a profile expresses; None is all.

    Raises
    ------
    ValueError
        If a value is NaN or infinite (the message names the first of its block by sample and gene), or all are so
        large or small that squares cannot be summed.
    """
    n_samples = len(matrix)
    likeness, spaced = Likeness(matrix.shape), {}
    totals, largest, expressed_totals, least = (np.empty(n_samples) for _ in range(4))
    chosen = slice(None) if expressed is None or expressed.all() else np.flatnonzero(expressed)
    kept = np.concatenate([np.linspace(0, n_samples - 1, count).astype(int) for count in SPACED])
    filled, mean = np.empty(n_samples, dtype=bool), np.zeros(matrix.shape[1])
    minimum, maximum, n_negative, size = np.inf, -np.inf, 0, 0.0
    # names may be those of a selection, and all genes of the source are looked at
    genes = names if matrix.source_columns is None else np.asarray(matrix.source_columns)
    look = partial(_look, what=what, genes=genes, chosen=chosen, kept=kept, ranks=likeness.ranks)
    for some, seen in matrix.each(look):
        size = max(size, seen.size)
        totals[some], largest[some], filled[some] = seen.totals, seen.largest, seen.filled
        expressed_totals[some], least[some] = seen.expressed, seen.least_expressed
        mean += seen.sums
        minimum, maximum = min(minimum, seen.minimum), max(maximum, float(seen.largest.max()))
        n_negative += seen.n_negative
        likeness.add(some, seen.ranks)
        spaced |= seen.spaced
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


@dataclass(frozen=True)
class _Seen:
    """What a block of samples has told: what is not of :class:`Facts` is its own."""

    size: float
    minimum: float
    n_negative: int
    totals: np.ndarray
    largest: np.ndarray
    filled: np.ndarray
    expressed: np.ndarray
    least_expressed: np.ndarray
    sums: np.ndarray
    ranks: np.ndarray
    spaced: dict


def _look(some, names, whole, block, *, what, genes, chosen, kept, ranks):
    """Look at a block, wherever it is read, see :meth:`skenigma.cohort.LazyMatrix.each`."""
    named = isinstance(names[0], str)  # a nameless sample is called by its number
    refuse_infinite(whole, what, names if named else None, genes, first_row=0 if named else names[0])
    low, of_profiles = float(block.min(initial=np.inf)), block[:, chosen]
    return _Seen(
        max(float(whole.max(initial=0.0)), -float(whole.min(initial=0.0))),
        low,
        int(np.count_nonzero(block < 0)) if low < 0 else 0,
        block.sum(axis=1, dtype=np.float64),
        block.max(axis=1, initial=-np.inf),
        block.any(axis=1),
        of_profiles.sum(axis=1, dtype=np.float64),
        of_profiles.min(axis=1, initial=np.inf, where=of_profiles > 0),
        block.sum(axis=0, dtype=np.float64),
        ranks(block),
        {row: block[row - some.start].copy() for row in kept if some.start <= row < some.stop},
    )
