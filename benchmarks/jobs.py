"""Everything that takes time on a cohort, each job by name and in a process of its own: time and memory."""

import gc
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from .fresh import ROOT, memory

# Samples drawn together: a cohort is never held twice.
TOGETHER = 100


class Cohort:
    """Counts per million of a cohort, with a phenotype, drawn by blocks of samples."""

    def __init__(self, samples, genes, cell_types):
        rng = np.random.default_rng(0)
        self.samples = pd.Index([f"sample{j}" for j in range(samples)])
        genes_named = pd.Index([f"gene{i}" for i in range(genes)])
        kinds = pd.Index([f"type{k}" for k in range(cell_types)])
        profiles = rng.gamma(0.7, 1.0, (cell_types, genes))
        profiles *= 1e6 / profiles.sum(axis=1, keepdims=True)
        theta = rng.dirichlet(np.full(cell_types, 2.0), samples)
        self.phenotype = pd.Series(np.arange(samples) % 2, self.samples)
        values = np.empty((samples, genes))
        for start in range(0, samples, TOGETHER):
            some = slice(start, start + TOGETHER)
            mixed = theta[some] @ profiles
            mixed[self.phenotype.to_numpy()[some] == 1, : genes // 20] *= 1.5
            values[some] = mixed * rng.lognormal(0, 0.3, mixed.shape)
        self.bulk = pd.DataFrame(values, self.samples, genes_named)
        self.reference = pd.DataFrame(profiles, kinds, genes_named)
        self.proportions = pd.DataFrame(theta, self.samples, kinds)


def _model(name, **options):
    def fit(cohort):
        import skenigma

        model = getattr(skenigma, name)(cohort.reference, materialize=False, **options)
        return model.fit(cohort.bulk, proportions=cohort.proportions)

    return fit, None


def _estimator(method):
    def fit(cohort):
        from skenigma import ProportionEstimator

        return ProportionEstimator(cohort.reference, method=method).fit(cohort.bulk)

    return fit, None


def _l2max(cohort, **options):
    """With settings for as many samples as there are: as published they oscillate in cohorts of thousands."""
    options = {"renorm_size": "auto", "n_samples_of_settings": 100} | options
    return _model("L2MaxDeconvolver", **options)[0](cohort)


def _after_fit(run):
    """What is done with a fitted model, whose fit does not count."""

    def prepare(cohort):
        cohort.model = _l2max(cohort, renorm_size=None, tao_k="auto")  # one run where "auto" takes two

    return run, prepare


def _test(method):
    def run(cohort):
        from skenigma.differential import differential_expression

        return differential_expression(cohort.model, cohort.phenotype, X=cohort.bulk, method=method)

    return _after_fit(run)


def _correct_bulk(cohort):
    from skenigma.batch import BulkBatchCorrector

    model = BulkBatchCorrector(cohort.reference).fit(cohort.bulk, proportions=cohort.proportions)
    return model.transform(cohort.bulk)


def _mix_pseudobulk(cohort):
    from sklearn.utils import Bunch

    mixed = pd.DataFrame(cohort.proportions @ cohort.reference)
    cohort.pseudobulk = Bunch(bulk=mixed, proportions=cohort.proportions)


def _correct_reference(cohort):
    from skenigma.batch import ReferenceBatchCorrector

    return ReferenceBatchCorrector(pseudobulk=cohort.pseudobulk).fit(cohort.bulk)


def _in_folder(run):
    def inside(cohort):
        with tempfile.TemporaryDirectory() as folder:
            return run(cohort, pathlib.Path(folder))

    return inside


@_in_folder
def _tables(cohort, folder):
    from skenigma.io import write_table

    for kind in cohort.reference.index:
        frame = cohort.model.expression_.to_frame(kind)
        write_table(frame.T.rename_axis("gene"), folder / f"{kind}.tsv")


def _write_bulk(cohort):
    from skenigma.io import write_table

    cohort.folder = tempfile.TemporaryDirectory()
    cohort.path = pathlib.Path(cohort.folder.name, "bulk.tsv")
    write_table(cohort.bulk.T.rename_axis("gene"), cohort.path)


def _read(cohort):
    from skenigma.io import read_bulk

    return read_bulk(cohort.path)


def _plot(name, method="from_estimator", *arguments):
    def run(cohort):
        import skenigma.plotting

        return getattr(getattr(skenigma.plotting, name), method)(cohort.model, *arguments)

    return _after_fit(run)


# What is timed, and what has to be there before, which is not.
JOBS = {
    "model L2-max": (_l2max, None),
    "model L2-max, accelerated": _model("L2MaxDeconvolver", solver="accelerated", renorm_size=None),
    "model trace norm": _model("TraceNormDeconvolver", max_iter=30),
    "model empirical Bayes": _model("EmpiricalBayesDeconvolver"),
    "model factor": _model("FactorDeconvolver"),
    "transform L2-max": _after_fit(lambda c: c.model.predict_expression(c.bulk, proportions=c.proportions)),
    **{f"proportions {method}": _estimator(method) for method in ("rlm", "log", "nnls", "nusvr")},
    **{
        f"test {method}": _test(method)
        for method in ("interaction", "marginal", "joint", "log_fold_change", "factor")
    },
    "corrector of the bulk": (_correct_bulk, None),
    "corrector of the reference": (_correct_reference, _mix_pseudobulk),
    "table, all cell types as .tsv": _after_fit(_tables),
    "table, the bulk read from .tsv": (_read, _write_bulk),
    "plot of losses": _plot("LossCurveDisplay"),
    "plot of proportions": _plot("ProportionDisplay"),
}


def measure(name, samples, genes, cell_types, threads=None, timeout=None):
    """Seconds of processor time of a job, and megabytes that it takes beyond its input, in a fresh process.

    One that takes longer than ``timeout`` seconds is ended by a ``subprocess.TimeoutExpired``.
    """
    given = json.dumps([name, samples, genes, cell_types, threads])
    command = [sys.executable, "-m", "benchmarks.jobs", given]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=timeout)
    return json.loads(done.stdout.splitlines()[-1])


def main(name, samples, genes, cell_types, threads):
    run, prepare = JOBS[name]
    warnings.simplefilter("ignore")
    with threadpool_limits(threads):
        for small in (True, False):  # what a first call loads and compiles does not count
            cohort = Cohort(*((12, 60, min(cell_types, 3)) if small else (samples, genes, cell_types)))
            if prepare:
                prepare(cohort)
            gc.collect()
            _reset_peak()
            before, start = memory()[0], time.process_time()
            partial(run, cohort)()
            seconds, peak = time.process_time() - start, memory()[1]
    print(json.dumps([seconds, max(peak - before, 0.1)]))


def _reset_peak():
    """Let the peak begin here: that of drawing the cohort is not the job's."""
    path = pathlib.Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
