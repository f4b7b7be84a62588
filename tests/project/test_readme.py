"""The code that the README shows, in Python and on the command line."""

import pathlib
import re

import pytest

from benchmarks import reproduction
from skenigma.cli import main

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
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


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/command_line.md"])
def test_commands_run_as_they_stand(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (README.parent / page).read_text(encoding="utf-8")
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S))
    commands = re.findall(r"^skenigma (.*)$", shell, flags=re.MULTILINE)
    assert [main(command.split()) for command in commands] == [0] * len(commands)
    assert len(commands) >= 4
    assert (tmp_path / "run" / "report.html").exists()


def table_rows(text):
    """Rows of the tables in a text, without those that separate their heads."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip(" |") for cell in row] for row in rows]


@pytest.mark.slow
def test_table_of_what_reproduces_is_what_the_command_prints(reference_folder, capsys):
    shown = README.read_text(encoding="utf-8").split("## What it reproduces")[1].split("\n## ")[0]
    reproduction.report(reference_folder)
    # run and iterations; differences are rounding, and seconds are seconds
    printed = [row[:2] for row in table_rows(capsys.readouterr().out)]
    assert [row[:2] for row in table_rows(shown)] == printed
    assert len(printed) > 10
