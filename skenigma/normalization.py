"""Normalisation of cell-type-specific expression: what to take out of it before samples are compared.

A normalisation sees one cell type at a time. Fitted on a cohort, it keeps vectors over genes that map any sample
on its own; the samples of the cohort come out as in the fit.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from .core.blocks import row_blocks

# Share of the summed roots of the singular values that the components to choose from make up.
COMPONENT_SHARE = 0.8
# A direction exists if it exceeds this many times the rounding error of the largest.
NOISE = 64
# A computation leaves of a zero up to 1e-14 of the largest expression of the cell type. A gene varies if it exceeds
# the first part of that, and values are ties if they differ by less than the second: both are far from what is left
# and from what is measured, so that rounding does not decide.
VARIES, TIED = 1e-9, 1e-11
# The same in roundings of the type: what single precision leaves is more than these parts.
ROUNDINGS = 2
# Agreements and scores that are equal, but for rounding, have to be equal: which is larger decides.
EQUAL = 1e-7


@dataclass(frozen=True)
class ProportionEffect:
    """The linear effect of the cell type's proportion on every gene ("frac").

    Attributes
    ----------
    slope : ndarray of shape (n_genes,)
        Of the regression of a gene on the proportion; 0 if the proportion is the same in every sample.
    """

    slope: np.ndarray

    @classmethod
    def fit(cls, expression, proportion):
        """Regress the expression (n_samples, n_genes) of one cell type on its proportion (n_samples,)."""
        centred = proportion - proportion.mean()
        spread = centred @ centred
        return cls(((centred / spread if spread > 0 else centred) @ expression).astype(expression.dtype))

    def apply(self, expression, proportion):
        """Subtract slope times proportion, in place; the intercept stays."""
        expression -= proportion[:, None].astype(expression.dtype) * self.slope


@dataclass(frozen=True)
class ProportionComponent:
    """The principal component of a cell type's expression that follows its proportion ("pc").

    Attributes
    ----------
    weights : ndarray of shape (n_genes,)
        A sample's score is its expression times the weights, minus the offset.
    offset : float
    loading : ndarray of shape (n_genes,)
        What a score of 1 adds to the expression.
    agreement : float
        Absolute rank correlation of the scores with the proportion; 0 where there is no component.
    """

    weights: np.ndarray
    offset: float
    loading: np.ndarray
    agreement: float

    @classmethod
    def fit(cls, expression, proportion):
        """Find the component among those of the expression (n_samples, n_genes) standardised per gene."""
        mean = expression.mean(axis=0, dtype=np.float64)
        standard = expression - mean
        spread = np.sqrt(np.einsum("jg,jg->g", standard, standard) / (len(standard) - 1))
        varies = spread > _negligible(expression, VARIES).max()
        inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
        standard *= inverse
        direction, agreement = _direction_of(standard, proportion)
        weights = direction * inverse
        loading = direction * np.where(varies, spread, 0.0)
        return cls(weights, float(weights @ mean), loading, agreement)

    def apply(self, expression, proportion):
        """Subtract the component, in place."""
        scores = expression @ self.weights - self.offset
        expression -= (scores[:, None] * self.loading).astype(expression.dtype, copy=False)


@dataclass(frozen=True)
class CommonQuantiles:
    """One distribution over genes for all samples of a cell type ("quantile").

    Attributes
    ----------
    quantiles : ndarray of shape (n_genes,)
        Mean over samples of their sorted expression.
    """

    quantiles: np.ndarray

    @classmethod
    def fit(cls, expression, proportion):
        """Average the sorted samples of the expression (n_samples, n_genes)."""
        total = np.zeros(expression.shape[1])
        for rows in row_blocks(expression):
            total += np.sort(expression[rows], axis=1).sum(axis=0, dtype=np.float64)
        return cls((total / len(expression)).astype(expression.dtype))

    def apply(self, expression, proportion):
        """Replace every value by the quantile of its rank, in place; ties get that of their mean rank."""
        order = np.argsort(expression, axis=1)
        first, last = _ties(np.take_along_axis(expression, order, axis=1), _negligible(expression, TIED))
        twice = first + last
        half = expression.dtype.type(0.5)
        values = half * self.quantiles[twice // 2] + half * self.quantiles[(twice + 1) // 2]
        np.put_along_axis(expression, order, values, axis=1)


# Every value of the estimators' ``normalize`` but None.
NORMALIZATIONS = {"frac": ProportionEffect, "pc": ProportionComponent, "quantile": CommonQuantiles}


def fit_normalization(method, by_type, proportions):
    """Fit a normalisation to every cell type of a cohort.

    Parameters
    ----------
    method : str
        A key of ``NORMALIZATIONS``.
    by_type : iterable of ndarray of shape (n_samples, n_genes)
        Expression of one cell type after the other.
    proportions : ndarray of shape (n_samples, n_cell_types)

    Returns
    -------
    fitted : list
        One normalisation per cell type.
    """
    fit = NORMALIZATIONS[method].fit
    return [fit(expression, shares) for expression, shares in zip(by_type, proportions.T, strict=True)]


def apply_normalization(fitted, cse, proportions):
    """Normalise samples, each on its own, in place.

    Parameters
    ----------
    fitted : list
        From :func:`fit_normalization`.
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)

    Returns
    -------
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
        The same array.
    """
    for rows in row_blocks(cse):
        for k, normalization in enumerate(fitted):
            normalization.apply(cse[rows, k], proportions[rows, k])
    return cse


def normalize(method, cse, proportions):
    """Normalised copy of a cohort's expression.

    Parameters
    ----------
    method : str
        A key of ``NORMALIZATIONS``.
    cse : ndarray of shape (n_samples, n_cell_types, n_genes)
    proportions : ndarray of shape (n_samples, n_cell_types)

    Returns
    -------
    normalized : ndarray of shape (n_samples, n_cell_types, n_genes)
    """
    fitted = fit_normalization(method, cse.swapaxes(0, 1), proportions)
    return apply_normalization(fitted, np.array(cse), proportions)


def _negligible(expression, part):
    """What may be left of zero in each sample (n_samples, n_genes): a part of its largest expression."""
    part = max(part, ROUNDINGS * np.finfo(expression.dtype).eps)
    return part * np.maximum(expression.max(axis=1), -expression.min(axis=1))


def _direction_of(standard, proportion):
    """Right singular vector whose scores agree best in rank with ``proportion``, or zeros, and how well."""
    # the smaller Gram matrix holds all components, and costs a fraction of a decomposition of ``standard``
    tall = len(standard) > standard.shape[1]
    squares, vectors = linalg.eigh(standard.T @ standard if tall else standard @ standard.T)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    exist = squares > NOISE * len(squares) * np.finfo(np.float64).eps * squares[0]
    ranks = _centred_ranks(proportion[:, None])[:, 0]
    if not exist.any() or not ranks.any():
        return np.zeros(standard.shape[1]), 0.0
    vectors = vectors[:, : _n_kept(np.sqrt(squares[exist]))]
    scores = _centred_ranks(standard @ vectors if tall else vectors)
    agreement = np.abs(ranks @ scores) / np.linalg.norm(scores, axis=0) / np.linalg.norm(ranks)
    # of those that agree as well, the largest component
    chosen = vectors[:, np.argmax(agreement >= (1 - EQUAL) * agreement.max())]
    direction = chosen if tall else chosen @ standard
    return direction / np.linalg.norm(direction), float(agreement.max())


def _n_kept(singular_values):
    """Fewest leading components whose share of the summed roots of the singular values exceeds the limit."""
    share = np.cumsum(np.sqrt(singular_values))
    return int(np.argmax(share > (COMPONENT_SHARE + EQUAL) * share[-1])) + 1


def _centred_ranks(values):
    """Ranks within each column minus their mean; ties, and what differs by rounding only, share their mean rank."""
    columns = values.T
    order = np.argsort(columns, axis=1)
    tolerance = EQUAL * np.abs(columns).max(axis=1)
    first, last = _ties(np.take_along_axis(columns, order, axis=1), tolerance)
    ranks = np.empty(columns.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=1)
    return ranks.T - (len(values) - 1) / 2


def _ties(ordered, tolerance):
    """Positions of the first and the last value equal to each, in sorted rows.

    Values count as equal up to the ``tolerance`` of their row: a gene may be a copy of another, or have no
    expression, and where a computation leaves which of the two is larger must not matter.
    """
    begins = np.diff(ordered, axis=1) > tolerance[:, None]
    ends = np.ones((len(ordered), 1), dtype=bool)
    positions = np.arange(ordered.shape[1])
    first = np.where(np.hstack([ends, begins]), positions, 0)
    last = np.where(np.hstack([begins, ends]), positions, positions[-1])
    return np.maximum.accumulate(first, axis=1), np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
