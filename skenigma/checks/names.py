"""Names of samples, genes and cell types: read, refused where they repeat, matched, listed in messages."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .numbers import (
    refuse_masked,
    shortened,
)

SHOWN = 5


def listing(names, shown=SHOWN, total=None):
    """The first few names, quoted, and how many more there are (of ``total``, where not all are given)."""
    total = len(names) if total is None else total
    names = [f"'{shortened(name)}'" if isinstance(name, str) else str(name) for name in names[:shown]]
    more = f" and {total - shown} more" if total > shown else ""
    return ", ".join(names) + more


def row_names(frame):
    """String row names of a pandas frame, or None where rows have no names of their own."""
    index = getattr(frame, "index", None)
    if not isinstance(index, pd.Index) or not len(index):
        return None
    return _strings(index)


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
        raise ValueError(
            f"The column names of {what} are not strings (the first are {listing(list(columns))}). Gene names "
            f"must be strings: use columns.astype(str), or pass an array to match genes by position."
        )
    return names


def numbered(prefix, count, start=0):
    """Names for what has none."""
    return np.array([f"{prefix}{number}" for number in range(start, start + count)], dtype=object)


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


def positions_of(wanted, names, kind, where):
    """Where each wanted name stands among ``names``; a ValueError if one is missing or repeated."""
    refuse_repeats(names, f"In the {where}, {kind}s", "Names must be unique.")
    position = pd.Index(names).get_indexer(pd.Index(wanted))
    missing = np.asarray(wanted, dtype=object)[position < 0]
    if len(missing):
        raise ValueError(
            f"The {where} do not name {kind} {listing(missing)}; they are {listing(names)}. Rename them, or pass "
            f"an array to match by position."
        )
    return position


def sample_order(frame, samples, what):
    """Positions of the rows of a frame in the order of ``samples``; as they stand if either has no names.

    Parameters
    ----------
    frame : DataFrame, Series or array-like
    samples : ndarray of str, or None
    what : str
        What the frame holds: for the message of the ValueError if it does not name a sample.

    Returns
    -------
    positions : ndarray of int, or slice
    """
    names = row_names(frame)
    if names is None or samples is None or np.array_equal(names, samples):
        return slice(None)
    return positions_of(samples, names, "sample", what)
