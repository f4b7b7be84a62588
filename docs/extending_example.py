"""A penalty, a model and a solver that skenigma does not have: the code of the page "Add a penalty or a solver"."""

from dataclasses import dataclass

import numpy as np

from skenigma import TraceNormDeconvolver
from skenigma.checks.validation import StrOptions
from skenigma.core.optimize import splitting
from skenigma.core.optimize.states import Tensor


@dataclass(frozen=True)
class ScaleMap:
    """Multiplication of every row by one factor."""

    factor: float
    nbytes = 8

    def apply(self, rows, out):
        """Scale ``rows`` into ``out``."""
        np.multiply(rows, self.factor, out=out)


class Ridge:
    """Squared norm of every sample in every cell type, β/2 · Σ_k ‖P_k‖_F²."""

    curvature = 1.0

    def __init__(self, beta):
        self.beta = beta

    def value(self, expression):
        """Penalty of anything with ``norms()``."""
        return 0.5 * self.beta * float(np.sum(expression.norms() ** 2))

    def prox(self, step, expression, out):
        """Minimum of ``step`` · β/2 · ‖P‖² + ½ ‖P − V‖², which is V / (1 + step · β)."""
        row_map = ScaleMap(1.0 / (1.0 + step * self.beta))
        row_map.apply(expression, out)
        return (row_map,) * len(expression)

    def losses(self, residual, expression, reference, alpha):
        """Three summands of the objective, weighted: reconstruction, reference, penalty."""
        offset = expression.mean(axis=1) - reference
        squares = np.array([alpha * np.vdot(residual, residual), (1.0 - alpha) * np.vdot(offset, offset)])
        return np.array([*(0.5 * self.curvature * squares), self.value(Tensor(expression))])


class RidgeDeconvolver(TraceNormDeconvolver):
    """Cell-type-specific expression with a ridge penalty in the place of the trace norm."""

    def _penalty(self, cohort, beta):
        return Ridge(beta)


class RelaxedAdmmRows(splitting.AdmmRows):
    """ADMM whose penalty step goes beyond the new expression, away from the old copy (over-relaxation).

    Eckstein & Bertsekas (1992); factors from 1.5 to 1.8 often save iterations.
    """

    relaxation = 1.6

    def settle(self, draft, prox):
        """Update auxiliary variable and dual, and make the draft the current expression."""
        self.expression = draft
        self._dual += self.relaxation * draft + (1.0 - self.relaxation) * self._shrunk
        maps = prox(self._dual, self._shrunk)
        self._dual -= self._shrunk
        return maps


class RelaxedTraceNormDeconvolver(TraceNormDeconvolver):
    """The trace-norm model with one solver more."""

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **TraceNormDeconvolver._parameter_constraints,
        "solver": [StrOptions({*splitting.SOLVERS, "admm_relaxed"})],
    }


def register():
    """Make the solver known by name; inside the package, its entry in ``splitting.SOLVERS`` does this."""
    splitting.SOLVERS["admm_relaxed"] = RelaxedAdmmRows
