"""``--memory``: what is read by blocks of samples, how large blocks are, and what does not fit."""

import argparse
import re
from dataclasses import dataclass

from ..checks.memory import check_memory, readable
from ..cohort import BLOCK_BYTES

DEFAULTS = {"memory": None}
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
# Bytes of a bulk, in float64, from which on it is read by blocks where nothing is said.
LARGE = 2**30
# What Python and the packages take (285 MB measured for the proportions of ten samples), and how many times its size
# a bulk that is read into memory takes until its expression is written (5.7 measured for 600 samples × 20,000 genes).
PACKAGES, COPIES = 5 * 2**26, 6
# How many times its size it takes at least: the table, and a copy by samples for the checks.
LEAST_COPIES = 2
# Parts of a budget that a block that is read, and one that is written, may take: each is there several times.
READ_PART, WRITTEN_PART = 24, 16
# Bytes of a block of values that is written, where nothing is said.
WRITTEN = 2**26


@dataclass(frozen=True)
class Budget:
    """Memory that a command may take.

    Attributes
    ----------
    memory : int or None
        Bytes; None where nothing was said.
    """

    memory: int | None

    @property
    def read(self):
        """Bytes of a block that is read."""
        return BLOCK_BYTES if self.memory is None else min(BLOCK_BYTES, self.memory // READ_PART)

    @property
    def written(self):
        """Bytes of a block of values that is written."""
        return WRITTEN if self.memory is None else min(WRITTEN, self.memory // WRITTEN_PART)

    def is_large(self, shape):
        """Whether a bulk of this shape is better read by blocks."""
        if self.memory is None:
            return _size(shape) > LARGE
        return PACKAGES + COPIES * _size(shape) > self.memory

    def check(self, size, what, remedy):
        """Refuse what needs more bytes than were allowed, or than there are, see :func:`check_memory`."""
        if self.memory is not None and PACKAGES + size > self.memory:
            raise ValueError(
                f"--memory {readable(self.memory)} is too little: {what} needs {readable(size)}, beside "
                f"{readable(PACKAGES)} for the packages. {remedy}"
            )
        check_memory(size, what, remedy)

    def check_held(self, shape, path, remedy):
        """Refuse, before it is read, a bulk in memory that needs more than there is to be.

        Parameters
        ----------
        shape : tuple of int
        path : path-like
        remedy : str
            What to do, for the message.

        Raises
        ------
        ValueError
            If it needs more than was allowed.
        MemoryError
            If nothing was said, and it needs more than there is.
        """
        if self.memory is not None:
            self.check_read(shape, path, remedy)
            return
        check_memory(
            LEAST_COPIES * _size(shape),
            f"{_said(shape, path)}, and it is there at least {LEAST_COPIES} times, which",
            f"{remedy}.",
        )

    def check_read(self, shape, path, remedy):
        """Refuse a bulk in memory that needs more than was allowed, see :meth:`check_held`."""
        if self.memory is None or not self.is_large(shape):
            return
        raise ValueError(
            f"--memory {readable(self.memory)} is too little: {_said(shape, path)}, and it is there about {COPIES} "
            f"times, beside {readable(PACKAGES)} for the packages. {remedy}, or allow "
            f"{readable(PACKAGES + COPIES * _size(shape))}."
        )

    def check_blocks(self, shape, n_cell_types, path):
        """Refuse blocks of one sample that are still too large."""
        if self.memory is None:
            return
        least = PACKAGES + max(READ_PART * 8 * shape[1], WRITTEN_PART * 8 * n_cell_types * shape[1])
        if least > self.memory:
            raise ValueError(
                f"--memory {readable(self.memory)} is too little for {path}, even read one sample at a time: "
                f"{readable(PACKAGES)} for the packages, and {WRITTEN_PART} × {n_cell_types:,} cell types × "
                f"{shape[1]:,} genes × 8 bytes for a sample are {readable(least)}."
            )


def _size(shape):
    """Bytes of a bulk in memory."""
    return 8 * shape[0] * shape[1]


def _said(shape, path):
    return (
        f"{path} is read into memory, where {shape[0]:,} samples × {shape[1]:,} genes × 8 bytes are "
        f"{readable(_size(shape))}"
    )


def add_memory(group):
    """The option."""
    group.add_argument(
        "--memory",
        type=number_of_bytes,
        metavar="SIZE",
        help="about as much as may be taken, such as 4G: a bulk in .h5ad or Zarr that needs more is read by blocks "
        "of samples (default: from 1 GB on), blocks are so small that it fits, and what cannot be done is refused",
    )


def number_of_bytes(text):
    """A size such as 4G, 500M or 2000000000."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,3})?)\s?([kmgt]?)(?:i?b)?", text.strip().lower())
    size = 0 if found is None else int(float(found[1]) * UNITS[found[2]])
    if size <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 4G, or 500M")
    return size
