"""How good the choices of ``L2MaxDeconvolverCV`` are: ``python -m benchmarks.choices``.

Prints a table of the user guide. Every setting of a grid of 30 is fitted to cohorts whose truth is known, which takes
some minutes; what the search chooses without that truth is compared with the best of them. Pseudo-bulk needs scanpy,
which brings the cells.
"""

import warnings
from functools import partial
from itertools import product

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Bunch

from skenigma import L2MaxDeconvolver, L2MaxDeconvolverCV
from skenigma.datasets import make_cohort
from skenigma.metrics import recovery_score
from skenigma.reference import make_pseudobulk

SEEDS = (0, 1, 2)
PER = ("gene", "sample")
GRID = {
    "alpha": [0.1, 0.5, 0.9],
    "beta": [10.0, 20.0, 50.0, 100.0, 200.0],
    "renorm_size": [None, "auto"],
}
DEFAULT = (0.1, 50.0, "auto")
BROAD = {"CD14+ Monocyte": "monocyte", "CD19+ B": "B cell", "CD56+ NK": "NK cell", "Dendritic": "dendritic"}


def counts(random_state, n_samples=100, n_genes=1000, n_cell_types=4):
    """Counts of samples whose cell types deviate from log-normal profiles, each by folds of its own, as CPM."""
    rng = np.random.default_rng(random_state)
    types = rng.normal(0, 0.8, (n_cell_types, n_genes))
    reference = np.exp(rng.normal(3, 1.2, n_genes) + types)
    reference *= 1e6 / reference.sum(axis=1, keepdims=True)
    proportions = rng.dirichlet(np.full(n_cell_types, 3.0), n_samples)
    cse = reference * np.exp(rng.normal(0, 0.4, (n_samples, n_cell_types, n_genes)))
    bulk = rng.poisson(np.einsum("jk,jkg->jg", proportions, cse) / 50) * 50.0
    return Bunch(bulk=bulk * 1e6 / bulk.sum(axis=1, keepdims=True), reference=reference, cse=cse)


def blood_cells():
    """The 700 blood cells that come with scanpy, on the linear scale, and their broad types; without stem cells."""
    import scanpy as sc

    cells = sc.datasets.pbmc68k_reduced()
    labels = cells.obs["bulk_labels"].astype(str).to_numpy()
    cells = cells.raw.to_adata()
    cells.X = cells.X.expm1()
    kept = labels != "CD34+"
    return cells[kept].copy(), np.array([BROAD.get(label, "T cell") for label in labels[kept]])


def pseudobulk(cells, labels, random_state):
    """150 samples of 200 cells; in half of them a tenth of the genes of monocytes and T cells is changed."""
    return make_pseudobulk(
        cells,
        labels,
        n_samples=150,
        n_cells=200,
        normalize=1e4,
        changed_types=["monocyte", "T cell"],
        reference_share=0.5,
        random_state=random_state,
    )


def recoveries(cohort):
    """Recovery of the truth by every setting of the grid, per gene and per sample."""
    found = {}
    for setting in product(*GRID.values()):
        model = L2MaxDeconvolver(cohort.reference, **dict(zip(GRID, setting, strict=True))).fit(cohort.bulk)
        found[setting] = {per: recovery_score(np.asarray(cohort.cse), model.cse_, per=per) for per in PER}
    return found


def compare(name, cohorts, found, **options):
    """Rows of what is chosen, the best of the grid and the default setting, for every cohort."""
    lists = {f"{parameter}s": values for parameter, values in GRID.items()}
    for per in PER:
        rows = []
        for seed, cohort, recovery in zip(SEEDS, cohorts, found, strict=True):
            options |= {"scoring": f"per_{per}", "random_state": seed, "materialize": False}
            search = L2MaxDeconvolverCV(cohort.reference, **lists, **options).fit(cohort.bulk)
            values = {setting: value[per] for setting, value in recovery.items()}
            chosen = tuple(search.best_params_.values())
            rows.append([values[chosen], np.nanmax([*values.values()]), values[DEFAULT]])
        columns = (", ".join(f"{value:.3f}" for value in column) for column in zip(*rows, strict=True))
        print(f"| {name} | {per} | " + " | ".join(columns) + " |", flush=True)


def main():
    print("| cohort | per | chosen | best of the grid | alpha 0.1, beta 50, auto |\n|---|---|---|---|---|")
    recipes = {
        "published recipe (100 samples, 1,000 genes, 5 types)": make_cohort,
        "the same, 300 samples, four times the noise": partial(make_cohort, 300, noise=2.0),
        "counts, folds per cell type (100, 1,000, 4)": counts,
    }
    for name, recipe in recipes.items():
        cohorts = [recipe(random_state=seed) for seed in SEEDS]
        compare(name, cohorts, [recoveries(cohort) for cohort in cohorts])
    cells, labels = blood_cells()
    cohorts = [pseudobulk(cells, labels, random_state=seed) for seed in SEEDS]
    found = [recoveries(cohort) for cohort in cohorts]
    compare("pseudo-bulk of PBMC (150, 765, 5)", cohorts, found)
    compare("the same, tuned on its cells", cohorts, found, cells=cells, labels=labels)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        main()
