"""The factor model on the command line."""

import numpy as np
import pandas as pd
import pytest

from skenigma.cli import main
from skenigma.datasets import make_cohort
from skenigma.differential import factor_test


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("factor")
    cohort = make_cohort(40, 120, 3, random_state=0, as_frame=True)
    cohort.bulk.T.to_csv(folder / "bulk.tsv", sep="\t")
    cohort.reference.T.to_csv(folder / "reference.tsv", sep="\t")
    cohort.proportions.to_csv(folder / "proportions.tsv", sep="\t")
    cohort.phenotype.to_frame("group").to_csv(folder / "phenotype.tsv", sep="\t")
    data = [f"--{name}={folder / name}.tsv" for name in ("bulk", "reference", "proportions")]
    assert main(["deconvolve", *data, "--model", "factor", f"--out={folder / 'run'}"]) == 0
    return folder


def test_test_is_that_of_the_library(folder):
    command = ["differential", f"{folder / 'run'}", f"--phenotype={folder / 'phenotype.tsv'}"]
    assert main([*command, "--method", "factor", f"--out={folder / 'found'}"]) == 0
    found = pd.read_csv(folder / "found" / "differential.tsv", sep="\t")
    cohort = make_cohort(40, 120, 3, random_state=0, as_frame=True)
    expected = factor_test(cohort.bulk, cohort.proportions, cohort.phenotype, reference=cohort.reference)
    pairs = ["cell_type", "gene"]
    found, expected = found.set_index(pairs), expected.set_index(pairs)
    # digits of the files, grown until the fit has converged
    np.testing.assert_allclose(found.p_value, expected.p_value.loc[found.index], atol=1e-4)


def test_its_expression_is_not_tested(folder, capsys):
    command = ["differential", f"{folder / 'run'}", f"--phenotype={folder / 'phenotype.tsv'}"]
    assert main([*command, "--method", "joint", f"--out={folder / 'no'}"]) != 0
    assert "is a posterior mean" in capsys.readouterr().err
