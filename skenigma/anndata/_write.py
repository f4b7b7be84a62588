"""What a fit found, written to an AnnData."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from .._fitted import fitted_values, numbers
from .._transformers import proportions_std
from .._version import __version__
from ..checks.memory import check_result
from ..expression._derived import output_expression
from ..progress import task
from ..proportions import ProportionEstimator, fit_quality

NORMALIZED = "normalized"
# Numbers of a block of samples, of all cell types: deviations take some four times that beside the layers.
BLOCK_SIZE = 2**19


def refuse_other_key(adata, key):
    """A ValueError if another entry of ``uns`` describes a fit, whose layers and tables this one would overwrite."""
    for other, entry in adata.uns.items():
        if (
            other != key
            and isinstance(entry, Mapping)
            and {"cell_types", "layers", "std_layers"} <= set(entry)
        ):
            raise ValueError(
                f"bulk_adata holds a result under uns['{other}'] already, whose layers and proportions one under the "
                f"key '{key}' would overwrite: replace it with key='{other}', or keep both by deconvolving the "
                f"AnnData as it was before."
            )


def forget_results(adata, key, layer):
    """Remove the layers that an earlier fit wrote, but for the one that this fit has read."""
    earlier = adata.uns.get(key, {})
    if "bulk_layer" not in earlier:
        return
    # in a model without deviations, those of the model before would stand beside its expression
    names = [*earlier["layers"], *earlier["std_layers"]]
    if earlier["bulk_layer"] == NORMALIZED != earlier["layer"]:
        names.append(NORMALIZED)
    for name in names:
        if name != layer:
            adata.layers.pop(str(name), None)


def write_results(adata, given, fitted):
    """Write all that is found but expression: ``given`` is what was prepared for the fit."""
    if given.is_changed:
        adata.layers[NORMALIZED] = given.bulk.to_numpy()
    if given.markers is not None:
        marker_of = given.markers.set_index("gene").cell_type
        adata.var["marker_of"] = marker_of.reindex(given.bulk.columns).fillna("").to_numpy()
    adata.varm["reference"] = given.reference.T.set_axis(given.columns, axis=1)
    # what this model lacks is removed first: an earlier fit, whose entries a copy has too, may have had it
    reliability, std = getattr(fitted, "reliability_", None), proportions_std(fitted)
    adata.varm.pop("reliability", None)
    if reliability is not None:
        adata.varm["reliability"] = pd.DataFrame(reliability.T, adata.var_names, given.columns)
    adata.obsm["proportions"] = pd.DataFrame(fitted.proportions_, adata.obs_names, given.columns)
    adata.obsm.pop("proportions_std", None)
    if std is not None:
        adata.obsm["proportions_std"] = pd.DataFrame(std, adata.obs_names, given.columns)
    adata.obsm["proportion_quality"] = fit_quality(given.bulk, given.reference, fitted.proportions_)


def check_layers(shape, itemsize):
    """Refuse layers of expression, of shape (n_samples, n_cell_types, n_genes), that cannot be held."""
    check_result(
        shape,
        itemsize,
        "Layers of the expression",
        "Fit an estimator with materialize=False and ask for parts of its expression_, or write that by "
        "expression_.to_zarr; or use float32, or fewer cell types, genes or samples.",
    )


def write_expression(adata, fitted, columns):
    """Write one layer per cell type and quantity, if there is expression; their names, for ``uns``."""
    names = {"layers": [], "std_layers": []}
    if not isinstance(fitted, ProportionEstimator):
        expression = output_expression(fitted)
        check_layers(expression.shape, expression.proportions.itemsize * (1 + expression.has_std))
        names["layers"] = _write_layers(adata, "cse_", expression.values, columns)
        if expression.has_std:
            names["std_layers"] = _write_layers(adata, "cse_std_", expression.std, columns)
    return {name: np.array(layers, dtype=object) for name, layers in names.items()}


def _write_layers(adata, prefix, build, columns):
    """Write what ``build`` makes of all cell types, by blocks of samples; names of the layers."""
    names = [prefix + name for name in columns]
    step = max(1, BLOCK_SIZE // (len(columns) * adata.n_vars))
    starts = range(0, adata.n_obs, step)
    layers = []
    with task(f"layers {prefix}*", len(starts)) as count:
        for start in starts:
            samples = slice(start, start + step)
            values = build(samples=samples)
            # arrays of their own: views of one tensor would keep all of it while any of them is in use
            layers = layers or [np.empty(adata.shape, values.dtype) for _ in names]
            for k, layer in enumerate(layers):
                layer[samples] = values[:, k]
            count()
    adata.layers.update(zip(names, layers, strict=True))
    return names


def describe(fitted, **asked):
    """Name, parameters, histories and fitted numbers of a model, as what a file can hold.

    Parameters that were ``asked`` for take the place of those that the fit had.
    """
    # references are tables, and varm holds this one already
    params = {
        name: _storable(value)
        for name, value in {**fitted.get_params(), **asked}.items()
        if name.split("__")[-1] != "reference"
    }
    found = {**numbers(fitted), **fitted_values(fitted, "history")}
    found = {name.rstrip("_"): value for name, value in found.items() if value is not None}
    return {"model": type(fitted).__name__, "version": __version__, "params": params, **found}


def _storable(value):
    if isinstance(value, BaseEstimator):
        return type(value).__name__
    if isinstance(value, (list, tuple)):
        return np.array(value)
    # files hold numbers, texts and arrays
    return value if np.isscalar(value) else str(value)
