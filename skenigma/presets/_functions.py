"""Functions with the names, arguments and defaults of the R package's."""

from typing import Any

import numpy as np

from .._docstrings import filled
from .._typing import Estimator, Table
from ..deconvolution._flow import fitted_map
from ._editions import PackageL2MaxDeconvolver, PackageTraceNormDeconvolver, is_masked

# Norm to which the package rescales both gradients, and factor of beta in its proximal step.
PACKAGE_SIZE = 1e5
# Arguments of the trace norm whose defaults differ between the editions.
TRACE_DEFAULTS: dict[str, dict] = {
    "0.1.5": {"gamma": "auto", "epsilon": "auto", "solver": "admm"},
    "0.1.6": {"gamma": 0.5, "epsilon": 1e-3, "solver": "proximalpoint"},
}

# Entries that the docstrings of this module share.
ENTRIES = {
    "reference": """reference : DataFrame or array-like of shape (n_cell_types, n_genes), default=None
    Expression profile of every cell type. Cell types are rows here, columns in R.""",
    "alpha": """alpha : float in [0, 1], default=0.5
    Weight of reconstructing the bulk.""",
    "max_iter": """max_iter : int, default=1000
    Largest number of iterations, R's ``max.iter``.""",
    "output": """norm_method : {"frac", "PC", "quantile"}, default="frac"
    R's ``Norm.method``.
pos : bool, default=True
    Whether to clip negative expression to 0.""",
    "later": """do_cpm : bool, default=True
    Of edition 0.1.6: whether to scale samples and profiles to a total of 1e5.
calibrate : bool, default=True
    Of edition 0.1.6, with ``pos``: whether to bring the mean total of every cell type to that of the bulk.""",
}


@filled(ENTRIES)
def enigma_l2_max_norm(
    reference: Table | None = None,
    *,
    preprocess: str | None,
    edition: str = "0.1.5",
    alpha: float = 0.5,
    tao_k: float = 0.01,
    beta: float = 0.1,
    epsilon: float = 1e-3,
    max_iter: int = 1000,
    norm_method: str = "frac",
    pos: bool = True,
    X_int: Any = None,
    do_cpm: bool = True,
    calibrate: bool = True,
) -> PackageL2MaxDeconvolver:
    r"""Estimator that does what ``ENIGMA_L2_max_norm`` of the R package does.

    Parameters
    ----------
    {reference}
    preprocess : {"sqrt", "log", None}
        Scale on which the model is fitted. Required, because results differ much and the parameters that suit one
        scale do not suit the other. None, R's ``"none"``, fails in the R package.
    edition : {"0.1.5", "0.1.6"}, default="0.1.5"
        Edition of the R package, see :class:`PackageL2MaxDeconvolver`.
    {alpha}
    tao_k : float, default=0.01
        Step length.
    beta : float, default=0.1
        Weight of the penalty, as passed in R.
    epsilon : float, default=1e-3
        The iteration ends when the squared change of every cell type is below this.
    {max_iter}
    {output}
    X_int : float, array-like or callable, default=None
        Where the iteration starts, as ``init`` of :class:`~skenigma.L2MaxDeconvolver`; None is the bulk.
    {later}

    Returns
    -------
    model : PackageL2MaxDeconvolver
        An :class:`~skenigma.L2MaxDeconvolver`, not fitted. ``cse_`` is R's ``result_CSE`` and
        ``cse_normalized_`` its ``result_CSE_normalized``, both with axes (samples, cell types, genes).

    See Also
    --------
    enigma_losses : The loss history as the package reports it.
    enigma_trace_norm : The trace-norm model.

    Notes
    -----
    The package rescales both gradients to a Frobenius norm of 1e5 in every iteration and multiplies β by 1e5 in the
    proximal step, so this is

    .. code-block:: python

        L2MaxDeconvolver(
            reference, alpha=alpha, beta=1e5 * beta, tao_k=tao_k, renorm_size=1e5, epsilon=epsilon,
            max_iter=max_iter, preprocess=preprocess, positive=pos, normalize=norm_method.lower(), init=X_int,
        )

    with what an edition adds to that, see :class:`PackageL2MaxDeconvolver`.

    Two things differ. A gradient that is zero up to rounding is not rescaled: the package's first step goes along
    rounding noise, so that its own result moves by 1e-5 to 1e-4 when the bulk changes in the last bit; results agree
    to that. Where the first gradient is a true one they agree to 1e-13. And the package aborts with a "Convergence
    Error" when the largest squared change has grown, by more than 2, over ten steps; here the iteration goes on, and
    warns if it does not converge.

    The proportions, which in R are part of the object, are given to ``fit``, or estimated by the same robust
    regression as R's ``get_cell_proportion(method = "RLR")``.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.presets import enigma_l2_max_norm
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = enigma_l2_max_norm(cohort.reference, preprocess="sqrt", beta=0.01)
    >>> model.renorm_size, model.beta
    (100000.0, 1000.0)
    """
    return PackageL2MaxDeconvolver(
        reference,
        edition=edition,
        do_cpm=do_cpm,
        calibrate=calibrate and pos and edition == "0.1.6",
        alpha=alpha,
        beta=PACKAGE_SIZE * beta,
        tao_k=tao_k,
        renorm_size=PACKAGE_SIZE,
        epsilon=epsilon,
        max_iter=max_iter,
        preprocess=preprocess,
        positive=pos,
        normalize=_normalization(norm_method),
        init=X_int,
    )


@filled(ENTRIES)
def enigma_trace_norm(
    reference: Table | None = None,
    *,
    preprocess: str | None,
    edition: str = "0.1.5",
    alpha: float = 0.5,
    beta: float = 1.0,
    tao_k: float = 1.0,
    gamma: float | str | None = None,
    epsilon: float | str | None = None,
    max_iter: int = 1000,
    solver: str | None = None,
    norm_method: str = "frac",
    pos: bool = True,
    X_int: Any = None,
    do_cpm: bool = True,
    calibrate: bool = True,
) -> PackageTraceNormDeconvolver:
    """Estimator that does what ``ENIGMA_trace_norm`` of the R package does, by default with ``X_int = NULL``.

    Parameters
    ----------
    {reference}
    preprocess : {"sqrt", "log", None}
        Scale on which the model is fitted, see :func:`enigma_l2_max_norm`.
    edition : {"0.1.5", "0.1.6"}, default="0.1.5"
        Edition of the R package, see :class:`PackageTraceNormDeconvolver`.
    {alpha}
    beta : float, default=1.0
        Weight of the penalty, as passed in R.
    tao_k : float, default=1.0
        Step length of ``solver="proximalpoint"``, as passed in R.
    gamma : float or "auto", default=None
        Penalty parameter of the ADMM solvers. None is the edition's default, "auto" or 0.5.
    epsilon : float or "auto", default=None
        The iteration ends when the mean squared change of every cell type is below this. None is the edition's
        default, "auto" or 0.001.
    {max_iter}
    solver : {"admm", "admm_fast", "proximalpoint"}, default=None
        As in R, where "proximalpoint" fails in edition 0.1.5, which lacks a function of the scripts. None is the
        edition's default, "admm" or "proximalpoint".
    {output}
    X_int : False, float, array-like or callable, default=None
        Where the iteration starts, as ``init`` of :class:`~skenigma.TraceNormDeconvolver`. None, in R ``NULL``, is
        the bulk; False, the default of the R package's edition 0.1.5, is zero.
    {later}

    Returns
    -------
    model : PackageTraceNormDeconvolver
        A :class:`~skenigma.TraceNormDeconvolver`, not fitted. ``cse_`` is R's ``result_CSE`` and
        ``cse_normalized_`` its ``result_CSE_normalized``, both with axes (samples, cell types, genes).

    See Also
    --------
    enigma_l2_max_norm : The maximum-L2-norm model.

    Notes
    -----
    Every solver of :class:`~skenigma.TraceNormDeconvolver` minimises one objective. R's "proximalpoint" has data
    terms without the 1/2 of the others, so its β is twice, and its step length half, of those here.

    Edition 0.1.5 starts at zero by default (``X_int = FALSE``), and at the bulk with ``X_int = NULL``, as its scripts
    and all estimators here do. Its stopping rule ends the two far from each other.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.presets import enigma_trace_norm
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = enigma_trace_norm(cohort.reference, preprocess="log", solver="proximalpoint", tao_k=0.5)
    >>> model.solver, model.beta, model.tao_k
    ('proximal', 0.5, 1.0)
    """
    defaults = TRACE_DEFAULTS.get(edition, TRACE_DEFAULTS["0.1.5"])  # another edition is refused by fit
    given = {"gamma": gamma, "epsilon": epsilon, "solver": solver}
    chosen = {name: defaults[name] if value is None else value for name, value in given.items()}
    is_gradient = chosen["solver"] == "proximalpoint"
    return PackageTraceNormDeconvolver(
        reference,
        edition=edition,
        do_cpm=do_cpm,
        calibrate=calibrate and pos and edition == "0.1.6",
        alpha=alpha,
        beta=beta / 2 if is_gradient else beta,
        tao_k=2 * tao_k if is_gradient else 1.0,
        gamma=chosen["gamma"],
        epsilon=chosen["epsilon"],
        max_iter=max_iter,
        solver="proximal" if is_gradient else chosen["solver"],
        preprocess=preprocess,
        positive=pos,
        normalize=_normalization(norm_method),
        init="zero" if X_int is False else X_int,
    )


def enigma_losses(model: Estimator, X: Table, *, proportions: Table | None = None) -> np.ndarray:
    r"""Loss history of a fitted model as ``ENIGMA_L2_max_norm`` reports it.

    Parameters
    ----------
    model : L2MaxDeconvolver
        From :func:`enigma_l2_max_norm`, fitted.
    X : array-like or DataFrame of shape (n_samples, n_genes)
        The bulk to which it was fitted.
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types), default=None
        Proportions that were given to ``fit``.

    Returns
    -------
    losses : ndarray of shape (n_iter, 3)
        Of every iteration :math:`\frac\alpha2 \sum_j \|x_j - \sum_k \theta_{jk} p_{jk}\|^2`,
        :math:`\frac{1-\alpha}2 \sum_k \|\mathrm{mean}_j(p_{jk}) - r_k\|^2`, and
        :math:`\frac\beta2 \sum_k \max_j \|p_{jk}\|^2` with the β passed in R.

    Raises
    ------
    ValueError
        If the model has not rescaled its gradients to the package's size.

    Notes
    -----
    ``loss_history_`` has the losses of the scripts: unweighted, and in the second column the distance of every sample
    to the reference instead of the distance of their mean. The latter is n/4 times the squared norm of the second
    gradient, for the iterations whose update was applied. For the last it is what the others leave of the objective.

    The package's own rows differ from the second on, by 6 % at most and 1e-5 in the last, because its first
    step goes along rounding noise. That step cannot be reproduced: it depends on the rounding of one
    machine's linear algebra.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.presets import enigma_l2_max_norm, enigma_losses
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> counts, profiles = 2**cohort.bulk, 2**cohort.reference
    >>> model = enigma_l2_max_norm(profiles, preprocess="log", beta=1.0).fit(counts)
    >>> enigma_losses(model, counts).shape == model.loss_history_.shape
    True
    """
    if getattr(model, "renorm_size_", None) != PACKAGE_SIZE:
        raise ValueError(
            f"The losses of ENIGMA_L2_max_norm are those of a fitted L2MaxDeconvolver with "
            f"renorm_size={PACKAGE_SIZE:g}: get it from enigma_l2_max_norm and fit it first."
        )
    residual, _, largest = model.loss_history_.T
    residual, penalty = model.alpha / 2 * residual, model.beta / 2 * largest
    n_samples = len(model.proportions_)
    offset = (1 - model.alpha) / 2 * _offsets(model)
    objective = -model.score(X, proportions=proportions) * n_samples * len(model.gene_names_)
    last = (objective - 2 * residual[-1] - penalty[-1]) / 2
    return np.column_stack([residual, np.append(offset, last), penalty / PACKAGE_SIZE])


def _offsets(model):
    """Squared distance of the mean to the reference, of the expression before each applied update."""
    n_samples, norms = len(model.proportions_), model.gradient_norm_[:, 1]
    if not is_masked(model):
        return n_samples / 4 * norms**2
    # a mask leaves a part of it out of the gradient, but not of the shift, which samples mask for themselves
    reach = PACKAGE_SIZE / norms * model.tao_k_ * (1 - model.alpha) * 2 / n_samples
    shifts = np.array([np.linalg.norm(shift) for shift in fitted_map(model).iteration.shifts])
    return np.divide(shifts, reach, out=np.zeros_like(norms), where=reach > 0) ** 2


def _normalization(norm_method):
    """Value of ``normalize`` for R's ``Norm.method``."""
    return norm_method.lower() if isinstance(norm_method, str) else norm_method
