"""The benchmarks at tiny sizes: that they run, agree and report; never how long anything takes."""

import itertools
import json
import math
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from benchmarks import __main__ as command
from benchmarks import choices, findings, jobs, truth
from benchmarks.cases.growth import Course, points
from benchmarks.cases.models import iterations_to, objective_history, simulate
from benchmarks.fresh import peak_growth
from benchmarks.harness import CASES, Contest, Contestant, Options, largest_difference
from benchmarks.original import Original
from benchmarks.report import Report, describe, number, slope, styles, table
from skenigma import L2MaxDeconvolver
from skenigma.datasets import make_cohort

# Largest relative difference that contestants of a case may show.
AGREEMENT = {
    "fit": 1e-10,  # compressed and plain
    "posterior": 1e-12,
    "compiled": 1e-12,  # sums in another order
    "accelerated": 1.01e-8,  # in F, where the published iteration is stopped at a gap of 1e-8
    "rlm": 1e-9,  # of the fixed point
    "reference": 1e-6,  # counts in float32
}


@pytest.fixture
def options(tmp_path):
    return Options(threads=1, original=Original(folder=tmp_path / "nothing recorded"))


def rows_of(name, options):
    """Rows at tiny sizes; where each turn is a process of its own, one must do."""
    repeats = 1 if name in ("memory", "reference", "growth") else 2
    try:
        return list(CASES[name].rows(options, "tiny", repeats))
    except ModuleNotFoundError as error:
        if error.name not in ("statsmodels", "numba", "resource"):
            raise
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_and_its_contestants_agree(name, options, tmp_path):
    case, rows = CASES[name], rows_of(name, options)
    report = Report(tmp_path / "out", {"machine": "this one"})
    report.add(case, rows)
    found = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(found) == len(rows)
    assert (found["case"] == name).all()
    assert np.isfinite(found[["median", "lowest", "highest", "ratio"]]).all(axis=None)
    assert set(found["repeats"]) <= {1, 2}
    assert (found["lowest"] <= found["median"]).all()
    assert (found["median"] <= found["highest"]).all()
    differences = found["difference"].dropna()
    assert differences.empty == (name not in AGREEMENT)
    assert (differences <= AGREEMENT.get(name, 0)).all()
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert case.title in text
    assert "- machine: this one" in text
    assert all(contestant in text for contestant in found["contestant"])
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_contestants_take_turns_after_a_warm_up():
    turns = []
    contestants = [
        Contestant("a", lambda: turns.append("a")),
        Contestant("b", lambda: turns.append("b") or 3.0, reports=True, factor=2.0, note="half of it"),
        Contestant("c", lambda: turns.append("c") or 5.0, reports=True, once=True),
    ]
    rows = list(Contest({"genes": 7}, contestants).rows(3))
    assert "".join(turns) == "ab" + "abc" + "ab" + "ab"
    assert [row["repeats"] for row in rows] == [3, 3, 1]
    assert [row["median"] for row in rows[1:]] == [6.0, 5.0]
    assert rows[1]["note"] == "half of it"
    assert all(row["genes"] == 7 and math.isnan(row["difference"]) for row in rows)
    turns.clear()
    list(Contest({}, contestants, warm_up=False).rows(1))
    assert "".join(turns) == "abc"


def test_ratios_are_those_of_the_same_turn():
    slow, fast = itertools.cycle([10.0, 100.0, 40.0]), itertools.cycle([2.0, 10.0, 16.0])
    contestants = [
        Contestant("fast", lambda: next(fast), reports=True),
        Contestant("slow", lambda: next(slow), reports=True),
        Contestant("recorded", lambda: 24.0, reports=True, once=True),
    ]
    rows = list(Contest({}, contestants, unit="MB", warm_up=False, agreement=lambda: 0.5).rows(3))
    assert [row["ratio"] for row in rows] == [
        1.0,
        5.0,
        2.4,
    ]  # of 5, 10 and 2.5, not 40 to 10; recorded is 24 to 10
    assert (rows[1]["lowest"], rows[1]["median"], rows[1]["highest"]) == (10.0, 40.0, 100.0)
    assert {row["yardstick"] for row in rows} == {"fast"}
    assert {row["difference"] for row in rows} == {0.5}


@pytest.mark.slow
def test_peak_growth_is_that_of_the_call():
    held = np.ones(20_000_000)  # what this process holds must not count
    growth = peak_growth(np.ones, (10,), (5_000_000,), threads=1)
    assert held.nbytes > 100e6
    # 40 MB, and what its process needs for a call
    assert 39.5 < growth < 45


def test_growth_goes_from_small_shapes_to_large_ones():
    axes = {
        "a": {"samples": ((10, 1000), {"genes": 7})},
        "b": {"genes": ((5,), {}), "samples": ((10,), {"genes": 7})},
    }
    assert points(axes) == {
        (10, 7, 8): [("a", "samples"), ("b", "samples")],
        (1000, 5, 8): [("b", "genes")],
        (1000, 7, 8): [("a", "samples")],
    }
    assert list(points(axes)) == [(10, 7, 8), (1000, 5, 8), (1000, 7, 8)]


def test_time_at_a_size_is_foreseen_from_the_last_two():
    course = Course()
    assert course.foreseen(100) == 0
    course.add(100, 3.0)
    assert course.foreseen(200) == pytest.approx(6.0)
    course.add(200, 12.0)
    assert course.foreseen(400) == pytest.approx(48.0)
    course.add(400, 12.0)  # never less than in proportion
    assert course.foreseen(800) == pytest.approx(24.0)


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_ended_and_the_next_one_runs():
    pytest.importorskip("resource")
    from benchmarks.held import Holder

    with Holder(threads=1) as holder:
        assert holder.measure("proportions nusvr", (400, 500, 3), 1) is None
        seconds, megabytes = holder.measure("proportions nnls", (400, 500, 3), 60)
    assert 0 < seconds < 60
    # of the bulk's 1.6 MB, of which a block is taken at a time
    assert megabytes < 20


def test_objective_from_the_recorded_histories_is_that_of_the_model():
    cohort = simulate(40, 20, 3)
    model = L2MaxDeconvolver(cohort.reference, renorm_size=None, max_iter=500, positive=False)
    model.fit(cohort.bulk, proportions=cohort.proportions)
    values = objective_history(model, 20)
    # a fit returns the expression that went into its last evaluation
    model.set_params(max_iter=len(values))
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(cohort.bulk, proportions=cohort.proportions)
    value = -model.score(cohort.bulk, proportions=cohort.proportions) * cohort.bulk.size
    np.testing.assert_allclose(values[-1], value, rtol=1e-12)
    assert iterations_to(values[3], values) == 3
    with pytest.raises(RuntimeError, match="more are needed"):
        iterations_to(0.0, values)


@pytest.fixture
def recorded(tmp_path):
    """Recorded timings, in the form of the files that hold them."""
    folder = tmp_path / "reference"
    (folder / "vignette").mkdir(parents=True)
    runs = {"runs": {"l2max_none": {"solver_user_s": 8.0, "n_loss_rows": 40}}}
    (folder / "vignette" / "manifest.json").write_text(json.dumps(runs))
    median = {"median_1_thread": {"iter_cpu_s": 12.5, "peak_rss_mib": 1000.0}}
    timings = {"big": {"20000x300x8": {"l2max_none": median}}}
    (folder / "r_timings.json").write_text(json.dumps(timings))
    return tmp_path


def test_recorded_timings_say_what_they_are(recorded, monkeypatch):
    monkeypatch.setenv("SKENIGMA_DATA", str(recorded))
    original = Original()
    (published,) = original.recorded("l2max_none", (1000, 100, 5), 10)
    assert published.measure() == 2.0
    assert "recorded on another run" in published.note
    (large,) = original.recorded("l2max_none", (20000, 300, 8), 4)
    assert large.measure() == 50.0
    (memory,) = original.recorded_memory("l2max_none", (20000, 300, 8))
    assert memory.measure() == 1048.576
    assert published.once
    assert large.once
    assert memory.once
    assert original.recorded("l2max_none", (60, 12, 3), 4) == []
    assert original.recorded("unknown", (1000, 100, 5), 4) == []
    assert original.run(None) == []


@pytest.mark.skipif(os.name != "posix", reason="stands in for a program by a shell script")
def test_original_script_is_run_on_the_cohort(tmp_path, monkeypatch):
    """An Rscript that looks at what it is given: the program, the folder of inputs, the scripts to source."""
    stand_in = tmp_path / "Rscript"
    stand_in.write_text(
        '#!/bin/sh\ngrep -q cell_deconvolve "$1" || exit 1\n'
        'test "$(head -1 "$2/bulk.csv")" = ",sample1,sample2,sample3,sample4" || exit 1\n'
        'test "$(wc -l < "$2/reference.csv")" = 31 || exit 1\n'
        'test "$(head -1 "$2/proportions.csv")" = ",celltype1,celltype2" || exit 1\n'
        'test "$3" = "$SCRIPT" || exit 1\necho loading\necho seconds 1.25\n'
    )
    stand_in.chmod(0o755)
    script = tmp_path / "ENIGMA.R"
    script.write_text("")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SCRIPT", str(script))
    (contestant,) = Original([script], tmp_path).run(simulate(30, 4, 2))
    assert contestant.name == "original, ENIGMA.R"
    assert contestant.measure() == 1.25
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="Rscript"):
        Original([script], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"missing\.R"):
        Original([tmp_path / "missing.R"], tmp_path)


def test_command_runs_the_named_case_into_the_folder(tmp_path, monkeypatch, capsys):
    case = CASES["fit"]
    monkeypatch.setitem(CASES, "fit", replace(case, settings={"quick": case.settings["tiny"][:1]}))
    out = tmp_path / "some" / "folder"
    command.main(["--case", "fit", "--quick", "--repeats", "1", "--threads", "1", "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {"machine.json", "report.md", "results.csv", "fit.png"}
    printed = capsys.readouterr().out
    machine = json.loads((out / "machine.json").read_text(encoding="utf-8"))
    for name in ("command", "machine", "versions", "threads"):
        assert f"- {name}: {machine[name]}" in printed
    assert machine["command"].startswith("python -m benchmarks --case fit --quick")
    assert "numpy" in machine["versions"]
    # all of BLAS and OpenMP on one thread
    assert all(pool.endswith("with 1") for pool in machine["threads"].split(", "))


def test_what_lacks_a_package_is_skipped_and_says_so(tmp_path, options, capsys):
    def pose(options):
        raise ModuleNotFoundError("No module named 'absent'")

    case = replace(CASES["fit"], name="lacking", title="A title", pose=pose, settings={"full": [{}]})
    report = Report(tmp_path, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CASES, "lacking", case)
        command.run(["lacking"], options, report)
    assert "Not run: No module named 'absent'." in capsys.readouterr().out
    assert (tmp_path / "report.md").exists()


def test_list_names_all_cases(capsys):
    command.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CASES)


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--case", "unknown"], ["--threads", "-1"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_settings_and_numbers_read_well():
    row = {
        "case": "fit",
        "genes": 20000,
        "samples": 300,
        "renorm_size": "None",
        "iterations": 12,
        "unit": "s",
    }
    assert describe(row) == "20,000 genes × 300 samples, renorm size None, 12 iterations"
    assert [number(value) for value in (0.0, 0.001234, 1.0, 45.678, 2345.6, 1e-9)] == [
        "0", "0.00123", "1", "45.7", "2,346", "1e-09",
    ]  # fmt: skip


def test_tables_are_aligned():
    contest = Contest({"genes": 1000}, [Contestant("a", lambda: 1.0, reports=True, once=True)])
    lines = table(pd.DataFrame(contest.rows(1)))
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert "1,000 genes" in lines[2]


def test_slope_and_difference():
    sizes = np.array([10, 100, 1000])
    assert slope(sizes, 7.0 * sizes**1.5) == pytest.approx(1.5)
    assert largest_difference([1.0, 3.0], np.array([1.0, 4.0])) == 0.25


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_choices_are_compared_with_the_best_of_the_grid(monkeypatch, capsys):
    monkeypatch.setattr(choices, "GRID", {"alpha": [0.1], "beta": [50.0, 5.0], "renorm_size": ["auto"]})
    cohorts = [make_cohort(12, 40, n_cell_types=3, random_state=seed) for seed in choices.SEEDS]
    choices.compare("tiny", cohorts, [choices.recoveries(cohort) for cohort in cohorts])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["tiny", "gene"], ["tiny", "sample"]]
    for row in rows:
        chosen, best, default = (np.array(column.split(", "), float) for column in row[2:])
        assert np.all(best >= np.maximum(chosen, default))
        assert len(chosen) == 3


def test_simulated_counts_have_the_truth_of_their_bulk():
    cohort = choices.counts(0, n_samples=4, n_genes=2000)
    assert_allclose(cohort.bulk.sum(axis=1), 1e6)
    mixed = [
        np.linalg.lstsq(cse.T, sample, rcond=None)[0]
        for cse, sample in zip(cohort.cse, cohort.bulk, strict=True)
    ]
    # proportions, up to what counting and scaling to one total change
    assert_allclose(np.sum(mixed, axis=1), 1, atol=0.1)


@pytest.mark.parametrize("scheme", ["given", "rlm", "halves", "unseen"])
def test_comparison_with_the_truth_has_all_answers_and_figures(scheme):
    cohort = truth.simulate(n_samples=12, n_types=3, n_genes=120)
    found = truth.table(cohort, scheme, ["empirical Bayes"], n_splits=1, n_folds=3)
    expected = {
        "halves": ["bulk itself", "reference itself", "scaled reference", "empirical Bayes", "donors"],
        "unseen": ["empirical Bayes"],
    }
    assert list(found.index) == expected.get(scheme, expected["halves"][:-1])
    figures = found.loc[
        "empirical Bayes", ["all", "dominated", "0.2-0.5", "type0", "per sample", "RMSE", "level"]
    ]
    assert np.isfinite(figures.astype(float)).all()
    assert 0 < found.loc["empirical Bayes", "covered 50"] < found.loc["empirical Bayes", "covered 95"] < 100
    assert found.loc["empirical Bayes", "score"] > 0
    if scheme == "given":
        assert found.loc["reference itself", "all"] == 0
        assert_allclose(found.loc[["bulk itself", "scaled reference"], "level"], 1)


def test_the_truth_scores_best_in_every_figure():
    cohort = truth.simulate(n_samples=12, n_types=3, n_genes=60)
    bounds = [(cohort.cse, cohort.cse)] * 3
    figures = truth.measure(cohort, cohort.reference, cohort.proportions, truth.Answer(cohort.cse, bounds))
    assert_allclose(
        [figures[name] for name in ("all", "dominated", "per sample", "covered 95")], [1, 1, 1, 100]
    )
    assert_allclose([figures["RMSE"], figures["score"]], 0, atol=1e-12)
    # beyond an interval of no width by 1: 2/alpha
    shifted = truth.Answer(cohort.cse, [((cohort.cse + 1) * 2 - 1, (cohort.cse + 1) * 2 - 1)] * 3)
    score = truth.measure(cohort, cohort.reference, cohort.proportions, shifted)["score"]
    assert_allclose(score, np.mean([2 / (1 - level) for level in truth.LEVELS]))


class TestFindings:
    """The tables of the page on differential expression, at sizes that say nothing."""

    @pytest.mark.slow
    def test_simulated_tables(self, capsys):
        cohort = findings.synthetic(20, 4.0, 600)
        assert cohort.changed.abs().sum(axis=1).tolist() == [100, 0, 100, 0, 0, 0]
        names = ["log fold change", "interaction"]
        for name, common, rare, small in findings.rates(cohort, names, 2):
            assert name in names
            assert common.shape[0] == rare.shape[0] == 2
            assert common.shape[1] + rare.shape[1] == 6
            assert 0 <= small < 0.3
        table = findings.tests_of(cohort, names[:1])[names[0]](cohort.phenotype)
        found = findings.precision_and_recall(table, cohort.changed)
        assert (found["right"] <= found["called"]).all()
        assert found["changed"].to_dict()["type0"] == 100

    def test_right_is_type_and_direction(self):
        table = pd.DataFrame(
            {
                "cell_type": ["a", "a", "a", "b"],
                "gene": ["x", "y", "z", "x"],
                "statistic": [5.0, -4.0, 3.0, 6.0],
                "p_value": [1e-6, 1e-5, 1e-4, 1e-7],
                "q_value": [0.01, 0.01, 0.2, 0.01],
            }
        )
        changed = pd.DataFrame([[1, 1, 1], [0, 0, 0]], ["a", "b"], ["x", "y", "z"])
        found = findings.precision_and_recall(table, changed)
        assert found.loc["a", ["called", "right", "changed"]].tolist() == [2, 1, 3]
        assert found.loc["b", ["called", "right", "changed"]].tolist() == [1, 0, 0]

    def test_command(self, capsys):
        findings.main(
            [
                "--part",
                "power",
                "--genes",
                "400",
                "--samples",
                "20",
                "--cohorts",
                "1",
                "--tests",
                "interaction",
            ]
        )
        out = capsys.readouterr().out
        assert "| counts, n = 20, 4 × | interaction |" in out
        assert "minutes of processor time" in out


def test_every_job_has_a_look_of_its_own():
    looks = styles(jobs.JOBS)
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(jobs.JOBS) > 5
