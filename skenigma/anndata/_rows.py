"""Expression as rows: one per sample and cell type."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._stored import TYPE_COLOURS, Deconvolved, category_colours
from .._typing import AnnData
from .._version import __version__
from ..checks.entries import check_nonnegative
from ..checks.optional import import_optional
from ..checks.tables import is_anndata
from ..checks.validation import check_deconvolver
from ..expression._derived import output_expression
from ..expression._rows import sample_and_type


def cse_to_anndata(
    source: Any, *, key: str = "skenigma", sample_names: ArrayLike | None = None, log1p: bool = False
) -> AnnData:
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
    log1p : bool, default=False
        Whether ``X`` is log(x + 1), the natural logarithm, as :func:`scanpy.pp.log1p` makes it and
        :func:`scanpy.tl.rank_genes_groups` and decoupler expect it; ``uns["log1p"]`` then says so. The values
        themselves are kept in ``layers["linear"]``.

    Returns
    -------
    adata : AnnData of shape (n_samples * n_cell_types, n_genes)
        Rows are named "sample:cell type", the cell type fastest, and

        ``X``
            The expression on the scale of the bulk that was deconvolved (``layers["normalized"]`` of an AnnData,
            where it is there), or its logarithm.
        ``layers["linear"]``
            The expression, with ``log1p=True``.
        ``layers["std"]``
            Standard deviations, if the model estimated any, on the scale of the bulk whatever that of ``X`` is.
        ``obs``
            ``sample``, ``cell_type`` and ``proportion``, and the columns of the ``obs`` of the bulk; one of these
            names in the bulk gets the suffix "_of_bulk".
        ``uns["skenigma"]``
            What these values are: ``X``, "linear" or "log1p" (as it was written: scanpy notes its own logarithm in
            ``uns["log1p"]``); ``counts``, False, since they are estimates; ``is_posterior_mean``; ``model``,
            ``version``, and ``scale``, what the bulk was brought to.
        ``uns["cell_type_colors"]``, ``uns["<column>_colors"]``
            Colours of the cell types, and of the columns of the bulk, where these have any.

    Raises
    ------
    ValueError
        If there is no expression in ``source``, or it has negative values and ``log1p`` is asked for.

    See Also
    --------
    deconvolve : Bulk and annotated cells to expression per cell type.

    Notes
    -----
    The values are model estimates, not counts, and the rows of one sample are estimated from the same bulk.
    You can rank genes by them, but p-values that treat them as independent measurements are not valid. See
    "Continue with AnnData and scanpy" in the user guide.

    Memory: the expression as a whole, twice with ``log1p=True``, and its deviations.

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
    >>> adata.uns["skenigma"]["X"]
    'linear'
    """
    if is_anndata(source):
        rows = _of_anndata(source, key)
    else:
        check_deconvolver(source)
        expression = output_expression(source)
        rows = expression.to_anndata(sample_names)
        rows.uns["skenigma"] = _about(type(source).__name__, __version__, expression.is_posterior_mean)
    if log1p:
        reason = "They have no logarithm: pass log1p=False."
        check_nonnegative(rows.X, "The expression", rows.obs_names, rows.var_names, reason)
        rows.layers["linear"] = rows.X
        rows.X = np.log1p(rows.X)
        # what scanpy's own logarithm leaves, and its tests of differences look for
        rows.uns["log1p"] = {"base": None}
        rows.uns["skenigma"]["X"] = "log1p"
    return rows


def _of_anndata(source, key):
    anndata = import_optional("anndata", "anndata", "cse_to_anndata")
    if not len(source.uns.get(key, {}).get("layers", ())):
        raise ValueError(f"uns['{key}'] names no layers of cell-type-specific expression: deconvolve first.")
    found = Deconvolved.of(source, key)
    expression = found.expression
    obs = sample_and_type(source.obs, found.entry("cell_types"), expression.proportions)
    layers = {"std": expression.std().reshape(len(obs), -1)} if expression.has_std else None
    rows = anndata.AnnData(expression.values().reshape(len(obs), -1), obs, source.var.copy(), layers=layers)
    scale = {name: str(found.written[name]) for name in ("scale",) if name in found.written}
    about = _about(found.model, str(found.entry("version")), expression.is_posterior_mean)
    rows.uns["skenigma"] = {**about, **scale}
    for name in source.obs:
        colours = category_colours(source, name)
        if colours is not None:
            renamed = f"{name}_of_bulk" if name in OWN else name
            rows.uns[f"{renamed}_colors"] = list(colours.values())
    if found.type_colours is not None:
        rows.uns[TYPE_COLOURS] = list(found.type_colours.values())
    return rows


# Columns that rows have of themselves.
OWN = ("sample", "cell_type", "proportion")


def _about(model, version, is_posterior_mean):
    """What the values are, for whoever reads the AnnData without the code that made it."""
    return {
        "X": "linear",
        "counts": False,
        "is_posterior_mean": bool(is_posterior_mean),
        "model": model,
        "version": version,
    }
