"""Displays, in the manner of scikit-learn's.

matplotlib is an optional dependency, needed only when something is drawn.
"""

from ._fit import GradientNormDisplay, LossCurveDisplay

__all__ = ["GradientNormDisplay", "LossCurveDisplay"]
