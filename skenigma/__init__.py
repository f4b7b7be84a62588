"""Cell-type-specific expression and proportions from bulk RNA-seq, as scikit-learn estimators."""

from ._version import __version__
from .deconvolution import (
    EmpiricalBayesDeconvolver,
    FactorDeconvolver,
    L2MaxDeconvolver,
    TraceNormDeconvolver,
)
from .model_selection import L2MaxDeconvolverCV
from .proportions import ProportionEstimator

__all__ = [
    "EmpiricalBayesDeconvolver",
    "FactorDeconvolver",
    "L2MaxDeconvolver",
    "L2MaxDeconvolverCV",
    "ProportionEstimator",
    "TraceNormDeconvolver",
    "__version__",
]
