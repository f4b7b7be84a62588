"""What every model returns: expression of cell types in samples, by name, with deviations where the model has them.

A model works on a scale of its own and knows nothing of clipping, of cell types that no sample holds, or of
normalisation. All of that happens here, once for all models and for everything that reads expression.
"""

from ._expression import CellTypeExpression
from ._sources import Conversion, Converted, Held, Normalized  # noqa: F401 - under this name in pickles

__all__ = ["CellTypeExpression"]
