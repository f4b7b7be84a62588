"""Arrays that are used but not owned: whether somebody wrote to them in the meantime."""

import numpy as np

# Genes by which a change of a sample is noticed: whoever rescales or overwrites it changes most of them.
WATCHED = 32


class Unchanged:
    """The bulk of a fit that is kept without a copy.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
        Whoever owns it may write to it, which is noticed at genes spread over each sample.
    names : ndarray of str, or None
        Names of the samples.
    """

    def __init__(self, bulk, names):
        self._bulk, self._names = bulk, names
        self._genes = slice(None, None, max(1, bulk.shape[1] // WATCHED))
        self._seen = bulk[:, self._genes].copy()

    def check(self, samples):
        """Refuse some samples, given as a slice or an array of positions, of which one was changed.

        Raises
        ------
        ValueError
            Names the first.
        """
        same = self._bulk[samples][:, self._genes] == self._seen[samples]
        if same.all():
            return
        position = np.arange(len(self._bulk))[samples][np.flatnonzero(~same.all(axis=1))[0]]
        name = position if self._names is None else f"'{self._names[position]}'"
        raise ValueError(
            f"X was changed after the fit, at least in sample {name}: expression that is built when it is asked for "
            f"(materialize=False) reads X again. Fit to a copy (X.copy()), or use materialize=True."
        )
