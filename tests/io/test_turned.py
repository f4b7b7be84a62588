"""Tables of numbers that are read by parts: the same as at once, and held once."""

import numpy as np
import pandas as pd
import pytest

from skenigma import io
from skenigma.io import _tables
from skenigma.io._turned import TurnedTable

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("sizes", [[3], [1, 1, 1, 1, 1, 1], [2, 5, 1], [5, 0, 2]])
@pytest.mark.parametrize("width", [1, 4])
def test_blocks_of_rows(sizes, width):
    blocks = [RNG.normal(size=(size, width)) for size in sizes]
    table = TurnedTable(width)
    for block in blocks:
        table.append(block)
    found = table.finish()
    np.testing.assert_array_equal(found, np.concatenate(blocks))
    assert found.flags.f_contiguous


def test_room_is_little_more_than_rows():
    table = TurnedTable(3)
    for _ in range(100):
        table.append(np.ones((1, 3)))
        assert table._room <= max(5, 1.25 * table._length)


PLAIN = ["gene\ta\tb", *(f"g{i}\t{i}\t{i}.5" for i in range(20))]


original = _tables._read_by_parts


@pytest.fixture(params=[20, 10**6], ids=["parts", "whole"])
def outcome(request, tmp_path, monkeypatch):
    """What pandas makes of lines, or its complaint."""
    monkeypatch.setattr(_tables, "PART", request.param)
    monkeypatch.setattr(_tables, "FEWEST_ROWS", 1)

    def read(lines, **how):
        notes = []
        (tmp_path / "t.tsv").write_text("\n".join(lines))
        try:
            return io.read_bulk(tmp_path / "t.tsv", notes=notes, **how), notes
        except ValueError as error:
            return str(error), notes

    return read


def numbers(lines):
    """The values of lines that hold nothing else, each by itself."""
    cells = [line.split("\t") for line in lines]
    frame = pd.DataFrame([[float(cell) for cell in row[1:]] for row in cells[1:]])
    return frame.set_axis([row[0] for row in cells[1:]]).set_axis(cells[0][1:], axis=1).T


@pytest.mark.parametrize(
    "others",
    [
        [],
        ["x\t1e-300\t7"],
        ["x\t9007199254740993\t18446744073709551615", "y\t-1\t0.1"],
        ["x\t184467440737095516159\t1"],  # an integer of more than 64 bits
        ["x\t1\t2", "NA\t3\t4", "nan\t5\t6"],
    ],
)
@pytest.mark.parametrize("rows", ["genes", "samples"])
def test_numbers(outcome, others, rows):
    expected = numbers(PLAIN + others)
    found, notes = outcome(PLAIN + others, rows=rows)
    pd.testing.assert_frame_equal(found, expected if rows == "genes" else expected.T, check_exact=True)
    assert notes == []


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            ["x\t1\t2\t3"],
            "is not a regular table: Error tokenizing data. C error: Expected 3 fields in line 22, saw 4",
        ),
        (["x\t1"], "holds 1 cell(s) that are not numbers: '' (row 'x', column 'b')"),
        (["x\t1\tword"], "holds 1 cell(s) that are not numbers: 'word' (row 'x', column 'b')"),
        (["x\tTrue\t2"], "holds 1 cell(s) that are not numbers: 'True' (row 'x', column 'a')"),
        (["g3\t1\t2"], "has 1 of 20 genes named more than once: 'g3'"),
        (["x\0\t1\t2"], "holds a NUL character in line 22"),
    ],
)
def test_what_is_wrong_is_said_of_the_whole_table(outcome, others, message):
    found, _ = outcome(PLAIN + others)
    assert message in found


def test_a_row_that_is_too_long_is_refused_where_it_begins_a_part(outcome):
    """Each row is longer than a part: pandas alone would take the one that is too long for a table of its own."""
    lines = [PLAIN[0], *(f"a_gene_with_quite_a_long_name_and_number_{line}" for line in PLAIN[1:])]
    assert "Expected 3 fields in line 21, saw 4" in outcome([*lines[:20], lines[20] + "\t7"])[0]


def test_parts_are_read(outcome, monkeypatch, request):
    found = []
    monkeypatch.setattr(_tables, "_read_by_parts", lambda *args: found.append(original(*args)) or found[-1])
    outcome(PLAIN)
    assert (found[0] is not None) == ("[parts]" in request.node.name)


def test_rows_of_delimiters_at_the_end(outcome):
    found, notes = outcome([*PLAIN, "\t\t", "\t\t"])
    pd.testing.assert_frame_equal(found, numbers(PLAIN), check_exact=True)
    assert notes == ["left out 2 empty rows"]


def test_decimal_commas_where_the_beginning_has_none(outcome):
    lines = [PLAIN[0], *(f"g{i}\t{i}\t1" for i in range(70)), "x\t2,25\t1"]
    found, notes = outcome(lines)
    pd.testing.assert_frame_equal(
        found, numbers([line.replace(",", ".") for line in lines]), check_exact=True
    )
    assert notes == ["read commas as decimal points"]
