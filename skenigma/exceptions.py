"""Warnings of the estimators, so that they can be expected, or filtered, by category."""

__all__ = ["LevelWarning", "ReferenceWarning", "SampleWarning", "ScaleWarning"]


class ScaleWarning(UserWarning):
    """Bulk and reference seem not to be on one scale, or not on one that can be deconvolved.

    Examples
    --------
    >>> import warnings
    >>> from skenigma.exceptions import ScaleWarning
    >>> warnings.filterwarnings("error", category=ScaleWarning)  # refuse such data
    >>> warnings.filterwarnings("default", category=ScaleWarning)
    """


class ReferenceWarning(UserWarning):
    """The profiles were learned from the bulk, as no reference was given, or some tell nothing: zero, flat, alike.

    Examples
    --------
    >>> import warnings
    >>> from skenigma.exceptions import ReferenceWarning
    >>> warnings.filterwarnings("ignore", category=ReferenceWarning)  # where that is what is wanted
    >>> warnings.filterwarnings("default", category=ReferenceWarning)
    """


class SampleWarning(UserWarning):
    """Samples have no expression, are unlike all others and bend the fit of the others, or are alone in their class.

    Examples
    --------
    >>> import warnings
    >>> from skenigma.exceptions import SampleWarning
    >>> warnings.filterwarnings("error", category=SampleWarning)  # refuse such data
    >>> warnings.filterwarnings("default", category=SampleWarning)
    """


class LevelWarning(UserWarning):
    """The expression of a fit, mixed by the proportions, makes up far less or far more than the bulk.

    Correlations over samples may still be right; sums, fold changes relative to the reference and anything
    else that depends on the size of the values are not.

    Examples
    --------
    >>> import warnings
    >>> from skenigma.exceptions import LevelWarning
    >>> warnings.filterwarnings("error", category=LevelWarning)  # stop at a collapsed fit
    >>> warnings.filterwarnings("default", category=LevelWarning)
    """
