"""Cell-type-specific expression and proportions from bulk RNA-seq, as scikit-learn estimators."""

from ._version import __version__

__all__ = ["__version__"]
