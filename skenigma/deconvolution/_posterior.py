"""The empirical-Bayes posterior on the log scale."""

from functools import partial
from numbers import Integral, Real

import numpy as np

from .._parameters import COMMON, constraints, documented, set_parameters
from ..checks.covariates import Coding, read_covariates
from ..checks.entries import check_nonnegative
from ..checks.labels import row_labels
from ..checks.names import listing, row_names
from ..checks.validation import Interval, StrOptions, fit_context
from ..checks.warning import warn
from ..cohort import is_lazy, open_bulk
from ..core.posterior.fit import fit_posterior
from ..core.posterior.model import Settings
from ..proportions import ProportionEstimator
from ._flow import BaseDeconvolver
from ._known import known_donors, known_variance
from ._model import Estimate
from ._posterior_state import PosteriorMap, fitted_record, fitted_state
from ._predict import few_threads
from ._rows import parts

# Parameters of every model that this one does not have: its scale is its own.
OWN_SCALE = ("preprocess", "positive", "verbose")
NEGATIVE = (
    "Negative values in data have no logarithm, and EmpiricalBayesDeconvolver works on log2(x + 1): pass counts per "
    "million or TPM, as they were before logarithms or centring, or use another model."
)
# Number of genes that are all zero from which on a sample is empty.
EMPTY_IF_GENES = 20
# Mismatch of bulk and reference at which next to nothing of what the reference says is believed.
LARGE_MISMATCH = 2.0


@documented
class EmpiricalBayesDeconvolver(BaseDeconvolver):
    r"""Cell-type-specific expression with an error bar on every value, by empirical Bayes on the log scale.

    For counts per million, TPM and other values of at least 0. On two cohorts of real donors it follows genes
    over samples at least as well as the bulk itself and the reference scaled to it, which no other model here
    does. Even so, the gain is small: see "What the estimates cannot tell" in the user guide.

    Parameters
    ----------
    {reference}
    platform : {"reference", "bulk"}, default="reference"
        As what measures it the expression is given. "reference": profiles are where the reference has them, as for
        sorted samples of the bulk's own protocol. "bulk": every gene is moved to the level at which the bulk measures
        it, as for a reference of single cells; the move is that of the whole cohort, pulled to that of all genes. The
        data cannot tell which is right, and it makes no difference to how a gene varies over samples.
    hidden_share : float or "auto", default="auto"
        Share of the variance over samples at which half of a direction is kept: directions with more are taken for
        quality, batch and error of the proportions. "auto" is smaller, the worse bulk and reference match.
        Infinity keeps everything.
    composition : float in [0, 1] or "auto", default="auto"
        How much of the effect that the reference expects of the composition of a sample is subtracted. "auto" is the
        slope of the bulk on it, and less, the worse bulk and reference match.
    shared : float in (0, 1), default=0.1
        Fraction of a cell type's variance over donors that it shares with the other types.
    measured : bool, default=True
        Whether standard deviations and intervals are those of a measured profile, with the noise of measuring it as
        the bulk was, or of the expression itself.
    reference_variance : DataFrame or array-like of shape (n_cell_types, n_genes), default=None
        Variance of log2(x + 1) between the donors of the reference, for the width of the intervals, such as the
        ``variance`` of :func:`~skenigma.reference.make_reference`. A frame is matched by the names of cell types and
        genes. None takes the variance components of the bulk.
    reference_donors : int or array-like of shape (n_cell_types,), default=None
        Number of donors behind each profile, for the width of the intervals: the fewer, the less certain is the
        profile. None takes the profiles for certain.
    {n_components}
    proportion_estimator : transformer, default=None
        Estimates the proportions where none are given; fitted on X. Its ``reference``, if None, becomes this one's.
        None is ``ProportionEstimator(method="auto")``.
    {normalize}
    {materialize}
    {output_cell_types}

    Attributes
    ----------
    {expression_}
    {level_}
    {cse_}
    {cse_std_}
    {cse_normalized_}
    {expression_normalized_}
    {reliability_}
    {mismatch_}
    {composition_}
    {hidden_share_}
    hidden_directions_ : DataFrame
        ``share`` and ``gain`` of the leading directions over samples, how much of the variance they have, and how
        much of them was kept; of those whose gain is below 0.95.
    variance_components_ : DataFrame
        Per cell type, its ``own`` variance over donors and the one that is ``shared``, on the log scale.
    {noise_variance_}
    platform_offset_ : ndarray of shape (n_genes,)
        By how much each gene was moved on the log scale; 0 unless ``platform="bulk"``.
    {proportions_}
    {cell_types_}
    {gene_names_}
    {reference_}
    {proportion_estimator_}
    {n_features_in_}
    {feature_names_in_}

    Raises
    ------
    ValueError
        If X or reference hold negative values, a sample is zero in every gene, or X, reference, proportions and
        covariates do not fit together; the message names the first offenders.

    Warns
    -----
    UserWarning
        If bulk and reference hardly match, the proportion of a cell type is 0 in every sample, or new samples come
        without the covariates of the fit.
    {model_warnings}

    See Also
    --------
    skenigma.baselines : Answers that need no model, to compare with.
    FactorDeconvolver : For signed, centred or otherwise linear values.

    Notes
    -----
    With f(x) = log2(x + 1), bulk Y = f(X), expected bulk M = f(ΘR) and their means over samples:

    .. math::

        e &= (Y - \bar Y) - \lambda (M - \bar M) \\
        s &= e - \mathrm{sd} \circ \sum_m (1 - \pi_m)\, v_m \langle v_m, e / \mathrm{sd} \rangle,
            \qquad \pi_m = 1 / (1 + s_m / s^*) \\
        \mathrm{var}\, s_g &= b + \sum_k w_{kg}^2 d_k + \sigma^2 2^{-\bar Y_g},
            \qquad w_{kg} = \bar\theta_k r_{kg} \Big/ \sum_i \bar\theta_i r_{ig} \\
        f(p_{jkg}) &= f(r_{kg}) + \kappa_{kg} s_{jg}, \qquad
            \kappa_{kg} = (b + w_{kg} d_k) / \mathrm{var}\, s_g

    with leading directions v over samples of the share s of the variance, and variance components b, d and σ²
    by weighted non-negative least squares over genes. All formulas are in "The method" in the documentation.

    Once the model is fitted, samples are mapped independently of each other, so that ``transform`` equals
    ``fit_transform`` up to rounding and results do not depend on what else is transformed. Besides X, a fit
    of up to 1,000 samples needs memory of twice its size. Of more samples it holds a few tables of 256 ×
    n_genes numbers, sums with random signs over groups of the samples: the leading directions are then those
    of the Nyström approximation in the span of these, the same in memory and by rows. ``cse_`` takes
    n_cell_types times the size of X; deviations are built when they are asked for.

    An X that is not in memory is read five times by blocks of samples: for checks, proportions, moments,
    directions and ``level_``; four times if proportions are given, and once less up to 1,000 samples, whose
    deviations are held. Requests to ``expression_`` read the samples that they concern.

    ``covariates`` are protected: what they explain, gene by gene, is not treated as a hidden direction. Pass
    the phenotype if it dominates the bulk. New samples then need covariates, too; without them they are
    mapped like an average sample.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma import EmpiricalBayesDeconvolver
    >>> rng = np.random.default_rng(0)
    >>> reference = rng.gamma(0.7, 80, (3, 200))
    >>> truth = reference * np.exp(rng.normal(0, 0.3, (30, 3, 200)))
    >>> theta = rng.dirichlet(np.ones(3), 30)
    >>> bulk = np.einsum("jk,jkg->jg", theta, truth)
    >>> model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta)
    >>> model.cse_.shape
    (30, 3, 200)
    >>> low, high = model.expression_.interval(0.9)
    >>> bool(np.mean((low <= truth) & (truth <= high)) > 0.8)
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - as scikit-learn wants it
        **constraints(*(name for name in COMMON if name not in OWN_SCALE)),
        "platform": [StrOptions({"reference", "bulk"})],
        "hidden_share": [Interval(Real, 0, None, closed="right"), StrOptions({"auto"})],
        "composition": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "shared": [Interval(Real, 0, 1, closed="neither")],
        "measured": ["boolean"],
        "reference_variance": ["array-like", None],
        "reference_donors": ["array-like", Interval(Integral, 1, None, closed="left"), None],
    }
    # answers are on the scale of X as they are
    preprocess, positive = None, True

    def __init__(
        self, reference=None, *, platform="reference", hidden_share="auto", composition="auto", shared=0.1,
        measured=True, reference_variance=None, reference_donors=None, n_components=2, proportion_estimator=None,
        normalize=None, materialize=True, output_cell_types=None,
    ):  # fmt: skip
        set_parameters(self, locals())

    def _default_proportion_estimator(self):
        return ProportionEstimator(method="auto")

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, proportions=None, covariates=None):
        """Estimate the cell-type-specific expression of a cohort.

        Parameters
        ----------
        {X}
        {y}
        {proportions}
        {covariates}

        Returns
        -------
        self : object
            Fitted estimator.
        """
        return self._fit(X, proportions, covariates=covariates)

    def fit_transform(self, X, y=None, *, proportions=None, covariates=None):
        """Fit to a cohort and return its expression, flattened; equal to ``fit`` and then ``transform``.

        Parameters
        ----------
        {X}
        {y}
        {proportions}
        {covariates}

        Returns
        -------
        {cse_fitted}
        """
        self.fit(X, y, proportions=proportions, covariates=covariates)
        return self._fitted_output()

    def transform(self, X, *, proportions=None, covariates=None):
        """Cell-type-specific expression of any samples, each mapped on its own as the cohort was.

        Parameters
        ----------
        {X_new}
        {proportions}
        {covariates}

        Returns
        -------
        {cse}
        """
        return self._transform(X, proportions, covariates=covariates)

    def predict_expression(self, X, *, proportions=None, covariates=None):
        """Expression of any samples as an object, each mapped on its own as the cohort was.

        Parameters
        ----------
        {X_named}
        {proportions}
        {covariates}

        Returns
        -------
        expression : CellTypeExpression
            Before ``normalize``, like ``expression_``; values, deviations and intervals are built when they are asked
            for.
        """
        return self._predict_expression(X, proportions, covariates=covariates)

    def score(self, X, y=None, *, proportions=None, covariates=None):
        """Mean log density per entry of log2(X + 1) under the fitted model of the bulk: larger is better.

        The bulk is normal around its mean and the effect of composition, with the variance of the fit along the
        leading directions and in each gene. It tells how well ``composition`` and the proportions suit samples that
        were not fitted; ``shared``, ``platform`` and the variance components do not enter.

        Parameters
        ----------
        {X_new}
        {y}
        {proportions}
        {covariates}

        Returns
        -------
        score : float
            Natural logarithm of the density.
        """
        X = open_bulk(X)
        if is_lazy(X):
            blocks = parts(self, X, proportions, {"covariates": covariates})
            found = [len(bulk) * self._score(part, bulk, *given) for _, part, bulk, *given in blocks]
            return sum(found) / len(X)
        bulk = self._new_bulk(X)
        return self._score(X, bulk, proportions, {"covariates": covariates})

    def _score(self, X, bulk, proportions, given):
        with few_threads(self, bulk):
            state, _ = self._predict_state(X, bulk, proportions, **given)
            return float(state.posterior.log_density(state.samples))

    def _fit_aligned(self, X, bulk, proportions, covariates=None):
        self._check(X, bulk)
        names = (self.cell_types_, self.gene_names_)
        check_nonnegative(self.reference_, "reference", *names, NEGATIVE)
        covariates = read_covariates(covariates, len(bulk), row_labels(X))
        return super()._fit_aligned(X, bulk, proportions, covariates=covariates)

    def _predict_state(self, X, bulk, proportions, covariates=None):
        self._check(X, bulk)
        covariates = read_covariates(covariates, len(bulk), row_labels(X))
        coding = self._outcome.map.coding
        if covariates is None and coding is not None:
            warn(
                f"The model was fitted with covariates ({listing(list(coding.categories))}), but these samples come "
                f"without any: each is mapped like an average sample. Pass covariates to protect what they explain.",
            )
        elif covariates is not None and coding is None:
            raise ValueError(
                "The model was fitted without covariates: fit it with them, or leave them out here."
            )
        return super()._predict_state(X, bulk, proportions, covariates=covariates)

    def _check(self, X, bulk):
        """Refuse bulk samples that have no logarithm, or no expression."""
        rows = row_names(X)
        check_nonnegative(bulk, "X", rows, self.gene_names_, NEGATIVE)
        empty = np.flatnonzero(~bulk.any(axis=1))
        # of a few genes a sample may well express none
        if len(empty) and bulk.shape[1] >= EMPTY_IF_GENES:
            named = empty.tolist() if rows is None else rows[empty]
            raise ValueError(
                f"{len(empty)} sample(s) of X are zero in every gene in use: {listing(named)}. Drop them."
            )

    def _estimate(self, cohort):
        covariates = cohort.given.get("covariates")
        coding = None if covariates is None else Coding.fit(covariates)
        design = None if coding is None else coding.apply(covariates)
        posterior, rows = fit_posterior(
            cohort.bulk, cohort.reference, cohort.proportions, design=design, settings=self._settings()
        )
        self._judge(posterior)
        return Estimate(
            map=PosteriorMap(posterior, coding),
            state=None if rows is None else partial(fitted_state, posterior, rows),
            record=fitted_record(posterior, self.cell_types_),
        )

    def _settings(self):
        return Settings(
            composition=None if self.composition == "auto" else float(self.composition),
            threshold=None if self.hidden_share == "auto" else float(self.hidden_share),
            shared=self.shared,
            on_platform=self.platform == "bulk",
            measured=self.measured,
            variance=known_variance(self.reference_variance, self.cell_types_, self.gene_names_),
            n_donors=known_donors(self.reference_donors, self.cell_types_),
        )

    def _judge(self, posterior):
        """Warn of a bulk and a reference that do not go together."""
        expressed = posterior.expected_mean > 0
        delta = (posterior.bulk_mean - posterior.expected_mean)[expressed]
        if len(delta) and posterior.delta2 > LARGE_MISMATCH:
            warn(
                f"Bulk and reference hardly match: their mean levels differ by {np.sqrt(posterior.delta2):.2g} "
                f"powers of two (standard deviation over genes). Are they of one tissue and species?",
            )

    def _level_remedy(self):
        return "Bring bulk and reference to one scale, such as counts per million, or use platform='bulk'."

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags
