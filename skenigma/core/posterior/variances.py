r"""Variance components of cell-type-specific expression, from the bulk alone.

A gene varies over the donors in all cell types together, with variance b, and in each on its own, with variance
:math:`d_k`. In the bulk, where a type has the share :math:`w_{kg} = \bar\theta_k r_{kg} / \sum_i \bar\theta_i
r_{ig}` of gene g, that is a variance of :math:`b + \sum_k w_{kg}^2 d_k`, beside noise :math:`\sigma^2 2^{-\bar Y_g}`
of the measurement, which on the log scale is the larger, the lower the level.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

N_REWEIGHTED = 6
# Weight of the pull of all types to one variance, relative to what the data say of a type.
RIDGE = 0.5
# Largest weight of a gene: that of a variance of this share of the mean.
SMALLEST_VARIANCE = 0.05
# Observed variances are cut off here, for a few genes would decide otherwise.
LARGEST_QUANTILE = 0.99


@dataclass(frozen=True)
class Components:
    r"""Variances on the log scale.

    Attributes
    ----------
    total : ndarray of shape (n_cell_types,)
        :math:`t_k`, of which a fraction is shared.
    common : float
        b, shared by the cell types of a donor.
    own : ndarray of shape (n_cell_types,)
        :math:`d_k`.
    noise : float
        :math:`\sigma^2`, of the measurement where 2 to the mean level is 1.
    """

    total: np.ndarray
    common: float
    own: np.ndarray
    noise: float

    @property
    def prior(self):
        """Variance of a cell type's expression over donors, shape (n_cell_types,)."""
        return self.common + self.own

    def of_bulk(self, weights, level):
        """Variance of the bulk, from the share of each type (n_cell_types, ...) and the mean level (...)."""
        own = np.tensordot(self.own, weights**2, axes=1)
        return self.common + own + self.noise * np.exp2(-level)


def shares(proportions, reference):
    """Share of each cell type in the expected bulk of each gene, shape (n_cell_types, n_genes).

    A gene that is zero in every profile is shared like the RNA.
    """
    parts = proportions[:, None] * reference
    total = parts.sum(axis=0)
    return np.divide(
        parts, total, out=np.broadcast_to(proportions[:, None], parts.shape).copy(), where=total > 0
    )


def fit_components(variance, weights, level, shared):
    """Variance components by non-negative least squares, reweighted.

    Parameters
    ----------
    variance : ndarray of shape (n_genes,)
        Variance of the bulk over samples, on the log scale.
    weights : ndarray of shape (n_cell_types, n_genes)
        Share of each type in each gene.
    level : ndarray of shape (n_genes,)
        Mean of the bulk on the log scale.
    shared : float
        Fraction of a type's variance that it shares with the others, ρ.

    Returns
    -------
    Components
    """
    n_types = len(weights)
    if not variance.any():
        return Components(np.zeros(n_types), 0.0, np.zeros(n_types), 0.0)
    columns = np.vstack([(1 - shared) * weights**2 + shared / n_types, np.exp2(-level)])
    target = np.minimum(variance, np.quantile(variance, LARGEST_QUANTILE))
    mean = target.mean()
    if mean == 0:  # all but a few genes are constant
        target, mean = variance, variance.mean()
    fitted = np.full(len(target), mean)
    for _ in range(N_REWEIGHTED):
        found = _pulled_together(columns, target, 1 / np.maximum(fitted, SMALLEST_VARIANCE * mean))
        fitted = found @ columns
    total, noise = found[:-1], float(found[-1])
    return Components(total, shared * float(total.mean()), (1 - shared) * total, noise)


def _pulled_together(columns, target, weights):
    """Coefficients of ``columns``, all but the last pulled to a common value, which is a coefficient more."""
    n_types = len(columns) - 1
    weighted = (columns * weights).T
    strength = np.sqrt(RIDGE * (weighted[:, :n_types] ** 2).sum(axis=0).mean())
    pull = np.zeros((n_types, n_types + 2))
    pull[:, :n_types] = strength * np.eye(n_types)
    pull[:, -1] = -strength
    system = np.vstack([np.pad(weighted, ((0, 0), (0, 1))), pull])
    return nnls(system, np.append(target * weights, np.zeros(n_types)))[0][:-1]
