"""What share of a gene's bulk comes from each cell type."""

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from .._typing import Estimator
from ..checks.entries import check_nonnegative


def gene_contribution(model: Estimator) -> pd.DataFrame:
    """Share of each gene's bulk that comes from each cell type: the first thing to ask of a gene.

    The variation of a gene's bulk between samples is only informative about the cell types that it comes
    from. On simulated and pseudo-bulk cohorts of non-negative expression this share ranks genes by how well
    their expression is recovered over samples, as the p-values of :func:`gene_significance` do, and as a
    bootstrap does not; see the user guide for figures.

    Parameters
    ----------
    model : fitted deconvolver
        With ``proportions_`` and ``reference_``, on the linear scale.

    Returns
    -------
    share : DataFrame of shape (n_cell_types, n_genes)
        Shares θ̄_k r_kg / Σ_i θ̄_i r_ig with the mean proportions θ̄ and the profiles r; columns sum to 1. NaN for a
        gene that no profile expresses.

    Raises
    ------
    ValueError
        If a profile is negative: shares of centred expression mean nothing.

    See Also
    --------
    gene_significance : Whether the bulk itself says that a cell type contributes.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma import ProportionEstimator
    >>> from skenigma.reliability import gene_contribution
    >>> reference = np.array([[8.0, 1.0, 4.0], [0.0, 3.0, 4.0]])
    >>> model = ProportionEstimator(reference, method="nnls").fit([[4.0, 2.0, 4.0]])
    >>> gene_contribution(model).round(2).to_numpy().tolist()
    [[1.0, 0.25, 0.5], [0.0, 0.75, 0.5]]
    """
    check_is_fitted(model)
    reason = "Shares need expression that is not centred."
    check_nonnegative(model.reference_, "reference", model.cell_types_, model.gene_names_, reason)
    share = contributions(model.proportions_, model.reference_)
    return pd.DataFrame(share, model.cell_types_, model.gene_names_)


def contributions(proportions, reference):
    """Share of each gene's bulk by cell type, of arrays; NaN for a gene that no profile expresses."""
    parts = proportions.mean(axis=0)[:, None] * reference
    total = parts.sum(axis=0)
    return np.divide(parts, total, out=np.full_like(parts, np.nan), where=total > 0)
