"""The interaction test: the bulk, its proportions, and their products with the phenotype."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state, check_scalar

from .._docstrings import filled
from .._typing import Column, Seed, Table
from ..core.regress.generalized import gene_blocks
from ..core.regress.interactions import InteractionModel, interaction_tests
from ..core.regress.permutation import permuted_phenotypes
from ._bulk import tested_bulk
from ._entries import ENTRIES
from ._names import check_bulk
from ._result import Result, benjamini_hochberg, is_constant, too_rare
from ._study import MIN_PROPORTION, Options, Study


@filled(ENTRIES)
def interaction_test(
    bulk: Table,
    proportions: Table,
    phenotype: Column,
    *,
    covariates: Table | None = None,
    fold_change: bool = False,
    levels: Sequence | None = None,
    reference_level: Any = None,
    missing: str = "raise",
    min_proportion: float = MIN_PROPORTION,
    errors: str = "weighted",
    n_permutations: int = 0,
    random_state: Seed = 0,
    cell_types: ArrayLike | None = None,
    gene_names: ArrayLike | None = None,
) -> pd.DataFrame:
    r"""Test on the bulk in which cell type a gene is associated with the phenotype.

    Per gene, the bulk x is regressed on the proportions and on their products with the phenotype y,

    .. math::

        x_j = \sum_k \theta_{jk} m_k + \sum_k \theta_{jk} y_j \delta_k + c_j^T \gamma + \varepsilon_j ,

    and :math:`\delta_k = 0` is tested: by t, or by F if the phenotype has more than two classes. There is no
    intercept, because proportions sum to 1.

    Parameters
    ----------
    bulk : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, on the scale on which cell types mix: not logarithms.
    {proportions}
    {phenotype}
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        Further columns c of the design; the same effect in every cell type.
    fold_change : bool, default=False
        Effects as ratio of the two classes' fitted means, see :func:`differential_expression`.
    {comparison}
    {min_proportion}
    errors : {"weighted", "ols"}, default="weighted"
        "weighted" gives every value of a non-negative bulk the weight that a law of variance and mean, fitted to all
        genes, gives it at its fitted value, gives samples of larger residuals smaller weights, and moderates the
        genes' variances. "ols" is plain least squares: right where the errors of a gene have one variance, and wrong
        on counts.
    n_permutations : int, default=0
        With "weighted": permuted phenotypes from which p-values are calibrated. p is then the larger of the
        parametric one and the share of permuted statistics of like genes that reach the observed one.
    {random_state}
    {cell_types}
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
        See :func:`differential_expression`; also if fewer than 5 residual degrees of freedom are left.

    See Also
    --------
    log_fold_change_test : The same question to counts, with a reference: far more powerful.
    marginal_test : A test on cell-type-specific expression.

    Notes
    -----
    This is the model of csSAM [1]_ and TOAST [2]_. A cell type whose effect the design does not determine (its
    proportion is 0 in a class, or the same in every sample) is flagged, without p-values.

    A bulk that is not in memory is read twice by blocks of samples, for checks and to be laid out by genes in a
    temporary file, 8 bytes × samples × genes; memory is that of a few blocks, however many samples there are.

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
    bulk, proportions, (types, genes), samples = check_bulk(bulk, proportions, cell_types, gene_names)
    options = Options(fold_change, levels, reference_level, missing)
    study = Study(phenotype, covariates, len(bulk), samples, options)
    how = Errors(errors, n_permutations, random_state, min_proportion)
    return interaction(bulk, proportions, study, types, genes, how)


# Largest value of a bulk within which fourth powers of its values are numbers.
FOURTH_POWERS = 1e-60, 1e60


@dataclass(frozen=True)
class Errors:
    """How errors are taken into account; see :func:`interaction_test`."""

    kind: str = "weighted"
    n_permutations: int = 0
    random_state: object = 0
    min_proportion: float = MIN_PROPORTION

    def __post_init__(self):
        if self.kind not in ("weighted", "ols"):
            raise ValueError(f"errors must be 'weighted' or 'ols', got {self.kind!r}.")


def interaction(bulk, proportions, study, cell_types, genes, how=None):
    """The table for arrays that are checked."""
    how = Errors() if how is None else how
    bulk, proportions = tested_bulk(bulk, study), proportions[study.used].astype(np.float64, copy=False)
    products = proportions[:, :, None] * study.coded[:, None]
    base = np.hstack([proportions, products.reshape(len(proportions), -1)])
    design = study.design(base, "proportions, phenotype")
    of_products = np.arange(len(cell_types), base.shape[1]).reshape(len(cell_types), -1)
    result = Result(cell_types, genes, study)
    constant = is_constant(proportions)
    determined = ~constant & np.array([design.estimable(columns) for columns in of_products])
    if how.kind == "ols":
        _least_squares(result, bulk, design, of_products, study)
    else:
        _weighted(result, bulk, proportions, study, how, determined)
    # one of many solutions is no effect
    result.effect[~determined] = np.nan
    result.drop("constant", constant[:, None])
    result.drop("singular", ~determined[:, None])
    result.drop("rare", too_rare(proportions, how.min_proportion)[:, None])
    result.drop("constant", is_constant(bulk))
    return result.table(benjamini_hochberg(result.p_value))


def _least_squares(result, bulk, design, of_products, study):
    """Errors of one variance per gene; all genes share one factorised design."""
    for block in gene_blocks(bulk.shape[1], len(bulk)):
        values = bulk[:, block].astype(np.float64, copy=False)
        tests = design.test(values, of_products.tolist())
        changes = tests.coefficients[of_products]
        result.store(block, _fitted_effects(tests.coefficients[: len(of_products)], changes, study), tests)


def _weighted(result, bulk, proportions, study, how, determined):
    """Weights of values and samples, moderated variances, and permutations."""
    check_scalar(how.n_permutations, "n_permutations", Integral, min_val=0)
    # the law of variances takes squares of squares, which end long before the bulk does
    largest = max(float(bulk.max()), -float(bulk.min()))
    # a power of two changes no digit
    unit = (
        1.0
        if not largest or FOURTH_POWERS[0] < largest < FOURTH_POWERS[1]
        else 2.0 ** np.round(np.log2(largest))
    )
    model = InteractionModel(bulk if unit == 1.0 else bulk / unit, proportions, study.covariates)
    permuted = permuted_phenotypes(
        study.coded, study.covariates, how.n_permutations, check_random_state(how.random_state)
    )
    tests = interaction_tests(model, study.coded, permuted)
    effects = _fitted_effects(unit * tests.means, unit * tests.changes, study)
    result.store(slice(None), effects, tests)


def _fitted_effects(means, changes, study):
    """Effects from the coefficients of the proportions, (K, g), and of their products, (K, columns, g)."""
    if study.classes is None:
        return changes[:, 0]
    fitted = np.concatenate([means[:, None], means[:, None] + changes], axis=1)
    return np.stack(
        [study.compare(np.maximum(of_type, 0) if study.fold_change else of_type) for of_type in fitted]
    )
