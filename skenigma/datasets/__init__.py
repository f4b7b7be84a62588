"""Cohorts whose cell-type-specific expression is known: simulated ones, and public ones that are downloaded once."""

from ._cohort import make_cohort
from ._counts import make_counts
from ._download import data_home
from ._real import fetch_lupus_pbmc, fetch_whole_blood

__all__ = ["data_home", "fetch_lupus_pbmc", "fetch_whole_blood", "make_cohort", "make_counts"]
