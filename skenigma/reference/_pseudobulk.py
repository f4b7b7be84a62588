"""Pseudo-bulk samples mixed from annotated cells, with the answer known."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import Bunch, check_random_state, check_scalar

from .._docstrings import COHORT, filled
from .._parameters import entries
from .._typing import Cells, Column, Seed, Table
from ..checks.names import listing, numbered, refuse_repeats, row_names
from ..checks.validation import check_proportions
from ._cells import Members, read_cells, weighted_sums

DESCRIPTION = """\
Pseudo-bulk samples mixed from annotated cells
----------------------------------------------

samples {n_samples}, genes {n_genes}, cell types {n_cell_types}, cells per sample {n_cells}

Cells are drawn with replacement and counted as often as they were drawn. The last {n_cases} samples are
cases, the others controls. {shift}

bulk              samples x genes; mean of the drawn cells, the sum of proportions times cse
reference         cell types x genes; mean of {source}
proportions       samples x cell types; shares of the drawn cells, rows sum to 1
rna_proportions   samples x cell types; shares of the drawn cells' total expression, rows sum to 1
cell_counts       samples x cell types; numbers of the drawn cells
cse               samples x cell types x genes; mean of the drawn cells of one type, or the reference
                  where none was drawn
changed           cell types x genes; 1 higher in cases, -1 lower, 0 unchanged
phenotype         samples; 0 control, 1 case
"""


@filled({**COHORT, **entries(min_cells=10)})
def make_pseudobulk(
    cells: Cells,
    labels: str | ArrayLike,
    n_samples: int = 100,
    *,
    n_cells: int = 1000,
    proportions: Table | None = None,
    composition: str | Column = "uniform",
    concentration: float = 1.0,
    changed_types: Sequence[str] = (),
    changed: float = 0.1,
    effect: float = 1.0,
    reference_share: float | None = None,
    return_cse: bool = True,
    layer: str | None = None,
    gene_names: ArrayLike | None = None,
    normalize: float | str | None = None,
    min_cells: int = 10,
    random_state: Seed = None,
) -> Bunch:
    """Mix annotated cells into bulk samples, with all that deconvolution should recover.

    Cells are drawn with replacement, and a cell counts as often as it was drawn. The proportions are therefore
    exactly those that were mixed, and the bulk is exactly the mixture::

        bulk_j = sum_k proportions_jk * cse_jk

    where ``cse_jk`` is the mean of the cells of type k that were drawn for sample j. Where none was drawn, the
    proportion is 0 and ``cse_jk`` is the reference profile: what such cells would have been expected to express.

    Parameters
    ----------
    cells : AnnData, DataFrame, ndarray or sparse matrix of shape (n_cells, n_genes)
        Expression of single cells on the linear scale, see :func:`~skenigma.reference.make_reference`.
    labels : str or array-like of shape (n_cells,)
        Cell type of each cell, see :func:`~skenigma.reference.make_reference`.
    n_samples : int, default=100
        Number of bulk samples. The last ``n_samples // 2`` are cases. Not used if ``proportions`` are given.
    n_cells : int, default=1000
        Number of cells that are drawn for each sample. The fewer, the more the expression of one cell type differs
        between samples.
    proportions : DataFrame or array-like of shape (n_samples, n_cell_types), default=None
        Shares of cells to mix, rows summing to 1. Columns of a DataFrame are matched by name, and a string index
        names the samples. None draws them.
    composition : {"uniform", "observed"} or array-like of shape (n_cell_types,), default="uniform"
        Mean of drawn proportions: all alike, or those of the cells, or given ones; a Series is matched by name.
    concentration : float, default=1.0
        How close drawn proportions lie to their mean. They follow a Dirichlet distribution with the parameters
        ``concentration * n_cell_types * composition``: 1 and "uniform" is the flat one.
    changed_types : sequence of str, default=()
        Cell types in which genes differ in cases.
    changed : float, default=0.1
        Share of the genes that differ in each of ``changed_types``, among those that the cell type expresses;
        drawn for each type independently, each up or down with probability 1/2.
    effect : float, default=1.0
        By how much they differ, as log2 fold change: 1 doubles or halves.
    reference_share : float, default=None
        Share of the cells of each type, between 0 and 1, that is put aside for the reference and never mixed. None
        makes the reference of the cells that are mixed, so that it knows more of them than a real one could.
    return_cse : bool, default=True
        Whether to keep the cell-type-specific expression, of n_samples × n_cell_types × n_genes numbers.
    layer : str, default=None
        Which matrix of an AnnData to use, see :func:`~skenigma.reference.make_reference`.
    gene_names : array-like of str of shape (n_genes,), default=None
        Names of the genes; None takes those of the cells, or "gene1", "gene2", ...
    normalize : float or "median", default=None
        Total expression that every cell is scaled to before it is mixed, see
        :func:`~skenigma.reference.make_reference`.
    {min_cells}
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same samples on every call.

    Returns
    -------
    cohort : :class:`~sklearn.utils.Bunch`
        As :func:`skenigma.datasets.make_cohort` with ``as_frame=True`` returns it, and more:

        bulk : DataFrame of shape (n_samples, n_genes)
            The mixture: the mean of the drawn cells, on the scale of the cells.
        reference : DataFrame of shape (n_cell_types, n_genes)
            Mean of the cells of each type.
        proportions : DataFrame of shape (n_samples, n_cell_types)
            Shares of cells that were mixed; within ``1 / n_cells`` of those asked for or drawn.
        rna_proportions : DataFrame of shape (n_samples, n_cell_types)
            Shares of the total expression. They differ from ``proportions`` where one type has more RNA per cell
            than another, and are the same in a sample that expresses nothing.
        cell_counts : DataFrame of shape (n_samples, n_cell_types)
            Numbers of cells that were mixed.
        cse : ndarray of shape (n_samples, n_cell_types, n_genes) or None
            Cell-type-specific expression.
        changed : DataFrame of shape (n_cell_types, n_genes)
            1 where a gene is higher in cases, -1 where it is lower, 0 where it does not change.
        phenotype : Series of shape (n_samples,)
            0 for controls, 1 for cases.
        {cohort_names}
        DESCR : str
            Description of these samples.

    Raises
    ------
    ValueError
        If a parameter is out of its range, and for what :func:`~skenigma.reference.make_reference` refuses.

    Notes
    -----
    Shares are apportioned to whole cells by largest remainders. The changed expression is multiplied by
    ``2 ** effect`` or ``2 ** -effect`` in the cases, in the cell-type-specific expression and the mixture alike.
    The original R code marks the cells that were drawn and mixes each marked cell once, so that the fractions that
    it stores are not those that it mixed; here they are.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.reference import make_pseudobulk
    >>> rates = np.repeat([[40, 1, 5], [1, 40, 5]], 30, axis=0)
    >>> cells = np.random.default_rng(0).poisson(rates)
    >>> labels = np.repeat(["B", "T"], 30)
    >>> cohort = make_pseudobulk(cells, labels, n_samples=20, n_cells=200, random_state=0)
    >>> cohort.cse.shape
    (20, 2, 3)
    >>> mixture = np.einsum("jk,jkg->jg", cohort.proportions, cohort.cse)
    >>> bool(np.allclose(mixture, cohort.bulk, rtol=1e-12))
    True
    """
    cells = read_cells(cells, labels, layer=layer, gene_names=gene_names)
    _check_mixing(n_samples, n_cells, concentration, changed, effect, reference_share, min_cells)
    kept = cells.frequent(min_cells)
    names, members = cells.cell_types[kept], Members.of(cells, kept, normalize)
    shifted = _shifted_types(changed_types, names)
    rng = check_random_state(random_state)

    targets = _targets(proportions, composition, concentration, n_samples, names, members.counts, rng)
    counts = _apportion(targets, n_cells)
    to_reference, to_mix = _split(members, reference_share, rng)
    reference = to_reference.sums(cells.values, to_reference.scale)
    signs = _changed_genes(reference, shifted, changed, rng)
    n_samples, n_cases = len(counts), len(counts) // 2
    phenotype = np.repeat([0, 1], [n_samples - n_cases, n_cases])

    factors = np.exp2(effect * signs)
    bulk, rna, cse = _mix(cells.values, to_mix, counts, reference, phenotype == 1, factors, return_cse, rng)
    samples = _sample_names(proportions, n_samples)
    genes = numbered("gene", reference.shape[1], start=1) if cells.genes is None else cells.genes
    return Bunch(
        bulk=pd.DataFrame(bulk, samples, genes),
        reference=pd.DataFrame(reference, names, genes),
        proportions=pd.DataFrame(counts / n_cells, samples, names),
        rna_proportions=pd.DataFrame(rna / rna.sum(axis=1, keepdims=True), samples, names),
        cell_counts=pd.DataFrame(counts, samples, names),
        cse=cse,
        changed=pd.DataFrame(signs, names, genes),
        phenotype=pd.Series(phenotype, samples, name="phenotype"),
        sample_names=samples,
        gene_names=genes,
        cell_types=names,
        DESCR=DESCRIPTION.format(
            n_samples=n_samples,
            n_genes=len(genes),
            n_cell_types=len(names),
            n_cells=n_cells,
            n_cases=n_cases,
            shift=_describe_shift(names[shifted], changed, effect),
            source="the cells" if reference_share is None else "cells that were not mixed",
        ),
    )


def _sample_names(proportions, n_samples):
    """Names of the rows of given proportions, or numbers."""
    names = row_names(proportions)
    refuse_repeats(names, "Samples of proportions", "Give every row a name of its own.")
    return numbered("sample", n_samples, start=1) if names is None else names


def _check_mixing(n_samples, n_cells, concentration, changed, effect, reference_share, min_cells):
    for name, value in {"n_samples": n_samples, "n_cells": n_cells, "min_cells": min_cells}.items():
        check_scalar(value, name, Integral, min_val=1)
    check_scalar(concentration, "concentration", Real, min_val=0, include_boundaries="neither")
    check_scalar(changed, "changed", Real, min_val=0, max_val=1)
    check_scalar(effect, "effect", Real, min_val=0)
    for name, value in {"concentration": concentration, "changed": changed, "effect": effect}.items():
        # comparisons with NaN are false, so the range check lets it pass
        if not np.isfinite(value):
            raise ValueError(f"{name} == {value}, must be finite.")
    if reference_share is not None:
        check_scalar(
            reference_share, "reference_share", Real, min_val=0, max_val=1, include_boundaries="neither"
        )
        check_scalar(min_cells, "min_cells, with reference_share,", Integral, min_val=2)


def _shifted_types(changed_types, names):
    """Which types change with the phenotype."""
    changed_types = [changed_types] if isinstance(changed_types, str) else list(changed_types)
    unknown = [name for name in changed_types if name not in names]
    if unknown:
        raise ValueError(f"changed_types names {listing(unknown)}, but the cell types are {listing(names)}.")
    return np.isin(names, changed_types)


def _describe_shift(shifted, changed, effect):
    if not len(shifted):
        return "They do not differ."
    share = f"{changed:.0%} of the genes"
    return f"In {listing(shifted)}, {share} differ in the cases by a log2 fold change of {effect:g}."


def _targets(proportions, composition, concentration, n_samples, names, counts, rng):
    """Proportions to mix: given, or drawn."""
    if proportions is not None:
        given = check_proportions(proportions, names, len(proportions), None)
        return given / given.sum(axis=1, keepdims=True)
    mean = _composition(composition, names, counts)
    present = mean > 0
    targets = np.zeros((n_samples, len(names)))
    # RandomState.dirichlet gives NaN for small parameters, Generator.dirichlet does not
    generator = np.random.default_rng(rng.randint(2**31 - 1))
    targets[:, present] = generator.dirichlet(concentration * len(names) * mean[present], n_samples)
    return targets


def _composition(composition, names, counts):
    """Mean proportions of drawn samples."""
    if not isinstance(composition, str):
        series = isinstance(composition, pd.Series)
        given = composition.to_frame().T if series else np.atleast_2d(composition)
        weights = check_proportions(given, names, 1, None)[0]
    elif composition == "uniform":
        weights = np.ones(len(names))
    elif composition == "observed":
        weights = counts
    else:
        raise ValueError(f"composition must be 'uniform', 'observed' or numbers, got '{composition}'.")
    return weights / weights.sum()


def _apportion(targets, n_cells):
    """Whole numbers of cells, summing to ``n_cells`` per sample, by largest remainders."""
    exact = targets * n_cells
    counts = np.floor(exact).astype(np.int64)
    # the cells that are left go to the largest remainders, one each
    order = np.argsort(counts - exact, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return counts + (rank < (n_cells - counts.sum(axis=1))[:, None])


def _split(members, share, rng):
    """Cells for the reference and cells to mix: the same, or a share of each type apart."""
    if share is None:
        return members, members
    aside = np.zeros(len(members.rows), dtype=bool)
    for k, count in enumerate(members.counts):
        # at least one cell on either side
        n_aside = min(max(round(share * count), 1), count - 1)
        aside[rng.choice(np.flatnonzero(members.codes == k), n_aside, replace=False)] = True
    return tuple(
        Members(
            members.rows[part], members.codes[part], np.bincount(members.codes[part]), members.scale[part]
        )
        for part in (aside, ~aside)
    )


def _changed_genes(reference, shifted, changed, rng):
    """Sign of the change per type and gene; only genes that a type expresses can change in it."""
    signs = np.zeros(reference.shape, dtype=np.int8)
    for k in np.flatnonzero(shifted):
        expressed = np.flatnonzero(reference[k])
        chosen = rng.choice(expressed, round(changed * len(expressed)), replace=False)
        signs[k, chosen] = rng.choice([-1, 1], len(chosen))
    return signs


def _mix(values, members, counts, reference, cases, factors, return_cse, rng):
    """Bulk, total expression per sample and type, and, if asked for, the expression of every type."""
    bulk = np.zeros((len(counts), reference.shape[1]))
    cse = np.empty((len(counts), *reference.shape)) if return_cse else None
    rna = np.empty(counts.shape)
    shares = counts / counts.sum(axis=1, keepdims=True)
    for k, profile in enumerate(reference):
        of_type = _drawn_means(values, members, k, counts[:, k], profile, rng)
        of_type[cases] *= factors[k]
        part = shares[:, [k]] * of_type
        bulk += part
        rna[:, k] = part.sum(axis=1)
        if return_cse:
            cse[:, k] = of_type
    silent = ~rna.any(axis=1)  # cells without any expression
    rna[silent] = counts[silent]
    return bulk, rna, cse


def _drawn_means(values, members, k, counts, profile, rng):
    """Mean of the cells of one type that are drawn for each sample; the profile where none is."""
    own = np.flatnonzero(members.codes == k)
    # with replacement: a sample may need more cells of a type than there are
    drawn = rng.randint(len(own), size=counts.sum())
    samples = np.repeat(np.arange(len(counts)), counts)
    weights = members.scale[own][drawn] / counts[samples]
    mixing = sparse.csr_matrix((weights, (samples, drawn)), shape=(len(counts), len(own)))
    means = weighted_sums(values, members.rows[own], mixing)
    means[counts == 0] = profile
    return means
