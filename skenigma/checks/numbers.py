"""What is no number, without asking a parser: for messages, which must not fail on what they are about."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

# How a file writes a number. Python takes more: underscores, and digits of other scripts.
WRITTEN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+|inf|infinity)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
LONGEST_SHOWN = 60
RESCALE = "Divide or multiply all values, bulk and reference alike, by one number."
# Sums of squares of larger values overflow, and of smaller ones vanish; single precision is narrower.
LIMITS = {np.dtype(np.float64): (1e-140, 1e140), np.dtype(np.float32): (1e-15, 1e15)}


@dataclass(frozen=True)
class Cell:
    """A cell of a table, for a listing.

    Attributes
    ----------
    value : object
    row, column : object
        Names.
    """

    value: object
    row: object
    column: object

    def __str__(self):
        return f"{quoted(self.value)} (row '{shortened(self.row)}', column '{shortened(self.column)}')"


def shortened(text, longest=LONGEST_SHOWN):
    """A name or another text, cut where it would flood a message."""
    text = str(text)
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def quoted(value, longest=LONGEST_SHOWN):
    """``repr`` of an entry, cut; Python refuses to write integers of thousands of digits."""
    if isinstance(value, str):
        return repr(value) if len(value) <= longest else shortened(repr(value[:longest])[:-1], longest)
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length():,} bits"
    return shortened(repr(value), longest)


def is_written_number(entry):
    """Whether a text is a number as files have them; what is no text, whether it is one as it stands."""
    if isinstance(entry, str):
        return WRITTEN.fullmatch(entry.strip()) is not None
    return not isinstance(entry, (bool, np.bool_)) and is_convertible(entry) and entry == entry


def is_convertible(entry):
    """Whether an entry becomes a number where an array of objects is converted: by ``float``."""
    try:
        float(entry)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def check_magnitude(values, what):
    """Refuse values whose squares cannot be summed: what would come of them is inf, NaN or 0.

    Parameters
    ----------
    values : ndarray
        Finite.
    what : str
        For the message.
    """
    if values.size and values.dtype.kind == "f":
        check_size(max(float(values.max()), -float(values.min())), values.dtype, what)


def check_size(size, dtype, what):
    """The same by the size of the largest value."""
    smallest, largest = LIMITS.get(dtype, LIMITS[np.dtype(np.float64)])
    if size > largest or 0 < size < smallest:
        raise ValueError(
            f"The largest value of {what} is {size:.3g} in absolute value; for {dtype} it must lie "
            f"between {smallest:g} and {largest:g}, or squares cannot be summed. {RESCALE}"
        )


def refuse_masked(values, what):
    """Refuse an array of which a part is masked: NumPy forgets the mask where it computes."""
    hidden = int(np.ma.count_masked(values)) if isinstance(values, np.ma.MaskedArray) else 0
    if hidden:
        raise ValueError(
            f"{what} is a masked array with {hidden} masked value(s), whose masks would be lost. Fill them "
            f"({what}.filled), or drop these rows or columns."
        )


def of_objects(column):
    """Whether a column can hold anything but numbers."""
    return not (isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub")


def unconvertible(column):
    """Entries of a column that are neither missing nor a number, one after the other."""
    present = column.notna().to_numpy()
    return (
        entry for entry, there in zip(column, present, strict=True) if there and not is_convertible(entry)
    )


def written_numbers(column):
    """A column of written numbers as floats, None if an entry is none."""
    entries = list(column)
    if not all(is_written_number(entry) for entry in entries):
        return None
    return pd.Series(np.array([float(entry) for entry in entries]), index=column.index)
