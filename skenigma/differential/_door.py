"""The one door from a fitted model: which test, and what it is given."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import pandas as pd
from sklearn.utils import check_scalar

from .._transformers import aligned_bulk
from .._typing import Column, Estimator, Table
from ..checks.labels import match_rows, row_labels
from ..checks.names import listing
from ..checks.validation import check_deconvolver
from ..cohort import is_lazy, open_bulk
from ..reliability import gene_significance
from ._methods import METHODS, FittedCohort, default_method
from ._study import Options, Study


def differential_expression(
    model: Estimator,
    phenotype: Column,
    *,
    method: str = "auto",
    X: Table | None = None,
    covariates: Table | None = None,
    fold_change: bool = False,
    levels: Sequence | None = None,
    reference_level: Any = None,
    missing: str = "raise",
    significance_level: float | None = None,
) -> pd.DataFrame:
    """Genes whose expression in a cell type is associated with the phenotype, from a fitted deconvolver.

    Parameters
    ----------
    model : L2MaxDeconvolver or TraceNormDeconvolver
        Fitted to the cohort.
    phenotype : array-like or Series of shape (n_samples,)
        Strings, booleans, categories or two distinct numbers are classes; more than two distinct numbers are a
        quantity. Matched by name to the samples if both are named.
    method : {"auto", "log_fold_change", "factor", "interaction", "marginal", "joint"}, default="auto"
        "log_fold_change" (:func:`log_fold_change_test`) has the reference as its design and is the answer on counts
        and values like them. "factor" (:func:`factor_test`) has it too, and is for signed, centred or standardised
        values. "interaction" (:func:`interaction_test`) regresses the bulk on the proportions and
        their products with the phenotype, and takes signed values. "auto" is the first where bulk and reference have
        no negative value and `fold_change` is not asked for, else the second. "marginal" (:func:`marginal_test`) and
        "joint" (:func:`joint_test`) are the tests of the original R package, on the cell-type-specific expression.
    X : array-like or DataFrame of shape (n_samples, n_genes), default=None
        The bulk that the model was fitted to, in memory or read by rows. Needed by "log_fold_change", "factor",
        "interaction", and by `significance_level`.
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        What else to adjust for. Columns that are not numbers are one-hot encoded, without their first category.
    fold_change : bool, default=False
        Report as effect the ratio of the means, negative values set to 0, and not the difference. Two classes only.
    levels : sequence, default=None
        The classes to compare, in this order; samples of others are left out. None takes all, in sorted order or that
        of the categories.
    reference_level : scalar, default=None
        The class that others are compared with. None takes the first.
    missing : {"raise", "drop"}, default="raise"
        What to do with samples that lack the phenotype or a covariate: refuse, or leave them out of the
        test. The fit stays as it is.
    significance_level : float, default=None
        Add whether the cell type contributes to the gene's bulk at all, at this level: the columns that version 0.1.6
        of the R package has, whose ``p_cutoff`` is 0.05. None adds none.

    Returns
    -------
    table : DataFrame
        One row per cell type and gene, sorted by p-value; with `significance_level` first the rows that are
        ``significant``, then the others, each sorted by q-value. The columns are

        cell_type, gene : str
            Names.
        effect : float
            Second class minus the reference level, in units of the expression, or the ratio of the two; slope per
            unit for a quantity; largest minus smallest mean for more than two classes. By "log_fold_change" all of
            these are log2 fold changes.
        standard_error : float
            Of the effect; by "log_fold_change" and "factor" only.
        statistic : float
            t, z or F of the test; its sign is the direction.
        p_value : float
            NaN where there is no test, see ``flag``.
        q_value : float
            False discovery rate, within each cell type; see the tests for that of "joint".
        flag : str
            Empty, or why to distrust or miss the p-value, see the notes.
        contrast : str
            What the effect compares: "case - control", "log2(case / control)", "per unit of age".
        significant : bool
            With `significance_level` only: whether the cell type contributes to the gene's bulk.
        significance : float
            With it: the score or q-value that decides, of ``gene_significance(..., refine="auto")`` in
            :mod:`skenigma.reliability`.

    Raises
    ------
    ValueError
        If phenotype or covariates do not fit the cohort, the covariates are collinear, or ``method`` cannot test
        such a phenotype. The message names the offenders.

    Warns
    -----
    SampleWarning
        If a class has a single sample.

    See Also
    --------
    log_fold_change_test : The same on bulk, proportions and reference.
    factor_test : The same on signed values.
    interaction_test : The same on bulk and proportions.
    marginal_test : The same on expression.
    joint_test : The same on expression.

    Notes
    -----
    "marginal" and "joint" test the expression as ``normalize`` of the model asks, and by default without the
    linear effect of each cell type's proportion, as the original does: otherwise, the effect of composition
    would look like a change wherever proportions are associated with the phenotype. To test ``cse_`` as it
    is, pass it to :func:`marginal_test` or :func:`joint_test`.

    An X that is not in memory is taken as the tests take it: "interaction" and "log_fold_change" in any size,
    "factor" where there is room for what it holds. "marginal" and "joint" read the X of the fit once for every 34
    million numbers of expression.

    Flags:

    constant
        The gene, or the proportion of the cell type, does not vary. No p-value.
    singular
        The regression cannot tell the cell types apart. No p-value.
    separated
        Joint test: the gene's expression in all cell types together tells the classes apart without an error. The
        estimates are infinite, and p, near 1, says nothing: such genes may be the strongest of all.
    rare
        The cell type is too rare to be tested. No p-value.
    low_share
        Log fold changes: the cell type contributes too little of the gene's bulk. No p-value.
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
    (1000, 8)
    >>> first = table.iloc[0]
    >>> bool(cohort.changed.loc[first.cell_type, first.gene])
    True
    """
    check_deconvolver(model)
    if significance_level is not None:
        check_scalar(significance_level, "significance_level", Real, min_val=0, max_val=1)
    if method != "auto" and method not in METHODS:
        raise ValueError(f"method must be one of {listing(['auto', *METHODS])}, got {method!r}.")
    X = None if X is None else open_bulk(X)
    cohort = FittedCohort(model, None if X is None else _bulk_of_fit(model, X))
    samples = model.expression_.sample_names
    # a fit to an array knows no names: those of X, if any, match the phenotype
    samples = row_labels(X) if samples is None else samples
    options = Options(fold_change, levels, reference_level, missing)
    study = Study(phenotype, covariates, len(model.proportions_), samples, options)
    method = default_method(cohort, study) if method == "auto" else method
    if cohort.bulk is None and METHODS[method].needs_bulk:
        raise ValueError(
            f"method={method!r} regresses the bulk: pass the X that the model was fitted to, or choose "
            f"method='marginal' or 'joint'."
        )
    if significance_level is not None and cohort.bulk is None:
        raise ValueError("significance_level tests the bulk: pass the X that the model was fitted to.")
    table = METHODS[method].run(cohort, study)
    return table if significance_level is None else _with_significance(table, cohort, significance_level)


def _with_significance(table, cohort, level):
    """The table with the columns of the gene-significance test, by which it is sorted."""
    model = cohort.model
    genes = cohort.bulk
    if not is_lazy(genes):
        genes = pd.DataFrame(genes, columns=model.gene_names_)
    shares = pd.DataFrame(cohort.proportions, columns=model.cell_types_)
    tested = gene_significance(genes, shares, refine="auto", level=level, reference=model.reference_)
    decides = tested["score"] if "score" in tested else tested["q_value"]
    names = ["cell_type", "gene"]
    added = tested[[*names, "significant"]].assign(significance=decides)
    merged = table.merge(added, on=names, how="left", validate="one_to_one")
    return merged.sort_values(
        ["significant", "q_value"], ascending=[False, True], kind="stable", ignore_index=True
    )


def _bulk_of_fit(model, X):
    """X on the model's genes and samples."""
    bulk = aligned_bulk(model, X)
    if len(bulk) != len(model.proportions_):
        raise ValueError(
            f"X has {len(bulk)} samples, but the model was fitted to {len(model.proportions_)}: pass "
            f"the X of the fit."
        )
    order = match_rows(X, model.expression_.sample_names, "rows of X", other="the model")
    if not is_lazy(bulk):
        return bulk[order]
    if not isinstance(order, slice):
        raise ValueError(
            "The samples of X are in another order than in the fit: an X that is read by rows must be in the "
            "order of the fit."
        )
    return bulk
