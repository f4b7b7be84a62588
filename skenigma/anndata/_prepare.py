"""Bulk and reference of two AnnData, brought to the same genes and one scale."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from .._library_size import PER_MILLION, Scaling, choose_total, divide_by_length, scale_to_total
from ..checks.names import refuse_repeats
from ..io._formats import layer_name
from ._inputs import (
    find_markers,
    gene_lengths_of,
    is_signed,
    read_bulk,
    read_reference,
    refuse_loss,
    refuse_mixed,
    shared_genes,
)


@dataclass
class Prepared:
    """What a fit is given, and how it came about.

    Parameters
    ----------
    bulk : DataFrame of shape (n_samples, n_genes)
        Of the genes in use, as they are deconvolved.
    reference : DataFrame of shape (n_cell_types, n_genes)
        Profiles on the same scale.
    columns : list of str
        Cell types by names that a file can hold.
    markers : DataFrame or None
        Marker genes, if they were asked for.
    scaling : Scaling
        The total that both have, and why.
    by_length : bool
        Whether the bulk was divided by lengths of genes.
    dropped : ndarray of str
        Cell types with too few cells.
    unused : Index
        Genes of the bulk that are not in use.
    """

    bulk: pd.DataFrame
    reference: pd.DataFrame
    columns: list
    markers: pd.DataFrame | None
    scaling: Scaling
    by_length: bool
    dropped: np.ndarray
    unused: pd.Index

    @property
    def is_changed(self):
        """Whether the bulk has other values than it was read with."""
        return self.scaling.total is not None or self.by_length

    @property
    def names_by_column(self):
        """Names of cell types as the reference has them, by those that a file can hold."""
        return dict(zip(self.columns, self.reference.index, strict=True))

    def record(self):
        """What ``uns`` says about it."""
        return {
            "dropped_cell_types": self.dropped,
            "unused_genes": self.unused.to_numpy(dtype=object),
            "normalize": str(self.scaling.total),
            "scale": str(self.scaling),
        }


def prepare(
    bulk_adata,
    reference_adata,
    groupby,
    *,
    layer,
    reference_layer,
    normalize,
    gene_lengths,
    min_cells,
    n_markers,
    keep_all,
):
    """Read, match and scale bulk and reference.

    Parameters are those of :func:`~skenigma.anndata.deconvolve`; ``keep_all`` refuses a bulk with genes that the
    reference lacks.
    """
    if not (normalize is None or normalize == "auto"):
        check_scalar(normalize, "normalize", Real, min_val=0, include_boundaries="neither")
    # of every cell: its depth must not decide how much it counts for its type
    total = PER_MILLION if normalize == "auto" else normalize
    bulk = _bulk(bulk_adata, layer, normalize, signed=normalize == "auto" and is_signed(reference_adata))
    reference, dropped = read_reference(reference_adata, groupby, reference_layer, min_cells, total)
    columns = [layer_name(name) for name in reference.index.astype(str)]
    # 'T/NK' and 'T|NK' would be one layer
    refuse_repeats(columns, "Cell types, with '|' in place of '/',", "Rename them.")
    by_length = gene_lengths is not None
    # before totals: TPM are shares of reads per base
    if by_length:
        bulk = divide_by_length(bulk, gene_lengths_of(bulk_adata, gene_lengths))
    shared = shared_genes(bulk, reference)
    unused = pd.Index(bulk_adata.var_names.astype(str)).difference(shared, sort=False)
    if keep_all:
        refuse_loss(unused)
    bulk, reference, scaling = _scaled(bulk, reference, shared, normalize, by_length)
    markers = None
    if n_markers is not None:
        given = {"layer": reference_layer, "normalize": total, "min_cells": min_cells}
        markers = find_markers(reference_adata, groupby, n_markers, among=shared, **given)
    return Prepared(bulk, reference, columns, markers, scaling, by_length, dropped, unused)


def _bulk(adata, layer, normalize, signed):
    """The bulk, refused where its values cannot be on the scale of the reference."""
    bulk = read_bulk(adata, layer, linear=normalize is not None and not signed)
    if signed:
        refuse_mixed(bulk)
    return bulk


def _scaled(bulk, reference, shared, normalize, by_length):
    """Bulk and reference of the shared genes, of one total where that is wanted, and the reason."""
    # of all genes: what the values are, and how library sizes differ, is seen in the tables as they came
    scaling = choose_total(bulk, reference, normalize, lengths=by_length)
    # genes before totals: a mixture of profiles has the total of its profiles only over the same genes
    bulk, reference = bulk[shared], reference[shared]
    if scaling.total is not None:
        bulk = scale_to_total(bulk, scaling.total, "Bulk samples")
        reference = scale_to_total(reference, scaling.total, "Cell types")
    return bulk, reference, scaling
