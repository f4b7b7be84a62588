"""The models: fits, how their cost grows, what they hold in memory, how many iterations they take."""

import contextlib
import io
import time
import warnings
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver, TraceNormDeconvolver
from skenigma.datasets import make_cohort

from ..fresh import MEGABYTE, peak_growth
from ..harness import Contest, Contestant, case, largest_difference
from ..plain import l2max_proximal
from ..report import draw_growth, slopes

# The published call but for renormalisation.
PUBLISHED = {"alpha": 0.1, "beta": 50.0, "tao_k": 1.0, "epsilon": 1e-3}
SIZES = ("genes", "samples", "cell_types")


def simulate(genes, samples, cell_types):
    """A cohort by the published recipe, without its tensor."""
    cohort = make_cohort(samples, genes, cell_types, random_state=0)
    del cohort["cse"]
    return cohort


def deconvolver(reference, **options):
    return L2MaxDeconvolver(reference, positive=False, **(PUBLISHED | options))


def quietly(function, *arguments, **options):
    """Result of ``function``; not to have converged is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*arguments, **options)


def fitted(model, cohort):
    """``model``, fitted with the true proportions."""
    return quietly(model.fit, cohort.bulk, proportions=cohort.proportions)


def plain(cohort, **options):
    """Expression by the iteration without compression."""
    options = PUBLISHED | {"renorm_size": None} | options
    return l2max_proximal(cohort.bulk, cohort.reference, cohort.proportions, **options)[0]


class Stamps(io.TextIOBase):
    """Times at which iterations end: what ``verbose=1`` prints is written to it, or ``tick`` is called."""

    def __init__(self):
        self.times = []

    def tick(self):
        self.times.append(time.perf_counter())

    def write(self, text):
        if text.startswith("Ratio ranges from"):
            self.tick()
        return len(text)

    def seconds_per_iteration(self):
        # the mean: iterations differ, those that find new directions take longest
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def seconds_per_iteration(cohort, renorm_size, iterations):
    stamps = Stamps()
    settings = {"renorm_size": renorm_size, "epsilon": 0.0, "max_iter": iterations, "verbose": 1}
    with contextlib.redirect_stdout(stamps):
        fitted(deconvolver(cohort.reference, **settings), cohort)
    return stamps.seconds_per_iteration()


def plain_seconds_per_iteration(cohort, renorm_size, iterations):
    stamps = Stamps()
    plain(cohort, renorm_size=renorm_size, epsilon=0.0, max_iter=iterations, tick=stamps.tick)
    return stamps.seconds_per_iteration()


def least_work(X, R):
    """What any exact method does: orthogonalise once what it is given, and write the result once."""
    np.linalg.qr(np.vstack([X, R]).T)
    out = np.empty((len(X), len(R), X.shape[1]))
    for k in range(len(R)):
        out[:, k] = X
    return out


def both_settings(*sizes):
    """Each size without and with renormalisation."""
    names = (*SIZES, "plain_iterations")
    return [
        dict(zip(names, size, strict=True), renorm_size=renorm_size)
        for size in sizes
        for renorm_size in (None, 200)
    ]


@case(
    full=both_settings((1000, 100, 5, 1000), (5000, 200, 8, 20), (20000, 300, 8, 4)),
    quick=both_settings((1000, 100, 5, 1000), (5000, 200, 8, 5)),
    tiny=both_settings((60, 12, 3, 5)),
)
def fit(options, genes, samples, cell_types, renorm_size, plain_iterations):
    """Fit of the maximum-L2-norm model, from given proportions to the whole tensor."""
    cohort = simulate(genes, samples, cell_types)
    model = deconvolver(cohort.reference, renorm_size=renorm_size)
    n_iter = fitted(model, cohort).n_iter_
    run = "l2max_none" if renorm_size is None else "l2max_renorm200"
    shown = min(n_iter, plain_iterations)
    short = {"renorm_size": renorm_size, "max_iter": shown}
    baseline = Contestant("plain iteration", partial(plain, cohort, **short))
    if shown < n_iter:
        part = partial(plain_seconds_per_iteration, cohort, renorm_size, shown)
        note = f"{n_iter} × the time of one iteration, of {shown} made"
        baseline = Contestant("plain iteration", part, reports=True, factor=n_iter, note=note)
    yield Contest(
        {"genes": genes, "samples": samples, "cell_types": cell_types}
        | {"renorm_size": f"{renorm_size}", "iterations": n_iter},
        [
            Contestant("least work", partial(least_work, cohort.bulk, cohort.reference)),
            Contestant("skenigma", partial(fitted, model, cohort)),
            baseline,
            *(options.original.run(cohort) if genes <= 1000 else []),
            *options.original.recorded(run, (genes, samples, cell_types), n_iter),
        ],
        agreement=lambda: largest_difference(
            fitted(deconvolver(cohort.reference, **short), cohort).cse_, plain(cohort, **short)
        ),
    )


@case(
    full=[
        dict(zip(SIZES, size, strict=True)) for size in ((5000, 200, 8), (20000, 300, 8), (10000, 1000, 5))
    ],
    quick=[dict(zip(SIZES, (5000, 200, 8), strict=True))],
    tiny=[dict(zip(SIZES, (60, 12, 3), strict=True))],
)
def posterior(options, genes, samples, cell_types):
    """Fit of the posterior on the log scale, from given proportions, with and without the tensor of expression."""
    rng = np.random.default_rng(0)
    reference = rng.gamma(0.7, 80.0, (cell_types, genes))
    theta = rng.dirichlet(np.full(cell_types, 2.0), samples)
    # a factor over samples, and an offset of the platform, so that there are directions to find
    changes = rng.normal(0, 0.4, (samples, genes)) + 0.3 * rng.normal(size=(samples, 1)) * rng.normal(
        size=genes
    )
    bulk = theta @ reference * np.exp2(changes + 0.5 * rng.normal(size=genes))
    models = {
        name: EmpiricalBayesDeconvolver(reference, materialize=tensor)
        for name, tensor in (("with the tensor", True), ("compact", False))
    }
    fits = {name: partial(model.fit, bulk, proportions=theta) for name, model in models.items()}
    yield Contest(
        {"genes": genes, "samples": samples, "cell_types": cell_types},
        [
            Contestant("least work", partial(least_work, bulk, reference)),
            *(Contestant(name, run) for name, run in fits.items()),
        ],
        agreement=lambda: largest_difference(
            fits["compact"]().expression_.values(), fits["with the tensor"]().cse_
        ),
    )


def along(axis, sizes, **fixed):
    return [fixed | {axis: size, "along": axis} for size in sizes]


@case(
    full=along("genes", (1000, 2000, 5000, 10000, 20000, 50000), samples=200, cell_types=5)
    + along("samples", (250, 500, 1000, 2000, 4000), genes=2000, cell_types=5),
    quick=along("genes", (1000, 5000), samples=100, cell_types=5)
    + along("samples", (250, 500), genes=1000, cell_types=5),
    tiny=along("genes", (40, 80), samples=10, cell_types=3)
    + along("samples", (10, 20), genes=40, cell_types=3),
    remarks=slopes,
    draw=draw_growth,
)
def scaling(options, along, genes, samples, cell_types):
    """Growth of the cost with genes and with samples."""
    cohort = simulate(genes, samples, cell_types)
    once = deconvolver(cohort.reference, max_iter=1)
    fast = partial(seconds_per_iteration, cohort, None, 200)
    slow = partial(plain_seconds_per_iteration, cohort, None, 4)
    yield Contest(
        {"along": along, "genes": genes, "samples": samples, "cell_types": cell_types},
        [
            Contestant("skenigma, per iteration", fast, reports=True),
            Contestant("skenigma, all but the iterations", partial(fitted, once, cohort)),
            Contestant("plain iteration, per iteration", slow, reports=True),
        ],
    )


def fit_arrays(bulk, reference, proportions, options):
    """A fit to be made in a process of its own."""
    quietly(deconvolver(reference, **options).fit, bulk, proportions=proportions)


def plain_arrays(bulk, reference, proportions):
    options = PUBLISHED | {"renorm_size": None, "max_iter": 2}
    l2max_proximal(bulk, reference, proportions, **options)


def arrays(dtype, *size):
    cohort = simulate(*size)
    return tuple(cohort[name].astype(dtype) for name in ("bulk", "reference", "proportions"))


@case(
    full=[dict(zip(SIZES, (20000, 300, 8), strict=True), dtype=dtype) for dtype in ("float64", "float32")],
    quick=[dict(zip(SIZES, (5000, 200, 8), strict=True), dtype="float64")],
    tiny=[dict(zip(SIZES, (200, 20, 3), strict=True), dtype="float32")],
    repeats=3,
)
def memory(options, genes, samples, cell_types, dtype):
    """Peak memory of a fit beyond its input, in a fresh process."""
    small, large = arrays(dtype, 50, 10, cell_types), arrays(dtype, genes, samples, cell_types)
    result, given = large[0].nbytes * cell_types / MEGABYTE, large[0].nbytes / MEGABYTE

    def peak(function, *rest):
        return partial(peak_growth, function, (*small, *rest), (*large, *rest), options.threads)

    contestants = [
        Contestant("result", lambda: result, True, once=True, note="computed"),
        Contestant("result and 2.5 × input", lambda: result + 2.5 * given, True, once=True, note="computed"),
        Contestant("skenigma", peak(fit_arrays, {}), reports=True),
    ]
    if "materialize" in L2MaxDeconvolver().get_params():
        compact = peak(fit_arrays, {"materialize": False})
        contestants.append(Contestant("skenigma, materialize=False", compact, reports=True))
    if dtype == "float64":
        note = "2 iterations; more need no more"
        contestants.append(Contestant("plain iteration", peak(plain_arrays), reports=True, note=note))
        shape = (genes, samples, cell_types)
        contestants += options.original.recorded_memory("l2max_renorm200", shape)
    setting = {"genes": genes, "samples": samples, "cell_types": cell_types, "dtype": dtype}
    yield Contest(setting, contestants, unit="MB", warm_up=False)


def objective_history(model, n_samples):
    """F of the maximum-L2-norm model that went into each applied update of a fit by "proximal"."""
    reconstruction, _, largest = model.loss_history_[:-1].T
    # ‖G2‖² = (4/n) Σ_k ‖mean_k − r_k‖²
    offsets = n_samples / 4 * model.gradient_norm_[:, 1] ** 2
    return model.alpha * reconstruction + (1 - model.alpha) * offsets + model.beta / 2 * largest


def iterations_to(target, values):
    """Iterations after which ``values``, the first of which is that of the start, are at ``target``."""
    reached = np.flatnonzero(values <= target)
    if not len(reached):
        raise RuntimeError(f"{len(values)} iterations do not reach the target: more are needed")
    return int(reached[0])


@case(
    full=[
        dict(zip(SIZES, (1000, 100, 5), strict=True), alpha=alpha, beta=beta)
        for alpha, beta in ((0.1, 1.0), (0.1, 50.0), (0.5, 50.0))
    ],
    quick=[dict(zip(SIZES, (1000, 100, 5), strict=True), alpha=0.5, beta=50.0)],
    tiny=[dict(zip(SIZES, (60, 20, 3), strict=True), alpha=0.5, beta=20.0)],
)
def accelerated(options, genes, samples, cell_types, alpha, beta, gap=1e-8):
    """The accelerated solver against the published iteration at its largest safe step, to a relative gap of 1e-8."""
    cohort = simulate(genes, samples, cell_types)

    def model(solver, **rest):
        settings = {"alpha": alpha, "beta": beta, "renorm_size": None, "tao_k": "auto", "solver": solver}
        return deconvolver(cohort.reference, **settings, **rest)

    optimum = fitted(model("accelerated", epsilon=1e-13, max_iter=5000), cohort)
    value = -optimum.score(cohort.bulk, proportions=cohort.proportions) * cohort.bulk.size
    long = fitted(model("proximal", epsilon=0.0, max_iter=5000), cohort)
    published = iterations_to(value * (1 + gap), objective_history(long, samples))
    fast = model("accelerated", epsilon=gap)
    proven = fitted(fast, cohort).n_iter_ - 1  # the last evaluation is not applied
    slow = model("proximal", epsilon=0.0, max_iter=published + 1)
    setting = {"genes": genes, "samples": samples, "cell_types": cell_types, "alpha": alpha, "beta": beta}
    note = "until the gap is proven, which is later than it is reached"
    yield Contest(
        setting,
        [
            Contestant("accelerated", lambda: proven, reports=True, once=True, note=note),
            Contestant("proximal, tao_k=1/L", lambda: published, reports=True, once=True),
        ],
        unit="iterations",
        # of F, where the published iteration stops
        agreement=lambda: largest_difference(objective_history(long, samples)[published], value),
    )
    yield Contest(
        setting,
        [
            Contestant("accelerated", partial(fitted, fast, cohort)),
            Contestant("proximal, tao_k=1/L", partial(fitted, slow, cohort)),
        ],
    )


@case(
    full=[dict(zip(SIZES, (1000, 100, 5), strict=True), beta=beta) for beta in (1.0, 10.0, "auto")],
    quick=[dict(zip(SIZES, (1000, 100, 5), strict=True), beta="auto")],
    tiny=[dict(zip(SIZES, (60, 20, 3), strict=True), beta=5.0)],
)
def certified(options, genes, samples, cell_types, beta):
    """The trace norm's accelerated solver against "admm", to where the latter stops, and to a proof of the same."""
    cohort = simulate(genes, samples, cell_types)

    def model(solver, **rest):
        return TraceNormDeconvolver(cohort.reference, beta=beta, positive=False, solver=solver, **rest)

    def value(found):
        return -found.score(cohort.bulk, proportions=cohort.proportions) * cohort.bulk.size

    admm = fitted(model("admm"), cohort)
    least = value(fitted(model("accelerated", epsilon=1e-6, max_iter=5000), cohort))
    target, share = value(admm), value(admm) / least - 1
    needed = 1 + iterations_to(
        target, fitted(model("accelerated", epsilon=0.0, max_iter=200), cohort).loss_history_.sum(1)
    )
    sizes = {"genes": genes, "samples": samples, "cell_types": cell_types, "beta": beta}
    yield Contest(
        sizes | {"iterations": f"{needed} for {admm.n_iter_}", "above the minimum": f"{share:.1e}"},
        [
            Contestant(
                "accelerated", partial(fitted, model("accelerated", epsilon=0.0, max_iter=needed), cohort)
            ),
            Contestant("admm", partial(fitted, model("admm"), cohort)),
            Contestant(
                "accelerated, proven", partial(fitted, model("accelerated", epsilon=max(share, 1e-6)), cohort)
            ),
        ],
    )


# How a recorded run of the original is called here: its ADMM of the maximum-L2-norm model has 1/2 in the data terms.
SOLVERS = {
    "L2-max, proximal": (L2MaxDeconvolver, {"renorm_size": None}, "l2max_none"),
    "L2-max, admm": (L2MaxDeconvolver, {"solver": "admm", "beta": 100.0, "gamma": 2.0}, "admm_l2max_beta50"),
    "L2-max, accelerated": (L2MaxDeconvolver, {"solver": "accelerated", "epsilon": 1e-8}, None),
    "trace norm, admm": (TraceNormDeconvolver, {"solver": "admm"}, "trace_admm"),
    "trace norm, admm_fast": (TraceNormDeconvolver, {"solver": "admm_fast"}, "trace_admm_fast"),
    "trace norm, proximal": (TraceNormDeconvolver, {"solver": "proximal"}, "trace_proximalpoint"),
    "trace norm, accelerated": (TraceNormDeconvolver, {"solver": "accelerated"}, None),
}


@case(
    full=[dict(zip(SIZES, (1000, 100, 5), strict=True), solver=solver) for solver in SOLVERS],
    quick=[dict(zip(SIZES, (1000, 100, 5), strict=True), solver="trace norm, admm")],
    tiny=[dict(zip(SIZES, (40, 12, 3), strict=True), solver=solver) for solver in SOLVERS],
)
def solvers(options, genes, samples, cell_types, solver):
    """Every solver of both models at the size of the published data."""
    cohort = simulate(genes, samples, cell_types)
    estimator, settings, run = SOLVERS[solver]
    model = estimator(cohort.reference, positive=False, **settings)
    n_iter = fitted(model, cohort).n_iter_
    setting = {"genes": genes, "samples": samples, "cell_types": cell_types, "solver": solver}
    yield Contest(
        setting | {"iterations": n_iter},
        [
            Contestant("skenigma", partial(fitted, model, cohort)),
            *(options.original.recorded(run, (genes, samples, cell_types), n_iter) if run else []),
        ],
    )
