"""The estimator of cell type proportions."""

from functools import partial
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._parameters import POSITIVE, constraints, documented, set_parameters
from .._transformers import ReferenceTransformer
from ..checks.names import row_names
from ..checks.scales import looks_linear
from ..checks.validation import StrOptions, fit_context
from ..cohort import open_bulk
from ..core.regress.log_scale import log_scale_model
from ..core.regress.log_scale_errors import share_errors
from ._answer import Answer
from ._checks import check_content, check_expressed, comparable_genes
from ._methods import cohort_offset, log_scale, nonnegative, replace_empty, robust, support_vector
from ._quality import as_quality, figures


@documented
class ProportionEstimator(ReferenceTransformer):
    r"""Proportions of cell types by regressing every bulk sample on the reference profiles.

    Parameters
    ----------
    {reference}
    method : {"rlm", "log", "nnls", "nusvr", "auto"}, default="rlm"
        "rlm": robust regression (Huber) of the standardised sample on the standardised profiles, all samples in
        one batch; the published method. "log": the mixture that is nearest to the sample on the logarithmic scale,
        over genes weighted for telling cell types apart; of these the most accurate on mixtures of known proportions.
        "auto": "log" where X and reference are linear and not negative, else "rlm". "nnls": non-negative least
        squares on the values as they are. "nusvr": ν-support-vector regression as in CIBERSORT, with the ν of ``nu``
        that reconstructs the sample best.
    rna_content : Series or array-like of shape (n_cell_types,), default=None
        RNA per cell of every type, in any unit, such as the ``rna_content`` that
        :func:`~skenigma.reference.make_reference` reports for counts; a Series is matched by name. Proportions are
        then shares of cells. None leaves them shares of RNA, where the profiles have equal totals.
    {n_components}
    max_iter : int, default=500
        Largest number of iterations, for "rlm", "log" and "nusvr".
    tol : float, default=1e-4
        When to stop: for "rlm" the relative change of the residuals, for "log" that of the coefficients, for
        "nusvr" the duality gap over the objective, times 1e4.
    nu : sequence of float, default=(0.25, 0.5, 0.75)
        Values of ν to try, for "nusvr".
    n_jobs : int, default=None
        Number of jobs over the values of ν, for "nusvr"; nothing else has a loop worth splitting.

    Attributes
    ----------
    {cell_types_}
    method_ : {"rlm", "log", "nnls", "nusvr"}
        Method in use: what "auto" has chosen.
    {gene_names_}
    {reference_}
    proportions_ : ndarray of shape (n_samples, n_cell_types)
        Proportions of the samples that were fitted.
    proportions_std_ : ndarray of shape (n_samples, n_cell_types) or None
        Standard errors of these for method "log", a lower bound of their uncertainty, see the notes; None for others.
    shares_of_ : {"RNA", "cells"}
        What the proportions are shares of: "cells" with ``rna_content``, else "RNA", which holds if the profiles have
        equal totals. Profiles of raw counts, whose totals are the RNA of a cell, give shares of cells as well.
    quality_ : DataFrame of shape (n_samples, 5)
        How well the reference, mixed by these proportions, reproduces every fitted sample: "r2", "rmse",
        "correlation", "scale" and "explained", see :func:`fit_quality`.
    n_iter_ : int
        Largest number of iterations that a fitted sample took; 1 for methods that do not iterate here.
    {n_features_in_}
    {feature_names_in_}

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
    ReferenceWarning
        If ``reference`` is None, or profiles are zero, flat, or the same up to a factor.
    SampleWarning
        If a sample is zero in every gene, or unlike all others, as a column that describes genes. From 100 genes on.
    ScaleWarning
        If bulk or reference seem to be logarithms, or single values are negative. From 20 genes on.

    Notes
    -----
    Negative coefficients become 0 and the others are divided by their sum. A sample without a positive
    coefficient gets the NNLS proportions and a warning that names it; if NNLS has no positive coefficient
    either (the sample resembles no profile at all), it gets equal proportions.

    "rlm" is R's ``MASS::rlm`` with its defaults, as called by ``get_proportion`` of ENIGMA: same scale, same
    stopping rule, same numbers. "nusvr" follows the method "CBS" of the same package: sample and profiles are
    standardised, the kernel is linear, C = 1, and ν is chosen by the root mean squared error of the
    proportions' mixture on the values as they are: with several ν, bulk and reference must have the same
    scale. The optimisation problem is that of libsvm, but not the solver, which uses the duality gap as a
    bound on its distance from the optimum. On the recorded samples of the original, proportions are within
    ``tol`` of the exact optimum (1e-5 with the default), in any order of the genes. R's libsvm, which stops
    at a tolerance of 1e-3, is up to 3.4e-3 away there.

    "log" minimises, with sample and profiles over their means,
    :math:`\sum_g w_g\,\rho(\log(x_g + c) - \log(\sum_k b_k r_{kg} + c))`, :math:`\rho` being Huber's loss with
    threshold log 2, over coefficients b of at least 0, which divided by their sum are the proportions. c is
    half the smallest positive value of the sample, within 0.01 and 1. Genes are weighted by the cube of the
    log ratio of two profiles, scaled so that every pair of cell types has the same total weight. A ridge,
    1e-5 of the mean squared length of a profile, gives identical profiles equal shares. A sample that is zero
    in all genes is refused.

    Its standard errors account for the noise of the genes (a sandwich estimate) and for a factor by which
    every profile may be off as a whole, whose variance is half the mean squared residual of the genes. That
    half was chosen on 14 sets with known proportions, where 83 % of the true values lie within two standard
    errors (60 % to 100 % on single sets). The standard errors are a lower bound. Where profiles, or mixtures of
    them, are so alike that the data leave their shares open and know the sum alone, two standard errors reach from
    none of the sum to all of it. Fitting takes a fixed number of blocks beside X.

    An X that is not in memory is read twice by blocks of samples, whatever the method: for checks, among them what
    "auto" and "log" take from the cohort, and for all answers together.

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
        **constraints("reference", "n_components", "max_iter"),
        "method": [StrOptions({"rlm", "log", "nnls", "nusvr", "auto"})],
        "rna_content": ["array-like", None],
        "tol": [POSITIVE],
        "nu": ["array-like"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        reference=None,
        *,
        method="rlm",
        rna_content=None,
        n_components=2,
        max_iter=500,
        tol=1e-4,
        nu=(0.25, 0.5, 0.75),
        n_jobs=None,
    ):
        set_parameters(self, locals())

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Match the reference to the genes of X, and estimate the proportions of X.

        Parameters
        ----------
        {X}
        {y}

        Returns
        -------
        self : object
            Fitted estimator.
        """
        if not len(self.nu) or not all(0 < nu <= 1 for nu in self.nu):
            raise ValueError(f"nu={self.nu!r} must hold one or more numbers above 0 and up to 1.")
        X = open_bulk(X)
        bulk = self._fit_genes(X)
        self._warn_of_data(X, bulk, proportions_only=True)
        self._prepare(bulk, row_names(X))
        found = self._fit_cohort(bulk, row_names(X), quality=True)
        self.quality_ = as_quality(found.quality, X)
        return self

    def fit_transform(self, X, y=None):
        """Fit and return the proportions of X.

        Parameters
        ----------
        {X}
        {y}

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
        {X_new}

        Returns
        -------
        proportions : ndarray of shape (n_samples, n_cell_types)
            Rows sum to 1.
        """
        X = open_bulk(X)
        return self.transform_matched(self._new_bulk(X), row_names(X))

    def transform_with_std(self, X):
        """Proportions of every sample with their standard errors, for method "log".

        Parameters
        ----------
        {X_new}

        Returns
        -------
        proportions : ndarray of shape (n_samples, n_cell_types)
            As from ``transform``.
        std : ndarray of shape (n_samples, n_cell_types)
            Standard errors, a lower bound of the uncertainty, as ``proportions_std_`` has for the fitted samples.

        Raises
        ------
        ValueError
            If another method is in use.
        """
        X = open_bulk(X)
        bulk = self._new_bulk(X)
        if self.method_ != "log":
            raise ValueError(f"method='{self.method_}' has no standard errors: use method='log'.")
        found = self._answer(bulk, row_names(X), std=True)
        return self._in_use(found.shares), found.std

    def quality(self, X):
        """How well the reference, mixed by the estimated proportions, reproduces every sample.

        Parameters
        ----------
        {X_new}

        Returns
        -------
        quality : DataFrame of shape (n_samples, 5)
            Of the samples of X what ``quality_`` holds of the fitted ones, see :func:`fit_quality`.
        """
        X = open_bulk(X)
        found = self._answer(self._new_bulk(X), row_names(X), quality=True)
        return as_quality(found.quality, X)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of ``transform``: the cell types.

        Parameters
        ----------
        {input_features}

        Returns
        -------
        names : ndarray of str
            One cell type per column.
        """
        check_is_fitted(self)
        self._check_input_features(input_features)
        return self.cell_types_.astype(object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # logarithms need it; "auto" takes signed values by another method
        tags.input_tags.positive_only = self.method == "log"
        return tags

    def fit_matched(self, model, bulk, sample_names, estimate=True):
        """Fit to what a model has checked and matched already, for its ``proportion_estimator``.

        Parameters
        ----------
        model : estimator
            With ``reference_``, ``cell_types_`` and ``gene_names_``.
        bulk : ndarray of shape (n_samples, n_genes)
            Of these genes.
        sample_names : ndarray of str, or None
            For messages.
        estimate : bool, default=True
            Whether the proportions of the bulk are sought.

        Returns
        -------
        self : object
            Fitted estimator, but for ``quality_``; ``proportions_`` and what belongs to them only if ``estimate``.
        """
        self._match_like(model)
        self._prepare(bulk, sample_names)
        if estimate:
            self._fit_cohort(bulk, sample_names)
        return self

    def transform_matched(self, bulk, sample_names):
        """``transform`` of a bulk that a model has checked and brought to the genes in use.

        Parameters
        ----------
        bulk : ndarray of shape (n_samples, n_genes)
            Bulk expression of ``gene_names_``.
        sample_names : ndarray of str, or None
            For messages.

        Returns
        -------
        proportions : ndarray of shape (n_samples, n_cell_types)
            Rows sum to 1.
        """
        return self._in_use(self._answer(bulk, sample_names).shares)

    def _fit_cohort(self, bulk, rows, quality=False):
        """Proportions and standard errors of the cohort, on the genes in use; returns all of the answer."""
        found = self._answer(bulk, rows, std=self.method_ == "log", quality=quality)
        self.n_iter_, self.proportions_, self.proportions_std_ = (
            found.n_iter,
            self._in_use(found.shares),
            found.std,
        )
        return found

    def _prepare(self, bulk, rows):
        """Choose the method, and what "log" takes from the cohort: the weights of the genes."""
        self.method_, self._content = self.method, check_content(self.rna_content, self.cell_types_)
        self.shares_of_ = "RNA" if self._content is None else "cells"
        # signed values and logarithms cannot be compared after another logarithm
        if self.method == "auto":
            self.method_ = "log" if looks_linear(bulk) and looks_linear(self.reference_) else "rlm"
        if self.method_ != "log":
            return
        # once, from the fitted cohort: a new sample gets the same answer whatever else comes with it
        genes = comparable_genes(self.reference_, self.cell_types_, self.gene_names_, bulk, rows)
        self._log_scale = log_scale_model(self.reference_, cohort_offset(bulk, genes))

    def _in_use(self, shares):
        """Shares of RNA as they are, or as shares of cells."""
        if self._content is None:
            return shares
        # the more RNA a cell has, the fewer cells there are behind a share of it
        cells = shares / self._content
        return (cells / cells.sum(axis=1, keepdims=True)).astype(shares.dtype, copy=False)

    def _answer(self, bulk, rows, **more):
        """Shares of RNA, and what else is asked for; of what is not in memory in one reading."""
        if isinstance(bulk, np.ndarray):
            parts = [self._answer_block(bulk, rows, **more)]
        else:
            parts = [part for _, part in bulk.each(partial(_block_answer, self, more))]
        found = Answer.joined(parts)
        found.warn(rows, self.method_)
        return found

    def _answer_block(self, bulk, rows, std=False, quality=False):
        found = self._solution(bulk, rows)
        # below 0 a type is taken to be absent, and does not count against the others
        coefficients = np.maximum(found.coefficients, 0)
        by_nnls, unlike = replace_empty(coefficients, bulk, self.reference_)
        shares = (coefficients / coefficients.sum(axis=1, keepdims=True)).astype(bulk.dtype, copy=False)
        return Answer(
            shares,
            coefficients,
            found.n_iter,
            found.unfinished,
            by_nnls,
            unlike,
            found.problem,
            self._errors(bulk, coefficients) if std else None,
            figures(bulk, self.reference_, shares) if quality else None,
        )

    def _errors(self, bulk, coefficients):
        factors = None if self._content is None else 1 / self._content
        return share_errors(self._log_scale, bulk, coefficients, factors).astype(bulk.dtype, copy=False)

    def _solution(self, bulk, rows):
        """What the method in use answers."""
        stops = {"max_iter": self.max_iter, "tol": self.tol}
        if self.method_ == "log":
            check_expressed(bulk, rows, self._log_scale.genes, self.gene_names_)
            return log_scale(self._log_scale, bulk, **stops)
        if self.method_ == "rlm":
            return robust(self.reference_, bulk, **stops)
        if self.method_ == "nusvr":
            return support_vector(self.reference_, bulk, self.nu, n_jobs=self.n_jobs, **stops)
        return nonnegative(self.reference_, bulk)


def _block_answer(estimator, more, _, names, whole, block):
    """The answer for a block, wherever it is read, see :meth:`skenigma.cohort.LazyMatrix.each`."""
    return estimator._answer_block(block, names, **more)
