"""Everything that takes time on a cohort, each job by name."""

import pathlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Samples drawn together: a cohort is never held twice.
TOGETHER = 100


class Cohort:
    """Counts per million of a cohort, with a phenotype, drawn by blocks of samples."""

    def __init__(self, samples, genes, cell_types):
        self.shape = samples, genes, cell_types
        self.prepared = set()  # functions that were called to make what comes before a job
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
            # in single precision, which is drawn in half the time
            values[some] = mixed * np.exp(0.3 * rng.standard_normal(mixed.shape, dtype=np.float32))
        self.bulk = pd.DataFrame(values, self.samples, genes_named)
        self.reference = pd.DataFrame(profiles, kinds, genes_named)
        self.proportions = pd.DataFrame(theta, self.samples, kinds)


@dataclass(frozen=True)
class Job:
    """What is done with a cohort.

    Attributes
    ----------
    run : callable
        Does the job, given a ``Cohort``; what is measured.
    prepare : callable or None
        Makes what has to be there before, as attributes of the cohort; not measured, and called once for all jobs.
    own_threads : bool
        Whether the job uses a library with threads of its own, which must not be started before a process is forked.
    """

    run: Callable
    prepare: Callable | None = None
    own_threads: bool = False


def _model(name, **options):
    def fit(cohort):
        import skenigma

        model = getattr(skenigma, name)(cohort.reference, materialize=False, **options)
        return model.fit(cohort.bulk, proportions=cohort.proportions)

    return Job(fit)


def _estimator(method):
    def fit(cohort):
        from skenigma import ProportionEstimator

        return ProportionEstimator(cohort.reference, method=method).fit(cohort.bulk)

    return Job(fit)


def _l2max(cohort, **options):
    """With settings for as many samples as there are: as published they oscillate in cohorts of thousands."""
    options = {"renorm_size": "auto", "n_samples_of_settings": 100} | options
    return _model("L2MaxDeconvolver", **options).run(cohort)


def _fitted(cohort):
    cohort.model = _l2max(cohort, renorm_size=None, tao_k="auto")  # one run where "auto" takes two


def _after_fit(run, **options):
    """What is done with a fitted model, whose fit does not count."""
    return Job(run, _fitted, **options)


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


def _written(cohort):
    from .held import apart

    cohort.folder = tempfile.TemporaryDirectory()
    cohort.path = pathlib.Path(cohort.folder.name, "bulk.tsv")
    apart(_write_bulk, cohort)


def _write_bulk(cohort):
    from skenigma.io import write_table

    write_table(cohort.bulk.T.rename_axis("gene"), cohort.path)


def _read(cohort):
    from skenigma.io import read_bulk

    return read_bulk(cohort.path)


def _plot(name, method="from_estimator", *arguments):
    def run(cohort):
        import skenigma.plotting

        return getattr(getattr(skenigma.plotting, name), method)(cohort.model, *arguments)

    return _after_fit(run)


JOBS = {
    "model L2-max": Job(_l2max),
    "model L2-max, accelerated": _model("L2MaxDeconvolver", solver="accelerated", renorm_size=None),
    "model trace norm": _model("TraceNormDeconvolver", max_iter=5),
    "model empirical Bayes": _model("EmpiricalBayesDeconvolver"),
    "model factor": _model("FactorDeconvolver"),
    "transform L2-max": _after_fit(lambda c: c.model.predict_expression(c.bulk, proportions=c.proportions)),
    **{f"proportions {method}": _estimator(method) for method in ("rlm", "log", "nnls", "nusvr")},
    **{
        f"test {method}": _test(method)
        for method in ("interaction", "marginal", "joint", "log_fold_change", "factor")
    },
    "corrector of the bulk": Job(_correct_bulk),
    "corrector of the reference": Job(_correct_reference, _mix_pseudobulk),
    "table, all cell types as .tsv": _after_fit(_tables, own_threads=True),
    "table, the bulk read from .tsv": Job(_read, _written, own_threads=True),
    "plot of losses": _plot("LossCurveDisplay"),
    "plot of proportions": _plot("ProportionDisplay"),
}
