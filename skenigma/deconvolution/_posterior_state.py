"""What the empirical-Bayes posterior answers: the state of samples, the map of new ones, and fitted values."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ..checks.covariates import Coding
from ..core.posterior.model import Posterior, Rows


@dataclass(frozen=True)
class PosteriorState:
    """Posterior of some samples."""

    # of a log-normal distribution, although values are on the scale of X
    std_scale = "log"
    posterior: Posterior
    samples: Rows

    @cached_property
    def _with_noise(self):
        return self.samples if self.samples.noise is not None else self.posterior.with_noise(self.samples)

    def expand(self, samples, cell_types, genes):
        """Values on the scale of X."""
        return self.posterior.expand(self.samples[samples], cell_types, genes)

    def deviations(self, samples, cell_types, genes):
        """Standard deviations on the scale of X."""
        return self.posterior.deviations(self._with_noise[samples], cell_types, genes)

    def interval(self, level, samples, cell_types, genes):
        """Quantiles on the scale of X."""
        return self.posterior.quantiles(self._with_noise[samples], level, cell_types, genes)


@dataclass(frozen=True)
class PosteriorMap:
    """The posterior of any samples, each on its own."""

    posterior: Posterior
    coding: Coding | None

    def replay(self, bulk, proportions, covariates=None):
        """State of samples."""
        return PosteriorState(self.posterior, self.rows(bulk, proportions, covariates))

    def rows(self, bulk, proportions, covariates=None):
        """Samples as the posterior needs them."""
        design = None if covariates is None or self.coding is None else self.coding.apply(covariates)
        return self.posterior.rows(bulk, proportions, design)


def fitted_state(posterior, rows, bulk):
    """State of the samples that were fitted."""
    return PosteriorState(posterior, replace(rows, bulk=bulk))


def fitted_record(posterior, cell_types):
    """Fitted values, by name."""
    components, directions = posterior.components, posterior.directions
    order = np.argsort(-directions.shares, kind="stable")
    return {
        "reliability_": posterior.reliability(),
        "mismatch_": posterior.delta2,
        "composition_": posterior.composition,
        "hidden_share_": posterior.threshold,
        "hidden_directions_": pd.DataFrame(
            {"share": directions.shares[order], "gain": directions.gains[order]}
        ),
        "variance_components_": pd.DataFrame(
            {"own": components.own, "shared": components.common}, index=list(cell_types)
        ),
        "noise_variance_": components.noise,
        "platform_offset_": posterior.offset,
    }
