"""What public functions take, in terms of types.

Shapes and meanings stand in their docstrings; here is only what a type checker can tell.
"""

import os
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

# Rows and columns, with names or without.
Table: TypeAlias = ArrayLike | pd.DataFrame
# One entry per sample, gene or cell, with names or without.
Column: TypeAlias = ArrayLike | pd.Series
# AnnData and sparse matrices have no types that every installation knows.
Cells: TypeAlias = Any
AnnData: TypeAlias = Any
# scikit-learn tells estimators by their methods, not by their classes.
Estimator: TypeAlias = Any
PathLike: TypeAlias = str | os.PathLike[str]
Seed: TypeAlias = int | np.random.RandomState | None
