"""Penalties on the cell-type-specific expression: their values and proximal operators."""

import numpy as np


class MaxL2Norm:
    """Half the squared largest sample norm, summed over cell types: β/2 · Σ_k max_j ‖p_jk‖².

    Parameters
    ----------
    beta : float
        Weight β, at least 0.

    Notes
    -----
    The proximal operator cuts the longest samples of a cell type to a common norm, the cap, and leaves the
    others alone (the "squash" of the original R function ``cell_deconvolve``). It needs nothing but norms.
    """

    def __init__(self, beta):
        self.beta = beta

    def value(self, norms):
        """Penalty of samples with these ``norms`` (n_samples, n_cell_types)."""
        return 0.5 * self.beta * np.sum(np.max(norms, axis=0) ** 2)

    def caps(self, norms, step):
        """Largest norm that the proximal operator with this step length leaves, per cell type.

        Parameters
        ----------
        norms : ndarray of shape (n_samples, n_cell_types)
            Norm of every sample in every cell type.
        step : float
            Step length τ; the operator is that of τβ/2 · max².

        Returns
        -------
        caps : ndarray of shape (n_cell_types,)
        """
        longest_first = -np.sort(-norms, axis=0)
        count = np.arange(1, len(norms) + 1)[:, None]
        candidates = np.cumsum(longest_first, axis=0) / (count + step * self.beta)
        cut = longest_first >= candidates
        last = len(norms) - 1 - np.argmax(cut[::-1], axis=0)
        return np.take_along_axis(candidates, last[None], axis=0)[0]
