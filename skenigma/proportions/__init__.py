"""Proportions of cell types in bulk samples, and how far they are to be trusted."""

from ..core.profiles import standardize  # noqa: F401
from ._estimator import ProportionEstimator
from ._quality import fit_quality, unexplained_genes

__all__ = ["ProportionEstimator", "fit_quality", "unexplained_genes"]
