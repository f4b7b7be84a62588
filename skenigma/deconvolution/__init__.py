"""Models of cell-type-specific expression: the one flow, and a file per kind of model."""

from ._optimised import L2MaxDeconvolver, TraceNormDeconvolver

__all__ = ["L2MaxDeconvolver", "TraceNormDeconvolver"]
