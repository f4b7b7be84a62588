"""Contents from an AnnData that holds a deconvolution."""

from dataclasses import replace

from .._stored import Deconvolved
from ._colours import checked
from ._common import matched, own_versions, read_groups, texts
from ._contents import Contents, flag_samples, history_table
from ._expression import summarise
from ._sources import ModelSource


def from_anndata(adata, X, phenotype, test, key):
    """Contents of what :func:`skenigma.anndata.deconvolve` wrote."""
    found = Deconvolved.of(adata, key)
    written, proportions = found.written, found.proportions
    samples = proportions.index
    if isinstance(phenotype, str):
        phenotype = found.column(phenotype)
    groups = read_groups(phenotype, samples)
    quality = adata.obsm.get("proportion_quality")
    converged = written.get("converged")
    # those of nested estimators are theirs, not the model's
    params = {name: value for name, value in found.entry("params").items() if "__" not in name}
    return Contents(
        proportions=proportions,
        proportions_std=found.proportions_std,
        shares_of=found.shares_of,
        groups=_coloured(groups, found),
        type_colours=checked(found.type_colours),
        expression=_expression_of(found, X, test) if found.layers else None,
        test=test,
        history=history_table(found.histories, found.cell_types) if found.histories else None,
        quality=None if quality is None else flag_samples(quality.set_axis(samples)),
        facts={
            "samples": f"{len(proportions):,}",
            "genes in use": f"{adata.n_vars:,}",
            "cell types": f"{len(found.cell_types):,}",
            "model": found.model,
        },
        # without expression it was an estimator of proportions
        model=found.model if found.layers else None,
        parameters=texts(params),
        versions={**own_versions(), "skenigma that deconvolved": str(found.entry("version"))},
        inputs={
            name.replace("_", " "): str(written[name])
            for name in ("layer", "reference_layer", "scale", "normalize", "model_choice")
            if name in written
        },
        commands=[f"skenigma.anndata.deconvolve(bulk, reference, model={found.model}(...))"],
        converged=None if converged is None else bool(converged),
    )


def _coloured(groups, found):
    """Groups with the colours of the column of that name, where they are its categories."""
    if groups is None or groups.classes is None:
        return groups
    colours = found.group_colours(groups.name) or {}
    # colours of some groups alone could be taken for those of others
    if not set(groups.classes) <= set(colours):
        return groups
    return replace(groups, colours=checked({label: colours[label] for label in groups.classes}))


def _expression_of(found, X, test):
    bulk = found.bulk if X is None else X
    return summarise(
        ModelSource(found.expression),
        found.proportions,
        bulk=matched(bulk, found.sample_names, found.gene_names, "X"),
        reference=found.reference,
        reliability=found.reliability,
        differential=None if test is None else test.table,
    )
