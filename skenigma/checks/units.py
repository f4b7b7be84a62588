"""What values of bulk and reference seem to be, and what speaks against fitting one to the other.

Estimators warn of what is found here, the command line refuses part of it: the rules stand in one place.
"""

from dataclasses import dataclass

import numpy as np

from ..core.blocks import row_blocks, spaced
from .numbers import shortened
from .scales import LOG_SCALE_MAXIMUM

# Fewer genes than this do not tell what values are.
FEWEST_GENES = 20
# Rows that are looked at, evenly spaced, to tell what values are.
LOOKED_AT = 32
# Genes by which logarithms of either sign are told, this many or up to twice as many.
LOOKED_AT_GENES = 500
# The largest value over the mean of the positive ones: 2 to 8 for logarithms of 16 real bulks and their references,
# 20 to 3,300 for the same on the linear scale, centred or not.
LIGHT_TAIL = 10.0
# Logarithms of expression to any base reach this far.
LEAST_LOG_MAXIMUM = 3.0
# Variance of the mean of genes over the variance within them, from which on data are not centred: 0 if they are, 0.2
# in the published simulation, 1 to 300 for logarithms of the real tables.
NOT_CENTRED = 0.5
# Part of the values that are the smallest one, from which on it is the logarithm of a zero and what was added to it.
PILE = 0.01
# Part of the values up to which negative ones are stray, and the rest is what it would be without them.
STRAY = 0.05
# Bulk over reference, median over genes, from which on units differ.
LARGEST_RATIO = 10.0
# Largest over smallest total of a sample from which on depth, not biology, makes the difference.
LARGEST_DEPTHS = 3.0

KINDS = {
    "counts": "whole numbers: counts",
    "linear": "not negative, with decimals: looks like TPM, CPM or other untransformed values",
    "log": "looks like logarithms",
    "signed": "with negative values: centred or standardised",
}
UNTRANSFORMED = ("counts", "linear")


@dataclass(frozen=True)
class Values:
    """What a table of expression holds.

    Attributes
    ----------
    kind : {"counts", "linear", "log", "signed"}
        What the values seem to be, apart from stray negative ones.
    minimum, maximum : float
    n_negative : int
        How many values are negative.
    totals : ndarray of shape (n_rows,)
        Sum of every row.
    """

    kind: str
    minimum: float
    maximum: float
    n_negative: int
    totals: np.ndarray

    @property
    def is_linear(self):
        """Whether the values are untransformed, as mixtures are."""
        return self.kind in UNTRANSFORMED

    def __str__(self):
        stray = f", but {self.n_negative} negative" if self.is_linear and self.n_negative else ""
        return f"{self.minimum:.4g} to {self.maximum:.4g}, {KINDS[self.kind]}{stray}"


@dataclass(frozen=True)
class Finding:
    """One thing that speaks against bulk or reference.

    Attributes
    ----------
    name : {"mixed", "logarithms", "apart", "depths", "negatives"}
        Bulk and reference are of different kinds; both are logarithms; their units differ; library sizes differ;
        some values are negative in otherwise linear data.
    message : str
        What was found, and what to do.
    refuse : bool
        Whether no result can be right, so that a program should not go on unless it is told to.
    """

    name: str
    message: str
    refuse: bool = False

    def __str__(self):
        return self.message


def look_at(values):
    """What a dense matrix holds: rows are samples or cell types, columns genes.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_genes)
        Finite.

    Returns
    -------
    found : Values
    """
    known = getattr(values, "facts", None)  # of what is not in memory
    if known is not None:
        kind = _kind(values, known.n_negative, known.maximum)
        return Values(kind, known.minimum, known.maximum, known.n_negative, known.totals)
    totals, n_negative, minimum, maximum = np.empty(len(values)), 0, np.inf, -np.inf
    for rows in row_blocks(values):
        block = values[rows]
        totals[rows] = block.sum(axis=1, dtype=np.float64)
        low = float(block.min(initial=np.inf))
        minimum, maximum = min(minimum, low), max(maximum, float(block.max(initial=-np.inf)))
        n_negative += int(np.count_nonzero(block < 0)) if low < 0 else 0
    return Values(_kind(values, n_negative, maximum), minimum, maximum, n_negative, totals)


def _kind(values, n_negative, maximum):
    some = np.asarray(values[spaced(len(values), LOOKED_AT)], dtype=np.float64)
    # the first row tells most tables of decimals without a look at the others
    if not n_negative and _is_whole(some[:1]) and _is_whole(some):
        return "counts"
    signed = n_negative > STRAY * values.size
    if signed and not _is_logarithmic(some):
        return "signed"
    as_low = LEAST_LOG_MAXIMUM <= maximum < LOG_SCALE_MAXIMUM and values.shape[1] >= FEWEST_GENES
    # the tail takes the longest to look at, and decides little that is not decided by then
    if as_low and not _is_heavy(some):
        return "log"
    return "signed" if signed else "linear"


def _is_heavy(values):
    """Whether the largest value is many times the mean of the positive ones."""
    n_positive = np.count_nonzero(values > 0)
    return n_positive > 0 and values.max() * n_positive >= LIGHT_TAIL * np.maximum(values, 0.0).sum()


def _is_whole(values):
    return np.array_equal(values, np.rint(values))


def _is_logarithmic(values):
    """Whether values of either sign hold logarithms of zeros, or genes differ in level by more than they vary."""
    values = values[:, :: max(1, values.shape[1] // LOOKED_AT_GENES)]
    if np.count_nonzero(values == values.min()) > PILE * values.size:
        return True
    if len(values) < 2:
        return False
    means = values.mean(axis=0)
    apart = values - means
    within = float(np.vdot(apart, apart)) / ((len(values) - 1) * len(means))
    between = float(means.var()) - within / len(values)
    return between > NOT_CENTRED * within


def scale_findings(bulk, reference=None, sample_names=None, *, proportions_only=False):
    """What speaks against the scales of bulk and reference.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
        Finite, dense.
    reference : ndarray of shape (n_cell_types, n_genes), or None
        Profiles on the same genes; None where there is nothing to compare with.
    sample_names : array-like of str, shape (n_samples,), or None
        For the message.
    proportions_only : bool, default=False
        Whether only proportions are to be estimated, to which units and library sizes make no difference.

    Returns
    -------
    findings : list of Finding
        Empty if nothing does, or if there are too few genes to tell.
    """
    if bulk.shape[1] < FEWEST_GENES or not len(bulk):
        return []
    of_bulk = look_at(bulk)
    of_reference = None if reference is None else look_at(reference)
    found = [_negatives(of_bulk, "X"), _kinds(of_bulk, of_reference)]
    if of_reference is not None:
        found.append(_negatives(of_reference, "The reference"))
    if not proportions_only and of_bulk.is_linear:
        found.append(_depths(of_bulk.totals, sample_names))
        if of_reference is not None and of_reference.is_linear:
            found.append(_apart(bulk, reference))
    return [finding for finding in found if finding is not None]


def _negatives(found, what):
    if not (found.is_linear and found.n_negative):
        return None
    return Finding(
        "negatives",
        f"{what} has {found.n_negative} negative value(s) in otherwise linear data, of which the smallest is "
        f"{found.minimum:.4g}. Because of them the models treat all values as signed: nothing is clipped at 0, "
        f"and methods that need values of at least 0 are not used. Set them to 0, or correct the step that "
        f"produced them.",
    )


def _kinds(bulk, reference):
    if reference is None or _alike(bulk, reference):
        if bulk.kind != "log" or (reference is not None and reference.kind != "log"):
            return None
        return Finding(
            "logarithms",
            f"{'X seems' if reference is None else 'Bulk and reference seem'} to be logarithms (X goes from "
            f"{bulk.minimum:.4g} to {bulk.maximum:.4g}). A mixture of cells adds up before logarithms are taken, not "
            f"after: pass the values as they were before. preprocess='log' takes logarithms inside the model.",
            refuse=True,
        )
    return Finding(
        "mixed",
        f"Bulk and reference must be on the same scale, but X has {bulk}, and the reference has {reference}. "
        f"Transform both in the same way.",
        refuse=True,
    )


def _alike(bulk, reference):
    """Whether both are of one kind; small linear values can be taken for logarithms, but not next to large ones."""
    kinds = {"linear" if found.is_linear else found.kind for found in (bulk, reference)}
    if kinds == {"linear", "log"}:
        high = sorted([bulk.maximum, reference.maximum])
        return high[1] < LARGEST_RATIO * high[0]
    return len(kinds) == 1


def _apart(bulk, reference):
    mixed, pure = bulk.mean(axis=0, dtype=np.float64), reference.mean(axis=0, dtype=np.float64)
    both = (mixed > 0) & (pure > 0)
    if not both.any():
        return None
    ratio = float(np.median(mixed[both] / pure[both]))
    if 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
        return None
    more = "X is {:.3g} times the reference" if ratio > 1 else "the reference is {:.3g} times X"
    return Finding(
        "apart",
        f"Bulk and reference seem to be in different units: {more.format(max(ratio, 1 / ratio))} (median over "
        f"genes). Bring both to one scale first, such as counts per million.",
    )


def _depths(totals, names):
    low, high = int(np.argmin(totals)), int(np.argmax(totals))
    if not 0 < LARGEST_DEPTHS * totals[low] < totals[high]:
        return None
    named = [f"'{shortened(names[j])}'" if names is not None else f"{j}" for j in (low, high)]
    return Finding(
        "depths",
        f"Library sizes differ {totals[high] / totals[low]:.3g}-fold: the genes in use sum to {totals[low]:.4g} in "
        f"sample {named[0]} and to {totals[high]:.4g} in sample {named[1]}. A model treats this as a "
        f"difference in expression, and one deep sample affects the others. Divide every sample by its total, "
        f"as in counts per million.",
    )
