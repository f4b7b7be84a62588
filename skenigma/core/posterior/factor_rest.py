"""What the reference leaves of a bulk, of which the factor model is one."""

import numpy as np

from ..blocks import each_block

# How many roundings of the largest value of a gene may add up in its residual: those of bulk, proportions, reference.
ROUNDING = 8.0


def residual_of(bulk, proportions, reference):
    """Bulk minus what the reference says of it, in double precision: a new array.

    Genes that the reference explains but for the rounding of the bulk have none: what rounding leaves is so small
    next to other genes that it would pass for a wide spread of variances.
    """
    proportions = proportions.astype(np.float64, copy=False)
    residual = proportions @ reference.astype(np.float64, copy=False)
    largest = np.zeros(bulk.shape[1])
    for rows, block in each_block(bulk):
        np.subtract(block, residual[rows], out=residual[rows])
        np.maximum(largest, largest_values(block), out=largest)
    residual[:, explained(largest, largest_values(residual), bulk.dtype)] = 0.0
    return residual


def explained(bulk, residual, dtype):
    """Genes of which the reference leaves rounding, from the largest absolute values of bulk and residual."""
    return residual <= ROUNDING * np.finfo(dtype).eps * bulk


def largest_values(values):
    """Largest absolute value per column."""
    return np.maximum(values.max(axis=0), -values.min(axis=0))
