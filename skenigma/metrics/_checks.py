"""Checks of truth and estimate."""

import numpy as np
import pandas as pd

from ..checks.labels import column_labels, match_labels, match_rows, row_labels
from ..checks.names import listing
from ..checks.numbers import check_magnitude, refuse_masked


def check_choice(value, choices, name):
    """Refuse what is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def check_tensors(cse_true, cse_pred):
    """Both tensors as arrays of numbers, of one shape and finite."""
    for name, tensor in (("cse_true", cse_true), ("cse_pred", cse_pred)):
        refuse_masked(tensor, name)
    tensors = [np.asarray(cse_true), np.asarray(cse_pred)]
    for name, tensor in zip(("cse_true", "cse_pred"), tensors, strict=True):
        if tensor.ndim != 3 or not tensor.size:
            raise ValueError(
                f"{name} has shape {tensor.shape}; samples × cell types × genes are needed, at least one of each. "
                f"Reshape what transform returns to (n_samples, n_cell_types, -1)."
            )
    true, pred = tensors
    if true.shape != pred.shape:
        raise ValueError(
            f"cse_true has shape {true.shape}, cse_pred {pred.shape} (samples × cell types × genes): they must be "
            f"equal. Compare the genes in use (gene_names_) only."
        )
    for name, tensor in (("cse_true", true), ("cse_pred", pred)):
        _refuse_nonfinite(tensor, name)
        check_magnitude(tensor, name)
    return tensors


def _refuse_nonfinite(array, name):
    # the sum of large finite values may overflow: only then each of them is looked at
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(array)):  # one pass, no temporary: the rule
            return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        places = listing([tuple(map(int, place)) for place in bad])
        raise ValueError(f"{name} is not finite in {len(bad)} place(s): {places}.")


def check_tables(first, second, first_name, second_name, allow_nan=False):
    """Two tables as float arrays of one shape, the second in the order of the first where both are named."""
    if isinstance(first, pd.DataFrame) and isinstance(second, pd.DataFrame):
        rows = match_rows(second, row_labels(first), f"rows of {second_name}", other=first_name)
        columns = match_labels(
            column_labels(second),
            column_labels(first),
            f"columns of {second_name}",
            "cell type",
            other=first_name,
        )
        second = second.iloc[rows, columns]
    refuse_masked(first, first_name)
    refuse_masked(second, second_name)
    tables = [np.atleast_2d(np.asarray(table, dtype=float)) for table in (first, second)]
    if tables[0].shape != tables[1].shape:
        raise ValueError(
            f"{first_name} has shape {tables[0].shape}, {second_name} {tables[1].shape}: they must be equal."
        )
    _refuse_nonfinite(tables[0], first_name)
    if not allow_nan:
        _refuse_nonfinite(tables[1], second_name)
    return tables
