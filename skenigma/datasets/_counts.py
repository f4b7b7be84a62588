"""Simulated counts as sequencers give them: annotated cells, and bulk samples of donors on another platform."""

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from .._docstrings import COHORT, filled
from .._typing import Seed
from ..checks.names import numbered

__all__ = ["make_counts"]

DESCRIPTION = """\
Simulated counts of bulk samples and of annotated cells, with known cell-type-specific expression
-------------------------------------------------------------------------------------------------

samples {n_samples}, genes {n_genes}, cell types {n_cell_types}, cells {n_cells}

The last {n_cases} samples are cases. In {changed_types} {n_changed} genes each are {fold:g} times as high or as low
in the cases. Bulk and cells were measured on different platforms.

bulk         samples x genes; counts
cells        cells x genes; counts
labels       cells; their cell types
proportions  samples x cell types; shares of RNA, rows sum to 1
cse          samples x cell types x genes; counts per million, on the platform of the bulk
changed      cell types x genes; log2 fold change of the cases
phenotype    samples; 0 control, 1 case
"""
# Spread of logarithms of expression: over genes, between cell types, of a donor's cell type around its mean, and of
# what donors share in a few programs of genes.
SPREAD = {"genes": 1.6, "types": 0.6, "donors": 0.25, "programs": 0.6}
N_MARKERS, MARKER = 40, 3.0
N_PROGRAMS, IN_PROGRAM = 2, 0.1


@filled(COHORT)
def make_counts(
    n_samples: int = 60,
    n_genes: int = 2000,
    n_cell_types: int = 6,
    n_cells: int = 1200,
    *,
    n_changed: int = 100,
    changed_types: int = 1,
    fold: float = 3.0,
    platform: float = 0.3,
    depth: tuple[float, float] = (2e6, 1e7),
    random_state: Seed = None,
) -> Bunch:
    """Simulate counts of annotated cells and of bulk samples, with all that deconvolution should recover.

    Unlike :func:`make_cohort`, which has the centred values of the published benchmark, this resembles real
    tables: counts, varying library sizes, markers, differences between donors, rare cell types, and a bulk
    that was measured on another platform than the cells.

    Parameters
    ----------
    n_samples : int, default=60
        Number of bulk samples, at least 2. The last ``n_samples // 2`` are cases.
    n_genes : int, default=2000
        Number of genes, at least 40 for each cell type.
    n_cell_types : int, default=6
        Number of cell types; the first are common, the last rare.
    n_cells : int, default=1200
        Number of annotated cells, at least 10 for each cell type.
    n_changed : int, default=100
        Number of genes that change in the cases, in each of the types that change.
    changed_types : int, default=1
        How many cell types change, beginning with the most common one.
    fold : float, default=3.0
        Fold by which a changed gene is higher or lower, with probability 1/2 each.
    platform : float, default=0.3
        Standard deviation over genes of the natural logarithm of what one platform sees more of than the other.
    depth : tuple of two floats, default=(2e6, 1e7)
        Smallest and largest library size of the bulk samples.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same counts on every call.

    Returns
    -------
    cohort : :class:`~sklearn.utils.Bunch`
        With the attributes

        bulk : DataFrame of int, of shape (n_samples, n_genes)
            Counts of the bulk samples.
        cells : DataFrame of int, of shape (n_cells, n_genes)
            Counts of the cells.
        labels : Series of str, of length n_cells
            Cell type of every cell.
        proportions : DataFrame of shape (n_samples, n_cell_types)
            Share of a sample's RNA that is of the cell type.
        cse : ndarray of shape (n_samples, n_cell_types, n_genes)
            Cell-type-specific expression, counts per million, as the platform of the bulk sees it.
        changed : DataFrame of shape (n_cell_types, n_genes)
            log2 fold change of the cases, 0 where a gene does not change.
        phenotype : Series of int, of length n_samples
            0 for controls, 1 for cases.
        {cohort_names}
        DESCR : str
            Description of this cohort.

    Raises
    ------
    ValueError
        If a number is too small.

    Notes
    -----
    With z for standard normal numbers, drawn anew each time, and γ(a) for gamma numbers of mean 1 and shape a::

        profile_kg  = 1.6 z_g + 0.6 z_kg, and 3 higher in the 40 markers of k, 1 lower in those of the others
        cell_ig     ~ Poisson(depth_i softmax(profile_k(i))_g γ(4)),        depth_i = exp(7.8 + 0.4 z_i)
        logs_jkg    = profile_kg + 0.25 z_jkg + programs_jkg + platform z_g + phenotype_j log(fold) sign_kg
        cse_jk      = softmax(logs_jk) 1e6
        bulk_jg     ~ Poisson(depth_j Σ_k proportions_jk cse_jkg / 1e6 γ(100))

    Each cell type has 2 programs of a tenth of the genes, which rise and fall together over donors with a standard
    deviation of 0.6 per gene. The proportions are drawn from a Dirichlet distribution whose parameters fall evenly
    from 9 to 1.

    Examples
    --------
    >>> from skenigma.datasets import make_counts
    >>> cohort = make_counts(n_samples=8, n_genes=300, n_cell_types=3, n_cells=60, random_state=0)
    >>> cohort.bulk.shape, cohort.cells.shape, cohort.cse.shape
    ((8, 300), (60, 300), (8, 3, 300))
    >>> int((cohort.changed != 0).sum().sum())
    100
    """
    _check_sizes(n_samples, n_genes, n_cell_types, n_cells, n_changed, changed_types)
    rng = check_random_state(random_state)
    profiles = _profiles(rng, n_cell_types, n_genes)
    labels, cells = _cells(rng, profiles, n_cells)
    phenotype = (np.arange(n_samples) >= n_samples - n_samples // 2).astype(int)
    changed = _changed(rng, profiles.shape, changed_types, n_changed, fold)
    proportions = rng.dirichlet(np.linspace(9, 1, n_cell_types), n_samples)
    cse = _expression(rng, profiles, phenotype, changed, platform)
    depths = np.exp(rng.uniform(*np.log(depth), n_samples))
    expected = np.einsum("jk,jkg->jg", proportions, cse) * depths[:, None] / 1e6
    bulk = rng.poisson(expected * rng.gamma(100, 0.01, expected.shape))

    types, genes = numbered("celltype", n_cell_types), numbered("gene", n_genes)
    samples = numbered("sample", n_samples)
    return Bunch(
        bulk=pd.DataFrame(bulk, samples, genes),
        cells=pd.DataFrame(cells, numbered("cell", n_cells), genes),
        labels=pd.Series(np.asarray(types)[labels], numbered("cell", n_cells), name="cell_type"),
        proportions=pd.DataFrame(proportions, samples, types),
        cse=cse,
        changed=pd.DataFrame(changed, types, genes),
        phenotype=pd.Series(phenotype, samples, name="phenotype"),
        sample_names=samples,
        gene_names=genes,
        cell_types=types,
        DESCR=DESCRIPTION.format(
            n_samples=n_samples,
            n_genes=n_genes,
            n_cell_types=n_cell_types,
            n_cells=n_cells,
            n_cases=phenotype.sum(),
            changed_types=", ".join(types[:changed_types]) or "no cell type",
            n_changed=n_changed,
            fold=fold,
        ),
    )


def _check_sizes(n_samples, n_genes, n_cell_types, n_cells, n_changed, changed_types):
    """Refuse what the recipe cannot do."""
    least = {
        "n_samples": (n_samples, 2),
        "n_cell_types": (n_cell_types, 2),
        "n_genes": (n_genes, N_MARKERS * n_cell_types),
        "n_cells": (n_cells, 10 * n_cell_types),
        "n_changed": (n_changed, 0),
        "changed_types": (changed_types, 0),
    }
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise ValueError(f"{name} must be at least {smallest} here, got {value}.")
    for name, value, largest in (
        ("n_changed", n_changed, n_genes),
        ("changed_types", changed_types, n_cell_types),
    ):
        if value > largest:
            raise ValueError(f"{name} must be at most {largest} here, got {value}.")


def _changed(rng, shape, changed_types, n_changed, fold):
    """log2 fold changes of the cases, cell types × genes."""
    changed = np.zeros(shape)
    for k in range(changed_types):
        genes = rng.choice(shape[1], n_changed, replace=False)
        changed[k, genes] = np.log2(fold) * rng.choice([-1, 1], n_changed)
    return changed


def _profiles(rng, n_cell_types, n_genes):
    """Logarithms of the profiles; every cell type has markers of its own."""
    profiles = SPREAD["genes"] * rng.standard_normal(n_genes)
    profiles = profiles + SPREAD["types"] * rng.standard_normal((n_cell_types, n_genes))
    markers = rng.permutation(n_genes)[: N_MARKERS * n_cell_types].reshape(n_cell_types, -1)
    profiles[:, markers.ravel()] -= 1
    for k, genes in enumerate(markers):
        profiles[k, genes] += 1 + MARKER
    return profiles


def _cells(rng, profiles, n_cells):
    """Cell type and counts of every cell."""
    n_cell_types, n_genes = profiles.shape
    # ten of each at least, so that every cell type has a profile
    labels = np.concatenate([np.repeat(np.arange(n_cell_types), 10), rng.choice(n_cell_types, n_cells)])[
        :n_cells
    ]
    rng.shuffle(labels)
    depths = np.exp(rng.normal(7.8, 0.4, n_cells))
    expected = _softmax(profiles)[labels] * depths[:, None] * rng.gamma(4, 0.25, (n_cells, n_genes))
    return labels, rng.poisson(expected)


def _expression(rng, profiles, phenotype, changed, platform):
    """What the cell types of every donor express, in counts per million."""
    n_samples, (n_cell_types, n_genes) = len(phenotype), profiles.shape
    members = rng.random((n_cell_types, N_PROGRAMS, n_genes)) < IN_PROGRAM
    loadings = SPREAD["programs"] * rng.standard_normal(members.shape) * members
    logs = np.einsum("jkp,kpg->jkg", rng.standard_normal((n_samples, n_cell_types, N_PROGRAMS)), loadings)
    logs += (
        profiles
        + SPREAD["donors"] * rng.standard_normal(logs.shape)
        + platform * rng.standard_normal(n_genes)
    )
    # the fold changes are in powers of two, the logarithms natural
    logs += phenotype[:, None, None] * changed * np.log(2)
    return _softmax(logs) * 1e6


def _softmax(logs):
    """Shares whose logarithms differ as given, over the last axis."""
    # the largest becomes 1: nothing overflows
    values = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)
