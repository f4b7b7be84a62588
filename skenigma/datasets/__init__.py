"""Simulated cohorts whose cell-type-specific expression is known."""

from ._cohort import make_cohort

__all__ = ["make_cohort"]
