"""Samples that are none, without expression or unlike all others: named before a fit, which they would bend."""

from functools import partial

import numpy as np
from scipy.stats import rankdata

from ..core.blocks import row_blocks, row_products, spaced
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
    genes = spaced(bulk.shape[1], LOOKED_AT_GENES)
    filled = _filled(bulk, genes)
    findings = [_empty(names[~filled]), _stray(names[filled], _likeness(bulk, genes, filled)[filled])]
    return [finding for finding in findings if finding is not None]


def _filled(bulk, genes):
    """Which samples have any expression: most show it in the ``genes`` that are looked at."""
    if not isinstance(bulk, np.ndarray):  # found out when it was read
        return bulk.any(axis=1)
    filled = bulk.take(genes, axis=1).any(axis=1)
    doubtful = np.flatnonzero(~filled)
    filled[doubtful] = bulk[doubtful].any(axis=1)
    return filled


def repeated_samples(bulk):
    """Which samples, of those with any expression, are those of an earlier row once more.

    Parameters
    ----------
    bulk : ndarray or LazyMatrix of shape (n_samples, n_genes)

    Returns
    -------
    pairs : list of tuple of int
        A row and the first that is equal to it.
    """
    facts = getattr(bulk, "facts", None)  # of what is not in memory
    totals = bulk.sum(axis=1, dtype=np.float64) if facts is None else facts.totals
    largest = bulk.max(axis=1) if facts is None else facts.largest
    first, found = {}, []
    for row, sizes in enumerate(zip(totals.tolist(), largest.tolist(), strict=True)):
        # samples of one total, as of counts per million, may differ
        others = first.setdefault(sizes, [])
        earlier = next((other for other in others if np.array_equal(bulk[other], bulk[row])), None)
        if earlier is None:
            others.append(row)
        elif bulk[row].any():
            found.append((earlier, row))
    return found


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
        f"(median). They may be columns that describe genes, another tissue, or samples with genes in another "
        f"order. They distort the expression of the others: drop them, unless they belong here.",
    )


def _likeness(bulk, genes, filled):
    """Rank correlation of each row with the median of the ranks of those ``filled``; 0 where a row does not vary."""
    if getattr(bulk, "facts", None) is not None:  # not in memory: found out when it was read
        return bulk.facts.likeness
    # ranks take most of the time: those of a small cohort are formed once
    known = _ranks(bulk.take(genes, axis=1)) if len(bulk) <= RANKED_AT_ONCE else None
    return _to_middle(
        lambda rows: _ranks(bulk[rows].take(genes, axis=1)) if known is None else known[rows], genes, filled
    )


class Likeness:
    """The same for a matrix that is not in memory, of whose samples the ranks are kept, in two bytes each.

    Parameters
    ----------
    shape : tuple of int
        Numbers of samples and genes.
    """

    def __init__(self, shape):
        self._genes = spaced(shape[1], LOOKED_AT_GENES)
        self._ranks = np.empty((shape[0], len(self._genes)), dtype=np.int16)
        self.ranks = partial(_doubled_ranks, self._genes)

    def add(self, rows, ranks):
        """Keep the ``ranks`` of a block of the samples."""
        self._ranks[rows] = ranks

    def of(self, filled):
        """Likeness of all samples, shape (n_samples,)."""
        return _to_middle(lambda rows: self._ranks[rows] / 2, self._genes, filled)


def _doubled_ranks(genes, block):
    """Ranks over some genes as whole numbers: they have halves."""
    return (2 * _ranks(block.take(genes, axis=1))).astype(np.int16)


def _to_middle(ranks_of, genes, filled):
    """Correlation of the ranks of each sample with their median over some of those ``filled``."""
    n_samples, looked_at = len(filled), np.flatnonzero(filled)
    if not len(looked_at):
        return np.zeros(n_samples)
    middle = _middle(ranks_of(looked_at[spaced(len(looked_at), LOOKED_AT_SAMPLES)]))
    blocks = row_blocks(np.broadcast_to(0.0, (n_samples, len(genes))))
    return np.concatenate([_correlations(ranks_of(rows), middle) for rows in blocks])


def _middle(ranks):
    """Median over the samples, less its mean over the genes."""
    middle = np.median(ranks, axis=0)
    return middle - middle.mean()


def _ranks(values):
    """Ranks within each row, less their mean; equal values share theirs."""
    n_rows, n_columns = values.shape
    # positions in the flat matrix, which are faster to go by than those along an axis
    order = np.argsort(values, axis=1)
    order += n_columns * np.arange(n_rows)[:, None]
    ordered, ranks = values.take(order), np.empty(values.shape)
    # both flat: repeating the row of ranks takes less time than having it broadcast
    ranks.ravel()[order.ravel()] = np.tile(np.arange(n_columns) - 0.5 * (n_columns - 1), n_rows)
    # SciPy's function takes four times as long, and is needed where values are equal only
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if tied.any():
        ranks[tied] = rankdata(values[tied], axis=1) - 0.5 * (n_columns + 1)
    return ranks


def _correlations(ranks, middle):
    """Of centred rows with a centred vector."""
    sizes = np.sqrt(row_products(ranks, ranks) * (middle @ middle))
    return np.divide(ranks @ middle, sizes, out=np.zeros(len(ranks)), where=sizes > 0)
