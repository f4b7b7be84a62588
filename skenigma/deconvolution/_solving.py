"""How a penalised squared error is minimised: from a cohort and a setting to a solution, without an estimator."""

import time
from dataclasses import dataclass, replace

import numpy as np

from ..checks.validation import StrOptions, few_blas_threads
from ..core.optimize.basis import SpanBasis
from ..core.optimize.partitions import in_one_piece
from ..core.optimize.problem import Problem
from ..core.optimize.registry import SOLVERS, find_solver
from ..core.optimize.solvers import Settings
from ..core.optimize.start import Start

# A gradient counts as zero up to this multiple of the rounding error of the proportions' type.
ROUNDING_MARGIN = 128

# Iterations that are looked ahead for shared directions where the bulk is not in memory. The first look goes by
# directions that are still far from what they come to, whatever its length, and the second serves all of the fit
# unless it converges late.
LOOK_AHEAD = (10, 60)

# Numbers of a cohort up to which threads of the BLAS cost more in an iteration than they give: its matrices are small
# and many, and where other work runs, waiting for a thread takes longer than the work.
SMALL_PROBLEM = 2**19


@dataclass(frozen=True)
class Setting:
    """What is minimised and how, with a number for everything that may be "auto".

    Attributes
    ----------
    alpha : float
        Weight of the reconstruction; the reference has 1 − alpha.
    penalty : object
        One of :mod:`skenigma.core.optimize.penalties`.
    solver : str
    parameter : float or None
        Step length or γ of the solver.
    tolerance : float
        Squared change, summed over samples and genes, below which the iteration ends.
    max_iter : int
    renorm_size : float or None
        Norm to which gradients are rescaled.
    start : Start or None
        Over genes; None leaves it to the solver.
    masked : bool
        Whether the expression is held at 0 where the bulk is 0.
    followed_by : callable, or None
        The :class:`Setting` of a run that follows, from the gradient norms of this one.
    frame : object
        That of the solution of the run before: it saves readings of a bulk that is not in memory.
    """

    alpha: float
    penalty: object
    solver: str
    parameter: float | None
    tolerance: float
    max_iter: int
    renorm_size: float | None = None
    start: Start | None = None
    masked: bool = False
    followed_by: object = None
    frame: object = None


class SolverNames(StrOptions):
    """The constraint of the parameter ``solver``: any key of the registry at the time of asking."""

    def __init__(self):
        super().__init__(set(SOLVERS))

    @property
    def options(self):
        """Names of the solvers."""
        return set(SOLVERS)

    @options.setter
    def options(self, names):
        pass  # what scikit-learn's constructor sets is asked for anew each time


def solver_parameter(solver, given, problem, shape):
    """The value of a solver's own parameter, and its fitted attribute.

    Parameters
    ----------
    solver : skenigma.core.optimize.registry.Solver
    given : dict
        Parameters of the estimator.
    problem : Problem
    shape : tuple of int
        Shape of the bulk.
    """
    if solver.parameter is None:
        return None, {}
    value = given[solver.parameter]
    if value == "auto":
        value = solver.automatic(problem, shape)
    return value, {f"{solver.parameter}_": value}


def basis_of(bulk, reference, start=None, masked=False):
    """Basis in which a cohort is solved: of all that its start holds, too; the genes where there is a mask."""
    if masked or (start is not None and not start.is_shared):
        return SpanBasis(bulk, reference, compress=False)
    if start is not None and start.profiles is not None:
        reference = np.vstack([reference, start.profiles])
    # what is not in memory would be read more often to be compressed than a solver by rows reads it
    return SpanBasis(bulk, reference, compress=not hasattr(bulk, "block_rows"))


def suited(basis, solver, penalty, start=None, masked=False, n_runs=1):
    """The basis in which a solver, to run ``n_runs`` times, is done first.

    Parameters
    ----------
    basis : SpanBasis
        From :func:`basis_of`.
    solver : str
    penalty, start, masked
        As of :class:`Setting`.
    n_runs : int, default=1
    """
    engine = SOLVERS[solver].engine(penalty, start, masked)
    return basis.for_rows(n_runs) if engine is not None and engine.by_rows else basis


def pose(basis, proportions, alpha, penalty, start=None, masked=False):
    """The problem of a cohort on the coordinates of its basis."""
    theta = proportions.astype(np.float64, copy=False)
    n_cell_types = theta.shape[1]
    if start is not None and start.profiles is not None:
        profiles = start.profiles if masked else basis.reference[n_cell_types:]
        start = replace(start, profiles=profiles)
    return Problem(basis.samples, basis.reference[:n_cell_types], theta, alpha, penalty, start, masked)


def solve(setting, basis, proportions, monitor):
    """Minimise, on the coordinates of a cohort.

    Parameters
    ----------
    setting : Setting
    basis : skenigma.core.optimize.basis.SpanBasis
        From :func:`basis_of`.
    proportions : ndarray of shape (n_samples, n_cell_types)
    monitor : callable
        Called with the delta row after each iteration; a true answer ends it.

    Returns
    -------
    solution : skenigma.core.optimize.solvers.Solution

    Raises
    ------
    FloatingPointError
        If the iteration diverges.
    """
    problem, settings = _task(setting, basis, proportions)
    run = find_solver(setting.solver, setting.penalty, setting.start, setting.masked)
    # partitions have threads of their own
    with few_blas_threads(problem.bulk.size <= SMALL_PROBLEM or settings.place is not in_one_piece):
        return run(problem, basis, settings, monitor)


def _task(setting, basis, proportions):
    """Problem and settings of a solver."""
    problem = pose(basis, proportions, setting.alpha, setting.penalty, setting.start, setting.masked)
    settings = Settings(
        parameter=setting.parameter,
        epsilon=setting.tolerance,
        max_iter=setting.max_iter,
        renorm_size=setting.renorm_size,
        resolution=ROUNDING_MARGIN * np.finfo(proportions.dtype).eps,
    )
    matrix = basis.given_bulk
    if not hasattr(matrix, "block_rows"):
        return problem, settings
    # few readings, and partitions for what they take
    next_setting = setting.followed_by
    return problem, replace(
        settings,
        ahead=LOOK_AHEAD,
        known=None if matrix.facts is None else matrix.facts.mean[None],
        place=matrix.place(),
        followed_by=next_setting and (lambda norms: _task(next_setting(norms), basis, proportions)),
        frame=setting.frame,
    )


class Trace:
    """The printed trace of a fit, in the form of the published one.

    Parameters
    ----------
    verbose : int
        0 prints nothing.
    """

    def __init__(self, verbose):
        self.verbose = verbose
        self._print("{now} Optimizing cell type specific expression profile...")

    def _print(self, line, **values):
        if self.verbose:
            print(line.format(now=time.ctime(), **values))

    def iteration(self, delta):
        """Print the range of the changes of one iteration."""
        if self.verbose:  # nor are the extremes looked for where nobody reads them
            self._print("Ratio ranges from: {low:.6f} - {high:.6f}", low=delta.min(), high=delta.max())

    def end(self, solution, weights):
        """Print what the iteration came to; ``weights`` make an objective of a row of losses."""
        if not self.verbose:  # some solvers form their losses only when asked for
            return
        first, last = solution.loss[0], solution.loss[-1]
        self._print("Total delta_loss: {change:.6f}, {now}", change=abs(last @ weights - first @ weights))
        self._print("part1:{loss[0]:.15g} part2:{loss[1]:.15g} part3:{loss[2]:.15g}", loss=last)
        self._print("Done!")
        outcome = "Converge in" if solution.converged else "Not converged in"
        self._print(outcome + " {steps} steps", steps=len(solution.loss))
