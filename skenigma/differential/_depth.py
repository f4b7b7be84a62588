"""Samples brought to the depth that profiles, mixed by the proportions, let expect for them."""

import numpy as np

from .._by_genes import laid_out
from ..checks.entries import check_nonnegative
from ..checks.names import listing
from ..cohort import is_lazy
from ._bulk import tested_blocks


def to_expected_depth(bulk, study, proportions, reference, genes, reason):
    """Samples of the study brought to the depth of the expected bulk: by totals, then by the median ratio over genes.

    Totals alone would let a few strong changes look like small opposite ones in all other genes.

    Parameters
    ----------
    bulk : ndarray or LazyMatrix of shape (n_samples, n_genes)
        Read twice.
    study : Study
    proportions : ndarray of shape (n_tested, n_cell_types)
        Of the samples of the study.
    reference : ndarray of shape (n_cell_types, n_genes)
    genes : ndarray of str
    reason : str
        Why negative values are refused, for the message.

    Returns
    -------
    bulk : ndarray of shape (n_tested, n_genes)
        Of what is read by rows, in a temporary file by genes.
    """
    shape = study.n_samples, bulk.shape[1]
    mean, present, totals = np.zeros(shape[1]), np.zeros(shape[1], dtype=bool), np.empty(shape[0])
    numbers = np.arange(shape[0])
    for some, block in tested_blocks(bulk, study):
        check_nonnegative(block, "bulk", numbers[some], genes, reason)
        totals[some] = block.sum(axis=1)
        mean += _ratios(*_at_total(block, proportions[some] @ reference)).sum(axis=0)
        present |= block.any(axis=0)
    empty = np.flatnonzero(totals <= 0)
    if len(empty):
        raise ValueError(f"bulk has no counts in sample {listing(list(empty))}: leave these samples out.")
    # a gene that is above its expectation in all samples is a matter of platform, not of depth
    mean /= shape[0]
    parts = (
        (some, _at_depth(block, proportions[some] @ reference, mean, present))
        for some, block in tested_blocks(bulk, study)
    )
    if is_lazy(bulk):
        return laid_out(shape, parts)
    found = np.empty(shape)
    for some, block in parts:
        found[some] = block
    return found


def _at_depth(block, expected, mean, present):
    block, expected = _at_total(block, expected)
    ratios = _ratios(block, expected)
    ratios -= mean
    # what no sample expresses says nothing about depth
    block *= 2.0 ** -np.median(ratios[:, present], axis=1)[:, None]
    return block


def _at_total(block, expected):
    """Samples, new, at the totals of the expected ones, and these."""
    totals = block.sum(axis=1)
    factors = np.divide(expected.sum(axis=1), totals, out=np.zeros(len(block)), where=totals > 0)
    return block * factors[:, None], expected


def _ratios(block, expected):
    return np.log2(block + 1.0) - np.log2(expected + 1.0)
