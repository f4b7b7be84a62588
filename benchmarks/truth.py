"""Cell-type-specific expression against the truth, on real donors: ``python -m benchmarks.truth``.

Every model and the free baselines on cohorts whose cell types were measured beside the bulk, which are looked for
where ``benchmarks.data`` says, and on simulated counts with a platform effect. Prints a column per answer:

- per-gene Spearman correlation over samples: mean over all genes, over dominated genes (more than half of their RNA
  from the type), in bins of that share, per cell type; an answer that does not vary counts as 0;
- per-sample Spearman correlation over genes; root mean squared error of log2(x + 1);
- level: median over samples of Σ θ·cse over the bulk's total;
- of models with deviations: coverage of nominal 50, 80 and 95 % intervals, and the interval score of log2(x + 1), the
  mean over the three levels (Gneiting and Raftery 2007; lower is better), also in the bins; rank correlation of
  ``reliability_`` with the correlation found;
- seconds of the fit.

Under the schemes

- ``given``: the proportions of the file, which are exact for pseudo-bulk and an estimate for real blood;
- ``log``, ``rlm``, ``nnls``, ``nusvr``: by that method of ``ProportionEstimator``;
- ``halves``: the reference is the mean of half of the persons, and the others are fitted and scored;
- ``unseen``: folds of persons, each mapped by a model that was fitted to the others.

Under ``halves`` there is one more answer, "donors": empirical Bayes that is told how the known half varies.

What the file holds is read as it stands; nothing is cached. CPU time is a few seconds per model, scheme and set.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from skenigma import (
    EmpiricalBayesDeconvolver,
    FactorDeconvolver,
    L2MaxDeconvolver,
    ProportionEstimator,
    TraceNormDeconvolver,
)
from skenigma.baselines import baselines
from skenigma.reference import make_reference

from .data import data_folder

BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 1.0)
LEVELS = (0.5, 0.8, 0.95)
METHODS = ("log", "rlm", "nnls", "nusvr")
SCHEMES = ("given", *METHODS, "halves", "unseen")
# Visits of one person, which must not stand on both sides of a split.
SAME_PERSON = {"gse60424": (("31", "33"), ("45", "46"), ("55", "56"))}

MODELS = {
    "L2-max": L2MaxDeconvolver,
    "L2-max, sqrt": partial(L2MaxDeconvolver, preprocess="sqrt"),
    "L2-max, auto": partial(L2MaxDeconvolver, renorm_size="auto"),
    "trace norm": TraceNormDeconvolver,
    "trace norm, auto": partial(TraceNormDeconvolver, beta="auto"),
    "trace norm, sqrt": partial(TraceNormDeconvolver, preprocess="sqrt"),
    "trace norm, sqrt, auto": partial(TraceNormDeconvolver, preprocess="sqrt", beta="auto"),
    "trace norm, log": partial(TraceNormDeconvolver, preprocess="log"),
    "trace norm, log, auto": partial(TraceNormDeconvolver, preprocess="log", beta="auto"),
    "factor": FactorDeconvolver,
    "empirical Bayes": EmpiricalBayesDeconvolver,
    "empirical Bayes, bulk": partial(EmpiricalBayesDeconvolver, platform="bulk"),
}


@dataclass(frozen=True)
class Truth:
    """A cohort whose cell types were measured.

    Attributes
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
    reference : ndarray of shape (n_cell_types, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
    types : ndarray of str
    persons : ndarray of int, shape (n_samples,)
        Samples of one person have one number.
    """

    bulk: np.ndarray
    reference: np.ndarray
    proportions: np.ndarray
    cse: np.ndarray
    types: np.ndarray
    persons: np.ndarray

    def __getitem__(self, samples):
        parts = (self.bulk[samples], self.reference, self.proportions[samples], self.cse[samples])
        return Truth(*parts, self.types, self.persons[samples])


def load(name):
    """A cohort of the folder of real data."""
    with np.load(data_folder() / "truth" / f"{name}.npz") as file:
        parts = [file[part].astype(float) for part in ("bulk", "reference", "theta", "cse")]
        samples, types = file["samples"], file["types"]
    persons = np.arange(len(samples))
    for pair in SAME_PERSON.get(name, ()):
        visits = [j for j, sample in enumerate(samples) if str(sample).endswith(pair)]
        persons[visits] = min(visits, default=0)
    return Truth(*parts, types, persons)


def simulate(n_samples=60, n_types=6, n_genes=2000, seed=0):
    """Counts of a bulk and of the cells of a reference, with an offset per gene between the two platforms."""
    rng = np.random.default_rng(seed)
    profiles = rng.normal(0, 1.6, n_genes) + rng.normal(0, 0.6, (n_types, n_genes))
    for k in range(n_types):
        markers = rng.choice(n_genes, n_genes // 50, replace=False)
        profiles[:, markers] -= 1
        profiles[k, markers] += 3
    totals = np.full(n_types, 6e5)
    counted = rng.poisson(_shares(profiles) * totals[:, None])
    programmes = rng.normal(0, 0.6, (n_types, 2, n_genes)) * (rng.random((n_types, 2, n_genes)) < 0.1)
    activity = rng.normal(size=(n_samples, n_types, 2))
    logs = profiles + np.einsum("jkp,kpg->jkg", activity, programmes)
    logs += rng.normal(0, 0.25, logs.shape) + rng.normal(0, 0.3, n_genes)
    cse = 1e6 * _shares(logs)
    proportions = rng.dirichlet([9, 7, 5, 3, 2, 1][:n_types], n_samples)
    depth = np.exp(rng.uniform(np.log(2e6), np.log(1e7), n_samples))
    rates = np.einsum("jk,jkg->jg", proportions, cse) / 1e6 * depth[:, None]
    counts = rng.poisson(rates * rng.gamma(100, 0.01, rates.shape))
    types = np.array([f"type{k}" for k in range(n_types)])
    per_million = [1e6 * part / part.sum(axis=1, keepdims=True) for part in (counts, counted)]
    return Truth(*per_million, proportions, cse, types, np.arange(n_samples))


def _shares(logs):
    values = np.exp(logs)
    return values / values.sum(axis=-1, keepdims=True)


SETS = {
    "gse60424": partial(load, "gse60424"),
    "kang8": partial(load, "kang8"),
    "simulated": simulate,
}


@dataclass(frozen=True)
class Answer:
    """What a model or baseline says of a cohort."""

    values: np.ndarray
    bounds: list | None = None
    reliability: np.ndarray | None = None
    seconds: float = np.nan


def fit(make, train, reference, proportions, test=None, test_proportions=None):
    """Answer of a model fitted to ``train``, for it or for new samples."""
    model = make(reference)
    start = time.perf_counter()
    model.fit(train.bulk, proportions=proportions)
    seconds = time.perf_counter() - start
    found = model.expression_
    if test is not None:
        found = model.predict_expression(test.bulk, proportions=test_proportions)
    bounds = [found.interval(level) for level in LEVELS] if found.has_std else None
    return Answer(found.values(), bounds, getattr(model, "reliability_", None), seconds)


def estimated(cohort, reference, method):
    if method == "given":
        return cohort.proportions
    return ProportionEstimator(reference, method=method).fit_transform(cohort.bulk)


def answers(cohort, reference, proportions, models):
    """Every baseline and model."""
    for name, values in baselines(cohort.bulk, reference, proportions).items():
        yield name, Answer(values)
    for name in models:
        yield name, fit(MODELS[name], cohort, reference, proportions)


def correlations(truth, estimate, axis):
    """Spearman correlation along an axis; NaN where the truth is constant, 0 where the estimate is."""
    ranks = [rankdata(np.broadcast_to(part, truth.shape), axis=axis) for part in (truth, estimate)]
    ranks = [part - part.mean(axis=axis, keepdims=True) for part in ranks]
    lengths = [np.sqrt((part**2).sum(axis=axis)) for part in ranks]
    product = lengths[0] * lengths[1]
    found = np.divide(
        (ranks[0] * ranks[1]).sum(axis=axis), product, out=np.zeros_like(product), where=product > 0
    )
    return np.where(lengths[0] > 0, found, np.nan)


def share_of_rna(reference, proportions):
    """Share of every type in the RNA of every gene, (n_cell_types, n_genes)."""
    parts = proportions.mean(axis=0)[:, None] * reference
    return parts / np.maximum(parts.sum(axis=0), np.finfo(float).tiny)


def measure(cohort, reference, proportions, answer):
    """All figures of one answer."""
    share = share_of_rna(reference, proportions)
    per_gene = correlations(cohort.cse, answer.values, 0)
    bins = {f"{low:g}-{high:g}": (share >= low) & (share <= high) for low, high in pairwise(BINS)}
    rows = {"all": np.nanmean(per_gene), "dominated": np.nanmean(per_gene[share > 0.5])}
    rows |= {name: np.nanmean(per_gene[chosen]) for name, chosen in bins.items()}
    rows |= {str(name): np.nanmean(per_gene[k]) for k, name in enumerate(cohort.types)}
    rows["per sample"] = np.nanmean(correlations(cohort.cse, answer.values, 2))
    logs, found = np.log2(cohort.cse + 1), np.log2(np.maximum(answer.values, 0) + 1)
    rows["RMSE"] = np.sqrt(((logs - found) ** 2).mean())
    total = np.einsum("jk,jkg->j", proportions, np.broadcast_to(answer.values, cohort.cse.shape))
    rows["level"] = np.median(total / cohort.bulk.sum(axis=1))
    if answer.bounds is not None:
        rows |= intervals(logs, answer.bounds, {"": np.ones(share.shape, dtype=bool), **bins})
    if answer.reliability is not None:
        usable = np.isfinite(per_gene)
        ranks = rankdata(per_gene[usable]), rankdata(answer.reliability[usable])
        rows["reliability"] = np.corrcoef(*ranks)[0, 1]
    return rows | {"seconds": answer.seconds}


def intervals(logs, bounds, groups):
    """Coverage in percent, and mean interval score, of each group of types and genes."""
    score, rows = np.zeros(logs.shape), {}
    for level, (low, high) in zip(LEVELS, bounds, strict=True):
        low, high = np.log2(low + 1), np.log2(high + 1)
        # bounds went to the scale of the bulk and back
        outside = np.maximum(low - logs, 0) + np.maximum(logs - high, 0)
        covered = outside <= 1e-9
        score += (high - low + 2 / (1 - level) * outside) / len(LEVELS)
        rows |= {
            f"covered {100 * level:g} {name}".strip(): 100 * covered[:, g].mean()
            for name, g in groups.items()
        }
    return rows | {f"score {name}".strip(): score[:, group].mean() for name, group in groups.items()}


def halves(cohort, models, n_splits, seed):
    """The reference of half of the persons, the other half estimated with it; both ways, several times."""
    rng = np.random.default_rng(seed)
    for _ in range(n_splits):
        persons = rng.permutation(np.unique(cohort.persons))
        first = np.isin(cohort.persons, persons[: len(persons) // 2])
        for known in (first, ~first):
            reference, rest = cohort.cse[known].mean(axis=0), cohort[~known]
            proportions = estimated(rest, reference, "log")
            for name, answer in answers(rest, reference, proportions, models):
                yield name, measure(rest, reference, proportions, answer)
            told = fit(partial(told_donors, cohort.cse[known]), rest, reference, proportions)
            yield "donors", measure(rest, reference, proportions, told)


def told_donors(cse, reference):
    """Empirical Bayes with the variance between the donors behind the reference."""
    n_donors, n_types, _ = cse.shape
    donors = np.repeat(np.arange(n_donors), n_types)
    kinds = np.tile([f"{k:03d}" for k in range(n_types)], n_donors)
    table = dict(donors=donors, min_cells=1, return_report=True)
    report = make_reference(cse.reshape(n_donors * n_types, -1), kinds, **table)[1]
    variance = report.variance.to_numpy()
    return EmpiricalBayesDeconvolver(reference, reference_variance=variance, reference_donors=n_donors)


def unseen(cohort, models, n_folds, seed):
    """Every sample by a model that was fitted without its person."""
    persons = np.random.default_rng(seed).permutation(np.unique(cohort.persons))
    proportions = estimated(cohort, cohort.reference, "log")
    for name in models:
        values, bounds, seconds = np.empty(cohort.cse.shape), None, 0.0
        for fold in np.array_split(persons, n_folds):
            out = np.isin(cohort.persons, fold)
            told = cohort[~out], cohort.reference, proportions[~out], cohort[out], proportions[out]
            answer = fit(MODELS[name], *told)
            values[out], seconds = answer.values, seconds + answer.seconds
            if answer.bounds is not None:
                bounds = bounds or [tuple(np.empty(values.shape) for _ in range(2)) for _ in LEVELS]
                for whole, part in zip(bounds, answer.bounds, strict=True):
                    for side, found in zip(whole, part, strict=True):
                        side[out] = found
        yield name, measure(cohort, cohort.reference, proportions, Answer(values, bounds, None, seconds))


def table(cohort, scheme, models, n_splits=2, n_folds=5, seed=0):
    """A row per answer under a scheme; of several splits, the mean."""
    if scheme == "halves":
        found = halves(cohort, models, n_splits, seed)
    elif scheme == "unseen":
        found = unseen(cohort, models, n_folds, seed)
    else:
        proportions = estimated(cohort, cohort.reference, scheme)
        found = (
            (name, measure(cohort, cohort.reference, proportions, answer))
            for name, answer in answers(cohort, cohort.reference, proportions, models)
        )
    rows = pd.DataFrame([{"answer": name, **figures} for name, figures in found])
    return rows.groupby("answer", sort=False).mean()


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--set", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS)
    )
    parser.add_argument(
        "--scheme",
        nargs="+",
        choices=SCHEMES,
        default=list(SCHEMES),
        metavar="SCHEME",
        help=", ".join(SCHEMES),
    )
    parser.add_argument(
        "--model", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help="; ".join(MODELS)
    )
    parser.add_argument("--splits", type=int, default=2, help="halvings, each scored both ways")
    parser.add_argument("--folds", type=int, default=5, help="folds of the scheme unseen")
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    given = parser.parse_args(arguments)
    for name in given.set:
        cohort = SETS[name]()
        for scheme in given.scheme:
            shape = " × ".join(map(str, cohort.cse.shape))
            print(f"\n{name}, {scheme}: {shape} samples × types × genes")
            found = table(cohort, scheme, given.model, given.splits, given.folds, given.seed)
            print(found.T.to_string(float_format=lambda value: f"{value:.3f}", na_rep=""))


if __name__ == "__main__":
    main()
