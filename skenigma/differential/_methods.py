"""The tests that a fitted model can be put to, by name.

A further one is a file with its test and one entry here: a function of a :class:`FittedCohort` and a
:class:`~._study.Study`, and whether it reads the bulk.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..checks.scales import SCALES
from ._factor import factor
from ._fold_change import fold_change
from ._interaction import interaction
from ._joint import joint
from ._marginal import marginal
from ._tensor import tested_expression


@dataclass(frozen=True)
class FittedCohort:
    """What a test may ask of the cohort of a fit.

    Attributes
    ----------
    model : fitted deconvolver
    bulk : ndarray of shape (n_samples, n_genes), or None
        On the model's samples and genes; None where no X was given.
    """

    model: object
    bulk: np.ndarray | None

    @property
    def proportions(self):
        return self.model.proportions_

    @property
    def names(self):
        """Cell types and genes."""
        return self.model.cell_types_, self.model.gene_names_


@dataclass(frozen=True)
class Method:
    """A test: ``run(cohort, study)`` returns its table."""

    run: Callable
    needs_bulk: bool


def _interaction(cohort, study):
    return interaction(cohort.bulk, cohort.proportions, study, *cohort.names)


def _marginal(cohort, study):
    return marginal(tested_expression(cohort.model), study, *cohort.names)


def _joint(cohort, study):
    return joint(tested_expression(cohort.model), study, *cohort.names)


def _log_fold_change(cohort, study):
    if study.fold_change:
        raise ValueError(
            "method='log_fold_change' has log fold changes as its effects: pass fold_change=False."
        )
    return fold_change(cohort.bulk, cohort.proportions, cohort.model.reference_, study, *cohort.names)


def _factor(cohort, study):
    if study.fold_change:
        raise ValueError("method='factor' has differences as its effects: pass fold_change=False.")
    model = cohort.model
    # on the scale of the fit, which the factor model describes
    scale = SCALES[model.preprocess]
    bulk = scale.apply(cohort.bulk, "X", model.expression_.sample_names, model.gene_names_)
    reference = scale.apply(model.reference_, "reference", model.cell_types_, model.gene_names_)
    return factor(bulk, cohort.proportions, reference, study, *cohort.names)


METHODS = {
    "log_fold_change": Method(_log_fold_change, needs_bulk=True),
    "factor": Method(_factor, needs_bulk=True),
    "interaction": Method(_interaction, needs_bulk=True),
    "marginal": Method(_marginal, needs_bulk=False),
    "joint": Method(_joint, needs_bulk=False),
}


def default_method(cohort, study):
    """Log fold changes of values that have them, else the interaction test."""
    bulk, reference = cohort.bulk, cohort.model.reference_
    counts = bulk is not None and bulk.min() >= 0 and np.min(reference) >= 0
    # fold_change asks for ratios, and the effects of log_fold_change are logarithms
    return "log_fold_change" if counts and not study.fold_change else "interaction"
