"""Differential expression per cell type: several tests, one table.

Which test answers which question:

- :func:`interaction_test` asks the bulk: does the slope of a gene on a cell type's proportion differ between the
  classes? No tensor is involved, so nothing that a deconvolution assumes can be mistaken for a finding.
- :func:`marginal_test` asks the tensor: does a gene's expression in a cell type differ between the classes?
- :func:`joint_test` asks the tensor: does it, given the gene's expression in all other cell types?
"""

from ._door import differential_expression
from ._interaction import interaction_test
from ._joint import joint_test
from ._marginal import marginal_test

__all__ = ["differential_expression", "interaction_test", "joint_test", "marginal_test"]
