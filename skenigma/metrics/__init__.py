"""How well cell-type-specific expression, proportions and changed genes are recovered, where the truth is known.

Tensors of expression are samples × cell types × genes. They are read in blocks, so that no temporary of their size
is ever built, and arrays that repeat themselves (:func:`numpy.broadcast_to`) cost no memory.
"""

from ._detection import detection_auprc, detection_average_precision
from ._expression import per_gene_correlation, per_sample_correlation, recovery_score, root_mean_squared_error
from ._proportions import concordance
from ._scorer import recovery_scorer

__all__ = [
    "concordance",
    "detection_auprc",
    "detection_average_precision",
    "per_gene_correlation",
    "per_sample_correlation",
    "recovery_score",
    "recovery_scorer",
    "root_mean_squared_error",
]
