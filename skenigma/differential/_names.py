"""Names of cell types and genes, and what is refused under them."""

import numpy as np
import pandas as pd

from ..checks.facts import examine
from ..checks.labels import cell_types_of, column_labels, match_cell_types, match_labels, row_labels
from ..checks.names import column_names, is_counted, listing, numbered
from ..checks.numbers import check_magnitude
from ..checks.tables import check_table
from ..checks.validation import check_proportions
from ..cohort import is_lazy, open_bulk


def names_or_count(given, count, prefix, what):
    """Names as an array of strings, counted where none are given."""
    if given is None:
        return numbered(prefix, count)
    names = np.array([str(name) for name in given], dtype=object)
    if len(names) != count:
        raise ValueError(f"{what} has {len(names)} names for {count} of them.")
    return names


def check_bulk(bulk, proportions, cell_types, gene_names):
    """Bulk and proportions as arrays, their cell types and genes, and the samples' labels."""
    bulk = open_bulk(bulk)
    samples, genes = row_labels(bulk), column_names(bulk, "bulk")
    if not is_lazy(bulk):
        bulk = check_table(bulk, "bulk", dtype=np.float64, ensure_all_finite=False)
    if cell_types is None:
        cell_types = cell_types_of(proportions)
    cell_types = names_or_count(cell_types, np.shape(proportions)[-1], "celltype", "cell_types")
    genes = names_or_count(genes if gene_names is None else gene_names, bulk.shape[1], "x", "gene_names")
    if is_lazy(bulk):
        examine(bulk, "bulk", genes)
    else:
        refuse_nonfinite(~np.isfinite(bulk).all(axis=0), genes, "bulk", "gene")
        check_magnitude(bulk, "bulk")
    proportions = check_proportions(proportions, cell_types, len(bulk), samples)
    return bulk, proportions, (cell_types, genes), samples


def matched_reference(reference, cell_types, genes):
    """The reference's values for these cell types and genes, of which it may have more."""
    if isinstance(reference, pd.DataFrame):
        rows = match_cell_types(row_labels(reference), cell_types, "rows of reference", superset=True)
        columns = slice(None)
        if column_names(reference, "reference") is not None and not is_counted(genes, "x"):
            columns = match_labels(
                column_labels(reference),
                genes,
                "columns of reference",
                "gene",
                other="the bulk",
                superset=True,
            )
        reference = reference.iloc[rows, columns]
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
