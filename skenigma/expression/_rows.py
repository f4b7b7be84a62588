"""Rows of a table or an AnnData that has one for each sample and cell type."""

import numpy as np
import pandas as pd


def sample_and_type(samples, cell_types, proportions):
    """One row per sample and cell type, the cell type fastest, for ``obs`` of an AnnData.

    Parameters
    ----------
    samples : DataFrame
        A row per sample, whose columns are repeated for each cell type; one named like a column of the result gets
        the suffix "_of_bulk".
    cell_types : ndarray of str, shape (n_cell_types,)
    proportions : ndarray of shape (n_samples, n_cell_types)

    Returns
    -------
    obs : DataFrame of n_samples × n_cell_types rows
    """
    n_samples, n_types = proportions.shape
    own = {
        "sample": pd.Categorical(
            np.repeat(samples.index.astype(str), n_types), list(samples.index.astype(str))
        ),
        "cell_type": pd.Categorical(np.tile(cell_types, n_samples), list(cell_types)),
        "proportion": proportions.reshape(-1),
    }
    rows = samples.iloc[np.repeat(np.arange(n_samples), n_types)]
    rows = rows.rename(columns={name: f"{name}_of_bulk" for name in own})
    names = [f"{sample}:{kind}" for sample in samples.index for kind in cell_types]
    return pd.concat([pd.DataFrame(own, index=names), rows.set_axis(names)], axis=1)
