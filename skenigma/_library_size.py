"""Library sizes: counts of bulk and reference brought to one total, or to TPM by the lengths of genes.

The mixture of profiles is a sample only where both have one scale. Counts have as many as there are samples.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .checks.names import listing
from .checks.units import LARGEST_DEPTHS, look_at
from .checks.warning import warn

# Counts are brought to this total: counts per million.
PER_MILLION = 1e6
# Genes without a length are left out if no more than this share of them has none.
MOST_WITHOUT_LENGTH = 0.1


@dataclass(frozen=True)
class Scaling:
    """What bulk and reference are brought to.

    Attributes
    ----------
    total : float or None
        Total of every sample and profile over the genes in use; None leaves them as they are.
    reason : str
        Why, to be said and recorded.
    """

    total: float | None
    reason: str

    def __str__(self):
        if self.total is None:
            return f"as they are: {self.reason}"
        return f"bulk and reference to a total of {self.total:,.10g} over the shared genes: {self.reason}"


def choose_total(bulk, reference, asked="auto", *, lengths=False, shared_totals=None):
    """What total to bring bulk and reference to.

    Parameters
    ----------
    bulk : DataFrame or examined LazyMatrix of shape (n_samples, n_genes_bulk)
        On the linear scale, of all its genes.
    reference : DataFrame of shape (n_cell_types, n_genes_reference)
    asked : {"auto"}, float or None, default="auto"
        A total, None to leave both as they are, or "auto": 1e6, where one of them holds counts or the two differ in
        units, else as they are.
    lengths : bool, default=False
        Whether the bulk was divided by lengths of genes: TPM have a total of 1e6.
    shared_totals : ndarray of shape (n_samples,), default=None
        Totals of the samples over the genes of both, where the bulk is no table but an examined matrix.

    Returns
    -------
    scaling : Scaling

    Raises
    ------
    ValueError
        If a total is asked for, and values are centred.
    """
    if asked is None:
        return Scaling(None, "as asked for")
    tables = {"bulk": bulk, "reference": reference}
    found = {what: look_at(_values(table)) for what, table in tables.items()}
    if not isinstance(asked, str):
        for what, values in found.items():
            if values.kind == "signed":
                raise ValueError(
                    f"The {what} has {values}: such values cannot be scaled to a total of {asked:g}."
                )
        return Scaling(float(asked), "as asked for")
    if not all(values.is_linear for values in found.values()):
        return Scaling(None, "values are centred or logarithmic, so their totals have no meaning")
    if lengths:
        return Scaling(PER_MILLION, "TPM, by the lengths of genes")
    shared = bulk.columns.intersection(reference.columns, sort=False)
    if shared_totals is None:
        shared_totals = bulk[shared].to_numpy().sum(axis=1)
    medians = [float(np.median(sums)) for sums in (shared_totals, reference[shared].to_numpy().sum(axis=1))]
    reason = _why(found, medians)
    return Scaling(None, "both are on one scale") if reason is None else Scaling(PER_MILLION, reason)


def _why(found, totals):
    """What tells that totals differ for technical reasons, None if nothing does."""
    for what, values in found.items():
        if values.kind == "counts":
            return f"the {what} holds whole numbers, counts"
    sizes = found["bulk"].totals
    sizes = sizes[sizes > 0]
    if len(sizes) and sizes.max() > LARGEST_DEPTHS * sizes.min():
        return f"library sizes of the bulk differ {sizes.max() / sizes.min():.3g}-fold, as those of counts do"
    if min(totals) <= 0 or max(totals) > LARGEST_DEPTHS * min(totals):
        return f"on the shared genes a sample has {totals[0]:.4g} in total and a profile {totals[1]:.4g} (medians)"
    return None


def scale_to_total(table, total, what):
    """Rows of a table scaled to one total.

    Parameters
    ----------
    table : DataFrame
    total : float
    what : str
        What the rows are, for the message of the ValueError if one is zero throughout.

    Returns
    -------
    scaled : DataFrame
        In the type of the table, if that is floating, else float64.
    """
    totals = table.sum(axis=1)
    refuse_empty(totals, table, what)
    return table.mul(total / totals, axis=0).astype(_floating(table))


def refuse_empty(totals, table, what):
    """Refuse rows of a table whose total is zero."""
    empty = table.index[totals <= 0]
    if len(empty):
        raise ValueError(
            f"{what} with a total of zero over the {table.shape[1]} genes in use: {listing(empty)}. Drop them first."
        )


def _values(table):
    return table.to_numpy(dtype=_floating(table)) if isinstance(table, pd.DataFrame) else table


def _floating(table):
    """The type of a table, if it has decimals; counts are stored as integers, and their shares are not."""
    kind = table.dtypes.iloc[0]
    return kind if kind.kind == "f" else np.dtype(np.float64)


def divide_by_length(bulk, lengths):
    """Bulk counts per length of gene, of the genes that have one.

    Parameters
    ----------
    bulk : DataFrame of shape (n_samples, n_genes)
    lengths : Series
        Length by gene, in any unit.

    Returns
    -------
    rates : DataFrame
        Scaled to a total of 1e6 they are TPM.

    Raises
    ------
    ValueError
        If a gene has more than one length, a length is not positive, or more than a tenth of the genes have none.
    """
    known = known_lengths(bulk, lengths)
    return bulk[known.index].div(known.to_numpy(), axis=1).astype(_floating(bulk))


def known_lengths(bulk, lengths):
    """Lengths of the genes of a bulk that have one, checked as :func:`divide_by_length` says."""
    repeated = lengths.index[lengths.index.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"Gene lengths name genes more than once: {listing(repeated)}. Keep one length of each."
        )
    found = pd.to_numeric(lengths.reindex(bulk.columns), errors="coerce")
    wrong = found.index[(found <= 0) | np.isinf(found)]
    if len(wrong):
        raise ValueError(f"Lengths of genes must be positive and finite; those of {listing(wrong)} are not.")
    missing = found.index[found.isna()]
    if len(missing) > MOST_WITHOUT_LENGTH * len(found):
        raise ValueError(
            f"{len(missing)} of {len(found)} genes of the bulk have no length: {listing(missing)}. The lengths are "
            f"of {listing(lengths.index)}: use the same kind of gene identifier."
        )
    if len(missing):
        warn(f"{len(missing)} gene(s) without a length are left out: {listing(missing)}.")
    return found.dropna()
