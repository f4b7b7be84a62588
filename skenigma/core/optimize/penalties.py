"""Penalties on the cell-type-specific expression: what they offer, and what solvers may need of them.

Every penalty offers

- ``curvature``: the factor c of its model's data terms, c/2 · (α · reconstruction + (1 − α) · reference);
- ``value(expression)`` of anything with ``norms()`` and ``grams()``, see :mod:`skenigma.core.optimize.states`;
- ``prox(step, expression, out)``, the proximal operator of ``step`` times the penalty on an array (cell types ×
  samples × dimensions), which returns, per cell type, the map of rows that it came to.

:class:`Penalty` derives ``prox`` from two methods that suit a cohort in pieces: ``summarise(rows)``, what the
operator needs to know of a block of samples, where summaries of several blocks add up with ``+``; and
``maps(summary, step)``, a map per cell type to be applied row by row. The same two serve a cohort in one piece, so
there is no second version of any operator. ``step`` is one number, or one per cell type.

Some solvers need more, and say so in their entry of :data:`skenigma.core.optimize.registry.SOLVERS`:

- ``caps(norms, step)``, of a penalty of the norms of samples only: its operator cuts them to a largest norm. Solved
  in the few directions that the samples share;
- ``weighted_caps(norms, weights)``, the same in a metric with a weight per sample and cell type;
- ``conjugate(gradient)``, a :class:`Conjugate`, from which a lower bound of the objective follows.

``record(terms, alpha)`` gives the three numbers of ``loss_history_``; a penalty without it has the three summands of
its objective there.
"""

from dataclasses import dataclass, field

import numpy as np

from . import passes
from .spectrum import largest_singular_value, nuclear_norm, singular_value_map
from .states import Tensor


@dataclass(frozen=True)
class CapMap:
    """Cut of rows to a largest norm."""

    cap: float
    nbytes = 8

    def apply(self, rows, out):
        """Scale each row of ``rows`` longer than the cap down to it, into ``out``."""
        norms = np.sqrt(np.einsum("jd,jd->j", rows, rows))
        np.multiply(rows, passes.cut_factors(norms, self.cap)[:, None], out=out)


@dataclass(frozen=True)
class Conjugate:
    """Convex conjugate of a penalty along a ray: λ² · ``quadratic`` up to λ = ``limit``, infinite beyond.

    A norm has quadratic 0 and a limit, the squared norm a quadratic and no limit; nothing else is needed to scale
    a gradient so that it bounds the objective from below.

    Attributes
    ----------
    quadratic : float
    limit : float
    """

    quadratic: float
    limit: float

    def bound(self, squares, products):
        """Largest lower bound max_λ −λ² (``squares`` + quadratic) − λ ``products`` with 0 ≤ λ ≤ limit.

        None where the limit is 0, so that no gradient proves anything.
        """
        if self.limit == 0.0:
            return None
        curvature = squares + self.quadratic
        if curvature <= 0:  # the gradient vanishes
            return 0.0
        scale = min(max(-products / (2.0 * curvature), 0.0), self.limit)
        return -(scale**2) * curvature - scale * products


@dataclass
class Terms:
    """What loss records are made of, for one expression.

    Attributes
    ----------
    residual : float
        Σ_j ‖e_j‖², the squared residual of the reconstruction.
    offset : float
        Σ_k ‖mean_j(p_jk) − r_k‖².
    distance : float
        Σ_k Σ_j ‖p_jk − r_k‖².
    expression : object
        Anything with ``norms()``, and ``grams()`` where the penalty needs them.
    """

    residual: float
    offset: float
    distance: float
    expression: object = field(repr=False)


def loss_record(penalty, terms, alpha):
    """Three numbers of ``loss_history_``: the penalty's own record, or the summands of its objective."""
    if hasattr(penalty, "record"):
        return penalty.record(terms, alpha)
    half = 0.5 * penalty.curvature
    smooth = half * alpha * terms.residual, half * (1.0 - alpha) * terms.offset
    return np.array([*smooth, penalty.value(terms.expression)])


def apply_maps(maps, expression, out):
    """Send the rows of every cell type through its map, into ``out``, which may be ``expression``."""
    for row_map, rows, target in zip(maps, expression, out, strict=True):
        row_map.apply(rows, target)


class Penalty:
    """A penalty by ``summarise`` and ``maps``: its proximal operator on a cohort in one piece."""

    def prox(self, step, expression, out):
        """Proximal operator of ``step`` times the penalty, written into ``out``.

        Parameters
        ----------
        step : float or ndarray of shape (n_cell_types,)
        expression, out : ndarray of shape (n_cell_types, n_samples, n_dimensions)
            May be the same array.

        Returns
        -------
        maps : tuple
            One map of rows per cell type.
        """
        maps = self.maps(self.summarise(expression), step)
        apply_maps(maps, expression, out)
        return maps


class Norms:
    """Norms of a block of samples; blocks follow one another.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_cell_types)
    """

    def __init__(self, values):
        self.values = values

    def __add__(self, other):
        return Norms(np.concatenate([self.values, other.values]))

    def norms(self):
        """Norm of every sample in every cell type, so that a penalty of norms can take its value."""
        return self.values


class MaxL2Norm(Penalty):
    """Half the squared largest sample norm, summed over cell types: β/2 · Σ_k max_j ‖p_jk‖².

    Parameters
    ----------
    beta : float
        Weight β, at least 0.

    Notes
    -----
    The proximal operator cuts the longest samples of a cell type to a common norm, the cap, and leaves the
    others alone (the "squash" of the original R function ``cell_deconvolve``). It needs nothing but norms.
    The data terms of the model carry no 1/2 (``curvature`` 2).
    """

    curvature = 2.0

    def __init__(self, beta):
        self.beta = beta

    def value(self, expression):
        """Penalty of anything with ``norms()``."""
        return 0.5 * self.beta * _longest(expression)

    def summarise(self, rows):
        """The :class:`Norms` of a block of samples, an array (n_cell_types, n_samples, n_dimensions)."""
        return Norms(Tensor(rows).norms())

    def maps(self, summary, step):
        """One :class:`CapMap` per cell type: the proximal operator of ``step`` times the penalty.

        Parameters
        ----------
        summary : Norms
        step : float or ndarray of shape (n_cell_types,)
        """
        norms = summary.values
        if np.ndim(step):
            caps = self.weighted_caps(norms, np.broadcast_to(1.0 / np.asarray(step), norms.shape))
        else:
            caps = self.caps(norms, step)
        return tuple(CapMap(float(cap)) for cap in caps)

    def caps(self, norms, step):
        """Largest norm that the proximal operator with this step length leaves, per cell type.

        Parameters
        ----------
        norms : ndarray of shape (n_samples, n_cell_types)
            Norm of every sample in every cell type.
        step : float
            Step length τ; the operator is that of τβ/2 · max².

        Returns
        -------
        caps : ndarray of shape (n_cell_types,)
        """
        norms = np.array(norms, dtype=np.float64, order="C")  # theirs may be read-only, or of another type
        return passes.fastest().caps(norms, step * self.beta)

    def weighted_caps(self, norms, weights):
        """Largest norm that the proximal operator leaves, per cell type, in a metric with row weights.

        Parameters
        ----------
        norms : ndarray of shape (n_samples, n_cell_types)
            Norm v_jk of every sample in every cell type.
        weights : ndarray of shape (n_samples, n_cell_types)
            Weight w_jk > 0 of its squared distance.

        Returns
        -------
        caps : ndarray of shape (n_cell_types,)
            The t_k that minimise β/2 t² + Σ_j w_jk/2 max(0, v_jk − t)².

        Notes
        -----
        With equal weights 1/τ these are ``caps(norms, τ)``.

        Examples
        --------
        >>> import numpy as np
        >>> from skenigma.core.optimize.penalties import MaxL2Norm
        >>> MaxL2Norm(1.0).weighted_caps(np.array([[3.0], [1.0]]), np.array([[2.0], [1.0]]))
        array([2.])
        """
        order = np.argsort(-norms, axis=0)
        longest_first = np.take_along_axis(norms, order, axis=0)
        ordered_weights = np.take_along_axis(weights, order, axis=0)
        totals = np.cumsum(ordered_weights * longest_first, axis=0)
        # whichever rows are cut, their balance β t = Σ w (v − t) gives no more than the right ones do
        return np.max(totals / (np.cumsum(ordered_weights, axis=0) + self.beta), axis=0)

    def conjugate(self, gradient):
        """Σ_k (Σ_j ‖g_jk‖)² / (2β) of anything with ``norms()``."""
        squares = float(np.sum(gradient.norms().sum(axis=0) ** 2))
        if self.beta == 0:  # nothing but a vanishing gradient bounds anything
            return Conjugate(0.0, 0.0)
        return Conjugate(squares / (2.0 * self.beta), np.inf)

    def record(self, terms, alpha):
        """Unweighted, as the original prints it: squared residual, distance to the reference, Σ_k max_j ‖p_jk‖²."""
        return np.array([terms.residual, terms.distance, _longest(terms.expression)])


def _longest(expression):
    """Σ_k max_j ‖p_jk‖²."""
    longest = expression.norms().max(axis=0)
    return float(np.vdot(longest, longest))


class Factors:
    """Per cell type a matrix with the right singular vectors and the singular values of a block of samples.

    The samples themselves are one. Several blocks are stacked, and replaced by the triangular factor of the stack
    once that is the shorter one, which keeps all digits.

    Parameters
    ----------
    matrices : list of ndarray of shape (any, n_dimensions)
    """

    def __init__(self, matrices):
        self.matrices = matrices

    def __add__(self, other):
        return Factors([_stacked(*pair) for pair in zip(self.matrices, other.matrices, strict=True)])


def _stacked(first, second):
    rows = np.vstack([first, second])
    return np.linalg.qr(rows, mode="r") if rows.shape[0] > rows.shape[1] else rows


class TraceNorm(Penalty):
    """Weighted trace norm β · Σ_k w_k ‖P_k‖_* of the expression of every cell type.

    Parameters
    ----------
    beta : float
        Weight β, at least 0.
    weights : ndarray of shape (n_cell_types,)
        Weight w_k of each cell type: its mean proportion in the cohort.

    Notes
    -----
    The data terms of the model carry 1/2 (``curvature`` 1): α/2 Σ_j ‖x_j − Σ_k θ_jk p_jk‖² +
    (1−α)/2 Σ_k ‖mean_j(p_jk) − r_k‖², as in the original R function ``cell_deconvolve_trace``.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.optimize.penalties import TraceNorm
    >>> from skenigma.core.optimize.states import Tensor
    >>> TraceNorm(2.0, np.array([0.5])).value(Tensor(np.diag([3.0, 1.0])[None]))
    4.0
    """

    curvature = 1.0

    def __init__(self, beta, weights):
        self.beta = beta
        self.weights = np.asarray(weights, dtype=np.float64)

    def value(self, expression):
        """Penalty of anything with ``grams()``."""
        return float(self.beta * np.dot(self.weights, [nuclear_norm(gram) for gram in expression.grams()]))

    def summarise(self, rows):
        """The :class:`Factors` of a block of samples, an array (n_cell_types, n_samples, n_dimensions)."""
        return Factors(list(rows))

    def maps(self, summary, step):
        """One :class:`~skenigma.core.optimize.spectrum.SpectralMap` per cell type: thresholding as a map of rows.

        Parameters
        ----------
        summary : Factors
        step : float or ndarray of shape (n_cell_types,)
        """
        thresholds = step * self.beta * self.weights
        return tuple(singular_value_map(*pair) for pair in zip(summary.matrices, thresholds, strict=True))

    def conjugate(self, gradient):
        """Of anything with ``grams()``: finite while no ‖G_k‖ exceeds β w_k."""
        sizes = np.array([largest_singular_value(gram) for gram in gradient.grams()])
        return Conjugate(0.0, _largest_scale(self.beta * self.weights, sizes))


def _largest_scale(radii, sizes):
    """Largest λ with λ ``sizes`` within ``radii``; infinite where all sizes are 0."""
    scales = np.divide(radii, sizes, out=np.full(sizes.shape, np.inf), where=sizes > 0)
    return float(scales.min())
