"""The recorded runs in ``tests/data``, and what happens where the full set is not at hand."""

import filecmp

import pytest

from tests.conftest import REQUIRE, SHIPPED, optional

FILES = sorted(path.relative_to(SHIPPED) for path in SHIPPED.rglob("*") if path.is_file())


def test_is_small():
    assert len(FILES) > 20
    assert sum((SHIPPED / path).stat().st_size for path in FILES) < 4e6


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".md"], ids=str)
def test_is_a_copy_of_the_full_set(path, reference_folder):
    assert filecmp.cmp(SHIPPED / path, reference_folder / path, shallow=False)


def test_readme_names_every_kind_of_file():
    text = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for folder in {path.parent.name for path in FILES if path.parent.name not in ("", "package")}:
        assert f"`{folder}/`" in text


@pytest.mark.parametrize(
    ("required", "outcome"),
    [("1", pytest.fail.Exception), ("0", pytest.skip.Exception), (None, pytest.skip.Exception)],
)
def test_absence_fails_only_where_data_are_required(tmp_path, monkeypatch, required, outcome):
    monkeypatch.setenv("CI", "true")  # public services set it and have no such folder
    monkeypatch.delenv(REQUIRE, raising=False)
    if required is not None:
        monkeypatch.setenv(REQUIRE, required)
    assert optional(tmp_path) == tmp_path
    with pytest.raises(outcome, match=r"missing.*is missing: set SKENIGMA_DATA to the folder"):
        optional(tmp_path / "missing")
