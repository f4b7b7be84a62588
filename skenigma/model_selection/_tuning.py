"""Fits of many settings to one cohort whose truth is known, and the choice among them."""

import copy
import warnings
from functools import cache, partial
from itertools import product

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import rankdata
from sklearn.model_selection import check_cv

from ..baselines import of_arrays

SEARCHED = ("alpha", "beta", "renorm_size")
# A setting that does not converge is chosen only if it scores better by more than this share.
UNCONVERGED_MARGIN = 0.01


def standing_for(factor, params):
    """Change parameters so that every sample of a cohort stands for ``factor`` samples like it.

    Parameters
    ----------
    factor : float
        Samples that each one stands for.
    params : dict
        Parameters of :class:`~skenigma.L2MaxDeconvolver`: alpha, beta, tao_k, gamma, epsilon, renorm_size, solver.

    Returns
    -------
    params : dict
        What to fit with in their place. Anything that is "auto" stays so.

    Notes
    -----
    With every sample c times in the cohort, the objective is, summed over each once, c α Σ_j ‖e_j‖² +
    (1−α) Σ_k ‖m_k‖² + β/2 Σ_k max_j ‖p_jk‖². Divided by w = c α + 1 − α it is the objective of the small cohort with
    c α/w for α and β/w for β. A step τ moves every sample by as much as one of τ w/c there, and the squared change, a
    sum over samples, is c times that of the small cohort. The quadratic term of ADMM is a sum over samples as well: γ
    becomes γ c/w.

    Rescaled gradients are steps of length s α and s (1−α), spread over √c times the norm: s becomes s/√c, and α and
    τ stay. The proximal operator has τ β/c for τ β in either case.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.model_selection._tuning import standing_for
    >>> params = L2MaxDeconvolver(alpha=0.5, renorm_size=None).get_params()
    >>> standing_for(4.0, params)["alpha"]
    0.8
    """
    alpha, size = params["alpha"], params["renorm_size"]
    if size is None:
        total = factor * alpha + 1 - alpha
        alpha *= factor / total
        factors = {"beta": 1 / total, "tao_k": total / factor, "gamma": factor / total}
    else:
        factors = {"beta": 1 / factor, "renorm_size": factor**-0.5}
    if params["solver"] != "accelerated":  # whose epsilon is relative
        factors["epsilon"] = 1 / factor
    changed = {name: by * params[name] for name, by in factors.items() if params[name] != "auto"}
    return {**params, "alpha": alpha, **changed}


class Tuning:
    """A tuning cohort, prepared for many settings.

    Parameters
    ----------
    tuner : L2MaxDeconvolver
        Knows genes, reference and proportions, but no setting.
    cohort : PreparedCohort
    bulk : ndarray of shape (n_samples, n_genes)
    truth : ndarray of shape (n_samples, n_cell_types, n_scored)
        Expression on ``genes``.
    genes : ndarray of int, shape (n_scored,)
    n_samples : int
        Size of the cohort for which a setting is sought.
    """

    def __init__(self, tuner, cohort, bulk, truth, genes, n_samples):
        self.tuner, self.cohort, self.bulk = tuner, cohort, bulk
        self.truth, self.genes, self.n_samples = truth, genes, n_samples

    def splits(self, cv):
        """Cohorts to fit, each a :class:`Split`: this one, or the training samples of each fold."""
        if cv is None:
            return [Split(self, self.tuner, self.cohort, None)]
        return [self._fold(*fold) for fold in check_cv(cv).split(self.bulk)]

    def _fold(self, train, test):
        tuner, bulk = copy.copy(self.tuner), self.bulk[train]
        return Split(self, tuner, prepare(tuner, bulk, bulk, self.cohort.proportions[train]), test)

    def baselines(self, score):
        """Scores of the answers that need no model; NaN where the data have no such answer."""
        theta = self.cohort.proportions
        answers = of_arrays(self.bulk[:, self.genes], self.tuner.reference_[:, self.genes], theta)
        return {
            name: np.nan if answer is None else score(self.truth, answer) for name, answer in answers.items()
        }


class Split:
    """Samples of a tuning cohort that are fitted, and those that the fits are scored on.

    Parameters
    ----------
    tuning : Tuning
    tuner : L2MaxDeconvolver
    cohort : PreparedCohort
        What is fitted.
    test : ndarray of int, or None
        Samples that are scored; None: those that were fitted.
    """

    def __init__(self, tuning, tuner, cohort, test):
        self.tuning, self.tuner, self.cohort, self.test = tuning, tuner, cohort, test
        self.factor = tuning.n_samples / len(cohort.bulk)

    def solve(self, alpha, beta, renorm_size):
        """Solution with one setting, which means what it would in the cohort sought for."""
        estimator = copy.copy(self.tuner)
        setting = {"alpha": alpha, "beta": beta, "renorm_size": renorm_size}
        vars(estimator).update(standing_for(self.factor, vars(estimator) | setting))
        problem, settings = estimator._problem(self.cohort)
        settings = estimator._prepare(settings, None)
        return estimator._run(problem, self.cohort.basis, settings, lambda loss, delta: False)

    def usual_size(self, gradient_norm):
        """What ``renorm_size="auto"`` comes to in the cohort sought for, given the norms of a plain run."""
        # of samples that occur c times, one gradient has √c times the norm and the other 1/√c times
        norms = gradient_norm * [self.factor**0.5, self.factor**-0.5]
        return float(norms.mean()) if norms.any() else None

    def score(self, solution, score):
        """Score of what a solver found."""
        tuning = self.tuning
        if self.test is None:
            found = self.tuner._expand(solution.state(self.cohort.bulk), genes=tuning.genes)
            return score(tuning.truth, found)
        fitted = copy.copy(self.tuner)
        fitted._fitted_map = solution.fitted_map()
        state = fitted._replay(tuning.cohort.bulk[self.test], tuning.cohort.proportions[self.test])
        return score(tuning.truth[self.test], fitted._expand(state, genes=tuning.genes))


def prepare(tuner, X, bulk, proportions):
    """A prepared cohort; what there is to warn of was said, or will be, of the bulk itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return tuner._prepare_cohort(X, bulk, proportions)


def search(tuning, alphas, betas, sizes, score, cv, n_jobs):
    """Solve and score every setting on every split.

    Returns
    -------
    params : dict
        The best setting.
    index : int
        Its position.
    best_score : float
    results : dict of ndarray
        Table of all, as scikit-learn's.
    n_splits : int
    """
    splits, pairs = tuning.splits(cv), list(product(alphas, betas))
    found = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_solve_pair)(split, pair, sizes, score) for pair in pairs for split in splits
    )
    # pairs × splits × sizes × 3 to settings × splits × 3
    table = np.reshape(np.array(found, dtype=float), (len(pairs), len(splits), len(sizes), 3))
    table = table.swapaxes(1, 2).reshape(-1, len(splits), 3)
    settings = [dict(zip(SEARCHED, (*pair, size), strict=True)) for pair in pairs for size in sizes]
    results = _results(settings, *np.moveaxis(table, 2, 0))
    best = choose(results["mean_test_score"], results["converged"])
    return settings[best], best, float(results["mean_test_score"][best]), results, len(splits)


def _solve_pair(split, pair, sizes, score):
    """Score, whether converged, and number of iterations of every size with one pair of alpha and beta."""
    solve = cache(partial(split.solve, *pair))  # a plain run is a setting, and finds the size for "auto"
    rows = []
    for size in sizes:
        try:
            solution = solve(split.usual_size(solve(None).gradient_norm) if size == "auto" else size)
        except ValueError:  # diverged
            rows.append((np.nan, False, 0))
            continue
        rows.append((split.score(solution, score), solution.converged, len(solution.loss)))
    return rows


def _results(settings, scores, converged, n_iter):
    """Table of a search as scikit-learn's, from arrays settings × splits."""
    mean = scores.mean(axis=1)
    return {
        "params": np.array(settings, dtype=object),
        **{f"param_{name}": np.array([row[name] for row in settings], dtype=object) for name in SEARCHED},
        **{f"split{split}_test_score": column for split, column in enumerate(scores.T)},
        "mean_test_score": mean,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": rankdata(np.where(np.isnan(mean), np.inf, -mean), method="min").astype(int),
        "converged": converged.all(axis=1),
        "n_iter": n_iter.max(axis=1).astype(int),
    }


def choose(scores, converged):
    """Position of the best setting; of the best that converges, unless another is clearly better."""
    if np.isnan(scores).all():
        raise ValueError(
            "No setting has a score on the tuning cohort: each diverges, or its true expression does not vary. Try "
            "smaller renorm_sizes or a smaller tao_k ('auto' is safe without renormalisation)."
        )
    best = int(np.nanargmax(scores))
    settled = np.where(converged, scores, np.nan)
    if np.isnan(settled).all():
        return best
    best_settled = int(np.nanargmax(settled))
    behind = scores[best] - scores[best_settled]
    return best_settled if behind <= UNCONVERGED_MARGIN * abs(scores[best]) else best
