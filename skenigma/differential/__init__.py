"""Differential expression per cell type: several tests, one table.

Which test answers which question:

- :func:`log_fold_change_test` asks the bulk and the reference: by which factor does a cell type express a gene more
  in one class? For counts, TPM and counts per million.
- :func:`factor_test` asks the bulk and the reference: by how much does a cell type express a gene more in one class?
  For signed, centred or standardised values.
- :func:`interaction_test` asks the bulk alone: does the slope of a gene on a cell type's proportion differ between
  the classes? No tensor is involved, so nothing that a deconvolution assumes can be mistaken for a finding.
- :func:`marginal_test` asks the tensor: does a gene's expression in a cell type differ between the classes?
- :func:`joint_test` asks the tensor: does it, given the gene's expression in all other cell types?
"""

from ._door import differential_expression
from ._factor import factor_test
from ._fold_change import log_fold_change_test
from ._interaction import interaction_test
from ._joint import joint_test
from ._marginal import marginal_test
from ._result import untested

__all__ = [
    "differential_expression",
    "factor_test",
    "interaction_test",
    "joint_test",
    "log_fold_change_test",
    "marginal_test",
    "untested",
]
