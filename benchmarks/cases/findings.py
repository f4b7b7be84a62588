"""What follows a fit: differential expression, and the choice of parameters."""

from functools import partial

from skenigma import L2MaxDeconvolver

from ..harness import Contest, Contestant, case
from .models import SIZES, fitted, simulate


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


GRID = {"alphas": [0.1, 0.3, 0.5], "betas": [5.0, 10.0, 20.0, 50.0, 100.0], "renorm_sizes": [None, 200.0]}


@case(
    full=[dict(zip(SIZES, (1000, 100, 5), strict=True)), dict(zip(SIZES, (5000, 200, 8), strict=True))],
    quick=[dict(zip(SIZES, (1000, 60, 5), strict=True))],
    tiny=[dict(zip(SIZES, (60, 24, 3), strict=True))],
)
def search(options, genes, samples, cell_types):
    """Choice among 30 settings by L2MaxDeconvolverCV, in fits."""
    from skenigma.model_selection import L2MaxDeconvolverCV

    cohort = simulate(genes, samples, cell_types)
    yield Contest(
        {"genes": genes, "samples": samples, "cell_types": cell_types, "candidates": 30},
        [
            Contestant("one fit", lambda: L2MaxDeconvolver(cohort.reference).fit(cohort.bulk)),
            Contestant(
                "L2MaxDeconvolverCV", lambda: L2MaxDeconvolverCV(cohort.reference, **GRID).fit(cohort.bulk)
            ),
        ],
    )
