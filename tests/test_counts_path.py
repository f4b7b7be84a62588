"""From counts and annotated cells to expression by the defaults, by AnnData and by the command line."""

import secrets

import numpy as np
import pandas as pd
import pytest

from skenigma import io
from skenigma.anndata import deconvolve
from skenigma.baselines import scaled_reference
from skenigma.cli import main
from skenigma.metrics import recovery_score
from skenigma.reference import make_reference
from tests.counts_world import make_world

pytestmark = pytest.mark.slow
# By how much the mean correlation may fall short of the better baseline's. Of 26 seeds the model was between 0.0015
# below and 0.0003 above it, and once 0.0029 below (its leading direction had 9 % of the variance, and was taken for
# a batch in part): two worlds are judged by their mean.
CHANCE = 0.003
N_WORLDS = 2


@pytest.fixture(scope="module")
def worlds():
    """Others at each run; their seeds are shown where a test fails."""
    seeds = [secrets.randbelow(10**6) for _ in range(N_WORLDS)]
    print(f"seeds of the counts: {seeds}")
    return [make_world(seed) for seed in seeds]


def figures(world, shares, expression):
    """What a result is worth.

    Parameters
    ----------
    world : World
    shares : DataFrame of shape (n_samples, n_cell_types)
    expression : dict of DataFrame of shape (n_samples, n_genes)

    Returns
    -------
    figures : dict
        Correlation per gene with the truth, of the result, the bulk and the scaled reference; level, the median over
        samples of the mixture over the bulk; mean error of the proportions.
    """
    genes = expression[world.types[0]].columns
    kept = world.bulk.var_names.get_indexer(genes)
    truth, counts = world.truth[:, :, kept], world.bulk.X[:, kept].astype(float)
    bulk = counts / counts.sum(axis=1, keepdims=True) * 1e6
    theta = shares[world.types].to_numpy()
    found = np.stack([expression[kind].to_numpy() for kind in world.types], axis=1)
    reference = make_reference(world.cells, "cell_type", normalize=1e6).loc[world.types, genes].to_numpy()
    return {
        "result": recovery_score(truth, found),
        "bulk": recovery_score(truth, np.broadcast_to(bulk[:, None], truth.shape)),
        "scaled reference": recovery_score(truth, scaled_reference(bulk, reference, theta)),
        "level": float(np.median(np.einsum("jk,jkg->j", theta, found) / bulk.sum(axis=1))),
        "error": float(np.abs(theta - world.shares).mean()),
    }


def by_anndata(world):
    result = deconvolve(world.bulk, world.cells, groupby="cell_type")
    layers = dict(zip(result.uns["skenigma"]["cell_types"], result.uns["skenigma"]["layers"], strict=True))
    return result.obsm["proportions"], {kind: result.to_df(layer=name) for kind, name in layers.items()}


def by_command_line(world, folder):
    world.cells.write_h5ad(folder / "cells.h5ad")
    counts = pd.DataFrame(world.bulk.X, world.bulk.obs_names, world.bulk.var_names)
    io.write_table(counts.T.rename_axis("gene"), folder / "bulk.tsv")
    made, run = str(folder / "reference"), str(folder / "run")
    cells = ["--cells", str(folder / "cells.h5ad"), "--labels", "cell_type"]
    assert main(["reference", *cells, "--out", made, "-q"]) == 0
    data = ["--bulk", str(folder / "bulk.tsv"), "--reference", f"{made}/reference.tsv"]
    assert main(["deconvolve", *data, "--out", run, "-q"]) == 0
    found = io.read_run(run)
    return found.table("proportions.tsv"), found.expression()


@pytest.fixture(scope="module")
def results(worlds, tmp_path_factory):
    return {
        "AnnData": [by_anndata(world) for world in worlds],
        "command line": [by_command_line(world, tmp_path_factory.mktemp("counts")) for world in worlds],
    }


@pytest.mark.parametrize("way", ["AnnData", "command line"])
def test_defaults_are_right_on_counts(worlds, results, way):
    pairs = zip(worlds, results[way], strict=True)
    found = pd.DataFrame([figures(world, *result) for world, result in pairs]).mean()
    print(f"{way}:\n{found}")
    assert found["result"] >= max(found["bulk"], found["scaled reference"]) - CHANCE
    assert 0.8 < found["level"] < 1.25
    assert found["error"] < 0.02


def test_both_ways_are_one(results):
    for (shares, expression), (other_shares, other_expression) in zip(*results.values(), strict=True):
        np.testing.assert_allclose(other_shares[shares.columns], shares, atol=1e-6)
        for kind, frame in expression.items():
            # the AnnData holds the bulk in single precision
            other = other_expression[kind][frame.columns]
            np.testing.assert_allclose(other, frame, rtol=1e-3, atol=1e-3)
