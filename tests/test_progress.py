"""Bars for what takes long, on a stream that is no terminal."""

import io
import sys
from contextlib import contextmanager

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skenigma import (
    FactorDeconvolver,
    L2MaxDeconvolver,
    L2MaxDeconvolverCV,
    TraceNormDeconvolver,
    show_progress,
)
from skenigma.anndata import _write, deconvolve
from skenigma.datasets import make_cohort
from skenigma.progress import task, watching
from skenigma.reliability import bootstrap_reliability


class Recorder:
    """A display that remembers what it was told."""

    def __init__(self):
        self.tasks, self.counts, self.closed = [], [], []

    def __call__(self, description, total):
        self.tasks.append((description, total))
        self.counts.append(0)
        self.closed.append(False)
        return self

    def update(self):
        self.counts[-1] += 1
        return True  # as tqdm does where it has written

    def close(self):
        self.closed[-1] = True


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_samples=20, n_genes=40, n_cell_types=3, random_state=0, as_frame=True)


@contextmanager
def recorded():
    recorder = Recorder()
    with watching(recorder):
        yield recorder


def test_a_bar_is_written_to_the_stream(cohort):
    tqdm = pytest.importorskip("tqdm")
    stream = io.StringIO()
    with show_progress(file=stream, mininterval=0, miniters=1):
        model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
    lines = stream.getvalue().split("\r")
    assert lines[-1].startswith(f"L2MaxDeconvolver, at most 1,000 iterations: {model.n_iter_}it [00:0")
    assert not tqdm.tqdm._instances  # closed


def test_nothing_is_shown_or_imported_unless_asked_for(cohort, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ImportError, match=r"show_progress needs tqdm: pip install 'skenigma\[progress\]'"):
        show_progress().__enter__()


@pytest.mark.parametrize("model", [L2MaxDeconvolver(renorm_size="auto"), TraceNormDeconvolver()])
def test_every_iteration_is_counted_and_changes_nothing(cohort, model):
    model.set_params(reference=cohort.reference)
    expected = model.fit(cohort.bulk).cse_
    with recorded() as seen:
        found = model.fit(cohort.bulk)
    assert_array_equal(found.cse_, expected)
    assert seen.closed == [True]
    # "auto" has a plain run before the one that counts
    assert seen.counts[0] >= model.n_iter_
    assert seen.tasks[0][1] is None


def test_steps_of_the_factor_model(cohort):
    with recorded() as seen:
        model = FactorDeconvolver(cohort.reference, n_factors=1).fit(cohort.bulk)
    assert seen.counts[0] >= model.n_iter_
    assert seen.closed == [True]


def test_what_runs_inside_a_task_is_part_of_it(cohort):
    model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
    with recorded() as seen:
        bootstrap_reliability(model, cohort.bulk, n_bootstraps=3, random_state=0)
    assert seen.tasks == [("resampled cohorts", 3)]
    assert seen.counts == [3]


def test_settings_of_a_search_then_its_fit(cohort):
    search = L2MaxDeconvolverCV(
        cohort.reference, alphas=[0.1, 0.5], betas=[1.0, 10.0], renorm_sizes=[None], random_state=0
    )
    with recorded() as seen:
        search.fit(cohort.bulk)
    assert seen.tasks[0] == ("settings of alpha and beta", 4)
    assert seen.counts[0] == 4
    assert seen.tasks[1][0].startswith("L2MaxDeconvolverCV, at most")


def test_layers_of_an_anndata(monkeypatch):
    monkeypatch.setattr(_write, "BLOCK_SIZE", 4 * 2 * 30)  # four of the eight samples
    rng = np.random.default_rng(0)
    profiles = pd.DataFrame(rng.gamma(1, 50, (2, 30)) + 1, ["B", "T"], [f"g{i}" for i in range(30)])
    theta = pd.DataFrame(rng.dirichlet([2, 2], 8), list("abcdefgh"), ["B", "T"])
    bulk = anndata.AnnData(theta @ profiles)
    with recorded() as seen:
        deconvolve(bulk, profiles, verbose=False)
    assert seen.tasks == [("layers cse_*", 2), ("layers cse_std_*", 2)]
    assert seen.counts == [2, 2]


def test_a_failure_closes_the_bar_and_the_next_task_has_its_own():
    with recorded() as seen:
        with pytest.raises(TypeError), task("one", 2) as count:
            count("too much")
        with task("two"):
            pass
    assert seen.tasks == [("one", 2), ("two", None)]
    assert seen.closed == [True, True]
    assert seen.counts == [0, 0]
