"""Folders that the commands leave, made once for the tests that look at them."""

from skenigma.cli import main


def small_run(folder, *, max_iter):
    """A cohort in ``folder/cohort``, and a run of it in ``folder/run``; returns the options that name its tables."""
    options = ["--samples", "12", "--genes", "60", "--cell-types", "2", "--quiet"]
    assert main(["simulate", *options, "--out", str(folder / "cohort")]) == 0
    data = ["--bulk", str(folder / "cohort/bulk.tsv"), "--reference", str(folder / "cohort/reference.tsv")]
    model = ["--model", "l2max", "--max-iter", str(max_iter)]
    assert main(["deconvolve", *data, *model, "--out", str(folder / "run"), "--quiet"]) == 0
    return data
