"""Names of samples, genes and cell types: read, refused where they repeat, matched, listed in messages."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from .numbers import refuse_masked, shortened

SHOWN = 5


def listing(names, shown=SHOWN, total=None):
    """The first few names, quoted, and how many more there are (of ``total``, where not all are given)."""
    total = len(names) if total is None else total
    names = [f"'{shortened(name)}'" if isinstance(name, str) else str(name) for name in names[:shown]]
    more = f" and {total - shown} more" if total > shown else ""
    return ", ".join(names) + more


def row_names(frame):
    """Names of the rows of a pandas frame or Series, as strings; None where a RangeIndex only numbers them."""
    index = getattr(frame, "index", None)
    if not isinstance(index, pd.Index) or isinstance(index, pd.RangeIndex) or not len(index):
        return None
    return np.array([str(label) for label in index], dtype=object)


def _strings(labels):
    return (
        np.asarray(labels, dtype=object)
        if len(labels) and all(isinstance(label, str) for label in labels)
        else None
    )


def column_names(frame, what):
    """String column names of a frame, or None for arrays and for frames numbered 0, 1, 2, ...

    Raises
    ------
    ValueError
        If the columns have names that are not strings: matching such genes by position would go wrong in
        silence, and matching them by name would depend on their type.
    """
    columns = getattr(frame, "columns", None)
    if columns is None or isinstance(frame, np.ndarray):
        return None
    names = _strings(columns)
    if names is None and list(columns) != list(range(len(columns))):
        raise ValueError(_no_gene_names(columns, what))
    return names


def _no_gene_names(columns, what):
    unnamed = np.flatnonzero(pd.isna(np.asarray(columns, dtype=object)))
    if len(unnamed):
        return (
            f"{len(unnamed)} gene(s) of {what} have no name (NaN), at position {listing(unnamed.tolist())}. Name or "
            f"drop them: {what}.loc[:, {what}.columns.notna()]."
        )
    if isinstance(columns, pd.MultiIndex):
        return (
            f"The columns of {what} have {columns.nlevels} levels: keep the one that names genes, {what}.columns = "
            f"{what}.columns.get_level_values(0)."
        )
    return (
        f"The column names of {what} are not strings (the first are {listing(list(columns))}). Gene names must be "
        f"strings, in bulk and reference alike: {what}.columns = {what}.columns.astype(str)."
    )


def numbered(prefix, count, start=0):
    """Names for what has none."""
    return _numbered(prefix, count, start).copy()


@lru_cache(maxsize=8)
def _numbered(prefix, count, start):
    # kept, because fits to unnamed arrays ask for the same names again and again
    return np.array([f"{prefix}{number}" for number in range(start, start + count)], dtype=object)


def is_counted(names, prefix):
    """Whether names are only what :func:`numbered` gives."""
    return np.array_equal(names, numbered(prefix, len(names)))


def names_of(frame, what, prefix):
    """Column names of a frame; numbered ones of what has none."""
    names = column_names(frame, what)
    return numbered(prefix, np.shape(frame)[-1]) if names is None else names


def refuse_repeats(names, what, remedy):
    """Refuse names that stand more than once."""
    repeated = pd.Index(names)[pd.Index(names).duplicated()].unique() if names is not None else ()
    if len(repeated):
        raise ValueError(f"{what} named more than once: {listing(repeated)}. {remedy}")


def name_at(names, position):
    """What to call a position in a message: its name, quoted, or where there are none its number."""
    return position if names is None else f"'{names[position]}'"


@dataclass(frozen=True)
class Noted:
    """A name and what to say of it, for a listing."""

    name: str
    note: object

    def __str__(self):
        return f"'{self.name}' ({self.note})"


def check_selection(selection, names, count, kind):
    """Positions that ``selection`` asks for along an axis, as a slice or an array.

    Parameters
    ----------
    selection : None, slice, str, int, or array-like of str, int or bool
        None is everything; names need ``names``.
    names : ndarray of str, or None
    count : int
        Length of the axis.
    kind : str
        What stands along the axis, for messages: "gene".

    Returns
    -------
    positions : slice or ndarray of int
    """
    if selection is None:
        return slice(None)
    if isinstance(selection, slice):
        return selection
    refuse_masked(selection, f"The selection of {kind}s")
    chosen = np.atleast_1d(np.asarray(selection))
    if chosen.dtype.kind == "b":
        if len(chosen) != count:
            raise ValueError(f"The mask of {kind}s has length {len(chosen)}: there are {count}.")
        return np.flatnonzero(chosen)
    if chosen.dtype.kind in "iu":
        beyond = chosen[(chosen < -count) | (chosen >= count)]
        if len(beyond):
            raise ValueError(f"There is no {kind} at position {listing(beyond.tolist())}: there are {count}.")
        return chosen
    if names is None:
        raise ValueError(
            f"{kind}s have no names here: select them by position, slice or mask of length {count}."
        )
    refuse_repeats(names, f"{kind.capitalize()}s", "Select them by position, slice or mask.")
    position = pd.Index(names).get_indexer(pd.Index(chosen.astype(object)))
    unknown = chosen[position < 0]
    if len(unknown):
        raise ValueError(f"There is no {kind} named {listing(unknown.tolist())}. There are {listing(names)}.")
    return position
