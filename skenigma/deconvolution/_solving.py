"""How a penalised squared error is minimised: from a cohort and a setting to a solution, without an estimator."""

import time
from dataclasses import dataclass

import numpy as np

from ..checks.validation import few_blas_threads
from ..core.optimize.mixture import lipschitz_constant
from ..core.optimize.registry import find_solver
from ..core.optimize.solvers import Settings
from ..core.optimize.splitting import Problem

# A gradient counts as zero up to this multiple of the rounding error of the proportions' type.
ROUNDING_MARGIN = 128

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
    """

    alpha: float
    penalty: object
    solver: str
    parameter: float | None
    tolerance: float
    max_iter: int
    renorm_size: float | None = None


def automatic_step(penalty, proportions, alpha):
    """Step length that cannot diverge: the inverse Lipschitz constant of the gradient of the smooth terms."""
    return float(2.0 / (penalty.curvature * lipschitz_constant(proportions, alpha)))


def solve(setting, basis, proportions, monitor):
    """Minimise, on the coordinates of a cohort.

    Parameters
    ----------
    setting : Setting
    basis : skenigma.core.optimize.basis.SpanBasis
        Of bulk and reference.
    proportions : ndarray of shape (n_samples, n_cell_types)
    monitor : callable
        Called with loss row and delta row after each iteration; a true answer ends it.

    Returns
    -------
    solution : skenigma.core.optimize.solvers.Solution

    Raises
    ------
    FloatingPointError
        If the iteration diverges.
    """
    theta = proportions.astype(np.float64, copy=False)
    problem = Problem(basis.bulk, basis.reference, theta, setting.alpha, setting.penalty)
    settings = Settings(
        parameter=setting.parameter,
        epsilon=setting.tolerance,
        max_iter=setting.max_iter,
        renorm_size=setting.renorm_size,
        resolution=ROUNDING_MARGIN * np.finfo(proportions.dtype).eps,
    )
    run = find_solver(setting.solver, setting.penalty)
    with few_blas_threads(problem.bulk.size <= SMALL_PROBLEM):
        return run(problem, basis, settings, monitor)


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
        first, last = solution.loss[0], solution.loss[-1]
        self._print("Total delta_loss: {change:.6f}, {now}", change=abs(last @ weights - first @ weights))
        self._print("part1:{loss[0]:.15g} part2:{loss[1]:.15g} part3:{loss[2]:.15g}", loss=last)
        self._print("Done!")
        outcome = "Converge in" if solution.converged else "Not converged in"
        self._print(outcome + " {steps} steps", steps=len(solution.loss))
