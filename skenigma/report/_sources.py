"""Expression of a run, a model or an AnnData, one cell type at a time: the whole tensor never is in memory."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .._stored import bounds

LEVEL = 0.95  # of all intervals of the page
DOUBTED = 2000  # genes whose deviations the page sums up: building those of all takes longer than all else


@dataclass(frozen=True)
class ModelSource:
    """Expression of a fitted model."""

    expression: object

    @property
    def cell_types(self):
        return [str(name) for name in self.expression.cell_types]

    @property
    def genes(self):
        return [str(name) for name in self.expression.gene_names]

    def load(self, cell_type, chosen):
        """Values (n, g), deviations of :func:`spaced` genes or None, and the bounds of the chosen genes or None."""
        part = {"cell_types": [self.cell_types.index(cell_type)]}
        values = self.expression.values(**part)[:, 0]
        if not self.expression.has_std:
            return values, None, None
        low, high = self.expression.interval(LEVEL, genes=np.asarray(chosen, dtype=int), **part)
        std = self.expression.std(genes=spaced(values.shape[1]), **part)
        return values, std[:, 0], (low[:, 0], high[:, 0])


@dataclass(frozen=True)
class TableSource:
    """Expression from files or layers: ``read(kind, cell_type)`` returns a table of samples × genes or None.

    Parameters
    ----------
    read : callable
        ``read("values", cell_type)`` and ``read("std", cell_type)``.
    cell_types : list of str
    scale : {None, "sqrt", "log"}
        Scale on which the deviations are those of a normal distribution.
    """

    read: object
    cell_types: list
    scale: str | None

    @cached_property
    def genes(self):
        return [str(name) for name in self.read("values", self.cell_types[0]).columns]

    def load(self, cell_type, chosen):
        """Values (n, g), deviations of :func:`spaced` genes or None, and the bounds of the chosen genes or None."""
        values, std = self.read("values", cell_type).to_numpy(), self.read("std", cell_type)
        if std is None:
            return values, None, None
        std = std.to_numpy()
        return (
            values,
            std[:, spaced(values.shape[1])],
            bounds(values[:, chosen], std[:, chosen], self.scale, LEVEL),
        )


def spaced(n_genes):
    """Positions of evenly spaced genes, all of them where they are few."""
    return np.unique(np.linspace(0, n_genes - 1, min(n_genes, DOUBTED)).astype(int))
