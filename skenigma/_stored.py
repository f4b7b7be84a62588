"""What is left of a model in files and in AnnData: the values it wrote, read back under the names it had."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from .checks.names import listing
from .checks.scales import SCALES
from .checks.tables import is_anndata
from .checks.warning import warn
from .expression import CellTypeExpression

LN2 = np.log(2)
# The model whose deviations are those of logarithms, whatever its parameters are called.
POSTERIOR = "EmpiricalBayesDeconvolver"
HISTORIES = ("loss_history", "gradient_norm", "delta_history")
TYPE_COLOURS = "cell_type_colors"


def bounds(values, std, scale, level):
    """Interval of values whose deviations are normal on a scale, where only files remain of a model.

    The degrees of freedom of a posterior are not among these: its own intervals are of Student's t.

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


@dataclass(frozen=True)
class Layers:
    """Expression in the layers of an AnnData, a source of :class:`~skenigma.expression.CellTypeExpression`.

    Attributes
    ----------
    adata : AnnData
    names, std_names : list of str
        A layer per cell type; those of the deviations are empty where the model had none.
    std_scale : {None, "sqrt", "log"}
        On which the deviations are those of a normal distribution.
    """

    adata: Any
    names: list
    std_names: list
    std_scale: str | None

    @property
    def has_std(self):
        return bool(self.std_names)

    # as for a fitted model: values with deviations are means of a posterior
    is_posterior_mean = has_std

    def values(self, samples, cell_types, genes):
        """What is asked for, a new array: nothing else is read."""
        return self._stacked(self.names, samples, cell_types, genes)

    def std(self, samples, cell_types, genes):
        return self._stacked(self.std_names, samples, cell_types, genes)

    def interval(self, level, *part):
        return bounds(self.values(*part), self.std(*part), self.std_scale, level)

    def _stacked(self, names, samples, cell_types, genes):
        chosen = np.asarray(names, dtype=object)[cell_types]
        return np.stack([np.asarray(self.adata.layers[name][samples])[:, genes] for name in chosen], axis=1)


@dataclass(frozen=True)
class Deconvolved:
    """What :func:`skenigma.anndata.deconvolve` wrote to an AnnData.

    Attributes
    ----------
    adata : AnnData
    written : dict
        Its entry of ``uns``.
    key : str
        The name of that.
    """

    adata: Any
    written: dict
    key: str

    @classmethod
    def of(cls, adata, key):
        """Read it, or say what is missing."""
        if not is_anndata(adata):
            raise ValueError(f"adata must be an AnnData, got {type(adata).__name__}.")
        written = adata.uns.get(key)
        if written is None or "proportions" not in adata.obsm:
            raise ValueError(
                f"uns['{key}'] and obsm['proportions'] hold no deconvolution: skenigma.anndata.deconvolve writes "
                f"them. If it was given another key, pass it as key."
            )
        return cls(adata, written, key)

    def entry(self, name):
        """An entry of ``uns[key]``; a ValueError where it is missing."""
        if name not in self.written:
            raise ValueError(
                f"uns['{self.key}'] has no entry '{name}', which is needed here: write the AnnData anew with this "
                f"version of skenigma, by skenigma.anndata.deconvolve or to_zarr of the expression."
            )
        return self.written[name]

    @cached_property
    def cell_types(self):
        return [str(name) for name in self.entry("cell_types")]

    @property
    def sample_names(self):
        return self.adata.obs_names.map(str)

    @property
    def gene_names(self):
        return [str(name) for name in self.adata.var_names]

    @property
    def proportions(self):
        """Samples × cell types."""
        return self._of_samples("proportions")

    @property
    def proportions_std(self):
        """Their standard errors, None where there are none."""
        return self._of_samples("proportions_std") if "proportions_std" in self.adata.obsm else None

    def _of_samples(self, name):
        table = self.adata.obsm[name]
        if isinstance(table, pd.DataFrame) and table.shape[1] > len(self.cell_types):
            # of a store with the expression of some cell types; columns cannot be named with a slash
            table = table[[kind.replace("/", "|") for kind in self.cell_types]]
        return pd.DataFrame(np.asarray(table), self.sample_names, self.cell_types)

    @property
    def shares_of(self):
        """What proportions are shares of; None where they were given, or nothing says so."""
        return str(self.written.get("shares_of", "")) or None

    @property
    def reference(self):
        """Cell types × genes."""
        if not self.has_reference:
            raise ValueError(
                "varm['reference'] is missing: skenigma.anndata.deconvolve writes it, and the command line with "
                "--format zarr for all cell types; put the profiles there, genes × cell types."
            )
        return self._of_genes("reference")

    @property
    def has_reference(self):
        """Whether the profiles are there, which a store of the expression alone lacks."""
        return "reference" in self.adata.varm

    @property
    def reliability(self):
        """Cell types × genes, None where the model does not know it."""
        return self._of_genes("reliability") if "reliability" in self.adata.varm else None

    def _of_genes(self, name):
        return pd.DataFrame(np.asarray(self.adata.varm[name]).T, self.cell_types, self.gene_names)

    @property
    def bulk(self):
        """What was deconvolved, samples × genes."""
        # files written before it was noted, and stores of the expression alone, do not say
        guess = "normalized" if "normalized" in self.adata.layers else self.written.get("layer", "None")
        name = str(self.written.get("bulk_layer", guess))
        matrix = self.adata.X if name == "None" else self.adata.layers[name]
        if matrix is None:
            raise ValueError("The AnnData holds no bulk: put the one that was deconvolved into X.")
        values = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
        return pd.DataFrame(values, self.sample_names, self.gene_names)

    @property
    def model(self):
        """Name of the model, "" where whoever wrote the expression did not know it."""
        return str(self.entry("model"))

    @property
    def layers(self):
        """Names of the layers of the expression; empty where proportions alone were estimated."""
        return [str(name) for name in self.written.get("layers", ())]

    @cached_property
    def expression(self):
        """Expression of all cell types, read when it is asked for.

        Raises
        ------
        ValueError
            If proportions alone were estimated.
        """
        if not self.layers:
            raise ValueError(
                f"uns['{self.key}'] names no layers of cell-type-specific expression: {self.model} estimated none."
            )
        std = [str(name) for name in self.written.get("std_layers", ())]
        names = [
            np.array(axis, dtype=object) for axis in (self.cell_types, self.gene_names, self.sample_names)
        ]
        source = Layers(self.adata, self.layers, std, self.scale)
        return CellTypeExpression(source, self.proportions.to_numpy(), *names)

    @property
    def scale(self):
        """Scale on which deviations are those of a normal distribution."""
        if self.model == POSTERIOR:
            return "log"
        preprocess = str(self.entry("params").get("preprocess", "None"))
        return None if preprocess == "None" else preprocess

    @property
    def histories(self):
        """Histories of the fit, by the names of the attributes of the model."""
        return {f"{name}_": np.asarray(self.written[name]) for name in HISTORIES if name in self.written}

    def column(self, name):
        """A column of ``obs``, by sample."""
        if name not in self.adata.obs:
            raise ValueError(
                f"obs has no column '{name}'. It has {listing(list(self.adata.obs.columns)) or 'none'}."
            )
        return self.adata.obs[name].set_axis(self.sample_names)

    def table(self, name):
        """An entry of ``obsm``, by sample and cell type where it is a table.

        Files cannot hold a "/" in the name of a column: what is written there as "CD4|T" is the cell type "CD4/T".
        """
        if name not in self.adata.obsm:
            raise ValueError(
                f"obsm has no entry '{name}'. It has: {listing(list(self.adata.obsm)) or 'none'}."
            )
        entry = self.adata.obsm[name]
        if not isinstance(entry, pd.DataFrame):
            return entry
        names = dict(zip(self.adata.obsm["proportions"].columns, self.cell_types, strict=True))
        return entry.set_axis(self.sample_names).rename(columns=names)

    @cached_property
    def type_colours(self):
        """Colour of each cell type by its name, None where the AnnData has none.

        ``uns["<groupby>_colors"]``, where ``obs`` has no column of that name whose colours they would be; else what
        the reference had when it was deconvolved.
        """
        groupby = str(self.written.get("groupby", "None"))
        name = TYPE_COLOURS if groupby == "None" else f"{groupby}_colors"
        own = None
        if name in self.adata.uns and name.removesuffix("_colors") not in self.adata.obs:
            own = by_name(self.adata.uns[name], self.cell_types, f"uns['{name}']", "cell types")
        if own is None and TYPE_COLOURS in self.written:
            where = f"uns['{self.key}']['{TYPE_COLOURS}']"
            own = by_name(self.written[TYPE_COLOURS], self.cell_types, where, "cell types")
        return own

    def group_colours(self, name):
        """Colour of each category of a column of ``obs``, None where the AnnData has none."""
        return category_colours(self.adata, name)


def category_colours(adata, name):
    """Colours of the categories of a column of ``obs``, as scanpy keeps them, by category; None if there are none."""
    found = adata.uns.get(f"{name}_colors")
    column = adata.obs.get(name)
    if found is None or not isinstance(getattr(column, "dtype", None), pd.CategoricalDtype):
        return None
    return by_name(
        found, list(column.cat.categories), f"uns['{name}_colors']", f"categories of obs['{name}']"
    )


def by_name(colours, names, where, what):
    """Colours in the order of names as a dict; None, with a warning, where they are too few or no list."""
    colours = np.asarray(colours)
    if colours.ndim != 1 or len(colours) < len(names):
        warn(f"{where} is of shape {colours.shape} for {len(names)} {what}: these colours are not used.")
        return None
    # of more colours the first are taken, as scanpy does
    return dict(zip(names, map(str, colours), strict=False))
