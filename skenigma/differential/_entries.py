"""Entries that the docstrings of the tests share."""

ENTRIES = {
    "cse": """cse : array-like of shape (n_samples, n_cell_types, n_genes)
    Cell-type-specific expression.""",
    "proportions": """proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
    Proportions, rows summing to 1 up to 0.05.""",
    "phenotype": """phenotype : array-like or Series of shape (n_samples,)
    See :func:`differential_expression`.""",
    "covariates": """covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
    See :func:`differential_expression`.""",
    "fold_change": """fold_change : bool, default=False
    See :func:`differential_expression`.""",
    "comparison": """levels, reference_level, missing : see :func:`differential_expression`
    Which classes and samples take part, and with what an effect compares.""",
    "min_proportion": """min_proportion : float, default=0.01
    A cell type whose mean proportion is below this, or that fewer than 5 samples reach, is flagged "rare" and
    not tested. 0 tests all.""",
    "names": """cell_types : array-like of str, default=None
    Names; None counts.
gene_names : array-like of str, default=None
    Names; None counts.""",
    "cell_types": """cell_types : array-like of str, default=None
    Names; None takes the columns of proportions, or counts.""",
    "gene_names": """gene_names : array-like of str, default=None
    Names; None takes the columns of X, or counts.""",
    "random_state": """random_state : int, RandomState instance or None, default=0
    Of the permutations.""",
}
