"""Displays, in the manner of scikit-learn's.

matplotlib is an optional dependency, needed only when something is drawn.
"""

from ._differential import DifferentialExpressionDisplay
from ._fit import GradientNormDisplay, LossCurveDisplay
from ._gene import GeneExpressionDisplay
from ._proportions import ProportionDisplay
from ._recovery import RecoveryDisplay

__all__ = [
    "DifferentialExpressionDisplay",
    "GeneExpressionDisplay",
    "GradientNormDisplay",
    "LossCurveDisplay",
    "ProportionDisplay",
    "RecoveryDisplay",
]
