"""The passes of an iteration as NumPy calls and compiled by numba."""

from functools import partial

from skenigma.core.optimize import passes

from ..harness import Contest, Contestant, case, largest_difference
from .models import SIZES, deconvolver, fitted, quietly, seconds_per_iteration, simulate

JOBS = ("fit", "transform", "iteration")


def jobs(*sizes, names=JOBS):
    return [dict(zip(SIZES, size, strict=True), job=job) for size in sizes for job in names]


def with_passes(module, run):
    """Result of ``run`` with the passes of one module."""
    fastest = passes.fastest
    passes.fastest = lambda: module
    try:
        return run()
    finally:
        passes.fastest = fastest


@case(
    full=[
        *jobs((1000, 100, 5), (5000, 200, 8), (20000, 300, 8), (2000, 1000, 5)),
        *jobs((1000, 100, 5), names=["search"]),
    ],
    quick=jobs((1000, 100, 5)),
    tiny=jobs((60, 12, 3), names=[*JOBS, "search"]),
)
def compiled(options, genes, samples, cell_types, job):
    """What numba gives: the same job without and with compiled passes."""
    from skenigma.core.optimize import compiled

    cohort = simulate(genes, samples, cell_types)
    model = fitted(deconvolver(cohort.reference, renorm_size=None), cohort)

    def transform():
        return model.transform(cohort.bulk, proportions=cohort.proportions)

    def search():
        from skenigma.model_selection import L2MaxDeconvolverCV

        return quietly(L2MaxDeconvolverCV(cohort.reference, random_state=0).fit, cohort.bulk)

    run = {
        "fit": partial(fitted, model, cohort),
        "transform": transform,
        "iteration": partial(seconds_per_iteration, cohort, None, 200),
        "search": search,
    }[job]
    setting = {"genes": genes, "samples": samples, "cell_types": cell_types, "job": job}
    yield Contest(
        setting | {"iterations": model.n_iter_},
        [
            Contestant(name, partial(with_passes, module, run), reports=job == "iteration")
            for name, module in (("numpy", passes), ("numba", compiled))
        ],
        agreement=lambda: largest_difference(
            with_passes(compiled, transform), with_passes(passes, transform)
        ),
    )
