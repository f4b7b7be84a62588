"""The page for users of the R package: every row that it calls tested names the test, and its session is run."""

import ast
import pathlib
import re

import numpy as np
import pytest

from skenigma import TraceNormDeconvolver
from skenigma.batch import BulkBatchCorrector
from skenigma.differential import differential_expression
from skenigma.presets import enigma_l2_max_norm

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "user_guide" / "migration.md"
HERE = "tests/project/test_migration.py"
PRESETS = "tests/presets/test_functions.py"
VIGNETTE = "tests/deconvolution/test_vignette.py"
PROPORTIONS = "tests/proportions/test_estimator.py"
EXPRESSION = f"{PRESETS}::test_l2_max_norm"
TRACE = f"{PRESETS}::test_trace_norm"
TESTED_DE = "tests/differential/test_regressions.py::test_recorded_outputs"

# Section and start of the first cell of a row: the test that runs it against recorded output of R.
EVIDENCE = {
    ("create_ENIGMA", "`bulk`"): EXPRESSION,
    ("create_ENIGMA", '`ref`, with `ref_type = "aggre"`'): EXPRESSION,
    ("batch_correct", "B mode"): "tests/batch/test_correctors.py::TestBulkAgainstR",
    ("batch_correct", "S mode"): "tests/batch/test_correctors.py::TestReferenceAgainstR",
    ("get_cell_proportion", "the function"): f"{HERE}::test_session",
    ("get_cell_proportion", '`method = "RLR"`'): f"{PROPORTIONS}::test_rlm",
    ("get_cell_proportion", '`method = "CBS"`'): f"{PROPORTIONS}::test_r_solved_this_problem",
    ("get_cell_proportion", "`nu.v`"): f"{PROPORTIONS}::test_r_selected_the_same",
    ("get_cell_proportion", "slot"): f"{HERE}::test_session",
    ("ENIGMA_L2_max_norm", "`alpha`"): f"{VIGNETTE}::test_renormalised_with_other_alpha",
    ("ENIGMA_L2_max_norm", "`tao_k`"): EXPRESSION,
    ("ENIGMA_L2_max_norm", "`beta`"): EXPRESSION,
    ("ENIGMA_L2_max_norm", "gradient size"): EXPRESSION,
    ("ENIGMA_L2_max_norm", "`epsilon`"): EXPRESSION,
    ("ENIGMA_L2_max_norm", "`verbose`"): f"{VIGNETTE}::test_verbose_prints_the_published_trace",
    ("ENIGMA_L2_max_norm", "`pos`"): EXPRESSION,
    ("ENIGMA_L2_max_norm", "`Normalize`"): EXPRESSION,
    ("ENIGMA_L2_max_norm", "`preprocess`"): EXPRESSION,
    ("ENIGMA_L2_max_norm", "`loss_his`"): f"{PRESETS}::test_losses",
    ("ENIGMA_L2_max_norm", "`X_int`"): f"{PRESETS}::TestWithoutRoundingNoise",
    ("ENIGMA_L2_max_norm", "slots"): EXPRESSION,
    ("ENIGMA_L2_max_norm", '"Convergence Error"'): f"{PRESETS}::test_convergence_error_is_a_warning_here",
    ("ENIGMA_trace_norm", "`theta`"): TRACE,
    ("ENIGMA_trace_norm", "`R`"): TRACE,
    ("ENIGMA_trace_norm", "`alpha`"): TRACE,
    ("ENIGMA_trace_norm", "`gamma`"): TRACE,
    ("ENIGMA_trace_norm", "`solver`"): TRACE,
    ("ENIGMA_trace_norm", "`preprocess`"): TRACE,
    ("ENIGMA_trace_norm", "`X_int`"): TRACE,
    ("ENIGMA_trace_norm", "`cell_deconvolve_trace("): f"{HERE}::test_older_trace_norm",
    ("FindCSE_DEG", "`object`"): f"{HERE}::test_session",
    ("FindCSE_DEG", "`y`"): TESTED_DE,
    ("FindCSE_DEG", "`FDR_control = TRUE`"): TESTED_DE,
    ("FindCSE_DEG", "`FDR_control = FALSE`"): TESTED_DE,
    ("FindCSE_DEG", "`covariate`"): TESTED_DE,
    ("FindCSE_DEG", "`FoldChange`"): TESTED_DE,
    ("FindCSE_DEG", "a list of tables"): TESTED_DE,
    ("The other functions", "`sce2array(object)`"): EXPRESSION,
    ("The other functions", "slots `bulk`, `ref`"): "tests/batch/test_correctors.py::test_restored_reference",
    ("Functions of the published scripts", "`cell_deconvolve("): f"{VIGNETTE}::test_cse",
    ("Functions of the published scripts", "the same, renormalised"): f"{VIGNETTE}::test_renormalised",
    ("Functions of the published scripts", "its `gradient_norm`"): f"{VIGNETTE}::test_gradient_norms",
    ("Functions of the published scripts", "its `loss_history`"): f"{VIGNETTE}::test_losses",
    ("Functions of the published scripts", "`GeneSigTest`"): (
        "tests/reliability/test_reliability.py::test_recorded_p_values_and_calls"
    ),
    ("Functions of the published scripts", "ADMM of the maximum L2 norm"): (
        "tests/deconvolution/test_tracenorm.py::test_max_norm_runs"
    ),
    (
        "Functions of the published scripts",
        '"Converge in N steps"',
    ): f"{VIGNETTE}::test_iterations_and_shapes",
}


def rows():
    """Section, first cell and last cell of every row."""
    section = None
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:].strip("`")
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[-1] != "tested" and not set(cells[0]) <= {"-"}:
            yield section, cells[0], cells[-1]


def test_every_row_says_whether_it_is_tested():
    assert {mark for _, _, mark in rows()} == {"✓", "–"}


def test_rows_called_tested_are_those_with_a_test():
    called = [(section, first) for section, first, mark in rows() if mark == "✓"]
    unknown = [row for row in called if not any(row[0] == s and row[1].startswith(f) for s, f in EVIDENCE)]
    assert not unknown
    missing = [key for key in EVIDENCE if not any(s == key[0] and f.startswith(key[1]) for s, f in called)]
    assert not missing


@pytest.mark.parametrize("test", sorted(set(EVIDENCE.values())))
def test_the_test_is_there(test):
    path, name = test.split("::")
    defined = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert name in defined


def test_session_of_the_page_is_the_one_that_is_run():
    (r_code,) = re.findall(r"```r\n(egm <- create_ENIGMA.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert 'ref_type = "aggre"' in r_code
    assert 'ENIGMA_L2_max_norm(egm, preprocess = "sqrt", beta = 0.01)' in r_code
    assert 'enigma_l2_max_norm(ref, preprocess="sqrt", beta=0.01).fit(corrected)' in PAGE.read_text("utf-8")


@pytest.mark.slow
def test_session(package):
    """From R's tables of bulk and profiles to its table of changed genes, every step by ours."""
    bulk, ref = (package.table(f"inputs/{name}_cpm.csv.gz").T for name in ("bulk", "reference"))
    corrected = BulkBatchCorrector(ref).set_output(transform="pandas").fit_transform(bulk)
    model = enigma_l2_max_norm(ref, preprocess="sqrt", beta=0.01).fit(corrected)
    proportions = package.table("outputs/theta_rlr_bmode.csv.gz").to_numpy()
    np.testing.assert_allclose(model.proportions_, proportions, atol=1e-9)
    recorded = package.run("l2_mild_sqrt_frac")
    difference = model.cse_normalized_ - recorded["CSE_norm"]
    # R itself moves by 1e-5 when the bulk changes in the last bit: its first step goes along rounding noise
    assert np.linalg.norm(difference) < 2e-5 * np.linalg.norm(recorded["CSE_norm"])
    table = differential_expression(model, package.table("inputs/phenotype.csv.gz").y, method="joint")
    expected = package.table("outputs/deg_l2_mild_sqrt_frac_fdrTRUE_fcFALSE_cov_none.csv.gz").reset_index()
    both = expected.merge(table[table.flag == ""], on=["cell_type", "gene"])
    assert len(both) > 1190
    np.testing.assert_allclose(np.log(both.p_value), np.log(both.pvalue), rtol=0, atol=0.02)


@pytest.mark.slow
def test_older_trace_norm(vignette):
    """``cell_deconvolve_trace`` is the iteration of the scripts' ``admm_fast``, ended by another rule."""
    recorded = vignette.run("trace_admm_fast")
    bulk, ref = (vignette.table(f"{name}.csv.gz").T for name in ("bulk", "reference"))
    steps = {
        "solver": "admm_fast",
        "positive": False,
        "epsilon": 0,
        "max_iter": len(recorded["loss_history"]),
    }
    model = TraceNormDeconvolver(ref, alpha=0.1, beta=1, gamma=0.5, **steps)
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(bulk, proportions=vignette.table("theta.csv.gz"))
    difference = model.cse_ - recorded["X_k"]
    assert np.abs(difference).max() < 1e-11 * np.abs(recorded["X_k"]).max()  # rounding of 172 iterations
