"""One page, whatever it is on: a run's folder, a fitted model and an AnnData say the same."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver, ProportionEstimator
from skenigma.anndata import deconvolve
from skenigma.cli import main
from skenigma.report import Report, build_report, show
from skenigma.report._gather import gather
from skenigma.report._rules import verdict

from .support import NASTY, Page, counts_cohort

anndata = pytest.importorskip("anndata")


@pytest.fixture(scope="module")
def cohort():
    bulk, reference, phenotype = counts_cohort()
    # one scale as it is, so that all three ways leave it alone
    return bulk.mul(1e6 / bulk.sum(axis=1), axis=0), reference, phenotype


@pytest.fixture(scope="module")
def model(cohort):
    bulk, reference, _ = cohort
    return EmpiricalBayesDeconvolver(reference).fit(bulk)


@pytest.fixture(scope="module")
def adata(cohort):
    bulk, reference, phenotype = cohort
    data = anndata.AnnData(bulk, obs=pd.DataFrame({"state": phenotype}))
    return deconvolve(data, reference, model=EmpiricalBayesDeconvolver(), normalize=None)


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory):
    """A run on a bulk that has no names that a file could not hold in one line, and a test on it."""
    bulk, reference, phenotype = cohort
    folder = tmp_path_factory.mktemp("run")
    bulk.T.rename_axis("gene").to_csv(folder / "bulk.tsv", sep="\t")
    reference.T.rename_axis("gene").to_csv(folder / "reference.tsv", sep="\t")
    phenotype.rename_axis("sample").to_csv(folder / "phenotype.tsv", sep="\t")
    data = [f"--{name}={folder / name}.tsv" for name in ("bulk", "reference")]
    assert (
        main(
            ["deconvolve", *data, "--model", "bayes", "--total", "as-is", "--out", str(folder / "run"), "-q"]
        )
        == 0
    )
    argv = ["differential", str(folder / "run"), "--phenotype", str(folder / "phenotype.tsv"), "-q"]
    assert main([*argv, "--reference-level", "sick"]) == 0
    return folder / "run"


def test_the_three_hold_the_same(model, adata, run, cohort):
    bulk, _, phenotype = cohort
    of_model = gather(model, X=bulk, phenotype=phenotype)
    of_adata = gather(adata, phenotype="state")
    of_run = gather(run)
    for other in (of_adata, of_run):
        assert list(other.proportions.columns) == list(of_model.proportions.columns)
        assert list(other.proportions.index) == list(of_model.proportions.index)
        # what a file holds has all its digits; threads of the BLAS differ by rounding
        assert_allclose(other.proportions, of_model.proportions, rtol=1e-6)
        assert_allclose(other.proportions_std, of_model.proportions_std, rtol=1e-6)
        assert other.shares_of == of_model.shares_of == "RNA"
        found, expected = other.expression, of_model.expression
        assert found.genes == expected.genes
        for name in ("mean", "reference", "share", "reliability"):
            assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, err_msg=name)
        assert_allclose(found.level, expected.level, rtol=1e-6)
        assert_allclose(found.follows, expected.follows, rtol=1e-5)
        assert_allclose(found.uncertainty, expected.uncertainty, rtol=1e-5)
        assert_allclose(found.curves.bulk, expected.curves.bulk, rtol=1e-6)
        assert_allclose(found.curves.values, expected.curves.values, rtol=1e-5)
        assert_array_equal(other.quality.flag, of_model.quality.flag)
        assert [s.text for s in verdict(other)][:4] == [s.text for s in verdict(of_model)][:4]


def test_intervals_from_files_are_near_those_of_the_model(model, run, cohort):
    expected, found = gather(model, X=cohort[0]).expression.curves, gather(run).expression.curves
    # the model has the tails of t, of which files keep the deviation
    inner = slice(5, -5)
    assert_allclose(np.log2(found.high + 1)[inner], np.log2(expected.high + 1)[inner], rtol=0.02)
    assert_allclose(np.log2(found.low + 1)[inner], np.log2(expected.low + 1)[inner], rtol=0.05, atol=0.1)


def test_groups_of_a_run_are_those_of_its_test(run, cohort):
    found = gather(run)
    assert found.groups.classes == ["sick", "healthy"]  # as the test compared them
    assert found.groups.name == "state"
    assert found.test.method == "log_fold_change"
    assert found.test.contrast == "log2(healthy / sick)"
    text = Page(build_report(run)).text
    assert "below 0 is lower in healthy, compared with sick" in text
    assert "healthy − sick" in text


@pytest.mark.slow
def test_an_input_that_is_gone_is_said(run, tmp_path):
    bulk = run.parent / "bulk.tsv"
    away = bulk.rename(tmp_path / "elsewhere.tsv")
    try:
        text = Page(build_report(run)).text
    finally:
        away.rename(bulk)
    assert f"The bulk is not at {bulk} any more" in text
    assert "Whether the expression adds up to the bulk is not known" in text
    phenotype = run.parent / "phenotype.tsv"
    before = phenotype.read_text()
    phenotype.write_text(before.replace("sick", "ill"))
    try:
        found = gather(run)
    finally:
        phenotype.write_text(before)
    assert found.groups is None
    assert "What needs the phenotype is left out of this page" in found.missing[0]


def test_phenotype_of_the_command_line(run, tmp_path, capsys):
    table = pd.DataFrame(
        {"age": np.arange(24.0), "sex": ["f", "m"] * 12}, [f"donor{n:02d}" for n in range(24)]
    )
    table.rename_axis("sample").to_csv(tmp_path / "clinic.csv")
    argv = [
        "report",
        str(run),
        "--phenotype",
        str(tmp_path / "clinic.csv"),
        "--out",
        str(tmp_path / "page.html"),
        "-q",
    ]
    assert main(argv) == 2
    assert "choose one with --column" in capsys.readouterr().err
    assert main([*argv, "--column", "sex"]) == 0
    assert "m − f" in Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert main(["report", str(run), "--column", "sex"]) == 2
    before = (tmp_path / "clinic.csv").read_bytes()
    assert main([*argv[:4], "--out", str(tmp_path / "clinic.csv"), "--force", "--column", "sex", "-q"]) == 1
    assert (tmp_path / "clinic.csv").read_bytes() == before


def test_a_page_in_a_notebook(model, cohort, tmp_path):
    bulk, _, phenotype = cohort
    report = show(model, X=bulk, phenotype=phenotype, title=NASTY, height=300)
    assert isinstance(report, Report)
    frame = Page(report._repr_html_())
    assert frame.tags == ["iframe"]
    (attributes,) = (given for tag, given in frame.attributes if tag == "iframe")
    assert (
        attributes["srcdoc"] == report.html == build_report(model, X=bulk, phenotype=phenotype, title=NASTY)
    )
    assert attributes["height"] == "300"
    report.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == report.html
    assert "save(path)" in repr(report)


def test_without_its_bulk_a_model_still_has_a_page(model):
    text = Page(build_report(model)).text
    assert "No groups were given" in text
    assert "bulk is not at hand" in text or "It is on the scale of the bulk" in text


def test_an_adata_of_proportions_alone(cohort):
    bulk, reference, _ = cohort
    adata = deconvolve(anndata.AnnData(bulk), reference, model=ProportionEstimator(), normalize=None)
    text = Page(build_report(adata)).text
    assert "Proportions" in text
    assert "Genes that differ" not in text


def test_an_adata_keeps_its_histories(cohort):
    bulk, reference, _ = cohort
    adata = deconvolve(
        anndata.AnnData(bulk),
        reference,
        model=L2MaxDeconvolver(renorm_size="auto", calibrate=True),
        normalize=None,
    )
    found = gather(adata)
    assert found.converged
    assert len(found.history) == adata.uns["skenigma"]["n_iter"]


def test_what_does_not_fit_is_refused(adata, model, cohort):
    with pytest.raises(ValueError, match=r"obs has no column 'age'\. It has 'state'"):
        build_report(adata, phenotype="age")
    with pytest.raises(ValueError, match=r"uns\['other'\]"):
        build_report(adata, key="other")
    with pytest.raises(ValueError, match="lacks p_value, q_value"):
        build_report(model, differential=pd.DataFrame({"cell_type": ["B"], "gene": ["g"]}))
    with pytest.raises(ValueError, match="is not the bulk that was deconvolved: it lacks"):
        build_report(adata, X=cohort[0].iloc[:, 3:])


class TestColoursOfAnAnnData:
    """What scanpy keeps in uns is what charts are drawn in, and nothing else gets from there into the page."""

    @pytest.fixture
    def coloured(self, adata):
        data = adata.copy()
        data.obs["state"] = pd.Categorical(data.obs["state"], categories=["healthy", "sick"])
        data.uns["state_colors"] = ["#112233", "#445566"]
        types = data.uns["skenigma"]["cell_types"]
        data.uns["cell_type_colors"] = [f"#00{number}0ff" for number in range(1, len(types) + 1)]
        return data

    def test_of_cell_types_and_groups(self, coloured):
        html = build_report(coloured, phenotype="state")
        slots = {
            f"#00{number}0ff": 11 + number for number in range(1, 1 + coloured.varm["reference"].shape[1])
        }
        for colour, slot in slots.items():
            assert f".fill{slot}{{fill:{colour}}}" in html
            assert f'<path class="fill{slot}"' in html
        last = max(slots.values())
        for place, colour in enumerate(["#112233", "#445566"], 1):
            assert f".dot{last + place}{{fill:{colour}}}" in html
            assert f'class="dot{last + place}"' in html
            assert f'class="key key{11 + place}"' in html
        assert 'class="fill0"' not in html
        # the script draws genes over samples with the same ones
        assert f'"colours":[{last + 1},{last + 2}]' in html.replace(" ", "")

    def test_by_name_and_of_a_series(self, coloured):
        coloured.uns["state_colors"] = ["tab:blue", "r"]
        html = build_report(coloured, phenotype=coloured.obs["state"])
        assert "{fill:#1f77b4ff}" in html
        assert "{fill:#ff0000ff}" in html

    def test_what_is_no_colour_stays_out(self, coloured):
        coloured.uns["state_colors"] = ["red}</style><script>", "#445566"]
        with pytest.warns(UserWarning, match="are not used"):
            html = build_report(coloured, phenotype="state")
        assert "</style><script>" not in html
        assert "#445566" not in html

    def test_without_any_they_are_the_page_s(self, adata):
        html = build_report(adata, phenotype="state")
        assert 'class="fill0"' in html
        assert ".fill12" not in html
