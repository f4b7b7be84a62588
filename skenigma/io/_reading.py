"""Readers: a file → a DataFrame with samples (or cell types) as rows; what cannot be meant is refused by name."""

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from .._docstrings import filled
from .._typing import AnnData, PathLike
from ..checks.names import listing
from ..checks.warning import warn
from ._anndata import read_10x_folder, read_annotated
from ._checksums import check_file
from ._choices import Choices
from ._excel import sheet_text
from ._expression import (
    MISSING,
    named,
    not_empty,
    read_expression,
    read_parquet,
    refuse_repeats,
    to_numbers,
)
from ._formats import Text
from ._kinds import find_kind
from ._layout import find_layout, look_at
from ._portals import fit_columns
from ._stores import check_complete, is_store, read_store
from ._tables import parse, parse_numbers, refuse_repeated_columns

# Entries that the docstrings of this module share.
ENTRIES = {
    "notes": """notes : list, default=None
    Takes a line for everything that was done besides reading: rows and columns that were left out, what was taken of
    several. None shows them in one warning.""",
    "unreadable": """OSError
    If the file cannot be read.
ImportError
    If its format needs a package that is not installed.""",
    "warning": """Warns
-----
UserWarning
    If there are ``notes``, and no list takes them.""",
}


@filled(ENTRIES)
def read_bulk(
    path: PathLike | Sequence[PathLike],
    *,
    rows: str = "genes",
    layer: str | None = None,
    gene_column: str | None = None,
    quantity: str | None = None,
    strandedness: str = "auto",
    duplicates: str = "refuse",
    notes: list | None = None,
) -> pd.DataFrame:
    r"""Read bulk expression, as samples × genes.

    What a file is, is told by what it holds, not by the end of its name. :doc:`/user_guide/files` lists what is read.

    Parameters
    ----------
    path : str, path-like, or list of these
        A table of genes × samples with the names of the genes in the first column: a text split at tabs, commas,
        semicolons or spaces, possibly packed, Parquet, or the first sheet of an ``.xlsx`` workbook. GCT, a GEO series
        matrix, cBioPortal's table. AnnData (``.h5ad``), samples × genes, loom or 10x. The output of a quantifier
        (STAR, htseq-count, featureCounts, salmon, kallisto, RSEM, StringTie, tximport), of which several files, or a
        folder that holds them, become one bulk.
    rows : {"genes", "samples"}, default="genes"
        What the rows of a table are. Of no effect on AnnData, loom, 10x and the output of quantifiers.
    layer : str, default=None
        Layer of an AnnData or loom file, or "raw" for its ``raw``. None is X, unless ``uns`` says that X holds
        logarithms, which is refused; "X" takes it nevertheless.
    gene_column : str, default=None
        Column with the names of the genes: of ``var`` in an AnnData, else of the table. None takes the names of
        ``var``, or the first column.
    quantity : {"counts", "tpm"}, default=None
        What to take of the output of a quantifier. None takes the (estimated) counts.
    strandedness : {"auto", "unstranded", "forward", "reverse"}, default="auto"
        Of the libraries, where STAR counted for each. "auto" tells it from the counts: forward if at least 80 % of
        the stranded ones are forward, reverse if at most 20 % are, unstranded from 35 % to 65 %, else refused.
    duplicates : {"refuse", "sum", "largest"}, default="refuse"
        What to do with genes named more than once: refuse them by name, sum them, or keep the row with the largest
        mean of each.
    {notes}

    Returns
    -------
    bulk : DataFrame of shape (n_samples, n_genes)
        Of float64, or float32 if the file says so.

    Raises
    ------
    ValueError
        If the file is no such table, or names a sample or gene twice; the message names the first offenders. If it is
        of a known format that is not read, the message says what to do.
    {unreadable}
    MemoryError
        If the table does not fit into the memory that is available.

    {warning}

    Notes
    -----
    Names are read as they stand, whatever they could mean: a sample can be named NA. Spaces around them go. Columns
    that describe genes are left out, and named in ``notes``. A text with NUL characters is refused, and one with a
    line of more than 67 million characters.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_bulk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "bulk.tsv")
    ...     _ = path.write_text("gene\tdonor1\tdonor2\nCD19\t3.5\t0\nCD4\t1\t2\n")
    ...     read_bulk(path)
            CD19  CD4
    donor1   3.5  1.0
    donor2   0.0  2.0

    A folder with the output of kallisto, where the folders of the files name the samples:

    >>> notes = []
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for sample in ("donor1", "donor2"):
    ...         path = pathlib.Path(folder, sample, "abundance.tsv")
    ...         path.parent.mkdir()
    ...         _ = path.write_text(
    ...             "target_id\tlength\teff_length\test_counts\ttpm\nENST1\t900\t700\t12\t5.5\n"
    ...         )
    ...     read_bulk(folder, quantity="tpm", notes=notes)
            ENST1
    donor1    5.5
    donor2    5.5
    >>> print(notes[-1][:75])
    read the output of kallisto, transcript level, 2 files: tpm are column 'tpm
    """
    choices = Choices(rows, layer, gene_column, quantity, strandedness, duplicates)
    with shown_notes(notes, path) as taken:
        return read_expression(path, choices, "sample", taken)


@filled(ENTRIES)
def read_reference(
    path: PathLike,
    *,
    rows: str = "genes",
    layer: str | None = None,
    gene_column: str | None = None,
    duplicates: str = "refuse",
    notes: list | None = None,
) -> pd.DataFrame:
    r"""Read reference profiles, as cell types × genes.

    Parameters
    ----------
    path : str or path-like
        Table of genes × cell types with the names of the genes in the first column, such as CIBERSORT's LM22; or
        AnnData with one row per cell type. Formats as for :func:`read_bulk`.
    rows : {"genes", "cell types"}, default="genes"
        What the rows of a table are. Of no effect on AnnData.
    layer : str, default=None
        As for :func:`read_bulk`, as are the following.
    gene_column : str, default=None
        Column with the names of the genes.
    duplicates : {"refuse", "sum", "largest"}, default="refuse"
        What to do with genes named more than once.
    {notes}

    Returns
    -------
    reference : DataFrame of shape (n_cell_types, n_genes)
        Of float64, or float32 if the file says so.

    Raises
    ------
    ValueError
        If the file is no such table, or names a cell type or gene twice; the message names the first offenders.
    {unreadable}

    {warning}

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_reference
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "reference.csv")
    ...     _ = path.write_text("gene,B cell,T cell\nCD19,9,0\nCD4,0,7\n")
    ...     read_reference(path)
            CD19  CD4
    B cell   9.0  0.0
    T cell   0.0  7.0
    """
    choices = Choices(rows, layer, gene_column, duplicates=duplicates)
    with shown_notes(notes, path) as taken:
        return read_expression(path, choices, "cell type", taken)


@filled(ENTRIES)
def read_proportions(path: PathLike, *, notes: list | None = None) -> pd.DataFrame:
    r"""Read proportions, as samples × cell types.

    Parameters
    ----------
    path : str or path-like
        Table of samples × cell types with the samples' names in the first column; formats as for
        :func:`read_bulk`. What CIBERSORT writes beside proportions (P-value, Correlation, RMSE) is left out.
    {notes}

    Returns
    -------
    proportions : DataFrame of shape (n_samples, n_cell_types)
        As they are in the file.

    Raises
    ------
    ValueError
        If the file is no such table, or names a sample or cell type twice.
    {unreadable}

    {warning}

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_proportions
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "proportions.tsv")
    ...     _ = path.write_text("sample\tB cell\tT cell\ndonor1\t0.25\t0.75\n")
    ...     read_proportions(path)
            B cell  T cell
    donor1    0.25    0.75
    """
    with shown_notes(notes, path) as taken:
        frame = read_table(path, "cell type", taken)
        measures = fit_columns(frame.columns)
        if measures:
            taken.append(f"left out columns that measure the fit: {listing(measures)}")
        frame = to_numbers(frame.drop(columns=measures), path)
        refuse_repeats(frame.index, path, "sample")
    return frame


@filled(ENTRIES)
def read_phenotype(path: PathLike, *, groups: Sequence[str] = (), notes: list | None = None) -> pd.DataFrame:
    r"""Read what is known of the samples: one row per sample, one column per variable.

    Parameters
    ----------
    path : str or path-like
        Table with the samples' names in the first column (AnnData: its ``obs``); formats as for :func:`read_bulk`.
    groups : sequence of str, default=()
        Texts that are names of groups here, although elsewhere they mean a missing value: "NA" for North America.
    {notes}

    Returns
    -------
    phenotype : DataFrame of shape (n_samples, n_variables)
        Numbers where a column holds nothing else; missing values are NaN. Missing is what is empty, or NA, N/A, NaN,
        NULL or None in the ways these are written; names of samples and of variables are never missing.

    Raises
    ------
    ValueError
        If the file is no such table, or names a sample or variable twice.
    {unreadable}

    {warning}

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skenigma.io import read_phenotype
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "phenotype.tsv")
    ...     _ = path.write_text("sample\tgroup\tage\ndonor1\tcase\t61\ndonor2\tcontrol\t47\n")
    ...     read_phenotype(path)
              group  age
    donor1     case   61
    donor2  control   47
    """
    with shown_notes(notes, path) as taken:
        missing = tuple(word for word in MISSING if word not in groups)
        frame = read_table(path, "variable", taken, missing=missing, part="obs")
        refuse_repeats(frame.index, path, "sample")
    return frame


@filled(ENTRIES)
def read_cells(path: PathLike, *, gene_column: str | None = None, notes: list | None = None) -> AnnData:
    """Read annotated single cells.

    Parameters
    ----------
    path : str or path-like
        Cells × genes: AnnData (``.h5ad``), loom, or the ``.h5`` file or the folder with ``matrix.mtx``,
        ``barcodes.tsv`` and ``features.tsv`` that 10x' cellranger writes.
    gene_column : str, default=None
        Column of ``var`` with the names of the genes. None takes the names that ``var`` has.
    {notes}

    Returns
    -------
    cells : AnnData
        As it is in the file; for :func:`~skenigma.reference.make_reference`. The cells of 10x come without their
        types, which go into ``obs``.

    Raises
    ------
    ValueError
        If the file is not an AnnData, and none of the others.
    {unreadable}

    {warning}

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import anndata
    >>> import numpy as np
    >>> from skenigma.io import read_cells
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "cells.h5ad")
    ...     anndata.AnnData(np.eye(3)).write_h5ad(path)
    ...     read_cells(path).shape
    (3, 3)
    """
    with shown_notes(notes, path) as taken:
        cells = _annotated(Path(path), taken)
        if cells is None:
            raise ValueError(
                f"{path} is not an AnnData: annotated cells are read from .h5ad, loom, and 10x' .h5 file or folder."
            )
        if gene_column is not None:
            if gene_column not in cells.var:
                raise ValueError(
                    f"{path}: var has no column '{gene_column}'. It has {listing(list(cells.var))}."
                )
            cells.var_names = cells.var[gene_column].astype(str).to_numpy()
            taken.append(f"took the names of genes from var column '{gene_column}'")
    return cells


def _annotated(path, notes):
    """AnnData in a file or folder, None if it holds none."""
    check_complete(path)
    if path.is_dir():
        return read_store(path) if is_store(path) else read_10x_folder(path, notes)
    check_file(path)
    kind = find_kind(path)
    return read_annotated(path, kind, notes) if kind.name in ("h5ad", "10x", "loom") else None


def read_table(path, columns, notes, *, missing=(), part=None):
    """A table whose first column names the rows.

    Parameters
    ----------
    path : str or path-like
    columns : str
        What the columns are, for messages: "variable".
    notes : list of str
        Takes a line for everything that was done besides reading.
    missing : sequence of str
        Cells that stand for no value; with none, the table holds numbers throughout.
    part : {None, "obs", "var"}
        Of an AnnData. None is X.
    """
    path = Path(path)
    data = _annotated(path, notes)
    if data is not None:
        return named(data.to_df() if part is None else getattr(data, part), path)
    check_file(path)
    kind = find_kind(path)
    if kind.name == "parquet":
        frame = read_parquet(path)
        if isinstance(frame.index, pd.RangeIndex) and frame.shape[1]:
            frame = frame.set_index(frame.columns[0])
        return not_empty(frame, path)
    text = sheet_text(path, notes) if kind.name == "xlsx" else Text(path, kind.packing, kind.encoding)
    look = look_at(text)
    layout = find_layout(look, notes, values=False)
    refuse_repeated_columns(look, layout, columns)
    if missing:
        return not_empty(parse(text, layout, missing=missing), path)
    return not_empty(parse_numbers(text, layout, notes), path)


@contextmanager
def shown_notes(notes, path):
    """A list for the notes of one reading; where nobody gave one, they are shown in a warning."""
    taken = [] if notes is None else notes
    yield taken
    if notes is None and taken:
        warn(f"{path}: {'; '.join(taken)}.")
