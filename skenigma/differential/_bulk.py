"""The bulk of the samples that are tested: as it is, or, if it is read by rows, as the test needs it."""

import numpy as np

from .._by_genes import by_genes, chosen_blocks
from ..checks.memory import check_memory
from ..cohort import is_lazy
from ..core.blocks import MANY_BLOCK, each_block, row_blocks

# Numbers of expression by genes that are built at a time, where each time is a reading of the bulk: 256 MB.
STRIP = 2**25


def tested_blocks(bulk, study):
    """Samples of the study by blocks, in double precision, each with the positions that they have among them."""
    if not is_lazy(bulk):
        yield from each_block(bulk[study.used], MANY_BLOCK)
        return
    for positions, held in chosen_blocks(bulk, study.used):
        # what is made of a block is several times as large
        for some in row_blocks(held, MANY_BLOCK):
            yield positions[some], held[some].astype(np.float64, copy=False)


def tested_bulk(bulk, study):
    """All samples of the study by genes: of what is read by rows, from a temporary file."""
    return by_genes(bulk, study.used) if is_lazy(bulk) else bulk[study.used]


def held_bulk(bulk, study, method, copies, products):
    """The same in memory, refused where it does not fit.

    Parameters
    ----------
    bulk : ndarray or LazyMatrix of shape (n_samples, n_genes)
    study : Study
    method : str
        What needs it.
    copies, products : int
        How many matrices of samples × genes, and of samples × samples, it takes.

    Returns
    -------
    ndarray of shape (n_tested, n_genes)
    """
    if not is_lazy(bulk):
        return bulk[study.used]
    n_samples, n_genes = study.n_samples, bulk.shape[1]
    check_memory(
        8 * n_samples * (copies * n_genes + products * n_samples),
        f"method='{method}' compares all samples in all genes at once, {n_samples:,} × {n_genes:,}, and each sample "
        f"with each other. It",
        "method='interaction' takes a bulk of any size that is read by rows; or test fewer samples or genes.",
    )
    return np.array(bulk[study.used], dtype=np.float64)


class Strips:
    """Expression of some genes after the others, built for as many of them at a time as memory allows.

    Parameters
    ----------
    expression : CellTypeExpression
        Read by rows: each time all of them are read.
    """

    def __init__(self, expression):
        self._expression, self._held = expression, None
        n_samples, n_types, self._n_genes = expression.shape
        self._width = max(1, STRIP // (n_samples * n_types))

    def __call__(self, genes):
        """Of a slice of genes."""
        held = self._held
        if held is None or not (held[0] <= genes.start and genes.stop <= held[1]):
            stop = min(max(genes.start + self._width, genes.stop), self._n_genes)
            values = self._expression.values(genes=slice(genes.start, stop))
            self._held = held = genes.start, stop, values
        return held[2][:, :, genes.start - held[0] : genes.stop - held[0]]
