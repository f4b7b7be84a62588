"""Tables of numbers by way of polars: the same numbers as by pandas, or left to it."""

import warnings

import numpy as np
import pandas as pd
import pytest

from skenigma import io
from skenigma.io import _engines

polars = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
# Magnitudes from the smallest to the largest, zeros of both signs, and what has no short decimal.
HARD = np.array(
    [
        0.0,
        -0.0,
        0.1,
        1 / 3,
        -2.5,
        5e-324,
        2.2250738585072014e-308,
        1e-5,
        123456.7,
        1e16,
        1.7976931348623157e308,
    ]
)


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """Every table counts as large, and is read by blocks of a few lines."""
    monkeypatch.setattr(_engines, "LARGE", 0)
    monkeypatch.setattr(_engines, "CHUNK", 64)


@pytest.fixture
def readings(monkeypatch):
    """Whether each table was read by polars."""
    found = []

    def watched(*args):
        found.append(original(*args))
        return found[-1]

    original = _engines.read_numbers
    monkeypatch.setattr("skenigma.io._tables.read_numbers", watched)
    return found


def table(values):
    values = np.atleast_2d(values)
    index = pd.Index([f"gene {i}" for i in range(len(values))], name="gene")
    return pd.DataFrame(values, index=index, columns=[f"s{i}" for i in range(values.shape[1])])


def by_pandas(path, **options):
    """What pandas alone reads, or its complaint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skenigma.io._tables.read_numbers", lambda *_: None)
        return outcome(path, **options)


def outcome(path, **options):
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = io.read_bulk(path, **options)
    except ValueError as error:
        return str(error)
    notes = [str(warning.message) for warning in caught]
    return found.rename_axis("; ".join(notes) or None)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.tsv.gz"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numbers_come_back_to_the_last_bit(tmp_path, name, dtype, readings):
    with np.errstate(over="ignore"):
        values = np.concatenate([HARD, RNG.lognormal(0, 20, 45)]).astype(dtype).reshape(8, 7)
    values = np.where(np.isfinite(values), values, 1).astype(dtype)
    io.write_table(table(values), tmp_path / name)
    found = io.read_bulk(tmp_path / name)
    assert readings[-1] is not None
    np.testing.assert_array_equal(found.to_numpy().astype(dtype), values.T)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(values.T))
    pd.testing.assert_frame_equal(found, by_pandas(tmp_path / name), check_exact=True)


@pytest.mark.parametrize(
    "frame",
    [
        table([[0.0, -0.0], [0.1, 1 / 3], [-2.5e-4, 123456789.25], [1e15, 12345.0]]),
        table([[1.5, np.nan], [np.inf, -np.inf]]),
        table([[1.5, 2.0]]).rename_axis(None),
        table([[1.5, 2.0]]).rename(columns={"s0": 'a\t"b"'}),
        table([[1.5, 2.0]]).rename(index={"gene 0": "two\nlines"}),
        table([[1.5, 2.0]]).rename(index={"gene 0": ""}),
        table([[1.5, 2.0]]).set_axis(["twice", "twice"], axis=1),
        table([[1.5, 2.0]]).set_axis(["gene", "s"], axis=1),
        table([[1.5, 2.0]]).set_axis([1, 2], axis=1),
        table([[1, 2]]),
        table([[1.5, 2.0]]).assign(group="case"),
    ],
)
def test_bytes_are_those_of_pandas_where_exponents_are_not_written(tmp_path, frame):
    """So are missing values and quotes, most of which are left to pandas."""
    with _engines.chosen_writer("pandas"):
        io.write_table(frame, tmp_path / "pandas.tsv")
    io.write_table(frame, tmp_path / "polars.tsv")
    found, expected = ((tmp_path / f"{name}.tsv").read_text() for name in ("polars", "pandas"))
    assert found == expected


WIDE = "gene\ta\tb\n" + "".join(f"g{i}\t{i}.5\t{i}\n" for i in range(30))


@pytest.mark.parametrize(
    ("body", "is_plain"),
    [
        ("g\t1\t2\n", True),
        ("g\t1e5\t+2\n", True),
        ("g\t1\t2", True),
        ("g\t1\t" + "2" * 200 + "\n", True),
        ("\t1\t2\n", True),
        ('"g\th"\t1\t2\n', False),
        ("g\t\t2\n", False),
        ("g\tNA\t2\n", False),
        ("g\tnan\t2\n", False),
        ("g\tinf\t2\n", False),
        ("g\t 1\t2 \n", False),
        ("g\t1,5\t2\n", False),
        ("g\t1\n", False),
        ("g\t1\t2\t3\n", False),
        ("g\t1\t2\t3\nh\t1\n", False),
        ("g\tx\t2\n", False),
        ("\n\ng\t1\t2\n", False),
        ("g\t1\r2\n", False),
        ("g\t0x1\t2\n", False),
        ("g\ttrue\t2\n", False),
    ],
)
def test_the_same_is_read_or_refused_as_by_pandas(tmp_path, body, is_plain, readings):
    path = tmp_path / "t.tsv"
    path.write_bytes((WIDE + body).encode())
    found, expected = outcome(path), by_pandas(path)
    assert (readings[0] is not None) == is_plain
    if isinstance(expected, str):
        assert found == expected
    else:
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize(
    "content",
    [
        WIDE.replace("\n", "\r\n"),
        WIDE.replace("gene\t", ""),
        "\ufeff" + WIDE,
        "# a comment\n\n" + WIDE,
        WIDE.replace("gene\ta", '"ge\nne"\ta'),
        WIDE.replace("\t", ","),
        WIDE.replace("\t", ";").replace(".", ","),
        "gene\tDescription\ta\n" + "".join(f"g{i}\ta protein\t{i}.5\n" for i in range(30)),
        "\tgene\ta\n" + "".join(f"{i}\tg{i}\t{i}.5\n" for i in range(30)),
        WIDE.replace("\n", "\t\n"),
        WIDE.encode("latin-1").replace(b"g7", b"g\xe9").decode("latin-1"),
    ],
)
def test_layouts_are_read_as_by_pandas(tmp_path, content):
    path = tmp_path / "t.txt"
    path.write_text(content, encoding="utf-8", newline="")
    pd.testing.assert_frame_equal(outcome(path), by_pandas(path), check_exact=True)


@pytest.mark.parametrize("end", ["\n", "\t\n"])
def test_columns_behind_the_numbers(tmp_path, end, readings):
    """A delimiter at the end of each line makes an empty column."""
    path = tmp_path / "t.tsv"
    path.write_text(WIDE.replace("\n", end))
    assert list(io.read_bulk(path).loc["b"]) == list(range(30))
    assert readings[0] is not None


def test_text_that_is_not_utf8_is_refused_alike(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes(WIDE.encode() + b"g\xff\t1\t2\n")
    assert outcome(path) == by_pandas(path)


def test_a_damaged_archive_is_refused_alike(tmp_path):
    path = tmp_path / "t.tsv.gz"
    io.write_table(table(RNG.random((50, 50))), path)
    path.write_bytes(path.read_bytes()[:-200])
    assert outcome(path) == by_pandas(path)
    assert "gzip" in outcome(path)


@pytest.mark.parametrize("bound", ["LONGEST_LINE", "free"])
def test_bounds_hold(tmp_path, monkeypatch, readings, bound):
    path = tmp_path / "t.tsv"
    path.write_text(WIDE)
    if bound == "free":
        monkeypatch.setattr(_engines._formats, "available_memory", lambda: 100)
    else:
        monkeypatch.setattr(_engines, "LONGEST_LINE", 9)
    io.read_bulk(path)
    assert readings == [None]


def test_small_tables_are_left_to_pandas(tmp_path, monkeypatch, readings):
    monkeypatch.setattr(_engines, "LARGE", 20_000)
    path = tmp_path / "t.tsv"
    path.write_text(WIDE)
    io.read_bulk(path)
    assert readings == [None]


class TestWriter:
    @pytest.fixture
    def without_polars(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "polars", None)

    def test_what_there_is(self, without_polars):
        assert _engines.available_writer() == "pandas"

    def test_polars_where_it_is(self):
        assert _engines.available_writer() == "polars"

    def test_without_it_tables_are_read_and_written(self, tmp_path, without_polars, readings):
        io.write_table(table(HARD), tmp_path / "t.tsv")
        np.testing.assert_array_equal(io.read_bulk(tmp_path / "t.tsv").to_numpy(), HARD[:, None])
        assert readings == [None]

    def test_a_repeat_demands_it(self, without_polars):
        with pytest.raises(ImportError, match=r"polars.*skenigma\[text\]"), _engines.chosen_writer("polars"):
            pass

    def test_unknown(self):
        with pytest.raises(ValueError, match="'excel'"), _engines.chosen_writer("excel"):
            pass

    def test_pandas_when_it_is_chosen(self, tmp_path):
        with _engines.chosen_writer("pandas"):
            io.write_table(table(1e-5), tmp_path / "t.tsv")
        assert "1e-05" in (tmp_path / "t.tsv").read_text()
