"""Samples on their way through an iteration of :mod:`skenigma.core.optimize.splitting`, a class per algorithm."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from .penalties import apply_maps
from .start import Start

# Least weight of a cell type, proportions being of size 1: without it, α = 1 would leave one that is absent from
# every sample without a finite step.
LEAST_WEIGHT = 1e-8


def mixture(proportions, expression):
    """Σ_k θ_jk p_jk for ``expression`` of shape (n_cell_types, n_samples, n_dimensions)."""
    mixed = proportions[:, 0, None] * expression[0]
    scratch = np.empty_like(mixed)
    for weights, rows in zip(proportions.T[1:], expression[1:], strict=True):
        mixed += np.multiply(weights[:, None], rows, out=scratch)
    return mixed


@dataclass(frozen=True)
class Update:
    """What one update takes from the cohort: with it, every row moves by itself.

    Attributes
    ----------
    shift : ndarray of shape (n_cell_types, n_dimensions)
    maps : tuple
        What the proximal operator does to a row, per cell type.
    momentum : float
        How far beyond the current expression the update starts; 0 for solvers without momentum.
    """

    shift: np.ndarray
    maps: tuple
    momentum: float = 0.0

    @property
    def nbytes(self):
        """Memory held, in bytes."""
        return self.shift.nbytes + sum(row_map.nbytes for row_map in self.maps)


class Rows:
    """Samples on their way through an iteration; each moves by itself once the shared quantities are given.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_columns)
    proportions : ndarray of shape (n_samples, n_cell_types)
    method : Method
    start : Start, optional
        In the place of the method's.

    Attributes
    ----------
    expression : ndarray of shape (n_cell_types, n_samples, n_columns)
        Every update makes a new array.
    step : float or ndarray of shape (n_cell_types,)
        Step length of the proximal operator.
    momentum : float
        How far beyond the current expression the next update starts.
    """

    # whether the step lengths follow from the proportions of the cohort, by ``weights``
    has_weights = False
    usual_start = Start()

    def __init__(self, bulk, proportions, method, start=None):
        self.bulk, self.proportions, self.alpha = bulk, proportions, method.alpha
        self._kept = bulk != 0 if method.masked else None
        self.expression = self._held((start or method.start).of(bulk, proportions.shape[1]))
        self.momentum = 0.0
        self._prepare(method.curvature, method.parameter)

    def apply(self, update):
        """Make one update with given shared quantities."""
        self.momentum = update.momentum
        proposal = self.reconstruction_step()
        self.apply_shift(proposal, update.shift)
        self.proximal_step(proposal, partial(apply_maps, update.maps))

    def _held(self, expression):
        """Expression set to 0 where the bulk is 0, in place, if that is asked for."""
        return expression if self._kept is None else np.multiply(expression, self._kept, out=expression)


class GradientRows(Rows):
    """Proximal gradient: P ← prox of τ·penalty at P − τ·(gradient of the quadratic part)."""

    def _prepare(self, curvature, parameter):
        self.step = parameter
        self._rate = curvature * parameter

    def reconstruction_step(self):
        """Expression after the step along the gradient of the reconstruction."""
        residual = mixture(self.proportions, self.expression) - self.bulk
        return self.expression - outer(self._rate * self.alpha * self.proportions, residual)

    def reference_shift(self, reference, proposal):
        """Shift towards the reference that the cohort as a whole calls for."""
        pull = self._rate * (1.0 - self.alpha) / len(self.bulk)
        return pull * (reference - self.expression.mean(axis=1))

    def apply_shift(self, proposal, shift):
        """Add the shift, in place."""
        proposal[:, :, : shift.shape[1]] += shift[:, None]

    def proximal_step(self, proposal, prox):
        """Apply the proximal operator and make the result the current expression."""
        maps = prox(proposal, proposal)
        self.expression = self._held(proposal)
        return maps


class AcceleratedRows(GradientRows):
    """The same from beyond the current expression, with a step of its own length in every cell type."""

    has_weights = True
    usual_start = Start(0.0)

    @staticmethod
    def weights(problem):
        """Weight w_k of every cell type; see :mod:`skenigma.core.optimize.splitting`."""
        theta = problem.proportions
        purest = np.maximum(theta.max(axis=0), LEAST_WEIGHT)
        purest *= np.max((theta**2 / purest).sum(axis=1))
        weights = problem.alpha * purest + (1.0 - problem.alpha) / len(theta)
        return problem.penalty.curvature * np.maximum(weights, LEAST_WEIGHT)

    def _prepare(self, curvature, parameter):
        self.step = 1.0 / parameter
        self._rate = curvature * self.step
        self.before = self.expression

    def reconstruction_step(self):
        """Expression after the step along the gradient of the reconstruction, from beyond the current one."""
        self.origin = self.expression
        if self.momentum:
            self.origin = self.expression - self.before
            self.origin *= self.momentum
            self.origin += self.expression
        self.residual = mixture(self.proportions, self.origin) - self.bulk
        proposal = outer(-self._rate * self.alpha * self.proportions, self.residual)
        proposal += self.origin
        return proposal

    def reference_shift(self, reference, proposal):
        """Shift towards the reference that the cohort as a whole calls for."""
        self.offset = self.origin.mean(axis=1) - reference
        return (-self._rate * (1.0 - self.alpha) / len(self.bulk))[:, None] * self.offset

    def proximal_step(self, proposal, prox):
        """Apply the proximal operator and make the result the current expression."""
        self.before = self.expression
        return super().proximal_step(proposal, prox)


class AdmmRows(Rows):
    """Alternating direction method of multipliers with the exact solution of the quadratic part."""

    def _prepare(self, curvature, parameter):
        self.step = 1.0 / parameter
        self._gamma = parameter / curvature
        self._shrunk = self.expression.copy()
        self._dual = self.expression / self._gamma
        self._factorise()

    def _factorise(self):
        squares = np.einsum("jk,jk->j", self.proportions, self.proportions)
        weights = self.alpha / (self._gamma + self.alpha * squares)
        self._weighted = weights[:, None] * self.proportions

    def reconstruction_step(self):
        """Solution of the quadratic part if the reference had no pull."""
        proposal = self._shrunk - self._dual
        proposal -= outer(self._weighted, mixture(self.proportions, proposal) - self.bulk)
        return proposal

    def response(self):
        """Mean change of the expression per unit of shift (N of :mod:`skenigma.core.optimize.splitting`)."""
        return np.eye(self.proportions.shape[1]) - self._weighted.T @ self.proportions / len(self.bulk)

    def reference_shift(self, reference, proposal):
        """Shift towards the reference, such that it is consistent with the mean it leads to."""
        strength = (1.0 - self.alpha) / (self._gamma * len(self.bulk))
        system = np.eye(len(reference)) + strength * self.response()
        return strength * np.linalg.solve(system, reference - proposal.mean(axis=1))

    def apply_shift(self, proposal, shift):
        """Let the shift act on the solution, in place."""
        inside = proposal[:, :, : shift.shape[1]]
        inside += shift[:, None]
        inside -= outer(self._weighted, self.proportions @ shift)

    def proximal_step(self, proposal, prox):
        """Update auxiliary variable and dual, and make the proposal the current expression."""
        self.expression = self._held(proposal)
        self._dual += proposal
        maps = prox(self._dual, self._shrunk)
        self._dual -= self._held(self._shrunk)
        return maps


class JacobiRows(AdmmRows):
    """The same with one system per cell type, all others held at their old expression (``admm_fast``).

    The system α diag(θ_jk²) + (1−α)/n² · 11ᵀ + γI of cell type k is diagonal plus rank one.
    """

    def _factorise(self):
        diagonal = self._gamma + self.alpha * self.proportions**2
        self._keep = self._gamma / diagonal
        self._weighted = self.alpha * self.proportions / diagonal

    def reconstruction_step(self):
        """Solution per cell type if the reference had no pull."""
        residual = mixture(self.proportions, self.expression) - self.bulk
        proposal = (self._weighted * self.proportions).T[:, :, None] * self.expression
        proposal -= outer(self._weighted, residual)
        proposal += self._keep.T[:, :, None] * (self._shrunk - self._dual)
        return proposal

    def response(self):
        """Mean change of the expression per unit of shift."""
        return np.diag(self._keep.mean(axis=0))

    def apply_shift(self, proposal, shift):
        """Let the shift act on the solution, in place."""
        proposal[:, :, : shift.shape[1]] += _outer_shared(self._keep, shift)


def outer(weights, rows):
    """Rows times each column of ``weights``, shape (n_cell_types, n_samples, n_dimensions)."""
    return weights.T[:, :, None] * rows


def _outer_shared(weights, vectors):
    return weights.T[:, :, None] * vectors[:, None]


ROWS = {
    "proximal": GradientRows,
    "admm": AdmmRows,
    "admm_fast": JacobiRows,
    "accelerated": AcceleratedRows,
}


@dataclass(frozen=True)
class Method:
    """How rows move: everything but the data; made by :meth:`Problem.method`.

    Attributes
    ----------
    rows : type
        Subclass of :class:`Rows`.
    parameter : float or ndarray of shape (n_cell_types,)
        Step length τ of "proximal", γ of the ADMM solvers, both on the scale of F; the weights of "accelerated".
    alpha : float
        Weight of the reconstruction.
    curvature : float
        Factor c of the data terms.
    start : Start
    masked : bool
        Whether the expression is held at 0 where the bulk is 0.
    """

    rows: type
    parameter: object
    alpha: float
    curvature: float
    start: Start
    masked: bool = False

    def start_rows(self, bulk, proportions, start=None):
        """Rows at the start of the iteration."""
        return self.rows(bulk, proportions, self, start)
