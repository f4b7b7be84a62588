"""A model that skenigma does not have: the code of the page "Add a model"."""

from dataclasses import dataclass, replace

import numpy as np

from skenigma.deconvolution import BaseDeconvolver, Estimate


@dataclass
class Posterior:
    """Normal distribution of expression around the profiles, given the bulk of some samples."""

    profiles: np.ndarray
    variance: float
    residual: np.ndarray | None = None
    gain: np.ndarray | None = None
    std: np.ndarray | None = None

    def replay(self, bulk, proportions):
        gain = proportions / (np.sum(proportions**2, axis=1, keepdims=True) + 0.1)
        std = np.sqrt(self.variance * (1 - gain * proportions))
        return replace(self, residual=bulk - proportions @ self.profiles, gain=gain, std=std)

    def expand(self, samples, cell_types, genes):
        shift = self.gain[samples][:, cell_types, None] * self.residual[samples][:, None, genes]
        return self.profiles[cell_types][:, genes] + shift

    def deviations(self, samples, cell_types, genes):
        return self.std[samples][:, cell_types, None] * np.ones_like(self.profiles[0, genes])


class GaussianDeconvolver(BaseDeconvolver):
    """Posterior of expression that varies alike in all cell types; a tenth of that is noise."""

    def _estimate(self, cohort):
        squares = (cohort.bulk - cohort.proportions @ cohort.reference) ** 2
        variance = np.mean(squares) / (np.mean(np.sum(cohort.proportions**2, axis=1)) + 0.1)
        return Estimate(Posterior(cohort.reference, variance), record={"variance_": variance})
