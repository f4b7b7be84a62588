r"""Variational factor model of the expression of every cell type.

.. math::

    p_{jkg} = r_{kg} + \sum_m F_{jm} b_{mkg} + u_{jkg} , \qquad x_{jg} = \sum_k \theta_{jk} p_{jkg} + e_{jg}

F holds known columns (the intercept, then what the caller knows of the samples) and factors, which all cell types
share: :math:`f_{jm} \sim N(0, 1)`. Loadings :math:`b_{mkg} \sim N(0, \tau_{mk})`; own parts
:math:`u_{jkg} \sim N(0, t_k)`; noise :math:`e_{jg} \sim N(0, \sigma^2)`. All variances are pooled over genes, but for
one scale per gene. Known columns may depend on each other: the priors tell them apart.

The posterior is approximated by q(b) q(f), both Gaussian, with one covariance of b for all genes. With
:math:`y_j = x_j - \theta_j R`, :math:`z_j = F_j \otimes \theta_j` and
:math:`v_j = \sum_k \theta_{jk}^2 t_k + \sigma^2`, all that a step needs of the genes is the Gram matrix
:math:`Y Y^T`: its cost does not depend on their number where that is larger than the number of samples. A step
stands in :mod:`.factor_step`; here are its repetition and the search for the number of factors.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..regress.generalized import gene_blocks
from ..regress.moderation import MOST_DEGREES, VariancePrior
from .factor_step import Genes, Parts, State
from .factor_variances import SampleVariances

# A residual direction is a candidate for a factor if its singular value exceeds that of noise by this ratio.
EDGE = 1.03
# Variance that is left to noise where the model explains everything, in shares of the variance of the data.
LEAST_NOISE = 1e-9
# Variance of the scores of a new factor: all but known, else its loadings fall to 0.
NEW_SPREAD = 0.05
# Factor by which over-relaxation grows after every step that it improved, and its limit.
GROWTH, LARGEST_STEP = 1.4, 30.0
# Until the number of factors is final, a step has to gain this multiple of what it has to gain in the end.
EARLY = 30.0
# Least variance of a gene relative to the others': constant genes have none of their own.
LEAST_RATIO = 1e-6
# Rounding of the bound, relative to its terms: a step that lowers it by less has not lowered it.
ROUNDING = 1e-11


@dataclass(frozen=True)
class FactorPosterior:
    """Posterior of the factor model. C = n_known + n_factors columns, p = C * n_cell_types coefficients.

    Attributes
    ----------
    scores : ndarray of shape (n_samples, C)
        Known columns, intercept first, then posterior means of the factors.
    score_covariance : ndarray of shape (n_samples, n_factors, n_factors)
    loadings : ndarray of shape (C, n_cell_types, n_genes)
        Posterior means, over the scale of their gene.
    covariance : ndarray of shape (p, p)
        Of the loadings of any gene over its scale, the column of F slowest.
    prior : ndarray of shape (p,)
        Prior variances of the same.
    precision : ndarray of shape (p, p)
        What the data add to the inverse of the prior.
    information : ndarray of shape (p, n_genes)
        What the data say of the loadings: ``covariance @ information`` are their means.
    own : ndarray of shape (n_cell_types,)
        Variances t of the own parts.
    noise : float
    scale : ndarray of shape (n_genes,)
        Of each gene, in its unit: all of the above is about genes divided by it.
    degrees : float
        Degrees of freedom behind it: those of the residual and of what genes have in common.
    history : ndarray of shape (n_iter, 2)
        Evidence lower bound after every step, and the number of factors. The bound rises while that stays the same
        or grows; where it falls back, the fit began again with scales of the genes.
    converged : bool
    n_known : int
    """

    scores: np.ndarray
    score_covariance: np.ndarray
    loadings: np.ndarray
    covariance: np.ndarray
    prior: np.ndarray
    precision: np.ndarray
    information: np.ndarray
    own: np.ndarray
    noise: float
    scale: np.ndarray
    degrees: float
    history: np.ndarray
    converged: bool
    n_known: int

    @property
    def n_factors(self):
        """Number of factors."""
        return self.scores.shape[1] - self.n_known


def fit_factors(
    residual, proportions, known, *, n_factors=None, max_factors=10, max_iter=1000, tol=1e-6, report=None
):
    """Fit the factor model.

    Parameters
    ----------
    residual : ndarray of shape (n_samples, n_genes)
        Bulk minus proportions times reference. Overwritten: it ends divided by the scale of its genes.
    proportions : ndarray of shape (n_samples, n_cell_types)
    known : ndarray of shape (n_samples, n_known)
        Known columns of F, the intercept first.
    n_factors : int or None
        Number of factors sought. None adds them, from the leading direction of the whitened residual, while that is
        longer than noise would be, and while the bound rises.
    max_factors : int
        At most so many if ``n_factors`` is None, and at most a third of the samples.
    max_iter : int
        Most steps of the fit with the final number of factors.
    tol : float
        The fit has converged when two steps in a row raise the bound by less than this, per value of ``residual``.
    report : callable, default=None
        Called after each step, also of fits with fewer factors on the way.

    Returns
    -------
    FactorPosterior

    Notes
    -----
    The scale of a gene is the moderated standard deviation of what the model leaves of it [1]_. It is taken first
    from a fit without factors, then from the whole one, which is repeated if genes still differ.

    References
    ----------
    .. [1] Smyth (2004), Linear models and empirical Bayes methods for assessing differential expression in microarray
       experiments. Statistical Applications in Genetics and Molecular Biology 3.
    """
    automatic = n_factors is None
    limit = min(max_factors, len(residual) // 3) if automatic else n_factors
    # in units of the values, squares of squares could leave the range of numbers
    unit = max(residual.max(initial=0.0), -residual.min(initial=0.0))
    if unit > 0:
        residual /= unit
        size = np.sqrt(np.einsum("jg,jg->j", residual, residual).sum() / residual.size)
        residual /= size
        unit *= size
    scale, degrees = np.full(residual.shape[1], unit if unit > 0 else 1.0), np.inf
    fit = Search(Genes(residual), proportions, known, max_iter, tol, report)
    for repeat in range(2):
        ratio, found = fit.relative_scale()
        if ratio is not None:
            residual /= ratio
            scale, degrees = scale * ratio, min(degrees, found)
        elif repeat:
            break
        fit = Search(Genes(residual), proportions, known, max_iter, tol, report)
        fit.search(limit, automatic)
    return fit.posterior(scale, degrees)


class Search:
    """The fit in progress: without factors at first.

    Parameters
    ----------
    genes : Genes
        Of the residual.
    proportions, known, max_iter, tol, report
        As of :func:`fit_factors`.

    Attributes
    ----------
    state : State
        Where it stands.
    """

    def __init__(self, genes, proportions, known, max_iter, tol, report=None):
        self.genes = genes
        self.theta = np.asarray(proportions, dtype=np.float64)
        n_samples, n_types = self.theta.shape
        self.pairs = (self.theta[:, :, None] * self.theta[:, None]).reshape(n_samples, -1)
        self.n_known = known.shape[1]
        self._max_iter, self._tol = max_iter, tol * genes.number * n_samples
        self._report = report if report is not None else lambda: None
        variance = self.genes.squares.mean()
        least = LEAST_NOISE * variance if variance > 0 else 1.0
        self.variances = SampleVariances(self.theta, least)
        own, noise = np.full(n_types, variance / 2), max(variance / 2, least)
        start = State(
            known.astype(np.float64),
            np.zeros((n_samples, 0, 0)),
            own,
            noise,
            np.zeros(self.n_known * n_types),
        )
        self._history = []
        self.state, self._bound, self._converged = self._ascend(start, EARLY * self._tol)

    def search(self, limit, automatic):
        """Add factors up to a limit, then step until the bound stands still."""
        while self.state.spread.shape[1] < limit:
            score = self._direction(automatic)
            if score is None or not self._add(score, automatic):
                break
        self.state, self._bound, self._converged = self._ascend(self.state, self._tol)

    def _direction(self, only_signal):
        """Scores of the leading direction of the whitened residual; None if it is no longer than noise."""
        parts = Parts(self, self.state)
        length, direction = self.genes.leading_rest(parts)
        degrees = max(len(self.theta) - parts.fitted_degrees(), 1)
        noise = EDGE * (1 + np.sqrt(degrees / self.genes.number))
        if only_signal and length <= noise:
            return None
        return direction * np.sqrt(len(direction))

    def _add(self, score, must_gain):
        """Fit one factor more, from these scores; whether it is kept."""
        old, taken = self.state, len(self._history)
        scores = np.column_stack([old.scores, score * np.sqrt(1 - NEW_SPREAD)])
        spread = np.pad(old.spread, [(0, 0), (0, 1), (0, 1)])
        spread[:, -1, -1] = NEW_SPREAD
        prior = np.append(old.prior, np.zeros(self.theta.shape[1]))
        start = replace(old, scores=scores, spread=spread, prior=prior)
        state, bound, converged = self._ascend(start, EARLY * self._tol)
        if must_gain and bound - self._bound <= EARLY * self._tol:
            del self._history[taken:]
            return False
        self.state, self._bound, self._converged = state, bound, converged
        return True

    def _ascend(self, state, floor):
        """Steps until two in a row gain less than ``floor``; over-relaxed ones are kept only if the bound rises."""
        best, plain, omega, last, small = None, None, 1.0, -np.inf, 0
        for _ in range(self._max_iter):
            parts = Parts(self, state, fit_prior=True)
            self._report()
            if parts.bound < last - ROUNDING * parts.magnitude and plain is not state:
                state, omega = plain, 1.0  # the step went too far
                continue
            self._history.append((parts.bound, state.spread.shape[1]))
            small = small + 1 if parts.bound - last < floor else 0
            best, last = parts.state, parts.bound
            if small == 2:
                return best, last, True
            state = plain = parts.step()
            if omega > 1.0:
                state = _relaxed(best, plain, omega, self.n_known)
            omega = min(omega * GROWTH, LARGEST_STEP)
        return best, last, False

    def relative_scale(self):
        """Moderated standard deviations of the genes, None where all are 1, and their degrees of freedom."""
        parts = Parts(self, self.state)
        loadings = parts.covariance @ parts.information
        squares = np.empty(self.genes.number)
        for block in gene_blocks(len(squares), len(self.theta)):
            rest = self.genes.residual[:, block] - parts.design @ loadings[:, block]
            squares[block] = np.einsum("ng,ng,n->g", rest, rest, 1 / parts.variance)
        return moderated_scale(squares, max(len(self.theta) - parts.fitted_degrees(), 1.0))

    def posterior(self, scale, degrees):
        """The posterior, after one last step of the factors, so that a new row is treated as the cohort was."""
        parts = Parts(self, self.state)
        scores, spread = parts.factors()
        information = self.genes.to_genes(parts.information)
        loadings = parts.covariance @ information
        return FactorPosterior(
            scores,
            spread,
            loadings.reshape(scores.shape[1], self.theta.shape[1], -1),
            parts.covariance,
            self.state.prior,
            parts.precision,
            information,
            self.state.own,
            self.state.noise,
            scale,
            degrees,
            np.array(self._history) - [len(self.theta) * np.log(scale).sum(), 0],
            self._converged,
            self.n_known,
        )


def moderated_scale(squares, degrees):
    """Moderated standard deviations of genes over that which they have in common, and their degrees of freedom.

    Parameters
    ----------
    squares : ndarray of shape (n_genes,)
        Sums that a model leaves.
    degrees : float
        Degrees of freedom of each.

    Returns
    -------
    ratio : ndarray of shape (n_genes,), or None
        None where all are 1.
    degrees : float
    """
    prior = VariancePrior.fit(squares / degrees, degrees)
    if not 0 < prior.degrees < MOST_DEGREES:
        return None, prior.degrees + degrees
    ratio = prior.moderate(squares / degrees, degrees) / prior.variance
    return np.sqrt(np.maximum(ratio, LEAST_RATIO)), prior.degrees + degrees


def _relaxed(old, new, omega, n_known):
    """The step from ``old`` to ``new``, ``omega`` times as long; variances by their ratio, to stay positive."""
    scores = new.scores.copy()
    scores[:, n_known:] += (omega - 1) * (new.scores - old.scores)[:, n_known:]
    own = np.where(old.own > 0, _power(new.own, old.own, omega), new.own)
    return replace(new, scores=scores, own=own, noise=float(_power(new.noise, old.noise, omega)))


def _power(new, old, omega):
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(new) / old
        return np.where(ratio > 0, new * np.clip(ratio, 0.5, 2.0) ** (omega - 1), new)
