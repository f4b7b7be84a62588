"""Displays, in the manner of scikit-learn's.

matplotlib is an optional dependency, needed only when something is drawn.
"""

from ._differential import DifferentialExpressionDisplay
from ._fit import GradientNormDisplay, LossCurveDisplay

__all__ = ["DifferentialExpressionDisplay", "GradientNormDisplay", "LossCurveDisplay"]
