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
from skenigma.core.regress.log_scale import log_scale_model
from skenigma.metrics import concordance

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


def pair_genes(fold):
    """Genes of the largest weights of the pairs of types."""
    model = log_scale_model(fold.profiles, 0.01)
    return np.sort(model.genes[np.argsort(-model.weights, kind="stable")[:N_GENES]])


def fold_change_genes(fold):
    """As many genes per type, of the largest fold change to the second highest type."""
    logs = np.log(fold.profiles / fold.profiles.mean() + 0.01)
    highest = logs.argmax(axis=0)
    order = np.sort(logs, axis=0)
    lead = order[-1] - order[-2] if len(logs) > 1 else order[-1]
    per_type = max(1, N_GENES // len(logs))
    ranked = [np.flatnonzero(highest == k) for k in range(len(logs))]
    return np.sort(np.concatenate([genes[np.argsort(-lead[genes])[:per_type]] for genes in ranked]))


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
        f"{N_GENES} genes by pairs of types": partial(few_genes, chosen=pair_genes),
        f"{N_GENES} genes by fold change to the second type": partial(few_genes, chosen=fold_change_genes),
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
    for table in (every_method, harder, cells):
        table(sets)
        print()
    speed()


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
