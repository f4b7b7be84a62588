"""Estimators that do what the editions of the R package do beside minimising."""

import numpy as np

from .._parameters import constraints, documented, set_parameters
from ..checks.names import listing
from ..checks.warning import warn
from ..deconvolution import L2MaxDeconvolver, TraceNormDeconvolver
from ..expression._derived import fit_normalized

# Sum over genes to which edition 0.1.6 scales every sample and every profile.
TOTAL = 1e5
# Rank correlation with the proportions that edition 0.1.6 asks of a principal component.
LEAST_AGREEMENT = 0.9


def without_size(model):
    """Constraints of a model's parameters, but of what an edition does not have."""
    return {k: v for k, v in model._parameter_constraints.items() if k != "n_samples_of_settings"}


class PackageEdition:
    """What the editions have in common: mixed into an optimised model, in front of it."""

    n_samples_of_settings = None  # an edition takes its settings as they are

    @property
    def _is_later(self):
        return self.edition == "0.1.6"

    @property
    def _masked(self):
        return self._is_later

    def _scaled(self, values, what, names):
        if self._is_later and self.do_cpm:
            values = self._with_total(values, what, names)
        return super()._scaled(values, what, names)

    @staticmethod
    def _with_total(values, what, names):
        """Rows scaled to one total over the genes in use."""
        totals = values.sum(axis=1, dtype=np.float64)
        wrong = np.flatnonzero(~(totals > 0))
        if len(wrong):
            shown = listing([row if names is None else names[row] for row in wrong])
            raise ValueError(
                f"{what} has no positive total in {shown}: edition 0.1.6 divides by it. Leave such rows out, or set "
                f"do_cpm=False."
            )
        return values * (TOTAL / totals)[:, None].astype(values.dtype)

    def _find_absent(self, proportions):
        absent = ~np.any(proportions > 0, axis=0)
        if absent.any():
            warn(
                f"The proportion of {listing(self.cell_types_[absent])} is 0 in every sample: the bulk holds no "
                f"information on it, and its expression, as in the R package, is what the penalty and the reference "
                f"make of the bulk.",
            )
        return np.zeros_like(absent)

    def _fit_normalization(self):
        fitted = super()._fit_normalization()
        if not (self._is_later and self.normalize == "pc"):
            return fitted
        agreement = np.array([of_type.agreement for of_type in fitted])
        weak = agreement < LEAST_AGREEMENT
        if not weak.any():
            return fitted
        warn(
            f"No principal component of the expression of {listing(self.cell_types_[weak])} follows its proportion "
            f"(rank correlation at most {agreement[weak].min():.2f}, edition 0.1.6 asks for {LEAST_AGREEMENT}): all "
            f"cell types are normalised as by 'frac'.",
        )
        return fit_normalized(self.expression_, "frac")


def is_masked(model):
    """Whether a model holds the expression at 0 where the bulk is 0."""
    return model._masked


@documented
class PackageL2MaxDeconvolver(PackageEdition, L2MaxDeconvolver):
    """Maximum-L2-norm model as an edition of the R package has it: what :func:`enigma_l2_max_norm` returns.

    Parameters
    ----------
    {reference}
    {edition}
    {do_cpm}
    {alpha}
    beta, epsilon : float, default=50.0, 1e-3
        As of :class:`~skenigma.L2MaxDeconvolver`.
    {tao_k}
    renorm_size : float, "auto" or None, default=200.0
        As of :class:`~skenigma.L2MaxDeconvolver`.
    {max_iter}
    gamma : float, default=2.0
        As of :class:`~skenigma.L2MaxDeconvolver`.
    solver : {"proximal", "admm", "admm_fast", "accelerated"}, default="proximal"
        As of :class:`~skenigma.L2MaxDeconvolver`; edition 0.1.6 needs one of the first three.
    {common}
    {init}
    {calibrate}

    Attributes
    ----------
    {fitted}
    loss_history_, gradient_norm_, delta_history_, n_iter_, converged_, renorm_size_, tao_k_, gamma_ : object
        As of :class:`~skenigma.L2MaxDeconvolver`.

    Raises
    ------
    ValueError
        As :class:`~skenigma.L2MaxDeconvolver`; and if a sample or profile has no positive total, or ``solver`` cannot
        hold expression at 0.

    Warns
    -----
    {edition_warnings}

    See Also
    --------
    enigma_l2_max_norm : The same by the arguments of the R function, with the size of its steps.

    Notes
    -----
    Both editions leave the expression of a cell type that no sample contains to the model, where
    :class:`~skenigma.L2MaxDeconvolver` returns its profile. Edition 0.1.6, for which no output of R is recorded,
    follows its formulas besides:

    - ``do_cpm``, above.
    - The expression of a gene is 0 in samples whose bulk is 0 there: both gradients are set to 0 in these entries
      before their norms are taken.
    - ``normalize="pc"`` becomes "frac" for all cell types where the best component of one of them has a rank
      correlation below 0.9 with its proportion.

    Memory: the result in double precision, whatever the type of X, and twice the size of X; and a vector over genes
    per iteration and cell type, which ``transform`` needs. The time of an iteration is proportional to the number of
    genes: what is held at 0 cannot be compressed.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.presets import PackageL2MaxDeconvolver
    >>> rng = np.random.default_rng(0)
    >>> reference = rng.gamma(1.0, 100.0, (3, 50))
    >>> bulk = rng.poisson(rng.dirichlet([2, 2, 2], 20) @ reference / 20)
    >>> model = PackageL2MaxDeconvolver(reference, preprocess="sqrt", renorm_size=None, beta=1.0).fit(bulk)
    >>> bool((model.cse_[:, 0][bulk == 0] == 0).all())
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **without_size(L2MaxDeconvolver),
        **constraints("edition", "do_cpm"),
    }

    def __init__(
        self, reference=None, *, edition="0.1.6", do_cpm=True, alpha=0.1, beta=50.0, epsilon=1e-3, tao_k=1.0,
        renorm_size=200.0, max_iter=1000, gamma=2.0, solver="proximal", n_components=2, proportion_estimator=None,
        preprocess=None, positive="auto", normalize=None, materialize=True, output_cell_types=None, verbose=0,
        init=None, calibrate=False,
    ):  # fmt: skip
        set_parameters(self, locals())


@documented
class PackageTraceNormDeconvolver(PackageEdition, TraceNormDeconvolver):
    """Trace-norm model as an edition of the R package has it: what :func:`enigma_trace_norm` returns.

    Parameters
    ----------
    {reference}
    {edition}
    {do_cpm}
    {alpha}
    beta, gamma, epsilon : float or "auto", default=1.0, "auto", "auto"
        As of :class:`~skenigma.TraceNormDeconvolver`.
    {tao_k}
    {max_iter}
    solver : {{"admm", "admm_fast", "proximal", "accelerated"}, default="admm"
        As of :class:`~skenigma.TraceNormDeconvolver`; edition 0.1.6 needs one of the first three.
    {common}
    {init}
    {calibrate}

    Attributes
    ----------
    {fitted}
    loss_history_, delta_history_, n_iter_, converged_, beta_, gamma_, epsilon_, tao_k_ : object
        As of :class:`~skenigma.TraceNormDeconvolver`.

    Raises
    ------
    ValueError
        As :class:`~skenigma.TraceNormDeconvolver`; and if a sample or profile has no positive total, or ``solver``
        cannot hold expression at 0.

    Warns
    -----
    {edition_warnings}

    See Also
    --------
    enigma_trace_norm : The same by the arguments of the R function.

    Notes
    -----
    The editions are described at :class:`PackageL2MaxDeconvolver`, except for the mask: here the result of
    each step, the expression and with ADMM its shrunk copy, is set to 0 where the bulk is 0. So the iteration
    no longer applies a proximal operator, and need not converge to a minimum.

    Edition 0.1.6 has a second condition for the end of its iteration, on a condition number, which it cannot compute
    as installed. It is left out.

    Memory: up to four copies of samples × cell types × genes in double precision, none of them compressed.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.presets import PackageTraceNormDeconvolver
    >>> rng = np.random.default_rng(0)
    >>> reference = rng.gamma(1.0, 100.0, (3, 50))
    >>> bulk = rng.poisson(rng.dirichlet([2, 2, 2], 20) @ reference / 20)
    >>> model = PackageTraceNormDeconvolver(reference, preprocess="log").fit(bulk)
    >>> bool((model.cse_[:, 0][bulk == 0] == 0).all())
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **without_size(TraceNormDeconvolver),
        **constraints("edition", "do_cpm"),
    }

    def __init__(
        self, reference=None, *, edition="0.1.6", do_cpm=True, alpha=0.5, beta=1.0, gamma="auto", epsilon="auto",
        tao_k=1.0, max_iter=1000, solver="admm", n_components=2, proportion_estimator=None, preprocess=None,
        positive="auto", normalize=None, materialize=True, output_cell_types=None, verbose=0, init=None,
        calibrate=False,
    ):  # fmt: skip
        set_parameters(self, locals())
