"""Estimators of cell-type-specific expression: parameters, and which penalty and solver they stand for."""

from ._base import BaseDeconvolver
from ._validation import HasMethods, Integral, Interval, Real, StrOptions
from .core.penalties import MaxL2Norm
from .core.solvers import proximal_gradient
from .proportions import ProportionEstimator


class L2MaxDeconvolver(BaseDeconvolver):
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
        The iteration ends when the squared change of every cell type is below this (in squared units of the
        expression: it grows with the data).
    tao_k : float or "auto", default=1.0
        Step length. "auto" is the inverse of the smooth terms' Lipschitz constant, which cannot diverge
        without renormalisation.
    renorm_size : float, "auto" or None, default=200.0
        Frobenius norm to which both gradients are rescaled in every iteration. None uses them as they are.
        "auto" is the mean gradient norm of a first run without rescaling, the published way to find 200.
    max_iter : int, default=1000
        Largest number of iterations.
    solver : {"proximal"}, default="proximal"
        How the objective is minimised: "proximal" is the published proximal-gradient iteration.
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
    normalize : {None, "frac"}, default=None
        "frac" removes, per gene, the linear effect of the cell type's proportion; the result is
        ``cse_normalized_``, and what ``transform`` returns.
    verbose : int, default=0
        1 prints the trace of the iteration in the published form.

    Attributes
    ----------
    cse_ : ndarray of shape (n_samples, n_cell_types, n_genes)
        Cell-type-specific expression of the fitted cohort, on the scale of X.
    cse_normalized_ : ndarray of shape (n_samples, n_cell_types, n_genes)
        Only if ``normalize`` is given.
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
        Whether the change fell below epsilon.
    renorm_size_, tao_k_ : float or None
        Values in use.
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

    See Also
    --------
    ProportionEstimator : The default estimator of proportions.

    Notes
    -----
    The iteration is that of the R function ``cell_deconvolve`` in the analysis scripts of ENIGMA [1]_, with one
    difference: a gradient that is zero but for rounding is not rescaled to ``renorm_size``. The original
    rescales it, and so begins with a step along noise.

    ``transform`` replays the fitted iteration for each row: its step factors, shared shifts and caps are all
    that a sample needs from the cohort. So a row's result depends on no other row, rows of the cohort come back
    as they were fitted, and held-out scores are honest. The cohort itself is not kept; its expression is, in
    ``cse_``.

    Memory: the result (samples × cell types × genes, in the type of X), and about three times the size of X
    while fitting. Time per iteration does not depend on the number of genes.

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
        "reference": ["array-like", None],
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="left")],
        "tao_k": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "renorm_size": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "solver": [StrOptions({"proximal"})],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "proportion_estimator": [HasMethods(["fit", "transform"]), None],
        "preprocess": [StrOptions({"sqrt", "log"}), None],
        "positive": ["boolean", StrOptions({"auto"})],
        "normalize": [StrOptions({"frac"}), None],
        "verbose": ["verbose"],
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
        solver="proximal",
        n_components=2,
        proportion_estimator=None,
        preprocess=None,
        positive="auto",
        normalize=None,
        verbose=0,
    ):
        self.reference = reference
        self.alpha = alpha
        self.beta = beta
        self.epsilon = epsilon
        self.tao_k = tao_k
        self.renorm_size = renorm_size
        self.max_iter = max_iter
        self.solver = solver
        self.n_components = n_components
        self.proportion_estimator = proportion_estimator
        self.preprocess = preprocess
        self.positive = positive
        self.normalize = normalize
        self.verbose = verbose

    def _penalty(self):
        return MaxL2Norm(self.beta)

    def _solver(self):
        return proximal_gradient

    def _default_proportion_estimator(self):
        return ProportionEstimator()
