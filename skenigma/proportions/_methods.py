"""The methods of estimating proportions: coefficients of every sample on the profiles, and which did not converge."""

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed

from ..core.blocks import row_blocks
from ..core.profiles import standardize
from ..core.regress.log_scale import log_scale_regression, offsets, sample_offsets
from ..core.regress.robust import nonnegative_least_squares, robust_regression
from ..core.regress.support_vector import support_vector_regression

# Numbers of the bulk that robust regression holds standardised: 16 MB in double precision.
STANDARDISED_AT_ONCE = 2**21


@dataclass(frozen=True)
class Solution:
    """What a method answers.

    Attributes
    ----------
    coefficients : ndarray of shape (n_samples, n_cell_types)
        Where negative, the cell type is taken to be absent.
    n_iter : int
        Largest number of iterations a sample took.
    unfinished : ndarray of bool, shape (n_samples,)
        Samples whose regression ``max_iter`` ended.
    problem : str
        What to say of these, before their number.
    """

    coefficients: np.ndarray
    n_iter: int
    unfinished: np.ndarray
    problem: str = ""


def cohort_offset(bulk, genes):
    """Median over the samples of what method "log" adds to a sample before logarithms."""
    facts = getattr(bulk, "facts", None)
    if facts is None:
        return np.median(sample_offsets(bulk, genes)[1])
    # what is not in memory was looked at when it was checked
    return np.median(offsets(facts.least_expressed, facts.expressed / len(genes)))


def log_scale(model, bulk, *, max_iter, tol):
    """Method "log": the mixture that is nearest on the logarithmic scale."""
    fit = log_scale_regression(model, bulk, max_iter=max_iter, tol=tol)
    problem = f"The fit on the logarithmic scale did not converge in max_iter={max_iter} iterations for"
    return Solution(fit.coefficients, int(fit.n_iter.max()), ~fit.converged, problem)


def robust(reference, bulk, *, max_iter, tol):
    """Method "rlm": robust regression of the standardised sample on the standardised profiles."""
    profiles = standardize(reference)
    # with an intercept, as R's formula has one: it belongs to no cell type and is dropped at the end
    design = np.column_stack([np.ones(profiles.shape[1]), profiles.T])
    # samples are independent of one another, and only a block of them is standardised at a time
    found = [
        robust_regression(design, standardize(bulk[some]), max_iter=max_iter, tol=tol)
        for some in row_blocks(bulk, STANDARDISED_AT_ONCE)
    ]
    coefficients, n_iter, converged = map(np.concatenate, zip(*found, strict=True))
    problem = f"Robust regression did not converge in max_iter={max_iter} iterations for"
    return Solution(coefficients[:, 1:], max(int(n_iter.max()), 1), ~converged, problem)


def nonnegative(reference, bulk):
    """Method "nnls": least squares on the values as they are."""
    return Solution(nonnegative_least_squares(reference.T, bulk), 1, np.zeros(len(bulk), dtype=bool))


def support_vector(reference, bulk, nus, *, n_jobs, max_iter, tol):
    """Method "nusvr": of the regressions by each ν the one that reconstructs the sample best."""
    profiles, targets = standardize(reference).T, standardize(bulk)
    run = delayed(support_vector_regression)
    fits = Parallel(n_jobs=n_jobs)(run(profiles, targets, nu, max_iter=max_iter, tol=tol) for nu in nus)
    # below 0 a type is taken to be absent, also where mixtures are compared
    coefficients = np.maximum([fit.coefficients for fit in fits], 0)
    # which ν suits a sample is seen only in how well its mixture reproduces the values as they are
    best = np.argmin([_reconstruction_errors(found, bulk, reference) for found in coefficients], axis=0)
    unfinished = ~np.all([fit.converged for fit in fits], axis=0)
    problem = (
        f"Support-vector regression did not come within tol={tol} of the optimum in max_iter={max_iter} iterations "
        f"for"
    )
    n_iter = max(int(fit.n_iter.max()) for fit in fits)
    return Solution(coefficients[best, np.arange(len(bulk))], n_iter, unfinished, problem)


def replace_empty(coefficients, bulk, reference):
    """Answer, in place, for samples without a positive coefficient.

    Returns
    -------
    by_nnls, unlike : ndarray of bool, shape (n_samples,)
        Samples that have the coefficients of non-negative least squares, and those without a positive one there.
    """
    empty = coefficients.sum(axis=1) <= 0
    unlike = np.zeros_like(empty)
    if empty.any():
        coefficients[empty] = nonnegative_least_squares(reference.T, bulk[empty])
        unlike = coefficients.sum(axis=1) <= 0
        # nothing tells the cell types apart here: equal shares, of which the estimator warns
        coefficients[unlike] = 1.0
    return empty & ~unlike, unlike


def _reconstruction_errors(coefficients, bulk, reference):
    """Squared error of the mixtures by coefficients' shares, per sample."""
    totals = coefficients.sum(axis=1, keepdims=True)
    shares = np.divide(coefficients, totals, out=np.zeros_like(coefficients), where=totals > 0)
    return np.concatenate(
        [((bulk[rows] - shares[rows] @ reference) ** 2).sum(axis=1) for rows in row_blocks(bulk)]
    )
