"""How far to trust cell-type-specific expression, gene by gene, where no truth is known."""

from ._bootstrap import BootstrapReliability, bootstrap_reliability
from ._contribution import gene_contribution
from ._significance import gene_significance

__all__ = ["BootstrapReliability", "bootstrap_reliability", "gene_contribution", "gene_significance"]
