"""Which model suits data that nobody has named one for; AnnData and the command line ask here."""

from dataclasses import dataclass

from ..checks.names import listing
from ..checks.units import look_at
from ._factor import FactorDeconvolver
from ._l2max import L2MaxDeconvolver
from ._posterior import EmpiricalBayesDeconvolver
from ._tracenorm import TraceNormDeconvolver

# By the names that AnnData and the command line know.
MODELS = {
    "l2max": L2MaxDeconvolver,
    "tracenorm": TraceNormDeconvolver,
    "bayes": EmpiricalBayesDeconvolver,
    "factor": FactorDeconvolver,
}
# What a choice by the data can be.
CHOSEN = ("bayes", "factor")


@dataclass(frozen=True)
class Choice:
    """A model for given data.

    Attributes
    ----------
    name : {"bayes", "factor"}
        A key of ``MODELS``.
    reason : str
        Why, to be said and recorded.
    """

    name: str
    reason: str

    def __str__(self):
        return f"{MODELS[self.name].__name__}, {self.reason}"


def choose_model(bulk, reference):
    """The model that suits the values of bulk and reference, as they enter the fit.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    reference : ndarray of shape (n_cell_types, n_genes)

    Returns
    -------
    choice : Choice
        The posterior on the log scale for linear values of at least 0; the factor model for centred or standardised
        ones, and for logarithms.

    Raises
    ------
    ValueError
        If single values of otherwise linear data are negative: neither model is meant for them.
    """
    matrices = {"bulk": bulk, "reference": reference}
    found = {what: look_at(matrix) for what, matrix in matrices.items()}
    kinds = {values.kind for values in found.values()}
    if "signed" in kinds:
        return Choice("factor", "because values are negative: centred or standardised")
    if "log" in kinds:
        return Choice("factor", "because values are not negative but small, as logarithms are")
    for what, values in found.items():
        if values.n_negative:
            raise ValueError(
                f"{values.n_negative} of {matrices[what].size:,} values of the {what} are negative, the smallest "
                f"{values.minimum:.4g}, and the rest is linear: the model for linear values needs all of them to be "
                f"at least 0, and the one for centred values needs centred ones. Set them to 0, correct the step "
                f"that produced them, or name a model."
            )
    return Choice("bayes", "because values are linear and not negative")


def named_model(name):
    """The class of a model by its name; a ValueError if there is none."""
    if name not in MODELS:
        raise ValueError(f"There is no model '{name}': it is 'auto' or one of {listing(list(MODELS))}.")
    return MODELS[name]
