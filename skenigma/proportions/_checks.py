"""What estimates of proportions refuse or warn of, by the names of samples, genes and cell types."""

import numpy as np

from ..checks.entries import check_nonnegative
from ..checks.labels import read_per_cell_type
from ..checks.names import listing
from ..checks.warning import warn

LINEAR = (
    "Negative values in data cannot be compared on the logarithmic scale, as method='log' does: pass expression as "
    "it was before centring or logarithms, or use method='rlm'."
)


def check_content(content, cell_types):
    """RNA per cell in the order of the cell types, over its mean; None where it is not given."""
    if content is None:
        return None
    content = read_per_cell_type(content, cell_types, "rna_content")
    if content.shape != cell_types.shape:
        raise ValueError(
            f"rna_content has the shape {content.shape}: it needs one number for each of the {len(cell_types)} cell "
            f"types."
        )
    wrong = cell_types[~(np.isfinite(content) & (content > 0))]
    if len(wrong):
        raise ValueError(f"rna_content must be above 0 and finite; it is not for {listing(list(wrong))}.")
    # only ratios count, since shares of cells are divided by their sum
    return content / content.mean()


def comparable_genes(reference, cell_types, gene_names, bulk, rows):
    """Positions of the genes that a cell type expresses; refuses what cannot be compared by logarithms."""
    check_nonnegative(bulk, "X", rows, gene_names, LINEAR)
    check_nonnegative(reference, "reference", cell_types, gene_names, LINEAR)
    empty = cell_types[~reference.any(axis=1)]
    if len(empty):
        raise ValueError(
            f"Cell types without expression in all {reference.shape[1]} genes in use: {listing(list(empty))}. Leave "
            f"them out of the reference, or use more genes."
        )
    genes = np.flatnonzero(reference.max(axis=0) > 0)
    check_expressed(bulk, rows, genes, gene_names)
    return genes


def check_expressed(bulk, rows, genes, gene_names):
    """Refuse samples of which method "log" can say nothing."""
    check_nonnegative(bulk, "X", rows, gene_names, LINEAR)
    facts = getattr(bulk, "facts", None)  # of what is not in memory, over these genes
    empty = np.flatnonzero((bulk.max(axis=1) if facts is None else facts.expressed) == 0)
    # first over all genes, which takes no copy; only then over those in use
    if facts is None and not len(empty) and len(genes) < bulk.shape[1]:
        empty = np.flatnonzero(bulk[:, genes].max(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"Samples without expression in all {len(genes)} feature(s) in use: "
            f"{listing(_named(empty, rows))}. They have no proportions: leave them out."
        )


def warn_of_samples(affected, rows, problem, remedy, category=UserWarning):
    """Name the samples that are affected, if there are any."""
    where = np.flatnonzero(affected)
    if len(where):
        warn(f"{problem} {len(where)} sample(s): {listing(_named(where, rows))}. {remedy}", category)


def _named(positions, rows):
    return list(positions if rows is None else rows[positions])
