"""Hidden factors of residuals: directions over samples that independent residuals would not have.

They are leading eigenvectors of the products of samples with each other, summed over genes. Of few samples these
products are held. Of many, the residuals are, in memory or in a file, and the eigenvectors come from products with
single vectors, each of which is a pass over the residuals.
"""

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

# Samples whose products with each other are held: 32 MB.
MOST_PRODUCTS = 2000
# An eigenvalue is that of a factor if it exceeds the largest of noise by this ratio.
STANDS_OUT = 2.0
# Eigenvalues below this share of the largest are rounding.
NEGLIGIBLE = 1e-9
# Accuracy of the eigenvalues by which factors are told from noise, which are close to each other where there is none.
LOOSE = 1e-3


class Residuals:
    """Standardised residuals, given by blocks of genes.

    Parameters
    ----------
    n_samples, n_genes : int
    n_factors : int
        How many factors may be asked for.
    empty : callable
        Makes an array of a shape: where residuals of many samples are held until the factors are found.
    """

    def __init__(self, n_samples, n_genes, n_factors, empty=np.empty):
        self.squares, self.count, self._most = np.zeros(n_samples), 0, min(n_factors, n_samples - 1)
        self._products = self._held = None
        if self._most and n_samples <= MOST_PRODUCTS:
            self._products = np.zeros((n_samples, n_samples))
        elif self._most:
            self._held = empty((n_samples, n_genes))

    def add(self, block):
        """Take account of some genes, shape (n_samples, n_genes_of_the_block)."""
        self.squares += np.einsum("ng,ng->n", block, block)
        if self._products is not None:
            self._products += block @ block.T
        if self._held is not None:
            self._held[:, self.count : self.count + block.shape[1]] = block
        self.count += block.shape[1]

    def factors(self, n_nuisance):
        """Eigenvalues, per gene, and eigenvectors of the factors that stand out of noise, the largest first.

        Parameters
        ----------
        n_nuisance : int
            Columns that all residuals are orthogonal to.

        Returns
        -------
        values : ndarray of shape (n_found,)
        vectors : ndarray of shape (n_samples, n_found)
        """
        if not (self._most and self.count):
            return np.empty(0), np.empty((len(self.squares), 0))
        if self._products is not None:
            values, vectors = np.linalg.eigh(self._products / self.count)
            values, vectors = values[::-1], vectors[:, ::-1]
            rank = int(np.sum(values > NEGLIGIBLE * values[0]))
            found = self._standing_out(values[: self._most], rank)
            return values[:found], vectors[:, :found]
        rank = min(len(self.squares) - n_nuisance, self.count)
        found = self._standing_out(self._leading(self._most, LOOSE)[0], rank)
        # what stands out is far from all others, and soon found to the last digit
        return self._leading(found, 0.0) if found else (np.empty(0), np.empty((len(self.squares), 0)))

    def _standing_out(self, values, rank):
        """How many of the largest eigenvalues independent residuals would not have."""
        n_samples, total = len(self.squares), self.squares.sum() / self.count
        edge = (1.0 + np.sqrt(n_samples / self.count)) ** 2
        found = 0
        # each factor found is taken out of the level of the others
        while found < min(len(values), rank - 1):
            level = (total - values[:found].sum()) / (rank - found)
            if values[found] <= STANDS_OUT * edge * level:
                break
            found += 1
        return found

    def _leading(self, number, tolerance):
        """The largest eigenvalues, and their eigenvectors, without the products."""
        residuals, n_samples = self._held[:, : self.count], len(self.squares)

        def product(vector):
            return residuals @ (residuals.T @ vector.ravel()) / self.count

        operator = LinearOperator((n_samples, n_samples), matvec=product, dtype=np.float64)
        # not the same in all samples: residuals of a gene add up to 0
        start = np.random.default_rng(0).standard_normal(n_samples)
        values, vectors = eigsh(operator, k=number, v0=start, tol=tolerance)
        return values[::-1], vectors[:, ::-1]
