"""Which way round bulk and reference are, by the genes that they share."""

import pandas as pd

from ..checks.identifiers import why_unlike
from ..checks.names import listing


def check_orientation(bulk: pd.DataFrame, reference: pd.DataFrame) -> pd.Index:
    """Refuse a bulk or a reference that is turned the wrong way round, by the genes that they share.

    Parameters
    ----------
    bulk : DataFrame of shape (n_samples, n_genes)
        As :func:`read_bulk` returns it.
    reference : DataFrame of shape (n_cell_types, n_genes)
        As :func:`read_reference` returns it.

    Returns
    -------
    genes : Index
        Names of the genes that both have, in the order of the bulk.

    Raises
    ------
    ValueError
        If more names are shared along another axis, or none at all.

    Examples
    --------
    >>> import pandas as pd
    >>> from skenigma.io import check_orientation
    >>> bulk = pd.DataFrame([[1.0, 2.0]], index=["donor1"], columns=["CD19", "CD4"])
    >>> reference = pd.DataFrame([[9.0, 0.0]], index=["B cell"], columns=["CD4", "CD8A"])
    >>> check_orientation(bulk, reference).tolist()
    ['CD4']
    >>> check_orientation(bulk.T, reference)
    Traceback (most recent call last):
        ...
    ValueError: The bulk is turned the wrong way round: 1 of its samples ('CD4') are genes of the reference...
    """
    shared = bulk.columns.intersection(reference.columns, sort=False)
    turned = {
        ("bulk",): bulk.index.intersection(reference.columns, sort=False),
        ("reference",): bulk.columns.intersection(reference.index, sort=False),
        ("bulk", "reference"): bulk.index.intersection(reference.index, sort=False),
    }
    wrong, names = max(turned.items(), key=lambda item: len(item[1]))
    if len(names) > len(shared):
        raise ValueError(_turned_message(wrong, names))
    if not len(shared):
        raise ValueError(
            f"Bulk and reference share no gene: the bulk has {listing(bulk.columns)}; the reference has "
            f"{listing(reference.columns)}. {why_unlike(bulk.columns, reference.columns, 0)}Use the same kind of "
            f"gene identifier in both."
        )
    return shared


def _turned_message(wrong, names):
    first = f"{len(names)} of its {{}} ({listing(names)}) are genes of the {{}}"
    found = {
        ("bulk",): "The bulk is turned the wrong way round: " + first.format("samples", "reference"),
        ("reference",): "The reference is turned the wrong way round: " + first.format("cell types", "bulk"),
        (
            "bulk",
            "reference",
        ): f"Bulk and reference are both turned the wrong way round: they share {len(names)} "
        f"names of samples and cell types ({listing(names)}), and no more genes",
    }[wrong]
    options = {"bulk": "--bulk-rows samples", "reference": "--reference-rows cell-types"}
    return (
        f"{found}. Tables are read as genes × samples and genes × cell types, AnnData the other way round. Transpose "
        f"it, or pass {' '.join(options[side] for side in wrong)}."
    )
