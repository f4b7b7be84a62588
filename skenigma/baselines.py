"""Answers that need no model: what an estimate of cell-type-specific expression has to beat.

Each is samples × cell types × genes, like ``cse_``, for the functions of :mod:`skenigma.metrics`.
"""

import numpy as np

from ._docstrings import filled
from ._typing import Table
from .checks.entries import check_finite, check_nonnegative
from .checks.labels import row_labels
from .checks.names import column_names, listing, refuse_repeats, row_names
from .checks.tables import check_table
from .checks.validation import check_profiles, check_proportions

__all__ = ["baselines", "bulk_itself", "reference_itself", "scaled_reference"]

# Entries that the docstrings of this module share.
ENTRIES = {
    "tables": """X : array-like or DataFrame of shape (n_samples, n_genes)
    Bulk expression of at least 0, samples as rows.
reference : array-like or DataFrame of shape (n_cell_types, n_genes)
    Profiles of at least 0, on the scale of X. Genes are matched by name where both are named.
proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
    Proportions, rows summing to 1.""",
    "refusal": """Raises
------
ValueError
    If X and reference are not finite tables of the same genes.""",
}


@filled(ENTRIES)
def bulk_itself(X: Table, reference: Table) -> np.ndarray:
    """The bulk of a sample in place of each of its cell types.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, samples as rows.
    reference : array-like or DataFrame of shape (n_cell_types, n_genes)
        Only its number of cell types counts.

    Returns
    -------
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
        A read-only view, on the scale of X: it costs no memory.

    {refusal}

    Examples
    --------
    >>> from skenigma.baselines import bulk_itself
    >>> bulk_itself([[4.0, 8.0]], [[1.0, 2.0], [3.0, 2.0]])
    array([[[4., 8.],
            [4., 8.]]])
    """
    bulk, profiles = _check(X, reference)
    return _bulk(bulk, len(profiles.values))


@filled(ENTRIES)
def reference_itself(X: Table, reference: Table) -> np.ndarray:
    """The reference profiles in place of every sample.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, samples as rows; its genes give the order, its samples the number.
    reference : array-like or DataFrame of shape (n_cell_types, n_genes)
        Profiles. Genes are matched by name where both are named.

    Returns
    -------
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
        A read-only view, on the scale of the reference: it costs no memory.

    {refusal}

    Examples
    --------
    >>> from skenigma.baselines import reference_itself
    >>> reference_itself([[4.0, 8.0]], [[1.0, 2.0], [3.0, 2.0]])
    array([[[1., 2.],
            [3., 2.]]])
    """
    bulk, profiles = _check(X, reference)
    return _reference(profiles.values, len(bulk))


@filled(ENTRIES)
def scaled_reference(X: Table, reference: Table, proportions: Table) -> np.ndarray:
    r"""The reference profiles, each gene scaled so that their mixture is the bulk of the sample.

    .. math:: p_{jkg} = r_{kg}\, x_{jg} \Big/ \sum_i \theta_{ji} r_{ig}

    It follows every gene of the bulk from sample to sample, and adds up to the bulk. If no cell type in the
    sample expresses a gene according to its profile, the reference is returned unchanged.

    Parameters
    ----------
    {tables}

    Returns
    -------
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
        On the scale of X.

    Raises
    ------
    ValueError
        If the tables do not fit together, are not finite, or hold negative values: a ratio of signed values has no
        meaning.

    Examples
    --------
    >>> from skenigma.baselines import scaled_reference
    >>> scaled_reference([[4.0, 8.0]], [[1.0, 2.0], [3.0, 2.0]], [[0.5, 0.5]])
    array([[[2., 8.],
            [6., 8.]]])
    """
    bulk, profiles = _check(X, reference)
    samples, genes = row_names(X), column_names(X, "X")
    reason = "The scaled reference is a ratio, which has no meaning for signed values."
    check_nonnegative(bulk, "X", samples, genes, reason)
    check_nonnegative(profiles.values, "reference", profiles.cell_types, genes, reason)
    theta = check_proportions(proportions, profiles.cell_types, len(bulk), row_labels(X))
    return _scaled(bulk, profiles.values, theta)


@filled(ENTRIES)
def baselines(X: Table, reference: Table, proportions: Table) -> dict[str, np.ndarray]:
    """All answers that need no model, by name.

    Parameters
    ----------
    {tables}

    Returns
    -------
    answers : dict of ndarray, each of shape (n_samples, n_cell_types, n_genes)
        ``"bulk itself"``, ``"reference itself"`` and ``"scaled reference"``. Only the last takes memory.

    Raises
    ------
    ValueError
        As :func:`scaled_reference`.

    See Also
    --------
    skenigma.metrics.recovery_score : How well an answer recovers a known truth.

    Examples
    --------
    >>> from skenigma.baselines import baselines
    >>> answers = baselines([[4.0, 8.0]], [[1.0, 2.0], [3.0, 2.0]], [[0.5, 0.5]])
    >>> {name: answer[0, 0].tolist() for name, answer in answers.items()}
    {'bulk itself': [4.0, 8.0], 'reference itself': [1.0, 2.0], 'scaled reference': [2.0, 8.0]}
    """
    return {
        "bulk itself": bulk_itself(X, reference),
        "reference itself": reference_itself(X, reference),
        "scaled reference": scaled_reference(X, reference, proportions),
    }


def of_arrays(bulk, reference, proportions):
    """As :func:`baselines`, of arrays known to fit; of signed values the scaled reference is None."""
    signed = bulk.min() < 0 or reference.min() < 0
    return {
        "bulk itself": _bulk(bulk, len(reference)),
        "reference itself": _reference(reference, len(bulk)),
        "scaled reference": None if signed else _scaled(bulk, reference, proportions),
    }


def _bulk(bulk, n_cell_types):
    n_samples, n_genes = bulk.shape
    return np.broadcast_to(bulk[:, None], (n_samples, n_cell_types, n_genes))


def _reference(reference, n_samples):
    return np.broadcast_to(reference, (n_samples, *reference.shape))


def _scaled(bulk, reference, proportions):
    mixture = proportions @ reference
    ratio = np.divide(bulk, mixture, out=np.ones_like(mixture), where=mixture > 0)
    return ratio[:, None] * reference


def _check(X, reference):
    """X as an array, and the profiles with their genes in the order of X."""
    genes = column_names(X, "X")
    refuse_repeats(genes, "Genes of X", "Sum, average or drop the repeated columns first.")
    bulk = check_table(X, "X", dtype=[np.float64, np.float32], ensure_all_finite=False)
    check_finite(bulk, "X", row_names(X), genes)
    profiles = check_profiles(reference, bulk.dtype)
    if genes is not None and profiles.genes is not None:
        profiles = _reordered(profiles, genes)
    elif bulk.shape[1] != profiles.values.shape[1]:
        raise ValueError(
            f"X has {bulk.shape[1]} genes and the reference {profiles.values.shape[1]}: name the columns of both, or "
            f"give the same genes in the same order."
        )
    return bulk, profiles


def _reordered(profiles, genes):
    position = {gene: column for column, gene in enumerate(profiles.genes)}
    missing = [gene for gene in genes if gene not in position]
    if missing:
        raise ValueError(
            f"{len(missing)} gene(s) of X are not in the reference: {listing(missing)}. Select the genes that both "
            f"have first, those of gene_names_ of an estimator for instance."
        )
    columns = [position[gene] for gene in genes]
    return type(profiles)(profiles.values[:, columns], profiles.cell_types, genes)
