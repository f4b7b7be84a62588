"""What is known of the donors behind a reference, checked and in the order of the cell types and genes in use."""

import numpy as np
import pandas as pd

from ..checks.entries import check_finite, check_nonnegative
from ..checks.labels import (
    column_labels,
    match_cell_types,
    match_labels,
    read_per_cell_type,
    row_labels,
)
from ..checks.names import column_names, listing


def known_variance(table, cell_types, genes):
    """``reference_variance`` as an array, cell types × genes; None where it is not known."""
    if table is None:
        return None
    if isinstance(table, pd.DataFrame) and column_names(table, "reference_variance") is not None:
        rows = match_cell_types(row_labels(table), cell_types, "rows of reference_variance", superset=True)
        columns = match_labels(
            column_labels(table), genes, "columns of reference_variance", "gene", superset=True
        )
        table = table.iloc[rows, columns]
    values, needed = np.asarray(table, dtype=np.float64), (len(cell_types), len(genes))
    if values.shape != needed:
        raise ValueError(
            f"reference_variance has shape {values.shape}, but {needed} is needed: a row per cell type and a column "
            f"per gene in use."
        )
    check_finite(values, "reference_variance", cell_types, genes)
    check_nonnegative(values, "reference_variance", cell_types, genes, "Variances must be at least 0.")
    return values


def known_donors(donors, cell_types):
    """``reference_donors`` of every cell type; None where they are not known."""
    if donors is None:
        return None
    donors = read_per_cell_type(donors, cell_types, "reference_donors")
    if donors.shape not in ((), cell_types.shape):
        raise ValueError(
            f"reference_donors has shape {donors.shape}, but there are {len(cell_types)} cell types."
        )
    donors = np.broadcast_to(donors, cell_types.shape)
    wrong = cell_types[~(donors >= 1)]
    if len(wrong):
        raise ValueError(f"reference_donors must be at least 1; it is not for {listing(list(wrong))}.")
    return donors
