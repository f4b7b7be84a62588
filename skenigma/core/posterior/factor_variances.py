"""Variances of the samples of a factor model: those of the cell types' own parts, and of the noise."""

import numpy as np
from scipy.optimize import nnls

# Weight of the pull of the cell types' variances towards their mean, in shares of the mean information on one.
RIDGE = 0.05
# The same for their mean and the noise: too little to change what samples tell apart, and more than rounding where
# they do not, as in a cohort of all but one cell type.
TIE = 1e-6


class SampleVariances:
    """Variances t of the cell types and of the noise: v_j = sum_k theta_jk^2 t_k + noise."""

    def __init__(self, theta, least):
        self._design = np.column_stack([theta**2, np.ones(len(theta))])
        self._mean = self._design.mean(axis=0)
        information = np.sum(theta**4) / theta.shape[1]
        self._ridge, self._tie = RIDGE * information, TIE * information
        self._least = least

    def of_samples(self, own, noise):
        """v, shape (n_samples,)."""
        return self._design @ np.append(own, noise)

    def penalty(self, own, noise):
        """Minus twice the logarithm of the prior, per gene: spread of all variances relative to their mean."""
        spread = self._ridge * np.sum((own - own.mean()) ** 2) + self._tie * (own.mean() - noise) ** 2
        return spread / 2 / (self._mean @ np.append(own, noise)) ** 2

    def update(self, own, noise, expected):
        """One scoring step from these variances towards the expected squares, as far as it raises the bound."""
        old = np.append(own, noise)
        new = self._scored(old, expected)
        reached = self._loss(old, expected)
        for share in (1.0, 0.5, 0.25, 0.0625):
            trial = old + share * (new - old)
            if self._loss(trial, expected) < reached:
                return trial[:-1], trial[-1]
        return own, noise

    def _loss(self, variances, expected):
        of_samples = self._design @ variances
        return np.sum(np.log(of_samples) + expected / of_samples) + self.penalty(
            variances[:-1], variances[-1]
        )

    def _scored(self, variances, expected):
        """Weighted non-negative least squares, of which each step is one of Fisher's scoring."""
        weight = 1 / (self._design @ variances)
        n_types = len(variances) - 1
        ridge = np.zeros((n_types + 1, n_types + 1))
        ridge[:-1, :-1] = np.sqrt(self._ridge) * (np.eye(n_types) - 1 / n_types)
        ridge[-1] = np.sqrt(self._tie) * np.append(np.full(n_types, 1 / n_types), -1)
        ridge /= self._mean @ variances
        rows = np.vstack([self._design * weight[:, None], ridge])
        target = np.append(expected * weight, np.zeros(n_types + 1))
        triangle = np.linalg.qr(np.column_stack([rows, target]), mode="r")
        new = nnls(triangle[:, :-1], triangle[:, -1])[0]
        new[-1] = max(new[-1], self._least)
        return new
