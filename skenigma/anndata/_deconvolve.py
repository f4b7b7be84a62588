"""The one call from bulk samples and annotated cells to expression."""

import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import clone

from .._docstrings import filled
from .._parameters import entries
from .._stored import TYPE_COLOURS
from .._transformers import shares_of
from .._typing import AnnData, Estimator, Table
from ..checks.tables import is_anndata
from ..deconvolution._choice import Choice, choose_model, named_model
from ..deconvolution._flow import proportion_estimator
from ..proportions import ProportionEstimator
from ._inputs import colours_of, in_memory, known_proportions
from ._prepare import prepare
from ._write import (
    NORMALIZED,
    check_layers,
    describe,
    forget_results,
    refuse_other_key,
    write_expression,
    write_results,
)


@filled(entries(min_cells=10))
def deconvolve(
    bulk_adata: AnnData,
    reference_adata: AnnData,
    groupby: str | ArrayLike = "cell_type",
    *,
    model: str | Estimator = "auto",
    layer: str | None = None,
    reference_layer: str | None = None,
    proportions: str | Table | None = None,
    normalize: float | str | None = "auto",
    gene_lengths: str | pd.Series | None = None,
    min_cells: int = 10,
    n_markers: int | None = None,
    key: str = "skenigma",
    copy: bool = True,
    return_model: bool = False,
    verbose: bool = True,
) -> AnnData:
    """Deconvolve an AnnData of bulk samples by an AnnData of annotated cells.

    The mean of the cells of each type is the reference. Bulk and reference are restricted to the genes that
    they share, counts are scaled to one library size, a model is chosen from the data and fitted, and the
    results are written to an AnnData that can be saved as ``.h5ad``. The decisions are printed and recorded.

    Parameters
    ----------
    bulk_adata : AnnData
        Bulk samples × genes: counts, or other values on the linear scale, or centred ones.
    reference_adata : AnnData or DataFrame
        Single cells or sorted samples × genes, on the linear scale; or the profiles, cell types × genes.
    groupby : str or array-like, default="cell_type"
        Cell type of each cell: a column of ``reference_adata.obs``, or the labels. Not used for profiles.
    model : {"auto", "bayes", "factor", "l2max", "tracenorm"} or estimator, default="auto"
        What to fit. "auto", or None, is :class:`~skenigma.EmpiricalBayesDeconvolver` ("bayes") for linear values of
        at least 0, and :class:`~skenigma.FactorDeconvolver` ("factor") for centred or standardised ones. "l2max" and
        "tracenorm" are the published models, :class:`~skenigma.L2MaxDeconvolver` and
        :class:`~skenigma.TraceNormDeconvolver`, by their published parameters. An estimator is one of these, any
        other :class:`~skenigma.deconvolution.BaseDeconvolver`, also of your own, or a
        :class:`~skenigma.ProportionEstimator` for proportions alone. It is cloned, and its reference must be None.
        "bayes" has ``platform="bulk"`` where the reference is made from cells, which another platform measured than
        the bulk, and ``platform="reference"`` for profiles.
    layer : str, default=None
        Layer of ``bulk_adata`` to use. None is ``X``.
    reference_layer : str, default=None
        Layer of ``reference_adata`` to use, or "raw" for its ``raw``. None is ``X``.
    proportions : str, DataFrame or array-like of shape (n_samples, n_cell_types), default=None
        Known proportions; a str is an entry of ``bulk_adata.obsm``. None estimates them.
    normalize : {"auto"}, float or None, default="auto"
        Total that bulk samples and profiles are scaled to, over the genes that they share; proportions are then
        shares of RNA. "auto" is 1e6 where bulk or profiles are counts: whole numbers, or totals that differ more than
        threefold, between samples or between samples and profiles. Otherwise, as for TPM and counts per million, both
        stay as they are. Cells are scaled to 1e6 each before their mean. None takes all as
        it is: bulk and reference must have one scale already.
    gene_lengths : str or Series, default=None
        Length of every gene, by which the bulk is divided before it is scaled: TPM. A str is a column of
        ``bulk_adata.var``; a Series is matched by name. For counts of reads that cover whole transcripts, beside a
        reference of unique molecules (UMI) or TPM, neither of which depends on length.
    {min_cells}
    n_markers : int, default=None
        Number of marker genes per cell type, by :func:`~skenigma.reference.select_markers`, that the proportions
        are estimated from. None uses all shared genes. Expression is estimated for all shared genes either way.
    key : str, default="skenigma"
        Entry of ``uns`` for what belongs to the fit as a whole. An AnnData holds one result: that of an earlier fit
        is replaced under its own key, and refused under another.
    copy : bool, default=True
        Whether to write to a new AnnData, of the genes in use, and leave ``bulk_adata`` as it is. False writes to
        ``bulk_adata`` itself, which must then have no gene that the reference lacks.
    return_model : bool, default=False
        Whether to return also the fitted model.
    verbose : bool, default=True
        Whether to print what the values were brought to, and which model was chosen, and why.

    Returns
    -------
    adata : AnnData
        Samples × genes in use, with all that ``bulk_adata`` had for them, and

        ``obsm["proportions"]``
            DataFrame, samples × cell types: shares of RNA, if profiles have one total, unless the model has an
            ``rna_content``; ``uns[key]["shares_of"]`` says which, or "" where they were given.
        ``obsm["proportions_std"]``
            Their standard errors, a lower bound, if the method that estimated them has any ("log").
        ``obsm["proportion_quality"]``
            DataFrame of :func:`~skenigma.proportions.fit_quality`: how well the profiles, mixed by these proportions,
            reproduce each sample.
        ``layers["cse_<cell type>"]``
            Expression of one cell type in every sample, on the scale of ``layers["normalized"]``, or of the bulk
            where that was not written. Layers of an earlier fit under the same ``key`` are removed.
        ``layers["cse_std_<cell type>"]``
            Its standard deviation, if the model estimates one.
        ``layers["normalized"]``
            The bulk that was deconvolved, if it was scaled or divided by lengths.
        ``varm["reliability"]``
            DataFrame, genes × cell types: the correlation with the truth over samples that the model expects, if it
            does.
        ``varm["reference"]``
            DataFrame, genes × cell types: the profiles, on the same scale.
        ``var["marker_of"]``
            The cell type that a gene is a marker of, or "", if markers were asked for.
        ``uns[key]``
            Name, parameters and version of the model, its histories and fitted numbers, the cell types, their
            ``layers`` and ``std_layers``, the layer with the bulk that was deconvolved (``bulk_layer``, "None" for
            ``X``), the genes of the bulk that are not in use, why the model was chosen (``model_choice``) and what
            values were brought to (``scale``). Where ``reference_adata`` has colours for
            the cell types, as scanpy keeps them (``uns["<groupby>_colors"]``), ``cell_type_colors`` are these, in the
            order of ``cell_types``: displays, the report and :func:`cse_to_anndata` use them.
    model : estimator
        Only if ``return_model``.

    Raises
    ------
    ValueError
        If a sample or a cell type has a total of zero, samples or genes are named twice, one of bulk and reference is
        centred and the other is not, the data hold logarithms, too few genes are shared or have a length, genes
        would be lost by ``copy=False``, or `bulk_adata` holds a result under another key; the message
        names the first offenders.

    See Also
    --------
    cse_to_anndata : The expression as an AnnData of samples × cell types as rows.
    skenigma.reference.make_reference : The reference alone.

    Notes
    -----
    A "/" in the name of a cell type becomes "|" in names of layers and columns, because files cannot hold it;
    ``uns[key]["cell_types"]`` has the names as they were. Parameters that are None are stored as "None".

    Scaled to one total over the shared genes, a bulk sample is the mixture of the scaled profiles by shares of RNA,
    whatever the depths of both data sets were. Differences between their technologies remain: see
    :mod:`skenigma.batch`.

    The layers take n_cell_types times the memory of the bulk, those of standard deviations as much again, ``X`` and
    ``layers["normalized"]`` of the result twice the bulk. Layers are written by blocks of samples, with no tensor of
    expression beside them, unless the model computes on one or ``return_model`` asks for a model that holds one; with
    ``materialize=False`` it does not.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> from skenigma.anndata import deconvolve
    >>> from skenigma.reference import make_pseudobulk
    >>> rates = np.repeat(np.random.default_rng(0).gamma(1, 20, (2, 30)), 40, axis=0)
    >>> cells = anndata.AnnData(np.random.default_rng(1).poisson(rates).astype(float))
    >>> cells.obs["cell_type"] = np.repeat(["B", "T"], 40)
    >>> bulk = anndata.AnnData((1000 * make_pseudobulk(cells, "cell_type", 8, random_state=0).bulk).round())
    >>> adata = deconvolve(bulk, cells)
    scale: bulk and reference to a total of 1,000,000 over the shared genes: the bulk holds whole numbers, counts
    model: EmpiricalBayesDeconvolver, because values are linear and not negative
    >>> list(adata.uns["skenigma"]["layers"])
    ['cse_B', 'cse_T']
    >>> adata.obsm["proportions"].shape
    (8, 2)
    """
    given = prepare(
        bulk_adata,
        reference_adata,
        groupby,
        layer=layer,
        reference_layer=reference_layer,
        normalize=normalize,
        gene_lengths=gene_lengths,
        min_cells=min_cells,
        n_markers=n_markers,
        keep_all=not copy,
    )
    refuse_other_key(bulk_adata, key)
    model, choice = _choose(model, given.bulk, given.reference, is_anndata(reference_adata))
    # before the fit: whoever disagrees need not wait for its end
    if verbose:
        print(f"scale: {given.scaling}\nmodel: {choice}")
    known = known_proportions(bulk_adata, proportions, given.names_by_column)
    # a tensor that nobody gets would stand in memory beside the layers
    fitted = _fit(model, given, known, {} if return_model else {"materialize": False})
    adata = in_memory(bulk_adata)[:, given.bulk.columns].copy() if copy else bulk_adata
    forget_results(adata, key, layer)
    write_results(adata, given, fitted)
    colours = colours_of(reference_adata, groupby, fitted.cell_types_)
    adata.uns[key] = {
        **describe(fitted, **_params(model, "materialize")),
        **({} if colours is None else {TYPE_COLOURS: colours}),
        "groupby": groupby if isinstance(groupby, str) else "None",
        "shares_of": shares_of(fitted) or "",
        "cell_types": fitted.cell_types_.astype(object),
        **write_expression(adata, fitted, given.columns),
        **given.record(),
        "layer": str(layer),
        # told apart by name alone, a layer "normalized" of the user's own would pass for what was deconvolved
        "bulk_layer": NORMALIZED if given.is_changed else str(layer),
        "reference_layer": str(reference_layer),
        "model_choice": choice,
    }
    return (adata, fitted) if return_model else adata


def _choose(model, bulk, reference, from_cells):
    """The model to fit, and why in words."""
    if not (model is None or isinstance(model, str)):
        return model, f"{type(model).__name__}, as given"
    if model in (None, "auto"):
        choice = choose_model(bulk.to_numpy(), reference.to_numpy())
    else:
        named_model(model)
        choice = Choice(model, "as named")
    # cells were measured on another platform than the bulk
    platform = {"platform": "bulk" if from_cells else "reference"} if choice.name == "bayes" else {}
    return named_model(choice.name)(**platform), str(choice)


def _params(model, *names):
    """Parameters of these names that a model has."""
    return {name: value for name, value in model.get_params(deep=False).items() if name in names}


def _fit(model, given, proportions, changes):
    """A fitted clone of the model, with ``changes`` of those parameters that it has."""
    if getattr(model, "reference", given) is not None:
        raise ValueError(
            f"model must be a deconvolver, or an estimator of proportions, whose reference is None, got {model!r}: "
            f"the reference is made from reference_adata."
        )
    only_proportions = isinstance(model, ProportionEstimator)
    model = clone(model).set_params(reference=given.reference)
    model.set_params(**{name: changes[name] for name in _params(model, *changes)})
    if not only_proportions:
        # before the work, as a fit refuses a tensor
        check_layers((len(given.bulk), *given.reference.shape), given.bulk.to_numpy().itemsize)
    if given.markers is not None:
        estimator = model if only_proportions else proportion_estimator(model)
        # markers are for proportions: expression is estimated for all genes
        estimator.set_params(reference=given.reference[given.markers.gene])
        if not only_proportions:
            model.set_params(proportion_estimator=estimator)
    if proportions is None:
        return model.fit(given.bulk)
    if only_proportions:
        raise ValueError("proportions are given, so a ProportionEstimator has nothing to estimate.")
    return model.fit(given.bulk, proportions=proportions)
