"""The marginal test: the expression of every cell type on its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .._docstrings import filled
from .._typing import Column, Table
from ..core.regress.generalized import wide_gene_blocks
from ._entries import ENTRIES
from ._result import Result, benjamini_hochberg, is_constant
from ._study import Options
from ._tensor import effects_on, tensor_test


@filled(ENTRIES)
def marginal_test(
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
    r"""Test, for every cell type and gene on its own, whether the expression is associated with the phenotype.

    A linear model per cell type and gene, with phenotype y and covariates c,

    .. math:: p_{jk} = \mu_k + y_j \delta_k + c_j^T \gamma_k + \varepsilon_{jk} ,

    in which :math:`\delta_k = 0` is tested: by t, or by F if the phenotype has more than two classes.

    Parameters
    ----------
    {cse}
    {phenotype}
    {covariates}
    {fold_change}
    {comparison}
    {names}

    Returns
    -------
    table : DataFrame
        See :func:`differential_expression`. The effect compares the means as they are; statistic, p and q are
        adjusted for the covariates. q-values are Benjamini and Hochberg's, over the genes of each cell type.

    Raises
    ------
    ValueError
        See :func:`differential_expression`.

    See Also
    --------
    joint_test : The same given all other cell types.

    Notes
    -----
    The R function ``FindCSE_DEG`` of ENIGMA with ``FDR_control=FALSE``. The expression of all cell types is
    estimated from the same bulk: a change in one cell type also appears, weaker, in the others, and the test
    cannot tell where it comes from.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import marginal_test
    >>> cohort = make_cohort(n_genes=50, random_state=0)
    >>> table = marginal_test(cohort.cse, cohort.phenotype)
    >>> int((table.q_value < 0.05).sum()) >= 25
    True
    """
    return tensor_test(
        marginal,
        cse,
        phenotype,
        covariates,
        Options(fold_change, levels, reference_level, missing),
        cell_types,
        gene_names,
    )


def marginal(expression, study, cell_types, genes):
    base = np.column_stack([np.ones(study.n_samples), study.coded])
    design = study.design(base, "phenotype")
    result = Result(cell_types, genes, study)
    for block in wide_gene_blocks(len(genes), study.n_samples * len(cell_types)):
        values = expression(block)[study.used]
        flat = values.reshape(study.n_samples, -1).astype(np.float64, copy=False)
        result.store(block, effects_on(study, values), design.test(flat, [list(range(1, base.shape[1]))]))
        result.drop("constant", is_constant(values), block)
    return result.table(benjamini_hochberg(result.p_value))
