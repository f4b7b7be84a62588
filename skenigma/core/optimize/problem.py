"""One cohort and its model: what every solver is given."""

from dataclasses import dataclass

import numpy as np

from ..blocks import squared_norm
from .mixture import lipschitz_constant
from .penalties import Terms
from .rows import ROWS, Method, mixture
from .start import Start
from .states import Span, SpanState, Tensor, objective


@dataclass(frozen=True)
class Problem:
    """One cohort and its model.

    Attributes
    ----------
    bulk : ndarray of shape (n_samples, n_dimensions)
        Samples, in any orthonormal basis of a space that holds samples and profiles; a RowSource for solvers
        that read rows.
    reference : ndarray of shape (n_cell_types, n_dimensions)
    proportions : ndarray of shape (n_samples, n_cell_types)
    alpha : float
        Weight of the reconstruction; the reference has 1 − alpha.
    penalty : object
        See :mod:`skenigma.core.optimize.penalties`.
    start : Start or None, default=None
        None is the bulk itself, or what the solver prefers.
    masked : bool, default=False
        Whether the expression is held at 0 where the bulk is 0; dimensions are then genes.
    """

    bulk: np.ndarray
    reference: np.ndarray
    proportions: np.ndarray
    alpha: float
    penalty: object
    start: Start | None = None
    masked: bool = False

    def method(self, rows, parameter=None):
        """How ``rows``, a subclass of :class:`Rows` or its name in :data:`ROWS`, move; see :class:`Method`."""
        rows = ROWS.get(rows, rows)
        parameter = rows.weights(self) if rows.has_weights else parameter
        start = self.start or rows.usual_start
        return Method(rows, parameter, self.alpha, self.penalty.curvature, start, self.masked)

    def residual(self, expression):
        """Reconstruction minus bulk, shape (n_samples, n_dimensions)."""
        return mixture(self.proportions, expression) - self.bulk

    def terms(self, expression):
        """What the loss record of ``expression`` (n_cell_types, n_samples, n_dimensions) is made of."""
        residual, mean = self.residual(expression), expression.mean(axis=1)
        offset = np.vdot(mean - self.reference, mean - self.reference)
        # Σ_j ‖p_jk − r_k‖² = Σ_j ‖p_jk‖² + n (‖mean − r‖² − ‖mean‖²)
        squares = np.einsum("kjd,kjd->", expression, expression)
        distance = squares + len(self.bulk) * (offset - np.vdot(mean, mean))
        return Terms(np.vdot(residual, residual), offset, distance, Tensor(expression))

    def objective(self, expression):
        """F of :mod:`skenigma.core.optimize.splitting` at ``expression`` (n_cell_types, n_samples, n_dimensions)."""
        inside = expression.swapaxes(0, 1)
        span = Span(None, self.bulk.shape[1])
        nothing = np.zeros(self.proportions.shape)
        state = SpanState(self.bulk, None, self.proportions, inside, nothing, span, self.bulk.dtype)
        return objective(state, self.reference, self.alpha, self.penalty)

    def lower_bound(self, residual, offset, gradient):
        """Largest lower bound of F that one gradient of the quadratic part proves.

        Parameters
        ----------
        residual : ndarray of shape (n_samples, n_dimensions)
            e_j at any expression.
        offset : ndarray of shape (n_cell_types, n_dimensions)
            mean_k − r_k there.
        gradient : object
            The gradient there, anything with ``norms()`` and ``grams()``.

        Returns
        -------
        bound : float or None
            None where the penalty is 0 whatever the expression, so that no gradient proves anything.
        """
        c, alpha = self.penalty.curvature, self.alpha
        squares = alpha * np.vdot(residual, residual) + (1.0 - alpha) * np.vdot(offset, offset)
        along = alpha * np.vdot(residual, self.bulk) + (1.0 - alpha) * np.vdot(offset, self.reference)
        return self.penalty.conjugate(gradient).bound(0.5 * c * squares, c * along)

    def lipschitz_constant(self):
        """Bound on the curvature of the quadratic part: c (α·max_j‖θ_j‖² + (1−α)/n)."""
        return 0.5 * self.penalty.curvature * lipschitz_constant(self.proportions, self.alpha)

    def value_of_nothing(self):
        """F at P = 0."""
        bulk, reference = squared_norm(self.bulk), squared_norm(self.reference)
        return 0.5 * self.penalty.curvature * (self.alpha * bulk + (1.0 - self.alpha) * reference)
