"""What every model arrives in: AnnData, files, report and tests, whatever it is and whatever it does not have."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skenigma import deconvolution, io
from skenigma.cli import main
from skenigma.datasets import make_cohort
from skenigma.deconvolution import BaseDeconvolver, Estimate
from skenigma.deconvolution._choice import MODELS as MODELS_BY_NAME
from skenigma.differential import differential_expression
from skenigma.expression import CellTypeExpression
from skenigma.metrics import recovery_scorer
from skenigma.reliability import bootstrap_reliability
from skenigma.report import build_report, history_frame
from skenigma.report._contents import uncertainty_frame
from tests.models import DOCS, MODELS

TYPES = ["B/plasma", "T", "NK"]


@pytest.fixture(scope="module")
def data():
    """Bulk and reference on the linear scale, with a total of a million."""
    cohort = make_cohort(14, 60, len(TYPES), random_state=0, as_frame=True)
    tables = [np.exp2(0.5 * table.to_numpy()) for table in (cohort.bulk, cohort.reference)]
    tables = [1e6 * table / table.sum(axis=1, keepdims=True) for table in tables]
    frames = zip(tables, (cohort.bulk.index, TYPES), strict=True)
    return [pd.DataFrame(table, index, cohort.bulk.columns) for table, index in frames]


@pytest.fixture(params=list(MODELS))
def model(request):
    # with values of this size nothing converges at the published settings, which is not the point here
    model = clone(MODELS[request.param])
    return model.set_params(**{"max_iter": 3} if "max_iter" in model.get_params() else {})


pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:renorm_size:UserWarning"),
    # of the factor model, which is for other scales
    pytest.mark.filterwarnings("ignore:X has no negative value:UserWarning"),
]


def test_every_public_model_is_among_those_that_tests_loop_over():
    """A model that is exported and has no row in tests/models.py would be tested by none of the loops."""
    public = [getattr(deconvolution, name) for name in deconvolution.__all__]
    public = {one for one in public if issubclass(one, BaseDeconvolver)} - {BaseDeconvolver}
    assert public <= {type(one) for one in MODELS.values()}
    assert set(MODELS_BY_NAME.values()) <= public


def test_anndata(model, data, tmp_path):
    anndata = pytest.importorskip("anndata")
    from skenigma.anndata import cse_to_anndata, deconvolve

    bulk, reference = data
    adata, fitted = deconvolve(anndata.AnnData(bulk), reference, model=model, return_model=True)
    adata.write_h5ad(tmp_path / "found.h5ad")
    adata = anndata.read_h5ad(tmp_path / "found.h5ad")
    described = adata.uns["skenigma"]
    assert list(described["layers"]) == ["cse_B|plasma", "cse_T", "cse_NK"]
    for k, name in enumerate(described["layers"]):
        assert_array_equal(adata.layers[name], fitted.cse_[:, k])
    by_row = cse_to_anndata(adata)
    if fitted.expression_.has_std:
        assert list(described["std_layers"]) == ["cse_std_B|plasma", "cse_std_T", "cse_std_NK"]
        for k, name in enumerate(described["std_layers"]):
            assert_array_equal(adata.layers[name], fitted.cse_std_[:, k])
        assert_array_equal(by_row.layers["std"], fitted.cse_std_.reshape(by_row.shape))
    else:
        assert not len(described["std_layers"])
        assert not [name for name in adata.layers if name.startswith("cse_std")]
        assert not len(by_row.layers)
    for name in ("n_iter_", "converged_", "loss_history_", "variance_"):
        assert (name.rstrip("_") in described) == hasattr(fitted, name)


def test_report_of_a_model(model, data):
    bulk, reference = data
    fitted = model.set_params(reference=reference).fit(bulk)
    page = build_report(fitted, X=bulk)
    assert ("Uncertainty of the expression" in page) == fitted.expression_.has_std
    assert ("How the fit went" in page) == hasattr(fitted, "loss_history_")
    assert ("converge" in page) == hasattr(fitted, "converged_")
    if not hasattr(fitted, "loss_history_"):
        with pytest.raises(ValueError, match="has no history"):
            history_frame(fitted)


def test_differential_expression_reliability_and_scorer(model, data):
    bulk, reference = data
    fitted = model.set_params(reference=reference).fit(bulk)
    if fitted.expression_.is_posterior_mean:
        with pytest.raises(ValueError, match="is a posterior mean"):
            differential_expression(fitted, np.arange(14) % 2, X=bulk, method="marginal")
    method = "interaction" if fitted.expression_.is_posterior_mean else "marginal"
    table = differential_expression(fitted, np.arange(14) % 2, X=bulk, method=method)
    assert len(table) == 3 * bulk.shape[1]
    found = bootstrap_reliability(fitted, bulk, n_bootstraps=2, random_state=0)
    assert found.standard_error.shape == (3, bulk.shape[1])
    score = recovery_scorer("per_sample")(fitted, bulk, fitted.cse_)
    assert_allclose(score, 1.0, rtol=1e-6)


def test_uncertainty_says_where_estimates_vary_beyond_their_deviation():
    class Source:
        has_std = True

        def values(self, samples, cell_types, genes):
            # the first gene varies by 1 over samples, the second by 0.1
            return np.array([[[1.0, 5.0]], [[2.0, 5.1]], [[3.0, 5.2]]])

        def std(self, *part):
            return np.full((3, 1, 2), 0.5)

    names = np.array(["a"], dtype=object)
    found = uncertainty_frame(CellTypeExpression(Source(), np.ones((3, 1)), names, np.array(["x", "y"])))
    assert found.loc["a"].tolist() == [4.0, 0.5, 0.5]


@pytest.fixture
def files(data, tmp_path):
    bulk, reference = data
    bulk.T.to_csv(tmp_path / "bulk.tsv", sep="\t")
    reference.T.to_csv(tmp_path / "reference.tsv", sep="\t")
    return ["--bulk", str(tmp_path / "bulk.tsv"), "--reference", str(tmp_path / "reference.tsv")]


OWN = ["--model", "model_example:GaussianDeconvolver"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tsv", "h5ad"])
def test_command_line_runs_a_model_that_it_has_never_heard_of(files, data, tmp_path, monkeypatch, form):
    pytest.importorskip("anndata")
    monkeypatch.syspath_prepend(str(DOCS))
    run = tmp_path / "run"
    arguments = ["deconvolve", *files, *OWN, "--preprocess", "log", "--format", form, "-q"]
    assert main([*arguments, "--out", str(run)]) == 0
    record = json.loads((run / "run.json").read_text())
    assert record["result"]["model"] == "GaussianDeconvolver"
    assert record["options"]["parameters"]["preprocess"] == "log"
    assert record["result"]["resolved"]["variance_"] > 0
    assert "converged" not in record["result"]
    assert not (run / "history.tsv").exists()

    bulk, reference = data
    model = clone(MODELS["gaussian"]).set_params(reference=reference, preprocess="log")
    fitted = model.fit(bulk, proportions=io.read_proportions(run / "proportions.tsv"))
    folder = io.read_run(run)
    for kind, tensor in (("expression", fitted.cse_), ("expression_std", fitted.cse_std_)):
        frames = folder.expression(kind)
        assert list(frames) == TYPES
        for k, frame in enumerate(frames.values()):
            # the command line holds the expression in its compact form
            assert_allclose(frame.to_numpy(), tensor[:, k], rtol=1e-9)
    written = folder.table("uncertainty.tsv")
    assert_allclose(written.to_numpy(), uncertainty_frame(fitted.expression_).to_numpy(), rtol=1e-9)

    assert main(["report", str(run), "-q"]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Uncertainty of the expression" in page
    assert "How the fit went" not in page
    again = ["deconvolve", "--from", str(run / "run.json"), "--out", str(tmp_path / "again"), "-q"]
    assert main(again) == 1  # no record decides what code is run
    assert main([*again, *OWN]) == 0
    phenotype = pd.DataFrame({"group": ["a", "b"] * 7}, index=bulk.index)
    phenotype.to_csv(tmp_path / "phenotype.tsv", sep="\t")
    phenotype = ["--phenotype", str(tmp_path / "phenotype.tsv"), "--method"]
    assert main(["differential", str(run), *phenotype, "interaction", "-q"]) == 0
    # its values are posterior means, of which the tests on expression would find too much
    assert main(["differential", str(run), *phenotype, "marginal", "-q"]) == 1


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--model", "linear"], ["'linear' is neither auto, l2max", "package.module:Class"]),
        (["--model", "no_such_module:Model"], ["cannot import no_such_module", "PYTHONPATH"]),
        (["--model", "model_example:Missing"], ["no class Missing", "BaseDeconvolver"]),
        (["--model", "model_example:Posterior"], ["no class Posterior"]),
        ([*OWN, "--beta", "3"], ["--beta belongs to --model l2max, tracenorm, not to model_example"]),
        (["--model", "factor", "--beta", "3"], ["--beta belongs to --model l2max, tracenorm, not to factor"]),
        ([*OWN, "--set", "rank=3"], ["--set rank", "no such parameter"]),
        ([*OWN, "--set", "rank"], ["'rank' is not NAME=VALUE"]),
        ([*OWN, "--set", "reference=3"], ["--set reference", "no such parameter"]),
    ],
)
def test_command_line_refuses_what_is_no_model(files, tmp_path, monkeypatch, capsys, options, parts):
    monkeypatch.syspath_prepend(str(DOCS))
    assert main(["deconvolve", *files, *options, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in parts)
    assert not (tmp_path / "run").exists()


def test_parameters_without_an_option_can_be_set(files, tmp_path):
    options = [
        "--model",
        f"{__name__}:EchoDeconvolver",
        "--set",
        "own_state=true",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["deconvolve", *files, *options, "-q"]) == 0
    parameters = json.loads((tmp_path / "run" / "run.json").read_text())["options"]["parameters"]
    assert parameters == {"own_state": True}
    again = ["--from", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "-q"]
    assert main(["deconvolve", *again, *options[:2]]) == 0


@pytest.mark.parametrize("name", list(MODELS_BY_NAME))
def test_every_named_model_runs(files, tmp_path, name):
    assert main(["deconvolve", *files, "--model", name, "--out", str(tmp_path / "run"), "-q"]) == 0
    folder = io.read_run(tmp_path / "run")
    assert folder.record["result"]["model"] == MODELS_BY_NAME[name].__name__
    assert list(folder.expression()) == TYPES
    assert list(folder.expression("expression_std")) in ([], TYPES)


class Echo:
    """Map and state: every cell type has what the bulk has."""

    def __init__(self, bulk=None, n_types=None):
        self.bulk, self.n_types = bulk, n_types

    def replay(self, bulk, proportions):
        return Echo(bulk, proportions.shape[1])

    def expand(self, samples, cell_types, genes):
        n_types = len(np.arange(self.n_types)[cell_types])
        return np.repeat(self.bulk[samples][:, None, genes], n_types, axis=1)

    def deviations(self, samples, cell_types, genes):
        return np.abs(self.expand(samples, cell_types, genes))


class EchoDeconvolver(BaseDeconvolver):
    """The shortest model there is, in either way to give its state."""

    def __init__(self, reference=None, *, proportion_estimator=None, materialize=True, own_state=False):
        super().__init__(reference, proportion_estimator=proportion_estimator, materialize=materialize)
        self.own_state = own_state

    _parameter_constraints = {**BaseDeconvolver._parameter_constraints, "own_state": ["boolean"]}  # noqa: RUF012

    def _estimate(self, cohort):
        theta = cohort.proportions
        return Estimate(Echo(), state=(lambda bulk: Echo().replay(bulk, theta)) if self.own_state else None)


@pytest.mark.parametrize("own_state", [False, True])
def test_a_state_may_keep_the_bulk_it_is_given(data, own_state):
    bulk, reference = data[0].to_numpy(copy=True), data[1].to_numpy()
    model = EchoDeconvolver(reference, own_state=own_state).fit(bulk)
    expected = bulk.copy()
    bulk[:] = 1.0
    assert_array_equal(model.expression_.values(cell_types=[0])[:, 0], expected)
    assert_array_equal(model.expression_.std(cell_types=[0])[:, 0], expected)


def test_a_class_that_is_no_model_says_what_it_lacks(data):
    with pytest.raises(NotImplementedError, match=r"_estimate\(cohort\)"):
        BaseDeconvolver(data[1]).fit(data[0])
