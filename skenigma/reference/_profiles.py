"""From annotated cells: reference profiles, marker genes, and pseudo-bulk samples with a known answer."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_scalar

from .._docstrings import filled
from .._parameters import entries
from .._typing import Cells
from ..checks.names import listing
from ..checks.warning import warn
from ..core.regress.log_scale import pair_weights
from ._cells import Members, encode, read_cells
from ._donors import variance_between
from ._pseudobulk import make_pseudobulk

__all__ = ["ReferenceReport", "make_pseudobulk", "make_reference", "select_markers"]

# Standard errors that the log ratio of two means is reduced by.
CONFIDENCE = 2.0
# Added before the logarithm, in units of the mean over cell types and genes: 0.03 was chosen on simulated cells (see
# the user guide); by 1, genes too faint for a bulk do not win by a ratio of small numbers.
OFFSETS = {"pairs": 0.03, "fold": 1.0}


@dataclass(frozen=True, repr=False)
class ReferenceReport:
    """What :func:`make_reference` kept, what it left out, and why.

    Parameters
    ----------
    cell_types : DataFrame
        One row per cell type of the labels: ``n_cells``, ``rna_content`` (mean total of its cells, if these are
        counts, else NaN: what turns shares of RNA into shares of cells), ``kept`` and ``reason``, which is empty for
        those kept.
    genes : DataFrame
        One row per gene of the cells: ``kept`` and ``reason``, which is empty for those kept.
    markers : DataFrame or None
        What :func:`select_markers` returns, if markers were asked for.
    variance : DataFrame of shape (n_cell_types, n_genes), or None, default=None
        Variance between the donors of log2(x + 1), moderated, if donors were given: the ``reference_variance`` of
        :class:`~skenigma.EmpiricalBayesDeconvolver`, whose ``reference_donors`` is ``cell_types["n_donors"]``.
    """

    cell_types: pd.DataFrame
    genes: pd.DataFrame
    markers: pd.DataFrame | None
    variance: pd.DataFrame | None = None

    def __repr__(self):
        lines = [f"cell types: {_tally(self.cell_types)}", f"genes: {_tally(self.genes)}"]
        return "\n".join(lines)


def _tally(table):
    """How many rows of a table of the report are kept, and how many are not for each reason."""
    reasons = table.reason[~table.kept].value_counts()
    left_out = "".join(f", {number} left out ({reason})" for reason, number in reasons.items())
    return f"{table.kept.sum()} of {len(table)} kept{left_out}"


@filled(entries(min_cells=10))
def make_reference(
    cells: Cells,
    labels: str | ArrayLike,
    *,
    layer: str | None = None,
    gene_names: ArrayLike | None = None,
    normalize: float | str | None = None,
    min_cells: int = 10,
    n_markers: int | None = None,
    donors: str | ArrayLike | None = None,
    return_report: bool = False,
) -> pd.DataFrame | tuple[pd.DataFrame, ReferenceReport]:
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
    {min_cells}
    n_markers : int, default=None
        Number of marker genes per cell type to keep, by the pairs of :func:`select_markers`. None keeps all genes
        that any cell expresses.
    donors : str or array-like of shape (n_cells,), default=None
        Donor of each cell, like ``labels``: the report then has the ``variance`` between them, see the notes.
    return_report : bool, default=False
        Whether to return also what was left out, and the variance between donors.

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
    Profiles of unscaled cells keep the differences in size: a cell type with twice the RNA has twice the
    profile, and proportions that are estimated with them are shares of *cells*. Profiles of cells that were
    scaled to one total give shares of *RNA*. Neither makes up for a bulk on another scale: scale the bulk to
    the same total as the cells (with ``normalize=1e6``, a bulk in counts per million).

    With donors, each donor's profile of a type is the mean of its cells, if there are ``min_cells`` of them,
    and the variance is that of log2(x + 1) of these profiles. With few donors, the variance of a single gene
    is poorly known, so variances are pulled towards the trend over the expression level of the type's genes
    (Smyth 2004, Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments). They include the noise from having few cells. Logarithms depend on the scale, so use the
    total of the bulk, such as ``normalize=1e6``.

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
    source, cells = cells, read_cells(cells, labels, layer=layer, gene_names=gene_names)
    check_scalar(min_cells, "min_cells", Integral, min_val=1)
    codes = None if donors is None else encode(source, donors, len(cells.codes), "donors")[0]
    kept = cells.frequent(min_cells)
    members = Members.of(cells, kept, normalize)
    means = members.sums(cells.values, members.scale)
    expressed = means.any(axis=0)
    markers = None if n_markers is None else _markers(cells, members, means, n_markers)
    chosen = expressed
    if markers is not None:
        chosen = expressed & np.isin(cells.genes, markers.gene)
    elif cells.genes is None:
        # genes without names are matched by their places, which must stay
        chosen = np.ones_like(expressed)
    reference = pd.DataFrame(means[:, chosen], cells.cell_types[kept], _columns(cells, chosen))
    if not return_report:
        return reference
    variance, counted = None, {}
    if codes is not None:
        found, n_donors = variance_between(cells, members, codes, min_cells, cells.cell_types[kept])
        variance = pd.DataFrame(found[:, chosen], reference.index, reference.columns)
        counted = {"n_donors": pd.Series(n_donors, reference.index).reindex(cells.cell_types, fill_value=0)}
    reasons = np.where(chosen, "", np.where(expressed, "not a marker", "no cell of these types expresses it"))
    return reference, ReferenceReport(
        cell_types=_reported(
            cells.cell_types,
            kept,
            np.where(kept, "", f"fewer than {min_cells} cells"),
            n_cells=cells.counts(),
            rna_content=cells.mean_totals(),
            **counted,
        ),
        genes=_reported(_columns(cells), chosen, reasons),
        markers=markers,
        variance=variance,
    )


def _columns(cells, chosen=slice(None)):
    """Gene names, or numbers for genes without names."""
    if cells.genes is None:
        return pd.RangeIndex(cells.values.shape[1])
    return cells.genes[chosen]


def _reported(names, kept, reason, **columns):
    return pd.DataFrame({**columns, "kept": kept, "reason": reason}, index=names)


@filled(entries(min_cells=10))
def select_markers(
    cells: Cells,
    labels: str | ArrayLike,
    n_markers: int = 100,
    *,
    rule: str = "pairs",
    among: ArrayLike | None = None,
    layer: str | None = None,
    gene_names: ArrayLike | None = None,
    normalize: float | str | None = None,
    min_cells: int = 10,
) -> pd.DataFrame:
    r"""Genes that tell cell types apart, by differences that the cells support.

    Parameters
    ----------
    cells : AnnData, DataFrame, ndarray or sparse matrix of shape (n_cells, n_genes)
        Expression of single cells on the linear scale, see :func:`make_reference`.
    labels : str or array-like of shape (n_cells,)
        Cell type of each cell, see :func:`make_reference`.
    n_markers : int, default=100
        Largest number of markers per cell type.
    rule : {"pairs", "fold"}, default="pairs"
        How genes are ranked. "pairs": by all pairs of cell types that they tell apart, for proportions. "fold": by
        the fold change to the cell type of the second highest mean, for genes that name one cell type; see the notes.
    among : array-like of str, default=None
        Genes to choose from, such as those of the bulk; others are passed over. None chooses from all.
    layer : str, default=None
        Which matrix of an AnnData to use, see :func:`make_reference`.
    gene_names : array-like of str of shape (n_genes,), default=None
        Names of the genes, where the cells do not carry them.
    normalize : float or "median", default=None
        Total expression that every cell is scaled to first.
    {min_cells}

    Returns
    -------
    markers : DataFrame
        One row per marker, cell types in the order of the reference and the best marker first: ``cell_type``,
        ``gene``, ``score`` (see the notes), ``mean`` (mean expression in the cell type), ``next_type`` and
        ``next_mean`` (the other cell type that expresses the gene most).

    Raises
    ------
    ValueError
        If there are no gene names, fewer than two cell types, or no gene tells any apart; and for what
        :func:`make_reference` refuses.

    Warns
    -----
    UserWarning
        If a cell type has no marker ("fold"), or no gene tells it from some other ("pairs"); the message names them.

    Notes
    -----
    A gene is listed under the cell type with its highest mean. With the mean m, the variance s2 and the number n of
    the cells of a type, the logarithmic distance of two types, less two standard errors (of the delta method), is

    .. math:: d^{kl} = \left|\ln\frac{m_k + c}{m_l + c}\right|
        - 2 \sqrt{\frac{s^2_k}{n_k (m_k + c)^2} + \frac{s^2_l}{n_l (m_l + c)^2}} .

    "pairs" scores a gene by :math:`\sum_{k<l} (d^{kl})^3 / \overline{(d^{kl})^3}`, over the mean of all genes to
    choose from, where negative distances count 0: every pair of cell types has the same total, so that related types
    get genes that tell them apart, even those that a third type expresses more. These are the weights that
    ``ProportionEstimator(method="log")`` gives to genes, less the noise of the cells. c is 0.03 of the mean over all
    cell types and genes; it was chosen on simulated cells, see the user guide.

    "fold" scores it by :math:`d^{kl} / \ln 2` of the two cell types with the highest means, a lower bound of
    their log2 fold change, with c the mean over all cell types and genes: genes with very low expression do
    not rank first by a ratio of small numbers.

    Genes with a positive score are ranked by it; equal scores stay in the order of the genes. The rules depend on no
    random number, and not on the unit of the expression.

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
    if rule not in OFFSETS:
        raise ValueError(f"rule={rule!r} must be one of {listing(list(OFFSETS))}.")
    cells = read_cells(cells, labels, layer=layer, gene_names=gene_names)
    check_scalar(min_cells, "min_cells", Integral, min_val=1)
    members = Members.of(cells, cells.frequent(min_cells), normalize)
    return _markers(cells, members, members.sums(cells.values, members.scale), n_markers, rule, among)


def _markers(cells, members, means, n_markers, rule="pairs", among=None):
    """Table of the markers of every type."""
    check_scalar(n_markers, "n_markers", Integral, min_val=1)
    names = cells.cell_types[np.unique(cells.codes[members.rows])]
    if cells.genes is None:
        raise ValueError("Markers need gene names: give gene_names, or cells in an AnnData or a DataFrame.")
    if len(names) < 2:
        raise ValueError(f"Markers tell cell types apart, and there is only {listing(names)}.")
    candidates = np.flatnonzero(np.isin(cells.genes, cells.genes if among is None else np.asarray(among)))
    # stable: of equal means the later type is on top, on any machine
    second, top = np.argsort(means, axis=0, kind="stable")[-2:]
    level = means + OFFSETS[rule] * means.mean()
    # delta method: the variance of a logarithm is that of the mean, over the mean squared
    errors = members.variances(cells.values, means) / (members.counts[:, None] * level**2)
    logs = np.log(level)
    score = np.zeros(means.shape[1])
    if rule == "pairs":
        score[candidates], apart = pair_weights(logs[:, candidates], errors[:, candidates], CONFIDENCE)
        _check_apart(names, apart)
    else:
        high, low = (top[candidates], candidates), (second[candidates], candidates)
        bound = logs[high] - logs[low] - CONFIDENCE * np.sqrt(errors[high] + errors[low])
        score[candidates] = bound / np.log(2)
    # stable: equal scores stay in the order of the genes
    ranked = np.argsort(-score, kind="stable")
    ranked = ranked[score[ranked] > 0]
    best = np.concatenate([ranked[top[ranked] == k][:n_markers] for k in range(len(names))])
    if rule == "fold":
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
        _refuse_all_alike(names)
    if not marked.all():
        warn(
            f"No gene tells {listing(names[~marked])} from the other cell types: merge with a related type.",
        )


def _check_apart(names, apart):
    """Warn of cell types that no gene tells from some other, and refuse to go on if none differs."""
    if not apart.any():
        _refuse_all_alike(names)
    alike = [f"{names[k]} and {names[other]}" for k, other in np.argwhere(~apart) if k < other]
    if alike:
        warn(f"No gene tells cell types of these pairs apart: {listing(alike)}. Merge them.")


def _refuse_all_alike(names):
    raise ValueError(
        f"No gene tells one of the cell types {listing(names)} from the others. Are the labels those of these cells?"
    )
