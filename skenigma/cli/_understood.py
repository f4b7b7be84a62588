"""What the files hold, in words, before anything is computed: size, shared genes, scale."""

import pandas as pd

from ..checks.units import look_at
from ..io import check_orientation

# More cell types are single cells, fewer shared genes a misunderstanding of names.
MOST_CELL_TYPES, FEWEST_GENES = 100, 50


def understand(bulk, reference, console):
    """Say what bulk and reference are, and warn where they seem to be something else.

    Returns
    -------
    understood : dict
        The same for the record.
    """
    genes = check_orientation(bulk, reference)
    of_bulk = look_at(bulk.to_numpy() if isinstance(bulk, pd.DataFrame) else bulk)
    scales = {"bulk": of_bulk, "reference": look_at(reference.to_numpy())}
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
    for problem in _doubts(len(genes), len(reference)):
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


def _doubts(n_genes, n_cell_types):
    """Sentences on what is hardly meant."""
    if n_cell_types > MOST_CELL_TYPES:
        yield (
            f"The reference has {n_cell_types:,} cell types: if these are single cells, average them by cell type "
            f"first (skenigma reference)."
        )
    if n_genes < max(FEWEST_GENES, 2 * n_cell_types):
        yield f"Only {n_genes} genes are shared: do bulk and reference use the same kind of identifier?"


def counted(number, noun):
    """Number and noun, "1 gene", "20,000 genes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(names, shown=8):
    """The first few names and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
