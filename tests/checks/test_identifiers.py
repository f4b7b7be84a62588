"""Identifiers of genes: why they do not match, and which ones Excel has made dates."""

import re
import subprocess

import pandas as pd
import pytest

from skenigma import ProportionEstimator, io
from skenigma.checks.identifiers import excel_dates, kind_of, why_unlike

SYMBOLS = ["CD19", "CD4", "CD8A", "MS4A1", "NKG7", "LYZ"]
ENSEMBL = [f"ENSG0000000000{i}" for i in range(6)]
DATES = ["2-Sep", "3-Mar", "1-Dec", "Mar-01", "Sep-10", "2024-09-02", "44256", "02-Sep"]


@pytest.mark.parametrize(
    ("bulk", "reference", "words"),
    [
        ([f"{name}.12" for name in ENSEMBL], ENSEMBL, "version suffixes"),
        ([f"{name}.12" for name in ENSEMBL], [f"{name}.7" for name in ENSEMBL], "version suffixes"),
        ([f"{name}|{i}" for i, name in enumerate(SYMBOLS)], SYMBOLS, "follows '|'"),
        ([f"{i}|{name}" for i, name in enumerate(SYMBOLS)], SYMBOLS, "precedes '|'"),
        ([f"{name} ({i})" for i, name in enumerate(SYMBOLS)], SYMBOLS, "in brackets"),
        ([f"HLA.{name}" for name in "ABC"], [f"HLA-{name}" for name in "ABC"], "dots that R puts"),
        (
            [f"{name}_{gene}" for name, gene in zip(SYMBOLS, ENSEMBL, strict=True)],
            SYMBOLS,
            "behind the symbols",
        ),
        ([f"{name}_{gene}" for name, gene in zip(SYMBOLS, ENSEMBL, strict=True)], ENSEMBL, "around Ensembl"),
        ([f"00R_AC107638.2_{gene}" for gene in ENSEMBL], ENSEMBL, "around Ensembl"),
        ([name.capitalize() for name in SYMBOLS], SYMBOLS, "case"),
        ([f"X{i}" for i in range(100, 106)], [f"{i}" for i in range(100, 106)], "the X that R puts"),
        ([f"b'{name}'" for name in SYMBOLS], SYMBOLS, "b'…'"),
        ([f" {name}" for name in SYMBOLS], SYMBOLS, "spaces around"),
    ],
)
def test_what_would_be_shared_and_how(bulk, reference, words):
    """The remedy that is named makes the names alike."""
    said = why_unlike(bulk, reference, 0)
    assert words in said
    assert f"they share {len(reference)}" in said
    frames = {
        "X": pd.DataFrame([range(len(bulk))], columns=bulk),
        "reference": pd.DataFrame([range(len(reference))], columns=reference),
    }
    remedy = (
        said[said.index("make the spelling the same, ") + len("make the spelling the same, ") :]
        .split(". If one")[0]
        .split(". In a file")[0]
        .rstrip(" .")
    )
    exec(remedy, {}, frames)
    assert set(frames["X"].columns) == set(frames["reference"].columns)


def test_versions_are_cut_off_in_files_too(tmp_path):
    said = why_unlike([f"{name}.12" for name in ENSEMBL], ENSEMBL, 0)
    (tmp_path / "genes").write_text("".join(f'"{name}.12",1.5\n' for name in ENSEMBL))
    script = re.search(r"sed -E '(.*)' FILE", said)[1]
    done = subprocess.run(
        ["sed", "-E", script, tmp_path / "genes"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "".join(f'"{name}",1.5\n' for name in ENSEMBL)


def test_mouse_and_human():
    said = why_unlike([name.capitalize() for name in SYMBOLS], SYMBOLS, 0)
    assert "orthologues" in said
    assert "orthologues" not in why_unlike([name.lower() for name in SYMBOLS], SYMBOLS, 0)


def test_kinds():
    assert kind_of(ENSEMBL) == "Ensembl gene identifiers"
    assert "Ensembl gene identifiers, but reference gene symbols" in why_unlike(ENSEMBL, SYMBOLS, 0)


def test_nothing_is_made_up():
    assert why_unlike(SYMBOLS, [f"other{i}" for i in "abc"], 0) == ""
    # different genes that become one are no spelling
    assert "version" not in why_unlike(["RP11.1", "RP11.2", "RP11.3", "RP11.4"], ["RP11"], 0)


@pytest.mark.parametrize("date", DATES)
def test_dates(date):
    assert excel_dates([*SYMBOLS, date]) == [date]


@pytest.mark.parametrize(
    "name", ["SEPT2", "MARCH3", "HLA-A", "1-Sop", "NKX2-5", "RP11-206L10", "7SK", "2024-13-02", "12345"]
)
def test_no_dates(name):
    assert excel_dates([*SYMBOLS, name]) == []


def test_entrez_identifiers_are_no_days():
    assert excel_dates([str(number) for number in range(44000, 44100)]) == []


@pytest.fixture
def excel():
    bulk = pd.DataFrame(
        [[5.0, 60, 7, 80, 9, 1], [40.0, 3, 20, 10, 7, 5]], ["S1", "S2"], [*SYMBOLS[:4], "2-Sep", "3-Mar"]
    )
    reference = pd.DataFrame(
        [[9.0, 80, 3, 90, 4, 2], [50.0, 1, 30, 4, 9, 9]], ["B", "T"], [*SYMBOLS[:4], "SEPT2", "MARCH3"]
    )
    return bulk, reference


def test_python_and_command_line_say_the_same(excel, tmp_path):
    from skenigma.cli import main

    bulk, reference = excel
    with pytest.warns(UserWarning, match="2 gene.* named by dates: '2-Sep', '3-Mar'.*SEPTIN2") as said:
        ProportionEstimator(reference, method="nnls").fit(bulk)
    paths = [str(tmp_path / name) for name in ("bulk.tsv", "reference.tsv")]
    for table, path in zip(excel, paths, strict=True):
        io.write_table(table.T.rename_axis("gene"), path)
    command = [
        "proportions",
        "--bulk",
        paths[0],
        "--reference",
        paths[1],
        "--method",
        "nnls",
        "--total",
        "as-is",
    ]
    assert main([*command, "--out", str(tmp_path / "run"), "-q"]) == 0
    recorded = io.read_run(tmp_path / "run").record["warnings"]
    assert any(str(warning.message) in recorded for warning in said)
