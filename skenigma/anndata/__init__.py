"""AnnData in and out: bulk samples and annotated cells to expression per cell type, in one call.

The estimators take tables; this package takes what is needed from AnnData objects, and writes what is found to one.
"""

from ._deconvolve import deconvolve
from ._rows import cse_to_anndata

__all__ = ["cse_to_anndata", "deconvolve"]
