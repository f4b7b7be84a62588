"""The Python code that the README shows."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_readme_shows_python_code():
    assert BLOCKS


@pytest.mark.parametrize("code", BLOCKS)
def test_code_runs_and_shows_the_shapes_it_says(code):
    names = {}
    exec(code, names)
    samples, cell_types, genes = len(names["cohort"].bulk), len(names["cohort"].reference), 1000
    for attribute, axes in re.findall(r"^model\.(\w+) +# (.*)$", code, flags=re.MULTILINE):
        sizes = {"samples": samples, "cell types": cell_types, "genes": genes}
        assert getattr(names["model"], attribute).shape == tuple(sizes[axis] for axis in axes.split(" × "))
