"""Models of cell-type-specific expression: the one flow, and a file per model."""

from ._factor import FactorDeconvolver
from ._flow import BaseDeconvolver
from ._l2max import L2MaxDeconvolver
from ._model import Cohort, Estimate
from ._posterior import EmpiricalBayesDeconvolver
from ._tracenorm import TraceNormDeconvolver

__all__ = [
    "BaseDeconvolver",
    "Cohort",
    "EmpiricalBayesDeconvolver",
    "Estimate",
    "FactorDeconvolver",
    "L2MaxDeconvolver",
    "TraceNormDeconvolver",
]
