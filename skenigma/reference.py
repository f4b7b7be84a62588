"""From annotated cells: reference profiles, marker genes, and pseudo-bulk samples with a known answer."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils import Bunch, check_random_state, check_scalar

from ._cells import library_sizes, read_cells, weighted_sums
from ._validation import check_proportions, listing, refuse_repeats, row_names, warn

__all__ = ["ReferenceReport", "make_pseudobulk", "make_reference", "select_markers"]

# Standard errors that a marker's fold change is reduced by.
CONFIDENCE = 2.0

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


@dataclass(frozen=True, repr=False)
class ReferenceReport:
    """What :func:`make_reference` kept, what it left out, and why.

    Parameters
    ----------
    cell_types : DataFrame
        One row per cell type of the labels: ``n_cells``, ``kept`` and ``reason``, which is empty for those kept.
    genes : DataFrame
        One row per gene of the cells: ``kept`` and ``reason``, which is empty for those kept.
    markers : DataFrame or None
        What :func:`select_markers` returns, if markers were asked for.
    """

    cell_types: pd.DataFrame
    genes: pd.DataFrame
    markers: pd.DataFrame | None

    def __repr__(self):
        lines = [f"cell types: {_tally(self.cell_types)}", f"genes: {_tally(self.genes)}"]
        return "\n".join(lines)


def _tally(table):
    """How many rows of a table of the report are kept, and how many are not for each reason."""
    reasons = table.reason[~table.kept].value_counts()
    left_out = "".join(f", {number} left out ({reason})" for reason, number in reasons.items())
    return f"{table.kept.sum()} of {len(table)} kept{left_out}"


def make_reference(
    cells,
    labels,
    *,
    layer=None,
    gene_names=None,
    normalize=None,
    min_cells=10,
    n_markers=None,
    return_report=False,
):
    """Reference profiles: the mean expression of the cells of each type.

    Sparse cells stay sparse: what is needed beyond them is a block of some 10 MB and the profiles.

    Parameters
    ----------
    cells : AnnData, DataFrame, ndarray or sparse matrix of shape (n_cells, n_genes)
        Expression of single cells, or of sorted samples, on the linear scale: counts, or counts per 10,000 or
        per million. Cells are rows.
    labels : str or array-like of shape (n_cells,)
        Cell type of each cell; a str is a column of ``cells.obs``. A Series is matched to the names of the cells
        by its index, if both have names.
    layer : str, default=None
        Which matrix of an AnnData to use: the name of a layer, or "raw" for ``cells.raw``. None is ``cells.X``.
    gene_names : array-like of str of shape (n_genes,), default=None
        Names of the genes; None takes those of the cells. Genes without names can only be matched to a bulk by
        position, so that none is left out then.
    normalize : float or "median", default=None
        Total expression that every cell is scaled to before the mean: a number such as 1e4 or 1e6, or the median
        total. None takes cells as they are. See the notes for what this means for proportions.
    min_cells : int, default=10
        Cell types with fewer cells are left out, with a warning that names them.
    n_markers : int, default=None
        Number of marker genes per cell type to keep, by :func:`select_markers`. None keeps all genes that any
        cell expresses.
    return_report : bool, default=False
        Whether to return also what was left out.

    Returns
    -------
    reference : DataFrame of shape (n_cell_types, n_genes)
        Mean expression. Cell types are in the order of the categories, where the labels are categorical, else
        sorted; genes in the order of the cells.
    report : ReferenceReport
        Only if ``return_report``.

    Raises
    ------
    ValueError
        If cells are negative or hold logarithms, labels are missing, names are repeated, or no cell type is left;
        the message names the first offenders.

    See Also
    --------
    select_markers : The rule that picks marker genes.
    make_pseudobulk : Mixtures of the same cells, with the answer known.

    Notes
    -----
    Profiles of cells as they are keep the differences in size: a cell type with twice the RNA has twice the
    profile, and proportions that are estimated with them are shares of *cells*. Profiles of cells that were scaled
    to one total give shares of *RNA*. Neither makes up for a bulk on another scale: scale the bulk to the same
    total as the cells (with ``normalize=1e6``, a bulk in counts per million).

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.reference import make_reference
    >>> cells = np.random.default_rng(0).poisson(20, (60, 4))
    >>> labels = np.repeat(["B", "T"], 30)
    >>> reference = make_reference(cells, labels, gene_names=["CD3E", "CD19", "CD79A", "CD8A"], normalize=1e4)
    >>> reference.shape
    (2, 4)
    >>> reference.sum(axis=1).round().tolist()
    [10000.0, 10000.0]
    """
    cells = read_cells(cells, labels, layer=layer, gene_names=gene_names)
    check_scalar(min_cells, "min_cells", Integral, min_val=1)
    kept = cells.frequent(min_cells)
    members = _Members.of(cells, kept, normalize)
    means = members.sums(cells.values, members.scale)
    expressed = means.any(axis=0)
    markers = None if n_markers is None else _markers(cells, members, means, n_markers)
    chosen, reason = expressed, "no cell of these types expresses it"
    if markers is not None:
        chosen = expressed & np.isin(cells.genes, markers.gene)
    elif cells.genes is None:
        chosen = np.ones_like(expressed)
    reference = pd.DataFrame(means[:, chosen], cells.cell_types[kept], _columns(cells, chosen))
    if not return_report:
        return reference
    reasons = np.where(chosen, "", np.where(expressed, "not a marker", reason))
    return reference, ReferenceReport(
        cell_types=_reported(
            cells.cell_types,
            kept,
            np.where(kept, "", f"fewer than {min_cells} cells"),
            n_cells=cells.counts(),
        ),
        genes=_reported(_columns(cells), chosen, reasons),
        markers=markers,
    )


def _columns(cells, chosen=slice(None)):
    """Gene names, or numbers for genes without names."""
    if cells.genes is None:
        return pd.RangeIndex(cells.values.shape[1])
    return cells.genes[chosen]


def _reported(names, kept, reason, **columns):
    return pd.DataFrame({**columns, "kept": kept, "reason": reason}, index=names)


def select_markers(
    cells,
    labels,
    n_markers=100,
    *,
    among=None,
    layer=None,
    gene_names=None,
    normalize=None,
    min_cells=10,
):
    """Genes that tell one cell type from every other, by a fold change that the cells support.

    Parameters
    ----------
    cells : AnnData, DataFrame, ndarray or sparse matrix of shape (n_cells, n_genes)
        Expression of single cells on the linear scale, see :func:`make_reference`.
    labels : str or array-like of shape (n_cells,)
        Cell type of each cell, see :func:`make_reference`.
    n_markers : int, default=100
        Largest number of markers per cell type.
    among : array-like of str, default=None
        Genes to choose from, such as those of the bulk; others are passed over. None chooses from all.
    layer : str, default=None
        Which matrix of an AnnData to use, see :func:`make_reference`.
    gene_names : array-like of str of shape (n_genes,), default=None
        Names of the genes, where the cells do not carry them.
    normalize : float or "median", default=None
        Total expression that every cell is scaled to first.
    min_cells : int, default=10
        Cell types with fewer cells are left out, with a warning that names them.

    Returns
    -------
    markers : DataFrame
        One row per marker, cell types in the order of the reference and the best marker first: ``cell_type``,
        ``gene``, ``score`` (see the notes), ``mean`` (mean expression in the cell type), ``next_type`` and
        ``next_mean`` (the other cell type that expresses the gene most).

    Raises
    ------
    ValueError
        If there are no gene names, fewer than two cell types, or no cell type has a marker; and for what
        :func:`make_reference` refuses.

    Notes
    -----
    A gene can be a marker of the cell type with its highest mean only, and is compared with the cell type of the
    second highest, l. Its score is the logarithm of their fold change, less two standard errors::

        score = log2((m_k + c) / (m_l + c)) - 2 / ln(2) * sqrt(s2_k / (n_k (m_k + c)^2) + s2_l / (n_l (m_l + c)^2))

    with the mean m, the variance s2 and the number n of the cells of a type (the standard error is that of the
    delta method), and c the mean over all cell types and genes, so that genes too faint to be seen in a bulk do not
    win by a ratio of small numbers. Genes with a positive score are ranked by it; equal scores stay in the order of
    the genes. The rule depends on no random number, and not on the unit of the expression.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.reference import select_markers
    >>> rates = np.repeat([[20, 1, 5, 9], [1, 20, 5, 9]], 30, axis=0)
    >>> cells = np.random.default_rng(0).poisson(rates)
    >>> labels = np.repeat(["B", "T"], 30)
    >>> markers = select_markers(cells, labels, gene_names=["CD19", "CD3E", "CD37", "ACTB"])
    >>> markers[["cell_type", "gene"]].to_numpy().tolist()
    [['B', 'CD19'], ['T', 'CD3E']]
    """
    cells = read_cells(cells, labels, layer=layer, gene_names=gene_names)
    check_scalar(min_cells, "min_cells", Integral, min_val=1)
    members = _Members.of(cells, cells.frequent(min_cells), normalize)
    return _markers(cells, members, members.sums(cells.values, members.scale), n_markers, among)


@dataclass(frozen=True)
class _Members:
    """The cells of the types in use.

    Attributes
    ----------
    rows : ndarray of int, shape (n_members,)
        Position among all cells.
    codes : ndarray of int, shape (n_members,)
        Position of the type among those in use.
    counts : ndarray of int, shape (n_cell_types,)
        Number of cells per type.
    scale : ndarray of shape (n_members,)
        Factor that brings each cell to its library size.
    """

    rows: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, cells, kept, normalize):
        """The cells of the types that are kept."""
        rows = np.flatnonzero(kept[cells.codes])
        codes = (np.cumsum(kept) - 1)[cells.codes[rows]]
        return cls(rows, codes, np.bincount(codes), _library_scale(cells.values, rows, normalize))

    def sums(self, values, weights, power=1):
        """Weighted sums of the cells of each type, over the number of them."""
        indicator = sparse.csr_matrix(
            (weights / self.counts[self.codes], (self.codes, np.arange(len(self.rows)))),
            shape=(len(self.counts), len(self.rows)),
        )
        return weighted_sums(values, self.rows, indicator, power)

    def variances(self, values, means):
        """Variance per type and gene; types of one cell take that of the others."""
        squares = self.sums(values, self.scale**2, power=2)
        spread = np.maximum(squares - means**2, 0) * self.counts[:, None]
        freedom = self.counts - 1
        pooled = spread.sum(axis=0) / max(freedom.sum(), 1)
        return np.where(freedom[:, None] > 0, spread / np.maximum(freedom, 1)[:, None], pooled)


def _library_scale(values, rows, normalize):
    """Factor of each cell that gives it the total asked for."""
    if normalize is None:
        return np.ones(len(rows))
    if normalize != "median":
        check_scalar(normalize, "normalize", Real, min_val=0, include_boundaries="neither")
    totals = library_sizes(values, rows)
    empty = rows[totals == 0]
    if len(empty):
        raise ValueError(
            f"{len(empty)} cell(s) express no gene and cannot be normalized: rows {listing(empty.tolist())}. Drop "
            f"them first."
        )
    return (np.median(totals) if normalize == "median" else normalize) / totals


def _markers(cells, members, means, n_markers, among=None):
    """Table of the markers of every type."""
    check_scalar(n_markers, "n_markers", Integral, min_val=1)
    names = cells.cell_types[np.unique(cells.codes[members.rows])]
    if cells.genes is None:
        raise ValueError("Markers need gene names: give gene_names, or cells in an AnnData or a DataFrame.")
    if len(names) < 2:
        raise ValueError(f"Markers tell cell types apart, and there is only {listing(names)}.")
    top, second, score = _marker_scores(means, members.variances(cells.values, means), members.counts)
    ranked = np.argsort(-score, kind="stable")
    eligible = score > 0 if among is None else (score > 0) & np.isin(cells.genes, np.asarray(among))
    ranked = ranked[eligible[ranked]]
    best = np.concatenate([ranked[top[ranked] == k][:n_markers] for k in range(len(names))])
    _check_marked(names, np.isin(np.arange(len(names)), top[best]))
    return pd.DataFrame(
        {
            "cell_type": names[top[best]],
            "gene": cells.genes[best],
            "score": score[best],
            "mean": means[top[best], best],
            "next_type": names[second[best]],
            "next_mean": means[second[best], best],
        }
    )


def _check_marked(names, marked):
    """Warn of cell types without a marker, and refuse to go on without any."""
    if not marked.any():
        raise ValueError(
            f"No gene tells one of the cell types {listing(names)} from the others. Are the labels those of these "
            f"cells?"
        )
    if not marked.all():
        warn(
            f"No gene tells {listing(names[~marked])} from the other cell types: merge with a related type.",
        )


def _marker_scores(means, variances, counts):
    """Per gene, the highest and second highest type, and the lower bound of their log2 fold change."""
    second, top = np.argsort(means, axis=0, kind="stable")[-2:]
    gene = np.arange(means.shape[1])
    offset = means.mean()

    def level_and_error(which):
        level = means[which, gene] + offset
        return level, variances[which, gene] / (counts[which] * level**2)

    (high, high_error), (low, low_error) = level_and_error(top), level_and_error(second)
    bound = np.log(high / low) - CONFIDENCE * np.sqrt(high_error + low_error)
    return top, second, bound / np.log(2)


def make_pseudobulk(
    cells,
    labels,
    n_samples=100,
    *,
    n_cells=1000,
    proportions=None,
    composition="uniform",
    concentration=1.0,
    changed_types=(),
    changed=0.1,
    effect=1.0,
    reference_share=None,
    return_cse=True,
    layer=None,
    gene_names=None,
    normalize=None,
    min_cells=10,
    random_state=None,
):
    """Mix annotated cells into bulk samples, with all that deconvolution should recover.

    Cells are drawn with replacement, and a cell counts as often as it was drawn. The proportions are therefore
    exactly those that were mixed, and the bulk is exactly the mixture::

        bulk_j = sum_k proportions_jk * cse_jk

    where ``cse_jk`` is the mean of the cells of type k that were drawn for sample j. Where none was drawn, the
    proportion is 0 and ``cse_jk`` is the reference profile: what such cells would have been expected to express.

    Parameters
    ----------
    cells : AnnData, DataFrame, ndarray or sparse matrix of shape (n_cells, n_genes)
        Expression of single cells on the linear scale, see :func:`make_reference`.
    labels : str or array-like of shape (n_cells,)
        Cell type of each cell, see :func:`make_reference`.
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
        Which matrix of an AnnData to use, see :func:`make_reference`.
    gene_names : array-like of str of shape (n_genes,), default=None
        Names of the genes; None takes those of the cells, or "gene1", "gene2", ...
    normalize : float or "median", default=None
        Total expression that every cell is scaled to before it is mixed, see :func:`make_reference`.
    min_cells : int, default=10
        Cell types with fewer cells are left out, with a warning that names them.
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
        sample_names, gene_names, cell_types : ndarray of str
            The names along the axes.
        DESCR : str
            Description of these samples.

    Raises
    ------
    ValueError
        If a parameter is out of its range, and for what :func:`make_reference` refuses.

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
    names, members = cells.cell_types[kept], _Members.of(cells, kept, normalize)
    shifted = _shifted_types(changed_types, names)
    rng = check_random_state(random_state)

    targets = _targets(proportions, composition, concentration, n_samples, names, members.counts, rng)
    counts = _apportion(targets, n_cells)
    to_reference, to_mix = _split(members, reference_share, rng)
    reference = to_reference.sums(cells.values, to_reference.scale)
    signs = _changed_genes(reference, shifted, changed, rng)
    n_samples, n_cases = len(counts), len(counts) // 2
    phenotype = np.repeat([0, 1], [n_samples - n_cases, n_cases])

    bulk = np.zeros((n_samples, reference.shape[1]))
    cse = np.empty((n_samples, *reference.shape)) if return_cse else None
    rna = np.empty(counts.shape)
    for k, profile in enumerate(reference):
        of_type = _drawn_means(cells.values, to_mix, k, counts[:, k], profile, rng)
        of_type[phenotype == 1] *= np.exp2(effect * signs[k])
        part = counts[:, [k]] / n_cells * of_type
        bulk += part
        rna[:, k] = part.sum(axis=1)
        if return_cse:
            cse[:, k] = of_type

    silent = ~rna.any(axis=1)  # cells without any expression
    rna[silent] = counts[silent]

    samples = row_names(proportions)
    refuse_repeats(samples, "Samples of proportions", "Give every row a name of its own.")
    if samples is None:
        samples = _numbered("sample", n_samples)
    genes = _numbered("gene", reference.shape[1]) if cells.genes is None else cells.genes
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
    order = np.argsort(counts - exact, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return counts + (rank < (n_cells - counts.sum(axis=1))[:, None])


def _split(members, share, rng):
    """Cells for the reference and cells to mix: the same, or a share of each type apart."""
    if share is None:
        return members, members
    aside = np.zeros(len(members.rows), dtype=bool)
    for k, count in enumerate(members.counts):
        n_aside = min(max(round(share * count), 1), count - 1)
        aside[rng.choice(np.flatnonzero(members.codes == k), n_aside, replace=False)] = True
    return tuple(
        _Members(
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


def _drawn_means(values, members, k, counts, profile, rng):
    """Mean of the cells of one type that are drawn for each sample; the profile where none is."""
    own = np.flatnonzero(members.codes == k)
    drawn = rng.randint(len(own), size=counts.sum())
    samples = np.repeat(np.arange(len(counts)), counts)
    weights = members.scale[own][drawn] / counts[samples]
    mixing = sparse.csr_matrix((weights, (samples, drawn)), shape=(len(counts), len(own)))
    means = weighted_sums(values, members.rows[own], mixing)
    means[counts == 0] = profile
    return means


def _numbered(prefix, count):
    return np.array([f"{prefix}{number}" for number in range(1, count + 1)], dtype=object)
