"""The report: whole, offline, escaped, from a folder and from a model."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from skenigma import L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver
from skenigma.cli import main
from skenigma.datasets import make_cohort
from skenigma.differential import differential_expression
from skenigma.report import build_report, flag_samples, history_frame
from skenigma.report._charts import _decades, _number, line_chart, stacked_bars
from skenigma.report._texts import percent

from .support import NASTY, Page


@pytest.fixture(scope="module")
def cohort():
    cohort = make_cohort(n_samples=30, n_genes=100, n_cell_types=3, as_frame=True, random_state=0)
    cohort.reference.index = ["B", NASTY, "monocyte"]
    return cohort


@pytest.fixture(scope="module")
def model(cohort):
    return L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk)


@pytest.fixture(scope="module")
def table(model, cohort):
    return differential_expression(model, cohort.phenotype, X=cohort.bulk)


def test_page_of_a_model(model, table, cohort):
    source = build_report(model, X=cohort.bulk, differential=table, title=NASTY, top=4)
    page = Page(source)
    for text in (
        "Proportions",
        "Quality of each sample",
        "Gradient norms",
        "Genes that differ",
        "The fit converged",
    ):
        assert text in page.text
    assert page.text.count(NASTY) >= 3  # the title, and the cell type in tables and charts
    assert page.tags.count("script") == 2  # the data and the page's own
    best = table[table.cell_type == "B"].head(5).gene.tolist()
    section = page.text[page.text.index("What was tested and what was found") :]
    assert all(re.search(rf"\b{gene}\b", section) for gene in best[:4])


def test_page_needs_nothing_from_outside(model, table):
    source = build_report(model, differential=table)
    assert {link for link in Page(source).links if not link.startswith("#")} == {"data:,"}
    assert "@import" not in source
    assert "url(" not in source
    # names of namespaces are no addresses to load from
    assert set(re.findall(r"https?://[^\"'\s]+", source)) == {"http://www.w3.org/2000/svg"}


def test_page_of_a_fit_that_stopped(cohort):
    with pytest.warns(UserWarning, match="did not converge"):
        model = TraceNormDeconvolver(cohort.reference, max_iter=2).fit(cohort.bulk)
    page = Page(build_report(model))
    assert "did not converge" in page.text
    assert "Gradient norms" not in page.text
    assert "No test was run" in page.text
    assert "Quality of each sample" not in page.text


def test_quality_of_arrays(cohort):
    model = L2MaxDeconvolver(cohort.reference.to_numpy(), renorm_size="auto").fit(cohort.bulk.to_numpy())
    assert "Quality of each sample" in Page(build_report(model, X=cohort.bulk.to_numpy())).text


def test_page_of_proportions(cohort):
    page = Page(build_report(ProportionEstimator(cohort.reference).fit(cohort.bulk)))
    assert "How the fit went" not in page.text
    assert page.text.count("sample30") >= 1


def test_page_of_proportions_with_standard_errors():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1, 100, (3, 60))
    bulk = rng.dirichlet(np.ones(3), 9) @ profiles * np.exp(rng.normal(0, 0.1, (9, 60)))
    estimator = ProportionEstimator(profiles, method="log").fit(bulk)
    text = Page(build_report(estimator)).text
    assert "Shares of RNA, not of cells" in text
    assert "standard errors are a lower bound" in text
    for k in range(3):
        assert percent(np.median(estimator.proportions_std_[:, k])) in text
    text = Page(build_report(estimator.set_params(method="rlm", rna_content=[1, 2, 3]).fit(bulk))).text
    assert "Shares of cells." in text
    assert "lower bound" not in text


def test_page_of_a_folder(tmp_path, capsys):
    folder, run = str(tmp_path / "cohort"), str(tmp_path / "run")
    files = [word for name in ("bulk", "reference") for word in (f"--{name}", f"{folder}/{name}.tsv")]
    main(["simulate", "--samples", "20", "--genes", "60", "--cell-types", "2", "--out", folder, "-q"])
    main(["deconvolve", *files, "--out", run, "-q", "--model", "l2max", "--max-iter", "3"])
    main(["differential", run, "--phenotype", f"{folder}/phenotype.tsv", "-q"])
    assert main(["report", run, "--title", "Cohort A", "--json", "-q"]) == 0
    summary = json.loads(capsys.readouterr().out)
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert summary["out"] == str(tmp_path / "run" / "report.html")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    for text in ("Cohort A", "Warnings of the run", "Genes that differ", record["inputs"]["bulk"]["sha256"]):
        assert text in page.text
    assert main(["report", run]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["report", run, "--force", "-q"]) == 0
    assert main(["report", folder, "--out", str(tmp_path / "x.html")]) == 2
    assert main(["report", run, "--differential", folder, "--out", str(tmp_path / "x.html")]) == 1
    assert not (tmp_path / "x.html").exists()


def test_tables_show_what_is_missing(model):
    rows = {"cell_type": "B", "gene": ["g1", "g2"], "p_value": [0.5, np.nan], "q_value": [0.5, np.nan]}
    text = Page(build_report(model, differential=pd.DataFrame({**rows, "flag": ["", "constant"]}))).text
    assert "1 gene could not be tested: the values do not vary (1)" in text


def test_history_is_that_of_the_model(model):
    history = history_frame(model)
    assert history.index.tolist() == list(range(1, model.n_iter_ + 1))
    np.testing.assert_array_equal(history["penalty"], model.loss_history_[:, 2])
    np.testing.assert_array_equal(history["gradient reference"][:-1], model.gradient_norm_[:, 1])
    np.testing.assert_array_equal(history["change monocyte"], model.delta_history_[:, 2])


def test_flags():
    quality = pd.DataFrame(
        {
            "r2": [0.8] * 8 + [0.5, -0.1, np.nan],
            "correlation": [0.9, 0.91, 0.89, 0.9, 0.92, 0.88, 0.9, 0.9, 0.5, 0.4, np.nan],
        }
    )
    assert flag_samples(quality).flag.tolist() == [""] * 8 + ["poor fit", "worse than a constant", "constant"]


def test_alike_samples_and_perfect_fits_are_not_flagged():
    quality = pd.DataFrame({"r2": 1.0, "correlation": [1.0, 1.0, 1.0]})
    assert not flag_samples(quality).flag.any()


def test_line_leaves_out_rounding_noise():
    svg = line_chart({"loss": [1e-27, 2.0, 3.0]}, "Loss", "iteration", "units")
    (path,) = re.findall(r' d="(M[^"]+)"', svg)
    assert path.count("L") == 1


@pytest.mark.parametrize("values", [[5.0, 5.0], [7.0]])
def test_line_that_is_flat_or_short_is_finite(values):
    assert "nan" not in line_chart({"a": values}, "t", "x", "y")


def test_nothing_to_draw_is_said():
    assert "Nothing was recorded" in line_chart({"a": [0.0, np.nan]}, "t", "x", "y")


def test_bars_fill_the_height():
    svg = stacked_bars(pd.DataFrame({"a": [0.25, 1.0], "b": [0.75, 0.0]}), "t", "x", [4, 0])
    first, second = re.findall(r'class="fill[40]" d="([^"]+)"', svg)
    assert svg.index("fill4") < svg.index("fill0")
    assert first == "M0 1.0000V0.7500h1V0.0000h1V1.0000h-1V1.0000h-1Z"
    assert second == "M0 0.7500V0.0000h1V0.0000h1V0.0000h-1V0.7500h-1Z"


@pytest.mark.parametrize(("low", "high"), [(0, 0.3), (0.2, 1.1), (1, 3.9), (-3, 5), (-12, 14)])
def test_ticks_are_few_and_more_than_one(low, high):
    assert 2 <= len(_decades(low, high)) <= 7


@pytest.mark.parametrize(("value", "text"), [(3000, "3000"), (1e4, "10⁴"), (3e-5, "3·10⁻⁵"), (0.01, "0.01")])
def test_tick_texts(value, text):
    assert _number(value) == text
