"""How samples, cell types and cells of two tables are matched: one rule, for all that takes tables.

Where both sides have labels, they match by ``str(label)``, and must hold the same ones: 101 is '101'. Where one side
is nameless, an array or a frame that a RangeIndex numbers, they match by position. Two RangeIndexes must be equal.
"""

import numpy as np
import pandas as pd

from .names import is_counted, listing, numbered, refuse_repeats, row_names

# Ways in which the labels of two tables differ, and how to even them out.
SPELLINGS = {
    "spaces around them": lambda labels: labels.str.strip(),
    "case": lambda labels: labels.str.strip().str.lower(),
    "decimals, as of numbers beside missing ones": lambda labels: labels.str.replace(r"\.0$", "", regex=True),
    "what R makes of names ('.' for other characters, 'X' before numbers)": lambda labels: labels.str.replace(
        r"^X(?=\d)", "", regex=True
    ).str.replace(r"[^\w]|_", ".", regex=True),
}


def row_labels(table):
    """What the rows of a table are matched by.

    Parameters
    ----------
    table : DataFrame, Series or array-like

    Returns
    -------
    labels : ndarray of str, RangeIndex, or None
        A RangeIndex as it is: its rows have numbers, no names. None for what has no index.
    """
    index = getattr(table, "index", None)
    return index if isinstance(index, pd.RangeIndex) else row_names(table)


def column_labels(table):
    """What the columns of a table, which are cell types, are matched by; as of :func:`row_labels`."""
    columns = getattr(table, "columns", None)
    return None if columns is None else row_labels(pd.Series(0, columns))


def cell_types_of(proportions):
    """Names of the columns of proportions; numbered ones of what has none."""
    labels = column_labels(proportions)
    nameless = labels is None or isinstance(labels, pd.RangeIndex)
    return numbered("celltype", np.shape(proportions)[-1]) if nameless else labels


def match_rows(table, wanted, what, kind="sample", *, other="X", superset=False):
    """Positions of the rows of a table in the order of ``wanted``.

    Parameters
    ----------
    table : DataFrame, Series or array-like
    wanted : ndarray of str, RangeIndex, or None
        As from :func:`row_labels`.
    what, kind, other : str
        What is matched, what its labels name, and whose labels are wanted, for messages: "rows of phenotype",
        "sample", "X".
    superset : bool, default=False
        Whether the table may have more rows than are wanted.

    Returns
    -------
    positions : ndarray of int, or slice
        All, as they stand, where rows match by position: the caller compares the numbers.

    Raises
    ------
    ValueError
        If labels are missing, repeated or too many, or do not tell which rows belong together.
    """
    return match_labels(row_labels(table), wanted, what, kind, other=other, superset=superset)


def match_labels(given, wanted, what, kind, *, other="X", superset=False):
    """:func:`match_rows` of labels."""
    if given is None or wanted is None:
        return slice(None)
    numbered = [isinstance(side, pd.RangeIndex) for side in (given, wanted)]
    if any(numbered):
        if len(given) == len(wanted):
            _refuse_other_numbers(given, wanted, what, kind, other)
        return slice(None)
    if np.array_equal(given, wanted):
        return slice(None)
    positions = _positions(given, wanted, what, kind)
    more = [] if superset else list(pd.Index(given).difference(pd.Index(wanted), sort=False))
    if more:
        raise ValueError(f"The {what} name {kind}s that {other} does not have: {listing(more)}. Drop them.")
    return positions


def _refuse_other_numbers(given, wanted, what, kind, other):
    """Refuse numbered rows beside equal numbers in another order, or beside other numbered rows."""
    numbers = [side for side in (given, wanted) if isinstance(side, pd.RangeIndex)]
    if len(numbers) == 2:
        same = given.equals(wanted)
        found = f"are numbered {_span(given)}, those of {other} {_span(wanted)}"
    else:
        labels = given if numbers[0] is wanted else wanted
        # most labels are no numbers: one look is enough
        count = [str(number) for number in numbers[0]] if labels[0].lstrip("-").isdigit() else []
        same = set(count) != set(labels) or np.array_equal(count, labels)
        found = f"and those of {other} bear the same numbers, in another order"
    if not same:
        raise ValueError(
            f"The {what} {found}: it is not clear which belong together. Give the {kind}s of both their names as "
            f"index; or number both alike, by reset_index(drop=True), if they are in the same order."
        )


def _span(numbers):
    return f"{numbers[0]} to {numbers[-1]}"


def _positions(given, wanted, what, kind):
    """Where each wanted label stands."""
    refuse_repeats(given, f"In the {what}, {kind}s", "Names must be unique.")
    positions = pd.Index(given).get_indexer(pd.Index(wanted))
    missing = wanted[positions < 0]
    if len(missing):
        raise ValueError(
            f"The {what} do not name {kind} {listing(missing)}; they are {listing(given)}. "
            f"{cause(given, wanted)}Rename them so that both are the same."
        )
    return positions


def cause(given, wanted):
    """The likely reason why labels differ, as a sentence, or nothing."""
    sides = [pd.Index(side, dtype=object) for side in (given, wanted)]
    for difference, change in SPELLINGS.items():
        known, asked = (change(side) for side in sides)
        if asked.isin(known).all():
            return f"They differ only in {difference}. "
    return ""


def match_cell_types(given, cell_types, what, superset=False):
    """:func:`match_labels` of cell types; by position if those wanted are counted, not named."""
    if is_counted(cell_types, "celltype") and given is not None and not np.isin(given, cell_types).any():
        return slice(None)
    return match_labels(given, cell_types, what, "cell type", other="the reference", superset=superset)


def read_per_cell_type(values, cell_types, name):
    """A number for each cell type, in their order.

    Parameters
    ----------
    values : Series or array-like
        A Series with names is matched by them, and may hold more.
    cell_types : ndarray of str
    name : str
        Of the parameter, for messages.

    Returns
    -------
    values : ndarray of float
        As it was given: whoever reads it says which shapes will do.
    """
    if isinstance(values, pd.Series):
        rows = match_cell_types(row_labels(values), cell_types, f"rows of {name}", superset=True)
        values = values.iloc[rows]
    return np.asarray(values, dtype=np.float64)
