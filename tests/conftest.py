"""Recorded outputs of the original R implementation, and real cohorts with truth, where they are at hand."""

import os
import pathlib
import warnings

import numpy as np
import pandas as pd
import pytest

from benchmarks.data import VARIABLE, data_folder

REQUIRE = "SKENIGMA_REQUIRE_DATA"
SHIPPED = pathlib.Path(__file__).parent / "data"


class Recorded:
    """Recorded R inputs and outputs: those of the repository, and beside them those that need not be at hand."""

    def __init__(self, name):
        self.name = name

    def path(self, name):
        """A file, from the repository if it is there."""
        shipped = SHIPPED / self.name / name
        return shipped if shipped.exists() else optional(data_folder() / "reference" / self.name / name)

    def table(self, name):
        """A csv table with every digit kept."""
        with warnings.catch_warnings():
            # pandas 2 needs the option to keep the last digit, pandas 3 deprecates it
            warnings.simplefilter("ignore")
            return pd.read_csv(self.path(name), index_col=0, float_precision="round_trip")

    def run(self, name):
        """The arrays of one recorded run."""
        with np.load(self.path(f"runs/{name}.npz")) as arrays:
            return dict(arrays)


def optional(path):
    """A file or folder outside the repository; without it a test is skipped, or fails where it has to run."""
    if not path.exists():
        reason = f"{path} is missing: set {VARIABLE} to the folder that holds reference/ and truth/"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def reference_folder():
    """Recorded runs of the original R code."""
    return optional(data_folder() / "reference")


@pytest.fixture(scope="session")
def truth_folder():
    """Real cohorts with known truth: gse60424.npz, kang8.npz and the sets of ``proportions/``."""
    return optional(data_folder() / "truth")


@pytest.fixture(scope="session")
def vignette():
    """The published data and its runs."""
    return Recorded("vignette")


@pytest.fixture(scope="session")
def package():
    """Runs of the R package on a small simulated cohort, in part in ``tests/data``."""
    return Recorded("package")
