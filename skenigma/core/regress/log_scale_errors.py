"""Standard errors of the shares that regression on the logarithmic scale finds."""

import numpy as np

from .log_scale import BLOCK_GENES, BLOCK_ROWS, THRESHOLD, Objective, gene_blocks, sample_offsets
from .undetermined import attainable_spread, undetermined_groups

# Correlation of the residuals of genes of one cell type, in standard errors.
CORRELATION = 0.5


def share_errors(model, targets, coefficients, factors=None, correlation=CORRELATION):
    r"""Standard errors of the shares :math:`b / \sum b`: noise of the genes, and profiles that are off as a whole.

    Parameters
    ----------
    model : LogScaleModel
        From :func:`log_scale_model`.
    targets : ndarray of shape (n_samples, n_genes)
        Samples.
    coefficients : ndarray of shape (n_samples, n_cell_types)
        Their coefficients, from :func:`log_scale_regression`.
    factors : ndarray of shape (n_cell_types,), default=None
        What the coefficients are multiplied by before they become shares. None leaves them.
    correlation : float
        Correlation of the residuals of genes of one cell type.

    Returns
    -------
    ndarray of shape (n_samples, n_cell_types)
        NaN where all coefficients are zero.

    Notes
    -----
    The covariance of the positive coefficients is the sandwich :math:`A^{-1} M A^{-1}` (Huber 1967) with
    :math:`A = \sum_g w_g \mu_g^{-2} 1(|e_g| \le \log 2)\, r_g r_g^T`,
    :math:`M = \sum_g (w_g \psi_g / \mu_g)^2 r_g r_g^T`, for residuals e and their clipped values :math:`\psi`; it
    takes the genes for independent. Where the residuals of the genes of one cell type have the correlation
    :math:`\varrho`, that type's profile is off by a factor with the relative variance :math:`\varrho s^2`,
    :math:`s^2 = \sum w \psi^2 / \sum w`: added is :math:`\varrho s^2 b_k^2` to the variance of :math:`b_k`. The delta
    method leads to the shares. Of a coefficient of zero it is the spread of the step that the noise of its genes
    would make.

    Where A without the ridge is singular, or nearly so, the sandwich knows the sum of some shares only, and the ridge
    splits it. Added to the variance of each of these are that of their sum and the mean squared distance from all
    splits, see :func:`~skenigma.core.regress.undetermined.attainable_spread`.
    """
    errors = np.empty(coefficients.shape)
    factors = np.ones(coefficients.shape[1]) if factors is None else factors
    totals = model.profiles.sum(axis=1) / factors
    for start in range(0, len(targets), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        block, found = targets[rows], coefficients[rows]
        scales, offsets = sample_offsets(block, model.genes)
        bread, meat, spread = _Sandwich(model, block, scales, offsets, slice(None))(found)
        variances, *parts = _share_variances(found, bread, meat, correlation * spread, factors)
        groups = undetermined_groups(bread - model.ridge * np.eye(len(totals)))
        doubtful = groups.any(axis=(1, 2))
        if doubtful.any():
            groups, (change, covariance) = groups[doubtful], (part[doubtful] for part in parts)
            change = groups @ change  # of the sums of the groups
            variances[doubtful] += np.einsum("nkl,nlm,nkm->nk", change, covariance, change)
            variances[doubtful] += attainable_spread(found[doubtful] * factors, totals, groups)
        errors[rows] = np.sqrt(variances)
    return errors


class _Sandwich(Objective):
    """Curvature of the objective, variance of its gradient, and mean squared clipped residual of a block."""

    def __call__(self, coefficients):
        packed = np.zeros((2, len(coefficients), len(self.pairs[0])))
        spread = np.zeros(len(coefficients))
        scales, offsets = self.scales[:, None], self.offsets[:, None]
        for number, block in enumerate(gene_blocks(self.genes)):
            here = slice(number * BLOCK_GENES, (number + 1) * BLOCK_GENES)
            profiles, weights = self.profiles[:, here], self.weights[here]
            inverse = 1 / (coefficients @ profiles + offsets)
            residual = np.log((self.targets[:, block] / scales + offsets) * inverse)
            clipped = np.clip(residual, -THRESHOLD, THRESHOLD)
            products = self._products(profiles, weights).T
            packed[0] += ((residual == clipped) * inverse**2) @ products
            packed[1] += (weights * (clipped * inverse) ** 2) @ products
            spread += clipped**2 @ weights
        first, second = self.pairs
        bread, meat = np.empty((2, *coefficients.shape, coefficients.shape[1]))
        for matrix, values in ((bread, packed[0]), (meat, packed[1])):
            matrix[:, first, second] = matrix[:, second, first] = values
        np.einsum("nkk->nk", bread)[...] += self.ridge
        return bread, meat, spread / self.weights.sum()


def _share_variances(coefficients, bread, meat, relative, factors):
    """Delta method; ``relative`` is the squared relative error that a coefficient has as a whole.

    Also what it is made of: the changes of the shares with the coefficients, and the covariance of these.
    """
    active = coefficients > 0
    both = active[:, :, None] & active[:, None, :]
    identity = np.eye(coefficients.shape[1])
    inverse = np.where(both, np.linalg.inv(np.where(both, bread, identity)), 0.0)
    covariance = inverse @ meat @ inverse + identity * (relative[:, None] * coefficients**2)[:, :, None]
    covariance *= factors[:, None] * factors
    coefficients = coefficients * factors
    with np.errstate(divide="ignore", invalid="ignore"):
        total = coefficients.sum(axis=1)[:, None]
        shares = coefficients / total
        change = (identity - shares[:, :, None]) / total[:, :, None]
        positive = np.einsum("nkl,nlm,nkm->nk", change, covariance, change)
        absent = factors**2 * np.einsum("nkk->nk", meat) / (np.einsum("nkk->nk", bread) * total) ** 2
        return np.where(active, positive, absent), change, covariance
