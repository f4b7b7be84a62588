"""What is known of a matrix that has been read once, under the names that arrays have for it."""


class Examined:
    """Answers of a matrix from its ``facts``, see :mod:`skenigma.checks.facts`, without reading it again.

    Checks and solvers ask arrays and matrices alike for these, and each would be one more reading of the source.
    """

    facts = None

    def min(self):
        """Smallest entry.

        Returns
        -------
        smallest : float
            Of all entries.
        """
        return self._known().minimum

    def max(self, axis=None):
        """Largest entry, or that of every sample.

        Parameters
        ----------
        axis : int, default=None
            None for all entries, else 1.

        Returns
        -------
        largest : float or ndarray of shape (n_samples,)
            As ``axis`` says.
        """
        return self._known().maximum if axis is None else self._known().largest

    def sum(self, dtype=None):
        """Sum of all entries.

        Parameters
        ----------
        dtype : dtype, default=None
            Ignored: the sum is in double precision.

        Returns
        -------
        total : float
            Of all entries.
        """
        return self._known().totals.sum()

    def any(self, axis):
        """Whether a sample has an entry other than 0.

        Parameters
        ----------
        axis : int
            Always 1, the genes of a sample.

        Returns
        -------
        filled : ndarray of bool, shape (n_samples,)
            True where it has one.
        """
        return self._known().filled

    def mean(self, axis, dtype=None):
        """Mean of every gene.

        Parameters
        ----------
        axis : int
            Always 0, over the samples.
        dtype : dtype, default=None
            Ignored: the mean is in double precision.

        Returns
        -------
        mean : ndarray of shape (n_genes,)
            Over all samples.
        """
        return self._known().mean

    def _known(self):
        if self.facts is None:
            raise ValueError("This matrix has not been examined yet.")
        return self.facts
