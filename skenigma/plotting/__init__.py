"""Displays, in the manner of scikit-learn's.

matplotlib is an optional dependency, needed only when something is drawn.
"""

from ._differential import DifferentialExpressionDisplay
from ._gene import GeneExpressionDisplay
from ._gradient_norm import GradientNormDisplay
from ._loss_curve import LossCurveDisplay
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
