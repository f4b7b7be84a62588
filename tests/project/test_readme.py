"""The code that the README shows, in Python and on the command line."""

import pathlib
import re

import anndata
import pandas as pd
import pytest

from benchmarks import reproduction
from skenigma.cli import main
from skenigma.io import read_bulk

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder that the Python blocks were run in, one after the other, and the names after each."""
    folder, after, names = tmp_path_factory.mktemp("readme"), [], {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in BLOCKS:
            exec(code, names)
            after.append(dict(names))
    return folder, after


def test_readme_shows_python_code():
    assert len(BLOCKS) == 3
    files, usage, _ = BLOCKS
    assert len([line for line in usage.splitlines() if line and "import" not in line]) <= 10
    assert set(re.findall(r'"(\w+\.\w+)"', usage)) == set(re.findall(r'"(\w+\.\w+)"', files))


def test_your_data_gives_what_the_text_says(ran):
    _, (_, names, _) = ran
    model, findings = names["model"], names["findings"]
    assert names["proportions"].shape == (60, 6)
    assert names["expression"].shape == names["error"].shape == (60, 1000)
    assert model.cse_.shape == model.cse_std_.shape == (60, 6, 1000)
    assert len(findings) == 6 * 1000
    assert findings["p_value"].dropna().is_monotonic_increasing
    assert set(findings["contrast"].dropna()) == {"log2(case / control)"}
    called = findings[findings["q_value"] < 0.05]
    changed = names["cohort"].changed.stack()[list(zip(called["cell_type"], called["gene"], strict=True))]
    right = changed.to_numpy() * called["effect"].to_numpy() > 0
    assert len(called) > 20
    assert right.mean() > 0.9  # a false discovery rate of 5 % allows a few


def test_shapes_of_the_published_model(ran):
    _, (*_, names) = ran
    sizes = {"samples": 100, "cell types": 5, "genes": 1000}
    comments = re.findall(r"^model\.(\w+) +# (.*)$", BLOCKS[-1], flags=re.MULTILINE)
    assert len(comments) == 2
    for attribute, axes in comments:
        assert getattr(names["model"], attribute).shape == tuple(sizes[axis] for axis in axes.split(" × "))


def commands_of(page):
    text = (README.parent / page).read_text(encoding="utf-8")
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S))
    return re.findall(r"^skenigma (.*)$", shell, flags=re.MULTILINE)


@pytest.mark.slow
def test_commands_on_your_data_run_as_they_stand(ran, monkeypatch):
    folder, (_, names, _) = ran
    monkeypatch.chdir(folder)
    commands = commands_of("README.md")
    assert [command.split()[0] for command in commands] == [
        "reference",
        "deconvolve",
        "differential",
        "report",
    ]
    assert [main(command.split()) for command in commands] == [0] * len(commands)
    assert (folder / "run" / "report.html").exists()
    # the command line and Python, as the README shows them, find the same
    table = pd.read_csv(folder / "run" / "differential" / "differential.tsv", sep="\t", keep_default_na=False)
    tested = names["findings"].dropna(subset="p_value")
    assert list(table["gene"][:20]) == list(tested["gene"][:20])


@pytest.mark.slow
def test_commands_of_the_page_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = commands_of("docs/command_line.md")
    assert len(commands) >= 4
    # what the page takes for granted: a bulk in AnnData, and its reference
    assert main(["simulate", "--out", "other"]) == 0
    anndata.AnnData(read_bulk("other/bulk.tsv")).write_h5ad("bulk.h5ad")
    pathlib.Path("other/reference.tsv").rename("reference.tsv")
    assert [main(command.split()) for command in commands] == [0] * len(commands)
    assert (tmp_path / "run" / "report.html").exists()


def test_lines_are_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "python3"))] == []


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
