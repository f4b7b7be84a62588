"""The test of log fold changes: the bulk, with the reference as its design."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state, check_scalar

from .._by_genes import room_by_genes
from .._docstrings import filled
from .._typing import Column, Seed, Table
from ..checks.entries import check_nonnegative
from ..checks.names import column_names
from ..cohort import is_lazy
from ..core.regress.fold_changes import MIN_SHARE, FoldChangeModel, fold_change_tests
from ..core.regress.permutation import permuted_phenotypes
from ._depth import to_expected_depth
from ._entries import ENTRIES
from ._names import check_bulk, matched_reference
from ._result import Result, benjamini_hochberg, is_constant, too_rare
from ._study import MIN_DEGREES, MIN_PROPORTION, Options, Study

# Samples for each hidden factor that may be adjusted for, and how many there may be.
SAMPLES_PER_FACTOR, MOST_FACTORS = 30, 3


@filled(ENTRIES)
def log_fold_change_test(
    X: Table,
    proportions: Table,
    phenotype: Column,
    *,
    reference: Table,
    covariates: Table | None = None,
    levels: Sequence | None = None,
    reference_level: Any = None,
    missing: str = "raise",
    min_proportion: float = MIN_PROPORTION,
    min_share: float = MIN_SHARE,
    n_factors: int | str = "auto",
    robust: bool = True,
    n_permutations: int = 100,
    random_state: Seed = 0,
    cell_types: ArrayLike | None = None,
    gene_names: ArrayLike | None = None,
) -> pd.DataFrame:
    r"""Test on the bulk of which cell type a gene's log fold change is, with the reference as the design.

    The reference says how much of a gene's bulk every cell type is expected to give,
    :math:`w_{jk} = \theta_{jk} r_k / (\sum_i \theta_{ji} r_i + 1)`. Per gene,

    .. math::

        \log_2 \frac{x_j + 1}{\sum_i \theta_{ji} r_i + 1}
        = a + c\, m_j + z_j^T \gamma + \sum_k w_{jk}\, y_j \delta_k + \varepsilon_j ,
        \qquad \delta_k \sim N(0, \tau_k) ,

    with the phenotype y, covariates and hidden factors z, and the logarithm m of the expected bulk, less its
    mean. This needs half as many coefficients as :func:`interaction_test`, and the prior variance of each
    cell type is estimated from all genes. δ is the log2 fold change of the cell type's expression.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk, not negative, linear: counts per million, TPM or counts. Each sample is brought to the depth that the
        reference lets expect for it, by the median ratio over genes.
    {proportions}
    {phenotype}
    reference : array-like or DataFrame of shape (n_cell_types, n_genes)
        Profiles, not negative, in the order of the cell types; on the scale of counts per million or TPM. Frames are
        matched by the names of genes and cell types.
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        Further columns, on the scale of logarithms. Permutations keep what they explain of the phenotype.
    levels, reference_level, missing : see :func:`differential_expression`
        Which classes and samples take part, and with what an effect compares. The level of reference is best the one
        that the profiles describe, such as the healthy.
    min_proportion : float, default=0.01
        See :func:`interaction_test`.
    min_share : float, default=0.01
        A gene is tested in a cell type only if this share of its expected bulk, on average, is the type's; else it is
        flagged "low_share", because the bulk says nothing about it.
    n_factors : int or "auto", default="auto"
        Hidden factors (quality, batch, donors' differences) to adjust for at most. Only those are that stand out of
        noise, and that the phenotype does not explain. "auto" allows one per 30 samples, and three.
    robust : bool, default=True
        Give samples with larger residuals smaller weights, and bring values further than 3 robust standard deviations
        from their expectation back to that distance. Neither looks at the phenotype.
    n_permutations : int, default=100
        Permuted phenotypes from which p-values are calibrated. 0 leaves those of the model, which do not hold on real
        bulks. Time grows with it.
    {random_state}
    {cell_types}
    {gene_names}

    Returns
    -------
    table : DataFrame
        See :func:`differential_expression`; the effect is the posterior mean of δ, and ``standard_error`` is its
        posterior deviation. The statistic is their ratio, and p-values are from its null distribution over genes.
        With more than two classes, the effect is the largest difference of two of them, without a standard error,
        and F tests all of them.

    Raises
    ------
    ValueError
        If values are negative, names do not match, or fewer than 5 residual degrees of freedom are left.

    See Also
    --------
    interaction_test : For signed values, and without a reference.

    Notes
    -----
    p is the larger of two p-values. The first comes from the model: the probability of a statistic at least
    this large without an effect, over the genes of the type, with variances moderated by empirical Bayes. The
    second is the share of genes of the same type, with a similar share of the bulk, that have a statistic at
    least this large under permuted phenotypes.

    Memory is that of a copy of the bulk, or two of more than 2,000 samples, a few blocks of genes, and
    n_permutations × cell types × genes numbers of four bytes. A bulk that is not in memory is read three times by
    blocks of samples: for checks, for the depth of the samples, and to be laid out by genes in a temporary file, 8
    bytes × samples × genes, which takes the place of the copies.

    Effects are shrunk towards 0, more strongly if the data contain less information; this does not affect
    their signs.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.differential import log_fold_change_test
    >>> rng = np.random.default_rng(0)
    >>> reference = rng.lognormal(4, 1.5, (3, 300))
    >>> proportions = rng.dirichlet([4, 3, 2], 40)
    >>> sick = np.arange(40) % 2
    >>> expression = np.repeat(reference[None], 40, axis=0)
    >>> expression[sick == 1, 0, :20] *= 4
    >>> bulk = np.einsum("jk,jkg->jg", proportions, expression) * rng.lognormal(0, 0.2, (40, 300))
    >>> table = log_fold_change_test(bulk, proportions, sick, reference=reference)
    >>> called = table[table.q_value < 0.05]
    >>> changed = (called.cell_type == "celltype0") & called.gene.isin([f"x{i}" for i in range(20)])
    >>> bool(len(called) >= 10 and changed.mean() > 0.9)
    True
    """
    given_genes = column_names(X, "bulk") if gene_names is None else gene_names
    X, proportions, (types, genes), samples = check_bulk(X, proportions, cell_types, given_genes)
    reference = matched_reference(reference, types, genes)
    options = Options(False, levels, reference_level, missing)
    study = Study(phenotype, covariates, len(X), samples, options)
    settings = Settings(min_proportion, min_share, n_factors, robust, n_permutations, random_state)
    return fold_change(X, proportions, reference, study, types, genes, settings)


@dataclass(frozen=True)
class Settings:
    """See :func:`log_fold_change_test`."""

    min_proportion: float = MIN_PROPORTION
    min_share: float = MIN_SHARE
    n_factors: object = "auto"
    robust: bool = True
    n_permutations: int = 100
    random_state: object = 0

    def __post_init__(self):
        check_scalar(self.n_permutations, "n_permutations", Integral, min_val=0)
        check_scalar(self.min_share, "min_share", Real, min_val=0, max_val=1)
        if self.n_factors != "auto":
            check_scalar(self.n_factors, "n_factors", Integral, min_val=0)

    def most_factors(self, n_samples):
        """How many hidden factors a cohort of this size may be adjusted for."""
        if self.n_factors == "auto":
            return min(n_samples // SAMPLES_PER_FACTOR, MOST_FACTORS)
        return self.n_factors


def fold_change(bulk, proportions, reference, study, cell_types, genes, settings=None):
    """The table for arrays that are checked but for their signs."""
    settings = Settings() if settings is None else settings
    reason = (
        "Fold changes need counts, or values like counts per million: method='interaction' takes signed ones."
    )
    check_nonnegative(reference, "reference", cell_types, genes, reason)
    proportions = proportions[study.used].astype(np.float64, copy=False)
    coefficients = 2 + len(study.covariate_names) + len(cell_types) * study.coded.shape[1]
    study.need(coefficients)
    study.design(
        np.column_stack([np.ones(study.n_samples), study.coded]), "phenotype"
    )  # checks the covariates
    result = Result(cell_types, genes, study)
    empty = room_by_genes if is_lazy(bulk) else np.empty
    bulk = to_expected_depth(bulk, study, proportions, reference, genes, reason)
    # hidden factors may take what variances can spare
    room = study.n_samples - coefficients - MIN_DEGREES
    model = FoldChangeModel(
        bulk,
        proportions,
        reference,
        study.covariates,
        max(0, min(settings.most_factors(study.n_samples), room)),
        settings.robust,
        empty=empty,
    )
    rng = check_random_state(settings.random_state)
    permuted = permuted_phenotypes(study.coded, study.covariates, settings.n_permutations, rng)
    tests = fold_change_tests(model, study.coded, permuted, settings.min_share)
    result.effect[:], result.statistic[:], result.p_value[:] = _effects(tests), tests.statistic, tests.p_value
    result.drop("rare", too_rare(proportions, settings.min_proportion)[:, None])
    result.drop("constant", is_constant(bulk))
    result.drop("low_share", tests.share < settings.min_share)
    more = {"standard_error": tests.error[:, 0]} if study.coded.shape[1] == 1 else {}
    return result.table(benjamini_hochberg(result.p_value), _contrast(study), **more)


def _effects(tests):
    """One effect per type and gene: the log2 fold change, or the largest between two of several classes."""
    if tests.effect.shape[1] == 1:
        return tests.effect[:, 0]
    by_class = np.concatenate([np.zeros_like(tests.effect[:, :1]), tests.effect], axis=1)
    return np.ptp(by_class, axis=1)


def _contrast(study):
    if study.classes is None:
        return f"log2 fold change per unit of {study.name}"
    if len(study.classes) > 2:
        return f"log2(largest / smallest) over {study.name}"
    return f"log2({study.classes[1]} / {study.classes[0]})"
