"""What samples that were not fitted need of an iteration to repeat it."""

from dataclasses import dataclass

import numpy as np

from ..blocks import BLOCK_SIZE, row_blocks
from .mixture import Expression
from .start import Start


@dataclass
class Trajectory:
    """The cohort-level quantities of every applied update: all that other samples need to repeat them.

    A subclass adds those of its own kind of update, and ``_replay_block(samples)``.

    Attributes
    ----------
    vectors : ndarray of shape (n_directions, n_dimensions)
        Orthonormal directions along which all samples move.
    shifts : ndarray of shape (n_updates, n_cell_types, n_directions)
        Step that all samples share, or the gradient of the reference term that leads to it.
    caps : ndarray of shape (n_updates, n_cell_types)
        Largest norm left by the proximal operator.
    start : Start
        Its profiles as coordinates along the directions.
    """

    vectors: np.ndarray
    shifts: np.ndarray
    caps: np.ndarray
    start: Start

    def replay(self, samples):
        """Expression of ``samples``, each moved exactly as the fitted cohort was."""
        n_samples, n_cell_types = samples.proportions.shape
        rows = np.empty((n_samples, n_cell_types + 1, samples.rows.shape[1]))
        # all updates of one block after the other: it stays in the cache
        for some in row_blocks(rows, 4 * BLOCK_SIZE):
            rows[some] = self._replay_block(samples.select(some)).rows
        return Expression(rows)
