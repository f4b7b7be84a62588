"""Choice of hyper-parameters by recovery on a cohort whose truth is known and which resembles the bulk."""

import copy
import warnings
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.optimize import nnls
from scipy.stats import rankdata
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch, check_array, check_random_state

from ._validation import (
    Integral,
    StrOptions,
    check_profiles,
    check_proportions,
    column_names,
    fit_context,
    match_genes,
    row_names,
)
from .deconvolution import L2MaxDeconvolver
from .metrics import recovery_scorer
from .reference import make_pseudobulk, make_reference

__all__ = ["L2MaxDeconvolverCV", "simulate_like"]

SEARCHED = ("alpha", "beta", "renorm_size")
OUTCOME = ("best_params_", "best_index_", "best_score_", "cv_results_", "baseline_scores_", "n_splits_")
# Settings are scored on this many genes: the mean over them hardly differs from that over all.
SCORED_GENES = 500
# A setting that does not converge is chosen only if it scores better by more than this share.
UNCONVERGED_MARGIN = 0.01
# Iterations after which a setting shows what it is good for, converged or not.
TUNING_ITERATIONS = 75
# Cells per pseudo-bulk sample: few, so that the expression of one cell type differs between samples.
MIXED_CELLS = 200
# Share of the cells of each type that the reference of the pseudo-bulk is made of.
REFERENCE_SHARE = 0.5
# Bounds of the share of the variation that is the cell types' own, and what it is where the bulk cannot tell.
OWN_SHARE, UNKNOWN_SHARE = (0.1, 0.9), 0.5
# Deviations from a profile that a simulated cell type may show, as a fold.
LARGEST_FOLD = 20.0
# What is added before logarithms, as a share of the mean of the bulk.
OFFSET = 0.01


def simulate_like(bulk, reference, proportions, *, random_state=None):
    """Simulate a cohort that resembles a bulk, with the cell-type-specific expression known.

    It has as many samples and genes as ``bulk``, the same proportions, gene by gene the same mean and about the
    same variance, and what genes vary together in the bulk varies together in its cell types: the deviations of
    the bulk's samples from the mixture of the profiles are dealt out anew.

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
    names, samples = column_names(bulk, "bulk"), row_names(bulk)
    bulk = check_array(bulk, dtype=np.float64, ensure_min_samples=2, input_name="bulk")
    profiles = check_profiles(reference, np.float64)
    in_bulk, in_reference = match_genes(profiles, names, bulk.shape)
    bulk, reference = bulk[:, in_bulk], profiles.values[:, in_reference]
    proportions = check_proportions(proportions, profiles.cell_types, len(bulk), samples)
    model = _Deviations(bulk, reference, proportions)
    mixture, cse = model.draw(check_random_state(random_state), slice(None))
    return Bunch(bulk=mixture, reference=reference, proportions=proportions, cse=cse, own_share=model.share)


class _Deviations:
    """Deviations of bulk samples from the mixture of the profiles, to be dealt out anew; see :func:`simulate_like`.

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

    def draw(self, rng, genes):
        """A bulk, and the expression of every cell type in it on ``genes``."""
        mixture = np.zeros_like(self.centred)
        cse = np.empty((*self.proportions.shape, len(self.mean[genes])))
        for k, profile in enumerate(self.reference):
            deviation = self.mean + np.sqrt(self.share / self.weight) * rng.permutation(self.centred)
            if self.folds:
                limit = np.log(LARGEST_FOLD)
                expression = profile * np.exp(np.clip(deviation, -limit, limit))
            else:
                expression = profile + deviation
            cse[:, k] = expression[:, genes]
            mixture += self.proportions[:, [k]] * expression
        noise = np.sqrt(1 - self.share) * rng.permutation(self.centred)
        return (mixture * np.exp(noise) if self.folds else mixture + noise), cse


def _own_share(squares, weights, weight):
    """Share of every gene's variance that is the cell types' own: squares = within · weights + noise."""
    design = np.array([[np.vdot(weights, weights), weights.sum()], [weights.sum(), weights.size]])
    # the normal equations: two unknowns, as many equations as there are entries of the bulk
    within, noise = nnls(design, np.array([np.vdot(weights, squares), squares.sum()]))[0]
    total = within * weight + noise
    known = total > 0 if np.ptp(weights) > np.sqrt(np.finfo(float).eps) else np.zeros(len(weight), dtype=bool)
    share = np.divide(within * weight, total, out=np.full_like(weight, UNKNOWN_SHARE), where=known)
    return np.clip(share, *OWN_SHARE)


class L2MaxDeconvolverCV(L2MaxDeconvolver):
    """Maximum-L2-norm model whose alpha, beta and renorm_size are chosen by recovery of a known truth.

    No bulk tells how well its cell-type-specific expression is recovered. So the settings of a grid are fitted to a
    *tuning cohort*, whose truth is known and which resembles the bulk: a given one, pseudo-bulk mixed from the
    reference's cells, or one simulated from bulk and reference (:func:`simulate_like`). The setting that recovers it
    best is fitted to the bulk.

    Parameters
    ----------
    reference : DataFrame or array-like of shape (n_cell_types, n_genes), default=None
        Expression profile of every cell type, see :class:`~skenigma.L2MaxDeconvolver`. None makes it of ``cells``, or
        learns ``n_components`` profiles from X.
    alphas : array-like of float, default=(0.1, 0.5)
        Values of alpha to try.
    betas : array-like of float, default=(10.0, 20.0, 50.0, 200.0)
        Values of beta to try.
    renorm_sizes : array-like of float, "auto" or None, default=(None, "auto")
        Values of renorm_size to try; numbers belong to data of one size and scale, so none are tried by default. Only
        used by ``solver="proximal"``.
    cells : AnnData, DataFrame, ndarray or sparse matrix of shape (n_cells, n_genes), default=None
        Annotated cells to mix the tuning cohort of, see :func:`~skenigma.reference.make_pseudobulk`, in the
        proportions found in X. Half of them make its reference; it is scaled to the size of X.
    labels : str or array-like of shape (n_cells,), default=None
        Cell types of the cells: the names in ``reference``.
    tuning_cohort : dict or Bunch, default=None
        A tuning cohort of your own: ``bulk`` and the truth ``cse`` (n_samples, n_cell_types, n_genes), and if it has
        its own ``reference`` or ``proportions``, these. It should have about as many samples as X, and must have its
        scale. Takes the place of ``cells``.
    scoring : {"per_gene", "per_sample", "neg_rmse"}, scorer or callable, default="per_gene"
        What to choose by: see :func:`~skenigma.metrics.recovery_scorer`, or what that returns, or a function
        ``score(cse_true, cse_pred)``, larger is better. Up to 500 evenly spaced genes are scored.
    cv : int, cross-validation generator or iterable, default=None
        None fits and scores the whole tuning cohort, which is what will be done to X: no fit ever sees the truth.
        Otherwise settings are scored on samples that they were not fitted to; mind that the fits then have fewer
        samples than X.
    n_jobs : int, default=None
        Number of threads over pairs of alpha and beta.
    random_state : int, RandomState instance or None, default=None
        Of the tuning cohort. Pass an int for the same choice on every call.
    epsilon : float, default=1e-3
        When to stop; this and what follows is as in :class:`~skenigma.L2MaxDeconvolver`.
    tao_k : float or "auto", default=1.0
        Step length of ``solver="proximal"``.
    max_iter : int, default=1000
        Largest number of iterations.
    gamma : float, default=2.0
        Penalty parameter of ``solver="admm"``.
    solver : {"proximal", "admm", "accelerated"}, default="proximal"
        How the objective is minimised.
    n_components : int, default=2
        Number of profiles to learn if there is neither ``reference`` nor ``cells``.
    proportion_estimator : transformer, default=None
        Estimates the proportions where none are given.
    preprocess : {None, "sqrt", "log"}, default=None
        Scale on which bulk and reference enter the model.
    positive : bool or "auto", default="auto"
        Whether to clip negative expression to 0 in the end.
    normalize : {None, "frac", "pc", "quantile"}, default=None
        What to take out of the expression of each cell type in the end. What is scored is the expression before that.
    materialize : bool, default=True
        Whether ``fit`` builds ``cse_``.
    output_cell_types : array-like of str, default=None
        Cell types that ``transform`` returns.
    verbose : int, default=0
        1 prints the trace of the iteration in the published form.

    Attributes
    ----------
    best_params_ : dict
        Chosen ``alpha``, ``beta`` and ``renorm_size``.
    best_score_ : float
        Their score on the tuning cohort.
    best_index_ : int
        Their position in ``cv_results_``.
    cv_results_ : dict of ndarray
        As of :class:`~sklearn.model_selection.GridSearchCV`, to be made a DataFrame: ``params``, ``param_alpha``,
        ``param_beta``, ``param_renorm_size``, ``split0_test_score`` and so on, ``mean_test_score``,
        ``std_test_score``, ``rank_test_score``, and ``converged`` and ``n_iter`` (the largest of the splits). The
        score of a setting that diverges is NaN.
    baseline_scores_ : dict
        Scores on the tuning cohort of two answers that need no model: ``"bulk itself"`` in the place of every cell
        type, and ``"reference itself"`` in the place of every sample. If ``best_score_`` is not above them, the model
        adds nothing by this measure.
    best_estimator_ : L2MaxDeconvolver
        The same fit as an estimator without a grid.
    n_splits_ : int
        Number of splits.

    Raises
    ------
    ValueError
        If X, reference, cells or the tuning cohort do not fit together, or every setting diverges.

    See Also
    --------
    simulate_like : The tuning cohort without cells.
    skenigma.metrics.recovery_scorer : To search other parameters with scikit-learn's own tools.

    Notes
    -----
    A fitted estimator has also all attributes of a fitted :class:`~skenigma.L2MaxDeconvolver`, ``cse_``,
    ``proportions_`` and so on, and is one.

    The basis and the proportions of either cohort are computed once for the whole grid, a plain run also serves to
    find the size of ``renorm_size="auto"``, and every run on the tuning cohort ends after 75 iterations. A setting
    that has not converged by then is chosen only if it scores better by more than 1 % than every one that has: it is
    slow, or does not settle at all, so that its result depends on when it is stopped.

    The tuning cohort's proportions are estimated from it, as those of X were. If proportions are given to ``fit``, or
    there is a ``proportion_estimator`` of your own, its true ones are used.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolverCV
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = L2MaxDeconvolverCV(cohort.reference, alphas=[0.1, 0.9], betas=[50], random_state=0)
    >>> model.fit(cohort.bulk).best_params_
    {'alpha': 0.1, 'beta': 50, 'renorm_size': 'auto'}
    >>> model.cse_.shape
    (40, 5, 200)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **{
            name: constraint
            for name, constraint in L2MaxDeconvolver._parameter_constraints.items()
            if name not in SEARCHED
        },
        "alphas": ["array-like"],
        "betas": ["array-like"],
        "renorm_sizes": ["array-like"],
        "cells": "no_validation",
        "labels": "no_validation",
        "tuning_cohort": "no_validation",
        "scoring": [StrOptions({"per_gene", "per_sample", "neg_rmse"}), callable],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        reference=None,
        *,
        alphas=(0.1, 0.5),
        betas=(10.0, 20.0, 50.0, 200.0),
        renorm_sizes=(None, "auto"),
        cells=None,
        labels=None,
        tuning_cohort=None,
        scoring="per_gene",
        cv=None,
        n_jobs=None,
        random_state=None,
        epsilon=1e-3,
        tao_k=1.0,
        max_iter=1000,
        gamma=2.0,
        solver="proximal",
        n_components=2,
        proportion_estimator=None,
        preprocess=None,
        positive="auto",
        normalize=None,
        materialize=True,
        output_cell_types=None,
        verbose=0,
    ):
        self.reference = reference
        self.alphas = alphas
        self.betas = betas
        self.renorm_sizes = renorm_sizes
        self.cells = cells
        self.labels = labels
        self.tuning_cohort = tuning_cohort
        self.scoring = scoring
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.epsilon = epsilon
        self.tao_k = tao_k
        self.max_iter = max_iter
        self.gamma = gamma
        self.solver = solver
        self.n_components = n_components
        self.proportion_estimator = proportion_estimator
        self.preprocess = preprocess
        self.positive = positive
        self.normalize = normalize
        self.materialize = materialize
        self.output_cell_types = output_cell_types
        self.verbose = verbose

    # what the flow of a fit asks for, once it is chosen
    alpha = property(lambda self: self.best_params_["alpha"])
    beta = property(lambda self: self.best_params_["beta"])
    renorm_size = property(lambda self: self.best_params_["renorm_size"])

    @property
    def best_estimator_(self):
        """The fit as a :class:`~skenigma.L2MaxDeconvolver`, which shares its arrays."""
        estimator = L2MaxDeconvolver(self.reference, **self._fixed(), **self.best_params_)
        names = {*vars(estimator), *self.get_params(deep=False), *OUTCOME}
        vars(estimator).update({name: value for name, value in vars(self).items() if name not in names})
        return estimator

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, proportions=None):
        """Choose among the grid on the tuning cohort, and fit the choice to X.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, samples as rows.
        y : Ignored
            Present for API consistency; in a Pipeline it is the phenotype.
        proportions : array-like or DataFrame of shape (n_samples, n_cell_types), default=None
            Known proportions, rows summing to 1 (up to 0.05, then used as given). None estimates them
            with ``proportion_estimator``.

        Returns
        -------
        self : object
            Fitted estimator.
        """
        pairs, sizes = self._grid()
        bulk = self._fit_genes(X, min_samples=2)
        cohort = self._prepare_cohort(X, bulk, proportions)
        known = proportions is not None or self.proportion_estimator is not None
        tuning = self._tuning(bulk, known, check_random_state(self.random_state))
        outcome = _search(tuning, pairs, sizes, self._score_function(), self.cv, self.n_jobs)
        for name, value in zip(OUTCOME, outcome, strict=True):
            setattr(self, name, value)
        return self._fit_prepared(X, cohort)

    def _fixed(self):
        """Parameters of every fit besides its reference and what is searched."""
        shared = L2MaxDeconvolver().get_params(deep=False).keys() - {*SEARCHED, "reference"}
        return {name: getattr(self, name) for name in shared}

    def _grid(self):
        """Pairs of alpha and beta, and sizes; each setting checked."""
        sizes = list(self.renorm_sizes) if self.solver == "proximal" else [None]
        lists = {"alphas": list(self.alphas), "betas": list(self.betas), "renorm_sizes": sizes}
        for name, values in lists.items():
            if not values:
                raise ValueError(f"{name} is empty: give at least one value to try.")
        for alpha, beta, size in product(*lists.values()):
            L2MaxDeconvolver(alpha=alpha, beta=beta, renorm_size=size)._validate_params()
        return list(product(lists["alphas"], lists["betas"])), sizes

    def _score_function(self):
        scoring = recovery_scorer(self.scoring) if isinstance(self.scoring, str) else self.scoring
        return getattr(scoring, "score", scoring)

    def _learn_reference(self, bulk, names):
        if self.cells is None:
            return super()._learn_reference(bulk, names)
        return make_reference(self.cells, self.labels)

    def _tuning(self, bulk, known, rng):
        """The tuning cohort, prepared."""
        if self.tuning_cohort is not None:
            source = self._given_cohort()
        elif self.cells is not None:
            source = self._mixed_cohort(rng, np.sqrt(np.mean(np.square(bulk))))
        else:
            source = self._simulated_cohort(bulk, rng)
        fixed = {**self._fixed(), "proportion_estimator": None, "output_cell_types": None, "verbose": 0}
        fixed["max_iter"] = min(self.max_iter, TUNING_ITERATIONS)
        tuner = L2MaxDeconvolver(source.reference, **fixed)
        aligned = tuner._fit_genes(source.bulk, min_samples=2)
        genes = _spaced(aligned.shape[1])
        truth = source.cse
        if "scored" not in source:
            truth = np.asarray(truth)[:, :, tuner._align(np.arange(truth.shape[2])[None])[0][genes]]
        prepared = _prepare(tuner, source.bulk, aligned, source.get("proportions") if known else None)
        return _Tuning(tuner, prepared, aligned, truth, genes)

    def _simulated_cohort(self, bulk, rng):
        """A cohort like the bulk; its truth on the genes to be scored only."""
        exact = (table.astype(np.float64, copy=False) for table in (bulk, self.reference_, self.proportions_))
        mixed, truth = _Deviations(*exact).draw(rng, _spaced(bulk.shape[1]))
        reference = pd.DataFrame(self.reference_, index=self.cell_types_)
        mixed = mixed.astype(bulk.dtype, copy=False)
        return Bunch(bulk=mixed, reference=reference, proportions=self.proportions_, cse=truth, scored=True)

    def _mixed_cohort(self, rng, size):
        """Pseudo-bulk of the cells in the proportions found, scaled to the size of the bulk."""
        if self.labels is None:
            raise ValueError("cells need labels: the cell type of each, by the names in the reference.")
        proportions = pd.DataFrame(self.proportions_, columns=self.cell_types_)
        cohort = make_pseudobulk(
            self.cells,
            self.labels,
            n_cells=MIXED_CELLS,
            proportions=proportions,
            reference_share=REFERENCE_SHARE,
            random_state=rng,
        )
        kept = np.arange(len(cohort.gene_names))
        if hasattr(self, "feature_names_in_"):
            kept = pd.Index(cohort.gene_names).get_indexer(self.gene_names_)
            kept = kept[kept >= 0]
        if not len(kept):
            raise ValueError("cells share no gene with X and the reference: name their genes alike.")
        bulk, reference = cohort.bulk.iloc[:, kept], cohort.reference.iloc[:, kept]
        scale = size / np.sqrt(np.mean(np.square(bulk.to_numpy())))
        cohort.update(bulk=bulk * scale, reference=reference * scale, cse=cohort.cse[:, :, kept] * scale)
        return cohort

    def _given_cohort(self):
        """The user's tuning cohort, with a reference."""
        cohort = Bunch(**self.tuning_cohort)
        for name in ("bulk", "cse"):
            if cohort.get(name) is None:
                raise ValueError(f"tuning_cohort has no {name}; it needs bulk and cse, the truth.")
        if cohort.get("reference") is None:
            genes = self.gene_names_ if hasattr(self, "feature_names_in_") else None
            cohort.reference = pd.DataFrame(self.reference_, index=self.cell_types_, columns=genes)
        expected = (len(cohort.bulk), len(cohort.reference), np.shape(cohort.bulk)[1])
        if np.shape(cohort.cse) != expected:
            raise ValueError(
                f"tuning_cohort's cse has shape {np.shape(cohort.cse)}, but its bulk and reference need {expected}: "
                f"samples × cell types × genes."
            )
        return cohort


def _spaced(n_genes):
    """Positions of the genes to score."""
    return np.unique(np.linspace(0, n_genes - 1, min(n_genes, SCORED_GENES)).astype(int))


class _Tuning:
    """A tuning cohort, prepared for many settings.

    Parameters
    ----------
    tuner : L2MaxDeconvolver
        Knows genes, reference and proportions, but no setting.
    prepared : PreparedCohort
    bulk : ndarray of shape (n_samples, n_genes)
    truth : ndarray of shape (n_samples, n_cell_types, n_scored)
        Expression on ``genes``.
    genes : ndarray of int, shape (n_scored,)
    """

    def __init__(self, tuner, prepared, bulk, truth, genes):
        self.tuner, self.prepared, self.bulk, self.truth, self.genes = tuner, prepared, bulk, truth, genes

    def splits(self, cv):
        """What to fit, prepared, and which samples to score it on; None: those that were fitted."""
        if cv is None:
            return [(self.tuner, self.prepared, None)]
        return [self._fold(train, test) for train, test in check_cv(cv).split(self.bulk)]

    def _fold(self, train, test):
        fold, bulk = copy.copy(self.tuner), self.bulk[train]
        return fold, _prepare(fold, bulk, bulk, self.prepared.proportions[train]), test

    def score(self, fold, prepared, test, solution, score):
        """Score of what a solver found in one split."""
        if test is None:
            found = fold._expand(solution.state(prepared.bulk), genes=self.genes)
            return score(self.truth, found)
        fold = copy.copy(fold)
        fold._fitted_map = solution.fitted_map()
        state = fold._replay(self.prepared.bulk[test], self.prepared.proportions[test])
        return score(self.truth[test], fold._expand(state, genes=self.genes))

    def baselines(self, score):
        """Scores of the answers that need no model."""
        answers = {
            "bulk itself": self.bulk[:, None, self.genes],
            "reference itself": self.tuner.reference_[None, :, self.genes],
        }
        return {
            name: score(self.truth, np.broadcast_to(answer, self.truth.shape))
            for name, answer in answers.items()
        }


def _prepare(tuner, X, bulk, proportions):
    """A prepared cohort; what there is to warn of was said, or will be, of the bulk itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return tuner._prepare_cohort(X, bulk, proportions)


def _search(tuning, pairs, sizes, score, cv, n_jobs):
    """Solve and score every setting on every split; the values of ``OUTCOME``."""
    splits = tuning.splits(cv)
    found = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_solve_pair)(tuning, split, pair, sizes, score) for pair in pairs for split in splits
    )
    # pairs × splits × sizes × 3 to settings × splits × 3
    table = np.reshape(np.array(found, dtype=float), (len(pairs), len(splits), len(sizes), 3))
    table = table.swapaxes(1, 2).reshape(-1, len(splits), 3)
    settings = [dict(zip(SEARCHED, (*pair, size), strict=True)) for pair in pairs for size in sizes]
    results = _results(settings, *np.moveaxis(table, 2, 0))
    best = _choose(results["mean_test_score"], results["converged"])
    best_score = float(results["mean_test_score"][best])
    return settings[best], best, best_score, results, tuning.baselines(score), len(splits)


def _solve_pair(tuning, split, pair, sizes, score):
    """Score, whether converged, and number of iterations of every size with one pair of alpha and beta."""
    fold, prepared, _ = split
    estimator = copy.copy(fold)
    estimator.alpha, estimator.beta = pair
    problem, settings = estimator._problem(prepared)

    @cache  # a plain run is a setting, and finds the size for "auto"
    def run(settings):
        return estimator._run(problem, prepared.basis, settings, lambda loss, delta: False)

    rows = []
    for size in sizes:
        estimator.renorm_size = size
        try:
            solution = run(estimator._prepare(settings, run))
        except ValueError:  # diverged
            rows.append((np.nan, False, 0))
            continue
        found = tuning.score(*split, solution, score)
        rows.append((found, solution.converged, len(solution.loss)))
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


def _choose(scores, converged):
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
