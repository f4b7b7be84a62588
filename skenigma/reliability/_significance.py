"""The original's test of which genes a cell type contributes to the bulk."""

import numpy as np
import pandas as pd
from scipy import special, stats

from .._typing import Table
from ..checks.facts import examine
from ..checks.labels import cell_types_of, row_labels
from ..checks.names import listing, names_of
from ..checks.numbers import check_magnitude
from ..checks.tables import check_table
from ..checks.validation import check_proportions
from ..cohort import is_lazy, open_bulk
from ..core.blocks import each_block

# Correlation of two profiles above which ``gene_significance(refine="auto")`` does not refine.
ALIKE = 0.85
# Numbers of the bulk that are regressed at a time.
RESPONSES = 2**19


def gene_significance(
    bulk: Table,
    proportions: Table,
    *,
    refine: bool | str = False,
    level: float = 0.05,
    reference: Table | None = None,
) -> pd.DataFrame:
    """Test which genes each cell type contributes to the bulk: the original's gene-significance test.

    Per gene, the bulk is regressed on the proportions without an intercept, and the coefficient of each cell
    type is tested to be above 0 [1]_. If a cell type contributes nothing to the bulk of a gene, the bulk is
    not informative about its expression there, and the estimate is only what the reference says.

    Parameters
    ----------
    bulk : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression on the linear scale.
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
        Proportions of the samples, such as ``proportions_`` of a fitted deconvolver. Rows of two frames are matched
        by name.
    refine : bool or "auto", default=False
        Whether to ask instead if a gene belongs to a cell type more than other genes do, see the notes. "auto" is the
        original's ``auto = TRUE``: yes, unless two profiles have a correlation above 0.85.
    level : float, default=0.05
        ``significant`` are q-values below it; with ``refine``, scores below it in the cell type where the gene's
        q-value is smallest.
    reference : array-like or DataFrame of shape (n_cell_types, n_genes), default=None
        Profiles, for ``refine="auto"`` only.

    Returns
    -------
    table : DataFrame of n_cell_types × n_genes rows
        In the order of the cell types, then of the genes, with the columns ``cell_type``, ``gene``, ``coefficient``
        (expression in the units of the bulk), ``statistic`` (t, on n_samples − n_cell_types degrees of freedom),
        ``p_value`` (one-sided), ``q_value`` (Benjamini–Hochberg over the genes of a cell type), with ``refine`` also
        ``score``, and ``significant``. A gene that is 0 throughout has p = 1.

    Raises
    ------
    ValueError
        If bulk and proportions do not fit together, there are no more samples than cell types, proportions are
        collinear, or ``refine="auto"`` has no reference to look at.

    See Also
    --------
    bootstrap_reliability : Standard errors of a model's expression.

    Notes
    -----
    A bulk that is not in memory is read three times by blocks of samples: for checks, coefficients and residuals.

    ``refine`` turns the q-values of a gene into shares s of the cell types, by the softmax over cell types of 1 − q,
    and compares s_jk / (1 − s_jk) with its values where the denominator is that of a gene drawn at random: the
    original's score is the p-value of that by 1,000 random draws, and the score here is its expectation, the share of
    genes i with (1 − s_ik) < (1 − s_jk). It is a rank: 5 % of the genes of each cell type have a score below 0.05,
    whatever the data. Of these the original calls only the genes whose q-value is smallest in this very cell type, so
    that a gene is called in one cell type at most, and so does ``significant``.

    References
    ----------
    .. [1] Wang et al., ENIGMA: dEcoNvolutIon method based on reGularized MAtrix completion. R function
       ``GeneSigTest``.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.reliability import gene_significance
    >>> cohort = make_cohort(n_samples=40, n_genes=50, n_cell_types=3, random_state=0, as_frame=True)
    >>> table = gene_significance(cohort.bulk, cohort.proportions)
    >>> table.columns.tolist()
    ['cell_type', 'gene', 'coefficient', 'statistic', 'p_value', 'q_value', 'significant']
    >>> len(table)
    150
    """
    if isinstance(refine, str):
        if refine != "auto":
            raise ValueError(f"refine must be True, False or 'auto', got {refine!r}.")
        refine = _suits(reference)
    bulk = open_bulk(bulk)
    genes, cell_types = names_of(bulk, "bulk", "x"), cell_types_of(proportions)
    samples = row_labels(bulk)
    if is_lazy(bulk):
        examine(bulk, "bulk", genes)
    else:
        bulk = check_table(bulk, "bulk", dtype=np.float64)
        check_magnitude(bulk, "bulk")
    theta = check_proportions(proportions, cell_types, len(bulk), samples).astype(np.float64, copy=False)
    _check_design(theta, cell_types)
    coefficients, statistic, p_values = _one_sided_test(theta, bulk)
    q_values = stats.false_discovery_control(p_values, axis=1)
    table = pd.DataFrame(
        {
            "cell_type": np.repeat(cell_types, len(genes)),
            "gene": np.tile(genes, len(cell_types)),
            "coefficient": coefficients.ravel(),
            "statistic": statistic.ravel(),
            "p_value": p_values.ravel(),
            "q_value": q_values.ravel(),
        }
    )
    if refine:
        table["score"] = _refined_scores(q_values).ravel()
    return table.assign(
        significant=(_refined_calls(q_values, table, level) if refine else table["q_value"] < level)
    )


def _suits(reference):
    """Whether profiles differ enough for the refined score."""
    if reference is None:
        raise ValueError("refine='auto' looks at how much profiles are alike: pass the reference.")
    profiles = check_table(reference, "reference", dtype=np.float64)
    alike = np.corrcoef(profiles) if len(profiles) > 1 else np.ones((1, 1))
    return not np.any(alike[~np.eye(len(profiles), dtype=bool)] > ALIKE)


def _refined_calls(q_values, table, level):
    """Scores below the level, of genes in the cell type of their smallest q-value."""
    own = np.arange(len(q_values))[:, None] == q_values.argmin(axis=0)
    return own.ravel() & (table["score"] < level)


def _check_design(theta, cell_types):
    """Refuse proportions that do not determine a regression, naming the cell types at fault."""
    n_samples, n_cell_types = theta.shape
    if n_samples <= n_cell_types:
        raise ValueError(
            f"{n_samples} samples cannot be regressed on {n_cell_types} cell types: there must be more samples than "
            f"cell types."
        )
    absent = cell_types[~theta.any(axis=0)]
    if len(absent):
        raise ValueError(f"The proportion of {listing(absent)} is 0 in every sample: leave it out.")
    _, values, directions = np.linalg.svd(theta, full_matrices=False)
    if values[-1] <= n_samples * np.finfo(float).eps * values[0]:
        # the last direction is the combination that is nearly zero: the types that take part in it are collinear
        involved = cell_types[np.abs(directions[-1]) > np.sqrt(np.finfo(float).eps)]
        raise ValueError(
            f"The proportions of {listing(involved)} are collinear over the samples: merge some of these cell types."
        )


def _one_sided_test(design, response):
    """Coefficients of a regression without intercept, t, and p of being above 0, each (n_terms, n_responses)."""
    n_samples, n_terms = design.shape
    orthonormal, triangle = np.linalg.qr(design)
    along, squares = np.zeros((n_terms, response.shape[1])), np.zeros(response.shape[1])
    for rows, block in each_block(response, RESPONSES):
        along += orthonormal[rows].T @ block
    coefficients = np.linalg.solve(triangle, along)
    for rows, block in each_block(response, RESPONSES):
        residual = block - design[rows] @ coefficients
        squares += np.einsum("jg,jg->g", residual, residual)
    variance = squares / (n_samples - n_terms)
    unscaled = np.sum(np.linalg.inv(triangle) ** 2, axis=1)
    errors = np.sqrt(unscaled[:, None] * variance)
    # without a residual the test is certain, or there is nothing to test
    exact = np.where(coefficients == 0, np.nan, np.copysign(np.inf, coefficients))
    statistic = np.divide(coefficients, errors, out=exact, where=errors > 0)
    p_values = stats.t.sf(statistic, n_samples - n_terms)
    return coefficients, statistic, np.where(np.isnan(p_values), 1.0, p_values)


def _refined_scores(q_values):
    """Share of genes whose share of a cell type is larger; see the notes of :func:`gene_significance`."""
    rest = 1 - special.softmax(1 - q_values, axis=0)
    below = stats.rankdata(rest, method="min", axis=1) - 1
    return below / rest.shape[1]
