"""What settings made for a cohort of one size mean in one of another."""

from ..core.optimize.registry import SOLVERS

# Samples of the published analysis, for which the defaults of the optimised models were chosen.
PUBLISHED_SAMPLES = 100
# What depends on the number of samples.
SETTINGS = ("alpha", "beta", "epsilon", "tao_k", "gamma", "renorm_size")


def standing_for(factor, params, *, growth=0.0, summed=True):
    """Change parameters so that every sample of a cohort stands for ``factor`` samples like it.

    Parameters
    ----------
    factor : float
        Samples that each one stands for.
    params : dict
        Parameters of an optimised model: alpha, beta, tao_k, gamma, epsilon, solver, and renorm_size if it has one.
    growth : float, default=0
        With every sample c times in the cohort, the penalty is c**growth times as large: 0 for the largest norm over
        samples, 1/2 for the trace norm.
    summed : bool, default=True
        Whether epsilon bounds a sum over samples, or their mean.

    Returns
    -------
    params : dict
        What to fit with in their place. Anything that is "auto" stays so.

    Notes
    -----
    With every sample c times in the cohort, the objective is, summed over each once, c α Σ_j ‖e_j‖² +
    (1−α) Σ_k ‖m_k‖² + c^growth β times the penalty. Divided by w = c α + 1 − α it is the objective of the small
    cohort with c α/w for α and c^growth β/w for β. A step τ moves every sample by as much as one of τ w/c there, and
    the squared change, a sum over samples, is c times that of the small cohort. The quadratic term of ADMM is a sum
    over samples as well: γ becomes γ c/w.

    Rescaled gradients are steps of length s α and s (1−α), spread over √c times the norm: s becomes s/√c, and α and
    τ stay. The proximal operator has τ β/c for τ β in either case.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.deconvolution._standing import standing_for
    >>> params = L2MaxDeconvolver(alpha=0.5, renorm_size=None).get_params()
    >>> standing_for(4.0, params)["alpha"]
    0.8
    """
    alpha, size = params["alpha"], params.get("renorm_size")
    if size is None:
        total = factor * alpha + 1 - alpha
        alpha *= factor / total
        factors = {"beta": factor**growth / total, "tao_k": total / factor, "gamma": factor / total}
    else:
        factors = {"beta": 1 / factor, "renorm_size": factor**-0.5}
    if summed and not SOLVERS[params["solver"]].certifies:  # whose epsilon is a share
        factors["epsilon"] = 1 / factor
    changed = {name: by * params[name] for name, by in factors.items() if params[name] != "auto"}
    return {**params, "alpha": alpha, **changed}


def norms_standing_for(factor):
    """By how much the norms of the two gradients grow if every sample stands for ``factor`` like it."""
    # in that cohort the gradient of the residual has √c times the norm, that of the reference term 1/√c times
    return factor**0.5, factor**-0.5
