"""Contents from a fitted model."""

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from .._fitted import fitted_values
from .._transformers import aligned_bulk, proportions_std, reference_frame, shares_of
from ..checks.names import row_names
from ..proportions import ProportionEstimator, fit_quality
from ._common import own_versions, read_groups, texts
from ._contents import Contents, flag_samples, history_frame, reliability_frame
from ._expression import summarise
from ._sources import ModelSource


def from_model(model, X, phenotype, test):
    check_is_fitted(model)
    names = [str(kind) for kind in model.cell_types_]
    proportions = pd.DataFrame(model.proportions_, columns=names)
    # what the fit knows of its samples; X, where it is given, tells it anew and with their names
    bulk, quality = None, getattr(model, "quality_", None)
    if X is not None:
        quality = fit_quality(X, reference_frame(model), model.proportions_)
        bulk = pd.DataFrame(aligned_bulk(model, X), columns=[str(gene) for gene in model.gene_names_])
    samples = _sample_names(model, X, quality)
    if samples is not None:
        proportions.index = pd.Index(samples).map(str)
    if quality is not None:
        quality = flag_samples(quality.set_axis(proportions.index))
    std = proportions_std(model)
    converged = getattr(model, "converged_", None)
    alone = isinstance(model, ProportionEstimator)
    return Contents(
        proportions=proportions,
        proportions_std=None if std is None else pd.DataFrame(std, proportions.index, names),
        shares_of=shares_of(model),
        groups=read_groups(phenotype, proportions.index),
        expression=None if alone else _expression_of_model(model, proportions, bulk, test),
        test=test,
        history=history_frame(model) if fitted_values(model, "history") else None,
        quality=quality,
        facts={
            "samples": f"{len(proportions):,}",
            "genes in use": f"{len(model.gene_names_):,}",
            "cell types": f"{len(names):,}",
            "model": f"proportions by {model.method_}" if alone else type(model).__name__,
        },
        model=None if alone else type(model).__name__,
        parameters=texts(_parameters(model)),
        versions=own_versions(),
        commands=[repr(model) if model.reference is None else _call(model)],
        converged=None if converged is None else bool(converged),
    )


def _sample_names(model, X, quality):
    """Names of the samples of a fit, by whoever knows them; None where nobody does."""
    names = getattr(getattr(model, "expression_", None), "sample_names", None)
    if names is None and X is not None:
        names = row_names(X)
    return getattr(quality, "index", None) if names is None else names


def _parameters(model):
    """Parameters of a model that can be shown: its reference is a table, and so may others be."""
    return {
        name: value
        for name, value in model.get_params(deep=False).items()
        if name != "reference" and not hasattr(value, "shape")
    }


def _expression_of_model(model, proportions, bulk, test):
    source = ModelSource(model.expression_)
    reference = pd.DataFrame(model.reference_, proportions.columns, source.genes)
    found = summarise(
        source,
        proportions,
        bulk=bulk,
        reference=reference,
        reliability=reliability_frame(model),
        differential=None if test is None else test.table,
    )
    # the model has compared it with the bulk that it saw, with all genes
    known = getattr(model.expression_, "level", None)
    if known is not None:
        found.level = pd.Series(known, proportions.index, name="level")
    return found


def _call(model):
    """How the model was made, its reference by name alone."""
    given = ", ".join(f"{name}={value!r}" for name, value in _parameters(model).items())
    return f"{type(model).__name__}(reference, {given})"
