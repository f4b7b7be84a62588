"""The trace-norm model."""

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
from ..core.optimize.penalties import TraceNorm
from ..core.optimize.spectrum import automatic_epsilon, noise_edge, singular_values
from ._optimised import OptimisedDeconvolver
from ._solving import SolverNames

# Share of the objective that "auto" asks an iteration with a certificate to prove. On the published data the
# alternating direction method stops at shares of 1e-1 (beta=1) to 1e-3 ("auto").
CERTIFIED = 1e-4


@documented
class TraceNormDeconvolver(OptimisedDeconvolver):
    r"""Cell-type-specific expression by the trace-norm model of ENIGMA.

    Estimates, for a cohort of bulk samples, what every cell type expresses in every single sample: a tensor P
    that minimises

    .. math::

        \begin{aligned}
        F(P) = {} & \frac{\alpha}{2} \sum_j \| x_j - \sum_k \theta_{jk} p_{jk} \|^2 \\
            & + \frac{1 - \alpha}{2} \sum_k \| \mathrm{mean}_j(p_{jk}) - r_k \|^2 \\
            & + \beta \sum_k \bar\theta_k \| P_k \|_*
        \end{aligned}

    with bulk x, proportions θ of mean θ̄, and reference profiles r. The trace norm ‖P_k‖_*, the sum of the
    singular values of a cell type's samples × genes matrix, favours solutions in which its samples differ
    along few directions.

    Parameters
    ----------
    {reference}
    {alpha}
    beta : float or "auto", default=1.0
        Weight of the trace norm; larger values leave fewer directions. "auto" reads it off the noise in the bulk: not
        for real expression, see Notes.
    gamma : float or "auto", default="auto"
        Penalty parameter γ of the ADMM solvers. "auto" is the original's rule: 2 if its measure of the noise in
        the bulk, made for fewer samples than genes and used for any, is below 1, else 0.5.
    epsilon : float or "auto", default="auto"
        The iteration ends when the mean squared change, over samples and genes, of every cell type is below this.
        "auto" is the original's rule: 1e-4 times the decimal magnitude of the bulk's median absolute value.
        "accelerated": when F is proven to be within this share of its minimum, by a duality gap, whatever the units;
        "auto" is 1e-4.
    tao_k : float or "auto", default=1.0
        Step length of ``solver="proximal"``. "auto" is the inverse of the smooth terms' Lipschitz constant, which
        cannot diverge.
    {max_iter}
    solver : {"admm", "admm_fast", "proximal", "accelerated"}, default="admm"
        How the objective is minimised: by the alternating direction method of multipliers with the exact solution
        of its quadratic part ("admm") or with one system per cell type ("admm_fast"), by proximal gradient, or by an
        accelerated proximal gradient that proves how close it came.
    {common}
    {init}
    {calibrate}
    {n_samples_of_settings}

    Attributes
    ----------
    {fitted}
    loss_history_ : ndarray of shape (`n_iter_`, 3)
        The three terms of F, weighted, of the expression that went into each iteration; formed, by repeating the
        iteration, when first asked for.
    delta_history_ : ndarray of shape (`n_iter_`, n_cell_types)
        Squared change per cell type, summed over samples and genes.
    n_iter_ : int
        Number of iterations; the update of the last is not applied.
    {converged_}
    beta_, gamma_, epsilon_, tao_k_ : float
        Values in use; ``gamma_`` of the ADMM solvers, ``tao_k_`` of "proximal".

    Raises
    ------
    {optimised_errors}

    Warns
    -----
    {optimised_warnings}

    See Also
    --------
    L2MaxDeconvolver : The maximum-L2-norm model, faster and closer to the reference.

    Notes
    -----
    The iterations are those of the R function ``cell_deconvolve_trace`` of ENIGMA [1]_. All solvers minimise the
    same F; the original's ``proximalpoint`` with β and tao_k is ``solver="proximal"`` with β/2 and 2·tao_k.

    ``transform`` replays the fitted iteration for each row. Thresholding the singular values of a cohort's
    matrix M = U diag(σ) Vᵀ is a linear map of its rows, v ↦ v V diag(max(0, 1 − t/σ)) Vᵀ, so once the maps of
    every iteration are fixed, each row follows on its own. The maps are kept up to 128 MiB; beyond that the
    coordinates of the cohort are kept in their place and its iteration is repeated, with the same results to
    rounding. Either way, a fitted model contains information equivalent to the cohort.

    ``beta="auto"`` is α times the largest singular value that noise alone reaches, (1 + √r)·σ·√N with N the
    longer side of X, r the shorter over the longer, and the noise level σ estimated from the median singular
    value [2]_. The directions that the fit drops are then those that noise of this level would explain. It
    has the smallest error on simulated cohorts of the published recipe. On two real cohorts with known truth
    it followed genes over samples less well than ``beta=1``, on every scale, and no multiple of it was better
    than a weight with hardly any effect: see "What the estimates cannot tell" in the user guide.

    Counts per million, TPM and other values of wide range need ``preprocess="log"`` or "sqrt": on the 20
    blood samples of GSE60424 (10,067 genes) "admm" takes 62 steps with the first, 245 with the second, and
    does not converge within 1,000 on untransformed values.

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
        **constraints(*COMMON, "alpha", "tao_k", "max_iter", "init", "calibrate", "n_samples_of_settings"),
        "beta": [NOT_NEGATIVE, StrOptions({"auto"})],
        "epsilon": [NOT_NEGATIVE, StrOptions({"auto"})],
        "gamma": [POSITIVE, StrOptions({"auto"})],
        "solver": [SolverNames()],
    }

    def __init__(
        self, reference=None, *, alpha=0.5, beta=1.0, gamma="auto", epsilon="auto", tao_k=1.0, max_iter=1000,
        solver="admm", n_components=2, proportion_estimator=None, preprocess=None, positive="auto", normalize=None,
        materialize=True, output_cell_types=None, verbose=0, init=None, calibrate=False, n_samples_of_settings=None,
    ):  # fmt: skip
        set_parameters(self, locals())

    _penalty_type = TraceNorm

    def _penalty(self, cohort, beta):
        return TraceNorm(beta, cohort.proportions.mean(axis=0))

    # the trace norm of samples that occur c times is √c times as large, and epsilon bounds a mean
    _growth = {"growth": 0.5, "summed": False}  # noqa: RUF012 - never changed

    def _posed_penalty(self, cohort, basis, params):
        beta = params["beta"]
        if beta == "auto":
            beta = params["alpha"] * noise_edge(singular_values(basis.bulk), cohort.bulk.shape)
        return self._penalty(cohort, beta), {"beta_": beta}

    def _tolerance(self, cohort, solver, params):
        epsilon = params["epsilon"]
        if epsilon == "auto":
            epsilon = CERTIFIED if solver.certifies else automatic_epsilon(cohort.bulk)
        tolerance = epsilon if solver.certifies else epsilon * cohort.bulk.size
        return tolerance, {"epsilon_": epsilon}

    def _remedy(self, text):
        if self.preprocess is None and self.positive_:
            text = f"{text} Counts per million and TPM need preprocess='sqrt' or 'log'."
        return super()._remedy(text)

    def _trace_weights(self):
        return np.ones(3)
