"""Recorded outputs of the original R implementation, and real cohorts with truth, where they are at hand."""

import os
import warnings

import numpy as np
import pandas as pd
import pytest

from benchmarks.data import VARIABLE, data_folder

REQUIRE = "SKENIGMA_REQUIRE_DATA"


class Recorded:
    """One folder of recorded R inputs and outputs."""

    def __init__(self, folder):
        self.folder = folder

    def table(self, name):
        """A csv table with every digit kept."""
        with warnings.catch_warnings():
            # pandas 2 needs the option to keep the last digit, pandas 3 deprecates it
            warnings.simplefilter("ignore")
            return pd.read_csv(self.folder / name, index_col=0, float_precision="round_trip")

    def run(self, name):
        """The arrays of one recorded run."""
        with np.load(self.folder / "runs" / f"{name}.npz") as arrays:
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
def vignette(reference_folder):
    return Recorded(reference_folder / "vignette")


@pytest.fixture(scope="session")
def package(reference_folder):
    return Recorded(reference_folder / "package")
