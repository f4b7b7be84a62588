"""Where iterations start."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Start:
    """Where an iteration starts: p_jk = factor · x_j + profile_k, or what is given for every sample.

    Attributes
    ----------
    factor : float
    profiles : ndarray of shape (n_cell_types, n_dimensions), or None
    own : ndarray of shape (n_samples, n_cell_types, n_dimensions), or None
        In the place of the two others. Samples never seen then need a start of their own as well.
    """

    factor: float = 1.0
    profiles: np.ndarray | None = None
    own: np.ndarray | None = None

    def along(self, vectors):
        """The same in the coordinates of orthonormal ``vectors`` that span the profiles."""
        return self if self.profiles is None else replace(self, profiles=self.profiles @ vectors.T)

    @property
    def is_shared(self):
        """Whether it is the same function of every sample."""
        return self.own is None

    def of(self, bulk, n_cell_types):
        """Expression (n_cell_types, n_samples, n_columns) at the start of these samples."""
        if self.own is not None:
            return np.array(self.own.swapaxes(0, 1), dtype=np.float64, order="C")
        expression = np.repeat(self.factor * bulk[None], n_cell_types, axis=0)
        if self.profiles is not None:
            # a sample's further columns are what it holds outside the span, where the profiles hold nothing
            expression[:, :, : self.profiles.shape[1]] += self.profiles[:, None]
        return expression
