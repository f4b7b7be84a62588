"""AnnData in and out: bulk samples and annotated cells to expression per cell type, in one call.

The estimators take tables; this module takes what is needed from AnnData objects, and writes what is found to one.
"""

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_scalar

from ._parameters import fitted_values, numbers
from ._transformers import proportions_std, shares_of
from ._version import __version__
from .checks.entries import check_finite
from .checks.genes import match_genes
from .checks.names import listing, refuse_repeats, row_names
from .checks.optional import import_optional
from .checks.validation import Real, check_deconvolver, check_profiles
from .deconvolution import EmpiricalBayesDeconvolver
from .deconvolution._flow import proportion_estimator
from .expression import output_expression, sample_and_type
from .io._formats import layer_name
from .proportions import ProportionEstimator, fit_quality
from .reference import make_reference, select_markers
from .reference._cells import check_linear, choose_layer, is_anndata

__all__ = ["cse_to_anndata", "deconvolve"]


def deconvolve(
    bulk_adata,
    reference_adata,
    groupby="cell_type",
    *,
    model=None,
    layer=None,
    reference_layer=None,
    proportions=None,
    normalize=1e6,
    min_cells=10,
    n_markers=None,
    key="skenigma",
    copy=True,
    return_model=False,
):
    """Deconvolve an AnnData of bulk samples by an AnnData of annotated cells.

    The mean of the cells of each type is the reference. Bulk and reference are brought to the genes that they share
    and to one library size, the model is fitted, and what it finds is written to an AnnData that can be saved as
    ``.h5ad``.

    Parameters
    ----------
    bulk_adata : AnnData
        Bulk samples × genes, on the linear scale.
    reference_adata : AnnData or DataFrame
        Single cells or sorted samples × genes, on the linear scale; or the profiles, cell types × genes.
    groupby : str or array-like, default="cell_type"
        Cell type of each cell: a column of ``reference_adata.obs``, or the labels. Not used for profiles.
    model : estimator, default=None
        What to fit: a :class:`~skenigma.L2MaxDeconvolver`, a :class:`~skenigma.TraceNormDeconvolver` or any other
        :class:`~skenigma.deconvolution.BaseDeconvolver`, also of your own, or a
        :class:`~skenigma.ProportionEstimator` for proportions alone. It is cloned, and its reference must be None.
        None is :class:`~skenigma.EmpiricalBayesDeconvolver`, with ``platform="bulk"`` where the reference is made
        from cells, which another platform measured than the bulk, and with ``platform="reference"`` for profiles.
    layer : str, default=None
        Layer of ``bulk_adata`` to use. None is ``X``.
    reference_layer : str, default=None
        Layer of ``reference_adata`` to use, or "raw" for its ``raw``. None is ``X``.
    proportions : str, DataFrame or array-like of shape (n_samples, n_cell_types), default=None
        Known proportions; a str is an entry of ``bulk_adata.obsm``. None estimates them.
    normalize : float, default=1e6
        Total that bulk samples and profiles are scaled to, over the genes that they share; proportions are then
        shares of RNA. None takes both as they are: they must have one scale already.
    min_cells : int, default=10
        Cell types with fewer cells are left out, with a warning that names them.
    n_markers : int, default=None
        Number of marker genes per cell type, by :func:`~skenigma.reference.select_markers`, that the proportions
        are estimated from. None uses all shared genes. Expression is estimated for all shared genes either way.
    key : str, default="skenigma"
        Entry of ``uns`` for what belongs to the fit as a whole.
    copy : bool, default=True
        Whether to write to a new AnnData, of the genes in use, and leave ``bulk_adata`` as it is. False writes to
        ``bulk_adata`` itself, which must then have no gene that the reference lacks.
    return_model : bool, default=False
        Whether to return also the fitted model.

    Returns
    -------
    adata : AnnData
        Samples × genes in use, with all that ``bulk_adata`` had for them, and

        ``obsm["proportions"]``
            DataFrame, samples × cell types: shares of RNA, if ``normalize`` is given, unless the model has an
            ``rna_content``; ``uns[key]["shares_of"]`` says which, or "" where they were given.
        ``obsm["proportions_std"]``
            Their standard errors, a lower bound, if the method that estimated them has any ("log").
        ``obsm["proportion_quality"]``
            DataFrame of :func:`~skenigma.proportions.fit_quality`: how well the profiles, mixed by these proportions,
            reproduce each sample.
        ``layers["cse_<cell type>"]``
            Expression of one cell type in every sample, on the scale of ``layers["normalized"]``.
        ``layers["cse_std_<cell type>"]``
            Its standard deviation, if the model estimates one.
        ``layers["normalized"]``
            The bulk that was deconvolved, if it was scaled.
        ``varm["reference"]``
            DataFrame, genes × cell types: the profiles, on the same scale.
        ``var["marker_of"]``
            The cell type that a gene is a marker of, or "", if markers were asked for.
        ``uns[key]``
            Name, parameters and version of the model, its histories and fitted numbers, the cell types, their
            ``layers`` and ``std_layers``, and the genes of the bulk that are not in use.
    model : estimator
        Only if ``return_model``.

    Raises
    ------
    ValueError
        If a sample or a cell type has a total of zero, samples or genes are named twice, the data are negative or
        hold logarithms where they are to be scaled, too few genes are shared, or genes would be lost by
        ``copy=False``; the message names the first offenders.

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

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> from skenigma.anndata import deconvolve
    >>> from skenigma.reference import make_pseudobulk
    >>> rates = np.repeat(np.random.default_rng(0).gamma(1, 20, (2, 30)), 40, axis=0)
    >>> cells = anndata.AnnData(np.random.default_rng(1).poisson(rates).astype(float))
    >>> cells.obs["cell_type"] = np.repeat(["B", "T"], 40)
    >>> bulk = anndata.AnnData(make_pseudobulk(cells, "cell_type", 8, random_state=0).bulk)
    >>> adata = deconvolve(bulk, cells)
    >>> list(adata.uns["skenigma"]["layers"])
    ['cse_B', 'cse_T']
    >>> adata.obsm["proportions"].shape
    (8, 2)
    """
    bulk = _read_bulk(bulk_adata, layer, normalize)
    reference, dropped = _read_reference(reference_adata, groupby, reference_layer, min_cells, normalize)
    columns = [layer_name(name) for name in reference.index.astype(str)]
    refuse_repeats(columns, "Cell types, with '|' in the place of '/',", "Rename them.")
    shared = _shared_genes(bulk, reference)
    unused = bulk.columns.difference(shared, sort=False)
    if not copy:
        _refuse_loss(unused)
    bulk, reference = bulk[shared], reference[shared]
    if normalize is not None:
        bulk = _to_total(bulk, normalize, "Bulk samples")
        reference = _to_total(reference, normalize, "Cell types")
    markers = None
    if n_markers is not None:
        markers = _find_markers(
            reference_adata,
            groupby,
            n_markers,
            among=shared,
            layer=reference_layer,
            normalize=normalize,
            min_cells=min_cells,
        )
    if model is None:
        model = EmpiricalBayesDeconvolver(platform="bulk" if is_anndata(reference_adata) else "reference")
    fitted = _fit(model, bulk, reference, markers, _known_proportions(bulk_adata, proportions))

    adata = _in_memory(bulk_adata)[:, shared].copy() if copy else bulk_adata
    if normalize is not None:
        adata.layers["normalized"] = bulk.to_numpy()
    if markers is not None:
        adata.var["marker_of"] = markers.set_index("gene").cell_type.reindex(shared).fillna("").to_numpy()
    adata.varm["reference"] = reference.T.set_axis(columns, axis=1)
    adata.obsm["proportions"] = pd.DataFrame(fitted.proportions_, adata.obs_names, columns)
    adata.obsm.pop("proportions_std", None)  # of an earlier fit
    std = proportions_std(fitted)
    if std is not None:
        adata.obsm["proportions_std"] = pd.DataFrame(std, adata.obs_names, columns)
    adata.obsm["proportion_quality"] = fit_quality(bulk, reference, fitted.proportions_)
    adata.uns[key] = {
        **_describe(fitted),
        "shares_of": shares_of(fitted) or "",
        "cell_types": fitted.cell_types_.astype(object),
        **_write_expression(adata, fitted, columns),
        "dropped_cell_types": dropped,
        "unused_genes": unused.to_numpy(dtype=object),
        "layer": str(layer),
        "reference_layer": str(reference_layer),
        "normalize": str(normalize),
    }
    return (adata, fitted) if return_model else adata


def _read_bulk(data, layer, normalize):
    """One matrix of the bulk as a checked table, samples × genes."""
    if not is_anndata(data):
        raise ValueError(
            f"bulk_adata must be an AnnData, got {type(data).__name__}: the estimators take tables."
        )
    if layer == "raw" and layer not in data.layers:
        raise ValueError("The raw of a bulk has other genes than the bulk: pass bulk_adata.raw.to_adata().")
    matrix, genes = choose_layer(data, layer)
    values = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    samples = np.array([str(name) for name in data.obs_names], dtype=object)
    refuse_repeats(samples, "Bulk samples", "Give each a name of its own, or call obs_names_make_unique().")
    refuse_repeats(genes, "Genes of the bulk", "Sum the repeated columns, or call var_names_make_unique().")
    check_finite(values, "bulk", samples, genes)
    if normalize is not None:
        check_scalar(normalize, "normalize", Real, min_val=0, include_boundaries="neither")
        check_linear(data, values, layer, samples, genes, "bulk")
    return pd.DataFrame(values, samples, genes)


def _read_reference(data, groupby, layer, min_cells, normalize):
    """Profiles, and the names of cell types that were left out."""
    if not is_anndata(data):
        if not isinstance(data, pd.DataFrame):
            raise ValueError(f"reference_adata must be an AnnData or a DataFrame, got {type(data).__name__}.")
        return data, np.array([], dtype=object)
    reference, report = make_reference(
        data, groupby, layer=layer, min_cells=min_cells, normalize=normalize, return_report=True
    )
    dropped = report.cell_types.index[~report.cell_types.kept]
    return reference, dropped.to_numpy(dtype=object)


def _shared_genes(bulk, reference):
    """Names of the genes of both, in the order of the bulk."""
    profiles = check_profiles(reference, np.float64)
    if profiles.genes is None:
        raise ValueError("The columns of the reference must be named by genes.")
    in_bulk, _ = match_genes(profiles, bulk.columns.to_numpy(), bulk.shape, row_names(bulk))
    return bulk.columns[in_bulk]


def _to_total(frame, target, what):
    """Rows scaled to one total."""
    totals = frame.sum(axis=1)
    empty = frame.index[totals <= 0]
    if len(empty):
        raise ValueError(
            f"{what} with a total of zero over the {frame.shape[1]} genes in use: {listing(empty)}. Drop them first."
        )
    return frame.mul(target / totals, axis=0).astype(frame.dtypes.iloc[0])


def _refuse_loss(unused):
    """Refuse to write to a bulk with genes that the reference lacks."""
    if len(unused):
        raise ValueError(
            f"The reference lacks {len(unused)} gene(s) of the bulk: {listing(unused)}. With copy=False they would "
            f"be lost from bulk_adata: use copy=True, or leave them out of bulk_adata first."
        )


def _in_memory(data):
    """An AnnData, read if it is open as a file."""
    return data.to_memory() if data.isbacked else data


def _find_markers(data, groupby, n_markers, **settings):
    if not is_anndata(data):
        raise ValueError("n_markers needs annotated cells: profiles do not tell how much cells vary.")
    return select_markers(data, groupby, n_markers, **settings)


def _known_proportions(data, proportions):
    """Proportions that are given, by their name or as they are."""
    if not isinstance(proportions, str):
        return proportions
    if proportions not in data.obsm:
        raise ValueError(f"obsm has no entry '{proportions}'. It has: {listing(list(data.obsm)) or 'none'}.")
    return data.obsm[proportions]


def _fit(model, bulk, reference, markers, proportions):
    """A fitted clone of the model."""
    if getattr(model, "reference", reference) is not None:
        raise ValueError(
            f"model must be a deconvolver, or an estimator of proportions, whose reference is None, got {model!r}: "
            f"the reference is made from reference_adata."
        )
    only_proportions = isinstance(model, ProportionEstimator)
    model = clone(model).set_params(reference=reference)
    if markers is not None:
        estimator = model if only_proportions else proportion_estimator(model)
        estimator.set_params(reference=reference[markers.gene])
        if not only_proportions:
            model.set_params(proportion_estimator=estimator)
    if proportions is None:
        return model.fit(bulk)
    if only_proportions:
        raise ValueError("proportions are known: there is nothing for a ProportionEstimator to do.")
    return model.fit(bulk, proportions=proportions)


def _write_expression(adata, fitted, columns):
    """Write one layer per cell type and quantity, if there is expression; their names, for ``uns``."""
    names = {"layers": [], "std_layers": []}
    if not isinstance(fitted, ProportionEstimator):
        expression = output_expression(fitted)
        names["layers"] = _write_layers(adata, "cse_", expression.values, columns)
        if expression.has_std:
            names["std_layers"] = _write_layers(adata, "cse_std_", expression.std, columns)
    return {name: np.array(layers, dtype=object) for name, layers in names.items()}


def _write_layers(adata, prefix, build, columns):
    """Write what ``build`` makes of each cell type; names of the layers."""
    for k, name in enumerate(columns):
        # one at a time: a model without the tensor does not build it here
        adata.layers[prefix + name] = np.ascontiguousarray(build(cell_types=[k])[:, 0])
    return [prefix + name for name in columns]


def _describe(fitted):
    """Name, parameters, histories and fitted numbers of a model, as what a file can hold."""
    params = {
        name: _storable(value)
        for name, value in fitted.get_params().items()
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
    return value if np.isscalar(value) else str(value)


def cse_to_anndata(source, *, key="skenigma", sample_names=None):
    """Cell-type-specific expression as an AnnData with one row per sample and cell type.

    Parameters
    ----------
    source : AnnData or fitted estimator
        What :func:`deconvolve` returns, or a fitted deconvolver.
    key : str, default="skenigma"
        The key that :func:`deconvolve` was given.
    sample_names : array-like of str of shape (n_samples,), default=None
        Names of the samples of a fitted estimator. None takes those of the frame it was fitted to, or numbers them.
        Not used for an AnnData.

    Returns
    -------
    adata : AnnData of shape (n_samples * n_cell_types, n_genes)
        Rows are named "sample:cell type", the cell type fastest. ``obs`` has ``sample``, ``cell_type`` and
        ``proportion``, and the columns of the ``obs`` of the bulk; one of these names in the bulk gets the suffix
        "_of_bulk". ``layers["std"]`` has the standard deviations, if the model estimated any.

    Raises
    ------
    ValueError
        If there is no expression in ``source``.

    See Also
    --------
    deconvolve : Bulk and annotated cells to expression per cell type.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.anndata import cse_to_anndata
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=10, n_genes=200, n_cell_types=3, as_frame=True, random_state=0)
    >>> model = L2MaxDeconvolver(cohort.reference).fit(cohort.bulk)
    >>> adata = cse_to_anndata(model)
    >>> adata.shape
    (30, 200)
    >>> list(adata.obs_names[:3])
    ['sample1:celltype1', 'sample1:celltype2', 'sample1:celltype3']
    """
    if not is_anndata(source):
        check_deconvolver(source)
        return output_expression(source).to_anndata(sample_names)
    anndata = import_optional("anndata", "anndata", "cse_to_anndata")
    written = source.uns.get(key, {})
    if not len(written.get("layers", ())):
        raise ValueError(f"uns['{key}'] names no layers of cell-type-specific expression: deconvolve first.")
    obs = sample_and_type(source.obs, written["cell_types"], np.asarray(source.obsm["proportions"]))

    def rows(layers):
        return np.stack([source.layers[name] for name in layers], axis=1).reshape(len(obs), -1)

    std = written.get("std_layers", ())
    layers = {"std": rows(std)} if len(std) else None
    return anndata.AnnData(rows(written["layers"]), obs, source.var.copy(), layers=layers)
