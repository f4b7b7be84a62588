"""Fits of many settings to one cohort whose truth is known, and the choice among them."""

from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import rankdata
from sklearn.model_selection import check_cv

from ..baselines import of_arrays
from ..core.optimize.basis import SpanBasis
from ..core.optimize.penalties import MaxL2Norm
from ..deconvolution._l2max import l2max_setting
from ..deconvolution._solving import solve, suited
from ..deconvolution._standing import norms_standing_for, standing_for
from ..progress import task

SEARCHED = ("alpha", "beta", "renorm_size")
# A setting that does not converge is chosen only if it scores better by more than this share.
UNCONVERGED_MARGIN = 0.01


@dataclass(frozen=True)
class Tuning:
    """A tuning cohort, prepared for many settings.

    Attributes
    ----------
    cohort : skenigma.deconvolution.Cohort
    conversion : Conversion
        From the scale of the model to that of the truth.
    bulk : ndarray of shape (n_samples, n_scored)
        On the scale of the truth.
    params : dict
        Parameters of the fits besides those that are searched.
    truth : ndarray of shape (n_samples, n_cell_types, n_scored)
        Expression on ``genes``.
    genes : ndarray of int, shape (n_scored,)
    n_samples : int
        Size of the cohort for which a setting is sought.
    """

    cohort: object
    conversion: object
    bulk: np.ndarray
    params: dict
    truth: np.ndarray
    genes: np.ndarray
    n_samples: int

    def splits(self, cv, n_settings):
        """Cohorts to fit, each a :class:`Split`: this one, or the training samples of each fold."""
        if cv is None:
            return [Split(self, self.cohort, None, n_settings)]
        folds = check_cv(cv).split(self.bulk)
        return [Split(self, self.cohort.select(train), test, n_settings) for train, test in folds]

    def baselines(self, score):
        """Scores of the answers that need no model; NaN where the data have no such answer."""
        reference = self.conversion.reference[:, self.genes]
        answers = of_arrays(self.bulk, reference, self.cohort.proportions)
        return {
            name: np.nan if answer is None else score(self.truth, answer) for name, answer in answers.items()
        }


class Split:
    """Samples of a tuning cohort that are fitted, and those that the fits are scored on.

    Parameters
    ----------
    tuning : Tuning
    cohort : skenigma.deconvolution.Cohort
        What is fitted.
    test : ndarray of int, or None
        Samples that are scored; None: those that were fitted.
    n_settings : int, default=1
        Number of settings to be solved.
    """

    def __init__(self, tuning, cohort, test, n_settings=1):
        self.tuning, self.cohort, self.test = tuning, cohort, test
        basis, penalty = SpanBasis(cohort.bulk, cohort.reference), MaxL2Norm(1.0)
        self.basis = suited(basis, tuning.params["solver"], penalty, n_runs=n_settings)
        self.factor = tuning.n_samples / len(cohort.bulk)

    def solve(self, alpha, beta, renorm_size):
        """Solution with one setting, which means what it would in the cohort sought for."""
        searched = {"alpha": alpha, "beta": beta, "renorm_size": renorm_size}
        params = standing_for(self.factor, {**self.tuning.params, **searched})
        proportions = self.cohort.proportions
        setting = l2max_setting(self.basis, proportions, self.cohort.bulk.shape, **params)
        return solve(setting, self.basis, proportions, lambda delta: False)

    def usual_size(self, gradient_norm):
        """What ``renorm_size="auto"`` comes to in the cohort sought for, given the norms of a plain run."""
        norms = gradient_norm * norms_standing_for(self.factor)
        return float(norms.mean()) if norms.any() else None

    def score(self, solution, score):
        """Score of what a solver found."""
        tuning, truth = self.tuning, self.tuning.truth
        if self.test is None:
            state = solution.state(self.cohort.bulk)
        else:
            unseen, truth = tuning.cohort.select(self.test), truth[self.test]
            theta = unseen.proportions.astype(np.float64, copy=False)
            state = solution.fitted_map().replay(unseen.bulk, theta)
        # a cell type that these samples lack has the profile for an answer
        absent = ~np.any(self.cohort.proportions > 0, axis=0)
        conversion = replace(tuning.conversion, absent=absent)
        return score(truth, conversion.values(state, genes=tuning.genes))


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
    pairs = list(product(alphas, betas))
    splits = tuning.splits(cv, len(pairs) * len(sizes))
    jobs = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    solved = jobs(delayed(_solve_pair)(split, pair, sizes, score) for pair in pairs for split in splits)
    with task("settings of alpha and beta", len(pairs) * len(splits)) as count:
        found = []
        for rows in solved:
            found.append(rows)
            count()
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
        except FloatingPointError:  # diverged
            rows.append((np.nan, False, 0))
            continue
        rows.append((split.score(solution, score), solution.converged, len(solution.delta)))
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
    among = np.where(converged, scores, np.nan)
    if np.isnan(among).all():
        return best
    best_converged = int(np.nanargmax(among))
    behind = scores[best] - scores[best_converged]
    return best_converged if behind <= UNCONVERGED_MARGIN * abs(scores[best]) else best
