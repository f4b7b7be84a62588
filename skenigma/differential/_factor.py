"""The test by the factor model: the bulk and the reference, with the phenotype as known columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import chi2, norm

from .._docstrings import filled
from .._typing import Column, Table
from ..checks.names import listing
from ..checks.warning import warn
from ..core.posterior.factor import fit_factors
from ..core.posterior.factor_effects import deviations_from_reference, explained_by_known, known_effects
from ..core.posterior.factor_rest import residual_of
from ..deconvolution._factor import warn_of_linear_counts
from ._bulk import held_bulk
from ._entries import ENTRIES
from ._names import check_bulk, matched_reference
from ._result import Result, benjamini_hochberg, is_constant, too_rare
from ._study import MIN_PROPORTION, Options, Study

# Significance, over the number of factors, at which a factor that goes with the phenotype is worth a warning.
ASSOCIATED = 1e-3
# The reference fits no group if the deviation of the nearest, as a variance, is above these shares of that of the
# farthest and of the residual.
FITS_NONE, VISIBLE = 0.25, 0.1
# p-values below this are all of one statistic: that of 0 would be infinite.
SMALLEST = 1e-300


@filled(ENTRIES)
def factor_test(
    X: Table,
    proportions: Table,
    phenotype: Column,
    *,
    reference: Table,
    covariates: Table | None = None,
    levels: Sequence | None = None,
    reference_level: Any = None,
    missing: str = "raise",
    n_factors: int | str = "auto",
    min_proportion: float = MIN_PROPORTION,
    cell_types: ArrayLike | None = None,
    gene_names: ArrayLike | None = None,
) -> pd.DataFrame:
    r"""Test by the factor model in which cell type a gene is associated with the phenotype.

    The bulk x, minus what reference r and proportions θ predict, is explained by the cell types' deviations
    from the reference: those of all samples, those of a group c, and those associated with hidden factors f,

    .. math::

        x_{jg} = \sum_k \theta_{jk} \Bigl( r_{kg} + s_{kg} + \sum_c [y_j = c]\, a_{ckg}
        + \sum_m f_{jm} b_{mkg} + u_{jkg} \Bigr) + e_{jg} .

    All terms have normal priors whose variances, one per cell type, the genes determine together. Where the
    reference describes one of the groups, the variances of s and of this group's a go to 0, and the other
    group's expression is compared with a reference that has no noise, which gives the test its power. The
    test determines which group that is; the reference level only determines the signs.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression whose values have one variance over their range: signed, centred, standardised. Counts are for
        :func:`log_fold_change_test`.
    {proportions}
    phenotype : array-like or Series of shape (n_samples,)
        See :func:`differential_expression`. For a quantity the columns are its distances from its least and its
        greatest value.
    reference : array-like or DataFrame of shape (n_cell_types, n_genes)
        Profiles, on the scale of X. Frames are matched by the names of genes and cell types.
    covariates : DataFrame or array-like of shape (n_samples, n_covariates), default=None
        Further known columns, like the phenotype: what goes with them may differ between cell types.
    {comparison}
    n_factors : int or "auto", default="auto"
        Number of hidden factors, see :class:`~skenigma.FactorDeconvolver`.
    {min_proportion}
    {cell_types}
    {gene_names}

    Returns
    -------
    table : DataFrame
        See :func:`differential_expression`. The effect is the posterior mean, ``standard_error`` its posterior
        standard deviation (NaN for more than two classes), the statistic the z-value that has the p-value (for more
        than two classes :math:`\chi^2` over its degrees of freedom). q-values are Benjamini and Hochberg's, over the
        genes of each cell type. ``table.attrs["factor_model"]`` is a dict with what the fit found:

        n_factors, converged, evidence : int, bool, float
            Of the fit.
        deviation : dict of float
            By group (for a quantity, at its least and greatest value): root mean square over genes and cell types of
            what the model takes its profiles to deviate from the reference by.
        factor_r2 : list of float
            Share of every hidden factor's variance that phenotype and covariates explain.
        shifted_genes : float
            Number of genes, as a sum of probabilities, whose reference is off by as much in all samples.

    Raises
    ------
    ValueError
        See :func:`differential_expression`; also if fewer than 5 residual degrees of freedom are left.

    Warns
    -----
    UserWarning
        If the reference fits no group, a hidden factor goes with the phenotype, or the values look like counts per
        million.

    See Also
    --------
    log_fold_change_test : For counts.
    interaction_test : Without a reference.
    skenigma.FactorDeconvolver : The same model, of expression and without a phenotype.

    Notes
    -----
    p is the probability of a ratio of posterior mean to deviation at least this large if there is no effect.
    Priors shrink the ratio: of unchanged genes, fewer than 5 % have p < 0.05. With a probability that is
    estimated from all genes, the reference of a gene in one cell type may be off by the same amount in all
    samples; p-values are averaged over this possibility.

    The fit is specific to these samples and this phenotype: it cannot be applied to new samples, because
    their expression would depend on their phenotype.

    A bulk that is not in memory is read into it, if there is room for three copies and for four matrices of samples ×
    samples; else it is refused.

    Effects are shrunk towards 0, by a prior that is narrow because most genes have no effect: with the
    published recipe (100 samples, a tenth of the genes changed) to about 0.6 of what they are.

    Examples
    --------
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.differential import factor_test
    >>> cohort = make_cohort(n_genes=400, random_state=0, as_frame=True)
    >>> table = factor_test(cohort.bulk, cohort.proportions, cohort.phenotype, reference=cohort.reference)
    >>> called = table[table.q_value < 0.05]
    >>> right = cohort.changed.T.unstack()[list(zip(called.cell_type, called.gene))].abs().mean()
    >>> bool(len(called) > 80 and right > 0.95)
    True
    """
    X, proportions, (types, genes), samples = check_bulk(X, proportions, cell_types, gene_names)
    reference = matched_reference(reference, types, genes)
    study = Study(phenotype, covariates, len(X), samples, Options(False, levels, reference_level, missing))
    return factor(X, proportions, reference, study, types, genes, n_factors, min_proportion)


def factor(
    bulk, proportions, reference, study, cell_types, genes, n_factors="auto", min_proportion=MIN_PROPORTION
):
    """The table for arrays that are checked."""
    bulk = held_bulk(bulk, study, "factor", copies=3, products=4)
    proportions = proportions[study.used].astype(np.float64, copy=False)
    warn_of_linear_counts(bulk, "method='factor'", "method='log_fold_change'")
    determined = _determined(proportions, study)
    columns, weights = _columns(study)
    covariates = _ends(study.covariates)
    known = np.column_stack([np.ones(len(bulk)), columns, covariates])
    # an effect compares groups: intercept and covariates have no part in it
    weights = np.pad(weights, [(0, 0), (1, covariates.shape[1])])
    limit = None if n_factors == "auto" else n_factors
    fit = fit_factors(residual_of(bulk, proportions, reference), proportions, known, n_factors=limit)
    effects = known_effects(fit, weights)
    result = Result(cell_types, genes, study)
    result.effect[:], errors = _compared(effects, study)
    result.p_value[:] = effects.p_value
    result.statistic[:] = _statistic(effects.p_value, result.effect, len(weights))
    result.drop("singular", ~determined[:, None])
    result.drop("rare", too_rare(proportions, min_proportion)[:, None])
    result.drop("constant", is_constant(bulk))
    report = _report(fit, effects, proportions, study)
    report.warn()
    table = result.table(benjamini_hochberg(result.p_value), standard_error=errors)
    table.attrs["factor_model"] = report.attributes()
    return table


def _determined(proportions, study):
    """Whether the design, without priors, determines the effect in each cell type; covariates are checked as well."""
    n_types = proportions.shape[1]
    products = (proportions[:, :, None] * study.coded[:, None]).reshape(len(proportions), -1)
    design = study.design(np.hstack([proportions, products]), "proportions, phenotype")
    positions = np.arange(n_types, n_types + products.shape[1]).reshape(n_types, -1)
    return np.array([design.estimable(columns) for columns in positions])


def _columns(study):
    """Columns of the groups, or of a quantity's two ends, and the weights of their loadings in each effect.

    The order is that of the samples, so that neither names nor the reference level have a say in the fit.
    """
    if study.classes is None:
        columns, weights = _ends(study.coded), np.array([[1.0, -1.0]]) / np.ptp(study.coded)
    else:
        columns, n_classes = _members(study), len(study.classes)
        weights = np.column_stack([-np.ones(n_classes - 1), np.eye(n_classes - 1)])
    order = np.lexsort(columns[::-1])
    return columns[:, order], weights[:, order]


def _ends(quantities):
    """Distances from the least and from the greatest value of each column, in shares of its range."""
    rising = (quantities - quantities.min(axis=0)) / np.ptp(quantities, axis=0)
    return np.column_stack([rising, 1 - rising])


def _members(study):
    """Indicators of all classes."""
    return np.column_stack([1 - study.coded.sum(axis=1), study.coded])


def _compared(effects, study):
    """Effects as every test reports them, and their standard errors."""
    if len(effects.mean) == 1:
        return effects.mean[0], effects.deviation[0]
    # effects are differences from the class of reference, whose own is 0
    means = np.concatenate([np.zeros_like(effects.mean[:1]), effects.mean])
    return study.compare(means), np.full(effects.p_value.shape, np.nan)


def _statistic(p_value, effect, n_effects):
    """The statistic that has the p-value."""
    p_value = np.maximum(p_value, SMALLEST)
    if n_effects == 1:
        return np.sign(effect) * norm.isf(p_value / 2)
    return chi2.isf(p_value, n_effects) / n_effects


@dataclass(frozen=True)
class _Report:
    """What the fit found, to be said and kept."""

    fit: object
    deviation: dict
    extent: tuple
    residual: float
    factor_r2: np.ndarray
    factor_p: np.ndarray
    shifted: float

    def attributes(self):
        """In plain numbers, for ``attrs``."""
        return {
            "n_factors": self.fit.n_factors,
            "converged": bool(self.fit.converged),
            "evidence": float(self.fit.history[-1, 0]),
            "deviation": {label: float(np.sqrt(value)) for label, value in self.deviation.items()},
            "factor_r2": [float(share) for share in self.factor_r2],
            "shifted_genes": self.shifted,
        }

    def warn(self):
        """Say what makes the result weaker than it could be."""
        near, far = self.extent
        if near > FITS_NONE * far and near > VISIBLE * self.residual:
            found = ", ".join(f"{label}: {np.sqrt(value):.3g}" for label, value in self.deviation.items())
            warn(
                f"The reference describes none of the groups: profiles deviate from it in all of them (root "
                f"mean square, {found}). Effects are then determined from the difference between the groups "
                f"alone. p-values remain valid, but fewer changes are found. Take profiles of one of the "
                f"groups, or correct the reference for its platform."
            )
        associated = np.flatnonzero(self.factor_p < ASSOCIATED / max(len(self.factor_p), 1))
        if len(associated):
            shares = [f"{self.factor_r2[m]:.2f}" for m in associated]
            warn(
                f"{len(associated)} hidden factor(s) are associated with the phenotype or a covariate (R² "
                f"{listing(shares)}): something else differs between the groups, a batch for instance. What it "
                f"changes is not counted as an effect. If it is known, pass it as a covariate."
            )
        if not self.fit.converged:
            warn("The factor model did not converge: p-values are those of its last step.")


def _report(fit, effects, proportions, study):
    weight = proportions.mean(axis=0)
    # a cell type counts by what it makes up of the samples
    by_sample = deviations_from_reference(fit) ** 2 @ (weight / weight.sum())
    if study.classes is None:
        quantity = study.coded[:, 0]
        deviation = {"least": by_sample[quantity.argmin()], "greatest": by_sample[quantity.argmax()]}
    else:
        found = by_sample @ _members(study) / _members(study).sum(axis=0)
        deviation = {str(label): value for label, value in zip(study.classes, found, strict=True)}
    residual = float(np.mean(proportions**2 @ fit.own + fit.noise) * np.mean(fit.scale**2))
    extent = by_sample.min(), by_sample.max()
    return _Report(fit, deviation, extent, residual, *explained_by_known(fit), float(effects.shifted.sum()))
