"""Cell-type-specific expression and proportions from bulk RNA-seq, as scikit-learn estimators."""

from typing import TYPE_CHECKING

from ._lazy import lazy_names
from ._version import __version__

if TYPE_CHECKING:  # what the names below are, for those that read and do not run
    from .deconvolution import (
        EmpiricalBayesDeconvolver,
        FactorDeconvolver,
        L2MaxDeconvolver,
        TraceNormDeconvolver,
    )
    from .model_selection import L2MaxDeconvolverCV
    from .progress import show_progress
    from .proportions import ProportionEstimator

__all__ = [
    "EmpiricalBayesDeconvolver",
    "FactorDeconvolver",
    "L2MaxDeconvolver",
    "L2MaxDeconvolverCV",
    "ProportionEstimator",
    "TraceNormDeconvolver",
    "__version__",
    "show_progress",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EmpiricalBayesDeconvolver": "deconvolution",
        "FactorDeconvolver": "deconvolution",
        "L2MaxDeconvolver": "deconvolution",
        "L2MaxDeconvolverCV": "model_selection",
        "ProportionEstimator": "proportions",
        "TraceNormDeconvolver": "deconvolution",
        "show_progress": "progress",
    },
    (
        "anndata",
        "baselines",
        "batch",
        "cli",
        "datasets",
        "deconvolution",
        "differential",
        "exceptions",
        "expression",
        "io",
        "metrics",
        "model_selection",
        "normalization",
        "plotting",
        "presets",
        "progress",
        "proportions",
        "reference",
        "reliability",
        "report",
    ),
)
