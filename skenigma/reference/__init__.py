"""From annotated cells: reference profiles, marker genes, and pseudo-bulk samples with a known answer."""

from ._profiles import ReferenceReport, make_reference, select_markers
from ._pseudobulk import make_pseudobulk

__all__ = ["ReferenceReport", "make_pseudobulk", "make_reference", "select_markers"]
