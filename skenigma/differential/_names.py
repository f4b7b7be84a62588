"""Names of cell types and genes, and what is refused under them."""

import numpy as np

from ..checks.names import column_names, listing, numbered, row_names
from ..checks.numbers import check_magnitude
from ..checks.tables import check_table
from ..checks.validation import check_proportions


def names_or_count(given, count, prefix, what):
    """Names as an array of strings, counted where none are given."""
    if given is None:
        return numbered(prefix, count)
    names = np.array([str(name) for name in given], dtype=object)
    if len(names) != count:
        raise ValueError(f"{what} has {len(names)} names for {count} of them.")
    return names


def check_bulk(bulk, proportions, cell_types, gene_names):
    """Bulk and proportions as arrays, their cell types and genes, and the samples' names or None."""
    samples, genes = row_names(bulk), column_names(bulk, "bulk")
    bulk = check_table(bulk, "bulk", dtype=np.float64, ensure_all_finite=False)
    if cell_types is None:
        cell_types = column_names(proportions, "proportions")
    cell_types = names_or_count(cell_types, np.shape(proportions)[-1], "celltype", "cell_types")
    genes = names_or_count(genes if gene_names is None else gene_names, bulk.shape[1], "x", "gene_names")
    refuse_nonfinite(~np.isfinite(bulk).all(axis=0), genes, "bulk", "gene")
    check_magnitude(bulk, "bulk")
    proportions = check_proportions(proportions, cell_types, len(bulk), samples)
    return bulk, proportions, (cell_types, genes), samples


def matched_reference(reference, cell_types, genes):
    """The reference's values for these cell types and genes."""
    if hasattr(reference, "loc"):
        reference = reference.rename(index=str, columns=str)
        for wanted, there, what in (
            (cell_types, reference.index, "cell type"),
            (genes, reference.columns, "gene"),
        ):
            lacking = [name for name in wanted if name not in there]
            if lacking:
                raise ValueError(
                    f"reference has no {what} {listing(lacking)}; it has {listing(list(there))}. Test the genes and "
                    f"cell types that bulk, proportions and reference share."
                )
        reference = reference.loc[list(cell_types), list(genes)]
    values = check_table(reference, "reference", dtype=np.float64)
    if values.shape != (len(cell_types), len(genes)):
        raise ValueError(
            f"reference has the shape {values.shape}, but there are {len(cell_types)} cell types and {len(genes)} "
            f"genes."
        )
    return values


def refuse_nonfinite(bad, names, what, kind):
    if np.any(bad):
        raise ValueError(
            f"{what} contains NaN or infinity in {kind} {listing(names[bad])}. Impute or drop these first."
        )
