"""Samples that are none, without expression or unlike all others: named before a fit, which they would bend."""

import numpy as np
from scipy.stats import rankdata

from ..core.blocks import row_blocks
from .names import listing
from .units import Finding

# Genes and samples that are looked at, evenly spaced, and the fewest that tell anything.
LOOKED_AT_GENES, LOOKED_AT_SAMPLES = 200, 64
FEWEST_GENES, FEWEST_SAMPLES = 100, 4
# Samples up to which all ranks are held at a time.
RANKED_AT_ONCE = 256
# Rank correlation of a sample with the middle one, over the median of all: .88 and more in 16 real bulks, .67 where
# sorted cells stand among whole blood or one another; below .2 for genes in another order, and for their lengths.
STRAY = 0.4
# Median correlation from which on samples are alike at all, .92 and more in 16 real bulks: centred values are not
# (.4 to .5 on simulated ones, with some samples far below), and tell no stray.
ALIKE = 0.7


def sample_findings(bulk, sample_names=None):
    """Which samples of a bulk can hardly be samples of it.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
        Finite, dense, on any scale.
    sample_names : ndarray of str, or None

    Returns
    -------
    findings : list of Finding
        Named "empty" or "stray".
    """
    if bulk.shape[1] < FEWEST_GENES:
        return []
    names = np.arange(len(bulk)) if sample_names is None else np.asarray(sample_names, dtype=object)
    filled = bulk.any(axis=1)
    findings = [_empty(names[~filled]), _stray(names[filled], _likeness(bulk, np.flatnonzero(filled)))]
    return [finding for finding in findings if finding is not None]


def _empty(names):
    if not len(names):
        return None
    return Finding(
        "empty",
        f"{len(names)} sample(s) are zero in every gene in use: {listing(names.tolist())}. They have no proportions "
        f"and no expression: drop them.",
    )


def _stray(names, likeness):
    middle = np.median(likeness) if len(names) >= FEWEST_SAMPLES else 0.0
    stray = likeness < STRAY * middle
    if middle < ALIKE or not stray.any():
        return None
    return Finding(
        "stray",
        f"{stray.sum()} sample(s) are unlike all others, {listing(names[stray].tolist())}: over genes their ranks "
        f"correlate with the middle sample by {likeness[stray].max():.2f} or less, those of all by {middle:.2f} "
        f"(median). A column that describes genes, another tissue, or genes in another order? They bend the "
        f"expression of the others: drop them, unless they belong here.",
    )


def _likeness(bulk, rows):
    """Rank correlation of each of these rows with the median of the ranks; 0 where a row does not vary."""
    if getattr(bulk, "facts", None) is not None:  # not in memory: found out when it was read
        return bulk.facts.likeness[rows]
    genes = _looked_at_genes(bulk)
    if not len(rows):
        return np.empty(0)
    looked_at = _spaced(len(rows))
    # ranks take all of the time: those of a small cohort are formed once
    known = _ranks(bulk, rows, genes) if len(rows) <= RANKED_AT_ONCE else None
    of_some = _ranks(bulk, rows[looked_at], genes) if known is None else known[looked_at]
    middle = _centred(np.median(of_some, axis=0)[None])[0]
    found = np.empty(len(rows))
    for block in row_blocks(np.broadcast_to(0.0, (len(rows), len(genes)))):
        ranks = _ranks(bulk, rows[block], genes) if known is None else known[block]
        found[block] = _correlations(ranks, middle)
    return found


class Likeness:
    """The same for a matrix that is not in memory, block by block.

    Parameters
    ----------
    bulk : LazyMatrix
        Of which a few rows are read.
    """

    def __init__(self, bulk):
        self._genes = _looked_at_genes(bulk)
        self._middle = None
        some = (
            bulk[_spaced(len(bulk))][:, self._genes] if len(bulk) and len(self._genes) else np.empty((0, 1))
        )
        some = some[some.any(axis=1)]
        if len(some):
            self._middle = _centred(np.median(rankdata(some, axis=1), axis=0)[None])[0]

    def of(self, block):
        """Of some rows."""
        if self._middle is None:
            return np.zeros(len(block))
        return _correlations(rankdata(block[:, self._genes], axis=1), self._middle)


def _looked_at_genes(bulk):
    return np.unique(np.linspace(0, bulk.shape[1] - 1, LOOKED_AT_GENES).astype(int))


def _spaced(count):
    return np.unique(np.linspace(0, count - 1, LOOKED_AT_SAMPLES).astype(int))


def _correlations(ranks, middle):
    ranks = _centred(ranks)
    sizes = np.sqrt(np.sum(ranks**2, axis=1) * np.sum(middle**2))
    return np.divide(ranks @ middle, sizes, out=np.zeros(len(ranks)), where=sizes > 0)


def _ranks(bulk, rows, genes):
    return rankdata(bulk[np.ix_(rows, genes)], axis=1)


def _centred(ranks):
    return ranks - ranks.mean(axis=1, keepdims=True)
