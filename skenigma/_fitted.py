"""Values that fits leave, told once: their texts in docstrings, and what kind each is for those who collect them."""

from dataclasses import dataclass

import numpy as np

# What every fit of such a model leaves.
ALWAYS_FITTED = (
    "expression_",
    "level_",
    "cse_",
    "expression_normalized_",
    "cse_normalized_",
    "proportions_",
    "cell_types_",
    "gene_names_",
    "reference_",
    "positive_",
    "proportion_estimator_",
    "n_features_in_",
    "feature_names_in_",
)


@dataclass(frozen=True)
class Fitted:
    """A value that a fit leaves.

    Attributes
    ----------
    text : str
        Its entry in the "Attributes" of a docstring.
    kind : {"history", "setting", "outcome", "array", "object"}
        A row per iteration; a parameter as it was used; a number that says how the fit went; an array over samples,
        cell types or genes; anything else.
    """

    text: str
    kind: str


FITTED = {
    "expression_": Fitted(
        """CellTypeExpression
        Cell-type-specific expression of the fitted cohort, whole or in part, by name.""",
        "object",
    ),
    "level_": Fitted(
        """float or None
        Median over samples of ``expression_.level``: 1 if the expression, mixed by the proportions, makes up the
        bulk. Outside 0.5 to 2 the fit warns.""",
        "outcome",
    ),
    "expression_normalized_": Fitted(
        """CellTypeExpression
        The same, normalised. Only if ``normalize`` is given.""",
        "object",
    ),
    "cse_": Fitted(
        """ndarray of shape (n_samples, n_cell_types, n_genes)
        Cell-type-specific expression of the fitted cohort, on the scale of X. Only if ``materialize``.""",
        "array",
    ),
    "cse_normalized_": Fitted(
        """ndarray of shape (n_samples, n_cell_types, n_genes)
        Only if ``normalize`` is given and ``materialize``.""",
        "array",
    ),
    "cse_std_": Fitted(
        """ndarray of shape (n_samples, n_cell_types, n_genes)
        Standard deviation of every value of ``cse_``. Built whenever it is asked for.""",
        "array",
    ),
    "proportions_": Fitted(
        """ndarray of shape (n_samples, n_cell_types)
        Proportions that were used.""",
        "array",
    ),
    "cell_types_": Fitted(
        """ndarray of str, shape (n_cell_types,)
        Names of the cell types.""",
        "array",
    ),
    "gene_names_": Fitted(
        """ndarray of str, shape (n_genes,)
        Genes in use: those shared by X and reference, in the order of X.""",
        "array",
    ),
    "reference_": Fitted(
        """ndarray of shape (n_cell_types, n_genes)
        Profiles on these genes.""",
        "array",
    ),
    "reliability_": Fitted(
        """ndarray of shape (n_cell_types, n_genes)
        Expected correlation of estimate and truth over samples.""",
        "array",
    ),
    "loss_history_": Fitted("ndarray of shape (`n_iter_`, 3)", "history"),
    "gradient_norm_": Fitted("ndarray of shape (`n_iter_` - 1, 2)", "history"),
    "delta_history_": Fitted("ndarray of shape (`n_iter_`, n_cell_types)", "history"),
    "n_iter_": Fitted("int", "outcome"),
    "converged_": Fitted(
        """bool
        Whether the change, or for "accelerated" the gap, fell below epsilon.""",
        "outcome",
    ),
    "calibration_": Fitted(
        """ndarray of shape (n_cell_types,)
        Factors of ``calibrate``. Only if it is True.""",
        "array",
    ),
    "alpha_": Fitted("float", "setting"),
    "beta_": Fitted("float", "setting"),
    "gamma_": Fitted("float", "setting"),
    "epsilon_": Fitted("float", "setting"),
    "tao_k_": Fitted("float", "setting"),
    "renorm_size_": Fitted("float or None", "setting"),
    "positive_": Fitted(
        """bool
        Whether negative expression was clipped.""",
        "setting",
    ),
    "proportion_estimator_": Fitted(
        """estimator
        Fitted estimator of proportions.""",
        "object",
    ),
    "mismatch_": Fitted(
        """float
        Robust variance over genes of what the reference does not expect of the mean bulk, on the log scale, δ².""",
        "outcome",
    ),
    "composition_": Fitted(
        """float
        How much of the expected effect of composition was subtracted, λ.""",
        "setting",
    ),
    "hidden_share_": Fitted(
        """float
        Share of the variance at which half of a direction was kept, s*.""",
        "setting",
    ),
    "noise_variance_": Fitted(
        """float
        Variance of the measurement of a gene at level 1, on the log scale, σ².""",
        "outcome",
    ),
    "n_features_in_": Fitted(
        """int
        Number of genes of X.""",
        "outcome",
    ),
    "feature_names_in_": Fitted(
        """ndarray of str
        Genes of X, if it has names.""",
        "array",
    ),
}


def fitted_names(*kinds):
    """Names of the fitted values of these kinds."""
    return [name for name, value in FITTED.items() if value.kind in kinds]


def fitted_values(model, *kinds):
    """Fitted values of these kinds that ``model`` has, by name."""
    return {name: getattr(model, name) for name in fitted_names(*kinds) if hasattr(model, name)}


def numbers(model):
    """Every number that a fit left as an attribute of ``model``, by name: also those of models not listed here."""
    own = {name: value for name, value in vars(model).items() if name.endswith("_") and np.isscalar(value)}
    return {**fitted_values(model, "setting", "outcome"), **own}
