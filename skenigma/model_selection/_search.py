"""Choice of hyper-parameters by recovery on a cohort whose truth is known and which resembles the bulk."""

from itertools import product
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from .._parameters import documented, set_parameters
from .._transformers import reference_frame
from ..checks.validation import StrOptions
from ..core.optimize.registry import SOLVERS
from ..datasets._simulation import Deviations, simulate_like
from ..deconvolution import L2MaxDeconvolver
from ..deconvolution._flow import prepare, share_fit
from ..metrics import recovery_scorer
from ..reference import make_pseudobulk, make_reference
from ._tuning import SEARCHED, Tuning, search

__all__ = ["L2MaxDeconvolverCV", "simulate_like"]

OUTCOME = ("best_params_", "best_index_", "best_score_", "cv_results_", "n_splits_", "baseline_scores_")
# Settings are scored on this many genes: the mean over them hardly differs from that over all.
SCORED_GENES = 500
# Samples of a tuning cohort that is made, if the bulk has more: each stands for several of them.
TUNING_SAMPLES = 32
# Iterations after which a setting shows what it is good for, converged or not.
TUNING_ITERATIONS = 75
# Cells per pseudo-bulk sample: few, so that the expression of one cell type differs between samples.
MIXED_CELLS = 200
# Share of the cells of each type that the reference of the pseudo-bulk is made of.
REFERENCE_SHARE = 0.5


@documented
class L2MaxDeconvolverCV(L2MaxDeconvolver):
    """Maximum-L2-norm model whose alpha, beta and renorm_size are chosen by recovery of a known truth.

    The bulk does not tell how well its cell-type-specific expression is recovered. So the settings of a grid
    are fitted to a *tuning cohort*, whose truth is known and which resembles the bulk: a given one,
    pseudo-bulk mixed from the reference's cells, or one simulated from bulk and reference
    (:func:`simulate_like`). The setting that recovers it best is fitted to the bulk.

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
        its own ``reference`` or ``proportions``, these. It must have the scale of X, but not its size: 32 samples are
        enough. Takes the place of ``cells``.
    scoring : {"per_gene", "per_sample", "neg_rmse"}, scorer or callable, default="per_gene"
        What to choose by: see :func:`~skenigma.metrics.recovery_scorer`, or what that returns, or a function
        ``score(cse_true, cse_pred)``, larger is better. Up to 500 evenly spaced genes are scored.
    cv : int, cross-validation generator or iterable, default=None
        None fits and scores the whole tuning cohort, which is what will be done to X: no fit ever sees the truth.
        Otherwise settings are scored on samples that they were not fitted to.
    n_jobs : int, default=None
        Number of threads over pairs of alpha and beta.
    random_state : int, RandomState instance or None, default=None
        Of the tuning cohort. Pass an int for the same choice on every call.
    epsilon : float, default=1e-3
        When to stop, as in :class:`~skenigma.L2MaxDeconvolver`.
    {tao_k}
    {max_iter}
    gamma : float, default=2.0
        Penalty parameter of ``solver="admm"``.
    solver : {"proximal", "admm", "admm_fast", "accelerated"}, default="proximal"
        How the objective is minimised.
    {common}
    verbose : int, default=0
        1 prints the trace of the iteration in the published form.
    {init}
    {calibrate}
    {n_samples_of_settings}

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
        Scores on the tuning cohort of three answers that need no model: ``"bulk itself"`` in place of every cell
        type, ``"reference itself"`` in place of every sample, and ``"scaled reference"``, each gene of the
        reference scaled to the bulk (NaN where bulk or reference hold negative values); see
        :mod:`skenigma.baselines`. If ``best_score_`` is not above them, the model adds nothing by this measure.
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
    A fitted estimator is an :class:`~skenigma.L2MaxDeconvolver` with all its attributes, ``cse_``,
    ``proportions_`` and so on.

    The basis and the proportions of either cohort are computed once for the whole grid, a plain run also
    serves to find the size of ``renorm_size="auto"``, and every run on the tuning cohort ends after 75
    iterations. A setting that has not converged by then is chosen only if it scores better by more than 1 %
    than every one that has: it converges slowly, or not at all, so that its result depends on when it is
    stopped.

    What a setting means depends on the number of samples. A tuning cohort that is made for a larger bulk has
    32 samples, like 32 of its own drawn at random (all, with ``cv``), and every fit weights each of them so
    that together they count as many as the samples in X: settings have the same meaning in both, and the
    search costs little more for a large bulk than for a small one.

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
        self, reference=None, *, alphas=(0.1, 0.5), betas=(10.0, 20.0, 50.0, 200.0), renorm_sizes=(None, "auto"),
        cells=None, labels=None, tuning_cohort=None, scoring="per_gene", cv=None, n_jobs=None, random_state=None,
        epsilon=1e-3, tao_k=1.0, max_iter=1000, gamma=2.0, solver="proximal", n_components=2,
        proportion_estimator=None, preprocess=None, positive="auto", normalize=None, materialize=True,
        output_cell_types=None, verbose=0, init=None, calibrate=False, n_samples_of_settings=None,
    ):  # fmt: skip
        set_parameters(self, locals())

    _instead_of_rows = (
        "Search on some of the samples, X[:500], and fit L2MaxDeconvolver with best_params_ to all."
    )

    def _opened(self, X):
        # a memory map is an array as well
        return X if isinstance(X, np.ndarray) else super()._opened(X)

    # what the flow of a fit asks for, once it is chosen
    alpha = property(lambda self: self.best_params_["alpha"])
    beta = property(lambda self: self.best_params_["beta"])
    renorm_size = property(lambda self: self.best_params_["renorm_size"])

    @property
    def best_estimator_(self):
        """The fit as a :class:`~skenigma.L2MaxDeconvolver`, which shares its arrays."""
        return share_fit(self, L2MaxDeconvolver(self.reference, **self._fixed(), **self.best_params_))

    def _fit_aligned(self, X, bulk, proportions):
        """Choose among the grid on the tuning cohort, and fit the choice to X."""
        grid = self._grid()
        prepared = self._prepare(X, bulk, proportions)
        known = proportions is not None or self.proportion_estimator is not None
        tuning = self._tuning(bulk, known, check_random_state(self.random_state))
        score = self._score_function()
        outcome = *search(tuning, *grid, score, self.cv, self.n_jobs), tuning.baselines(score)
        for name, value in zip(OUTCOME, outcome, strict=True):
            setattr(self, name, value)
        return self._fit_prepared(*prepared)

    def _fixed(self):
        """Parameters of every fit besides its reference and what is searched."""
        shared = L2MaxDeconvolver().get_params(deep=False).keys() - {*SEARCHED, "reference"}
        return {name: getattr(self, name) for name in shared}

    def _grid(self):
        """Values of alpha, beta and size to try; each setting checked."""
        sizes = list(self.renorm_sizes) if SOLVERS[self.solver].rescales else [None]
        lists = {"alphas": list(self.alphas), "betas": list(self.betas), "renorm_sizes": sizes}
        for name, values in lists.items():
            if not values:
                raise ValueError(f"{name} is empty: give at least one value to try.")
        for alpha, beta, size in product(*lists.values()):
            L2MaxDeconvolver(alpha=alpha, beta=beta, renorm_size=size)._validate_params()
        return lists.values()

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
        cohort, conversion, used = prepare(tuner, source.bulk, source.get("proportions") if known else None)
        genes = _spaced(cohort.bulk.shape[1])
        truth = source.cse
        if "scored" not in source:
            truth = np.asarray(truth)[:, :, used[genes]]
        mixed = np.asarray(source.bulk)[:, used[genes]]
        params = {name: fixed[name] for name in ("epsilon", "tao_k", "max_iter", "gamma", "solver")}
        # the grid means what it would in a cohort of this size
        n_samples = self.n_samples_of_settings or len(bulk)
        return Tuning(cohort, conversion, mixed, params, truth, genes, n_samples)

    def _tuning_samples(self, rng):
        """Samples of the bulk like which those of the tuning cohort are made."""
        n_samples = len(self.proportions_)
        if n_samples <= TUNING_SAMPLES or self.cv is not None:
            return np.arange(n_samples)
        return rng.choice(n_samples, TUNING_SAMPLES, replace=False)

    def _simulated_cohort(self, bulk, rng):
        """A cohort like the bulk; its truth on the genes to be scored only."""
        exact = (table.astype(np.float64, copy=False) for table in (bulk, self.reference_, self.proportions_))
        samples = self._tuning_samples(rng)
        mixed, truth = Deviations(*exact).draw(rng, samples, _spaced(bulk.shape[1]))
        reference = pd.DataFrame(self.reference_, index=self.cell_types_)
        mixed = mixed.astype(bulk.dtype, copy=False)
        return Bunch(
            bulk=mixed, reference=reference, proportions=self.proportions_[samples], cse=truth, scored=True
        )

    def _mixed_cohort(self, rng, size):
        """Pseudo-bulk of the cells in the proportions found, scaled to the size of the bulk."""
        if self.labels is None:
            raise ValueError("cells need labels: the cell type of each, by the names in the reference.")
        proportions = pd.DataFrame(self.proportions_[self._tuning_samples(rng)], columns=self.cell_types_)
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
            raise ValueError("cells share no gene with X and the reference: use the same gene names.")
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
            cohort.reference = reference_frame(self)
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
