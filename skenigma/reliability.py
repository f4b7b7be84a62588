"""How far to trust cell-type-specific expression, gene by gene, where no truth is known."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import special, stats
from sklearn.base import clone
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted

from ._transformers import reference_frame
from ._typing import Estimator, Seed, Table
from .checks.entries import check_nonnegative
from .checks.labels import cell_types_of, row_labels
from .checks.names import listing, names_of
from .checks.numbers import check_magnitude
from .checks.tables import check_table
from .checks.validation import Integral, check_deconvolver, check_proportions

__all__ = ["BootstrapReliability", "bootstrap_reliability", "gene_contribution", "gene_significance"]

# Correlation of two profiles above which ``gene_significance(refine="auto")`` does not refine.
ALIKE = 0.85
# Parameters that a fit may find by itself, and a resampled one takes over.
FOUND = ("beta", "gamma", "epsilon", "tao_k", "renorm_size")


def gene_contribution(model: Estimator) -> pd.DataFrame:
    """Share of each gene's bulk that comes from each cell type: the first thing to ask of a gene.

    What varies in a gene's bulk between samples can only tell of the cell types that it comes from. On simulated
    and pseudo-bulk cohorts of non-negative expression this share ranks genes by how well their expression is
    recovered over samples, as the p-values of :func:`gene_significance` do, and as a bootstrap does not; see the user
    guide for figures.

    Parameters
    ----------
    model : fitted deconvolver
        With ``proportions_`` and ``reference_``, on the linear scale.

    Returns
    -------
    share : DataFrame of shape (n_cell_types, n_genes)
        Shares θ̄_k r_kg / Σ_i θ̄_i r_ig with the mean proportions θ̄ and the profiles r; columns sum to 1. NaN for a
        gene that no profile expresses.

    Raises
    ------
    ValueError
        If a profile is negative: shares of centred expression mean nothing.

    See Also
    --------
    gene_significance : Whether the bulk itself says that a cell type contributes.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma import ProportionEstimator
    >>> from skenigma.reliability import gene_contribution
    >>> reference = np.array([[8.0, 1.0, 4.0], [0.0, 3.0, 4.0]])
    >>> model = ProportionEstimator(reference, method="nnls").fit([[4.0, 2.0, 4.0]])
    >>> gene_contribution(model).round(2).to_numpy().tolist()
    [[1.0, 0.25, 0.5], [0.0, 0.75, 0.5]]
    """
    check_is_fitted(model)
    reason = "Shares need expression that is not centred."
    check_nonnegative(model.reference_, "reference", model.cell_types_, model.gene_names_, reason)
    share = contributions(model.proportions_, model.reference_)
    return pd.DataFrame(share, model.cell_types_, model.gene_names_)


def contributions(proportions, reference):
    """Share of each gene's bulk by cell type, of arrays; NaN for a gene that no profile expresses."""
    parts = proportions.mean(axis=0)[:, None] * reference
    total = parts.sum(axis=0)
    return np.divide(parts, total, out=np.full_like(parts, np.nan), where=total > 0)


def gene_significance(
    bulk: Table,
    proportions: Table,
    *,
    refine: bool | str = False,
    level: float = 0.05,
    reference: Table | None = None,
) -> pd.DataFrame:
    """Test which genes each cell type contributes to the bulk: the original's gene-significance test.

    Per gene, the bulk is regressed on the proportions without an intercept, and the coefficient of each cell type is
    tested to be above 0 [1]_. The bulk of a gene that a cell type contributes nothing to says nothing about its
    expression there, so that such a gene's cell-type-specific expression is only what the reference says.

    Parameters
    ----------
    bulk : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression on the linear scale.
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
        Proportions of the samples, such as ``proportions_`` of a fitted deconvolver. Rows of two frames are matched
        by name.
    refine : bool or "auto", default=False
        Whether to ask instead if a gene belongs to a cell type more than other genes do, see the notes. "auto" is the
        original's ``auto = TRUE``: yes, unless two profiles have a correlation above 0.85.
    level : float, default=0.05
        ``significant`` are q-values below it; with ``refine``, scores below it in the cell type where the gene's
        q-value is smallest.
    reference : array-like or DataFrame of shape (n_cell_types, n_genes), default=None
        Profiles, for ``refine="auto"`` only.

    Returns
    -------
    table : DataFrame of n_cell_types × n_genes rows
        In the order of the cell types, then of the genes, with the columns ``cell_type``, ``gene``, ``coefficient``
        (expression in the units of the bulk), ``statistic`` (t, on n_samples − n_cell_types degrees of freedom),
        ``p_value`` (one-sided), ``q_value`` (Benjamini–Hochberg over the genes of a cell type), with ``refine`` also
        ``score``, and ``significant``. A gene that is 0 throughout has p = 1.

    Raises
    ------
    ValueError
        If bulk and proportions do not fit together, there are no more samples than cell types, proportions are
        collinear, or ``refine="auto"`` has no reference to look at.

    See Also
    --------
    bootstrap_reliability : Standard errors of a model's expression.

    Notes
    -----
    ``refine`` turns the q-values of a gene into shares s of the cell types, by the softmax over cell types of 1 − q,
    and compares s_jk / (1 − s_jk) with its values where the denominator is that of a gene drawn at random: the
    original's score is the p-value of that by 1,000 random draws, and the score here is its expectation, the share of
    genes i with (1 − s_ik) < (1 − s_jk). It is a rank: 5 % of the genes of each cell type have a score below 0.05,
    whatever the data. Of these the original calls only the genes whose q-value is smallest in this very cell type, so
    that a gene is called in one cell type at most, and so does ``significant``.

    References
    ----------
    .. [1] Wang et al., ENIGMA: dEcoNvolutIon method based on reGularized MAtrix completion. R function
       ``GeneSigTest``.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.reliability import gene_significance
    >>> cohort = make_cohort(n_samples=40, n_genes=50, n_cell_types=3, random_state=0, as_frame=True)
    >>> table = gene_significance(cohort.bulk, cohort.proportions)
    >>> table.columns.tolist()
    ['cell_type', 'gene', 'coefficient', 'statistic', 'p_value', 'q_value', 'significant']
    >>> len(table)
    150
    """
    if isinstance(refine, str):
        if refine != "auto":
            raise ValueError(f"refine must be True, False or 'auto', got {refine!r}.")
        refine = _suits(reference)
    genes, cell_types = names_of(bulk, "bulk", "x"), cell_types_of(proportions)
    samples = row_labels(bulk)
    bulk = check_table(bulk, "bulk", dtype=np.float64)
    check_magnitude(bulk, "bulk")
    theta = check_proportions(proportions, cell_types, len(bulk), samples).astype(np.float64, copy=False)
    _check_design(theta, cell_types)
    coefficients, statistic, p_values = _one_sided_test(theta, bulk)
    q_values = stats.false_discovery_control(p_values, axis=1)
    table = pd.DataFrame(
        {
            "cell_type": np.repeat(cell_types, len(genes)),
            "gene": np.tile(genes, len(cell_types)),
            "coefficient": coefficients.ravel(),
            "statistic": statistic.ravel(),
            "p_value": p_values.ravel(),
            "q_value": q_values.ravel(),
        }
    )
    if refine:
        table["score"] = _refined_scores(q_values).ravel()
    return table.assign(
        significant=(_refined_calls(q_values, table, level) if refine else table["q_value"] < level)
    )


def _suits(reference):
    """Whether profiles differ enough for the refined score."""
    if reference is None:
        raise ValueError("refine='auto' looks at how much profiles are alike: pass the reference.")
    profiles = check_table(reference, "reference", dtype=np.float64)
    alike = np.corrcoef(profiles) if len(profiles) > 1 else np.ones((1, 1))
    return not np.any(alike[~np.eye(len(profiles), dtype=bool)] > ALIKE)


def _refined_calls(q_values, table, level):
    """Scores below the level, of genes in the cell type of their smallest q-value."""
    own = np.arange(len(q_values))[:, None] == q_values.argmin(axis=0)
    return own.ravel() & (table["score"] < level)


def _check_design(theta, cell_types):
    """Refuse proportions that do not determine a regression, naming the cell types at fault."""
    n_samples, n_cell_types = theta.shape
    if n_samples <= n_cell_types:
        raise ValueError(
            f"{n_samples} samples cannot be regressed on {n_cell_types} cell types: there must be more samples than "
            f"cell types."
        )
    absent = cell_types[~theta.any(axis=0)]
    if len(absent):
        raise ValueError(f"The proportion of {listing(absent)} is 0 in every sample: leave it out.")
    _, values, directions = np.linalg.svd(theta, full_matrices=False)
    if values[-1] <= n_samples * np.finfo(float).eps * values[0]:
        involved = cell_types[np.abs(directions[-1]) > np.sqrt(np.finfo(float).eps)]
        raise ValueError(
            f"The proportions of {listing(involved)} are collinear over the samples: merge some of these cell types."
        )


def _one_sided_test(design, response):
    """Coefficients of a regression without intercept, t, and p of being above 0, each (n_terms, n_responses)."""
    n_samples, n_terms = design.shape
    orthonormal, triangle = np.linalg.qr(design)
    coefficients = np.linalg.solve(triangle, orthonormal.T @ response)
    residual = response - design @ coefficients
    variance = np.einsum("jg,jg->g", residual, residual) / (n_samples - n_terms)
    unscaled = np.sum(np.linalg.inv(triangle) ** 2, axis=1)
    errors = np.sqrt(unscaled[:, None] * variance)
    exact = np.where(coefficients == 0, np.nan, np.copysign(np.inf, coefficients))
    statistic = np.divide(coefficients, errors, out=exact, where=errors > 0)
    p_values = stats.t.sf(statistic, n_samples - n_terms)
    return coefficients, statistic, np.where(np.isnan(p_values), 1.0, p_values)


def _refined_scores(q_values):
    """Share of genes whose share of a cell type is larger; see the notes of :func:`gene_significance`."""
    rest = 1 - special.softmax(1 - q_values, axis=0)
    below = stats.rankdata(rest, method="min", axis=1) - 1
    return below / rest.shape[1]


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
        Bulk that it was fitted to.
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
    :class:`~skenigma.L2MaxDeconvolverCV`) is kept, so errors are those of the expression given these settings and
    the reference. Both models draw the mean of a cell type towards its reference profile. The standard error says how
    much the estimate scatters, not how far the reference leads it astray: a wrong profile has a small one too, and
    where the reference dominates, as with renormalised gradients, nearly every gene is stable.

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
    rng = check_random_state(random_state)
    draws = rng.randint(n_samples, size=(n_bootstraps, n_samples))
    estimator = _with_found_parameters(model)
    proportions = None if reestimate_proportions else model.proportions_
    centre = _type_means(model)
    tally = _Tally(centre)
    run = delayed(_resampled_means)
    jobs = Parallel(n_jobs=n_jobs, return_as="generator")
    for done, outcome in enumerate(jobs(run(estimator, X, proportions, rows) for rows in draws), start=1):
        tally.add(*outcome)
        if progress is not None:
            progress(done, n_bootstraps)
    return tally.summary(pd.Index(model.cell_types_), pd.Index(model.gene_names_))


def _with_found_parameters(model):
    """An unfitted estimator with what ``model`` found by itself as its parameters, and no tensor kept."""
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
