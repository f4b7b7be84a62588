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
    samples, cell_types = len(names["cohort"].bulk), len(names["cohort"].cell_types)
    genes = len(names["model"].gene_names_)
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
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows]


EDITIONS = README.parent / "docs" / "user_guide" / "package_edition.md"
# Differences of rounding are those of one machine: this many times what is shown is still that.
ROUNDING = 30


def section(page, heading):
    """What stands under a heading of a page."""
    return page.read_text(encoding="utf-8").split(heading)[1].split("\n## ")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "heading", "report", "n_settled", "differences"),
    [
        (README, "## What it reproduces", reproduction.report, 3, [3]),
        (EDITIONS, "## How close the numbers are", reproduction.report_package, 3, [3, 4, 5]),
    ],
)
def test_tables_of_what_reproduces_are_what_the_command_prints(
    reference_folder, capsys, page, heading, report, n_settled, differences
):
    report(reference_folder)
    printed, shown = table_rows(capsys.readouterr().out), table_rows(section(page, heading))
    assert len(printed) > 10
    # run and iterations; seconds are seconds
    assert [row[:n_settled] for row in shown] == [row[:n_settled] for row in printed]
    for one, other in zip(shown[1:], printed[1:], strict=True):
        for column in differences:
            if one[column]:
                assert float(other[column]) < ROUNDING * float(one[column])
