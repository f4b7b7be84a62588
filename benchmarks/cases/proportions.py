"""Proportions by robust regression."""

from functools import partial

import numpy as np
from scipy.stats import norm

from skenigma import ProportionEstimator

from ..harness import Contest, Contestant, case, largest_difference
from .models import simulate

# The two call the same quantile of the normal distribution 0.6745 and 0.67449: the threshold makes up for it.
THRESHOLD = 1.345 * norm.ppf(0.75) / 0.6745

# When to stop, here and there. The defaults are those of each: R's rule, and a deviance that changes by 1e-8. The
# tight ones reach the fixed point, which both share.
TOLERANCES = (
    ("default", {}, {}),
    ("tight", {"tol": 1e-12}, {"tol": 1e-12, "conv": "coefs", "maxiter": 500}),
)


def standardized(rows):
    return (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, ddof=1, keepdims=True)


def loop(bulk, reference, **options):
    """Proportions by one call of statsmodels per sample."""
    import statsmodels.api as sm

    design = sm.add_constant(standardized(reference).T)
    huber = sm.robust.norms.HuberT(THRESHOLD)
    found = [sm.RLM(sample, design, M=huber).fit(**options).params[1:] for sample in standardized(bulk)]
    found = np.maximum(found, 0)
    return found / found.sum(axis=1, keepdims=True)


@case(
    full=[{"samples": 1000, "genes": 5000, "cell_types": 10, "loop_samples": 40}],
    quick=[{"samples": 200, "genes": 2000, "cell_types": 10, "loop_samples": 20}],
    tiny=[{"samples": 10, "genes": 80, "cell_types": 3, "loop_samples": 4}],
)
def rlm(options, samples, genes, cell_types, loop_samples):
    """Proportions by robust regression, against a loop of statsmodels.RLM over the samples."""
    import statsmodels.api  # noqa: F401 - without it there is no contest

    cohort = simulate(genes, samples, cell_types)
    few = cohort.bulk[:loop_samples]
    note = f"{loop_samples} samples, scaled up"
    for tolerance, ours, theirs in TOLERANCES:
        estimator = ProportionEstimator(cohort.reference, **ours)
        one_by_one = partial(loop, few, cohort.reference, **theirs)

        def difference(estimator=estimator, one_by_one=one_by_one):
            return largest_difference(estimator.fit(few).proportions_, one_by_one())

        yield Contest(
            {"samples": samples, "genes": genes, "cell_types": cell_types, "tolerance": tolerance},
            [
                Contestant("skenigma", partial(estimator.fit, cohort.bulk)),
                Contestant("loop of statsmodels.RLM", one_by_one, factor=samples / loop_samples, note=note),
            ],
            agreement=difference if tolerance == "tight" else None,
        )
