"""Choice of hyper-parameters by recovery on a cohort whose truth is known and which resembles the bulk."""

from ..datasets._simulation import simulate_like
from ._search import L2MaxDeconvolverCV

__all__ = ["L2MaxDeconvolverCV", "simulate_like"]
