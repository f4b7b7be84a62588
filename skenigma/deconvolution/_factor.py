"""The factor model."""

from dataclasses import replace
from numbers import Integral

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from .._parameters import COMMON, COUNT, POSITIVE, constraints, documented, set_parameters
from ..checks.names import listing
from ..checks.samples import repeated_samples
from ..checks.scales import LOG_SCALE_MAXIMUM
from ..checks.validation import Interval, StrOptions
from ..checks.warning import warn
from ..cohort import is_lazy, open_bulk
from ..core.blocks import each_block
from ..core.posterior.factor import fit_factors
from ..core.posterior.factor_map import FactorMap, reliability
from ..core.posterior.factor_rest import residual_of
from ..core.posterior.factor_rows import fit_factors_by_rows
from ..exceptions import SampleWarning
from ..progress import task
from ..proportions import ProportionEstimator
from ._flow import BaseDeconvolver
from ._model import Estimate
from ._predict import few_threads
from ._rows import parts
from ._scores import ScoreOnOwnScale

# Numbers of expression that are built at a time to see how it varies.
STATE_BLOCK = 2**21
# Numbers, 1 GB of them, up to which a fit holds what the reference leaves and some products of samples or genes with
# each other. Beyond, wherever X is, it reads X a few times more and holds coordinates.
HELD, PRODUCTS = 2**27, 4


@documented
class FactorDeconvolver(ScoreOnOwnScale, BaseDeconvolver):
    r"""Cell-type-specific expression by a factor model, with standard deviations.

    For signed, centred, standardised or otherwise linear values. For counts per million, TPM and the like use
    :class:`EmpiricalBayesDeconvolver`.

    Estimates the posterior of what every cell type k expresses in every sample j,

    .. math::

        p_{jkg} = r_{kg} + b_{0kg} + \sum_m f_{jm} b_{mkg} + u_{jkg} , \qquad
        x_{jg} = \sum_k \theta_{jk} p_{jkg} + e_{jg} ,

    with bulk x, proportions θ and reference profiles r. The factors f are shared by the cell types, and
    follow N(0, 1); the loadings b, the own parts u and the noise e are Gaussian with variances that are
    estimated. Where a sample contains too little information, the estimate relies on the other samples,
    through the factors, and on the reference.

    Parameters
    ----------
    {reference}
    n_factors : int or "auto", default="auto"
        Number of factors. "auto" adds them while the residual has a direction that noise would not have, and the
        evidence rises, up to ten and up to a third of the samples.
    max_iter : int, default=1000
        Largest number of steps with one number of factors.
    tol : float, default=1e-6
        The fit has converged when two steps in a row raise the evidence by less than this per value of X.
    {n_components}
    proportion_estimator : transformer, default=None
        Estimates the proportions where none are given; fitted on the untransformed X. Its ``reference``, if None,
        becomes this one's. None is ``ProportionEstimator(method="auto")``.
    {common}

    Attributes
    ----------
    {fitted}
    {cse_std_}
    {reliability_}
    scores_, scores_std_ : ndarray of shape (n_samples, n_factors)
        Factors of every sample, and their standard deviations. Factors are determined but for sign and rotation.
    loadings_, loadings_std_ : ndarray of shape (n_factors, n_cell_types, n_genes)
        What one unit of a factor changes, on the scale of the model.
    shift_, shift_std_ : ndarray of shape (n_cell_types, n_genes)
        Difference of the cohort's mean profiles from the reference, on the scale of the model.
    n_factors_ : int
        Number of factors in use.
    own_variance_ : ndarray of shape (n_cell_types,)
        Variance of the own parts, as a share of the square of ``gene_scale_``.
    noise_variance_ : float
        Variance of the noise, likewise.
    gene_scale_ : ndarray of shape (n_genes,)
        Scale of each gene: a moderated standard deviation, in the unit of the model.
    evidence_history_ : ndarray of shape (n_steps, 2)
        Lower bound of the log evidence after every step, and the number of factors. It rises from step to step
        within a number of factors, and from the end of one to the end of the next.
    n_iter_ : int
        Number of steps.
    converged_ : bool
        Whether the evidence stood still.

    Raises
    ------
    ValueError
        If X, reference or proportions do not fit together; the message names the first offenders.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` ends the fit.
    UserWarning
        If the values look like counts per million or TPM, the proportion of a cell type is 0 in every sample, or X
        and reference share few genes.
    {model_warnings}

    See Also
    --------
    EmpiricalBayesDeconvolver : For values on the scale of counts per million.
    skenigma.differential.differential_expression : ``method="factor"``: changed genes by the same model.

    Notes
    -----
    A variational approximation: loadings and factors are independent and Gaussian. Steps update the variances
    of the loadings (each block at its maximum), the loadings, the factors and the variances of the samples,
    each of which raises a lower bound of the evidence. Steps are over-relaxed [1]_, and undone if the bound
    decreases.

    The expression is the posterior mean: it varies less over samples than the truth does, and reflects the
    structure of the model, so tests of it do not have valid p-values. To find genes that change use
    ``differential_expression(..., method="factor")``, which includes the phenotype in the model.

    ``transform`` computes the factors of a row from that row alone. It needs no phenotype, since the model
    has none.

    Memory: one copy of X in addition to what is kept, which is X and, with p = (1 + ``n_factors_``) × cell
    types, loadings of p × genes; with ``materialize`` also the tensor. A step takes time as samples × p ×
    min(samples, genes).

    Where that copy and four matrices of min(samples, genes)² would be more than 1 GB, as from some 3,800 samples of
    20,000 genes on, a fit holds some hundred numbers of every sample and gene in their place, whether X is in memory
    or read by rows: coordinates of the samples along directions over genes, which are found in rounds, by fits
    with the directions so far [2]_. The result is an approximation: what loadings and factors say of the bulk differs
    from that of the whole fit by a few hundredths of the noise, and a factor that hardly rises above the noise can
    be missed.

    An X that is read by rows is read five times: for checks, proportions, what the reference leaves of it,
    ``reliability_`` and ``level_``. Of a large one what the reference leaves is read six times, ten in all. New
    samples are mapped by rows in any number.

    References
    ----------
    .. [1] Salakhutdinov, Roweis (2003), Adaptive overrelaxed bound optimization methods. ICML.
    .. [2] Halko, Martinsson and Tropp (2011), Finding structure with randomness. SIAM Review 53.

    Examples
    --------
    >>> from skenigma import FactorDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(random_state=0, as_frame=True)
    >>> model = FactorDeconvolver(cohort.reference).fit(cohort.bulk, proportions=cohort.proportions)
    >>> model.n_factors_
    1
    >>> low, high = model.expression_.interval(0.95)
    >>> bool(abs(((low < cohort.cse) & (cohort.cse < high)).mean() - 0.95) < 0.02)
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **constraints(*COMMON),
        "n_factors": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [COUNT],
        "tol": [POSITIVE],
    }

    def __init__(
        self, reference=None, *, n_factors="auto", max_iter=1000, tol=1e-6, n_components=2, proportion_estimator=None,
        preprocess=None, positive="auto", normalize=None, materialize=True, output_cell_types=None, verbose=0,
    ):  # fmt: skip
        set_parameters(self, locals())

    _score_depends_on = ("preprocess",)

    def _default_proportion_estimator(self):
        return ProportionEstimator(method="auto")

    def _estimate(self, cohort):
        if self.preprocess is None:
            warn_of_linear_counts(cohort.bulk, type(self).__name__, "EmpiricalBayesDeconvolver")
        n_samples = len(cohort.bulk)
        _warn_of_few(n_samples, len(cohort.reference))
        _warn_of_repeated(cohort.raw, cohort.sample_names)
        with task(f"steps of {type(self).__name__}") as count:
            found = self._found(cohort, np.ones((n_samples, 1)), count)
        self._say(found)
        fitted = FactorMap.of(found, cohort.reference.astype(np.float64))
        seen = []
        reliable = reliability(_states(fitted, cohort.bulk, cohort.proportions, seen), n_samples)
        scores, spread = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        found = replace(found, scores=scores, score_covariance=spread)
        return Estimate(fitted, record={**_record(found), "reliability_": reliable})

    def _found(self, cohort, known, report):
        """The posterior of the model, as it is found for as many samples."""
        given = cohort.bulk, cohort.proportions, cohort.reference
        settings = {
            "n_factors": None if self.n_factors == "auto" else min(self.n_factors, len(known)),
            "max_iter": self.max_iter,
            "tol": self.tol,
            "report": report,
        }
        n_samples, n_genes = cohort.bulk.shape
        if n_samples * n_genes + PRODUCTS * min(n_samples, n_genes) ** 2 <= HELD:
            return fit_factors(residual_of(*given), cohort.proportions, known, **settings)
        return fit_factors_by_rows(*given, known, **settings)

    def _say(self, found):
        if self.verbose:
            for step, (bound, n_factors) in enumerate(found.history, 1):
                print(f"step {step}: evidence {bound:.6g}, {n_factors:.0f} factors")
        if not found.converged:
            warn(
                f"{type(self).__name__} did not converge in {self.max_iter} steps with n_factors={self.n_factors!r}: "
                f"the evidence still rose by {np.diff(found.history[-2:, 0]).sum():.3g}. Use a larger max_iter or "
                f"tol.",
                ConvergenceWarning,
            )

    def score(self, X, y=None, *, proportions=None):
        """Lower bound of the log evidence per value of X, on any samples: larger is better.

        Comparable across ``n_factors``, references and proportions, on the same genes and scale.

        Parameters
        ----------
        {X_new}
        {y}
        {proportions}

        Returns
        -------
        score : float
            Mean over values.
        """
        check_is_fitted(self)
        self._warn_of_incomparable_scores()
        X = open_bulk(X)
        if not is_lazy(X):
            bulk = self._new_bulk(X)
            return self._bound(X, bulk, proportions, {}) / bulk.size
        blocks = parts(self, X, proportions, {})
        return sum(self._bound(*part) for _, *part in blocks) / (len(X) * len(self.gene_names_))

    def _bound(self, X, bulk, proportions, given):
        with few_threads(self, bulk):
            state, _ = self._predict_state(X, bulk, proportions, **given)
            return float(state.bound().sum())


def _states(fitted, bulk, proportions, seen):
    """States of a cohort, a few samples at a time; their factors are appended to ``seen``."""
    proportions = proportions.astype(np.float64, copy=False)
    for rows, block in each_block(bulk, STATE_BLOCK // proportions.shape[1]):
        state = fitted.replay(block, proportions[rows])
        seen.append((state.scores, state.spread))
        yield state


def _warn_of_few(n_samples, n_types):
    """Samples that are no more than the cell types can be explained in several ways."""
    if n_samples <= n_types:
        warn(
            f"X has {n_samples} samples for {n_types} cell types: shifts of the profiles can explain all of them, "
            f"and it cannot be determined how much of that is noise. Fit more samples, or use "
            f"EmpiricalBayesDeconvolver for values that are not negative.",
            SampleWarning,
        )


def _warn_of_repeated(bulk, names):
    """Samples that occur twice have no noise between them, of which the model estimates the variance."""
    pairs = repeated_samples(bulk)
    if pairs:
        names = range(len(bulk)) if names is None else names
        named = [f"{names[earlier]} and {names[row]}" for earlier, row in pairs]
        warn(
            f"{len(pairs)} sample(s) of X are equal to another in every gene: {listing(named)}. There is no noise "
            f"between them, so the noise is underestimated, and with few samples the solution is not unique: "
            f"drop the duplicates.",
            SampleWarning,
        )


def warn_of_linear_counts(bulk, name, better):
    """Say where something else is meant for such values."""
    if bulk.size and bulk.min() >= 0 and bulk.max() > LOG_SCALE_MAXIMUM:
        warn(
            f"X has no negative value and goes up to {bulk.max():.4g}, like counts per million or TPM. {name} "
            f"assumes that a gene varies as much at low as at high expression, which is not true of such values: on "
            f"real data it did worse than the baselines. Use {better}."
        )


def _record(found):
    """Fitted attributes."""
    n_columns, n_types, _ = found.loadings.shape
    loadings = found.loadings * found.scale
    deviations = np.sqrt(np.diagonal(found.covariance)).reshape(n_columns, n_types, 1) * found.scale
    return {
        "scores_": found.scores[:, 1:],
        "scores_std_": np.sqrt(np.diagonal(found.score_covariance, axis1=1, axis2=2)),
        "loadings_": loadings[1:],
        "loadings_std_": deviations[1:],
        "shift_": loadings[0],
        "shift_std_": deviations[0],
        "n_factors_": found.n_factors,
        "own_variance_": found.own,
        "noise_variance_": float(found.noise),
        "gene_scale_": found.scale,
        "evidence_history_": found.history,
        "n_iter_": len(found.history),
        "converged_": found.converged,
    }
