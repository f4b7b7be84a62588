"""The functions of the R package ENIGMA, by their own names and arguments.

The R package and the scripts of the publication are editions of one method. The estimators follow the scripts; the
functions here return estimators that follow an edition of the package.
"""

from ._editions import PackageL2MaxDeconvolver, PackageTraceNormDeconvolver
from ._functions import enigma_l2_max_norm, enigma_losses, enigma_trace_norm

__all__ = [
    "PackageL2MaxDeconvolver",
    "PackageTraceNormDeconvolver",
    "enigma_l2_max_norm",
    "enigma_losses",
    "enigma_trace_norm",
]
