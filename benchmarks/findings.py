"""How far calls of differential expression can be trusted: ``python -m benchmarks.findings``.

Prints the tables of the user guide: how often a list of permuted phenotypes has a call (nominal 5 %), how many
changes are found where they are known, on simulated counts and on the published data, and what agrees with sorted
cells. Real cohorts and the published data are read from outside the repository, see ``benchmarks.data``; what is not
there is left out, and said to be.
"""

import argparse
import platform
import time
import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind
from sklearn.metrics import average_precision_score

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.differential import (
    factor_test,
    interaction_test,
    joint_test,
    log_fold_change_test,
    marginal_test,
)
from skenigma.normalization import normalize

from .data import data_folder

LEVEL = 0.05
# Mean proportion from which on a cell type is not rare.
COMMON = 0.05


class Cohort(NamedTuple):
    """A bulk with what a test needs, as frames; ``changed`` holds the signs of true changes."""

    bulk: pd.DataFrame
    proportions: pd.DataFrame
    reference: pd.DataFrame
    phenotype: pd.Series | None = None
    changed: pd.DataFrame | None = None


def framed(bulk, proportions, reference, phenotype=None, changed=None, types=None, genes=None):
    """A cohort with names."""
    types = [f"type{k}" for k in range(len(reference))] if types is None else list(types)
    genes = [f"gene{g}" for g in range(bulk.shape[1])] if genes is None else list(genes)
    samples = [f"sample{j}" for j in range(len(bulk))]
    return Cohort(
        pd.DataFrame(bulk, samples, genes),
        pd.DataFrame(proportions, samples, types),
        pd.DataFrame(reference, types, genes),
        None if phenotype is None else pd.Series(phenotype, samples, name="group"),
        None if changed is None else pd.DataFrame(changed, types, genes),
    )


# ------------------------------------------------------------------------------------- cohorts


def synthetic(n_samples, fold=1.0, n_genes=1500, seed=0, disturbed=True):
    """Counts per million of six cell types; two have 100 changed genes each, proportions are estimated.

    The bulk has platform factors per gene and depths per sample; ``disturbed`` adds two hidden factors of the donors
    and outlying samples, one in twenty. Expression varies between donors in every cell type by itself.
    """
    rng = np.random.default_rng(seed)
    reference = rng.lognormal(3, 1.5, n_genes) * rng.lognormal(0, 1.2, (6, n_genes))
    reference *= 1e6 / reference.sum(axis=1, keepdims=True)
    proportions = rng.dirichlet([12, 8, 6, 4, 2, 0.6], n_samples)
    phenotype = rng.permutation(np.arange(n_samples) % 2)
    expression = reference * rng.lognormal(0, 0.35, (n_samples, 6, n_genes))
    changed = np.zeros((6, n_genes))
    for kind in (0, 2):
        genes = rng.choice(n_genes, 100, replace=False)
        changed[kind, genes] = rng.choice([-1, 1], 100)
    expression *= np.where(phenotype[:, None, None] == 1, fold**changed, 1.0)
    if disturbed:
        expression *= np.exp(rng.normal(size=(n_samples, 2)) @ rng.normal(0, 0.2, (2, n_genes)))[:, None]
    mean = np.einsum("jk,jkg->jg", proportions, expression) * rng.lognormal(0, 0.4, n_genes)
    if disturbed:
        outlying = rng.choice(n_samples, n_samples // 20, replace=False)
        mean[outlying] *= rng.lognormal(0, 0.6, (len(outlying), n_genes))
    mean *= rng.uniform(3e5, 1e6, (n_samples, 1)) / mean.sum(axis=1, keepdims=True)
    counts = rng.poisson(mean)
    bulk = counts * 1e6 / counts.sum(axis=1, keepdims=True)
    estimated = ProportionEstimator(reference, method="log").fit_transform(bulk)
    return framed(bulk, estimated, reference, phenotype, changed)


def pseudobulk(n_samples, n_genes, seed=0):
    """Mixtures of the measured expression of eight donors' blood cells, as counts; proportions are exact."""
    with np.load(data_folder() / "truth" / "kang8.npz", allow_pickle=True) as kept:
        expression, types, genes = kept["cse"], kept["types"], kept["genes"]
        shares = kept["theta"].mean(axis=0)
    rng = np.random.default_rng(seed)
    proportions = rng.dirichlet(15 * shares, n_samples)
    donors = rng.integers(len(expression), size=n_samples)
    mean = np.einsum("jk,jkg->jg", proportions, expression[donors])
    counts = rng.poisson(mean * 0.5)
    chosen = slice(0, n_genes)
    bulk = counts * 1e6 / counts.sum(axis=1, keepdims=True)
    reference = expression.mean(axis=0)
    return framed(bulk[:, chosen], proportions, reference[:, chosen], types=types, genes=genes[chosen])


def blood(n_genes=None, sepsis=False):
    """Twenty whole-blood samples; with ``sepsis``, three donors against the rest, and what sorted cells show."""
    with np.load(data_folder() / "truth" / "gse60424.npz", allow_pickle=True) as kept:
        arrays = {
            name: kept[name] for name in ("bulk", "theta", "reference", "cse", "types", "genes", "disease")
        }
    step = 1 if n_genes is None else max(1, arrays["bulk"].shape[1] // n_genes)
    chosen = slice(0, None, step)
    names = {"types": arrays["types"], "genes": arrays["genes"][chosen]}
    given = arrays["bulk"][:, chosen], arrays["theta"], arrays["reference"][:, chosen]
    if not sepsis:
        return framed(*given, **names)
    sick = np.array(["epsis" in disease for disease in arrays["disease"].astype(str)])
    logs = np.log2(arrays["cse"][:, :, chosen] + 1)
    difference = logs[sick].mean(axis=0) - logs[~sick].mean(axis=0)
    significant = ttest_ind(logs[sick], logs[~sick]).pvalue < LEVEL
    changed = np.where(significant & (np.abs(difference) > 0.5), np.sign(difference), 0)
    return framed(*given, np.where(sick, "sepsis", "rest"), changed, **names)


def published():
    """The data of the original's benchmark."""
    folder = data_folder() / "reference" / "vignette"
    bulk, reference, proportions = (
        pd.read_csv(folder / f"{name}.csv.gz", index_col=0) for name in ("bulk", "reference", "theta")
    )
    truth = pd.read_csv(folder / "deg_truth.csv.gz")
    changed = np.zeros(reference.T.shape)
    types = list(reference.columns)
    for kind, gene, sign in zip(truth.cell_type, truth.gene_index0, truth.sign, strict=True):
        changed[types.index(kind) if kind in types else int(str(kind)[-1]) - 1, gene] = sign
    phenotype = np.repeat([0, 1], bulk.shape[1] // 2)
    names = {"types": types, "genes": bulk.index}
    return framed(
        bulk.T.to_numpy(), proportions.to_numpy(), reference.T.to_numpy(), phenotype, changed, **names
    )


# ------------------------------------------------------------------------------------- tests


def log_fold_change(cohort):
    """Function of a phenotype: its table."""
    given = cohort.bulk, cohort.proportions

    def test(phenotype, **options):
        return log_fold_change_test(*given, phenotype, reference=cohort.reference, **options)

    return test


def interaction(errors, cohort):
    """As above."""

    def test(phenotype, **options):
        return interaction_test(cohort.bulk, cohort.proportions, phenotype, errors=errors, **options)

    return test


def factor(cohort):
    """As above, of logarithms where values are not signed."""
    signed = cohort.bulk.to_numpy().min() < 0
    bulk, reference = (x if signed else np.log2(x + 1) for x in (cohort.bulk, cohort.reference))

    def test(phenotype, **options):
        return factor_test(bulk, cohort.proportions, phenotype, reference=reference, **options)

    return test


def on_expression(which, cohort):
    """As above, on the expression of one fit of the maximum-L2-norm model."""
    signed = cohort.bulk.to_numpy().min() < 0
    model = L2MaxDeconvolver(cohort.reference, renorm_size="auto", preprocess=None if signed else "sqrt")
    model.fit(cohort.bulk, proportions=cohort.proportions)
    names = {"cell_types": cohort.proportions.columns, "gene_names": cohort.bulk.columns}
    expression = normalize("frac", model.cse_, cohort.proportions.to_numpy())

    def test(phenotype, **options):
        return which(expression, np.asarray(phenotype), **names, **options)

    return test


TESTS = {
    "log fold change": log_fold_change,
    "factor": factor,
    "interaction": lambda cohort: interaction("weighted", cohort),
    "interaction, least squares": lambda cohort: interaction("ols", cohort),
    "joint, on L2-max": lambda cohort: on_expression(joint_test, cohort),
    "marginal, on L2-max": lambda cohort: on_expression(marginal_test, cohort),
}


def tests_of(cohort, names):
    """Tests by name that this cohort allows."""
    signed = cohort.bulk.to_numpy().min() < 0 or cohort.reference.to_numpy().min() < 0
    return {name: TESTS[name](cohort) for name in names if not (signed and name == "log fold change")}


# ------------------------------------------------------------------------------------- figures


def called(table, cell_types):
    """Number of calls by cell type."""
    counts = table.cell_type[table.q_value < LEVEL].value_counts()
    return np.array([counts.get(kind, 0) for kind in cell_types])


def rates(cohort, names, n_permutations, seed=0):
    """Shares of lists of permuted phenotypes with a call, and of p below 0.05: of common and of rare types."""
    rng = np.random.default_rng(seed)
    phenotypes = [rng.permutation(np.arange(len(cohort.bulk)) % 2) for _ in range(n_permutations)]
    types = cohort.proportions.columns
    common = cohort.proportions.mean(axis=0).to_numpy() >= COMMON
    for name, test in tests_of(cohort, names).items():
        lists, small = [], []
        for phenotype in phenotypes:
            table = test(pd.Series(phenotype, cohort.bulk.index))
            lists.append(called(table, types) > 0)
            small.append(np.mean(table.p_value.dropna() < LEVEL))
        lists = np.array(lists)
        yield name, lists[:, common], lists[:, ~common], np.mean(small)


def precision_and_recall(table, changed):
    """By cell type: calls, right ones (type and direction), true changes, average precision by p."""
    found = table.assign(
        truth=changed.stack().reindex(pd.MultiIndex.from_frame(table[["cell_type", "gene"]])).to_numpy()
    )
    rows = {}
    for kind, genes in found.groupby("cell_type", sort=False):
        calls = genes[genes.q_value < LEVEL]
        right = int(np.sum(np.sign(calls.statistic) == calls.truth))
        agrees = np.sign(genes.statistic) == genes.truth
        score = -np.log10(np.maximum(genes.p_value.fillna(1.0), 1e-300))
        true = genes.truth != 0
        # a true change with the wrong sign ranks last
        score = score.where(~true | agrees, 0.0)
        precision = average_precision_score(true, score) if true.any() else np.nan
        rows[kind] = len(calls), right, int(true.sum()), precision
    return pd.DataFrame(rows, ["called", "right", "changed", "average precision"]).T


def available(make, *arguments):
    """A cohort, or None, with a word, where its file is missing."""
    try:
        return make(*arguments)
    except FileNotFoundError as error:
        print(f"(left out: there is no {error.filename})")
        return None


def print_rates(options):
    print(
        f"\nLists of permuted phenotypes with a call at q < {LEVEL}, in % ({options.permutations} permutations)\n"
    )
    print("| set | test | types above 5 % | rarer types | p < 0.05 |\n|---|---|---|---|---|", flush=True)
    sets = {
        "GSE60424, whole blood, n = 20": (blood, options.genes),
        "PBMC pseudo-bulk, n = 60": (pseudobulk, 60, options.genes),
    }
    sets |= {f"synthetic counts, n = {n}": (synthetic, n, 1.0, options.genes) for n in options.samples}
    for label, recipe in sets.items():
        cohort = available(*recipe)
        if cohort is None:
            continue
        for name, common, rare, small in rates(cohort, options.tests, options.permutations):
            shown = [
                f"{100 * lists.mean():.1f} of {lists.size}" if lists.size else "–" for lists in (common, rare)
            ]
            print(f"| {label} | {name} | {shown[0]} | {shown[1]} | {100 * small:.1f} |", flush=True)


def print_power(options):
    print(
        f"\nChanges found at q < {LEVEL}: called, right, mean average precision ({options.cohorts} cohorts a row)\n"
    )
    print("| data | test | called | right | average precision |\n|---|---|---|---|---|", flush=True)
    sets = {}
    for n, fold in zip(options.samples, (4.0, 2.5, 1.6), strict=False):
        for disturbed in (False, True):
            label = f"counts, n = {n}, {fold:g} ×" + (", donor factors and outliers" if disturbed else "")
            sets[label] = [
                (synthetic, n, fold, options.genes, seed, disturbed) for seed in range(options.cohorts)
            ]
    sets["published data"] = [(published,)]
    for label, recipes in sets.items():
        figures = {}
        for recipe in recipes:
            cohort = available(*recipe)
            if cohort is None:
                continue
            for name, test in tests_of(cohort, options.tests).items():
                table = precision_and_recall(test(cohort.phenotype), cohort.changed)
                figures.setdefault(name, []).append(
                    [*table[["called", "right"]].sum(), table["average precision"].mean()]
                )
        for name, rows in figures.items():
            calls, right, precision = np.mean(rows, axis=0)
            print(f"| {label} | {name} | {calls:.1f} | {right:.1f} | {precision:.3f} |", flush=True)


def print_truth(options):
    cohort = available(blood, None, True)
    if cohort is None:
        return
    print("\nSepsis (3) against the rest (17) in GSE60424, all genes; truth from the sorted cells\n")
    print("| test | cell type | called | right | precision | recall |\n|---|---|---|---|---|---|", flush=True)
    for name, test in tests_of(cohort, options.tests).items():
        table = precision_and_recall(test(cohort.phenotype, reference_level="rest"), cohort.changed)
        for kind, row in table.iterrows():
            precision = f"{100 * row.right / row.called:.0f} %" if row.called else "–"
            recall = f"{100 * row.right / row.changed:.1f} %" if row.changed else "–"
            print(
                f"| {name} | {kind} | {row.called:.0f} | {row.right:.0f} | {precision} | {recall} |",
                flush=True,
            )


PARTS = {"rates": print_rates, "power": print_power, "truth": print_truth}


def parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.findings", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="this table only; may be repeated")
    parser.add_argument(
        "--permutations", type=int, default=20, metavar="N", help="phenotypes a set; default: 20"
    )
    parser.add_argument(
        "--cohorts", type=int, default=2, metavar="N", help="simulated cohorts a row; default: 2"
    )
    parser.add_argument("--genes", type=int, default=1500, metavar="N", help="genes of a set; default: 1500")
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[20, 60, 200], help="sizes of simulated cohorts"
    )
    parser.add_argument("--tests", nargs="+", choices=TESTS, default=list(TESTS), help="which; default: all")
    return parser


def main(arguments=None):
    options = parser().parse_args(arguments)
    start = time.process_time()
    print(f"{platform.machine()}, Python {platform.python_version()}, {vars(options)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in options.part or PARTS:
            PARTS[part](options)
    print(f"\n{(time.process_time() - start) / 60:.1f} minutes of processor time")


if __name__ == "__main__":
    main()
