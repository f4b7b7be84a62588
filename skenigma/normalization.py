"""Removal of what the proportions leave in the cell-type-specific expression."""

import numpy as np


def proportion_slopes(cse, proportions):
    """Slope of every gene's expression on the proportion of its own cell type.

    Parameters
    ----------
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)

    Returns
    -------
    slopes : ndarray of shape (n_cell_types, n_genes)
        0 where a cell type has the same proportion in every sample.
    """
    centred = proportions - proportions.mean(axis=0)
    spread = np.einsum("jk,jk->k", centred, centred)
    slopes = np.empty(cse.shape[1:], dtype=cse.dtype)
    for k, (weights, total) in enumerate(zip(centred.T, spread, strict=True)):
        slopes[k] = (weights / total if total > 0 else weights) @ cse[:, k]
    return slopes


def remove_proportions(cse, proportions, slopes):
    """Expression without the linear effect of the cell type's proportion; the intercept stays.

    The "frac" normalisation of the original R package: per gene and cell type, the slope times the proportion
    is subtracted, so results may be negative.

    Parameters
    ----------
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    slopes : ndarray of shape (n_cell_types, n_genes)
        From :func:`proportion_slopes`, of the fitted cohort.

    Returns
    -------
    normalized : ndarray of shape (n_samples, n_cell_types, n_genes)
    """
    normalized = np.array(cse)
    for sample, weights in zip(normalized, proportions, strict=True):
        sample -= weights[:, None].astype(cse.dtype) * slopes
    return normalized
