"""Expression of a run, a model or an AnnData, one cell type at a time: the whole tensor never is in memory."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from ..checks.scales import SCALES

LN2 = np.log(2)
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
        return values, std[:, spaced(values.shape[1])], bounds(values[:, chosen], std[:, chosen], self.scale)


def spaced(n_genes):
    """Positions of evenly spaced genes, all of them where they are few."""
    return np.unique(np.linspace(0, n_genes - 1, min(n_genes, DOUBTED)).astype(int))


def bounds(values, std, scale, level=LEVEL):
    """Interval of values whose deviations are normal on a scale, where only files remain of a model.

    Parameters
    ----------
    values, std : ndarray
        Of :meth:`~skenigma.expression.CellTypeExpression.values` and ``std``: on another scale than that of the bulk
        a deviation is half the distance of what one up and one down become, which is undone here.
    scale : {None, "sqrt", "log"}
    level : float in (0, 1)

    Returns
    -------
    low, high : ndarray
        Not below 0 where no value is.
    """
    reach = ndtri(0.5 + level / 2)
    if scale is None:
        low, high = values - reach * std, values + reach * std
    else:
        middle = SCALES[scale].forward(np.array(values, dtype=float))
        if scale == "log":
            deviation = np.arcsinh(std / np.exp2(middle)) / LN2
        else:
            # roots of values below 0 are mirrored: where a deviation reaches there, it counts both squares
            beyond = np.sqrt(np.maximum(std - values, 0))
            within = np.divide(std, 2 * middle, out=np.full_like(middle, np.inf), where=middle > 0)
            deviation = np.where(within <= middle, within, beyond)
        low, high = middle - reach * deviation, middle + reach * deviation
        for bound in (low, high):
            SCALES[scale].restore(bound)
    return (np.maximum(low, 0), high) if values.size and values.min() >= 0 else (low, high)
