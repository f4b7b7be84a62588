"""Where recorded runs of the original and real cohorts with known truth are found: outside the repository.

The folder that ``SKENIGMA_DATA`` names, by default ``shared`` beside the checkout, holds ``reference`` (outputs of
the original R code) and ``truth`` (real cohorts). Benchmarks and tests look here alone.
"""

import os
import pathlib

VARIABLE = "SKENIGMA_DATA"
BESIDE = pathlib.Path(__file__).resolve().parents[2] / "shared"


def data_folder():
    """The folder of recorded runs and real cohorts, which need not exist."""
    return pathlib.Path(os.environ.get(VARIABLE) or BESIDE)
