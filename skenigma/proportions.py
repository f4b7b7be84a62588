"""Cell type proportions of bulk samples."""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import NuSVR
from sklearn.utils.validation import check_is_fitted

from ._transformers import ReferenceTransformer
from .checks.validation import (
    Integral,
    Interval,
    Real,
    StrOptions,
    check_proportions,
    fit_context,
    listing,
    row_names,
)
from .checks.warning import warn
from .core.blocks import row_blocks
from .core.regress.robust import nonnegative_least_squares, robust_regression

# Values beyond this overflow when their squares are summed.
LARGEST = 1e140


class ProportionEstimator(ReferenceTransformer):
    """Proportions of cell types by regressing every bulk sample on the reference profiles.

    Parameters
    ----------
    reference : DataFrame or array-like of shape (n_cell_types, n_genes), default=None
        Expression profile of every cell type, on the scale of X. Genes are matched by name if both X and
        reference have string column names, else by position. None learns ``n_components`` profiles from X:
        the purest samples, by successive projection.
    method : {"rlm", "nnls", "nusvr"}, default="rlm"
        "rlm": robust regression (Huber) of the standardised sample on the standardised profiles, all samples in
        one batch. "nnls": non-negative least squares on the values as they are. "nusvr": ν-support-vector
        regression as in CIBERSORT, with the ν of ``nu`` that reconstructs the sample best.
    n_components : int, default=2
        Number of profiles to learn if ``reference`` is None.
    max_iter : int, default=500
        Largest number of iterations, for "rlm".
    tol : float, default=1e-4
        For "rlm" the relative change of the residuals, for "nusvr" libsvm's tolerance, at which to stop.
    nu : sequence of float, default=(0.25, 0.5, 0.75)
        Values of ν to try, for "nusvr".
    n_jobs : int, default=None
        Number of jobs over samples, for "nusvr"; the other methods have no loop worth splitting.

    Attributes
    ----------
    cell_types_ : ndarray of str, shape (n_cell_types,)
        Names of the cell types.
    gene_names_ : ndarray of str, shape (n_genes,)
        Genes in use: those shared by X and reference, in the order of X.
    reference_ : ndarray of shape (n_cell_types, n_genes)
        Profiles on these genes.
    proportions_ : ndarray of shape (n_samples, n_cell_types)
        Proportions of the samples that were fitted.
    quality_ : DataFrame of shape (n_samples, 4)
        How well the reference, mixed by these proportions, reproduces every fitted sample: "r2", "rmse",
        "correlation" and "scale", see :func:`fit_quality`.
    n_iter_ : int
        Largest number of iterations that a fitted sample took; 1 for methods that do not iterate here.
    n_features_in_ : int
        Number of genes of X.
    feature_names_in_ : ndarray of str
        Genes of X, if it has names.

    Raises
    ------
    ValueError
        If X and reference do not fit together; the message names the first offenders.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` ends the regression of a sample; the message names the first.
    UserWarning
        If a sample has no positive coefficient, or X and reference share few genes.

    Notes
    -----
    Negative coefficients become 0 and the others are divided by their sum. A sample without a positive
    coefficient gets the NNLS answer and a warning that names it; if that has none either (the sample resembles
    no profile at all), equal proportions.

    "rlm" is R's ``MASS::rlm`` with its defaults, as called by ``get_proportion`` of ENIGMA: same scale, same
    stopping rule, same numbers. "nusvr" follows the method "CBS" of the same package: sample and profiles are
    standardised, the kernel is linear, C = 1, and ν is chosen by the root mean squared error of the
    proportions' mixture on the values as they are: with several ν, bulk and reference must have the same scale.
    R's libsvm stops at a tolerance of 1e-3, which leaves its proportions up to 3e-3 from the exact optimum on the
    recorded samples; the default ``tol`` of 1e-4 leaves 4e-4, and 1e-6 less than 1e-5.

    References
    ----------
    .. [1] Newman et al. (2015), Robust enumeration of cell subsets from tissue expression profiles. Nature
       Methods 12.

    Examples
    --------
    >>> from skenigma import ProportionEstimator
    >>> from skenigma.datasets import make_cohort
    >>> cohort = make_cohort(n_samples=10, n_genes=200, random_state=0, as_frame=True)
    >>> estimator = ProportionEstimator(reference=cohort.reference).fit(cohort.bulk)
    >>> proportions = estimator.transform(cohort.bulk)
    >>> proportions.shape
    (10, 5)
    >>> bool((abs(proportions.sum(axis=1) - 1) < 1e-12).all())
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        "reference": ["array-like", None],
        "method": [StrOptions({"rlm", "nnls", "nusvr"})],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "nu": ["array-like"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        reference=None,
        *,
        method="rlm",
        n_components=2,
        max_iter=500,
        tol=1e-4,
        nu=(0.25, 0.5, 0.75),
        n_jobs=None,
    ):
        self.reference = reference
        self.method = method
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.nu = nu
        self.n_jobs = n_jobs

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Match the reference to the genes of X, and estimate the proportions of X.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, samples as rows.
        y : Ignored
            Present for API consistency; in a Pipeline it is the phenotype.

        Returns
        -------
        self : object
            Fitted estimator.
        """
        if not len(self.nu) or not all(0 < nu <= 1 for nu in self.nu):
            raise ValueError(f"nu={self.nu!r} must hold one or more numbers above 0 and up to 1.")
        bulk = self._fit_genes(X)
        self.proportions_, self.n_iter_ = self._estimate(bulk, row_names(X))
        self.quality_ = _quality(X, bulk, self.reference_, self.proportions_)
        return self

    def fit_transform(self, X, y=None):
        """Fit and return the proportions of X.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, samples as rows.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        proportions : ndarray of shape (n_samples, n_cell_types)
            Rows sum to 1.
        """
        return self.fit(X).proportions_.copy()

    def transform(self, X):
        """Proportions of every sample; each row depends on that sample alone.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, with the genes of the fit.

        Returns
        -------
        proportions : ndarray of shape (n_samples, n_cell_types)
            Rows sum to 1.
        """
        return self._estimate(self._new_bulk(X), row_names(X))[0]

    def quality(self, X):
        """How well the reference, mixed by the estimated proportions, reproduces every sample.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, with the genes of the fit.

        Returns
        -------
        quality : DataFrame of shape (n_samples, 4)
            Of the samples of X what ``quality_`` holds of the fitted ones, see :func:`fit_quality`.
        """
        bulk = self._new_bulk(X)
        return _quality(X, bulk, self.reference_, self._estimate(bulk, row_names(X))[0])

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of ``transform``: the cell types.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Gene names; only used to check that they are those of the fit.

        Returns
        -------
        names : ndarray of str
            One cell type per column.
        """
        check_is_fitted(self)
        self._check_input_features(input_features)
        return self.cell_types_.astype(object)

    def _estimate(self, bulk, rows):
        """Proportions, and the largest number of iterations a sample took."""
        largest = max(float(np.abs(bulk).max()), float(np.abs(self.reference_).max()))
        if largest > LARGEST:
            raise ValueError(
                f"X or reference has values up to {largest:.3g}, whose squares cannot be summed. Divide both by one "
                f"number: proportions do not change."
            )
        solve = {"rlm": self._rlm, "nnls": self._nnls, "nusvr": self._nusvr}[self.method]
        coefficients, n_iter = solve(bulk, rows)
        coefficients = np.maximum(coefficients, 0)
        self._rescue(coefficients, bulk, rows)
        proportions = coefficients / coefficients.sum(axis=1, keepdims=True)
        return proportions.astype(bulk.dtype, copy=False), n_iter

    def _rlm(self, bulk, rows):
        profiles = standardize(self.reference_)
        design = np.column_stack([np.ones(profiles.shape[1]), profiles.T])
        coefficients, n_iter, converged = robust_regression(
            design, standardize(bulk), max_iter=self.max_iter, tol=self.tol
        )
        self._warn(
            ~converged,
            rows,
            f"Robust regression did not converge in max_iter={self.max_iter} iterations for",
            "Use a larger max_iter or tol.",
            ConvergenceWarning,
        )
        return coefficients[:, 1:], max(int(n_iter.max()), 1)

    def _nnls(self, bulk, rows):
        return nonnegative_least_squares(self.reference_.T, bulk), 1

    def _nusvr(self, bulk, rows):
        profiles = standardize(self.reference_).T
        run = delayed(_best_support_vector_fit)
        found = Parallel(n_jobs=self.n_jobs)(
            run(profiles, sample, self.reference_, self.nu, self.tol) for sample in bulk
        )
        return np.array(found), 1

    def _rescue(self, coefficients, bulk, rows):
        """Answer, in place, for samples without a positive coefficient."""
        lost = coefficients.sum(axis=1) <= 0
        if not lost.any():
            return
        coefficients[lost] = nonnegative_least_squares(self.reference_.T, bulk[lost])
        hopeless = coefficients.sum(axis=1) <= 0
        coefficients[hopeless] = 1.0
        self._warn(
            lost & ~hopeless,
            rows,
            f"No cell type has a positive coefficient by method='{self.method}' in",
            "The proportions there are those of non-negative least squares.",
        )
        self._warn(
            hopeless,
            rows,
            "No cell type has a positive coefficient, nor by non-negative least squares, in",
            "The proportions there are equal. Check that X and reference are on the same scale.",
        )

    def _warn(self, affected, rows, problem, remedy, category=UserWarning):
        where = np.flatnonzero(affected)
        if len(where):
            names = where if rows is None else rows[where]
            warn(f"{problem} {len(where)} sample(s): {listing(list(names))}. {remedy}", category)


def fit_quality(X, reference, proportions):
    r"""How well a reference, mixed by proportions, reproduces every bulk sample.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, samples as rows.
    reference : DataFrame or array-like of shape (n_cell_types, n_genes)
        Expression profile of every cell type. Genes are matched as in :class:`~skenigma.ProportionEstimator`.
    proportions : array-like or DataFrame of shape (n_samples, n_cell_types)
        From wherever they come. Named rows and columns are matched to samples and cell types.

    Returns
    -------
    quality : DataFrame of shape (n_samples, 4)
        One row per sample, in the order of X and with its row names. With sample x, mixture
        :math:`m = \sum_k \theta_k r_k` and scale c, over the genes that X and reference share:

        - "r2" : :math:`1 - \sum_g (x_g - c\,m_g)^2 / \sum_g (x_g - \bar x)^2`. 1 is perfect, 0 no better than one
          number for all genes; negative is worse than that.
        - "rmse" : root mean square of :math:`x_g - c\,m_g`, in units of X.
        - "correlation" : Pearson correlation of x and m.
        - "scale" : the c that reproduces x best, by least squares, and at least 0. About 1 if X and reference
          are on one scale.

    Raises
    ------
    ValueError
        If X, reference and proportions do not fit together; the message names the first offenders.

    See Also
    --------
    ProportionEstimator : Whose ``quality_`` and ``quality`` are these figures for its own proportions.

    Notes
    -----
    Proportions say nothing of how deeply a sample was sequenced, so the mixture is scaled before it is compared.
    A sample that is the same in all genes has no "r2" and no "correlation" (NaN), nor has a mixture that is a
    "correlation"; nothing else is NaN.

    A sample that falls behind the others is not a mixture of these profiles: it may hold a cell type that the
    reference lacks, come from another platform or batch, be on another scale (logarithmic, say), or be of low
    quality. Its proportions deserve little trust, and so does its cell-type-specific expression. The reverse does
    not hold: on a linear scale a few highly expressed genes decide these figures, and cell types that resemble
    each other can be exchanged with hardly a loss.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.proportions import fit_quality
    >>> cohort = make_cohort(n_samples=10, n_genes=200, random_state=0, as_frame=True)
    >>> quality = fit_quality(cohort.bulk, cohort.reference, cohort.proportions)
    >>> list(quality.columns)
    ['r2', 'rmse', 'correlation', 'scale']
    >>> bool((quality["r2"] < 1).all())
    True
    """
    genes = ProportionEstimator(reference)
    bulk = genes._fit_genes(X)
    shares = check_proportions(proportions, genes.cell_types_, len(bulk), row_names(X))
    return _quality(X, bulk, genes.reference_, shares)


def _quality(X, bulk, reference, proportions):
    """:func:`fit_quality` of aligned arrays; X gives the names of the samples."""
    found = [_compare(bulk[rows], proportions[rows] @ reference) for rows in row_blocks(bulk)]
    index = getattr(X, "index", None)
    columns = ["r2", "rmse", "correlation", "scale"]
    return pd.DataFrame(
        np.concatenate(found), index=index if isinstance(index, pd.Index) else None, columns=columns
    )


def _compare(samples, mixtures):
    """Figures of :func:`fit_quality`, one row per sample."""
    samples, mixtures = samples.astype(np.float64), mixtures.astype(np.float64)
    size = np.einsum("jg,jg->j", mixtures, mixtures)
    scale = np.maximum(np.einsum("jg,jg->j", samples, mixtures), 0)
    scale = np.divide(scale, size, out=np.zeros_like(scale), where=size > 0)
    error = np.mean((samples - scale[:, None] * mixtures) ** 2, axis=1)
    shape, mixed_shape = standardize(samples), standardize(mixtures)
    varies = shape.any(axis=1)
    correlation = np.einsum("jg,jg->j", shape, mixed_shape) / max(samples.shape[1] - 1, 1)
    correlation[~(varies & mixed_shape.any(axis=1))] = np.nan
    variance = np.where(varies, samples.var(axis=1), np.nan)
    return np.column_stack([1 - error / variance, np.sqrt(error), correlation, scale])


def standardize(rows):
    """Rows minus their mean over their standard deviation (ddof = 1), in float64; constant rows become 0."""
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = np.sqrt(np.einsum("jg,jg->j", centred, centred) / max(rows.shape[1] - 1, 1))
    noise = 8 * np.finfo(rows.dtype).eps * np.abs(rows).max(axis=1)
    constant = spread <= noise
    centred[constant] = 0.0
    spread[constant] = 1.0
    centred /= spread[:, None]
    return centred


def _best_support_vector_fit(profiles, sample, reference, nus, tol):
    """Coefficients of the ν whose proportions mix ``reference`` to ``sample`` with the least squared error."""
    target = standardize(sample[None])[0]
    fits = [_support_vector_coefficients(profiles, target, nu, tol) for nu in nus]
    errors = [np.sum((sample - _shares(fit) @ reference) ** 2) for fit in fits]
    return fits[int(np.argmin(errors))]


def _support_vector_coefficients(profiles, target, nu, tol):
    machine = NuSVR(kernel="linear", C=1.0, nu=nu, tol=tol).fit(profiles, target)
    return np.maximum(machine.coef_[0], 0)


def _shares(coefficients):
    total = coefficients.sum()
    return coefficients / total if total > 0 else coefficients
