"""Simulated cohorts whose cell-type-specific expression is known."""

from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state, check_scalar

from .._docstrings import COHORT, filled
from .._typing import Seed
from ..checks.names import numbered

__all__ = ["make_cohort"]

DESCRIPTION = """\
Simulated cohort of bulk samples with known cell-type-specific expression
--------------------------------------------------------------------------

samples {n_samples}, genes {n_genes}, cell types {n_cell_types}

The last {n_cases} samples are cases, the others controls. In every cell type {n_changed} genes,
drawn independently of the other cell types, lie {effect:g} higher or lower in the cases.
Standard deviation of the cell-type-specific expression around its profile: {cse_noise:g}.
Standard deviation of the measurement noise on the bulk: {noise:g}.

bulk         samples x genes; the mixture of the cell types plus noise
reference    cell types x genes; the profiles in controls
proportions  samples x cell types; rows sum to 1
cse          samples x cell types x genes; what every cell type expresses in every sample
changed      cell types x genes; 1 higher in cases, -1 lower, 0 unchanged
phenotype    samples; 0 control, 1 case
"""


@filled(COHORT)
def make_cohort(
    n_samples: int = 100,
    n_genes: int = 1000,
    n_cell_types: int = 5,
    *,
    effect: float = 4.8,
    changed: float = 0.1,
    noise: float = 1.0,
    cse_noise: float = 1.0,
    as_frame: bool = False,
    random_state: Seed = None,
) -> Bunch:
    """Simulate bulk samples of two groups, with all that deconvolution should recover.

    The defaults simulate the published benchmark of the ENIGMA method [1]_: 100 samples, 1,000
    genes, 5 cell types and 100 changed genes per cell type. The recipe, per sample j, cell type k
    and gene g::

        reference_kg   ~ N(0, 1)
        u_jk           ~ U(0, 1),     proportions_jk = u_jk / sum_k u_jk
        cse_jkg        = reference_kg + phenotype_j * effect * changed_kg + cse_noise * N(0, 1)
        bulk_jg        = sum_k proportions_jk * cse_jkg + noise * N(0, 1)

    Values are centred on 0, as for standardised expression, and about half of them are negative.
    For a given `random_state`, `effect`, `noise` and `cse_noise` scale one and the same set of
    random numbers, so that cohorts that differ in nothing else can be compared.

    Parameters
    ----------
    n_samples : int, default=100
        Number of bulk samples, at least 2. The last ``n_samples // 2`` are cases.
    n_genes : int, default=1000
        Number of genes.
    n_cell_types : int, default=5
        Number of cell types.
    effect : float, default=4.8
        How far a changed gene lies from its profile in cases, in standard deviations of the
        profiles. Not negative: the direction is drawn per gene.
    changed : float, default=0.1
        Share of the genes that change in each cell type, between 0 and 1. Exactly
        ``round(changed * n_genes)`` genes are drawn, for each cell type independently, so that
        a gene can change in several. Each goes up or down with probability 1/2.
    noise : float, default=1.0
        Standard deviation of the measurement noise on the bulk.
    cse_noise : float, default=1.0
        Standard deviation, over samples, of the expression of one gene in one cell type.
    as_frame : bool, default=False
        Return `bulk`, `reference`, `proportions` and `changed` as DataFrames and `phenotype` as
        a Series, all of them named. `cse`, with its three axes, stays an array.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same cohort on every call.

    Returns
    -------
    cohort : :class:`~sklearn.utils.Bunch`
        With the attributes

        bulk : ndarray or DataFrame of shape (n_samples, n_genes)
            The mixture.
        reference : ndarray or DataFrame of shape (n_cell_types, n_genes)
            The profile of each cell type in controls, free of noise.
        proportions : ndarray or DataFrame of shape (n_samples, n_cell_types)
            Share of each cell type in each sample; rows sum to 1.
        cse : ndarray of shape (n_samples, n_cell_types, n_genes)
            Cell-type-specific expression.
        changed : ndarray of int8 or DataFrame, of shape (n_cell_types, n_genes)
            1 where a gene is higher in cases, -1 where it is lower, 0 where it does not change.
        phenotype : ndarray of int or Series, of shape (n_samples,)
            0 for controls, 1 for cases.
        {cohort_names}
        DESCR : str
            Description of this cohort.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    TypeError
        If a parameter is not a number.

    Notes
    -----
    The recipe was checked against the published data set, whose true proportions are not part of
    it and were estimated here by least squares. There the effect in cases is 4.77 with a standard
    error of 0.03, the same for all changed genes, and 0.04 (0.03) in controls. Changed genes are
    drawn independently per cell type: 411 distinct genes where 409.5 are expected. The residual
    variance of a sample is 1.00 (0.03) + 0.94 (0.10) times the sum of its squared proportions,
    where the recipe gives 1 + 1. The reference shows no noise.

    The proportions are normalised uniform random numbers, not draws from a flat Dirichlet
    distribution: their variance in the published data is 0.0136 once the variance of their
    estimation is taken off, where 100 normalised uniform samples give 0.0128 (standard deviation
    0.0009) and a flat Dirichlet gives 0.0266 (0.0018).

    References
    ----------
    .. [1] Wang W. et al. "Improved estimation of cell type-specific gene expression through
       deconvolution of bulk tissues with matrix completion" (ENIGMA), benchmark of the detection
       of cell-type-specific differential expression, data set ``DEG_test_data_4.8``.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=20, n_genes=50, n_cell_types=3, as_frame=True, random_state=0)
    >>> cohort.bulk.shape
    (20, 50)
    >>> cohort.cse.shape
    (20, 3, 50)
    >>> list(cohort.proportions.columns)
    ['celltype1', 'celltype2', 'celltype3']
    >>> cohort.changed.abs().sum(axis=1).tolist()
    [5, 5, 5]
    """
    _check_parameters(n_samples, n_genes, n_cell_types, effect, changed, noise, cse_noise)
    rng = check_random_state(random_state)
    n_changed, n_cases = round(changed * n_genes), n_samples // 2

    # the order of the draws is part of the recipe: another gives other data for one seed
    reference = rng.standard_normal((n_cell_types, n_genes))
    proportions = _uniform_proportions(n_samples, n_cell_types, rng)
    signs = _changed_genes(n_cell_types, n_genes, n_changed, rng)
    phenotype = np.repeat([0, 1], [n_samples - n_cases, n_cases])

    cse = cse_noise * rng.standard_normal((n_samples, n_cell_types, n_genes))
    cse += reference
    cse[phenotype == 1] += effect * signs
    bulk = np.einsum("jk,jkg->jg", proportions, cse)
    bulk += noise * rng.standard_normal(bulk.shape)

    cohort = Bunch(
        bulk=bulk,
        reference=reference,
        proportions=proportions,
        cse=cse,
        changed=signs,
        phenotype=phenotype,
        sample_names=numbered("sample", n_samples, start=1),
        gene_names=numbered("gene", n_genes, start=1),
        cell_types=numbered("celltype", n_cell_types, start=1),
        DESCR=DESCRIPTION.format(
            n_samples=n_samples,
            n_genes=n_genes,
            n_cell_types=n_cell_types,
            n_cases=n_cases,
            n_changed=n_changed,
            effect=effect,
            cse_noise=cse_noise,
            noise=noise,
        ),
    )
    return _as_frames(cohort) if as_frame else cohort


def _check_parameters(n_samples, n_genes, n_cell_types, effect, changed, noise, cse_noise):
    check_scalar(n_samples, "n_samples", Integral, min_val=2)
    check_scalar(n_genes, "n_genes", Integral, min_val=1)
    check_scalar(n_cell_types, "n_cell_types", Integral, min_val=1)
    _check_size(changed, "changed", max_val=1)
    for name, value in {"effect": effect, "noise": noise, "cse_noise": cse_noise}.items():
        _check_size(value, name)


def _check_size(value, name, max_val=None):
    check_scalar(value, name, Real, min_val=0, max_val=max_val)
    # comparisons with NaN are false, so the range check lets it pass
    if not np.isfinite(value):
        raise ValueError(f"{name} == {value}, must be finite.")


def _uniform_proportions(n_samples, n_cell_types, rng):
    # 1 - U lies in (0, 1]: no row can sum to 0
    weights = 1.0 - rng.uniform(size=(n_samples, n_cell_types))
    return weights / weights.sum(axis=1, keepdims=True)


def _changed_genes(n_cell_types, n_genes, n_changed, rng):
    signs = np.zeros((n_cell_types, n_genes), dtype=np.int8)
    for row in signs:
        row[rng.choice(n_genes, n_changed, replace=False)] = rng.choice([-1, 1], n_changed)
    return signs


def _as_frames(cohort):
    samples, genes, cell_types = cohort.sample_names, cohort.gene_names, cohort.cell_types
    return Bunch(
        **{
            **cohort,
            "bulk": pd.DataFrame(cohort.bulk, samples, genes),
            "reference": pd.DataFrame(cohort.reference, cell_types, genes),
            "proportions": pd.DataFrame(cohort.proportions, samples, cell_types),
            "changed": pd.DataFrame(cohort.changed, cell_types, genes),
            "phenotype": pd.Series(cohort.phenotype, samples, name="phenotype"),
        }
    )
