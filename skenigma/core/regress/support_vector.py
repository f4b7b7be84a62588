r"""ν-support-vector regression of many targets on few columns, to a known distance from the optimum.

The kernel of the usual solvers has a row and a column per gene; the primal problem has an unknown per cell type, an
offset and the half-width of the tube. An interior-point method on the latter costs, per step, one small system for
each target, and all of their matrices are one matrix product.
"""

from typing import NamedTuple

import numpy as np

from .robust import _blocks, _check_arrays, _solve, _WeightedGram

# Duality gap over the objective at which a target is done, in units of the tolerance.
GAP = 1e-4
# How close to the boundary a step may come, as a share of the way.
TO_BOUNDARY = 0.995
# Steps without a smaller gap after which rounding has the last word.
PATIENCE = 15
# Residuals of standardised targets at the start are taken for at least this.
LEAST_SPREAD = 1e-2


class SupportVectorFit(NamedTuple):
    """What :func:`support_vector_regression` found, one row per target.

    Attributes
    ----------
    coefficients : ndarray of shape (n, K)
    gap : ndarray of shape (n,)
        Duality gap over the objective: by so much at most is the objective too large.
    n_iter : ndarray of int, shape (n,)
    converged : ndarray of bool, shape (n,)
    """

    coefficients: np.ndarray
    gap: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


def support_vector_regression(design, targets, nu, *, max_iter=100, tol=1e-4):
    r"""Coefficients of ν-support-vector regression with a linear kernel and C = 1, for many targets.

    Minimises, with offset b and half-width :math:`\varepsilon \ge 0` of the tube,

    .. math:: \tfrac12 \|w\|^2 + \nu G \varepsilon
        + \sum_{g=1}^{G} \max\bigl(|y_g - w^T z_g - b| - \varepsilon,\ 0\bigr),

    which is the problem of libsvm.

    Parameters
    ----------
    design : array-like of shape (G, K)
        Columns to regress on, of standard deviation about 1.
    targets : array-like of shape (n, G)
        One target per row, of standard deviation about 1.
    nu : float
        Bound on the share of genes outside the tube, in (0, 1].
    max_iter : int, default=100
        Largest number of steps per target.
    tol : float, default=1e-4
        A target is done when the duality gap is at most ``1e-4 * tol`` of the objective: coefficients of standardised
        genes are then within about ``tol`` of the optimum.

    Returns
    -------
    SupportVectorFit
        Coefficients and how they were reached. A row does not depend on the other rows.

    Notes
    -----
    Primal-dual steps with Mehrotra's predictor and corrector (Wright, *Primal-Dual Interior-Point Methods*, 1997).
    The dual variables of both sides of the tube stay in (0, 1), so that each gene adds to the matrix of a target with
    the weight :math:`1 / (s/\alpha + \xi/(1-\alpha))` of either side. With the stationarity of w, b and ε the sum of
    the complementarity products is the duality gap.

    References
    ----------
    .. [1] Schölkopf et al. (2000), New support vector algorithms. Neural Computation 12.
    """
    design, targets = _check_arrays(design, targets)
    found = SupportVectorFit(
        np.zeros((len(targets), design.shape[1])),
        np.zeros(len(targets)),
        np.zeros(len(targets), dtype=int),
        np.zeros(len(targets), dtype=bool),
    )
    columns = np.column_stack([design, np.ones(len(design))])
    gram = _WeightedGram(columns)
    for rows in _blocks(np.arange(len(targets)), len(design)):
        block = _InteriorPoint(columns, gram, targets[rows].astype(np.float64), nu)
        for into, part in zip(found, block.run(max_iter, tol), strict=True):
            into[rows] = part
    return found


class _InteriorPoint:
    """State of a block of targets, of which some are still moving.

    ``sides`` are the genes above the tube and those below it: residuals +r and -r, each with a dual variable
    ``alpha`` in (0, 1), an excess ``xi`` over the tube and the slack ``xi - (residual - width)``.
    """

    MOVING = ("targets", "beta", "width", "multiplier", "alpha", "xi", "slack")

    def __init__(self, columns, gram, targets, nu):
        self.columns, self.gram, self.nu = columns, gram, nu
        self.targets = targets
        n, n_genes = targets.shape
        self.beta = np.linalg.lstsq(columns, targets.T, rcond=None)[0].T
        size = np.abs(self._residuals())
        spread = np.maximum(size.mean(axis=1), LEAST_SPREAD)
        self.width = np.quantile(size, 1 - nu, axis=1) + 0.1 * spread
        self.multiplier = 0.1 * n_genes * np.ones(n)
        self.alpha = np.full((2, n, n_genes), min(nu / 2, 0.5))
        over = self._over()
        self.xi = np.maximum(over, 0.0) + 0.1 * spread[:, None]
        self.slack = self.xi - over

    def run(self, max_iter, tol):
        """Coefficients, gaps, numbers of steps, and who is done."""
        n, n_unknowns = self.beta.shape
        best, gap = np.zeros((n, n_unknowns - 1)), np.full(n, np.inf)
        n_iter, converged = np.zeros(n, dtype=int), np.zeros(n, dtype=bool)
        live, stale = np.arange(n), np.zeros(n, dtype=int)
        for _ in range(max_iter + 1):
            found = self._gap()
            better = found < gap[live]
            stale[live] = np.where(better, 0, stale[live] + 1)
            best[live[better]], gap[live[better]] = self.beta[better, :-1], found[better]
            converged[live] = gap[live] <= GAP * tol
            stay = ~converged[live] & (stale[live] < PATIENCE) & (n_iter[live] < max_iter)
            live = live[stay]
            if not len(live):
                break
            self._keep(stay)
            # what is not finite any more at the end of rounding does not count as better
            with np.errstate(all="ignore"):
                self._step()
            n_iter[live] += 1
        return best, gap, n_iter, converged

    def _keep(self, stay):
        if stay.all():
            return
        for name in self.MOVING:
            values = getattr(self, name)
            setattr(self, name, values[:, stay] if values.ndim == 3 else values[stay])

    def _residuals(self):
        return self.targets - self.beta @ self.columns.T

    def _over(self):
        """By how much the residuals of either side exceed the tube."""
        residuals = self._residuals()
        return np.stack([residuals, -residuals]) - self.width[:, None]

    def _stationarity(self, alpha):
        """By how much the equations of coefficients, offset and width are missed by dual variables."""
        ridge = self.beta.copy()
        ridge[:, -1] = 0.0
        coefficients = (alpha[0] - alpha[1]) @ self.columns - ridge
        width = alpha.sum(axis=(0, 2)) - self.nu * self.targets.shape[1]
        return np.column_stack([coefficients, width])

    def _gap(self):
        """Duality gap over the objective; what stationarity is missed by counts as well."""
        over = self._over()
        products = np.einsum("snk,snk->n", self.alpha, self.slack)
        products += np.einsum("snk,snk->n", 1 - self.alpha, self.xi) + self.multiplier * self.width
        missed = self._stationarity(self.alpha)
        missed[:, -1] += self.multiplier
        unknowns = np.column_stack([self.beta, self.width])
        products += np.einsum("nk,nk->n", np.abs(missed), np.abs(unknowns) + 1.0)
        value = 0.5 * np.einsum("nk,nk->n", self.beta[:, :-1], self.beta[:, :-1])
        value += self.nu * over.shape[2] * self.width + np.maximum(over, 0.0).sum(axis=(0, 2))
        return products / np.maximum(value, np.finfo(np.float64).tiny)

    def _step(self):
        over = self._over()
        slack, other = self.slack, 1 - self.alpha
        weights = 1 / (slack / self.alpha + self.xi / other)
        system = self._system(weights)
        # at the end of what rounding allows, a target may have no direction left
        usable = np.isfinite(system).all(axis=(1, 2))[:, None]
        system[~usable[:, 0]] = np.eye(system.shape[1])
        count = 4 * self.targets.shape[1] + 1
        products = self.alpha * slack, other * self.xi
        total = products[0].sum(axis=(0, 2)) + products[1].sum(axis=(0, 2)) + self.multiplier * self.width
        now = total / count

        def direction(lower, upper, width):
            """Newton's direction to given complementarity products."""
            pull = weights * (over + lower / self.alpha - upper / other)
            right = self._stationarity(self.alpha + pull)
            right[:, -1] += width / self.width
            change = _solve(system, np.where(usable, right, 0.0))
            moved = change[:, :-1] @ self.columns.T
            along = np.stack([-moved, moved]) - change[:, -1, None]
            d_alpha = pull + weights * along
            d_xi = (upper - products[1] + d_alpha * self.xi) / other
            d_multiplier = (width - self.multiplier * (self.width + change[:, -1])) / self.width
            return change, d_alpha, d_xi, d_xi - along, d_multiplier

        zero = np.zeros_like(now)
        ahead = direction(0.0, 0.0, zero)
        length = self._length(ahead, 1.0)
        _, d_alpha, d_xi, d_slack, d_multiplier = ahead
        step = length[:, None]
        left = np.sum((self.alpha + step * d_alpha) * (slack + step * d_slack), axis=(0, 2))
        left += np.sum((other - step * d_alpha) * (self.xi + step * d_xi), axis=(0, 2))
        left += (self.multiplier + length * d_multiplier) * (self.width + length * ahead[0][:, -1])
        aim = now * np.clip(left / total, 0.0, 1.0) ** 3
        self._move(
            direction(
                aim[:, None] - d_alpha * d_slack,
                aim[:, None] + d_alpha * d_xi,
                aim - d_multiplier * ahead[0][:, -1],
            )
        )

    def _move(self, direction):
        """Go along a direction, nearly as far as everything stays positive."""
        change, d_alpha, d_xi, d_slack, d_multiplier = direction
        length = self._length(direction, TO_BOUNDARY)
        self.beta += length[:, None] * change[:, :-1]
        self.width += length * change[:, -1]
        self.multiplier += length * d_multiplier
        self.alpha += length[:, None] * d_alpha
        self.xi += length[:, None] * d_xi
        self.slack += length[:, None] * d_slack

    def _system(self, weights):
        """Matrices of the equations of coefficients, offset and width."""
        n, n_unknowns = self.beta.shape
        system = np.empty((n, n_unknowns + 1, n_unknowns + 1))
        system[:, :-1, :-1] = self.gram(weights[0] + weights[1])
        ridge = np.arange(n_unknowns - 1)
        system[:, ridge, ridge] += 1.0
        system[:, -1, :-1] = system[:, :-1, -1] = (weights[0] - weights[1]) @ self.columns
        system[:, -1, -1] = weights.sum(axis=(0, 2)) + self.multiplier / self.width
        return system

    def _length(self, direction, share):
        """Longest step, up to 1, that leaves everything positive by a share of the way."""
        change, d_alpha, d_xi, d_slack, d_multiplier = direction
        longest = np.ones(len(self.beta))
        for value, move in (
            (self.alpha, d_alpha),
            (1 - self.alpha, -d_alpha),
            (self.xi, d_xi),
            (self.slack, d_slack),
        ):
            longest = np.minimum(longest, share / np.maximum((-move / value).max(axis=(0, 2)), share))
        for value, move in ((self.width, change[:, -1]), (self.multiplier, d_multiplier)):
            longest = np.minimum(longest, share / np.maximum(-move / value, share))
        return longest
