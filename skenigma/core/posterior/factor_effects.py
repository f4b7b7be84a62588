r"""Effects in a factor model whose known columns are the groups, cell type by cell type and gene by gene.

F begins with the intercept and one column per group (or per end of a quantity's range), each with priors of its own:
profiles of a group deviate from the reference by what all groups share, and by what is the group's. Where the
reference describes one of the groups, the variances of the first and of this group's part go to 0, and all that
deviates is an effect: that is what makes the test strong. A free covariance of the columns' loadings would do as
much, but it takes a multiple of what all groups share for an effect, wherever a hidden factor goes with the groups.

The posterior of the effects, m and V, gives the statistic :math:`m^T V^+ m`, which shrinkage makes conservative: were
the priors flat, it would be Wald's.

A gene in which reference and cohort differ for another reason (another platform, another tissue) could pass for
changed. So each gene may, with a probability that all genes together determine, have a shift of one cell type that is
the same in all samples; p-values are averaged over the possibilities.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as f_distribution

from ..regress.moderation import MOST_DEGREES

# Variances of effects below this share of the residual's, or of the largest, are directions closed by the priors.
CLOSED = 1e-10
# Share of the genes with a shift of their own at the start of the search for it.
FIRST_SHARE = 0.01
MOST_ITERATIONS, SHARE_TOLERANCE = 500, 1e-6


@dataclass(frozen=True)
class Effects:
    """Effects of q tested columns.

    Attributes
    ----------
    mean : ndarray of shape (q, n_cell_types, n_genes)
    deviation : ndarray of shape (q, n_cell_types, n_genes)
    p_value : ndarray of shape (n_cell_types, n_genes)
    shifted : ndarray of shape (n_genes,)
        Probability of a shift of the gene against the reference that is the same in all samples.
    """

    mean: np.ndarray
    deviation: np.ndarray
    p_value: np.ndarray
    shifted: np.ndarray


def known_effects(posterior, weights):
    """Effects that are combinations of the loadings of the known columns.

    Parameters
    ----------
    posterior : FactorPosterior
        The intercept is its first known column.
    weights : ndarray of shape (q, n_known)
        Of every effect.

    Returns
    -------
    Effects
        On the scale of the genes' values.
    """
    n_columns, n_types, n_genes = posterior.loadings.shape
    size = len(posterior.covariance)
    # rows of type k: the effects from the coefficients of any gene
    select = np.zeros((n_types, len(weights), n_columns, n_types))
    for k in range(n_types):
        select[k, :, : posterior.n_known, k] = weights
    select = select.reshape(n_types, len(weights), size)
    least = CLOSED * (posterior.noise + posterior.own.mean())
    shift = _Shifts(posterior)
    mean, second = np.zeros((2, len(weights), n_types, n_genes))
    p_value = np.zeros((n_types, n_genes))
    for share, loadings, covariance in shift.possibilities():
        for k, rows in enumerate(select):
            part, variance = rows @ loadings, rows @ covariance @ rows.T
            mean[:, k] += share * part
            second[:, k] += share * (part**2 + np.diagonal(variance)[:, None])
            p_value[k] += share * _tail(part, variance, posterior.degrees, least)
    deviation = np.sqrt(np.maximum(second - mean**2, 0))
    scale = posterior.scale
    return Effects(mean * scale, deviation * scale, np.minimum(p_value, 1), shift.shifted)


def deviations_from_reference(posterior):
    """Root mean square over genes of the deviation of each sample's profiles from the reference: (n, K).

    By the known columns alone, in the unit of the genes.
    """
    known = posterior.scores[:, : posterior.n_known]
    prior = posterior.prior.reshape(-1, posterior.loadings.shape[1])[: posterior.n_known]
    return np.sqrt(known**2 @ prior * np.mean(posterior.scale**2))


def explained_by_known(posterior):
    """Share of the variance of every factor that the known columns explain, and p-values of that, by F tests."""
    known, factors = posterior.scores[:, : posterior.n_known], posterior.scores[:, posterior.n_known :]
    n_samples, n_known = len(known), np.linalg.matrix_rank(known)
    centred = factors - factors.mean(axis=0)
    fitted = known @ np.linalg.lstsq(known, centred, rcond=None)[0]
    total = np.maximum(np.sum(centred**2, axis=0), np.finfo(float).tiny)
    share = np.clip(np.sum(fitted**2, axis=0) / total, 0, 1)
    left = n_samples - n_known
    ratio = share / (n_known - 1) / np.maximum((1 - share) / left, np.finfo(float).tiny)
    return share, f_distribution.sf(ratio, n_known - 1, left)


class _Shifts:
    """A shift of one cell type at most, in some genes, against the reference."""

    def __init__(self, posterior):
        size, n_types = len(posterior.prior), posterior.loadings.shape[1]
        self._loadings = posterior.loadings.reshape(size, -1)
        self._covariance = posterior.covariance
        # information on a shift of each type, and what each gene says of it, the other loadings integrated out
        away = np.eye(size) - posterior.precision @ posterior.covariance
        self._information = np.diagonal(away @ posterior.precision)[:n_types]
        self._found = (away @ posterior.information)[:n_types]
        self._response = away.T[:, :n_types]
        self._search()

    def _search(self):
        """Share of genes with a shift of each type, and its variance, by expectation and maximisation."""
        n_types, n_genes = self._found.shape
        information = self._information[:, None]
        seen = information > 0
        estimate = np.divide(self._found, information, out=np.zeros_like(self._found), where=seen)
        self._variance = max(float(np.quantile(estimate**2, 0.99)), np.finfo(float).tiny)
        share, before = np.full(n_types, FIRST_SHARE / n_types), -np.inf
        for _ in range(MOST_ITERATIONS):
            gain = 1 + self._variance * information
            factor = (self._variance * self._found**2 / gain - np.log(gain)) / 2
            logs = np.vstack([np.full(n_genes, np.log1p(-share.sum())), factor + np.log(share)[:, None]])
            top = logs.max(axis=0)
            weight = np.exp(logs - top)
            evidence = float(np.sum(top + np.log(weight.sum(axis=0))))
            weight = (weight / weight.sum(axis=0))[1:]
            if evidence - before < SHARE_TOLERANCE * n_genes:
                break
            before = evidence
            self._weight, self._mean = weight, self._variance * self._found / gain
            self._left = np.broadcast_to(self._variance / gain, self._mean.shape)[:, 0]
            share = np.clip(weight.mean(axis=1), 1e-12, 0.5 / n_types)
            total = np.sum(weight * (self._mean**2 + self._left[:, None]))
            self._variance = max(float(total / max(weight.sum(), 1e-12)), np.finfo(float).tiny)
        # one parameter per type and the variance must pay for themselves, as in Schwarz's criterion
        if before < (n_types + 1) / 2 * np.log(n_genes):
            self._weight = np.zeros((n_types, n_genes))

    @property
    def shifted(self):
        """Probability of a shift, by gene."""
        return self._weight.sum(axis=0)

    def possibilities(self):
        """Probability by gene, means and covariance of the loadings: of no shift, then of one of each type."""
        yield 1 - self.shifted, self._loadings, self._covariance
        for k in np.flatnonzero(self._weight.any(axis=1)):
            response = self._response[:, k]
            yield (
                self._weight[k],
                self._loadings + response[:, None] * self._mean[k],
                self._covariance + np.outer(response, response) * self._left[k],
            )


def _tail(mean, covariance, degrees, least):
    """Probability of so large a statistic where the effects of q columns are 0, for every gene."""
    values, vectors = np.linalg.eigh(covariance)
    # directions that the priors have closed say nothing
    open_ = values > max(CLOSED * values[-1], least)
    rank = int(open_.sum())
    if not rank:
        return np.ones(mean.shape[1])
    statistic = np.sum((vectors[:, open_].T @ mean) ** 2 / values[open_, None], axis=0)
    if degrees >= MOST_DEGREES:
        return chi2.sf(statistic, rank)
    return f_distribution.sf(statistic / rank, rank, degrees)
