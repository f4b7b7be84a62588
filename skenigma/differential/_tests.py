"""Differential expression per cell type: three tests, one table.

Which test answers which question:

- :func:`interaction_test` asks the bulk: does the slope of a gene on a cell type's proportion differ between the
  classes? No tensor is involved, so nothing that a deconvolution assumes can be mistaken for a finding.
- :func:`marginal_test` asks the tensor: does a gene's expression in a cell type differ between the classes?
- :func:`joint_test` asks the tensor: does it, given the gene's expression in all other cell types?
"""

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.utils import check_array

from ..checks.validation import (
    check_deconvolver,
    check_proportions,
    check_table,
    column_names,
    listing,
    numbered,
    row_names,
    sample_order,
)
from ..core.regress.generalized import (
    SharedDesign,
    gene_blocks,
    linear_tests,
    logistic_tests,
    multivariate_tests,
)
from ..normalization import normalize

__all__ = ["differential_expression", "interaction_test", "joint_test", "marginal_test"]

METHODS = ("interaction", "marginal", "joint")
COLUMNS = ("cell_type", "gene", "effect", "statistic", "p_value", "q_value", "flag")
# The original calls a gene in a cell type only if its p-value is below this over the number of cell types.
GATE = 0.05
# Spread relative to the largest value, in units of rounding, up to which values count as one and the same.
CONSTANT = 64
# Share of a column that must lie beyond the columns before it; less is dependence but for rounding.
DEPENDENT = 1e-7


def differential_expression(
    model, phenotype, *, method="interaction", X=None, covariates=None, fold_change=False
):
    """Genes whose expression in a cell type goes with the phenotype, from a fitted deconvolver.

    Parameters
    ----------
    model : L2MaxDeconvolver or TraceNormDeconvolver
        Fitted to the cohort.
    phenotype : array-like or Series of shape (n_samples,)
        Strings, booleans, categories or two distinct numbers are classes; more than two distinct numbers are a
        quantity. Matched by name to the samples if both are named.
    method : {"interaction", "marginal", "joint"}, default="interaction"
        "interaction" regresses the bulk on the proportions and their products with the phenotype
        (:func:`interaction_test`): the best first answer to the question in which cell type a gene changes.
        "marginal" (:func:`marginal_test`) and "joint" (:func:`joint_test`) are the tests of the original R package,
        on the cell-type-specific expression.
    X : array-like or DataFrame of shape (n_samples, n_genes), default=None
        The bulk that the model was fitted to. Needed by "interaction" only.
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        What else to adjust for. Columns that are not numbers are one-hot encoded, without their first category.
    fold_change : bool, default=False
        Report as effect the ratio of the means, negative values set to 0, and not the difference. Two classes only.

    Returns
    -------
    table : DataFrame
        One row per cell type and gene, sorted by p-value, with the columns

        cell_type, gene : str
            Names.
        effect : float
            Second class minus first (in sorted order, or that of the categories), or the ratio of the two; slope per
            unit for a quantity; largest minus smallest mean for more than two classes.
        statistic : float
            t, z or F of the test; its sign is the direction.
        p_value : float
            NaN where there is no test, see ``flag``.
        q_value : float
            False discovery rate, within each cell type; see the tests for that of "joint".
        flag : str
            Empty, or why to distrust or miss the p-value: "constant", "singular", "separated" or "zero_mean".

    Raises
    ------
    ValueError
        If phenotype or covariates do not fit the cohort, the covariates are collinear, or ``method`` cannot test
        such a phenotype. The message names the offenders.

    See Also
    --------
    interaction_test : The same on bulk and proportions.
    marginal_test : The same on expression.
    joint_test : The same on expression.

    Notes
    -----
    "marginal" and "joint" test the expression as ``normalize`` of the model asks, and by default without the linear
    effect of each cell type's proportion, as the original does: what a sample's expression owes to its composition
    would otherwise pass for a change wherever proportions go with the phenotype. To test ``cse_`` as it is, pass it
    to :func:`marginal_test` or :func:`joint_test`.

    Flags:

    constant
        The gene, or the proportion of the cell type, does not vary. No p-value.
    singular
        The regression cannot tell the cell types apart. No p-value.
    separated
        Joint test: the gene's expression in all cell types together tells the classes apart without an error. The
        estimates are infinite, and p, near 1, says nothing: such genes may be the strongest of all.
    zero_mean
        The fold change divides by 0 and is infinite or NaN; the test stands.

    Rows without a p-value do not count in the false discovery rate, as in R's ``p.adjust``.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import differential_expression
    >>> cohort = make_cohort(n_samples=60, n_genes=200, random_state=0, as_frame=True)
    >>> model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
    >>> table = differential_expression(model, cohort.phenotype, X=cohort.bulk)
    >>> table.shape
    (1000, 7)
    >>> first = table.iloc[0]
    >>> bool(cohort.changed.loc[first.cell_type, first.gene])
    True
    """
    check_deconvolver(model)
    if method not in METHODS:
        raise ValueError(f"method must be one of {listing(METHODS)}, got {method!r}.")
    bulk = None if X is None else _bulk_of_fit(model, X)
    samples = row_names(X) if model._sample_names is None else model._sample_names
    study = _Study(phenotype, covariates, len(model.proportions_), samples, fold_change)
    names = model.cell_types_, model.gene_names_
    if method == "interaction":
        if X is None:
            raise ValueError(
                "method='interaction' regresses the bulk: pass the X that the model was fitted to, or choose "
                "method='marginal' or 'joint'."
            )
        return _interaction(bulk, model.proportions_, study, *names)
    test = _marginal if method == "marginal" else _joint
    return test(_tested_expression(model), study, *names)


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
    cell_types = _names(cell_types, np.shape(proportions)[-1], "celltype", "cell_types")
    genes = _names(genes if gene_names is None else gene_names, bulk.shape[1], "x", "gene_names")
    _refuse_nonfinite(~np.isfinite(bulk).all(axis=0), genes, "bulk", "gene")
    proportions = check_proportions(proportions, cell_types, len(bulk), samples)
    study = _Study(phenotype, covariates, len(bulk), samples, fold_change)
    return _interaction(bulk, proportions, study, cell_types, genes)


def marginal_test(cse, phenotype, *, covariates=None, fold_change=False, cell_types=None, gene_names=None):
    r"""Test, for every cell type and gene on its own, whether the expression goes with the phenotype.

    A linear model per cell type and gene, with phenotype y and covariates c,

    .. math:: p_{jk} = \mu_k + y_j \delta_k + c_j^T \gamma_k + \varepsilon_{jk} ,

    in which :math:`\delta_k = 0` is tested: by t, or by F if the phenotype has more than two classes.

    Parameters
    ----------
    cse : array-like of shape (n_samples, n_cell_types, n_genes)
        Cell-type-specific expression.
    phenotype : array-like or Series of shape (n_samples,)
        See :func:`differential_expression`.
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        See :func:`differential_expression`.
    fold_change : bool, default=False
        See :func:`differential_expression`.
    cell_types : array-like of str, default=None
        Names; None counts.
    gene_names : array-like of str, default=None
        Names; None counts.

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
    The R function ``FindCSE_DEG`` of ENIGMA with ``FDR_control=FALSE``. Expression that was estimated from one bulk
    shares its noise: a change in one cell type shows, weaker, in the others too, and the test cannot tell which
    of them it comes from.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import marginal_test
    >>> cohort = make_cohort(n_genes=50, random_state=0)
    >>> table = marginal_test(cohort.cse, cohort.phenotype)
    >>> int((table.q_value < 0.05).sum()) >= 25
    True
    """
    return _test_expression(_marginal, cse, phenotype, covariates, fold_change, cell_types, gene_names)


def joint_test(cse, phenotype, *, covariates=None, fold_change=False, cell_types=None, gene_names=None):
    r"""Test, for every gene, which cell type's expression goes with the phenotype given all others.

    Per gene, a logistic model of the phenotype on the expression in all cell types, or, for a quantity, a linear
    one,

    .. math:: \mathrm{logit}\, P(y_j = 1) = \mu + \sum_k p_{jk} b_k + c_j^T \gamma ,

    in which :math:`b_k = 0` is tested by Wald's test.

    Parameters
    ----------
    cse : array-like of shape (n_samples, n_cell_types, n_genes)
        Cell-type-specific expression.
    phenotype : array-like or Series of shape (n_samples,)
        Two classes or a quantity, see :func:`differential_expression`.
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        See :func:`differential_expression`.
    fold_change : bool, default=False
        See :func:`differential_expression`.
    cell_types : array-like of str, default=None
        Names; None counts.
    gene_names : array-like of str, default=None
        Names; None counts.

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
    The R function ``FindCSE_DEG`` of ENIGMA with ``FDR_control=TRUE``, to the limits of R's ``glm`` (25 iterations,
    relative change of the deviance 1e-8). Its q-value belongs to the gene, not to the pair of gene and cell
    type: a multivariate analysis of variance tests the gene in all cell types at once, Benjamini and Hochberg's
    procedure goes over the genes, and the result is given to the cell type with the smallest p-value, if that is
    below 0.05 over the number of cell types. All other q-values are 1: at most one cell type per gene is called. The
    analysis of variance is sequential, phenotype first: covariates adjust the p-values, but hardly the q-values.

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
    return _test_expression(_joint, cse, phenotype, covariates, fold_change, cell_types, gene_names)


def _test_expression(test, cse, phenotype, covariates, fold_change, cell_types, gene_names):
    """A test on a tensor, checked and named."""
    cse = check_array(
        cse, dtype=[np.float64, np.float32], allow_nd=True, ensure_all_finite=False, input_name="cse"
    )
    if cse.ndim != 3:
        raise ValueError(f"cse must have the axes samples, cell types and genes, got the shape {cse.shape}.")
    n_samples, n_cell_types, n_genes = cse.shape
    cell_types = _names(cell_types, n_cell_types, "celltype", "cell_types")
    gene_names = _names(gene_names, n_genes, "x", "gene_names")
    for name, of_type in zip(cell_types, cse.swapaxes(0, 1), strict=True):
        _refuse_nonfinite(~np.isfinite(of_type.sum(axis=0)), gene_names, f"cse of '{name}'", "gene")
    study = _Study(phenotype, covariates, n_samples, None, fold_change)
    return test(lambda genes: cse[:, :, genes], study, cell_types, gene_names)


def _names(given, count, prefix, what):
    """Names as an array of strings, counted where none are given."""
    if given is None:
        return numbered(prefix, count)
    names = np.array([str(name) for name in given], dtype=object)
    if len(names) != count:
        raise ValueError(f"{what} has {len(names)} names for {count} of them.")
    return names


def _refuse_nonfinite(bad, names, what, kind):
    if np.any(bad):
        raise ValueError(
            f"{what} contains NaN or infinity in {kind} {listing(names[bad])}. Impute or drop these first."
        )


def _bulk_of_fit(model, X):
    """X on the model's genes and samples."""
    bulk = model._new_bulk(X)
    if len(bulk) != len(model.proportions_):
        raise ValueError(
            f"X has {len(bulk)} samples, but the model was fitted to {len(model.proportions_)}: pass "
            f"the X of the fit."
        )
    return bulk[sample_order(X, model._sample_names, "rows of X")]


def _tested_expression(model):
    """Function of a slice of genes: the expression to test, without what it owes to the proportions."""
    if model.normalize in (None, "frac"):
        # gene by gene, so no normalised tensor is needed where the model keeps none
        return lambda genes: normalize("frac", model._expression(genes=genes), model.proportions_)
    normalized = model._output()
    return lambda genes: normalized[:, :, genes]


class _Study:
    """Phenotype and covariates of a cohort, checked and coded.

    Attributes
    ----------
    classes : list, or None
        None for a quantity.
    coded : ndarray of shape (n_samples, n_columns)
        An indicator of each class but the first, or the centred quantity.
    covariates : ndarray of shape (n_samples, n_covariates)
        Centred.
    covariate_names : list of str
    """

    def __init__(self, phenotype, covariates, n_samples, samples, fold_change):
        values = _phenotype_series(phenotype, n_samples, samples)
        samples = row_names(values) if samples is None else samples
        self.classes = _classes(values)
        if self.classes is None:
            quantity = values.to_numpy(dtype=np.float64)
            self.coded = (quantity - quantity.mean())[:, None]
        else:
            self._members = np.array([values == label for label in self.classes], dtype=np.float64)
            self.coded = self._members[1:].T
        self.n_samples, self.fold_change = n_samples, fold_change
        if fold_change and (self.classes is None or len(self.classes) > 2):
            found = "is a quantity" if self.classes is None else f"has {len(self.classes)} classes"
            raise ValueError(
                f"fold_change=True compares two classes, but the phenotype {found}: pass fold_change=False."
            )
        self.covariates, self.covariate_names = _covariates(covariates, n_samples, samples)

    def effects(self, values):
        """Effect on each column of ``values``, shape (n_samples, m), not adjusted for covariates."""
        if self.classes is None:
            direction = self.coded[:, 0] / np.sum(self.coded**2)
            return direction @ values
        if self.fold_change:
            values = np.maximum(values, 0)
        return self.compare(self._members / self._members.sum(axis=1, keepdims=True) @ values)

    def compare(self, means):
        """Effects from the means of each class, shape (n_classes, m)."""
        if self.fold_change:
            with np.errstate(divide="ignore", invalid="ignore"):
                return means[1] / means[0]
        return means[1] - means[0] if len(means) == 2 else np.ptp(means, axis=0)

    def design(self, base, what):
        """SharedDesign of ``base`` columns and the covariates, which must add to its rank one by one."""
        self.need(base.shape[1] + len(self.covariate_names))
        columns, collinear = base, []
        for name, column in zip(self.covariate_names, self.covariates.T, strict=True):
            rest = SharedDesign(columns).residuals(column)
            if np.linalg.norm(rest) <= DEPENDENT * np.linalg.norm(column):
                collinear.append(name)
            else:
                columns = np.column_stack([columns, column])
        if collinear:
            raise ValueError(
                f"Collinear covariates: {listing(collinear)} can be computed from {what} and the other covariates. "
                f"Drop them; what goes with the phenotype that closely cannot be told apart from it."
            )
        return SharedDesign(columns)

    def need(self, n_columns):
        """Refuse cohorts that leave no residual."""
        if self.n_samples <= n_columns:
            raise ValueError(
                f"{self.n_samples} samples cannot estimate {n_columns} coefficients and an error: this test needs "
                f"at least {n_columns + 1} samples. Use fewer covariates, classes or cell types."
            )


def _phenotype_series(phenotype, n_samples, samples):
    """Phenotype in the order of the samples, complete and of the right length."""
    if isinstance(phenotype, pd.DataFrame) and phenotype.shape[1] == 1:
        phenotype = phenotype.iloc[:, 0]
    if np.ndim(phenotype) != 1:
        raise ValueError(
            f"phenotype must have one value per sample, got the shape {np.shape(phenotype)}: pass a single column."
        )
    values = pd.Series(phenotype)
    if len(values) != n_samples:
        raise ValueError(
            f"phenotype has {len(values)} values, but there are {n_samples} samples: it must have one per sample."
        )
    values = values.iloc[sample_order(values, samples, "index of phenotype")].infer_objects()
    missing = values.isna().to_numpy()
    if pd.api.types.is_numeric_dtype(values):
        missing = missing | ~np.isfinite(values.to_numpy(dtype=np.float64, na_value=np.nan))
    if missing.any():
        raise ValueError(
            f"phenotype is NaN or infinite in {missing.sum()} sample(s): {listing(list(values.index[missing]))}. "
            f"Drop these samples before the fit, or give them a value."
        )
    return values


def _classes(values):
    """Classes in order, or None for a quantity."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        classes = list(values.cat.remove_unused_categories().cat.categories)
    else:
        try:
            classes = sorted(values.unique().tolist())
        except TypeError as error:
            raise ValueError(
                f"phenotype mixes types that have no order ({error}): make all of them strings or numbers."
            ) from error
    if len(classes) < 2:
        raise ValueError(
            f"phenotype has only one class, {listing(classes)}: there is nothing to compare it with."
        )
    quantity = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return None if quantity and len(classes) > 2 else classes


def _covariates(covariates, n_samples, samples):
    """Centred columns and their names; categories one-hot encoded without the first."""
    if covariates is None:
        return np.empty((n_samples, 0)), []
    frame = _covariate_frame(covariates)
    if len(frame) != n_samples:
        raise ValueError(f"covariates have {len(frame)} rows, but there are {n_samples} samples.")
    frame = frame.iloc[sample_order(frame, samples, "index of covariates")].infer_objects()
    frame.columns = names = np.array([str(name) for name in frame.columns], dtype=object)
    _refuse_nonfinite(frame.isna().any(axis=0).to_numpy(), names, "covariates", "column")
    constant = names[(frame.nunique() == 1).to_numpy()]
    if len(constant):
        raise ValueError(
            f"Collinear covariates: {listing(constant)} have the same value in every sample. Drop them."
        )
    coded = pd.get_dummies(frame.apply(_without_unused), drop_first=True, dtype=np.float64)
    values, names = coded.to_numpy(dtype=np.float64), coded.columns.to_numpy()
    _refuse_nonfinite(~np.isfinite(values).all(axis=0), names, "covariates", "column")
    return values - values.mean(axis=0), list(names)


def _without_unused(column):
    """A column without the categories that it does not take: their indicators would be 0."""
    return column.cat.remove_unused_categories() if isinstance(column.dtype, pd.CategoricalDtype) else column


def _covariate_frame(covariates):
    if isinstance(covariates, pd.DataFrame):
        return covariates
    if isinstance(covariates, pd.Series):
        return covariates.to_frame("covariate" if covariates.name is None else covariates.name)
    values = np.asarray(covariates)
    if values.ndim not in (1, 2):
        raise ValueError(f"covariates must be a table, samples × covariates, got the shape {values.shape}.")
    values = values.reshape(len(values), -1)
    counted = [f"covariate{i}" for i in range(values.shape[1])]
    return pd.DataFrame(
        values, columns=getattr(covariates, "columns", counted)
    )  # other frames have names too


def _interaction(bulk, proportions, study, cell_types, genes):
    proportions = proportions.astype(np.float64, copy=False)
    n_cell_types, n_coded = len(cell_types), study.coded.shape[1]
    products = proportions[:, :, None] * study.coded[:, None]
    base = np.hstack([proportions, products.reshape(len(proportions), -1)])
    design = study.design(base, "proportions, phenotype")
    of_products = np.arange(n_cell_types, base.shape[1]).reshape(n_cell_types, n_coded)
    result = _Result(cell_types, genes)
    for block in gene_blocks(len(genes), len(bulk)):
        values = bulk[:, block].astype(np.float64, copy=False)
        tests = design.test(values, of_products.tolist())
        changes = tests.coefficients[of_products]
        result.store(block, _fitted_effects(tests.coefficients[:n_cell_types], changes, study), tests)
        result.drop("constant", _is_constant(bulk[:, block]), block)
    constant = _is_constant(proportions)
    undetermined = constant | ~np.array([design.estimable(columns) for columns in of_products])
    result.effect[undetermined] = np.nan
    result.drop("constant", constant[:, None])
    result.drop("singular", undetermined[:, None])
    return result.table(_benjamini_hochberg(result.p_value))


def _fitted_effects(means, changes, study):
    """Effects from the coefficients of the proportions, (K, g), and of their products, (K, columns, g)."""
    if study.classes is None:
        return changes[:, 0]
    fitted = np.concatenate([means[:, None], means[:, None] + changes], axis=1)
    return np.stack(
        [study.compare(np.maximum(of_type, 0) if study.fold_change else of_type) for of_type in fitted]
    )


def _marginal(expression, study, cell_types, genes):
    base = np.column_stack([np.ones(study.n_samples), study.coded])
    design = study.design(base, "phenotype")
    result = _Result(cell_types, genes)
    for block in gene_blocks(len(genes), study.n_samples * len(cell_types)):
        values = expression(block)
        flat = values.reshape(study.n_samples, -1).astype(np.float64, copy=False)
        result.store(block, _effects(study, values), design.test(flat, [list(range(1, base.shape[1]))]))
        result.drop("constant", _is_constant(values), block)
    return result.table(_benjamini_hochberg(result.p_value))


def _joint(expression, study, cell_types, genes):
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
    result, gene_p = _Result(cell_types, genes), np.full(len(genes), np.nan)
    singular, separated = np.zeros((2, len(genes)), dtype=bool)
    for block in gene_blocks(len(genes), study.n_samples * (n_cell_types + common.shape[1] + 1)):
        values = expression(block)
        result.effect[:, block] = _effects(study, values)
        constant = _is_constant(values)
        result.drop("constant", constant, block)
        for kept, members in _patterns(~constant):
            tested, positions = values[:, kept][:, :, members].transpose(2, 0, 1), members + block.start
            tests = fit(tested, phenotype, common)
            result.statistic[np.ix_(kept, positions)] = tests.statistic.T
            result.p_value[np.ix_(kept, positions)] = tests.p_value.T
            gene_p[positions] = multivariate_tests(tested, phenotype, study.covariates)
            singular[positions] = tests.singular | np.isnan(gene_p[positions])
            separated[positions] = tests.separated
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


def _effects(study, values):
    """Effects on expression of shape (n_samples, K, g)."""
    return study.effects(values.reshape(study.n_samples, -1)).reshape(values.shape[1:])


def _is_constant(values):
    """Whether values are the same in every sample but for rounding in their type."""
    low, high = values.min(axis=0), values.max(axis=0)
    return high - low <= CONSTANT * np.finfo(values.dtype).eps * np.maximum(np.abs(low), np.abs(high))


def _benjamini_hochberg(p_value):
    """False discovery rates along the last axis; NaN stays and does not count."""
    q_value = np.full_like(p_value, np.nan)
    for row, q in zip(np.atleast_2d(p_value), np.atleast_2d(q_value), strict=True):
        there = ~np.isnan(row)
        if there.any():
            q[there] = false_discovery_control(row[there])
    return q_value


def _gated(p_value, gene_p):
    """False discovery rate of the gene for the cell type with the smallest p-value, if small enough; else 1."""
    comparable = np.where(np.isnan(p_value), np.inf, p_value)
    genes = np.flatnonzero(comparable.min(axis=0) < GATE / len(p_value))
    q_value = np.where(np.isnan(p_value), np.nan, 1.0)
    q_value[comparable[:, genes].argmin(axis=0), genes] = _benjamini_hochberg(gene_p)[genes]
    return q_value


class _Result:
    """Tests of every cell type and gene, as they are computed."""

    def __init__(self, cell_types, genes):
        self._cell_types, self._genes = cell_types, genes
        shape = len(cell_types), len(genes)
        self.effect, self.statistic, self.p_value = (np.full(shape, np.nan) for _ in range(3))
        self._flag = np.full(shape, "", dtype=object)

    def store(self, genes, effect, tests):
        """Keep effects and tests of some genes in all cell types."""
        self.effect[:, genes] = effect
        self.statistic[:, genes] = tests.statistic.reshape(effect.shape)
        self.p_value[:, genes] = tests.p_value.reshape(effect.shape)

    def flag(self, reason, where, genes=slice(None)):
        """Note the first reason for which a row is to be read with care."""
        part = self._flag[:, genes]
        part[np.broadcast_to(where, part.shape) & (part == "")] = reason

    def drop(self, reason, where, genes=slice(None)):
        """Flag rows and take their test away."""
        self.flag(reason, where, genes)
        for values in (self.statistic[:, genes], self.p_value[:, genes]):
            values[np.broadcast_to(where, values.shape)] = np.nan

    def table(self, q_value):
        """The tidy table, smallest p-value first."""
        n_cell_types, n_genes = self.p_value.shape
        self.flag("zero_mean", ~np.isfinite(self.effect))
        columns = [
            np.repeat(self._cell_types, n_genes),
            np.tile(self._genes, n_cell_types),
            *(values.ravel() for values in (self.effect, self.statistic, self.p_value, q_value, self._flag)),
        ]
        order = np.lexsort((-np.abs(self.statistic.ravel()), self.p_value.ravel()))
        return pd.DataFrame({name: values[order] for name, values in zip(COLUMNS, columns, strict=True)})
