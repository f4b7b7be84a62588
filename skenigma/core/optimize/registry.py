"""The solvers by name: what each needs of a penalty, what its parameter is, and what helps where it fails.

A solver is one entry of :data:`SOLVERS`. Nothing else in the package compares solvers with a name.
"""

from dataclasses import dataclass
from functools import partial

from .accelerated import solve_accelerated
from .plain import solve_plain
from .rows import AcceleratedRows, AdmmRows, GradientRows, JacobiRows
from .solvers import solve_framed, solve_split
from .spectrum import automatic_gamma, singular_values

# What every solver of the splitting kind needs; see the module of penalties for what it means.
PLAIN = ("curvature", "value", "prox")
# The same of the published iteration.
CAPPED = ("curvature", "value", "caps")


@dataclass(frozen=True)
class Engine:
    """A function that runs a solver, and what it needs.

    Attributes
    ----------
    run : callable
        Of problem, basis, settings and monitor; returns a :class:`~skenigma.core.optimize.solvers.Solution`.
    needs : tuple of str
        Attributes that the penalty must have.
    own_starts : bool
        Whether every sample may have a start of its own.
    masks : bool
        Whether the expression may be held at 0 where the bulk is 0.
    by_rows : bool
        Whether it reads the bulk by blocks of rows, a few times, and keeps nothing of its size.
    """

    run: object
    needs: tuple = PLAIN
    own_starts: bool = True
    masks: bool = True
    by_rows: bool = False

    def missing(self, penalty):
        """Which of its needs a penalty does not meet."""
        return [name for name in self.needs if not hasattr(penalty, name)]


@dataclass(frozen=True)
class Solver:
    """What there is to know of a solver.

    Attributes
    ----------
    engines : tuple of Engine
        The first whose needs are met runs.
    parameter : str or None
        Parameter of the estimator that it takes, such as a step length. Its fitted value has an underscore more.
    automatic : callable or None
        Value of the parameter for "auto", from the problem and the shape of the bulk.
    certifies : bool
        Whether ``epsilon`` is a share of the objective, proven, rather than a bound of the change.
    rescales : bool
        Whether gradients can be rescaled to a fixed norm.
    if_diverged, if_slow : str
        What to do where the iteration diverges, or ends at its largest number of iterations. ``{steps}`` stands for
        the parameters that decide the length of a step, ``{safe}`` for when "auto" cannot diverge.
    """

    engines: tuple
    parameter: str | None = None
    automatic: object = None
    certifies: bool = False
    rescales: bool = False
    if_diverged: str = "Use a smaller epsilon."
    if_slow: str = "Use a larger beta, or a larger max_iter or epsilon."

    def engine(self, penalty, start=None, masked=False):
        """The first engine that a penalty, a start and a mask allow, or None."""
        shared = start is None or start.is_shared
        for engine in self.engines:
            if not engine.missing(penalty) and (shared or engine.own_starts) and (engine.masks or not masked):
                return engine
        return None


def inverse_lipschitz(problem, shape):
    """The longest step that cannot diverge: the inverse of the curvature of the quadratic part."""
    return float(1.0 / problem.lipschitz_constant())


def original_gamma(problem, shape):
    """The original's rule for γ."""
    return automatic_gamma(singular_values(problem.bulk), shape)


_ADMM: dict = {
    "parameter": "gamma",
    "automatic": original_gamma,
    "if_diverged": "Use a larger gamma or solver='admm'.",
    "if_slow": "Use a larger beta, another gamma, or a larger max_iter or epsilon.",
}

SOLVERS = {
    "proximal": Solver(
        engines=(
            Engine(solve_framed, CAPPED, own_starts=False, masks=False, by_rows=True),
            Engine(solve_plain, CAPPED),
            Engine(partial(solve_split, rows=GradientRows)),
        ),
        parameter="tao_k",
        automatic=inverse_lipschitz,
        rescales=True,
        if_diverged="Use a smaller {steps} (tao_k='auto' is safe{safe}).",
        if_slow="Use a larger beta, a smaller {steps}, or a larger max_iter or epsilon.",
    ),
    "admm": Solver(engines=(Engine(partial(solve_split, rows=AdmmRows)),), **_ADMM),
    "admm_fast": Solver(engines=(Engine(partial(solve_split, rows=JacobiRows)),), **_ADMM),
    "accelerated": Solver(
        engines=(
            Engine(
                solve_accelerated,
                ("curvature", "value", "weighted_caps", "conjugate"),
                own_starts=False,
                masks=False,
                by_rows=True,
            ),
            # what bounds the objective from below knows nothing of a mask
            Engine(partial(solve_split, rows=AcceleratedRows), (*PLAIN, "conjugate"), masks=False),
        ),
        certifies=True,
        if_slow="Use a larger max_iter, epsilon or beta.",
    ),
}


def find_solver(name, penalty, start=None, masked=False):
    """The function that runs a solver for a penalty.

    Parameters
    ----------
    name : str
        Key of :data:`SOLVERS`.
    penalty : object
        See :mod:`skenigma.core.optimize.penalties`.
    start : Start, optional
    masked : bool, default=False
        Whether the expression is held at 0 where the bulk is 0.

    Returns
    -------
    run : callable

    Raises
    ------
    ValueError
        If there is no such solver, or the penalty lacks something that it needs; the message says what.
    """
    if name not in SOLVERS:
        known = ", ".join(repr(known) for known in SOLVERS)
        raise ValueError(f"There is no solver {name!r}. Known are {known}.")
    engine = SOLVERS[name].engine(penalty, start, masked)
    if engine is not None:
        return engine.run
    missing = SOLVERS[name].engines[-1].missing(penalty)
    others = [repr(other) for other in SOLVERS if SOLVERS[other].engine(penalty, start, masked)]
    reason = (
        f"solver={name!r} needs of a penalty what {type(penalty).__name__} does not offer: {', '.join(missing)}."
        if missing
        else f"solver={name!r} cannot hold the expression at 0 where the bulk is 0."
    )
    raise ValueError(
        f"{reason} " + (f"Use solver={' or '.join(others)}." if others else "No solver can do without.")
    )
