"""The maximum-L2-norm model."""

from dataclasses import replace

import numpy as np

from .._parameters import (
    COMMON,
    NOT_NEGATIVE,
    POSITIVE,
    constraints,
    documented,
    set_parameters,
)
from ..checks.validation import StrOptions
from ..core.optimize.penalties import MaxL2Norm
from ..core.optimize.registry import SOLVERS
from ._optimised import OptimisedDeconvolver
from ._solving import Setting, SolverNames, pose, solver_parameter
from ._standing import norms_standing_for

# Mean gradient norm over renorm_size above which the fit is the penalty's. It is 0.9 in the published analysis;
# expression a thousand times as large with the same size has 1000, and shrinks to a thousandth of the bulk.
SHRINKING = 20


def l2max_setting(
    basis, proportions, shape, *, alpha, beta, epsilon, renorm_size, max_iter, solver, **parameters
):
    """What a fit with these parameters minimises and how; a ``renorm_size`` of "auto" has no number yet.

    Parameters
    ----------
    basis : SpanBasis
    proportions : ndarray of shape (n_samples, n_cell_types)
    shape : tuple of int
        Shape of the bulk.
    alpha, beta, epsilon, renorm_size, max_iter, solver
        As in :class:`L2MaxDeconvolver`.
    **parameters
        Those of the solvers: tao_k, gamma.

    Returns
    -------
    setting : Setting
    """
    penalty, entry = MaxL2Norm(beta), SOLVERS[solver]
    parameter, _ = solver_parameter(entry, parameters, pose(basis, proportions, alpha, penalty), shape)
    size = renorm_size if entry.rescales and renorm_size != "auto" else None
    return Setting(alpha, penalty, solver, parameter, epsilon, max_iter, size)


@documented
class L2MaxDeconvolver(OptimisedDeconvolver):
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
    {reference}
    {alpha}
    beta : float, default=50.0
        Weight of the penalty; larger values shorten and stabilise.
    epsilon : float, default=1e-3
        When to stop. "proximal" and the ADMM solvers: when the squared change of every cell type is below this (in
        squared units of the expression: it grows with the data). "accelerated": when F is proven to be within this
        share of its minimum, by a duality gap, whatever the units.
    {tao_k}
    renorm_size : float, "auto" or None, default=200.0
        Frobenius norm to which ``solver="proximal"`` rescales both gradients in every iteration. None uses them as
        they are.
        "auto" is the mean gradient norm of a first run without rescaling, the published way to find 200.
    {max_iter}
    gamma : float, default=2.0
        Penalty parameter γ of the ADMM solvers: how strongly the two copies of the expression are held together.
    solver : {"proximal", "admm", "admm_fast", "accelerated"}, default="proximal"
        How the objective is minimised: by the published proximal-gradient iteration; by the alternating direction
        method of multipliers with the exact solution of its quadratic part ("admm") or with one system per cell type
        ("admm_fast"); or by an accelerated proximal gradient that proves how close it came. Only "proximal" has a
        step length and renormalisation; with renormalisation it does not minimise F.
    {common}
    verbose : int, default=0
        1 prints the trace of the iteration in the published form.
    {init}
    {calibrate}
    {n_samples_of_settings}

    Attributes
    ----------
    {fitted}
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
    {converged_}
    renorm_size_, tao_k_, gamma_ : float or None
        Values in use; the first two of "proximal", ``gamma_`` of the ADMM solvers.

    Raises
    ------
    {optimised_errors}

    Warns
    -----
    {optimised_warnings}

    See Also
    --------
    TraceNormDeconvolver : The trace-norm model.
    ProportionEstimator : The default estimator of proportions.

    Notes
    -----
    The iteration is the one in the R function ``cell_deconvolve`` in the analysis scripts of ENIGMA [1]_,
    with one difference: a gradient that is zero up to rounding is not rescaled to ``renorm_size``. The
    original rescales it, and so begins with a step along noise.

    ``solver="admm"`` and ``solver="accelerated"`` minimise the same F. The original's ADMM has data terms with 1/2:
    its β and γ are half of those here.

    ``transform`` repeats the fitted iteration for each row: its step factors, shared shifts and caps are all
    that a sample needs from the cohort. So the result of a row does not depend on other rows, rows of the
    cohort get the values of the fit, and scores on held-out samples are valid. The cohort itself is not kept;
    its expression is, in ``cse_``.

    Memory: the result (samples × cell types × genes, in the type of X; twice with ``normalize``, less with
    ``materialize=False``), and about the size of X once more while fitting, with ``solver="admm"`` twice. Of an X
    that is read by rows, which "proximal" and "accelerated" can do, no more than some blocks, and twice the
    coordinates of the samples along the directions that they share: some hundred numbers per cell type. Time per
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
        **constraints(*COMMON, "alpha", "tao_k", "max_iter", "init", "calibrate", "n_samples_of_settings"),
        "beta": [NOT_NEGATIVE],
        "epsilon": [NOT_NEGATIVE],
        "renorm_size": [POSITIVE, StrOptions({"auto"}), None],
        "gamma": [POSITIVE],
        "solver": [SolverNames()],
    }

    def __init__(
        self, reference=None, *, alpha=0.1, beta=50.0, epsilon=1e-3, tao_k=1.0, renorm_size=200.0, max_iter=1000,
        gamma=2.0, solver="proximal", n_components=2, proportion_estimator=None, preprocess=None, positive="auto",
        normalize=None, materialize=True, output_cell_types=None, verbose=0, init=None, calibrate=False,
        n_samples_of_settings=None,
    ):  # fmt: skip
        set_parameters(self, locals())

    _penalty_type = MaxL2Norm
    _steps, _safe_if = "tao_k or renorm_size", " without renormalisation"

    def _posed_penalty(self, cohort, basis, params):
        return MaxL2Norm(params["beta"]), {}

    def _tolerance(self, cohort, solver, params):
        return params["epsilon"], {}

    def _setting(self, cohort, basis, start, params, penalty, found):
        setting, found = super()._setting(cohort, basis, start, params, penalty, found)
        size = params["renorm_size"]
        if not self._solver.rescales or size == "auto":
            return setting, found
        return replace(setting, renorm_size=size), {**found, "renorm_size_": size}

    def _searches_size(self):
        return self._solver.rescales and self.renorm_size == "auto"

    def _n_runs(self):
        return 2 if self._searches_size() else 1

    def _chosen(self, posed, run, n_samples):
        if not self._searches_size():
            return posed()

        def second(norms):
            return posed(renorm_size=self._size_of(norms, n_samples))

        first = run(replace(posed(renorm_size=None)[0], followed_by=lambda norms: second(norms)[0]))
        setting, found = second(first.gradient_norm)
        return replace(setting, frame=first.frame), found

    def _size_of(self, norms, n_samples):
        """The size to rescale gradients to, from their norms in a run without; None where there is none."""
        if self.n_samples_of_settings is not None:
            norms = norms * norms_standing_for(self.n_samples_of_settings / n_samples)
        # without an update, or with exact ones only, there is no size to rescale to
        return float(norms.mean()) if norms.any() else None

    def _level_remedy(self):
        size, norms = getattr(self, "renorm_size_", None), getattr(self, "gradient_norm_", np.empty(0))
        if size is None or not norms.size or norms.mean() <= SHRINKING * size:
            return super()._level_remedy()
        return (
            f"renorm_size={size:g} is far below the gradient norms of these data (mean {norms.mean():.3g}): the "
            f"penalty outweighs the data, and the expression shrinks towards zero. Use renorm_size='auto'. "
            f"{super()._level_remedy()}"
        )

    def _trace_weights(self):
        return np.array([1.0, self.alpha, self.beta])
