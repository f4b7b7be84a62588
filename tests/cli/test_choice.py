"""Choice of parameters on the command line."""

import json

import pandas as pd
import pytest

from skenigma import L2MaxDeconvolverCV, ProportionEstimator, io
from skenigma.cli import main
from skenigma.datasets import make_cohort


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    cohort = make_cohort(16, 40, 2, random_state=1, as_frame=True)
    for name in ("bulk", "reference"):
        io.write_table(cohort[name].T.rename_axis("gene"), folder / f"{name}.tsv")
    return ["--bulk", f"{folder}/bulk.tsv", "--reference", f"{folder}/reference.tsv", "--model", "l2max"]


@pytest.mark.slow
def test_choice_is_that_of_the_library(arguments, tmp_path, capsys):
    assert main(["deconvolve", *arguments, "--choose", "--seed", "3", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    cohort = make_cohort(16, 40, 2, random_state=1, as_frame=True)
    search = L2MaxDeconvolverCV(
        cohort.reference, random_state=3, proportion_estimator=ProportionEstimator(method="auto")
    ).fit(cohort.bulk)
    assert record["result"]["choice"]["parameters"] == search.best_params_
    assert {
        name: record["options"]["parameters"][name] for name in search.best_params_
    } == search.best_params_
    assert record["seeds"] == {"random_state": 3}
    assert f"alpha={search.best_params_['alpha']}" in said
    tried = pd.read_csv(tmp_path / "run" / "choice.tsv", sep="\t")
    assert tried["mean_test_score"].to_numpy() == pytest.approx(
        search.cv_results_["mean_test_score"], rel=1e-9
    )
    assert set(tried["param_renorm_size"]) == {"none", "auto"}
    # repeated, and refitted for new samples, by what was chosen
    again = ["--from", str(tmp_path / "run" / "run.json"), "--out", str(tmp_path / "again")]
    assert main(["deconvolve", *again]) == 0
    assert "same bytes" in capsys.readouterr().err
    new = ["--bulk", arguments[1], "--out", str(tmp_path / "new")]
    assert main(["transform", str(tmp_path / "run"), *new]) == 0
    one, two = (io.read_run(tmp_path / name).expression()["celltype1"] for name in ("run", "new"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--alpha", "0.3"], "--choose finds --alpha itself"),
        (["--model", "tracenorm"], "--choose is for --model l2max"),
    ],
)
def test_refused(arguments, tmp_path, capsys, options, part):
    assert main(["deconvolve", *arguments, "--choose", *options, "--out", str(tmp_path / "run")]) == 2
    assert part in capsys.readouterr().err
