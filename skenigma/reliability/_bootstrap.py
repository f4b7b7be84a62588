"""Standard errors of a model's mean expression, by resampling the samples of its cohort."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils import check_random_state, check_scalar

from .._transformers import reference_frame
from .._typing import Estimator, Seed, Table
from ..checks.validation import check_deconvolver
from ..cohort import is_lazy, open_bulk
from ..progress import task

# Parameters that a fit may find by itself, and a resampled one takes over.
FOUND = ("beta", "gamma", "epsilon", "tao_k", "renorm_size")


@dataclass(frozen=True)
class BootstrapReliability:
    """What :func:`bootstrap_reliability` found; tables are cell types × genes.

    Parameters
    ----------
    mean : DataFrame
        Mean expression over the samples of the cohort, by the fitted model.
    standard_error : DataFrame
        Its standard deviation over the resampled cohorts, in the units of the expression.
    stability : DataFrame
        Share of the resampled cohorts in which the expression lies on the same side of the mean of the other cell
        types as in the cohort: 1 always, 0.5 as by a coin. NaN with a single cell type.
    n_bootstraps, n_converged : int
        Number of resampled cohorts, and of those whose fit converged.
    """

    mean: pd.DataFrame
    standard_error: pd.DataFrame
    stability: pd.DataFrame
    n_bootstraps: int
    n_converged: int

    def to_frame(self):
        """All three tables as one, with a row per cell type and gene.

        Returns
        -------
        table : DataFrame of n_cell_types × n_genes rows
            Columns ``cell_type``, ``gene``, ``mean``, ``standard_error``, ``stability``.
        """
        tables = {name: getattr(self, name) for name in ("mean", "standard_error", "stability")}
        columns = {name: table.to_numpy().ravel() for name, table in tables.items()}
        n_cell_types, n_genes = self.mean.shape
        cell_types, genes = np.repeat(self.mean.index, n_genes), np.tile(self.mean.columns, n_cell_types)
        return pd.DataFrame({"cell_type": cell_types, "gene": genes, **columns})


def bootstrap_reliability(
    model: Estimator,
    X: Table,
    *,
    n_bootstraps: int = 100,
    reestimate_proportions: bool = False,
    n_jobs: int | None = None,
    random_state: Seed = None,
    progress: Callable | None = None,
) -> BootstrapReliability:
    """Standard error and stability of every cell type's mean expression, by resampling the samples of the cohort.

    The model is fitted to cohorts of as many samples, drawn from X with replacement, and the mean of its expression
    over the samples is recorded for every cell type and gene.

    Parameters
    ----------
    model : fitted deconvolver
        :class:`~skenigma.L2MaxDeconvolver`, :class:`~skenigma.TraceNormDeconvolver` or
        :class:`~skenigma.L2MaxDeconvolverCV`. It is not changed.
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk that it was fitted to. What is not in memory is read into it, for any samples are drawn from it.
    n_bootstraps : int, default=100
        Number of resampled cohorts. A standard error is known to about 1 / sqrt(2 * n_bootstraps) of itself: 7 %.
    reestimate_proportions : bool, default=False
        Whether to estimate the proportions of every resampled cohort anew. False resamples those of the model; as
        each sample's are estimated by itself, that is the same for the default estimator.
    n_jobs : int, default=None
        Number of jobs over cohorts, by joblib.
    random_state : int, RandomState instance or None, default=None
        Of the drawn samples. Pass an int for the same cohorts on every call, whatever ``n_jobs``.
    progress : callable, default=None
        Called as ``progress(done, n_bootstraps)`` after each cohort, in the calling process.

    Returns
    -------
    reliability : BootstrapReliability
        Tables ``mean``, ``standard_error`` and ``stability``, cell types × genes.

    Raises
    ------
    ValueError
        If X has another number of samples than the model was fitted to.

    See Also
    --------
    gene_significance : Whether a cell type contributes to a gene's bulk at all.

    Notes
    -----
    What the model found by itself ("auto" parameters, learned profiles, the choice of
    :class:`~skenigma.L2MaxDeconvolverCV`) is kept, so errors are those of the expression given these settings
    and the reference. Both models pull the mean of a cell type towards its reference profile. The standard
    error measures how much the estimate scatters, not its bias from the reference: it is small even if the
    profile is wrong, and if the reference dominates, as with renormalised gradients, nearly every gene is
    stable.

    Memory: a few tables of cell types × genes, and per job one cell type's samples × genes.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.reliability import bootstrap_reliability
    >>> cohort = make_cohort(n_samples=40, n_genes=50, n_cell_types=3, random_state=0, as_frame=True)
    >>> model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
    >>> found = bootstrap_reliability(model, cohort.bulk, n_bootstraps=20, random_state=0)
    >>> found.standard_error.shape
    (3, 50)
    >>> bool(found.stability.to_numpy().min() >= 0)
    True
    """
    check_deconvolver(model)
    check_scalar(n_bootstraps, "n_bootstraps", Integral, min_val=2)
    n_samples = len(model.proportions_)
    if np.shape(X)[0] != n_samples:
        raise ValueError(
            f"X has {np.shape(X)[0]} samples, but the model was fitted to {n_samples}: give the bulk that it was "
            f"fitted to."
        )
    X = _held(open_bulk(X))
    rng = check_random_state(random_state)
    # all at once, so that the cohorts do not depend on the number of jobs
    draws = rng.randint(n_samples, size=(n_bootstraps, n_samples))
    estimator = _with_found_parameters(model)
    proportions = None if reestimate_proportions else model.proportions_
    centre = _type_means(model)
    tally = _Tally(centre)
    run = delayed(_resampled_means)
    jobs = Parallel(n_jobs=n_jobs, return_as="generator")
    outcomes = jobs(run(estimator, X, proportions, rows) for rows in draws)
    with task("resampled cohorts", n_bootstraps) as count:
        for done, outcome in enumerate(outcomes, start=1):
            tally.add(*outcome)
            count()
            if progress is not None:
                progress(done, n_bootstraps)
    return tally.summary(pd.Index(model.cell_types_), pd.Index(model.gene_names_))


def _held(X):
    """X in memory, of which any samples can be drawn."""
    if not is_lazy(X):
        return X
    values = np.asarray(X)  # refused where it does not fit
    if X.index is None and X.columns is None:
        return values
    return pd.DataFrame(values, X.index, X.columns)


def _with_found_parameters(model):
    """An unfitted estimator with what ``model`` found by itself as its parameters, and no tensor kept."""
    # a search would choose anew in every cohort
    estimator = clone(getattr(model, "best_estimator_", model))
    found = {
        name: getattr(model, f"{name}_")
        for name in FOUND
        if getattr(estimator, name, None) == "auto" and hasattr(model, f"{name}_")
    }
    if estimator.reference is None:
        found["reference"] = reference_frame(model)
    quiet = {"materialize": False, "verbose": 0}
    quiet = {name: value for name, value in quiet.items() if name in estimator.get_params(deep=False)}
    return estimator.set_params(**quiet, **found)


def _resampled_means(estimator, X, proportions, rows):
    """Mean expression of every cell type in one resampled cohort, and whether its fit converged."""
    # drawn samples repeat, and so would their names
    drawn = X.iloc[rows].reset_index(drop=True) if hasattr(X, "iloc") else np.asarray(X)[rows]
    fitted = clone(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # convergence is counted; the rest was said of the cohort
        fitted.fit(drawn, proportions=None if proportions is None else proportions[rows])
    return _type_means(fitted), getattr(fitted, "converged_", True)


def _type_means(model):
    """Mean expression over samples, shape (n_cell_types, n_genes), one cell type at a time."""
    means = [model.cell_type_expression(k).to_numpy().mean(axis=0) for k in range(len(model.cell_types_))]
    return np.array(means, dtype=np.float64)


class _Tally:
    """Running sums over resampled cohorts, of deviations from the cohort itself."""

    def __init__(self, centre):
        self.centre, self.side = centre, _sides(centre)
        self.total, self.squares = np.zeros_like(centre), np.zeros_like(centre)
        self.agreements, self.count, self.converged = np.zeros(centre.shape, dtype=int), 0, 0

    def add(self, means, converged):
        """Take in one resampled cohort."""
        self.agreements += _sides(means) == self.side
        deviation = means - self.centre
        self.total += deviation
        self.squares += deviation**2
        self.count += 1
        self.converged += bool(converged)

    def summary(self, cell_types, genes):
        """Tables of what was found."""
        # deviations from the cohort are small, so that the difference of sums keeps its digits
        variance = (self.squares - self.total**2 / self.count) / (self.count - 1)
        stability = (
            self.agreements / self.count if len(self.centre) > 1 else np.full(self.centre.shape, np.nan)
        )
        tables = (self.centre, np.sqrt(np.maximum(variance, 0)), stability)
        frames = (pd.DataFrame(table, cell_types, genes) for table in tables)
        return BootstrapReliability(*frames, self.count, self.converged)


def _sides(means):
    """Whether a cell type lies above (1) or below (-1) the mean of the others."""
    others = (means.sum(axis=0) - means) / max(len(means) - 1, 1)
    return np.sign(means - others)
