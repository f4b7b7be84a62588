"""Does a fit show that its reference lacks cell types? ``python -m benchmarks.missing``.

Prints, per real set of ``benchmarks.truth`` and ``benchmarks.proportions`` (of the latter the first fold, up to 24
samples and about 5,000 genes in counts per million), ``mismatch_`` of the posterior and the median correlation in
``quality_``: with the right reference, with one type left out (each in turn, or 5 of more than 6 at random), and with
half of the types left out (4 random halves, from four types on). CPU time is about a minute.
"""

import argparse
import warnings

import numpy as np

from skenigma import EmpiricalBayesDeconvolver, ProportionEstimator

from .data import data_folder

SETS = ("gse60424", "kang8", "ratmix", "monaco_hao", "fino_hao", "newman_pbmc")
MOST_SAMPLES, MOST_GENES = 24, 5000


def load(name):
    """Bulk and reference of a set."""
    folder = data_folder() / "truth"
    if (folder / f"{name}.npz").exists():
        with np.load(folder / f"{name}.npz") as file:
            return file["bulk"].astype(float), file["reference"].astype(float)
    with np.load(folder / "proportions" / f"{name}.npz") as file:
        bulk, reference = file["X0"].astype(float)[:MOST_SAMPLES], file["R0"].astype(float)
    genes = np.flatnonzero(reference.max(axis=0) > 0)
    genes = genes[:: max(1, len(genes) // MOST_GENES)]
    return [1e6 * part[:, genes] / part[:, genes].sum(axis=1, keepdims=True) for part in (bulk, reference)]


def fit(bulk, reference):
    """``mismatch_`` and the median correlation of the samples with their mixtures."""
    estimator = ProportionEstimator(reference, method="log").fit(bulk)
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=estimator.proportions_)
    return model.mismatch_, estimator.quality_["correlation"].median()


def incomplete(n_types, seed=0):
    """Types that are kept: all but one, and halves."""
    rng = np.random.default_rng(seed)
    left_out = range(n_types) if n_types <= 6 else rng.permutation(n_types)[:5]
    all_but_one = [np.delete(np.arange(n_types), k) for k in left_out]
    halves = [np.sort(rng.permutation(n_types)[: n_types // 2]) for _ in range(4)] if n_types >= 4 else []
    return all_but_one, halves


def shown(found):
    """Lowest and highest of both figures."""
    if not found:
        return "–"
    (least, lowest), (most, highest) = np.min(found, axis=0), np.max(found, axis=0)
    return f"{least:.2f} to {most:.2f}, {lowest:.2f} to {highest:.2f}"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.missing", description=__doc__.splitlines()[0])
    parser.add_argument("--set", nargs="+", default=SETS, help="names of files of real data")
    print("| set | right reference | one type left out | half of the types left out |\n|---|---|---|---|")
    for name in parser.parse_args(arguments).set:
        bulk, reference = load(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            right, *less = [
                [fit(bulk, reference[kept]) for kept in choice]
                for choice in ([np.arange(len(reference))], *incomplete(len(reference)))
            ]
        print(
            f"| {name} | {right[0][0]:.2f}, {right[0][1]:.2f} | {' | '.join(map(shown, less))} |", flush=True
        )


if __name__ == "__main__":
    main()
