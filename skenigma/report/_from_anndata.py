"""Contents from an AnnData that holds a deconvolution."""

import numpy as np
import pandas as pd

from ..checks.names import listing
from ._common import POSTERIOR, matched, own_versions, read_groups, texts
from ._contents import Contents, flag_samples, history_table
from ._expression import summarise
from ._sources import TableSource


def from_anndata(adata, X, phenotype, test, key):
    """Contents of what :func:`skenigma.anndata.deconvolve` wrote."""
    written = adata.uns.get(key)
    if written is None or "proportions" not in adata.obsm:
        raise ValueError(
            f"uns['{key}'] and obsm['proportions'] hold no deconvolution: skenigma.anndata.deconvolve writes them. "
            f"If it was given another key, pass it as key."
        )
    types = [str(kind) for kind in written["cell_types"]]
    samples = adata.obs_names.map(str)
    proportions = pd.DataFrame(np.asarray(adata.obsm["proportions"]), samples, types)
    std = adata.obsm.get("proportions_std")
    if isinstance(phenotype, str):
        if phenotype not in adata.obs:
            raise ValueError(f"obs has no column '{phenotype}'. It has {listing(list(adata.obs.columns))}.")
        phenotype = adata.obs[phenotype]
    missing = []
    facts = {
        "samples": f"{len(proportions):,}",
        "genes in use": f"{adata.n_vars:,}",
        "cell types": f"{len(types):,}",
        "model": str(written["model"]),
    }
    alone = not len(written.get("layers", ()))
    quality = adata.obsm.get("proportion_quality")
    converged = written.get("converged")
    params = {name: value for name, value in written["params"].items() if "__" not in name}
    return Contents(
        proportions=proportions,
        proportions_std=None if std is None else pd.DataFrame(np.asarray(std), samples, types),
        shares_of=str(written["shares_of"]) or None,
        groups=read_groups(phenotype, samples),
        expression=None if alone else _expression_of_anndata(adata, written, types, proportions, X, test),
        test=test,
        history=_history_of(written, types),
        quality=None if quality is None else flag_samples(quality.set_axis(samples)),
        facts=facts,
        model=None if alone else str(written["model"]),
        parameters=texts(params),
        versions={**own_versions(), "skenigma that deconvolved": str(written["version"])},
        inputs={
            name.replace("_", " "): str(written[name])
            for name in ("layer", "reference_layer", "scale", "normalize", "model_choice")
            if name in written
        },
        commands=[f"skenigma.anndata.deconvolve(bulk, reference, model={written['model']}(...))"],
        missing=missing,
        converged=None if converged is None else bool(converged),
    )


def _expression_of_anndata(adata, written, types, proportions, X, test):
    genes = [str(name) for name in adata.var_names]
    layers = dict(zip(types, written["layers"], strict=True))
    std = dict(zip(types, written.get("std_layers", ()), strict=False))

    def read(kind, cell_type):
        name = {"values": layers, "std": std}[kind].get(cell_type)
        if name is None:
            return None
        return pd.DataFrame(np.asarray(adata.layers[name]), proportions.index, genes)

    if X is None:
        name = "normalized" if "normalized" in adata.layers else str(written.get("layer", "None"))
        matrix = adata.X if name == "None" else adata.layers[name]
        X = pd.DataFrame(
            matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix), proportions.index, genes
        )
    preprocess = written["params"].get("preprocess", "None")
    scale = "log" if written["model"] == POSTERIOR else (None if preprocess == "None" else preprocess)
    reference = pd.DataFrame(np.asarray(adata.varm["reference"]).T, types, genes)
    reliability = adata.varm.get("reliability")
    return summarise(
        TableSource(read, types, scale),
        proportions,
        bulk=matched(X, proportions.index, genes, "X"),
        reference=reference,
        reliability=None if reliability is None else pd.DataFrame(np.asarray(reliability).T, types, genes),
        differential=None if test is None else test.table,
    )


def _history_of(written, types):
    """Histories in ``uns`` as the table that a model would give."""
    names = ("loss_history", "gradient_norm", "delta_history")
    found = {f"{name}_": np.asarray(written[name]) for name in names if name in written}
    return history_table(found, types) if found else None
