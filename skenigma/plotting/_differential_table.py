"""The rows that a volcano shows: of a table, or of a test of what an AnnData holds."""

import pandas as pd

from ..checks.names import listing
from ..differential import factor_test, interaction_test, log_fold_change_test

# Tests that need nothing of a model but its proportions and reference.
BULK_TESTS = {
    "log_fold_change": log_fold_change_test,
    "factor": factor_test,
    "interaction": interaction_test,
}


def tested(found, phenotype, method, covariates, reference_level):
    """Table of a test of the bulk that an AnnData holds."""
    if isinstance(phenotype, str):
        phenotype = found.column(phenotype)
    if isinstance(covariates, (list, tuple)) and all(isinstance(name, str) for name in covariates):
        covariates = pd.concat([found.column(name) for name in covariates], axis=1)
    bulk, reference = found.bulk, found.reference
    if method == "auto":
        linear = min(bulk.to_numpy().min(), reference.to_numpy().min()) >= 0
        method = "log_fold_change" if linear else "factor"
    if method not in BULK_TESTS:
        raise ValueError(f"method must be one of {listing(['auto', *BULK_TESTS])}, got {method!r}.")
    profiles = {} if method == "interaction" else {"reference": reference}
    given = {"covariates": covariates, "reference_level": reference_level, **profiles}
    return BULK_TESTS[method](bulk, found.proportions, phenotype, **given)


def rows_of(table, cell_type):
    """Rows of one cell type, which may be left open if there is only one."""
    known = list(dict.fromkeys(table["cell_type"]))
    if cell_type is None and len(known) == 1:
        cell_type = known[0]
    if cell_type is None:
        raise ValueError(
            f"The table holds {len(known)} cell types, {listing(known)}: choose one by cell_type."
        )
    if cell_type not in known:
        raise ValueError(f"The table has no cell type {cell_type!r}; it has {listing(known)}.")
    return table[table["cell_type"] == cell_type]
