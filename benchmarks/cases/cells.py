"""Reference profiles from annotated single cells."""

from functools import partial

import numpy as np
from scipy import sparse

from ..fresh import MEGABYTE, peak_growth
from ..harness import Contest, Contestant, case, largest_difference

CELL_TYPES = 12


def draw_cells(cells, genes, density):
    """Counts (cells x genes, sparse by rows) with as many non-zero genes in every cell, and labels."""
    rng = np.random.default_rng(0)
    per_cell = round(density * genes)
    stretch = genes // per_cell  # one expressed gene in each stretch: sorted, and none twice
    columns = rng.integers(0, stretch, (cells, per_cell), dtype=np.int32)
    columns += stretch * np.arange(per_cell, dtype=np.int32)
    counts = rng.geometric(0.4, cells * per_cell).astype(np.float32)
    starts = np.arange(cells + 1, dtype=np.int32) * per_cell
    matrix = sparse.csr_matrix((counts, columns.ravel(), starts), shape=(cells, genes))
    labels = np.array([f"type{k}" for k in range(CELL_TYPES)])[np.arange(cells) % CELL_TYPES]
    return matrix, labels


def profiles(cells, labels):
    """Profiles with the defaults of the package."""
    from skenigma.reference import make_reference

    return make_reference(cells, labels)


def indicator_means(cells, labels):
    """Means by the product with one indicator per cell type: the least that any method does."""
    names, codes = np.unique(labels, return_inverse=True)
    weights = 1 / np.bincount(codes)[codes]
    positions = (codes, np.arange(len(codes)))
    return (sparse.csr_matrix((weights, positions), (len(names), len(codes))) @ cells).toarray()


@case(
    full=[{"cells": 50000, "genes": 20000, "density": 0.05}],
    quick=[{"cells": 5000, "genes": 2000, "density": 0.05}],
    tiny=[{"cells": 20000, "genes": 200, "density": 0.1}],
    repeats=3,
)
def reference(options, cells, genes, density):
    """Reference profiles from annotated cells in a sparse matrix: time, and peak memory beyond the input."""
    from skenigma.reference import make_reference  # noqa: F401 - without it there is no contest

    given = draw_cells(cells, genes, density)
    setting = {"cells": cells, "genes": genes, "density": density}
    functions = {"indicator product": indicator_means, "skenigma": profiles}
    yield Contest(
        setting,
        [Contestant(name, partial(function, *given)) for name, function in functions.items()],
        agreement=lambda: largest_difference(profiles(*given), indicator_means(*given)),
    )
    small = draw_cells(600, 100, 0.1)
    size = sum(part.nbytes for part in (given[0].data, given[0].indices, given[0].indptr)) / MEGABYTE
    yield Contest(
        setting,
        [
            Contestant("input", lambda: size, reports=True, once=True, note="computed"),
            *(
                Contestant(name, partial(peak_growth, function, small, given, options.threads), reports=True)
                for name, function in functions.items()
            ),
        ],
        unit="MB",
        warm_up=False,
    )
