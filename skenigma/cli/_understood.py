"""What the files hold, in words, before anything is computed: size, shared genes, scale."""

from dataclasses import dataclass

import numpy as np

from ..io import check_orientation
from ..reference._cells import LOG_SCALE_MAXIMUM

# Totals of a sample and a profile further apart than this are not on one scale.
LARGEST_RATIO = 10.0
# More cell types are single cells, fewer shared genes a misunderstanding of names.
MOST_CELL_TYPES, FEWEST_GENES = 100, 50

KINDS = {
    "signed": "with negative values: centred or standardised",
    "counts": "whole numbers: counts",
    "log": "not negative, small: looks like a logarithm",
    "linear": "not negative, with decimals: looks like TPM, CPM or other untransformed values",
}
UNTRANSFORMED = ("counts", "linear")


@dataclass(frozen=True)
class Scale:
    """Range of a table, and what it seems to be.

    Attributes
    ----------
    kind : {"signed", "counts", "log", "linear"}
    minimum, maximum : float
    """

    kind: str
    minimum: float
    maximum: float

    def __str__(self):
        return f"{self.minimum:.4g} to {self.maximum:.4g}, {KINDS[self.kind]}"


def find_scale(frame):
    """Scale of a table of expression, from its values."""
    values = frame.to_numpy()
    low, high = float(values.min()), float(values.max())
    if low < 0:
        kind = "signed"
    elif np.all(values == np.rint(values)):
        kind = "counts"
    else:
        kind = "log" if high < LOG_SCALE_MAXIMUM else "linear"
    return Scale(kind, low, high)


def understand(bulk, reference, console):
    """Say what bulk and reference are, and warn where they do not fit together.

    Returns
    -------
    understood : dict
        The same for the record.
    """
    genes = check_orientation(bulk, reference)
    scales = {"bulk": find_scale(bulk), "reference": find_scale(reference)}
    console.facts(
        [
            ("bulk", f"{counted(len(bulk), 'sample')} × {counted(bulk.shape[1], 'gene')}"),
            ("reference", f"{counted(len(reference), 'cell type')} × {counted(reference.shape[1], 'gene')}"),
            ("cell types", shortened(reference.index)),
            ("shared", counted(len(genes), "gene")),
            ("bulk values", scales["bulk"]),
            ("reference values", scales["reference"]),
        ]
    )
    for problem in _mismatches(scales, bulk[genes], reference[genes]):
        console.warn(problem)
    return {
        "n_samples": len(bulk),
        "n_genes_bulk": bulk.shape[1],
        "n_genes_reference": reference.shape[1],
        "n_genes_shared": len(genes),
        "cell_types": list(reference.index),
        "scale": {
            name: {"kind": scale.kind, "minimum": scale.minimum, "maximum": scale.maximum}
            for name, scale in scales.items()
        },
    }


def _mismatches(scales, bulk, reference):
    """Sentences on what speaks against one scale."""
    kinds = [scale.kind for scale in scales.values()]
    groups = {"untransformed" if kind in UNTRANSFORMED else kind for kind in kinds}
    if len(groups) > 1:
        yield (
            f"Bulk and reference must be on the same scale, but the bulk is {KINDS[kinds[0]]}, and the reference is "
            f"{KINDS[kinds[1]]}."
        )
    elif groups == {"untransformed"}:
        totals = [float(np.median(frame.to_numpy().sum(axis=1))) for frame in (bulk, reference)]
        if min(totals) <= 0 or max(totals) / min(totals) > LARGEST_RATIO:
            yield (
                f"On the shared genes a sample has {totals[0]:.4g} in total and a profile {totals[1]:.4g} (medians): "
                f"if these are not the same units, bring both to one scale first, for example counts per million."
            )
    if len(reference) > MOST_CELL_TYPES:
        yield (
            f"The reference has {len(reference):,} cell types: if these are single cells, average them by cell type "
            f"first (skenigma reference)."
        )
    if bulk.shape[1] < max(FEWEST_GENES, 2 * len(reference)):
        yield f"Only {bulk.shape[1]} genes are shared: are the identifiers of bulk and reference of one kind?"


def counted(number, noun):
    """Number and noun, "1 gene", "20,000 genes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(names, shown=8):
    """The first few names and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
