"""What follows a fit: differential expression, and the choice of parameters."""

from functools import partial

from sklearn.model_selection import ParameterGrid

from skenigma import L2MaxDeconvolver

from ..harness import Contest, Contestant, case
from .models import SIZES, fitted, quietly, simulate


@case(
    full=[dict(zip(SIZES, (10000, 200, 6), strict=True))],
    quick=[dict(zip(SIZES, (1000, 60, 5), strict=True))],
    tiny=[dict(zip(SIZES, (60, 24, 3), strict=True))],
)
def differential(options, genes, samples, cell_types):
    """Differential expression per cell type by each test, against the fit it follows."""
    from skenigma.differential import differential_expression

    cohort = simulate(genes, samples, cell_types)
    model = L2MaxDeconvolver(cohort.reference)
    test = partial(differential_expression, fitted(model, cohort), cohort.phenotype)
    tests = {
        "interaction": partial(test, method="interaction", X=cohort.bulk),
        "marginal": partial(test, method="marginal"),
        "joint": partial(test, method="joint"),
    }
    yield Contest(
        {"genes": genes, "samples": samples, "cell_types": cell_types},
        [
            Contestant("fit", lambda: fitted(L2MaxDeconvolver(cohort.reference), cohort)),
            *(Contestant(name, run) for name, run in tests.items()),
        ],
    )


# The values that the search tries by default, and 100: 30 settings.
GRID = {"alpha": [0.1, 0.5, 0.9], "beta": [10.0, 20.0, 50.0, 100.0, 200.0], "renorm_size": [None, "auto"]}


def fit_all(cohort, **options):
    """One fit for each setting of the grid."""
    for setting in ParameterGrid(GRID):
        quietly(L2MaxDeconvolver(cohort.reference, **setting, **options).fit, cohort.bulk)


@case(
    full=[dict(zip(SIZES, (1000, 100, 5), strict=True))],
    quick=[dict(zip(SIZES, (1000, 60, 5), strict=True))],
    tiny=[dict(zip(SIZES, (60, 24, 3), strict=True), max_iter=5)],
    repeats=3,
)
def search(options, genes, samples, cell_types, max_iter=1000):
    """Choice among 30 settings by L2MaxDeconvolverCV, in fits with the default setting"""
    from skenigma.model_selection import L2MaxDeconvolverCV

    cohort = simulate(genes, samples, cell_types)
    one = L2MaxDeconvolver(cohort.reference, max_iter=max_iter)
    grid = {f"{name}s": values for name, values in GRID.items()}
    search = L2MaxDeconvolverCV(cohort.reference, random_state=0, max_iter=max_iter, **grid)
    yield Contest(
        {"genes": genes, "samples": samples, "cell_types": cell_types},
        [
            Contestant("one fit", partial(quietly, one.fit, cohort.bulk)),
            Contestant("L2MaxDeconvolverCV", partial(quietly, search.fit, cohort.bulk)),
            Contestant("30 fits, one after the other", partial(fit_all, cohort, max_iter=max_iter)),
        ],
    )
