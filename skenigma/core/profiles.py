"""Profiles: brought to one scale, or learned from the bulk itself, for cohorts without a reference."""

import numpy as np


def standardize(rows):
    """Rows minus their mean over their standard deviation (ddof = 1), in float64; constant rows become 0."""
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = np.sqrt(np.einsum("jg,jg->j", centred, centred) / max(rows.shape[1] - 1, 1))
    noise = 8 * np.finfo(rows.dtype).eps * np.abs(rows).max(axis=1)
    constant = spread <= noise
    centred[constant] = 0.0
    spread[constant] = 1.0
    centred /= spread[:, None]
    return centred


def successive_projection(bulk, n_profiles):
    """Purest samples of a cohort, by the successive projection algorithm.

    If every cell type is nearly alone in some sample, the samples are mixtures of these. The longest sample is
    taken, all samples are projected on the complement of its direction, and so on. Works on signed data, needs
    no random numbers, and depends on the order of samples only through ties.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    n_profiles : int
        At most ``n_samples``.

    Returns
    -------
    chosen : ndarray of int, shape (n_profiles,)
        Positions of the samples, in the order in which they were taken.

    References
    ----------
    Araújo et al. (2001), The successive projections algorithm for variable selection in spectroscopic
    multicomponent analysis. Chemometrics and Intelligent Laboratory Systems 57.
    """
    remaining = np.array(bulk, dtype=np.float64)
    chosen = np.empty(n_profiles, dtype=int)
    for position in range(n_profiles):
        lengths = np.einsum("jg,jg->j", remaining, remaining)
        lengths[chosen[:position]] = -1.0  # a sample is taken once, also when nothing else is left
        chosen[position] = np.argmax(lengths)
        if lengths[chosen[position]] > 0:
            direction = remaining[chosen[position]] / np.sqrt(lengths[chosen[position]])
            remaining -= np.outer(remaining @ direction, direction)
    return chosen
