"""The page "Add a model": its code runs as it stands, is short, and needs nothing but public names."""

import ast
import re
from numbers import Real

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import skenigma
from skenigma.checks.validation import Interval
from skenigma.datasets import make_cohort
from tests.models import DOCS, MODELS, documented

PAGE, EXAMPLE = (DOCS / name for name in ("add_model.md", "model_example.py"))
LONGEST = 40


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(200, 100, 4, random_state=0, as_frame=True)


def test_example_is_short_and_public():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert {node.module for node in imported} == {"dataclasses", "skenigma.deconvolution"}
    assert not [alias.name for node in imported for alias in node.names if alias.name.startswith("_")]


def test_page_shows_all_of_the_example():
    page, example = PAGE.read_text(encoding="utf-8"), documented("model_example")
    own = [
        name for name, thing in vars(example).items() if getattr(thing, "__module__", "") == example.__name__
    ]
    assert own == re.findall(r":pyobject: (\w+)\n", page)[::-1]


def test_posterior_is_that_of_the_formula(cohort):
    """Against the conditional normal distribution of all cell types of one sample and gene, by its covariance."""
    model = type(MODELS["gaussian"])(cohort.reference, positive=False)
    model.fit(cohort.bulk, proportions=cohort.proportions)
    theta, tau = cohort.proportions.to_numpy()[7], model.variance_
    reference = cohort.reference.to_numpy()[:, 3]
    bulk_variance = tau * theta @ theta + tau / 10
    mean = reference + tau * theta / bulk_variance * (cohort.bulk.iloc[7, 3] - theta @ reference)
    covariance = tau * np.eye(4) - tau**2 * np.outer(theta, theta) / bulk_variance
    assert_allclose(model.cse_[7, :, 3], mean, rtol=1e-12)
    assert_allclose(model.cse_std_[7, :, 3], np.sqrt(np.diag(covariance)), rtol=1e-12)


def test_variance_and_intervals_are_right_where_the_model_holds():
    """Data drawn from the model itself: the variance is found, and intervals hold what they promise."""
    rng, tau = np.random.default_rng(0), 4.0
    reference, theta = rng.normal(0, 3, (4, 500)), rng.dirichlet(np.ones(4), 300)
    truth = reference + rng.normal(0, np.sqrt(tau), (300, 4, 500))
    bulk = np.einsum("jk,jkg->jg", theta, truth) + rng.normal(0, np.sqrt(tau / 10), (300, 500))
    model = type(MODELS["gaussian"])(reference).fit(bulk, proportions=theta)
    # of 150,000 squares: the standard error is below 0.5 %
    assert_allclose(model.variance_, tau, rtol=0.02)
    for level in (0.5, 0.9):
        low, high = model.expression_.interval(level)
        assert_allclose(np.mean((low <= truth) & (truth <= high)), level, atol=0.01)


def test_code_of_the_page_runs(cohort):
    anndata = pytest.importorskip("anndata")
    blocks = re.findall(
        r"```{code-block} python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    positive = 100 * np.exp2(cohort.bulk), 100 * np.exp2(cohort.reference)
    cells = anndata.AnnData(
        pd.concat([positive[1]] * 20).reset_index(drop=True).set_axis(map(str, range(80)))
    )
    cells.obs["cell_type"] = list(cohort.cell_types) * 20
    names = {
        **{"reference": cohort.reference.rename({"celltype1": "T cell"}), "bulk": cohort.bulk},
        **{"new_bulk": cohort.bulk.iloc[:3], "bulk_adata": anndata.AnnData(positive[0]), "cells": cells},
        **{"skenigma": skenigma, "Interval": Interval, "Real": Real},
    }
    names["GaussianDeconvolver"] = documented("model_example").GaussianDeconvolver
    for block in blocks:
        exec(block, names)
    assert names["mean"].shape == names["std"].shape == cohort.bulk.shape
    assert np.all(names["low"] < names["high"])
    model = names["RidgePosterior"](cohort.reference, noise=0.2).fit(cohort.bulk)
    assert model.get_params()["noise"] == 0.2
    with pytest.raises(ValueError, match="noise"):
        names["RidgePosterior"](cohort.reference, noise=-1.0).fit(cohort.bulk)
