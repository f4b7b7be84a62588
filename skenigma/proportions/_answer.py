"""What an estimator of proportions answers for some samples, found block by block where they are not in memory."""

from dataclasses import dataclass, fields

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ._checks import warn_of_samples


@dataclass(frozen=True)
class Answer:
    """Shares of RNA of some samples, and how they were found.

    Attributes
    ----------
    shares : ndarray of shape (n_samples, n_cell_types)
        Rows sum to 1.
    coefficients : ndarray of shape (n_samples, n_cell_types)
        The same before they were divided by their sums.
    n_iter : int
        Largest number of iterations a sample took.
    unfinished, by_nnls, unlike : ndarray of bool, shape (n_samples,)
        Samples whose regression was ended; which have the answer of non-negative least squares, because the method
        gave no positive coefficient; and which have none by that either.
    problem : str
        What to say of the unfinished, before their number.
    std : ndarray of shape (n_samples, n_cell_types), or None
        Standard errors of the proportions, if they were asked for.
    quality : ndarray of shape (n_samples, 5), or None
        Figures of :func:`fit_quality`, likewise.
    """

    shares: np.ndarray
    coefficients: np.ndarray
    n_iter: int
    unfinished: np.ndarray
    by_nnls: np.ndarray
    unlike: np.ndarray
    problem: str
    std: np.ndarray | None = None
    quality: np.ndarray | None = None

    @classmethod
    def joined(cls, parts):
        """Of all samples, from the answers for blocks of them."""
        # a bulk in memory is one part, and is not copied
        if len(parts) == 1:
            return parts[0]
        found = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            found[field.name] = np.concatenate(values) if isinstance(values[0], np.ndarray) else values[0]
        return cls(**found | {"n_iter": max(part.n_iter for part in parts)})

    def warn(self, rows, method):
        """Name the samples whose answer is in doubt."""
        remedy = "Use a larger max_iter or tol."
        warn_of_samples(self.unfinished, rows, self.problem, remedy, ConvergenceWarning)
        warn_of_samples(
            self.by_nnls,
            rows,
            f"No cell type has a positive coefficient by method='{method}' in",
            "The proportions there are those of non-negative least squares.",
        )
        warn_of_samples(
            self.unlike,
            rows,
            "No cell type has a positive coefficient, not even with non-negative least squares, in",
            "The proportions there are equal. Check that X and reference are on the same scale.",
        )
