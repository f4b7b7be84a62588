"""Penalties on the cell-type-specific expression: their values and proximal operators.

A penalty offers

- ``curvature``: the factor c of its model's data terms, c/2 · (α · reconstruction + (1 − α) · reference);
- ``value(expression)`` of anything with ``norms()`` and ``grams()``, see :mod:`skenigma.core.optimize.states`;
- ``prox(step, expression, out)``, the proximal operator of ``step`` times the penalty on an array (cell types ×
  samples × dimensions), which returns, per cell type, the map of rows that it came to;
- ``losses(residual, expression, reference, alpha)``, the three numbers its model records per iteration.

One that depends on the norms of the samples only also offers ``caps(norms, step)``, and is solved in the few
directions that the samples share.
"""

from dataclasses import dataclass

import numpy as np

from . import passes
from .spectrum import nuclear_norm, singular_value_threshold
from .states import Tensor


@dataclass(frozen=True)
class CapMap:
    """Cut of rows to a largest norm."""

    cap: float
    nbytes = 8

    def apply(self, rows, out):
        """Scale each row of ``rows`` longer than the cap down to it, into ``out``."""
        norms = np.sqrt(np.einsum("jd,jd->j", rows, rows))
        np.multiply(rows, passes.cut_factors(norms, self.cap)[:, None], out=out)


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
    The data terms of the model carry no 1/2 (``curvature`` 2).
    """

    curvature = 2.0

    def __init__(self, beta):
        self.beta = beta

    def value(self, expression):
        """Penalty of anything with ``norms()``."""
        return 0.5 * self.beta * float(np.sum(np.max(expression.norms(), axis=0) ** 2))

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
        norms = np.array(norms, dtype=np.float64, order="C")  # theirs may be read-only, or of another type
        return passes.fastest().caps(norms, step * self.beta)

    def prox(self, step, expression, out):
        """Proximal operator of ``step`` times the penalty, written into ``out``.

        Parameters
        ----------
        step : float
        expression, out : ndarray of shape (n_cell_types, n_samples, n_dimensions)
            May be the same array.

        Returns
        -------
        maps : tuple of CapMap
            One map of rows per cell type.
        """
        norms = Tensor(expression).norms()
        caps = self.caps(norms, step)
        np.multiply(expression, passes.cut_factors(norms, caps).T[:, :, None], out=out)
        return tuple(CapMap(float(cap)) for cap in caps)

    def losses(self, residual, expression, reference, alpha):
        """Unweighted: squared residual, squared distance to the reference, Σ_k max_j ‖p_jk‖².

        Parameters
        ----------
        residual : ndarray of shape (n_samples, n_dimensions)
        expression : ndarray of shape (n_cell_types, n_samples, n_dimensions)
        reference : ndarray of shape (n_cell_types, n_dimensions)
        alpha : float
            Not used: the original prints these without weights.
        """
        norms = Tensor(expression).norms()
        mean = expression.mean(axis=1)
        # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖mean − r‖² − ‖mean‖²)
        distance = np.sum(norms**2) + len(norms) * (np.sum((mean - reference) ** 2) - np.sum(mean**2))
        return np.array([np.vdot(residual, residual), distance, np.sum(norms.max(axis=0) ** 2)])


class TraceNorm:
    """Weighted trace norm β · Σ_k w_k ‖P_k‖_* of the expression of every cell type.

    Parameters
    ----------
    beta : float
        Weight β, at least 0.
    weights : ndarray of shape (n_cell_types,)
        Weight w_k of each cell type: its mean proportion in the cohort.

    Notes
    -----
    The data terms of the model carry 1/2 (``curvature`` 1): α/2 Σ_j ‖x_j − Σ_k θ_jk p_jk‖² +
    (1−α)/2 Σ_k ‖mean_j(p_jk) − r_k‖², as in the original R function ``cell_deconvolve_trace``.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.optimize.penalties import TraceNorm
    >>> from skenigma.core.optimize.states import Tensor
    >>> TraceNorm(2.0, np.array([0.5])).value(Tensor(np.diag([3.0, 1.0])[None]))
    4.0
    """

    curvature = 1.0

    def __init__(self, beta, weights):
        self.beta = beta
        self.weights = np.asarray(weights, dtype=np.float64)

    def value(self, expression):
        """Penalty of anything with ``grams()``."""
        return float(self.beta * np.dot(self.weights, [nuclear_norm(gram) for gram in expression.grams()]))

    def prox(self, step, expression, out):
        """Proximal operator of ``step`` times the penalty, written into ``out``.

        Parameters
        ----------
        step : float
        expression, out : ndarray of shape (n_cell_types, n_samples, n_dimensions)
            May be the same array.

        Returns
        -------
        maps : tuple of SpectralMap or IdentityMap
            One map of rows per cell type.
        """
        thresholds = step * self.beta * self.weights
        pairs = zip(expression, thresholds, out, strict=True)
        return tuple(singular_value_threshold(rows, t, target)[1] for rows, t, target in pairs)

    def losses(self, residual, expression, reference, alpha):
        """Three summands of the objective, weighted: reconstruction, reference, penalty.

        Parameters
        ----------
        residual : ndarray of shape (n_samples, n_dimensions)
        expression : ndarray of shape (n_cell_types, n_samples, n_dimensions)
        reference : ndarray of shape (n_cell_types, n_dimensions)
        alpha : float
        """
        fit = 0.5 * alpha * np.vdot(residual, residual)
        offset = expression.mean(axis=1) - reference
        return np.array([fit, 0.5 * (1.0 - alpha) * np.vdot(offset, offset), self.value(Tensor(expression))])
