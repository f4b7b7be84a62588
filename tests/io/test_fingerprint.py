"""Checksums of objects: the same for equal content, however it lies in memory; another for any other content."""

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from skenigma.io._fingerprint import fingerprint


@dataclass
class State:
    values: np.ndarray
    name: str = "a"

    @functools.cached_property
    def total(self):
        return self.values.sum()


class Rows:
    """A matrix that is read by slices of its rows."""

    def __init__(self, values):
        self._values, self.shape, self.dtype = values, values.shape, values.dtype

    def __getitem__(self, rows):
        return self._values[rows].copy()


VALUES = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (VALUES, np.asfortranarray(VALUES)),
        (VALUES, np.repeat(VALUES, 2, axis=1)[:, ::2]),
        (VALUES, Rows(VALUES)),
        (State(VALUES), State(VALUES.copy())),
        ([VALUES, VALUES], [VALUES, VALUES.copy()]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2, 3}, {3, 2, 1}),
        (np.array(["x", "y"], dtype=object), np.array(["x", "".join("y")], dtype=object)),
        (functools.partial(np.add, 1), functools.partial(np.add, 1)),
        (np.random.RandomState(3), np.random.RandomState(3)),
    ],
)
def test_equal_content_has_one_fingerprint(one, other):
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (VALUES, VALUES.reshape(4, 3)),
        (VALUES, VALUES.astype(np.float32)),
        (VALUES, np.where(VALUES == 7, np.nextafter(7, 8), VALUES)),
        (VALUES[:0], VALUES[:0, :2]),
        (State(VALUES), State(VALUES, "b")),
        (["ab", "c"], ["a", "bc"]),
        ([[1], 2], [1, [2]]),
        (1, True),
        (1, 1.0),
        ("1", 1),
        ("None", None),
        ({"a": 1}, {"a": 2}),
        (np.float32(1), np.float64(1)),
        (functools.partial(np.add, 1), functools.partial(np.add, 2)),
        (pd.Series([1, 2], ["a", "b"]), pd.Series([1, 2], ["a", "c"])),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"b": [1, 2]})),
        (np.random.RandomState(3), np.random.RandomState(4)),
    ],
)
def test_other_content_has_another_fingerprint(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_what_is_computed_when_it_is_asked_for_does_not_count():
    state = State(VALUES)
    before = fingerprint(state)
    assert state.total == 66
    assert fingerprint(state) == before


def test_what_holds_itself_has_a_fingerprint():
    holding = [1]
    holding.append(holding)
    assert len(fingerprint(holding)) == 64


def test_arrays_are_read_by_blocks(monkeypatch):
    whole = fingerprint(VALUES)
    monkeypatch.setattr("skenigma.io._fingerprint.BLOCK_BYTES", 40)  # one row
    assert fingerprint(VALUES) == whole


def test_what_nobody_can_look_into_is_named():
    with pytest.raises(TypeError, match=r"no checksum of a .*generator"):
        fingerprint(number for number in range(3))
