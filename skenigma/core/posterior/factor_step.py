"""A step of the variational factor model: what a state implies, and the next one. The model is in :mod:`.factor`."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse.linalg import eigsh

from .factor_loadings import maximise_prior

# Size up to which all eigenvectors are as quickly found as one.
SMALL = 100


@dataclass(frozen=True)
class State:
    """What a step changes; the loadings follow from it."""

    scores: np.ndarray
    spread: np.ndarray
    own: np.ndarray
    noise: float
    prior: np.ndarray


class Genes:
    """All that is asked of the residual y: products with its Gram matrix, per gene."""

    def __init__(self, residual):
        n_samples, self.number = residual.shape
        self.residual = residual
        self._gram = None
        if n_samples <= self.number:
            self._gram = np.asarray(residual @ residual.T, dtype=np.float64)
            self._gram /= self.number
            self.squares = np.diagonal(self._gram).copy()
        else:
            self.squares = np.einsum("ng,ng->n", residual, residual, dtype=np.float64) / self.number

    def gram_product(self, rows):
        """``rows @ y @ y.T`` over the number of genes."""
        if self._gram is not None:
            return rows @ self._gram
        return (rows @ self.residual) @ self.residual.T / self.number

    def rest(self, parts):
        """What ``parts`` leave of y."""
        return self.residual - parts.design @ (parts.covariance @ parts.information)

    def to_genes(self, rows):
        """Rows along what y has for columns as rows over genes."""
        return rows

    def leading_rest(self, parts):
        """Leading left singular vector of what ``parts`` leave of y, whitened, and its singular value over √G."""
        whiten = 1 / np.sqrt(parts.variance)[:, None]
        if self._gram is not None:
            smooth = parts.design @ parts.covariance
            fitted = smooth @ parts.crossed
            fitted = fitted + fitted.T - smooth @ parts.moments @ smooth.T
            return _leading((self._gram - fitted) * whiten * whiten.T)
        rest = self.rest(parts) * whiten
        value, vector = _leading(rest.T @ rest / self.number)
        left = rest @ vector
        return value, left / max(np.linalg.norm(left), np.finfo(float).tiny)


class Parts:
    """Everything that one state implies: the posterior of the loadings, the bound, and the next state."""

    def __init__(self, fit, state, fit_prior=False):
        self._genes, self._theta, self._pairs = fit.genes, fit.theta, fit.pairs
        self._variances, self._n_known = fit.variances, fit.n_known
        self.state = state
        self.variance = self._variances.of_samples(state.own, state.noise)
        self.design = (state.scores[:, :, None] * self._theta[:, None]).reshape(len(self._theta), -1)
        self.weighted = self.design / self.variance[:, None]
        self.precision = self.weighted.T @ self.design + self._spread_precision()
        self.crossed = self._genes.gram_product(self.weighted.T)
        self.moments = self.crossed @ self.weighted
        if fit_prior:
            self.state = replace(state, prior=maximise_prior(state.prior, self.precision, self.moments))
        self._solve()

    @property
    def information(self):
        """Shape (p, n_genes)."""
        return self.weighted.T @ self._genes.residual

    def fitted_degrees(self):
        """Trace of the smoother of a gene: degrees of freedom that its loadings take."""
        return np.trace(self.covariance @ (self.weighted.T @ self.design))

    def _spread_precision(self):
        """What the uncertainty of the factors adds to the precision of the loadings."""
        state, n_types = self.state, self._theta.shape[1]
        n_columns, n_factors = state.scores.shape[1], state.spread.shape[1]
        added = np.zeros((n_columns, n_types, n_columns, n_types))
        if n_factors:
            weighted = self._pairs / self.variance[:, None]
            flat = state.spread.reshape(len(weighted), -1).T @ weighted
            block = flat.reshape(n_factors, n_factors, n_types, n_types).transpose(0, 2, 1, 3)
            added[self._n_known :, :, self._n_known :] = block
        return added.reshape(n_columns * n_types, -1)

    def _solve(self):
        """Covariance of the loadings and the bound, maximised over their posterior."""
        state = self.state
        system = np.eye(len(self.precision)) + state.prior[:, None] * self.precision
        self.covariance = np.linalg.solve(system, np.diag(state.prior))
        self.covariance = (self.covariance + self.covariance.T) / 2
        n_factors, number = state.spread.shape[1], self._genes.number
        squares = self._genes.squares / self.variance
        fitted = np.einsum("ab,ab->", self.moments, self.covariance)
        logarithms = np.log(2 * np.pi * self.variance).sum()
        penalty = self._variances.penalty(state.own, state.noise)
        per_gene = -(logarithms + squares.sum() + np.linalg.slogdet(system)[1] - fitted + penalty) / 2
        self.magnitude = number * (squares.sum() + abs(logarithms) + abs(fitted))
        self.bound = number * per_gene
        if n_factors:
            traces = np.trace(state.spread, axis1=1, axis2=2)
            means = np.sum(state.scores[:, self._n_known :] ** 2, axis=1)
            self.bound += np.sum(np.linalg.slogdet(state.spread)[1] + n_factors - traces - means) / 2

    def _fitted(self):
        """Per sample, moments of the loadings as its factors meet them, per gene: shapes (n, C, C) and (n, C)."""
        state, n_types = self.state, self._theta.shape[1]
        n_columns = state.scores.shape[1]
        second = self.covariance @ self.moments @ self.covariance + self.covariance
        second = second.reshape(n_columns, n_types, n_columns, n_types).transpose(0, 2, 1, 3)
        products = self._pairs @ second.reshape(n_columns**2, -1).T
        crossed = (self.covariance @ self.crossed).reshape(n_columns, n_types, -1)
        return products.reshape(-1, n_columns, n_columns), np.einsum("jk,akj->ja", self._theta, crossed)

    def factors(self, fitted=None):
        """Scores and their covariances given the loadings."""
        products, crossed = self._fitted() if fitted is None else fitted
        weight = self._genes.number / self.variance
        return update_scores(products, crossed, weight, self.state.scores[:, : self._n_known])

    def step(self):
        """The next state: factors given the loadings, then variances given both."""
        fitted = products, crossed = self._fitted()
        scores, spread = self.factors(fitted)
        expected = self._genes.squares - 2 * np.einsum("ja,ja->j", scores, crossed)
        expected += np.einsum("ja,jab,jb->j", scores, products, scores, optimize=True)
        expected += np.einsum("jab,jab->j", spread, products[:, self._n_known :, self._n_known :])
        own, noise = self._variances.update(self.state.own, self.state.noise, np.maximum(expected, 0))
        return replace(self.state, scores=scores, spread=spread, own=own, noise=noise)


def update_scores(products, crossed, weight, known):
    r"""Posterior of the factors of every sample, given the loadings.

    Parameters
    ----------
    products : ndarray of shape (n_samples, C, C)
        :math:`\sum_{kl} \theta_{jk} \theta_{jl} E b_{akg} b_{blg}`, mean over genes.
    crossed : ndarray of shape (n_samples, C)
        :math:`\sum_k \theta_{jk} E b_{akg} y_{jg}`, mean over genes.
    weight : ndarray of shape (n_samples,)
        Number of genes over the variance of the sample.
    known : ndarray of shape (n_samples, n_known)

    Returns
    -------
    scores : ndarray of shape (n_samples, C)
    covariance : ndarray of shape (n_samples, n_factors, n_factors)
    """
    n_known = known.shape[1]
    if products.shape[1] == n_known:
        return known, np.zeros((len(known), 0, 0))
    precision = products[:, n_known:, n_known:] * weight[:, None, None]
    precision += np.eye(precision.shape[1])
    covariance = np.linalg.inv(precision)
    given = np.einsum("jab,jb->ja", products[:, n_known:, :n_known], known)
    factors = np.einsum("jab,jb->ja", covariance, (crossed[:, n_known:] - given) * weight[:, None])
    return np.column_stack([known, factors]), covariance


def _leading(gram):
    """Square root of the largest eigenvalue, and its eigenvector."""
    if len(gram) <= SMALL:
        values, vectors = np.linalg.eigh(gram)
    else:
        values, vectors = eigsh(gram, k=1, v0=np.ones(len(gram)), tol=1e-5)
    return np.sqrt(max(values[-1], 0.0)), vectors[:, -1]
