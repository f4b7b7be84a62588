"""The bulk on the platform of the reference."""

import numpy as np

from .._parameters import constraints, documented, set_parameters
from .._transformers import ProportionsTransformer
from ..checks.entries import check_nonnegative
from ..checks.memory import check_memory
from ..checks.names import row_names
from ..checks.validation import StrOptions, fit_context
from ..checks.warning import warn
from ..cohort import is_lazy, open_bulk
from ..core.regress.combat import Moments, alignment
from ..core.regress.generalized import gene_blocks
from ..proportions import ProportionEstimator
from ._effect import (
    LOG,
    NEGATIVE,
    apply_effect,
    check_expression,
    warn_of_logarithms,
    warn_of_units,
)


@documented
class BulkBatchCorrector(ProportionsTransformer):
    """Bring bulk to the platform of the reference: B mode.

    Mixes the reference profiles by each sample's own proportions, and treats the difference between the
    measured and the mixed samples, gene by gene, as a batch effect: ComBat [1]_ on log2(x + 1). The bulk is
    corrected, the reference stays. Use it where the reference is a table of profiles, as of sorted cells.
    Both must be on the linear scale, and have the same total.

    Parameters
    ----------
    {reference}
    {proportion_estimator}
    target : {"pooled", "reference"}, default="pooled"
        What the bulk is brought to, per gene. "pooled", as in the original: the mean over measured and mixed samples,
        which leaves half of the difference, with the variance pooled within both. "reference": mean and variance of
        the mixed samples, which is advisable where platforms differ much.
    {mean_only}
    {n_components}

    Attributes
    ----------
    slope_, intercept_ : ndarray of shape (n_genes,)
        The fitted batch effect: log2(x + 1) becomes ``slope_ * log2(x + 1) + intercept_``.
    proportions_ : ndarray of shape (n_samples, n_cell_types)
        Proportions by which the reference was mixed.
    {cell_types_}
    {gene_names_}
    {reference_}
    {proportion_estimator_}
    {n_features_in_}
    {feature_names_in_}

    Raises
    ------
    ValueError
        If X, reference or proportions do not fit together, or are negative; the message names the first offenders.

    Warns
    -----
    UserWarning
        If X looks like logarithms, a sample or profile is all zero, X and reference have totals far apart, or no
        gene can be corrected.

    See Also
    --------
    ReferenceBatchCorrector : Corrects the reference instead, given the cells.

    Notes
    -----
    ``transform`` applies the fitted correction to every row. The result of a row does not depend on other
    rows, rows of the cohort get the values of the fit, and the proportions of new rows are not needed.

    A gene that is constant in the bulk or in all mixtures (as one without expression, or with the same in all
    profiles) tells nothing about a batch effect and keeps its values. No gene that X and reference share is
    lost; genes of X that the reference lacks cannot be compared, and are left out of the result. Values that
    would be negative are set to 0. The R function of ENIGMA for this mode drops genes without expression from
    the bulk, but not from the reference, and leaves negative values. Otherwise its numbers are reproduced by
    the defaults.

    A bulk that is not in memory is read by blocks of samples, four times for a fit: checks, proportions, means and
    variances. The result of ``transform`` is held.

    The correction can be no better than the proportions it starts from. Their means over the cohort determine the
    mean of every mixed gene, so that the corrected bulk agrees with the first estimate of the mean composition,
    right or wrong; what improves are the differences between samples.

    References
    ----------
    .. [1] Johnson, Li and Rabinovic (2007), Adjusting batch effects in microarray expression data using empirical
       Bayes methods. Biostatistics 8.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.batch import BulkBatchCorrector
    >>> from sklearn.pipeline import make_pipeline
    >>> rng = np.random.default_rng(0)
    >>> genes = [f"gene{i}" for i in range(200)]
    >>> reference = pd.DataFrame(rng.lognormal(4, 1, (3, 200)), ["B", "T", "NK"], genes)
    >>> bulk = rng.dirichlet(np.ones(3), 40) @ reference * rng.lognormal(0, 0.3, (40, 200))
    >>> platform = rng.lognormal(0, 1, 200)
    >>> corrected = BulkBatchCorrector(reference).set_output(transform="pandas").fit_transform(bulk * platform)
    >>> before = np.abs(np.log2(bulk * platform + 1) - np.log2(bulk + 1)).to_numpy().mean()
    >>> after = np.abs(np.log2(corrected + 1) - np.log2(bulk + 1)).to_numpy().mean()
    >>> bool(after < 0.7 * before)
    True

    In front of an estimator, as a step of a pipeline:

    >>> steps = make_pipeline(BulkBatchCorrector(reference), L2MaxDeconvolver(reference, renorm_size="auto"))
    >>> steps.set_output(transform="pandas").fit_transform(bulk * platform).shape
    (40, 600)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        **constraints("reference", "proportion_estimator", "mean_only", "n_components"),
        "target": [StrOptions({"pooled", "reference"})],
    }

    def __init__(
        self, reference=None, *, proportion_estimator=None, target="pooled", mean_only=False, n_components=2
    ):
        set_parameters(self, locals())

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, proportions=None):
        """Estimate the batch effect between a cohort and the mixtures of the reference.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression on the linear scale, samples as rows; two or more.
        {y}
        {proportions}

        Returns
        -------
        self : object
            Fitted transformer.
        """
        X = open_bulk(X)
        bulk = self._fit_genes(X, min_samples=2)
        check_expression(bulk, "X", row_names(X), self.gene_names_)
        warn_of_logarithms(bulk)
        check_expression(self.reference_, "reference", self.cell_types_, self.gene_names_)
        warn_of_units(bulk, self.reference_)
        proportions = self._fit_proportions(X, bulk, proportions)
        self.proportions_ = proportions.astype(bulk.dtype, copy=False)
        # the mixtures are the second batch
        anchor = None if self.target == "pooled" else 1
        effects = alignment(self._moments(bulk, proportions), anchor=anchor, mean_only=self.mean_only)
        self.slope_, self.intercept_ = (effect[0] for effect in effects)
        if np.all(self.slope_ == 1) and not self.intercept_.any():
            warn(
                "No gene varies both in X and in the mixtures of reference: nothing was corrected.",
            )
        return self

    def transform(self, X):
        """Corrected bulk of any samples, each on its own.

        Parameters
        ----------
        {X_new}

        Returns
        -------
        corrected : ndarray of shape (n_samples, n_genes)
            On the linear scale, at least 0; genes are ``gene_names_``.
        """
        X = open_bulk(X)
        bulk = self._new_bulk(X)
        check_nonnegative(bulk, "X", row_names(X), self.gene_names_, NEGATIVE)
        if is_lazy(bulk):
            check_memory(
                bulk.nbytes, f"Correcting {len(bulk):,} samples at once", "Correct some after the others."
            )
        return apply_effect(bulk, self.slope_, self.intercept_)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of ``transform``: the genes shared by X and reference.

        Parameters
        ----------
        {input_features}

        Returns
        -------
        names : ndarray of str
            One gene per column.
        """
        return self._genes_out(input_features)

    def _moments(self, bulk, proportions):
        """Moments of a gene over all samples; ComBat's priors, of all genes, come after them."""
        if is_lazy(bulk):
            return Moments.of_blocks(
                lambda: (self._batches(block, proportions[rows]) for rows, block in bulk.blocks()), len(bulk)
            )
        return Moments.joined(
            [
                Moments.of(self._batches(bulk, proportions, genes))
                for genes in gene_blocks(bulk.shape[1], len(bulk))
            ]
        )

    def _batches(self, bulk, proportions, genes=slice(None)):
        """The measured samples and their mixtures of the reference, as logarithms, of some genes."""
        return LOG.forward(bulk[:, genes]), LOG.forward(proportions @ self.reference_[:, genes])

    def _default_proportion_estimator(self):
        return ProportionEstimator()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags
