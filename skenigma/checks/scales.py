"""Scales on which a model may be fitted, and the way back from each."""

from dataclasses import dataclass

import numpy as np

from .entries import check_nonnegative
from .numbers import LIMITS

# Values of expression on the linear scale reach further than this, logarithms of it do not.
LOG_SCALE_MAXIMUM = 30


@dataclass(frozen=True)
class Scale:
    """A transformation of expression and its inverse.

    Attributes
    ----------
    name : str or None
        Value of the estimators' ``preprocess``.
    forward : callable
        New array from an array; needs non-negative input unless ``name`` is None.
    backward : callable
        Inverse, in place; negative input keeps its sign, so that it is one-to-one.
    """

    name: str | None
    forward: object
    backward: object

    def apply(self, values, what, rows, columns):
        """``forward`` of ``values``, after a check that they may be transformed."""
        if self.name is not None:
            reason = f"preprocess='{self.name}' needs expression of at least 0: pass untransformed values."
            check_nonnegative(values, what, rows, columns, reason)
            if hasattr(values, "block_rows"):  # not in memory
                return values.apply(self.forward)
        return self.forward(values)

    def restore(self, values):
        """``backward``, in place; a ValueError if the way back leads beyond what can be computed with."""
        with np.errstate(over="ignore"):
            self.backward(values)
        if self.name is not None and values.size:
            size = max(values.max(), -values.min())
            if not size <= LIMITS.get(values.dtype, LIMITS[np.dtype(np.float64)])[1]:
                raise ValueError(
                    f"The expression diverged: transformed back from preprocess='{self.name}' it reaches {size:.3g}. "
                    f"Use shorter steps: a smaller renorm_size, or renorm_size=None with tao_k='auto', which is safe."
                )


def _square(values):
    values *= np.abs(values)


def _exponential(values):
    # 2^x − 1 for x ≥ 0, mirrored for x < 0; expm1 keeps the digits of small values
    magnitude = np.expm1(np.abs(values) * np.log(2.0))
    np.copysign(magnitude, values, out=values)


def _logarithm(values):
    return np.log2(values + 1.0)


SCALES = {
    None: Scale(None, lambda values: values, lambda values: None),
    "sqrt": Scale("sqrt", np.sqrt, _square),
    "log": Scale("log", _logarithm, _exponential),
}


def looks_linear(values):
    """Whether a dense matrix is not negative, and reaches further than logarithms of expression do."""
    return bool(values.size and values.min() >= 0 and values.max() >= LOG_SCALE_MAXIMUM)
