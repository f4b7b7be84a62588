"""How far estimated proportions are from known ones: ``python -m benchmarks.proportions [folder]``.

Prints the tables of the user guide. The folder holds the sets, bulks with flow-cytometric, counted or exact
proportions; without it, they are looked for in ``../shared/truth/proportions``.
"""

import pathlib
import sys
import time
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np

from skenigma import ProportionEstimator
from skenigma.core.regress.log_scale import pair_weights
from skenigma.metrics import concordance
from skenigma.reference import make_reference, select_markers

from . import machine

DEFAULT_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "shared" / "truth" / "proportions"
METHODS = ("log", "rlm", "nnls", "nusvr")
N_GENES = 200
DEPTHS = (10_000, 100_000, 1_000_000)


class Fold(NamedTuple):
    """Bulk, profiles and truth of a part of a set, on the genes of the profiles."""

    bulk: np.ndarray
    profiles: np.ndarray
    truth: np.ndarray


class TruthSet:
    """A set of mixtures, in folds with a reference each."""

    def __init__(self, path):
        self.name = path.stem
        with np.load(path, allow_pickle=True) as arrays:
            parts = [
                [arrays[f"{kind}{i}"].astype(float) for kind in "XRT"] for i in range(int(arrays["parts"]))
            ]
            self.known, self.renorm = arrays["A"].astype(float), int(arrays["renorm"])
            self.content = arrays["size"].astype(float) if "size" in arrays else None
            self.kind = str(arrays["kind"])
        self.folds = []
        for bulk, profiles, truth in parts:
            expressed = profiles.max(axis=0) > 0
            self.folds.append(Fold(bulk[:, expressed], profiles[:, expressed], truth))

    def compare(self, answer):
        """Estimates, truths and, if there are any, standard errors of the types with truth, of all folds together."""
        known = self.known
        rows = []
        for fold in self.folds:
            found = answer(fold)
            found, std = found if isinstance(found, tuple) else (found, None)
            found, truth = found @ known, fold.truth
            std = None if std is None else np.sqrt(std**2 @ known)
            if self.renorm:
                total = np.maximum(found.sum(axis=1, keepdims=True), 1e-12)
                found, std = found / total, None if std is None else std / total
                truth = truth / np.maximum(truth.sum(axis=1, keepdims=True), 1e-12)
            rows.append((found, truth, std))
        found, truth, std = zip(*rows, strict=True)
        return np.vstack(found), np.vstack(truth), None if std[0] is None else np.vstack(std)


def correlation(found, truth, axis):
    """Mean correlation over the rows or columns in which the truth varies; an answer that does not vary counts 0."""
    pairs = zip(np.moveaxis(found, axis, 0), np.moveaxis(truth, axis, 0), strict=True)
    values = [
        0.0 if np.std(one) < 1e-12 else np.corrcoef(one, other)[0, 1]
        for one, other in pairs
        if np.std(other) > 1e-6
    ]
    return np.mean(values)


def figures(found, truth, std=None):
    """Error, correlations, concordance, largest bias of a type, and coverage of two standard errors."""
    error = np.abs(found - truth)
    return {
        "error": 100 * error.mean(),
        "per type": correlation(found, truth, 1),
        "per sample": correlation(found, truth, 0),
        "CCC": np.mean(np.nan_to_num(concordance(truth, found))),
        "bias": 100 * np.abs((found - truth).mean(axis=0)).max(),
        "covered": np.nan if std is None else 100 * np.mean(error < 2 * np.maximum(std, 1e-12)),
    }


def estimate(fold, method, content=None):
    return ProportionEstimator(fold.profiles, method=method, rna_content=content).fit_transform(fold.bulk)


def with_errors(fold):
    estimator = ProportionEstimator(fold.profiles, method="log").fit(fold.bulk)
    return estimator.proportions_, estimator.proportions_std_


def row(name, method, values):
    cells = (
        f"{value:.{3 if key in ('per type', 'per sample', 'CCC') else 1}f}" for key, value in values.items()
    )
    print(f"| {name} | {method} | " + " | ".join(cells) + " |", flush=True)


def every_method(sets):
    """Table of all sets by all methods; the means at the end."""
    print(
        "| set | method | error | per type | per sample | CCC | bias | covered |\n|---|---|---|---|---|---|---|---|"
    )
    for method in METHODS:
        found = []
        for one in sets:
            answer = with_errors if method == "log" else partial(estimate, method=method)
            found.append(figures(*one.compare(answer)))
            row(one.name, method, found[-1])
        row("**mean**", method, {key: np.mean([values[key] for values in found]) for key in found[0]})


def without_type(fold, method, missing):
    """Proportions by the profiles without one type, whose column stays empty."""
    kept = np.arange(len(fold.profiles)) != missing
    profiles = fold.profiles[kept]
    expressed = profiles.max(axis=0) > 0
    found = np.zeros((len(fold.bulk), len(kept)))
    found[:, kept] = estimate(Fold(fold.bulk[:, expressed], profiles[:, expressed], fold.truth), method)
    return found


def few_genes(fold, method, chosen):
    genes = chosen(fold)
    genes = genes[fold.profiles[:, genes].max(axis=0) > 0]
    return estimate(Fold(fold.bulk[:, genes], fold.profiles[:, genes], fold.truth), method)


def random_genes(fold):
    n_genes = fold.bulk.shape[1]
    return np.sort(np.random.default_rng(0).permutation(n_genes)[:N_GENES])


def best_per_type(profiles, scores):
    """As many genes for every type, of the highest scores among those that it expresses most."""
    highest = profiles.argmax(axis=0)
    per_type = max(1, N_GENES // len(profiles))
    ranked = [np.flatnonzero(highest == k) for k in range(len(profiles))]
    return np.sort(np.concatenate([genes[np.argsort(-scores[genes])[:per_type]] for genes in ranked]))


def pair_genes(fold):
    """The "pairs" of ``select_markers``, of profiles without errors."""
    logs = np.log(fold.profiles / fold.profiles.mean() + 0.03)
    return best_per_type(fold.profiles, pair_weights(logs)[0])


def fold_change_genes(fold):
    """Its "fold"."""
    order = np.sort(np.log(fold.profiles / fold.profiles.mean() + 1), axis=0)
    return best_per_type(fold.profiles, order[-1] - order[-2])


def closed(values):
    """Rows over their sums."""
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12)


def at_depth(fold, method, depth):
    rng = np.random.default_rng(0)
    rates = fold.bulk / fold.bulk.sum(axis=1, keepdims=True)
    counts = rng.poisson(depth * rates).astype(float)
    return estimate(Fold(counts, fold.profiles, fold.truth), method)


def harder(sets):
    """Table of means over sets of less favourable data."""
    answers = {
        "all genes": partial(estimate),
        f"{N_GENES} random genes": partial(few_genes, chosen=random_genes),
        f"{N_GENES} markers by pairs of types": partial(few_genes, chosen=pair_genes),
        f"{N_GENES} markers by fold change": partial(few_genes, chosen=fold_change_genes),
        **{f"{depth:,} reads": partial(at_depth, depth=depth) for depth in DEPTHS},
    }
    print("| data | method | error | per type |\n|---|---|---|---|")
    for name, answer in answers.items():
        for method in ("log", "rlm", "nnls"):
            with_method = partial(answer, method=method)
            found = [figures(*one.compare(with_method)) for one in sets]
            error, per_type = (np.mean([values[key] for values in found]) for key in ("error", "per type"))
            print(f"| {name} | {method} | {error:.1f} | {per_type:.3f} |", flush=True)
    for method in ("log", "rlm", "nnls"):
        found = []
        for one in sets:
            for missing in np.flatnonzero(one.known.sum(axis=1) > 0) if len(one.known) > 3 else ():
                shares, truth, _ = one.compare(partial(without_type, method=method, missing=missing))
                # the types that are still there, as shares of one another
                there = np.flatnonzero((np.delete(one.known, missing, axis=0)).sum(axis=0) > 0)
                if len(there) == truth.shape[1]:
                    continue
                shares, truth = (closed(part[:, there]) for part in (shares, truth))
                found.append(100 * np.abs(shares - truth).mean())
        print(
            f"| a type left out, the others ({len(found)} cases) | {method} | {np.mean(found):.1f} | |",
            flush=True,
        )


def simulate(related, n_cells, seed, n_genes=2000, n_samples=50):
    """Counts of cells of one donor, their types, and bulk counts of other donors with their proportions."""
    rng = np.random.default_rng(seed)
    abundance = np.array([9, 7, 5, 3, 2, 1])
    n_types = len(abundance)
    logs = rng.normal(0, 1.6, n_genes) + rng.normal(0, 0.6, (n_types, n_genes))
    if related:  # every second type is close to the one before
        logs[1::2] = logs[::2] + rng.normal(0, 0.25, (n_types // 2, n_genes))
    for k in range(n_types):
        own = rng.choice(n_genes, 12 if related else 40, replace=False)
        logs[:, own] -= 1
        logs[k, own] += 3

    types = rng.choice(n_types, n_cells, p=abundance / abundance.sum())
    depths = np.exp(rng.normal(7.8, 0.4, (n_cells, 1)))
    counts = rng.poisson(depths * closed(np.exp(logs))[types] * rng.gamma(4, 1 / 4, (n_cells, n_genes)))

    theta = rng.dirichlet(abundance, n_samples)
    # two programs a type that donors differ in, noise of their own, and a platform that differs by gene
    loadings = rng.normal(0, 0.6, (n_types, 2, n_genes)) * (rng.random((n_types, 2, n_genes)) < 0.1)
    donors = np.einsum("jkp,kpg->jkg", rng.normal(size=(n_samples, n_types, 2)), loadings)
    donors += logs + rng.normal(0, 0.25, donors.shape) + rng.normal(0, 0.3, n_genes)
    rates = np.exp(donors)
    mixtures = np.einsum("jk,jkg->jg", theta, rates / rates.sum(axis=2, keepdims=True))
    return counts, types, rng.poisson(rng.uniform(2e6, 1e7, (n_samples, 1)) * mixtures), theta


def markers(_, seeds=range(20, 30)):
    """Table of markers chosen from simulated cells, by both rules, and of all genes."""
    print("| cells | markers per type | genes | error | per type |\n|---|---|---|---|---|")
    for related in (False, True):
        for n_cells in (1600, 200):
            found = {}
            for seed in seeds:
                for key, values in marked(*simulate(related, n_cells, seed)).items():
                    found.setdefault(key, []).append((values["error"], values["per type"]))
            kind = "in related pairs" if related else "apart"
            for (per_type, genes), values in found.items():
                error, per = np.mean(values, axis=0)
                print(
                    f"| {n_cells:,}, types {kind} | {per_type} | {genes} | {error:.2f} | {per:.3f} |",
                    flush=True,
                )


def marked(counts, types, bulk, theta):
    """Figures of method "log" on markers by both rules, and on all genes, by genes."""
    names = np.array([f"gene{g}" for g in range(counts.shape[1])])
    labels = np.array([f"type{k}" for k in types])
    settings = {"gene_names": names, "normalize": 1e6, "min_cells": 3}
    reference = make_reference(counts, labels, **settings)
    theta = theta[:, [int(name.removeprefix("type")) for name in reference.index]]
    chosen = {("", "all"): reference.columns}
    for per_type in (10, 30, 100):
        for rule in ("pairs", "fold"):
            chosen[per_type, rule] = np.unique(
                select_markers(counts, labels, per_type, rule=rule, **settings).gene
            )
    found = {}
    for key, genes in chosen.items():
        own = np.isin(names, genes)
        estimator = ProportionEstimator(reference[names[own]].to_numpy(), method="log")
        found[key] = figures(estimator.fit_transform(bulk[:, own]), theta)
    return found


def cells(sets):
    """Table of what the RNA content does to the error, on the sets that have it."""
    print("| set | as RNA | as cells |\n|---|---|---|")
    for one in sets:
        if one.content is not None:
            errors = [
                figures(*one.compare(partial(estimate, method="log", content=content)))["error"]
                for content in (None, one.content)
            ]
            print(f"| {one.name} ({one.kind}) | {errors[0]:.1f} | {errors[1]:.1f} |", flush=True)


def speed(n_samples=200, n_genes=20_000, n_types=20):
    """Table of the time of all methods."""
    rng = np.random.default_rng(0)
    profiles = np.exp(rng.normal(2, 1.5, n_genes) + rng.normal(0, 0.8, (n_types, n_genes)))
    mixtures = rng.dirichlet(np.ones(n_types), n_samples) @ profiles
    bulk = mixtures * np.exp(rng.normal(0, 0.4, mixtures.shape))
    print(f"\n| method | seconds for {n_samples} × {n_genes:,} × {n_types} |\n|---|---|")
    for method in METHODS:
        turns = []
        for _ in range(1 if method == "nusvr" else 3):
            start = time.process_time()
            ProportionEstimator(profiles, method=method).fit(bulk)
            turns.append(time.process_time() - start)
        print(f"| {method} | {np.median(turns):.1f} |", flush=True)


def main(folder):
    sets = [TruthSet(path) for path in sorted(folder.glob("*.npz"))]
    if not sets:
        sys.exit(f"No sets in {folder}: give their folder.")
    print(machine.describe("python -m benchmarks.proportions"), "\n")
    for table in (every_method, harder, markers, cells):
        table(sets)
        print()
    speed()


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
