"""The joint test: the expression of every cell type, given that of all others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .._docstrings import filled
from .._typing import Column, Table
from ..checks.names import listing
from ..core.regress.generalized import (
    linear_tests,
    logistic_tests,
    multivariate_tests,
    wide_gene_blocks,
)
from ._entries import ENTRIES
from ._result import Result, benjamini_hochberg, is_constant
from ._study import Options
from ._tensor import effects_on, tensor_test

# The original calls a gene in a cell type only if its p-value is below this over the number of cell types.
GATE = 0.05


@filled(ENTRIES)
def joint_test(
    cse: ArrayLike,
    phenotype: Column,
    *,
    covariates: Table | None = None,
    fold_change: bool = False,
    levels: Sequence | None = None,
    reference_level: Any = None,
    missing: str = "raise",
    cell_types: ArrayLike | None = None,
    gene_names: ArrayLike | None = None,
) -> pd.DataFrame:
    r"""Test, for every gene, which cell type's expression is associated with the phenotype given all others.

    Per gene, a logistic model of the phenotype on the expression in all cell types, or, for a quantity, a linear
    one,

    .. math:: \mathrm{logit}\, P(y_j = 1) = \mu + \sum_k p_{jk} b_k + c_j^T \gamma ,

    in which :math:`b_k = 0` is tested by Wald's test.

    Parameters
    ----------
    {cse}
    phenotype : array-like or Series of shape (n_samples,)
        Two classes or a quantity, see :func:`differential_expression`.
    {covariates}
    {fold_change}
    {comparison}
    {names}

    Returns
    -------
    table : DataFrame
        See :func:`differential_expression`. The effect compares the means as they are, cell type by cell type, and
        can differ in sign from the statistic, which is conditional on the other cell types.

    Raises
    ------
    ValueError
        See :func:`differential_expression`; also if the phenotype has more than two classes.

    See Also
    --------
    marginal_test : Every cell type on its own.

    Notes
    -----
    The R function ``FindCSE_DEG`` of ENIGMA with ``FDR_control=TRUE``, to the limits of R's ``glm`` (25
    iterations, relative change of the deviance 1e-8). Its q-value belongs to the gene, not to the pair of
    gene and cell type: a multivariate analysis of variance tests the gene in all cell types at once,
    Benjamini and Hochberg's procedure is applied to the genes, and the result is assigned to the cell type
    with the smallest p-value, if that is below 0.05 over the number of cell types. All other q-values are 1:
    at most one cell type per gene is called. The analysis of variance is sequential, phenotype first:
    covariates adjust the p-values, but hardly the q-values.

    A cell type in which a gene is constant is left out of that gene's model, and flagged.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import joint_test
    >>> cohort = make_cohort(n_genes=50, effect=1, random_state=0)
    >>> table = joint_test(cohort.cse, cohort.phenotype)
    >>> bool(table[table.q_value < 0.05].gene.is_unique)
    True
    """
    return tensor_test(
        joint,
        cse,
        phenotype,
        covariates,
        Options(fold_change, levels, reference_level, missing),
        cell_types,
        gene_names,
    )


def joint(expression, study, cell_types, genes):
    if study.classes is not None and len(study.classes) > 2:
        raise ValueError(
            f"method='joint' tests two classes or a quantity, but the phenotype has {len(study.classes)} classes "
            f"({listing(study.classes)}): choose 'interaction' or 'marginal', or compare two classes at a time."
        )
    n_cell_types, phenotype = len(cell_types), study.coded[:, 0]
    study.design(np.column_stack([np.ones(study.n_samples), phenotype]), "phenotype")  # checks the covariates
    common = np.column_stack([np.ones(study.n_samples), study.covariates])
    study.need(common.shape[1] + n_cell_types)
    fit = linear_tests if study.classes is None else logistic_tests
    result, gene_p = Result(cell_types, genes, study), np.full(len(genes), np.nan)
    singular, separated = np.zeros((2, len(genes)), dtype=bool)
    for block in wide_gene_blocks(len(genes), study.n_samples * (n_cell_types + common.shape[1] + 1)):
        values = expression(block)[study.used]
        result.effect[:, block] = effects_on(study, values)
        constant = is_constant(values)
        result.drop("constant", constant, block)
        # genes that vary in the same cell types have one model, and are fitted together
        for kept, members in _patterns(~constant):
            tested, positions = values[:, kept][:, :, members].transpose(2, 0, 1), members + block.start
            tests = fit(tested, phenotype, common)
            result.statistic[np.ix_(kept, positions)] = tests.statistic.T
            result.p_value[np.ix_(kept, positions)] = tests.p_value.T
            gene_p[positions] = multivariate_tests(tested, phenotype, study.covariates)
            singular[positions] = tests.singular | np.isnan(gene_p[positions])
            separated[positions] = tests.separated
    # before the false discovery rate, in which these genes must not count
    gene_p[singular] = np.nan
    result.drop("singular", singular)
    result.flag("separated", separated)
    return result.table(_gated(result.p_value, gene_p))


def _patterns(varies):
    """Genes that vary in the same cell types: positions of these and of those, for every such set."""
    patterns, which = np.unique(varies, axis=1, return_inverse=True)
    which = which.ravel()  # NumPy 2.0 gives it another shape
    for index, pattern in enumerate(patterns.T):
        if pattern.any():
            yield np.flatnonzero(pattern), np.flatnonzero(which == index)


def _gated(p_value, gene_p):
    """False discovery rate of the gene for the cell type with the smallest p-value, if small enough; else 1."""
    comparable = np.where(np.isnan(p_value), np.inf, p_value)
    genes = np.flatnonzero(comparable.min(axis=0) < GATE / len(p_value))
    q_value = np.where(np.isnan(p_value), np.nan, 1.0)
    q_value[comparable[:, genes].argmin(axis=0), genes] = benjamini_hochberg(gene_p)[genes]
    return q_value
