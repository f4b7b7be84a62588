"""Expression as rows: one per sample and cell type."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._typing import AnnData
from ..checks.optional import import_optional
from ..checks.tables import is_anndata
from ..checks.validation import check_deconvolver
from ..expression._derived import output_expression
from ..expression._rows import sample_and_type


def cse_to_anndata(source: Any, *, key: str = "skenigma", sample_names: ArrayLike | None = None) -> AnnData:
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
