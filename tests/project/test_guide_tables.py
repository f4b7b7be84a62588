"""Tables of the user guide: each names the command that prints it, and the quick ones are printed again."""

import pathlib
import re
import warnings

import pytest

from benchmarks import guide, missing, truth

PAGES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "user_guide"
# Part of ``python -m benchmarks.guide``: the page that shows what it prints.
SHOWN = {
    "editions": "package_edition",
    "sizes": "gradient_size",
    "factor": "factor",
    "batch": "batch",
    "genes": "reliability",
    "tests": "differential",
}


def plain(text):
    """Rows of the tables in a text, without emphasis."""
    rows = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip(" *") for cell in row.split("|")[1:-1]] for row in rows]


def page(part):
    return (PAGES / f"{SHOWN[part]}.md").read_text("utf-8")


def test_every_part_is_named_on_its_page():
    assert SHOWN.keys() == guide.PARTS.keys()
    for part in SHOWN:
        assert f"python -m benchmarks.guide --part {part}" in page(part)


def test_quick_rows_of_sizes(capsys):
    guide.print_sizes(guide.SHAPES[:1])
    printed = plain(capsys.readouterr().out)
    assert len(printed) == 2
    shown = plain(page("sizes"))
    assert all(row in shown for row in printed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "quick"),
    [
        ("factor", lambda: guide.print_factor(numbers=(10, 20, 100), compared=(20, 60))),
        ("sizes", lambda: guide.print_sizes(guide.SHAPES[1:2])),
    ],
)
def test_rows_are_printed_again(part, quick, capsys):
    quick()
    printed, shown = plain(capsys.readouterr().out), plain(page(part))
    assert len(printed) > 1
    assert all(row in shown for row in printed)


@pytest.mark.slow
@pytest.mark.usefixtures("truth_folder")
@pytest.mark.filterwarnings("ignore:The expression of this PackageL2MaxDeconvolver")
def test_editions_on_real_cohorts(capsys):
    guide.print_editions()
    printed = plain(capsys.readouterr().out)
    shown = plain(page("editions"))
    assert len(printed) == len(guide.EDITIONS) + 1
    names = [row[0] for row in shown]
    for row in printed[1:]:
        expected = shown[names.index(row[0])]
        # shown to 3 and 2 digits
        assert [float(cell) for cell in row[1:]] == pytest.approx(
            [float(cell) for cell in expected[1:]], rel=0.02
        )


@pytest.mark.slow
@pytest.mark.usefixtures("truth_folder")
def test_missing_types(capsys):
    missing.main(["--set", "kang8", "ratmix"])
    printed, shown = plain(capsys.readouterr().out), plain((PAGES / "limits.md").read_text("utf-8"))
    assert len(printed) == 3
    assert all(row in shown for row in printed)


@pytest.mark.slow
@pytest.mark.usefixtures("truth_folder")
def test_coverage_of_both_platforms():
    """Donors that the reference does not hold, by the model's own intervals."""
    models = "empirical Bayes", "empirical Bayes, bulk"
    found = truth.table(truth.load("gse60424"), "halves", models).loc[list(models)]
    shown = plain((PAGES / "posterior.md").read_text("utf-8"))
    for platform, figures in zip(("reference", "bulk"), found.to_dict("records"), strict=True):
        (expected,) = [row for row in shown if row[0] == f'`platform="{platform}"`']
        covered = [f"{figures[f'covered {100 * level:g}']:.0f}" for level in truth.LEVELS]
        assert expected[1:] == [*covered, f"{figures['RMSE']:.2f}"]


def test_measured_tables_name_their_command():
    """A table with figures has the command that prints it on its page."""
    for path in PAGES.glob("*.md"):
        text = path.read_text("utf-8")
        figures = [
            row for row in plain(text) if sum(bool(re.fullmatch(r"[−-]?[\d.,]+ ?%?", c)) for c in row) > 1
        ]
        if figures:
            assert "python -m benchmarks" in text, (path.name, figures[0])


PEERS = {
    "EmpiricalBayesDeconvolver()": "empirical Bayes",
    "L2MaxDeconvolver()": "L2-max",
    'L2MaxDeconvolver(preprocess="sqrt")': "L2-max, sqrt",
    "TraceNormDeconvolver()": "trace norm",
    'TraceNormDeconvolver(preprocess="log")': "trace norm, log",
    "FactorDeconvolver()": "factor",
}
FREE = {f"{name}, free": name for name in ("bulk itself", "reference itself", "scaled reference")}
README = PAGES.parents[1] / "README.md"


def section(path, heading):
    """What stands under a heading of a page."""
    return path.read_text("utf-8").split(heading)[1].split("\n## ")[0]


def assert_shown(cells, expected, name):
    """Numbers of cells such as ``.185 [.292] / .98`` are the expected ones, to the digits that they have."""
    shown = [number for cell in cells for number in re.findall(r"-?\d*\.?\d+", cell.replace("−", "-"))]
    assert len(shown) == len(expected)
    for number, value in zip(shown, expected, strict=True):
        # half a digit, and a bit for the last bit of a correlation
        assert float(number) == pytest.approx(value, abs=0.6 * 10.0 ** -len(number.partition(".")[2])), name


def measured_truth(blood, models):
    """Figures of both real cohorts; on added cells with the given proportions, which are exact."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of levels that are lost, and of models on values they are not for
        return [
            truth.table(truth.SETS[name](), scheme, models)
            for name, scheme in (("gse60424", blood), ("kang8", "given"))
        ]


@pytest.mark.slow
@pytest.mark.usefixtures("truth_folder")
def test_our_rows_beside_other_packages():
    """Figures of the page and of the README are those of the benchmark, to the digits that they show."""
    both = measured_truth("given", PEERS.values())
    shown = [
        {row[0].strip("`"): row[1:] for row in plain(part) if len(row) == 4}
        for part in section(PAGES / "peers.md", "## Expression").split("| added cells")
    ]
    short = {row[0].strip("`"): row[1:] for row in plain(README.read_text("utf-8")) if len(row) == 5}
    for name, answer in {**PEERS, **FREE}.items():
        measured = [
            [one.loc[answer, column] for column in ("all", "dominated", "per sample", "level")]
            for one in both
        ]
        for part, expected in zip(shown, measured, strict=True):
            assert_shown(part[name], expected, name)
        if name in short:
            assert_shown(short[name][:2], measured[0][:3] + measured[1][:3], name)
    assert len((PEERS.keys() | FREE.keys()) & short.keys()) == 5


LIMITS = [
    *FREE.values(),
    "L2-max",
    "L2-max, sqrt",
    "L2-max, auto",
    "trace norm",
    "trace norm, auto",
    "factor",
    "empirical Bayes",
]
SCALES = ["trace norm", "trace norm, sqrt", "trace norm, log"]


@pytest.mark.slow
@pytest.mark.usefixtures("truth_folder")
def test_rows_on_real_data():
    """What the page on limits shows of models and baselines, row by row."""
    names = [*LIMITS, *SCALES, *(f"{name}, auto" for name in SCALES)]
    both = measured_truth("log", [name for name in dict.fromkeys(names) if name not in FREE.values()])
    rows = plain(section(PAGES / "limits.md", "## On real data"))[1:]
    assert len(rows) == len(LIMITS)
    columns = ["all", "dominated", "per sample", "level"]
    for name, row in zip(LIMITS, rows, strict=True):
        for one, cells in zip(both, (row[1:3], row[3:5]), strict=True):
            assert_shown(cells, list(one.loc[name, columns]), row[0])
    rows = plain(section(PAGES / "limits.md", "## The weight of the trace norm"))[1:]
    for name, row in zip(SCALES, rows, strict=True):
        for one, cells in zip(both, (row[1:3], row[3:5]), strict=True):
            expected = [one.loc[setting, columns[:2]] for setting in (name, f"{name}, auto")]
            assert_shown(cells, [*expected[0], *expected[1]], name)
