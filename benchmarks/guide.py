"""Tables of the user guide that need neither much time nor real cohorts: ``python -m benchmarks.guide``.

``--part`` prints one of them: sizes of the gradients that "auto" finds, the factor model by number of samples, what
batch correction gains, which measure tells well recovered genes, the tests for changed genes on the published data
with the original's own tensors, and both versions of the R package on real cohorts. Recorded and real data are read
from outside the repository (see ``benchmarks.data``), and blood cells need scanpy. Each takes a minute or less on one
thread.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from skenigma import FactorDeconvolver, L2MaxDeconvolver, ProportionEstimator
from skenigma.batch import BulkBatchCorrector, ReferenceBatchCorrector
from skenigma.datasets import make_cohort
from skenigma.differential import factor_test, interaction_test, joint_test, marginal_test
from skenigma.metrics import detection_auprc, per_gene_correlation
from skenigma.normalization import normalize
from skenigma.presets import enigma_l2_max_norm
from skenigma.reference import make_reference
from skenigma.reliability import bootstrap_reliability, gene_contribution, gene_significance

from . import truth
from .choices import blood_cells, counts, pseudobulk
from .data import data_folder
from .findings import published

LEVEL = 0.05


def row(*cells):
    """Print a row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells):
    row(*cells)
    print("|" + "---|" * len(cells))


# ------------------------------------------------------------------------------------- sizes of gradients

SHAPES = [
    (50, 500, 5),
    (100, 1000, 5),
    (100, 4000, 5),
    (100, 1000, 8),
    (100, 1000, 3),
    (200, 1000, 5),
    (400, 1000, 5),
]


def iterations(model):
    return f"{model.n_iter_:,}" + ("" if model.converged_ else ": oscillates")


def print_sizes(shapes=SHAPES):
    head(
        "samples × genes × cell types",
        '`"auto"` finds',
        "iterations",
        "with half of it",
        "with `beta` = half the samples",
    )
    for shape in shapes:
        cohort = make_cohort(*shape, random_state=0)
        found = L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk)
        half = L2MaxDeconvolver(cohort.reference, renorm_size=found.renorm_size_ / 2).fit(cohort.bulk)
        grown = L2MaxDeconvolver(cohort.reference, renorm_size="auto", beta=shape[0] / 2).fit(cohort.bulk)
        name = " × ".join(f"{size:,}" for size in shape)
        row(name, f"{found.renorm_size_:.1f}", *(iterations(model) for model in (found, half, grown)))


# ------------------------------------------------------------------------------------- factor model


def print_factor(numbers=(10, 20, 100, 300, 1000), repeated=(10, 20, 100), compared=(20, 60, 100, 200)):
    head("samples", "error", "coverage")
    for n_samples in numbers:
        error, inside = factor_fit(n_samples, 0)
        row(f"{n_samples:,}", f"{error:.2f}", in_percent(inside))
    print()
    head("samples", "coverage, mean", "lowest", "highest")
    for n_samples in repeated:
        inside = np.array([factor_fit(n_samples, seed)[1] for seed in range(5)])
        row(n_samples, *(in_percent(figure(axis=0)) for figure in (inside.mean, inside.min, inside.max)))
    print()
    head("samples", "factor: area, called, right", "interaction: area, called, right")
    for n_samples in compared:
        cohort = make_cohort(n_samples, random_state=0, as_frame=True)
        given = cohort.bulk, cohort.proportions, cohort.phenotype
        tables = factor_test(*given, reference=cohort.reference), interaction_test(*given)
        row(n_samples, *(f"{area(table, cohort):.2f}, {calls(table, cohort)}" for table in tables))


def factor_fit(n_samples, seed):
    """Error of the factor model on a simulated cohort, and coverage of its 50, 80 and 95 % intervals."""
    cohort = make_cohort(n_samples, random_state=seed)
    model = FactorDeconvolver(cohort.reference).fit(cohort.bulk, proportions=cohort.proportions)
    bounds = [model.expression_.interval(level) for level in truth.LEVELS]
    inside = [np.mean((low <= cohort.cse) & (cohort.cse <= high)) for low, high in bounds]
    return np.sqrt(np.mean((model.cse_ - cohort.cse) ** 2)), inside


def in_percent(shares):
    return ", ".join(f"{100 * share:.0f}" for share in shares) + " %"


def wide(table, cohort, column):
    """A column as cell types × genes, as the cohort has them."""
    frame = table.pivot(index="cell_type", columns="gene", values=column)
    return frame.loc[list(cohort.cell_types), list(cohort.gene_names)].to_numpy()


def area(table, cohort):
    """Area under the precision-recall curve by the original's definition."""
    p_value = np.maximum(wide(table, cohort, "p_value"), 1e-300)
    effect = wide(table, cohort, "effect")
    return np.nanmean(detection_auprc(cohort.changed.to_numpy(), p_value, effect, random_state=0))


def calls(table, cohort):
    called = wide(table, cohort, "q_value") < LEVEL
    right = np.sign(wide(table, cohort, "effect")) == cohort.changed.to_numpy()
    return f"{called.sum()}, {(called & right).sum()}"


# ------------------------------------------------------------------------------------- batch correction

TYPES = ["B", "NK", "T", "myeloid"]
GENES = [f"gene{i}" for i in range(250)]
OPTIONS = [("pooled", False), ("pooled", True), ("own", False), ("own", True)]


def measured(seed, effect):
    """Bulk, truth on both platforms, proportions, and cells of the platform of the reference."""
    rng = np.random.default_rng(seed)
    logs = rng.normal(6, 2, len(GENES)) + rng.normal(0, 1.2, (len(TYPES), len(GENES)))
    reference = pd.DataFrame(np.exp2(logs), TYPES, GENES)
    shares = rng.dirichlet(np.full(len(TYPES), 3.0), 40)
    cse = reference.to_numpy() * np.exp2(0.4 * rng.normal(size=(40, *reference.shape)))
    bulk = pd.DataFrame(np.einsum("jk,jkg->jg", shares, cse), columns=GENES)
    factor = np.exp2(effect * rng.normal(size=len(GENES)))
    labels = np.repeat(TYPES, [80, 40, 120, 60])
    rates = reference.loc[labels].to_numpy() * rng.lognormal(0, 0.2, (300, 1)) / 4
    cells = pd.DataFrame(rng.poisson(rates), columns=GENES)
    return bulk, bulk * factor, reference, reference * factor, shares, cells, labels


def distance(values, truth):
    """Root mean squared difference of log2(x + 1)."""
    logs = [np.log2(np.asarray(table) + 1) for table in (values, truth)]
    return np.sqrt(np.mean((logs[0] - logs[1]) ** 2))


def agreement(shares, truth):
    """Mean absolute error, and mean correlation over samples; one of shares that do not vary counts as 0."""
    pairs = zip(np.asarray(shares).T, truth.T, strict=True)
    found = [np.corrcoef(*pair)[0, 1] for pair in pairs]
    return np.abs(shares - truth).mean(), np.mean(np.nan_to_num(found))


def of_bulk(target, mean_only, seed, effect):
    truth, bulk, reference, _, shares, _, _ = measured(seed, effect)
    if target is not None:
        target = "reference" if target == "own" else target
        corrector = BulkBatchCorrector(reference, target=target, mean_only=mean_only)
        bulk = corrector.set_output(transform="pandas").fit_transform(bulk)
    found = ProportionEstimator(reference).fit_transform(bulk)
    return distance(bulk, truth), *agreement(found, shares)


def of_profiles(target, mean_only, seed, effect):
    _, bulk, _, truth, shares, cells, labels = measured(seed, effect)
    cells = 4 * cells  # in the units of the profiles again
    profiles = make_reference(cells, labels)
    if target is not None:
        target = "bulk" if target == "own" else target
        options = {"target": target, "mean_only": mean_only, "random_state": 0}
        profiles = ReferenceBatchCorrector(cells, labels, **options).fit(bulk).reference_
    found = ProportionEstimator(profiles).fit_transform(bulk)
    return distance(profiles, truth), *agreement(found, shares)


def print_batch(n_seeds=5, effects=(0.0, 1.0, 2.0)):
    head("", "no effect", "", "", "effect 1", "", "", "effect 2", "", "")
    row("", *["error", "prop.", "corr."] * len(effects))
    for letter, own, measure in (("B", "reference", of_bulk), ("S", "bulk", of_profiles)):
        for target, mean_only in [(None, False), *OPTIONS]:
            name = f'`"{own if target == "own" else target}"`'
            name += ", `mean_only`" if mean_only else " (default)" if target == "pooled" else ""
            name = f"**{letter}**: uncorrected" if target is None else name
            found = [
                [measure(target, mean_only, seed, effect) for seed in range(n_seeds)] for effect in effects
            ]
            row(name, *(f"{value:.2f}" for value in np.mean(found, axis=1).ravel()))


# ------------------------------------------------------------------------------------- well recovered genes


def ranks(cohort, n_bootstraps=30):
    """Rank correlation of three measures of a gene in a cell type with its recovery, and mean recoveries.

    Of all genes and cell types, and of the twentieth with the largest shares.
    """
    model = L2MaxDeconvolver(cohort.reference, renorm_size="auto", beta=20.0).fit(cohort.bulk)
    recovered = per_gene_correlation(np.asarray(cohort.cse), model.cse_).ravel()
    shown = model if model.reference_.min() >= 0 else _absolute(model)
    tested = gene_significance(cohort.bulk, model.proportions_)
    stability = bootstrap_reliability(model, cohort.bulk, n_bootstraps=n_bootstraps, random_state=0).stability
    measures = gene_contribution(shown).to_numpy(), -tested["p_value"].to_numpy(), stability.to_numpy()
    found = [spearmanr(np.ravel(measure), recovered, nan_policy="omit").statistic for measure in measures]
    share = measures[0].ravel()
    best = share > np.nanquantile(share, 0.95)
    return [*found, np.nanmean(recovered), np.nanmean(recovered[best])]


def _absolute(model):
    """The model with absolute values for profiles: shares of centred ones mean nothing."""
    shown = L2MaxDeconvolver()
    shown.__dict__.update(vars(model), reference_=np.abs(model.reference_))
    return shown


def print_genes():
    cohorts = pseudobulk(*blood_cells(), random_state=0), counts(0), make_cohort(random_state=0)
    head("measure", "pseudo-bulk of PBMC", "simulated, folds", "published recipe")
    names = [
        "share of the bulk",
        "p-value of {func}`~skenigma.reliability.gene_significance`",
        "stability of {func}`~skenigma.reliability.bootstrap_reliability`",
        "*mean correlation of all genes*",
        "*of the twentieth with the largest shares*",
    ]
    for name, values in zip(names, np.transpose([ranks(cohort) for cohort in cohorts]), strict=True):
        row(name, *(f"{value:.2f}" for value in values))


# ------------------------------------------------------------------------------------- tests of changed genes

TENSORS = {
    "trace-norm tensor": "trace_admm",
    "L2-max tensor, renormalised to 200": "l2max_renorm200",
    "L2-max tensor, not renormalised": "l2max_none",
}


def print_tests():
    cohort = published()
    given = cohort.bulk, cohort.proportions, cohort.phenotype
    names = {"cell_types": cohort.proportions.columns, "gene_names": cohort.bulk.columns}
    tables = {
        "interaction, on the bulk": interaction_test(*given),
        "interaction, by least squares": interaction_test(*given, errors="ols"),
    }
    for tensor, run in TENSORS.items():
        with np.load(data_folder() / "reference" / "vignette" / "runs" / f"{run}.npz") as arrays:
            cse = normalize("frac", arrays["X_k"], cohort.proportions.to_numpy())
        for name, test in (("joint", joint_test), ("marginal", marginal_test)):
            tables[f"{name}, on the {tensor}"] = test(cse, cohort.phenotype, **names)
    bulk = np.repeat(cohort.bulk.to_numpy()[:, None], len(names["cell_types"]), axis=1)
    tables["t-test of the bulk, for every cell type"] = marginal_test(bulk, cohort.phenotype, **names)
    head("test", "mean average precision", "called at q < 0.05", "of these right")
    for name, table in sorted(tables.items(), key=lambda item: -precision(item[1], cohort.changed)):
        called = table[table.q_value < LEVEL]
        signs = [
            cohort.changed.loc[kind, gene] for kind, gene in zip(called.cell_type, called.gene, strict=True)
        ]
        right = np.mean(np.sign(called.statistic) == signs)
        row(name, f"{precision(table, cohort.changed):.3f}", len(called), f"{100 * right:.0f} %")


def precision(table, changed):
    """Mean over cell types and directions: genes that go up ranked by the statistic, down by its negative."""
    frame = table.pivot(index="cell_type", columns="gene", values="statistic")
    statistic = frame.loc[changed.index, changed.columns].to_numpy()
    pairs = [(truth, score) for truth, score in zip(changed.to_numpy(), statistic, strict=True)]
    return np.mean([average_precision_score(t == sign, sign * s) for t, s in pairs for sign in (1, -1)])


# ------------------------------------------------------------------------------------- editions of the original

EDITIONS = {
    "0.1.5": {"edition": "0.1.5"},
    "0.1.5, `beta=0.01`": {"edition": "0.1.5", "beta": 0.01},
    "0.1.6": {"edition": "0.1.6"},
    "0.1.6, `beta=0.01`": {"edition": "0.1.6", "beta": 0.01},
    "the same, `calibrate=False`": {"edition": "0.1.6", "beta": 0.01, "calibrate": False},
}


def print_editions():
    """Maximum L2 norm of both versions on real cohorts; a correlation of values that do not vary counts as 0."""
    cohorts = truth.load("gse60424"), truth.load("kang8")
    shares = truth.estimated(cohorts[0], cohorts[0].reference, "log"), cohorts[1].proportions
    head(
        "`enigma_l2_max_norm`",
        "blood, 20 donors: per gene",
        "level",
        "added cells, 8 donors: per gene",
        "level",
    )
    for name, given in EDITIONS.items():
        cells = []
        for cohort, theta in zip(cohorts, shares, strict=True):
            model = enigma_l2_max_norm(cohort.reference, preprocess="sqrt", **given)
            model.fit(cohort.bulk, proportions=theta)
            per_gene = np.nanmean(truth.correlations(cohort.cse, model.cse_, 0))
            cells += [f"{per_gene:.3f}", f"{model.level_:.2g}"]
        row(name, *cells)


PARTS = {
    "editions": print_editions,
    "sizes": print_sizes,
    "factor": print_factor,
    "batch": print_batch,
    "genes": print_genes,
    "tests": print_tests,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide", description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="this table only; may be repeated")
    for part in parser.parse_args(arguments).part or PARTS:
        print(f"\n{part}\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fits that do not converge are what a table may be about
            PARTS[part]()


if __name__ == "__main__":
    main()
