"""Lengths of genes, from a table of annotation or the ``var`` of an AnnData."""

import pandas as pd

from .._typing import PathLike
from ..checks.names import listing
from ._expression import MISSING
from ._reading import read_table

# A column of this name is taken where there are several.
LENGTH = "length"


def read_gene_lengths(path: PathLike, *, column: str | None = None) -> pd.Series:
    r"""Read lengths of genes.

    Parameters
    ----------
    path : str or path-like
        Table with the genes' names in the first column, such as featureCounts writes, or ``.h5ad``, whose ``var`` is
        read; formats as for :func:`read_bulk`.
    column : str, default=None
        Column that holds the lengths. None takes the only one that there is, or the one called "length", in letters
        of any case.

    Returns
    -------
    lengths : Series
        By gene; NaN where there is none.

    Raises
    ------
    ValueError
        If there is no such column, or none can be told.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_gene_lengths
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "genes.tsv")
    ...     _ = path.write_text("gene\tchromosome\tlength\nCD19\t16\t1964\nCD4\t12\t3060\n")
    ...     read_gene_lengths(path).to_dict()
    {'CD19': 1964, 'CD4': 3060}
    """
    table = read_table(path, "column", [], missing=MISSING, part="var")
    names = [str(name) for name in table.columns]
    if column is None:
        called = [name for name in names if name.lower() == LENGTH]
        column = next(iter(called or names), None) if len(called or names) == 1 else None
        if column is None:
            raise ValueError(
                f"{path} has the columns {listing(names)}: say which one holds the lengths of genes."
            )
    if column not in names:
        raise ValueError(f"{path} has no column '{column}'; it has {listing(names)}.")
    lengths = table.iloc[:, names.index(column)]
    return lengths if pd.api.types.is_numeric_dtype(lengths) else pd.to_numeric(lengths, errors="coerce")
