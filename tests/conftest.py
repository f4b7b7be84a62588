"""Recorded outputs of the original R implementation, read from outside the repository."""

import os
import pathlib
import warnings

import numpy as np
import pandas as pd
import pytest

REFERENCE_VARIABLE = "SKENIGMA_REFERENCE"
DEFAULT_REFERENCE = pathlib.Path(__file__).resolve().parents[2] / "shared" / "reference"


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


@pytest.fixture(scope="session")
def reference_folder():
    folder = pathlib.Path(os.environ.get(REFERENCE_VARIABLE, DEFAULT_REFERENCE))
    if not folder.is_dir():
        reason = f"no recorded R outputs at {folder}: set {REFERENCE_VARIABLE} to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def vignette(reference_folder):
    return Recorded(reference_folder / "vignette")


@pytest.fixture(scope="session")
def package(reference_folder):
    return Recorded(reference_folder / "package")
