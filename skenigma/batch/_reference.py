"""The reference on the platform of the bulk."""

import warnings
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._parameters import COUNT, POSITIVE, constraints, documented, set_parameters
from .._transformers import GeneTransformer
from ..checks.entries import check_finite, check_nonnegative
from ..checks.genes import Profiles
from ..checks.labels import cell_types_of, row_labels
from ..checks.names import column_names, listing, refuse_repeats, row_names
from ..checks.numbers import refuse_masked
from ..checks.validation import HasMethods, Interval, StrOptions, check_bulk, check_proportions, fit_context
from ..core.regress.combat import Moments, alignment
from ..core.regress.generalized import gene_blocks
from ..core.regress.robust import nonnegative_least_squares
from ..reference import make_pseudobulk
from ..reference._cells import read_cells
from ._effect import LOG, NEGATIVE, apply_effect, check_expression, warn_of_logarithms

# Standard deviation of drawn proportions, in units of their mean, in the original.
SPREAD = 2.0


def _has_score(self):
    return hasattr(self.estimator, "score")


@documented
class ReferenceBatchCorrector(GeneTransformer):
    """Bring a reference of annotated cells to the platform of the bulk: S mode.

    Mixes cells into pseudo-bulk samples of known proportions, takes their difference from the bulk, gene by gene, for
    a batch effect (ComBat [1]_ on log2(x + 1)), corrects the pseudo-bulk, and restores from it the profiles that
    explain it by non-negative least squares per gene. The bulk stays. Use it where the reference comes from single
    cells.

    Parameters
    ----------
    cells : AnnData, DataFrame, ndarray or sparse matrix of shape (n_cells, n_genes), default=None
        Expression of single cells on the linear scale, see :func:`skenigma.reference.make_reference`. Either cells
        and labels must be given, or ``pseudobulk``.
    labels : str or array-like of shape (n_cells,), default=None
        Cell type of each cell; a str is a column of ``obs`` of an AnnData.
    pseudobulk : Bunch, default=None
        Pseudo-bulk made before, as by :func:`skenigma.reference.make_pseudobulk`: any object with ``bulk``
        (n_samples × n_genes) and ``proportions`` (n_samples × n_cell_types, rows summing to 1). Much smaller than the
        cells: give this to a grid search, which copies its parameters.
    estimator : estimator, default=None
        Estimator with a parameter ``reference``, as :class:`skenigma.L2MaxDeconvolver`. It is fitted to the bulk with
        the restored reference, and ``transform`` and ``score`` are its. None passes the bulk on.
    n_samples : int, default=100
        Number of pseudo-bulk samples to mix.
    n_cells : int, default=1000
        Number of cells in each.
    composition : Series or array-like of shape (n_cell_types,), default=None
        Mean proportions of the pseudo-bulk; a Series is matched by name. None is the composition of the cells. See
        Notes.
    layer : str, default=None
        Which matrix of an AnnData to use.
    gene_names : array-like of str of shape (n_genes,), default=None
        Names of the genes of ``cells``, where they do not carry them.
    normalize : float or "median", default=None
        Total expression that every cell is scaled to before it is mixed. None leaves cells their totals, and makes
        proportions those of cells; otherwise they are those of RNA.
    {min_cells}
    rescale : bool, default=True
        Multiply the pseudo-bulk by one number that gives it the mean total expression of X. False leaves it as it is.
    target : {"pooled", "bulk"}, default="pooled"
        What the pseudo-bulk is brought to, per gene. "pooled", as in the original: the mean over all samples of both,
        which takes away the bulk's share of them (of 40 and 100 samples, 29 % of the difference), with the variance
        pooled within both. "bulk": mean and variance of the bulk, which is advisable where platforms differ much,
        best with ``mean_only``.
    {mean_only}
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same pseudo-bulk on every fit.

    Attributes
    ----------
    reference_ : DataFrame of shape (n_cell_types, n_genes)
        The restored reference, on the scale of X: what to give to any estimator of this package.
    estimator_ : estimator
        Fitted to X with this reference, if ``estimator`` is given.
    slope_, intercept_ : ndarray of shape (n_genes,)
        The fitted batch effect: log2(x + 1) of the pseudo-bulk becomes ``slope_ * log2(x + 1) + intercept_``.
    factor_ : float
        Number by which the pseudo-bulk was multiplied before.
    {cell_types_}
    gene_names_ : ndarray of str, shape (n_genes,)
        Genes shared by X and cells, in the order of X.
    {n_features_in_}
    {feature_names_in_}

    Raises
    ------
    ValueError
        If neither cells nor pseudo-bulk, or both, are given, if they do not fit to X, or are negative; the message
        names the first offenders.

    Warns
    -----
    UserWarning
        If X or cells look like logarithms, a sample is all zero, or cell types have few cells.

    See Also
    --------
    BulkBatchCorrector : Corrects the bulk instead.
    skenigma.reference.make_pseudobulk : Mixes the cells.

    Notes
    -----
    The proportions of the pseudo-bulk are drawn as in the original: per cell type from a normal distribution around
    its mean proportion f with standard deviation 2 f, negative ones set to 0, and scaled to sum to 1. Samples that
    are all 0 are drawn again (the original drops them). A cell that is drawn several times counts as often, so that
    the proportions from which the profiles are restored are those that were mixed; the original counts it once.
    From the pseudo-bulk onwards, its numbers are reproduced by ``rescale=False`` and the other defaults.

    A gene that is constant in the bulk or in the pseudo-bulk keeps its values; no shared gene is lost.

    Differences between pseudo-bulk and bulk that are due to their composition are treated as a batch effect,
    too. If a cell type is much more frequent among the cells than in the tissue, pass the expected
    ``composition`` of the bulk.

    Beside X and the pseudo-bulk, a fit holds logarithms of some genes at a time: 14 MB for 1,000 samples of each and
    20,000 genes. Of either, it holds a copy of the genes in use if these are not all, or are in another order.

    The class has no default reference, and so no fit without cells or pseudo-bulk.

    References
    ----------
    .. [1] Johnson, Li and Rabinovic (2007), Adjusting batch effects in microarray expression data using empirical
       Bayes methods. Biostatistics 8.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma import ProportionEstimator
    >>> from skenigma.batch import ReferenceBatchCorrector
    >>> rng = np.random.default_rng(0)
    >>> profiles = rng.lognormal(3, 1, (2, 100))
    >>> labels = np.repeat(["B", "T"], 50)
    >>> cells = rng.poisson(np.repeat(profiles, 50, axis=0))
    >>> platform = rng.lognormal(0, 1, 100)
    >>> bulk = rng.dirichlet([1, 1], 20) @ profiles * platform
    >>> corrector = ReferenceBatchCorrector(cells, labels, estimator=ProportionEstimator(), random_state=0)
    >>> corrector.fit_transform(bulk).shape
    (20, 2)
    >>> corrector.reference_.shape
    (2, 100)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        "cells": "no_validation",
        "labels": "no_validation",
        "pseudobulk": "no_validation",
        "estimator": [HasMethods(["fit", "transform", "set_params"]), None],
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "n_cells": [COUNT],
        "composition": ["array-like", None],
        "layer": [str, None],
        "gene_names": ["array-like", None],
        "normalize": [POSITIVE, StrOptions({"median"}), None],
        "rescale": ["boolean"],
        "target": [StrOptions({"pooled", "bulk"})],
        **constraints("mean_only", "min_cells"),
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        cells=None,
        labels=None,
        *,
        pseudobulk=None,
        estimator=None,
        n_samples=100,
        n_cells=1000,
        composition=None,
        layer=None,
        gene_names=None,
        normalize=None,
        min_cells=10,
        rescale=True,
        target="pooled",
        mean_only=False,
        random_state=None,
    ):
        set_parameters(self, locals())

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Restore the reference on the scale of a cohort, and fit ``estimator`` with it.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression on the linear scale, samples as rows; two or more.
        y : Ignored
            Handed to ``estimator``.

        Returns
        -------
        self : object
            Fitted transformer.
        """
        bulk = check_bulk(self, X, reset=True, min_samples=2)
        check_nonnegative(bulk, "X", row_names(X), getattr(self, "feature_names_in_", None), NEGATIVE)
        mixed, shares, profiles = self._read_pseudobulk()
        chosen = self._match_genes(profiles, getattr(self, "feature_names_in_", None), X, bulk.shape)
        bulk, mixed = self._align(bulk), _on_genes(mixed, chosen)
        check_expression(bulk, "X", row_names(X), self.gene_names_)
        warn_of_logarithms(bulk)
        check_expression(mixed, "pseudobulk", None, self.gene_names_)
        # one factor for all genes first, or the units would be taken for the platform
        self.factor_ = float(bulk.mean(dtype=np.float64) / mixed.mean()) if self.rescale else 1.0
        self.reference_ = self._restore(bulk, mixed, shares)
        self.estimator_ = self._fit_estimator(X, y)
        return self

    def transform(self, X):
        """What the fitted ``estimator_`` makes of X; without one, X on the shared genes.

        Parameters
        ----------
        {X_new}

        Returns
        -------
        transformed : ndarray of shape (n_samples, n_features_out)
            Columns are named by ``get_feature_names_out``.
        """
        check_is_fitted(self)
        return self._new_bulk(X) if self.estimator_ is None else self.estimator_.transform(X)

    @available_if(_has_score)
    def score(self, X, y=None):
        """Score of the fitted ``estimator_``.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, with the genes of the fit.
        y : Ignored
            Handed to ``estimator_``.

        Returns
        -------
        score : float
            Larger is better.
        """
        check_is_fitted(self)
        return self.estimator_.score(X, y)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of ``transform``: those of ``estimator_``, or the shared genes.

        Parameters
        ----------
        {input_features}

        Returns
        -------
        names : ndarray of str
            One name per column.
        """
        check_is_fitted(self)
        if self.estimator_ is None:
            return self._genes_out(input_features)
        return self.estimator_.get_feature_names_out(input_features)

    def _read_pseudobulk(self):
        """Pseudo-bulk, its proportions, and its names as those of profiles without values."""
        if self.pseudobulk is not None and (self.cells is not None or self.labels is not None):
            raise ValueError("Give cells and labels, or pseudobulk, but not both.")
        given = self._mix() if self.pseudobulk is None else self.pseudobulk
        missing = [name for name in ("bulk", "proportions") if not hasattr(given, name)]
        if missing:
            raise ValueError(f"pseudobulk has no {listing(missing)}: give what make_pseudobulk returns.")
        genes, samples = column_names(given.bulk, "pseudobulk"), row_names(given.bulk)
        refuse_repeats(genes, "Genes of pseudobulk", "Sum, average or drop the repeated columns first.")
        refuse_masked(given.bulk, "pseudobulk")
        mixed = check_array(given.bulk, dtype=np.float64, ensure_all_finite=False, input_name="pseudobulk")
        check_finite(mixed, "pseudobulk", samples, genes)
        types = cell_types_of(given.proportions)
        shares = check_proportions(given.proportions, types, len(mixed), row_labels(given.bulk))
        _check_identifiable(shares, types)
        # names and widths are all that matching takes: the values are what is to be found
        return mixed, shares, Profiles(np.broadcast_to(0.0, (len(types), mixed.shape[1])), types, genes)

    def _mix(self):
        """Pseudo-bulk from the cells."""
        if self.cells is None or self.labels is None:
            raise ValueError("ReferenceBatchCorrector needs cells and labels, or pseudobulk.")
        rng = check_random_state(self.random_state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again where the cells are mixed
            cells = read_cells(self.cells, self.labels, layer=self.layer)
        counts = cells.counts()
        kept = counts >= self.min_cells
        shares = None
        if kept.any():  # else make_pseudobulk says what is wrong
            mean = self._mean_shares(cells.cell_types[kept], counts[kept])
            shares = pd.DataFrame(_draw_shares(mean, self.n_samples, rng), columns=cells.cell_types[kept])
        return make_pseudobulk(
            self.cells,
            self.labels,
            n_cells=self.n_cells,
            proportions=shares,
            # the tensor, by far the largest part, is not needed
            return_cse=False,
            layer=self.layer,
            gene_names=self.gene_names,
            normalize=self.normalize,
            min_cells=self.min_cells,
            # goes on where the shares left off, so that one seed decides all
            random_state=rng,
        )

    def _mean_shares(self, names, counts):
        if self.composition is None:
            return counts / counts.sum()
        given = self.composition
        row = given.to_frame().T if isinstance(given, pd.Series) else np.atleast_2d(given)
        return check_proportions(row, names, 1, None)[0]

    def _restore(self, bulk, mixed, shares):
        """Profiles that explain the corrected pseudo-bulk; what is as large as either is held for some genes only."""
        some_genes = gene_blocks(bulk.shape[1], max(len(bulk), len(mixed)))
        # the bulk is the first batch, and the pseudo-bulk, whose effect is taken, the second
        moments = Moments.joined(
            [
                Moments.of([LOG.forward(bulk[:, genes]), LOG.forward(mixed[:, genes] * self.factor_)])
                for genes in some_genes
            ]
        )
        anchor = None if self.target == "pooled" else 0
        effects = alignment(moments, anchor=anchor, mean_only=self.mean_only)
        self.slope_, self.intercept_ = (effect[1] for effect in effects)
        profiles = np.empty((len(self.cell_types_), bulk.shape[1]), dtype=bulk.dtype)
        for genes in some_genes:
            scaled = mixed[:, genes] * self.factor_
            corrected = apply_effect(scaled, self.slope_[genes], self.intercept_[genes])
            profiles[:, genes] = nonnegative_least_squares(shares, corrected.T).T
        return pd.DataFrame(profiles, self.cell_types_, self.gene_names_)

    def _fit_estimator(self, X, y):
        if self.estimator is None:
            return None
        estimator = clone(self.estimator)
        if "reference" not in estimator.get_params():
            raise ValueError(
                f"estimator={estimator!r} has no parameter 'reference' for the corrected reference."
            )
        return estimator.set_params(reference=self.reference_).fit(X, y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags


def _draw_shares(mean, n_samples, rng):
    """Proportions spread widely around their mean, as the original draws them; no row is all zero."""
    shares = np.zeros((n_samples, len(mean)))
    empty = np.arange(n_samples)
    while len(empty):
        shares[empty] = np.maximum(rng.normal(mean, SPREAD * mean, (len(empty), len(mean))), 0)
        empty = np.flatnonzero(shares.sum(axis=1) <= 0)
    return shares / shares.sum(axis=1, keepdims=True)


def _on_genes(values, chosen):
    """Some of the columns; where these are all of them in their order, the very table."""
    return values if np.array_equal(chosen, np.arange(values.shape[1])) else values[:, chosen]


def _check_identifiable(shares, types):
    """Refuse pseudo-bulk whose proportions cannot tell the cell types apart."""
    absent = ~np.any(shares > 0, axis=0)
    if absent.any():
        raise ValueError(
            f"The pseudo-bulk holds no {listing(types[absent])}: their proportion is 0 in every sample. Drop these "
            f"types, or mix them in."
        )
    if np.linalg.matrix_rank(shares) < len(types):
        raise ValueError(
            f"The proportions of {len(shares)} pseudo-bulk sample(s) cannot tell {len(types)} cell types apart: mix "
            f"more samples, with proportions that vary independently."
        )
