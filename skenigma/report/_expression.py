"""What the page shows of the expression: a summary of every gene, and curves over the samples of some."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..deconvolution._level import level_of
from ._sources import spaced

# Values of curves in a page (genes × samples × (two bounds and an estimate per type, and the bulk)): some 1.5 MB.
ROOM = 900_000
# Of the room, at most this share goes to genes with a low false discovery rate, the rest to reliable ones.
FOR_FINDINGS = 0.5
SIGNIFICANT = 0.05


@dataclass
class Curves:
    """Some genes over the samples.

    Attributes
    ----------
    genes : ndarray of int
        Positions among all genes.
    values : ndarray of shape (n_genes, n_cell_types, n_samples)
    low, high : ndarray of the same shape, or None
    bulk : ndarray of shape (n_genes, n_samples), or None
    """

    genes: np.ndarray
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    bulk: np.ndarray | None = None


@dataclass
class Expression:
    """Expression, summarised.

    Attributes
    ----------
    cell_types, genes : list of str
    mean : ndarray of shape (n_cell_types, n_genes)
        Over samples.
    reference, share, reliability : ndarray of the same shape, or None
        Profiles; the share of a gene's bulk that comes from a cell type; the correlation with the truth over samples
        that the model expects.
    level : Series or None
        Per sample, the share of the bulk that the mixture of the expression makes up, over all genes; where a model
        knows it (``expression_.level``), as it does.
    follows : DataFrame or None
        Per cell type, medians over genes of the correlation over samples with ``bulk``, with the ``scaled reference``
        and with the same gene in the ``other types``, and ``variation``, the coefficient of variation relative to
        that of the bulk.
    uncertainty : DataFrame or None
    curves : Curves
    """

    cell_types: list
    genes: list
    mean: np.ndarray
    reference: np.ndarray | None = None
    share: np.ndarray | None = None
    reliability: np.ndarray | None = None
    level: pd.Series | None = None
    follows: pd.DataFrame | None = None
    uncertainty: pd.DataFrame | None = None
    curves: Curves | None = None


def summarise(
    source, proportions, *, bulk=None, reference=None, reliability=None, differential=None, room=ROOM
):
    """Summary of the cell types, each of which is read once.

    Parameters
    ----------
    source : ModelSource or TableSource
    proportions : DataFrame of shape (n_samples, n_cell_types)
    bulk, reference : DataFrame or None
        Samples × genes, cell types × genes, the genes being those of the expression.
    reliability : DataFrame or None
        Cell types × genes.
    differential : DataFrame or None
        Result of a test.
    room : int
        Number of values that curves may take.

    Returns
    -------
    expression : Expression
    """
    types, genes = source.cell_types, source.genes
    shares = proportions[types].to_numpy(dtype=float)
    profiles = None if reference is None else reference.to_numpy(dtype=float)
    trust = None if reliability is None else reliability.to_numpy(dtype=float)
    share = gene_shares(proportions, reference, types)
    # an estimate and two bounds per cell type, and the bulk
    width = len(proportions) * (3 * len(types) + 1)
    n_curves = min(len(genes), max(1, room // width))
    chosen = choose_genes(genes, types, n_curves, trust if trust is not None else share, differential)
    samples = None if bulk is None else bulk.to_numpy(dtype=float)
    mixture = None if profiles is None else _mixture(proportions, reference)
    summary = _Summary(samples, mixture, len(proportions))
    for name, theta in zip(types, shares.T, strict=True):
        summary.add(theta, *source.load(name, chosen), chosen)
    curves = Curves(chosen, *summary.curves(), bulk=None if bulk is None else samples[:, chosen].T)
    return Expression(
        types,
        genes,
        np.array(summary.means),
        reference=None
        if profiles is None
        else profiles[[list(reference.index).index(name) for name in types]],
        share=share,
        reliability=trust,
        # what was written of some cell types alone cannot add up to the bulk
        level=summary.level(proportions) if len(types) == proportions.shape[1] else None,
        follows=summary.follows(types),
        uncertainty=summary.uncertainty(types),
        curves=curves,
    )


def gene_shares(proportions, reference, types):
    """Share of each gene's bulk that comes from each cell type, None where profiles are negative or not known.

    As :func:`skenigma.reliability.gene_contribution`, of tables.
    """
    if reference is None or reference.to_numpy().min() < 0:
        return None
    parts = proportions.mean()[reference.index].to_numpy()[:, None] * reference.to_numpy(dtype=float)
    total = parts.sum(axis=0)
    share = np.divide(parts, total, out=np.full_like(parts, np.nan), where=total > 0)
    return share[[list(reference.index).index(name) for name in types]]


def choose_genes(genes, types, count, trust=None, differential=None):
    """Genes whose curves a page has: the smallest q-values of each type in turn, then what deserves most trust.

    Parameters
    ----------
    genes, types : list of str
    count : int
    trust : ndarray of shape (n_cell_types, n_genes) or None
        Larger is better.
    differential : DataFrame or None

    Returns
    -------
    chosen : ndarray of int
        Sorted positions, ``count`` of them.
    """
    if count >= len(genes):
        return np.arange(len(genes))
    chosen = dict.fromkeys(_found(genes, types, differential)[: int(FOR_FINDINGS * count)])
    if trust is not None:
        # the best gene of every cell type, then the second of each: none takes all the room
        order = np.argsort(-np.nan_to_num(trust, nan=-1.0), axis=1, kind="stable")[:, :count]
        for gene in order.T.ravel():
            if len(chosen) == count:
                break
            chosen.setdefault(int(gene))
    for gene in range(len(genes)):  # without any measure of trust, the first ones
        if len(chosen) == count:
            break
        chosen.setdefault(gene)
    return np.sort(np.fromiter(chosen, dtype=int))


def _found(genes, types, differential):
    """Positions of genes that differ, the first of every type, then the second, and so on."""
    if differential is None:
        return []
    called = differential[differential.q_value < SIGNIFICANT].sort_values("p_value", kind="stable")
    called = called[called.cell_type.isin(types)]
    called = called.assign(rank=called.groupby("cell_type", sort=False).cumcount()).sort_values(
        "rank", kind="stable"
    )
    position = {name: number for number, name in enumerate(genes)}
    found = [position[str(gene)] for gene in called.gene if str(gene) in position]
    return list(dict.fromkeys(found))


def _mixture(proportions, reference):
    return proportions[list(reference.index)].to_numpy(dtype=float) @ reference.to_numpy(dtype=float)


class _Summary:
    """Sums over cell types, and what is kept of each."""

    def __init__(self, bulk, mixture, n_samples):
        self.bulk, self.n_samples = bulk, n_samples
        self.means, self.kept, self.rows, self.uncertainties = [], [], [], []
        self.total = None if bulk is None else np.zeros_like(bulk)
        self.targets, self.first = {}, None
        if bulk is not None:
            self.spread = _variation(bulk)
            self.targets["bulk"] = _standardized(bulk)
            # a ratio of signed values scales nothing
            if mixture is not None and mixture.min() >= 0 and bulk.min() >= 0:
                ratio = np.divide(bulk, mixture, out=np.ones_like(bulk), where=mixture > 0)
                self.targets["scaled reference"] = _standardized(ratio)

    def add(self, theta, values, std, limits, chosen):
        """Take in one cell type."""
        self.means.append(values.mean(axis=0))
        self.kept.append((values[:, chosen].T, *(() if limits is None else (limit.T for limit in limits))))
        if std is not None:
            self.uncertainties.append(uncertainty_figures(values[:, spaced(values.shape[1])], std))
        if self.bulk is None:
            return
        # summed as the types pass by: all of them at once may not fit
        self.total += theta[:, None] * values
        shape = _standardized(np.asarray(values, dtype=float))
        row = {name: _median_product(shape, target) for name, target in self.targets.items()}
        if self.first is None:
            self.first = shape
        else:
            # with the first cell type alone: tensors of all pairs would have to be kept
            row["other types"] = _median_product(shape, self.first)
        row["variation"] = _relative_variation(values, self.spread)
        self.rows.append(row)

    def curves(self):
        """Values, and lower and upper bounds or nothing."""
        return [np.stack(arrays, axis=1) for arrays in zip(*self.kept, strict=True)] if self.kept else []

    def level(self, proportions):
        """Share of each sample that the mixture of the expression makes up."""
        if self.bulk is None:
            return None
        return pd.Series(level_of(self.total, self.bulk), proportions.index, name="level")

    def follows(self, types):
        if not self.rows:
            return None
        found = pd.DataFrame(self.rows, pd.Index(types, name="cell_type"))
        if "other types" in found:  # the first was compared with by all others
            others = found["other types"].dropna()
            found.loc[types[0], "other types"] = others.median() if len(others) else np.nan
        return found

    def uncertainty(self, types):
        if not self.uncertainties:
            return None
        return pd.DataFrame(self.uncertainties, pd.Index(types, name="cell_type"))


def uncertainty_figures(values, std):
    """Medians of a cell type's values and deviations, and the share of genes that vary by more than these."""
    varies = values.std(axis=0, ddof=1) > np.median(std, axis=0) if len(values) > 1 else np.zeros(1)
    return {
        "median expression": np.median(values),
        "median standard deviation": np.median(std),
        "genes that vary": np.mean(varies),
    }


def _standardized(values):
    """Columns of mean 0 and length 1; constant ones are NaN."""
    centred = values - values.mean(axis=0)
    length = np.sqrt(np.einsum("jg,jg->g", centred, centred))
    # what differs by rounding alone has no direction
    noise = 1e-12 * np.sqrt(len(values)) * np.abs(values).max(axis=0, initial=0)
    return np.divide(centred, length, out=np.full_like(centred, np.nan), where=length > noise)


def _median_product(first, second):
    products = np.einsum("jg,jg->g", first, second)
    there = np.isfinite(products)
    return float(np.median(products[there])) if there.any() else np.nan


def _variation(values):
    """Coefficient of variation of every gene whose mean is above 0, NaN of others and where values are negative."""
    mean = values.mean(axis=0)
    usable = (mean > 0) & (values.min(axis=0) >= 0)
    return np.divide(values.std(axis=0), mean, out=np.full(len(mean), np.nan), where=usable)


def _relative_variation(values, spread):
    """Median over genes of the coefficient of variation, relative to that of the bulk."""
    ratio = np.divide(_variation(values), spread, out=np.full(len(spread), np.nan), where=spread > 0)
    known = ratio[np.isfinite(ratio)]
    return float(np.median(known)) if len(known) else np.nan
