"""Estimators of cell-type-specific expression: parameters, and which penalty and solver they stand for."""

from dataclasses import replace
from functools import cache

import numpy as np

from ..checks.validation import HasMethods, Integral, Interval, Real, StrOptions
from ..checks.warning import warn
from ..core.optimize.penalties import MaxL2Norm, TraceNorm
from ..core.optimize.spectrum import automatic_epsilon, automatic_gamma, noise_edge, singular_values
from ..normalization import NORMALIZATIONS
from ..proportions import ProportionEstimator
from ._flow import BaseDeconvolver

# Mean gradient norm over renorm_size above which the fit is the penalty's. It is 0.9 in the published analysis;
# expression a thousand times as large with the same size has 1000, and shrinks to a thousandth of the bulk.
SHRINKING = 20

COMMON_CONSTRAINTS = {
    "reference": ["array-like", None],
    "alpha": [Interval(Real, 0, 1, closed="both")],
    "tao_k": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "proportion_estimator": [HasMethods(["fit", "transform"]), None],
    "preprocess": [StrOptions({"sqrt", "log"}), None],
    "positive": ["boolean", StrOptions({"auto"})],
    "normalize": [StrOptions(set(NORMALIZATIONS)), None],
    "materialize": ["boolean"],
    "output_cell_types": ["array-like", None],
    "verbose": ["verbose"],
}


class _Deconvolver(BaseDeconvolver):
    """What both models share besides the flow."""

    def _default_proportion_estimator(self):
        return ProportionEstimator()

    def _solver_parameter(self, proportions):
        if self.solver != "proximal":
            return getattr(self, "gamma_", None)
        self.tao_k_ = self._automatic_step(proportions) if self.tao_k == "auto" else self.tao_k
        return self.tao_k_

    def _divergence_remedy(self):
        if self.solver == "proximal":
            return f"Use a smaller {self._steps} (tao_k='auto' is safe{self._safe_if})."
        return "Use a larger gamma or solver='admm'."

    def _convergence_remedy(self):
        if self.solver == "accelerated":
            return "Use a larger max_iter, epsilon or beta."
        setting = f"a smaller {self._steps}" if self.solver == "proximal" else "another gamma"
        return f"Use a larger beta, {setting}, or a larger max_iter or epsilon."


class L2MaxDeconvolver(_Deconvolver):
    r"""Cell-type-specific expression by the maximum-L2-norm model of ENIGMA.

    Estimates, for a cohort of bulk samples, what every cell type expresses in every single sample: a tensor P
    that minimises

    .. math::

        \begin{aligned}
        F(P) = {} & \alpha \sum_j \| x_j - \sum_k \theta_{jk} p_{jk} \|^2 \\
            & + (1 - \alpha) \sum_k \| \mathrm{mean}_j(p_{jk}) - r_k \|^2 \\
            & + \frac{\beta}{2} \sum_k \max_j \| p_{jk} \|^2
        \end{aligned}

    with bulk x, proportions θ and reference profiles r, by the published proximal-gradient iteration.

    Parameters
    ----------
    reference : DataFrame or array-like of shape (n_cell_types, n_genes), default=None
        Expression profile of every cell type, on the scale of X. Genes are matched by name if both X and
        reference have string column names, else by position. None learns ``n_components`` profiles from X:
        the purest samples, by successive projection.
    alpha : float in [0, 1], default=0.1
        Weight of reconstructing the bulk; the weight of staying near the reference is 1 − alpha.
    beta : float, default=50.0
        Weight of the penalty; larger values shorten and stabilise.
    epsilon : float, default=1e-3
        When to stop. "proximal" and "admm": when the squared change of every cell type is below this (in squared
        units of the expression: it grows with the data). "accelerated": when F is proven to be within this share of
        its minimum, by a duality gap, whatever the units.
    tao_k : float or "auto", default=1.0
        Step length of ``solver="proximal"``. "auto" is the inverse of the smooth terms' Lipschitz constant, which
        cannot diverge without renormalisation.
    renorm_size : float, "auto" or None, default=200.0
        Frobenius norm to which ``solver="proximal"`` rescales both gradients in every iteration. None uses them as
        they are.
        "auto" is the mean gradient norm of a first run without rescaling, the published way to find 200.
    max_iter : int, default=1000
        Largest number of iterations.
    gamma : float, default=2.0
        Penalty parameter γ of ``solver="admm"``: how strongly the two copies of the expression are held together.
    solver : {"proximal", "admm", "accelerated"}, default="proximal"
        How the objective is minimised: by the published proximal-gradient iteration, by the alternating direction
        method of multipliers, or by an accelerated proximal gradient that proves how close it came. Only "proximal"
        has a step length and renormalisation; with renormalisation it does not minimise F.
    n_components : int, default=2
        Number of profiles to learn if ``reference`` is None.
    proportion_estimator : transformer, default=None
        Estimates the proportions where none are given; fitted on the untransformed X. Its ``reference``, if
        None, becomes this one's. None is ``ProportionEstimator()``.
    preprocess : {None, "sqrt", "log"}, default=None
        Scale on which bulk and reference enter the model: as they are, square root, or log2(x + 1). Results are
        returned on the scale of X.
    positive : bool or "auto", default="auto"
        Whether to clip negative expression to 0 in the end. "auto": if neither X nor reference has a negative
        entry.
    normalize : {None, "frac", "pc", "quantile"}, default=None
        What to take out of the expression of each cell type in the end, on the scale of X; the result is
        ``cse_normalized_``, and what ``transform`` returns. "frac" removes, per gene, the linear effect of the cell
        type's proportion. "pc" removes the principal component that follows the proportion best. "quantile" gives
        all samples the same distribution over genes. Formulas stand in "The method", section "Normalisation".
    materialize : bool, default=True
        Whether ``fit`` builds ``cse_``. False keeps the expression in its compact form, from which
        ``cell_type_expression`` builds what is asked for: about the size of X instead of X times cell types.
    output_cell_types : array-like of str, default=None
        Cell types that ``transform`` returns, in this order; the others are not built. None returns all.
    verbose : int, default=0
        1 prints the trace of the iteration in the published form.

    Attributes
    ----------
    cse_ : ndarray of shape (n_samples, n_cell_types, n_genes)
        Cell-type-specific expression of the fitted cohort, on the scale of X. Only if ``materialize``.
    cse_normalized_ : ndarray of shape (n_samples, n_cell_types, n_genes)
        Only if ``normalize`` is given and ``materialize``.
    proportions_ : ndarray of shape (n_samples, n_cell_types)
        Proportions that were used.
    cell_types_ : ndarray of str, shape (n_cell_types,)
        Names of the cell types.
    gene_names_ : ndarray of str, shape (n_genes,)
        Genes in use: those shared by X and reference, in the order of X.
    reference_ : ndarray of shape (n_cell_types, n_genes)
        Profiles on these genes.
    loss_history_ : ndarray of shape (`n_iter_`, 3)
        Squared residual, squared distance of every sample to the reference, and the sum of the largest squared
        norms, unweighted, of the expression that went into each iteration.
    gradient_norm_ : ndarray of shape (`n_iter_` - 1, 2)
        Frobenius norms of the gradients of reconstruction and reference term before rescaling, of each applied
        update.
    delta_history_ : ndarray of shape (`n_iter_`, n_cell_types)
        Squared change per cell type.
    n_iter_ : int
        Number of evaluations; the update of the last is not applied.
    converged_ : bool
        Whether the change, or for "accelerated" the gap, fell below epsilon.
    renorm_size_, tao_k_, gamma_ : float or None
        Values in use; the first two of "proximal", ``gamma_`` of "admm".
    positive_ : bool
        Whether negative expression was clipped.
    proportion_estimator_ : estimator
        Fitted estimator of proportions.
    n_features_in_ : int
        Number of genes of X.
    feature_names_in_ : ndarray of str
        Genes of X, if it has names.

    Raises
    ------
    ValueError
        If X, reference or proportions do not fit together (the message names the first offenders), or the
        iteration diverges.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` ends the iteration.
    UserWarning
        If ``renorm_size`` is far below the gradient norms of the data, the proportion of a cell type is 0 in every
        sample, or X and reference share few genes.

    See Also
    --------
    TraceNormDeconvolver : The trace-norm model.
    ProportionEstimator : The default estimator of proportions.

    Notes
    -----
    The iteration is that of the R function ``cell_deconvolve`` in the analysis scripts of ENIGMA [1]_, with one
    difference: a gradient that is zero but for rounding is not rescaled to ``renorm_size``. The original
    rescales it, and so begins with a step along noise.

    ``solver="admm"`` and ``solver="accelerated"`` minimise the same F. The original's ADMM has data terms with 1/2:
    its β and γ are half of those here.

    ``transform`` replays the fitted iteration for each row: its step factors, shared shifts and caps are all
    that a sample needs from the cohort. So a row's result depends on no other row, rows of the cohort come back
    as they were fitted, and held-out scores are honest. The cohort itself is not kept; its expression is, in
    ``cse_``.

    Memory: the result (samples × cell types × genes, in the type of X; twice with ``normalize``, less with
    ``materialize=False``), and about the size of X once more while fitting, with ``solver="admm"`` twice. Time per
    iteration does not depend on the number of genes.

    References
    ----------
    .. [1] Wang et al., ENIGMA: dEcoNvolutIon method based on reGularized MAtrix completion.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = L2MaxDeconvolver(reference=cohort.reference, renorm_size="auto").fit(cohort.bulk)
    >>> model.cse_.shape
    (40, 5, 200)
    >>> model.transform(cohort.bulk[:3]).shape
    (3, 1000)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **COMMON_CONSTRAINTS,
        "beta": [Interval(Real, 0, None, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="left")],
        "renorm_size": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"}), None],
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "solver": [StrOptions({"proximal", "admm", "accelerated"})],
    }

    def __init__(
        self,
        reference=None,
        *,
        alpha=0.1,
        beta=50.0,
        epsilon=1e-3,
        tao_k=1.0,
        renorm_size=200.0,
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
        self.alpha = alpha
        self.beta = beta
        self.epsilon = epsilon
        self.tao_k = tao_k
        self.renorm_size = renorm_size
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

    # what to turn when proximal steps are too long
    _steps, _safe_if = "tao_k or renorm_size", " without renormalisation"

    def _resolve(self, basis, bulk):
        if self.solver == "admm":
            self.gamma_ = self.gamma

    def _penalty(self, proportions):
        return MaxL2Norm(self.beta)

    def _tolerance(self, bulk):
        return self.epsilon

    def _trace_weights(self):
        return np.array([1.0, self.alpha, self.beta])

    def _searches_size(self):
        return self.solver == "proximal" and self.renorm_size == "auto"

    def _judge(self):
        size = getattr(self, "renorm_size_", None)
        if size is None or not self.gradient_norm_.size:
            return
        natural = self.gradient_norm_.mean()
        if natural > SHRINKING * size:
            warn(
                f"renorm_size={size:g} is far below the gradient norms of these data (mean {natural:.3g}): the "
                f"penalty outweighs the data, and the expression shrinks towards zero. Use renorm_size='auto'.",
            )

    def _n_runs(self):
        return 2 if self._searches_size() else 1

    def _prepare(self, settings, run):
        if self.solver != "proximal":
            return settings
        self.renorm_size_ = self.renorm_size
        if self._searches_size():
            norms = run(settings).gradient_norm
            # without an update, or with exact ones only, there is no size to rescale to
            self.renorm_size_ = float(norms.mean()) if norms.any() else None
        return replace(settings, renorm_size=self.renorm_size_)


class TraceNormDeconvolver(_Deconvolver):
    r"""Cell-type-specific expression by the trace-norm model of ENIGMA.

    Estimates, for a cohort of bulk samples, what every cell type expresses in every single sample: a tensor P
    that minimises

    .. math::

        \begin{aligned}
        F(P) = {} & \frac{\alpha}{2} \sum_j \| x_j - \sum_k \theta_{jk} p_{jk} \|^2 \\
            & + \frac{1 - \alpha}{2} \sum_k \| \mathrm{mean}_j(p_{jk}) - r_k \|^2 \\
            & + \beta \sum_k \bar\theta_k \| P_k \|_*
        \end{aligned}

    with bulk x, proportions θ of mean θ̄, and reference profiles r. The trace norm ‖P_k‖_*, the sum of the singular
    values of a cell type's samples × genes matrix, asks for few directions in which its samples differ.

    Parameters
    ----------
    reference : DataFrame or array-like of shape (n_cell_types, n_genes), default=None
        Expression profile of every cell type, on the scale of X. Genes are matched by name if both X and
        reference have string column names, else by position. None learns ``n_components`` profiles from X:
        the purest samples, by successive projection.
    alpha : float in [0, 1], default=0.5
        Weight of reconstructing the bulk; the weight of staying near the reference is 1 − alpha.
    beta : float or "auto", default=1.0
        Weight of the trace norm; larger values leave fewer directions. "auto" reads it off the noise in the bulk,
        see Notes.
    gamma : float or "auto", default="auto"
        Penalty parameter γ of the ADMM solvers. "auto" is the original's rule: 2 if the noise in the bulk is below
        1, else 0.5.
    epsilon : float or "auto", default="auto"
        The iteration ends when the mean squared change, over samples and genes, of every cell type is below this.
        "auto" is the original's rule: 1e-4 times the decimal magnitude of the bulk's median absolute value.
    tao_k : float or "auto", default=1.0
        Step length of ``solver="proximal"``. "auto" is the inverse of the smooth terms' Lipschitz constant, which
        cannot diverge.
    max_iter : int, default=1000
        Largest number of iterations.
    solver : {"admm", "admm_fast", "proximal"}, default="admm"
        How the objective is minimised: by the alternating direction method of multipliers with the exact solution
        of its quadratic part ("admm") or with one system per cell type ("admm_fast"), or by proximal gradient.
    n_components : int, default=2
        Number of profiles to learn if ``reference`` is None.
    proportion_estimator : transformer, default=None
        Estimates the proportions where none are given; fitted on the untransformed X. Its ``reference``, if
        None, becomes this one's. None is ``ProportionEstimator()``.
    preprocess : {None, "sqrt", "log"}, default=None
        Scale on which bulk and reference enter the model: as they are, square root, or log2(x + 1). Results are
        returned on the scale of X.
    positive : bool or "auto", default="auto"
        Whether to clip negative expression to 0 in the end. "auto": if neither X nor reference has a negative
        entry.
    normalize : {None, "frac", "pc", "quantile"}, default=None
        What to take out of the expression of each cell type in the end, on the scale of X; the result is
        ``cse_normalized_``, and what ``transform`` returns. "frac" removes, per gene, the linear effect of the cell
        type's proportion. "pc" removes the principal component that follows the proportion best. "quantile" gives
        all samples the same distribution over genes. Formulas stand in "The method", section "Normalisation".
    materialize : bool, default=True
        Whether ``fit`` builds ``cse_``. False keeps the expression in its compact form, from which
        ``cell_type_expression`` builds what is asked for: about the size of X instead of X times cell types.
    output_cell_types : array-like of str, default=None
        Cell types that ``transform`` returns, in this order; the others are not built. None returns all.
    verbose : int, default=0
        1 prints the trace of the iteration.

    Attributes
    ----------
    cse_ : ndarray of shape (n_samples, n_cell_types, n_genes)
        Cell-type-specific expression of the fitted cohort, on the scale of X. Only if ``materialize``.
    cse_normalized_ : ndarray of shape (n_samples, n_cell_types, n_genes)
        Only if ``normalize`` is given and ``materialize``.
    proportions_ : ndarray of shape (n_samples, n_cell_types)
        Proportions that were used.
    cell_types_ : ndarray of str, shape (n_cell_types,)
        Names of the cell types.
    gene_names_ : ndarray of str, shape (n_genes,)
        Genes in use: those shared by X and reference, in the order of X.
    reference_ : ndarray of shape (n_cell_types, n_genes)
        Profiles on these genes.
    loss_history_ : ndarray of shape (`n_iter_`, 3)
        The three terms of F, weighted, of the expression that went into each iteration.
    delta_history_ : ndarray of shape (`n_iter_`, n_cell_types)
        Squared change per cell type, summed over samples and genes.
    n_iter_ : int
        Number of iterations; the update of the last is not applied.
    converged_ : bool
        Whether the change fell below epsilon.
    beta_, gamma_, epsilon_, tao_k_ : float
        Values in use; ``gamma_`` of the ADMM solvers, ``tao_k_`` of "proximal".
    positive_ : bool
        Whether negative expression was clipped.
    proportion_estimator_ : estimator
        Fitted estimator of proportions.
    n_features_in_ : int
        Number of genes of X.
    feature_names_in_ : ndarray of str
        Genes of X, if it has names.

    Raises
    ------
    ValueError
        If X, reference or proportions do not fit together (the message names the first offenders), or the
        iteration diverges.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` ends the iteration.
    UserWarning
        If the proportion of a cell type is 0 in every sample, or X and reference share few genes.

    See Also
    --------
    L2MaxDeconvolver : The maximum-L2-norm model, faster and closer to the reference.

    Notes
    -----
    The iterations are those of the R function ``cell_deconvolve_trace`` of ENIGMA [1]_. All solvers minimise the
    same F; the original's ``proximalpoint`` with β and tao_k is ``solver="proximal"`` with β/2 and 2·tao_k.

    ``transform`` replays the fitted iteration for each row. Thresholding the singular values of a cohort's matrix
    M = U diag(σ) Vᵀ is a linear map of its rows, v ↦ v V diag(max(0, 1 − t/σ)) Vᵀ, so once the maps of every
    iteration are fixed, each row follows on its own. The maps are kept up to 128 MiB; beyond that the coordinates of
    the cohort are kept in their place and its iteration is repeated, with the same results to rounding. Either way a
    fitted model holds what amounts to the cohort.

    ``beta="auto"`` is α times the largest singular value that noise alone reaches, (1 + √r)·σ·√N with N the longer
    side of X, r the shorter over the longer, and the noise level σ estimated from the median singular value [2]_. The
    directions that the fit drops are then those that noise of this level would explain.

    Memory: the result, twice the size of X, and four copies of samples × cell types × min(genes, samples + cell
    types) while fitting. Time per iteration is that of one eigendecomposition of samples × samples per cell type.

    References
    ----------
    .. [1] Wang et al., ENIGMA: dEcoNvolutIon method based on reGularized MAtrix completion.
    .. [2] Gavish and Donoho (2014), The optimal hard threshold for singular values is 4/√3. IEEE Transactions on
       Information Theory 60.

    Examples
    --------
    >>> from skenigma import TraceNormDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = TraceNormDeconvolver(reference=cohort.reference).fit(cohort.bulk)
    >>> model.cse_.shape
    (40, 5, 200)
    >>> model.transform(cohort.bulk[:3]).shape
    (3, 1000)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **COMMON_CONSTRAINTS,
        "beta": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "epsilon": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "gamma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "solver": [StrOptions({"admm", "admm_fast", "proximal"})],
    }

    def __init__(
        self,
        reference=None,
        *,
        alpha=0.5,
        beta=1.0,
        gamma="auto",
        epsilon="auto",
        tao_k=1.0,
        max_iter=1000,
        solver="admm",
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
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.epsilon = epsilon
        self.tao_k = tao_k
        self.max_iter = max_iter
        self.solver = solver
        self.n_components = n_components
        self.proportion_estimator = proportion_estimator
        self.preprocess = preprocess
        self.positive = positive
        self.normalize = normalize
        self.materialize = materialize
        self.output_cell_types = output_cell_types
        self.verbose = verbose

    _steps, _safe_if = "tao_k", ""

    def _resolve(self, basis, bulk):
        values = cache(lambda: singular_values(basis.bulk))
        self.epsilon_ = automatic_epsilon(bulk) if self.epsilon == "auto" else self.epsilon
        self.beta_ = self.alpha * noise_edge(values(), bulk.shape) if self.beta == "auto" else self.beta
        if self.solver != "proximal":
            self.gamma_ = automatic_gamma(values(), bulk.shape) if self.gamma == "auto" else self.gamma

    def _penalty(self, proportions):
        return TraceNorm(self.beta_, proportions.mean(axis=0))

    def _tolerance(self, bulk):
        return self.epsilon_ * bulk.size

    def _trace_weights(self):
        return np.ones(3)
