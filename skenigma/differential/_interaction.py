"""The interaction test: the bulk, its proportions, and their products with the phenotype."""

import numpy as np

from ..checks.numbers import check_magnitude
from ..checks.validation import check_proportions, check_table, column_names, row_names
from ..core.regress.generalized import gene_blocks
from ._names import names_or_count, refuse_nonfinite
from ._result import Result, benjamini_hochberg, is_constant
from ._study import Study


def interaction_test(
    bulk, proportions, phenotype, *, covariates=None, fold_change=False, cell_types=None, gene_names=None
):
    r"""Test on the bulk in which cell type a gene goes with the phenotype.

    Per gene, the bulk x is regressed on the proportions and on their products with the phenotype y,

    .. math::

        x_j = \sum_k \theta_{jk} m_k + \sum_k \theta_{jk} y_j \delta_k + c_j^T \gamma + \varepsilon_j ,

    and :math:`\delta_k = 0` is tested: by t, or by F if the phenotype has more than two classes. There is no
    intercept, because proportions sum to 1. All genes share one design, which is factorised once.

    Parameters
    ----------
    bulk : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, on the scale on which cell types mix: not logarithms.
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
        Proportions, rows summing to 1 up to 0.05.
    phenotype : array-like or Series of shape (n_samples,)
        See :func:`differential_expression`.
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        Further columns c of the design; the same effect in every cell type.
    fold_change : bool, default=False
        Effects as ratio of the two classes' fitted means, see :func:`differential_expression`.
    cell_types : array-like of str, default=None
        Names; None takes the columns of proportions, or counts.
    gene_names : array-like of str, default=None
        Names; None takes the columns of bulk, or counts.

    Returns
    -------
    table : DataFrame
        See :func:`differential_expression`. The effect is :math:`\delta_k`, adjusted for the covariates. q-values are
        Benjamini and Hochberg's, over the genes of each cell type.

    Raises
    ------
    ValueError
        See :func:`differential_expression`.

    See Also
    --------
    marginal_test : A test on cell-type-specific expression.

    Notes
    -----
    This is the model of csSAM [1]_ and TOAST [2]_. A cell type whose effect the design does not determine (its
    proportion is 0 in a class, or the same in every sample) is flagged, without p-values.

    References
    ----------
    .. [1] Shen-Orr et al. (2010), Cell type-specific gene expression differences in complex tissues. Nature
       Methods 7.
    .. [2] Li et al. (2019), Dissecting differential signals in high-throughput data from complex tissues.
       Bioinformatics 35.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import interaction_test
    >>> cohort = make_cohort(n_genes=200, random_state=0, as_frame=True)
    >>> table = interaction_test(cohort.bulk, cohort.proportions, cohort.phenotype)
    >>> called = table[table.q_value < 0.05]
    >>> changed = cohort.changed.T.unstack()[list(zip(called.cell_type, called.gene))]
    >>> bool(changed.abs().mean() > 0.9)
    True
    """
    samples, genes = row_names(bulk), column_names(bulk, "bulk")
    bulk = check_table(bulk, "bulk", dtype=np.float64, ensure_all_finite=False)
    if cell_types is None:
        cell_types = column_names(proportions, "proportions")
    cell_types = names_or_count(cell_types, np.shape(proportions)[-1], "celltype", "cell_types")
    genes = names_or_count(genes if gene_names is None else gene_names, bulk.shape[1], "x", "gene_names")
    refuse_nonfinite(~np.isfinite(bulk).all(axis=0), genes, "bulk", "gene")
    check_magnitude(bulk, "bulk")
    proportions = check_proportions(proportions, cell_types, len(bulk), samples)
    study = Study(phenotype, covariates, len(bulk), samples, fold_change)
    return interaction(bulk, proportions, study, cell_types, genes)


def interaction(bulk, proportions, study, cell_types, genes):
    proportions = proportions.astype(np.float64, copy=False)
    n_cell_types, n_coded = len(cell_types), study.coded.shape[1]
    products = proportions[:, :, None] * study.coded[:, None]
    base = np.hstack([proportions, products.reshape(len(proportions), -1)])
    design = study.design(base, "proportions, phenotype")
    of_products = np.arange(n_cell_types, base.shape[1]).reshape(n_cell_types, n_coded)
    result = Result(cell_types, genes)
    for block in gene_blocks(len(genes), len(bulk)):
        values = bulk[:, block].astype(np.float64, copy=False)
        tests = design.test(values, of_products.tolist())
        changes = tests.coefficients[of_products]
        result.store(block, _fitted_effects(tests.coefficients[:n_cell_types], changes, study), tests)
        result.drop("constant", is_constant(bulk[:, block]), block)
    constant = is_constant(proportions)
    undetermined = constant | ~np.array([design.estimable(columns) for columns in of_products])
    result.effect[undetermined] = np.nan
    result.drop("constant", constant[:, None])
    result.drop("singular", undetermined[:, None])
    return result.table(benjamini_hochberg(result.p_value))


def _fitted_effects(means, changes, study):
    """Effects from the coefficients of the proportions, (K, g), and of their products, (K, columns, g)."""
    if study.classes is None:
        return changes[:, 0]
    fitted = np.concatenate([means[:, None], means[:, None] + changes], axis=1)
    return np.stack(
        [study.compare(np.maximum(of_type, 0) if study.fold_change else of_type) for of_type in fitted]
    )
