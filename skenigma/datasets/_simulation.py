"""A cohort like a given bulk, with its cell-type-specific expression known."""

import numpy as np
from scipy.optimize import nnls
from sklearn.utils import Bunch, check_array, check_random_state

from .._typing import Seed, Table
from ..checks.genes import match_genes
from ..checks.labels import row_labels
from ..checks.names import column_names
from ..checks.numbers import check_magnitude, refuse_masked
from ..checks.validation import check_profiles, check_proportions

# Bounds of the share of the variation that is the cell types' own, and what it is where the bulk cannot tell.
OWN_SHARE, UNKNOWN_SHARE = (0.1, 0.9), 0.5
# Deviations from a profile that a simulated cell type may show, as a fold.
LARGEST_FOLD = 20.0
# What is added before logarithms, as a share of the mean of the bulk.
OFFSET = 0.01


def simulate_like(bulk: Table, reference: Table, proportions: Table, *, random_state: Seed = None) -> Bunch:
    """Simulate a cohort that resembles a bulk, with the cell-type-specific expression known.

    It has as many samples and genes as ``bulk``, the same proportions, gene by gene the same mean and about
    the same variance, and what genes vary together in the bulk varies together in its cell types: the
    deviations of the bulk's samples from the mixture of the profiles are redistributed.

    Parameters
    ----------
    bulk : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression.
    reference : array-like or DataFrame of shape (n_cell_types, n_genes)
        Profiles on the same scale. Genes are matched by name if both have names, else by position.
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
        Proportions of the bulk, known or estimated; of a frame, matched by name.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same cohort on every call.

    Returns
    -------
    cohort : :class:`~sklearn.utils.Bunch`
        On the shared genes in the order of ``bulk``, as arrays: ``bulk``, ``reference``, ``proportions`` and ``cse``,
        the truth, of shape (n_samples, n_cell_types, n_genes), and ``own_share``, the share of a gene's variance in
        the bulk that was given to the cell types, of shape (n_genes,).

    Raises
    ------
    ValueError
        If shapes do not fit together, or proportions are not such.

    Notes
    -----
    Without a negative value in bulk and reference, deviations are folds: with the mixture m_j = Σ_k θ_jk r_k,
    d_j = log((x_j + c) / (m_j + c)), c = 1 % of the mean. Otherwise they are differences, d_j = x_j − m_j. Let b be
    their mean over samples and π_0, ..., π_K random permutations of the samples. Per gene::

        p_jk = r_k * exp(b + a * (d - b)[π_k(j)])              or  r_k + b + a * (d - b)[π_k(j)]
        x_j  = sum_k θ_jk p_jk * exp(s * (d - b)[π_0(j)])      or  sum_k θ_jk p_jk + s * (d - b)[π_0(j)]

    A mixture of independent deviations varies less than they do, by the factor w = mean_j Σ_k w_jk², w_jk the share
    of the cell type in the gene's expression (for differences, θ_jk). So a² = f / w and s² = 1 − f give back the
    variance in the bulk, with f the share of it that is the cell types' own.

    The bulk tells f only through its samples and genes of different Σ_k w_jk²: squared deviations are regressed on
    it and on a constant, which gives a variance τ² within cell types and σ² of noise, and f = τ² w / (τ² w + σ²),
    kept between 0.1 and 0.9. That rests on assumptions that no bulk can test: cell types vary independently of each
    other (what they share goes to the noise), all of them by the same amount (the same fold, where values have no
    sign), and the estimated proportions are right.

    Examples
    --------
    >>> from skenigma import ProportionEstimator
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.model_selection import simulate_like
    >>> real = make_cohort(n_samples=40, n_genes=200, random_state=0)
    >>> proportions = ProportionEstimator(real.reference).fit_transform(real.bulk)
    >>> cohort = simulate_like(real.bulk, real.reference, proportions, random_state=0)
    >>> cohort.cse.shape
    (40, 5, 200)
    """
    names, samples = column_names(bulk, "bulk"), row_labels(bulk)
    refuse_masked(bulk, "bulk")
    bulk = check_array(bulk, dtype=np.float64, ensure_min_samples=2, input_name="bulk")
    check_magnitude(bulk, "bulk")
    profiles = check_profiles(reference, np.float64)
    in_bulk, in_reference = match_genes(profiles, names, bulk.shape)
    bulk, reference = bulk[:, in_bulk], profiles.values[:, in_reference]
    proportions = check_proportions(proportions, profiles.cell_types, len(bulk), samples)
    model = Deviations(bulk, reference, proportions)
    mixture, cse = model.draw(check_random_state(random_state), np.arange(len(bulk)), slice(None))
    return Bunch(bulk=mixture, reference=reference, proportions=proportions, cse=cse, own_share=model.share)


class Deviations:
    """Deviations of bulk samples from the mixture of the profiles, to be redistributed; see :func:`simulate_like`.

    Attributes
    ----------
    folds : bool
        Whether deviations are logarithms of folds, else differences.
    mean : ndarray of shape (n_genes,)
    centred : ndarray of shape (n_samples, n_genes)
    weight : ndarray of shape (n_genes,)
        Mean over samples of the summed squares of the cell types' shares.
    share : ndarray of shape (n_genes,)
        Share of the variance that is the cell types' own.
    """

    def __init__(self, bulk, reference, proportions):
        self.reference, self.proportions = reference, proportions
        self.folds = bool(bulk.min() >= 0 and reference.min() >= 0)
        mixture = proportions @ reference
        if self.folds:
            offset = OFFSET * bulk.mean() or 1.0  # any number, where there is nothing but zeros
            deviations = np.log((bulk + offset) / (mixture + offset))
            squares = (proportions**2) @ (reference**2)
            weights = np.divide(squares, mixture**2, out=np.ones_like(squares), where=mixture > 0)
        else:
            deviations = bulk - mixture
            weights = np.broadcast_to(np.sum(proportions**2, axis=1)[:, None], bulk.shape)
        self.mean = deviations.mean(axis=0)
        self.centred = deviations - self.mean
        self.weight = weights.mean(axis=0)
        self.share = _own_share(self.centred**2, weights, self.weight)

    def draw(self, rng, samples, genes):
        """A bulk of samples like ``samples``, positions, and the expression of every cell type on ``genes``."""
        proportions = self.proportions[samples]
        mixture = np.zeros((len(samples), len(self.mean)))
        cse = np.empty((*proportions.shape, len(self.mean[genes])))
        for k, profile in enumerate(self.reference):
            deviation = self.mean + np.sqrt(self.share / self.weight) * self._deal(rng, samples)
            if self.folds:
                limit = np.log(LARGEST_FOLD)
                expression = profile * np.exp(np.clip(deviation, -limit, limit))
            else:
                expression = profile + deviation
            cse[:, k] = expression[:, genes]
            mixture += proportions[:, [k]] * expression
        noise = np.sqrt(1 - self.share) * self._deal(rng, samples)
        return (mixture * np.exp(noise) if self.folds else mixture + noise), cse

    def _deal(self, rng, samples):
        return self.centred[rng.permutation(len(self.centred))[samples]]


def _own_share(squares, weights, weight):
    """Share of every gene's variance that is the cell types' own: squares = within · weights + noise."""
    design = np.array([[np.vdot(weights, weights), weights.sum()], [weights.sum(), weights.size]])
    # the normal equations: two unknowns, as many equations as there are entries of the bulk
    within, noise = nnls(design, np.array([np.vdot(weights, squares), squares.sum()]))[0]
    total = within * weight + noise
    known = total > 0 if np.ptp(weights) > np.sqrt(np.finfo(float).eps) else np.zeros(len(weight), dtype=bool)
    share = np.divide(within * weight, total, out=np.full_like(weight, UNKNOWN_SHARE), where=known)
    return np.clip(share, *OWN_SHARE)
