"""What a fit takes, out of AnnData objects."""

import numpy as np
import pandas as pd
from scipy import sparse

from .._stored import category_colours
from ..checks.entries import check_finite
from ..checks.genes import match_genes
from ..checks.names import listing, refuse_repeats, row_names
from ..checks.tables import is_anndata
from ..checks.validation import check_profiles
from ..reference import make_reference, select_markers
from ..reference._cells import check_linear, choose_layer


def read_bulk(data, layer, linear):
    """One matrix of the bulk as a checked table, samples × genes; ``linear`` refuses what is not."""
    if not is_anndata(data):
        raise ValueError(
            f"bulk_adata must be an AnnData, got {type(data).__name__}: the estimators take tables."
        )
    if layer == "raw" and layer not in data.layers:
        raise ValueError("bulk_adata.raw has other genes than bulk_adata: pass bulk_adata.raw.to_adata().")
    matrix, genes = choose_layer(data, layer)
    values = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    samples = np.array([str(name) for name in data.obs_names], dtype=object)
    refuse_repeats(samples, "Bulk samples", "Give each a name of its own, or call obs_names_make_unique().")
    refuse_repeats(genes, "Genes of the bulk", "Sum the repeated columns, or call var_names_make_unique().")
    check_finite(values, "bulk", samples, genes)
    if linear:
        check_linear(data, values, layer, samples, genes, "bulk")
    return pd.DataFrame(values, samples, genes)


def read_reference(data, groupby, layer, min_cells, normalize):
    """Profiles, and the names of cell types that were left out."""
    if not is_anndata(data):
        if not isinstance(data, pd.DataFrame):
            raise ValueError(f"reference_adata must be an AnnData or a DataFrame, got {type(data).__name__}.")
        return data, np.array([], dtype=object)
    reference, report = make_reference(
        data, groupby, layer=layer, min_cells=min_cells, normalize=normalize, return_report=True
    )
    dropped = report.cell_types.index[~report.cell_types.kept]
    return reference, dropped.to_numpy(dtype=object)


def is_signed(data):
    """Whether profiles are centred or standardised: cells never are."""
    return isinstance(data, pd.DataFrame) and bool((data.to_numpy() < 0).any())


def refuse_mixed(bulk):
    """Refuse a bulk without negative values beside profiles that have some."""
    if bulk.to_numpy().min() >= 0:
        raise ValueError(
            "The reference has negative values, and the bulk has none: bring both to the same scale, "
            "preferably the linear scale before centring, or pass normalize=None to take them as they are."
        )


def gene_lengths_of(data, lengths):
    """Length of every gene, by its name."""
    if not isinstance(lengths, str):
        return pd.Series(lengths)
    if lengths not in data.var:
        raise ValueError(f"var has no column '{lengths}'. It has {listing(list(data.var)) or 'none'}.")
    return data.var[lengths].set_axis(data.var_names.astype(str))


def shared_genes(bulk, reference):
    """Names of the genes of both, in the order of the bulk."""
    profiles = check_profiles(reference, np.float64)
    if profiles.genes is None:
        raise ValueError("The columns of the reference must be named by genes.")
    in_bulk, _ = match_genes(profiles, bulk.columns.to_numpy(), bulk.shape, row_names(bulk))
    return bulk.columns[in_bulk]


def refuse_loss(unused):
    """Refuse to write to a bulk with genes that the reference lacks."""
    if len(unused):
        raise ValueError(
            f"The reference lacks {len(unused)} gene(s) of the bulk: {listing(unused)}. With copy=False they would "
            f"be lost from bulk_adata: use copy=True, or leave them out of bulk_adata first."
        )


def in_memory(data):
    """An AnnData, read if it is open as a file."""
    return data.to_memory() if data.isbacked else data


def find_markers(data, groupby, n_markers, **settings):
    if not is_anndata(data):
        raise ValueError("n_markers needs annotated cells: profiles do not show how much cells vary.")
    return select_markers(data, groupby, n_markers, **settings)


def colours_of(data, groupby, cell_types):
    """Colours that an AnnData has for cell types, in their order; None where it has none for one of them."""
    if not (is_anndata(data) and isinstance(groupby, str)):
        return None
    found = {str(name): colour for name, colour in (category_colours(data, groupby) or {}).items()}
    names = [str(name) for name in cell_types]
    return np.array([found[name] for name in names], dtype=object) if set(names) <= set(found) else None


def known_proportions(data, proportions, names):
    """Proportions that are given, by their name or as they are; ``names`` are the cell types by their columns."""
    if not isinstance(proportions, str):
        return proportions
    if proportions not in data.obsm:
        raise ValueError(f"obsm has no entry '{proportions}'. It has: {listing(list(data.obsm)) or 'none'}.")
    entry = data.obsm[proportions]
    # columns that deconvolve wrote have '|' in place of '/'
    return entry.rename(columns=names) if isinstance(entry, pd.DataFrame) else entry
