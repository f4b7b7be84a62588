"""How the genes of bulk and reference are matched, and the likely reason where they do not."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .identifiers import warn_of_dates, why_unlike
from .names import listing
from .warning import warn

# Panels of genes from two platforms share more than this part of the smaller one.
LOW_SHARE = 0.25
SAME_IDENTIFIERS = "Use the same kind of gene identifier in both, and genes as columns."
TRANSPOSED_REFERENCE = " The reference looks transposed: it must be cell types × genes, so pass reference.T."
TRANSPOSED_BULK = " X looks transposed: it must be samples × genes, so pass X.T."


@dataclass(frozen=True)
class Profiles:
    """A reference: expression per cell type, with names where it had them.

    Attributes
    ----------
    values : ndarray of shape (n_cell_types, n_genes)
    cell_types : ndarray of str, shape (n_cell_types,)
    genes : ndarray of str, shape (n_genes,), or None
        None where the reference carries no gene names.
    """

    values: np.ndarray
    cell_types: np.ndarray
    genes: np.ndarray | None


def match_genes(profiles, names, shape, samples=None):
    """Positions of the genes that bulk and reference share, in the order of the bulk.

    Parameters
    ----------
    profiles : Profiles
    names : ndarray of str, or None
        Gene names of the bulk.
    shape : tuple
        Numbers of samples and genes of the bulk.
    samples : ndarray of str, default=None
        Names of its samples, to tell if it was turned the wrong way round.

    Returns
    -------
    in_bulk, in_reference : ndarray of int, shape (n_shared,)

    Raises
    ------
    ValueError
        If too few genes are shared, or widths differ and names do not help.

    Warns
    -----
    UserWarning
        If less than a quarter of the smaller side is shared, or if Excel has changed names to dates.
    """
    n_cell_types, width = profiles.values.shape
    n_features = shape[1]
    if names is None or profiles.genes is None:
        if width != n_features:
            raise ValueError(_unnamed_mismatch(profiles, names, shape))
        in_bulk = in_reference = np.arange(n_features)
    else:
        position = pd.Index(profiles.genes).get_indexer(pd.Index(names))
        in_bulk = np.flatnonzero(position >= 0)
        in_reference = position[in_bulk]
    if len(in_bulk) < n_cell_types:
        raise ValueError(_too_few(profiles, names, len(in_bulk), samples))
    if names is not None and profiles.genes is not None:
        _warn_of_few_shared(names, profiles.genes, len(in_bulk))
        warn_of_dates(names, "X")
        warn_of_dates(profiles.genes, "The reference")
    return in_bulk, in_reference


def _unnamed_mismatch(profiles, names, shape):
    n_cell_types, width = profiles.values.shape
    n_samples, n_features = shape
    nameless = " and ".join(
        side for side, missing in (("X", names is None), ("reference", profiles.genes is None)) if missing
    )
    message = (
        f"X has {n_features} genes (n_features = {n_features}), but reference has {width}, and without gene names on "
        f"{nameless} they can only be matched by position. Give both string column names, or the same genes in the "
        f"same order."
    )
    if n_cell_types == n_features:
        message += TRANSPOSED_REFERENCE
    elif width == n_samples:
        message += TRANSPOSED_BULK
    return message


def _too_few(profiles, names, n_shared, samples):
    n_cell_types, width = profiles.values.shape
    if names is None or profiles.genes is None:
        return (
            f"{n_cell_types} cell types cannot be told apart by {width} gene(s): give at least as many genes as "
            f"cell types (n_features = {width})."
        )
    message = (
        f"X and reference share {n_shared} gene(s), which is too few for {n_cell_types} cell types. X has "
        f"{listing(names)}; reference has {listing(profiles.genes)}."
    )
    if np.isin(profiles.cell_types, names).sum() > n_shared:
        return message + TRANSPOSED_REFERENCE
    if samples is not None and np.isin(profiles.genes, samples).sum() > n_shared:
        return message + TRANSPOSED_BULK
    if samples is not None and np.isin(profiles.cell_types, samples).sum() > n_shared:
        return message + TRANSPOSED_BULK + TRANSPOSED_REFERENCE
    return f"{message} {why_unlike(names, profiles.genes, n_shared)}{SAME_IDENTIFIERS}"


def _warn_of_few_shared(names, genes, n_shared):
    """Warn if so few genes are shared that their identifiers can hardly be meant to match."""
    fewer = min(len(names), len(genes))
    if n_shared < LOW_SHARE * fewer:
        warn(
            f"X and reference share only {n_shared} genes, of {len(names)} in X and {len(genes)} in reference. X has "
            f"{listing(names)}; reference has {listing(genes)}. {why_unlike(names, genes, n_shared)}"
            f"{SAME_IDENTIFIERS}",
        )
