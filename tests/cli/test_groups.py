"""Groups of ``skenigma differential``: which are compared, with which one, and what of missing ones."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skenigma import io
from skenigma.cli import main
from skenigma.datasets import make_cohort
from skenigma.differential import interaction_test

# Eight samples of each, and a last one of which nothing is known.
GROUPS = [*("healthy", "mild", "severe") * 8, ""]


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(25, 30, 2, random_state=0, as_frame=True)


@pytest.fixture(scope="module")
def folder(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    io.write_table(cohort.bulk.T.rename_axis("gene"), folder / "bulk.tsv")
    io.write_table(cohort.reference.T.rename_axis("gene"), folder / "reference.tsv")
    io.write_table(cohort.proportions.rename_axis("sample"), folder / "proportions.tsv")
    state = pd.DataFrame({"state": GROUPS}, pd.Index(cohort.bulk.index, name="sample"))
    io.write_table(state, folder / "state.tsv")
    options = [f"--{name}={folder / name}.tsv" for name in ("bulk", "reference", "proportions")]
    assert main(["deconvolve", *options, "--model", "factor", "--out", str(folder / "run"), "-q"]) == 0
    return folder


@pytest.fixture
def tested(folder, tmp_path, capsys):
    """What a test with some options writes, or says where it fails."""

    def tested(*options, code=0):
        argv = [
            str(folder / "run"),
            "--phenotype",
            str(folder / "state.tsv"),
            "--method",
            "interaction",
            *options,
        ]
        assert main(["differential", *argv, "--out", str(tmp_path / "found"), "--force", "-q"]) == code
        if code:
            return capsys.readouterr().err
        return pd.read_csv(tmp_path / "found" / "differential.tsv", sep="\t").set_index(["cell_type", "gene"])

    return tested


def expected(cohort, names, first):
    """The test of the library on the samples of two groups."""
    state = pd.Series(GROUPS, cohort.bulk.index)
    kept = state.isin(names)
    found = interaction_test(cohort.bulk[kept], cohort.proportions[kept], state[kept], reference_level=first)
    return found.set_index(["cell_type", "gene"])


def same(found, wanted):
    # digits of the files
    assert_allclose(found["effect"], wanted["effect"].loc[found.index], rtol=1e-6, atol=1e-9)
    assert_allclose(found["p_value"], wanted["p_value"].loc[found.index], rtol=1e-6)
    assert set(found["contrast"]) == set(wanted["contrast"])


def test_levels(tested, cohort):
    found = tested("--levels", "healthy", "severe", "--missing", "drop")
    same(found, expected(cohort, ["healthy", "severe"], "healthy"))


def test_exclude(tested, cohort):
    found = tested("--exclude", "severe", "--missing", "drop")
    same(found, expected(cohort, ["healthy", "mild"], "healthy"))


def test_reference_level_turns_the_effects_round(tested, cohort):
    options = ["--levels", "healthy", "severe", "--missing", "drop"]
    forth, back = tested(*options), tested(*options, "--reference-level", "severe")
    same(back, expected(cohort, ["healthy", "severe"], "severe"))
    assert_allclose(back["effect"], -forth["effect"].loc[back.index], rtol=1e-6, atol=1e-9)
    assert not np.allclose(forth["effect"], 0)


def test_missing_are_refused_unless_they_are_dropped(tested, cohort):
    said = tested("--levels", "healthy", "severe", code=1)
    assert "sample25" in said


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        (["--levels", "healthy", "dead"], 1, "has no level 'dead'; it has 'healthy', 'mild', 'severe'"),
        (["--exclude", "dead"], 1, "has no level 'dead'"),
        (["--reference-level", "dead", "--exclude", "mild"], 1, "has no level 'dead'"),
        (["--levels", "healthy", "mild", "--exclude", "severe"], 2, "--exclude has nothing to add"),
        (["--missing", "guess"], 2, "guess"),
    ],
)
def test_refused(tested, options, code, part):
    extra = [] if "--missing" in options else ["--missing", "drop"]
    assert part in tested(*options, *extra, code=code)
