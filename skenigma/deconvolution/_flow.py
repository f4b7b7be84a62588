"""The one flow of every model: validate → align genes → proportions → scale → ``_estimate`` → expression.

A model is asked one question, ``_estimate(cohort)``. What it is given and answers stands in :mod:`._model`, what a
fitted one tells in :mod:`._output`, and what it makes of new samples in :mod:`._predict`; everything before and after
is here and in :mod:`skenigma.expression`.
"""

import warnings
from dataclasses import replace

import numpy as np

from .._fitted import FITTED
from .._parameters import COMMON, constraints, documented, set_parameters
from ..checks.memory import check_result
from ..checks.names import check_selection, listing, row_names
from ..checks.validation import fit_context
from ..checks.warning import warn
from ..cohort import is_lazy, open_bulk
from ..expression._derived import fit_normalized, materialized, normalized
from ..expression._sources import Conversion
from ..proportions import ProportionEstimator
from ._callbacks import CallbackSupportMixin
from ._level import measure_level, median_level, warn_of_level
from ._model import Cohort, Outcome
from ._predict import ExpressionPredictor, few_threads
from ._rows import replay


@documented
class BaseDeconvolver(CallbackSupportMixin, ExpressionPredictor):
    """Base of every model of cell-type-specific expression.

    A model is a subclass with a method ``_estimate(cohort)``, which takes a :class:`Cohort` and returns an
    :class:`Estimate`. It may have parameters of its own; then it writes out ``__init__`` and adds their constraints
    to ``_parameter_constraints``.

    Parameters
    ----------
    {reference}
    {common}
    """

    _parameter_constraints = constraints(*COMMON)

    def __init__(
        self, reference=None, *, n_components=2, proportion_estimator=None, preprocess=None, positive="auto",
        normalize=None, materialize=True, output_cell_types=None, verbose=0,
    ):  # fmt: skip
        set_parameters(self, locals())

    def _estimate(self, cohort):
        """Fit the model to a cohort: a :class:`Cohort` in, an :class:`Estimate` out."""
        raise NotImplementedError(
            f"{type(self).__name__} is not a model: it has no method _estimate(cohort)."
        )

    def _default_proportion_estimator(self):
        return ProportionEstimator()

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, proportions=None):
        """Estimate the cell-type-specific expression of a cohort.

        Parameters
        ----------
        {X}
        {y}
        {proportions}

        Returns
        -------
        self : object
            Fitted estimator.
        """
        return self._fit(X, proportions)

    def _fit(self, X, proportions, **given):
        """``fit``, by whatever only some models are told of the samples."""
        X = self._opened(X)
        bulk = self._fit_genes(X, min_samples=2)
        self._warn_of_data(X, bulk)
        with few_threads(self, bulk):
            return self._fit_aligned(X, bulk, proportions, **given)

    def _opened(self, X):
        """X, or what reads it by blocks of samples if it is not in memory."""
        return open_bulk(X)

    def _fit_aligned(self, X, bulk, proportions, **given):
        """The rest of a fit, on a bulk of the genes in use."""
        if self.materialize:
            n_tensors = 1 if self.normalize is None else 2
            check_result((len(bulk), *self.reference_.shape), n_tensors * bulk.itemsize)
        cohort, conversion = self._prepare(X, bulk, proportions)
        return self._fit_prepared(replace(cohort, given=given), conversion)

    def _prepare(self, X, bulk, proportions):
        """The cohort on the scale of the model, and the way back."""
        # a name that is not there is refused before anything is computed
        _output_positions(self)
        proportions = self._fit_proportions(X, bulk, proportions)
        self.proportions_ = proportions.astype(bulk.dtype, copy=False)
        absent = self._find_absent(proportions)
        self.positive_ = _is_clipped(self, bulk)
        conversion = Conversion(self.preprocess, self.positive_, absent, self.reference_)
        cohort = Cohort(
            self._to_model_scale(X, bulk),
            self._reference_on_model_scale(),
            proportions,
            self.cell_types_,
            self.gene_names_,
            row_names(X),
            X,
            bulk,
        )
        return cohort, conversion

    def _fit_prepared(self, cohort, conversion):
        """The rest of a fit, on a prepared cohort."""
        estimate = self._estimate(cohort)
        _set_record(self, estimate.record)
        self.expression_, conversion = self._cohort_expression(cohort, estimate, conversion)
        self.__dict__.pop("expression_normalized_", None)
        normalization = None
        if self.normalize is not None:
            normalization = self._fit_normalization()
            found = normalized(self.expression_, normalization)
            self.expression_normalized_ = materialized(found) if self.materialize else found
        output_types = _output_positions(self)
        self._outcome = Outcome(estimate.map, conversion, normalization, output_types, tuple(estimate.record))
        self.level_ = median_level(self.expression_.level)
        warn_of_level(type(self).__name__, self.level_, self._level_remedy())
        return self

    def _fit_normalization(self):
        """One normalisation per cell type."""
        return fit_normalized(self.expression_, self.normalize)

    def _level_remedy(self):
        """What to do where the expression has not the level of the bulk."""
        return "Are bulk and reference on one scale, and the proportions right?"

    def _cohort_expression(self, cohort, estimate, conversion):
        """The expression of the cohort, as a tensor or in its compact form, and the way to the scale of X."""
        make = estimate.state or (lambda bulk: replay(estimate.map, bulk, cohort.proportions, **cohort.given))
        bulk = cohort.bulk
        state = make(bulk)
        if self.materialize and hasattr(state, "deviations") and not is_lazy(bulk):
            # beside the tensor a copy is little, and deviations do not depend on what becomes of X
            bulk = np.array(bulk)
            state = make(bulk)
        described = (self.proportions_, cohort.sample_names, bulk)
        found = self._as_expression(state, conversion, *described, at_once=self.materialize)
        calibrated = self._calibrated(found, cohort, conversion)
        if calibrated is not conversion:
            found = self._as_expression(state, calibrated, *described, at_once=self.materialize)
        found = materialized(found) if self.materialize else found
        return replace(found, level=measure_level(found, cohort.raw)), calibrated

    def _calibrated(self, expression, cohort, conversion):
        """The way to the scale of X once there is an expression to compare with it."""
        return conversion

    def fit_transform(self, X, y=None, *, proportions=None):
        """Fit to a cohort and return its expression, flattened; equal to ``fit`` and then ``transform``.

        Parameters
        ----------
        {X}
        {y}
        {proportions}

        Returns
        -------
        {cse_fitted}
        """
        self.fit(X, y, proportions=proportions)
        return self._fitted_output()

    def _find_absent(self, proportions):
        absent = ~np.any(proportions > 0, axis=0)
        if absent.any():
            warn(
                f"The proportion of {listing(self.cell_types_[absent])} is 0 in every sample: the bulk holds no "
                f"information on it, and its expression is the reference profile.",
            )
        return absent


def _output_positions(model):
    """Where the cell types that ``transform`` returns stand among all."""
    names = model.cell_types_
    return check_selection(model.output_cell_types, names, len(names), "cell type")


def _is_clipped(model, bulk):
    """Whether negative expression becomes 0 in the end."""
    if model.positive == "auto":
        return bool(bulk.min() >= 0 and model.reference_.min() >= 0)
    return bool(model.positive)


def _set_record(model, record):
    """Set the values of this fit, and let go those of one before that this one does not have."""
    for name in getattr(getattr(model, "_outcome", None), "recorded", ()):
        model.__dict__.pop(name, None)
    for name, value in record.items():
        setattr(model, name, value)


def prepare(estimator, X, proportions=None):
    """All of a fit that does not depend on the model, for fits of many settings to one cohort.

    Returns
    -------
    cohort : Cohort
    conversion : Conversion
    genes : ndarray of int, shape (n_genes,)
        Where the genes in use stand in X.
    """
    bulk = estimator._fit_genes(X, min_samples=2)
    genes = estimator._gene_positions
    with warnings.catch_warnings():
        # a cohort made for tuning resembles another one, of which there is the same to warn
        warnings.simplefilter("ignore", UserWarning)
        cohort, conversion = estimator._prepare(X, bulk, proportions)
    return cohort, conversion, np.arange(bulk.shape[1]) if genes is None else genes


def proportion_estimator(model):
    """The estimator of proportions that a fit of ``model`` will use; for a model without one a new one like it."""
    found = model.proportion_estimator
    return model._default_proportion_estimator() if found is None else found


def fitted_map(model):
    """The map of a fitted model, see :class:`Estimate`."""
    return model._outcome.map


def normalized_like_fit(model, expression):
    """Expression of new samples, normalised as that of the fit was; None for a model that does not normalise."""
    return None if model.normalize is None else normalized(expression, model._outcome.normalization)


def share_fit(fitted, other):
    """Let an estimator of the same kind have the fit of another; they share its arrays."""
    held = vars(fitted)  # not what is built whenever it is asked for
    for name in (*FITTED, *fitted._outcome.recorded):
        if name in held:
            setattr(other, name, held[name])
    other._outcome, other._gene_positions = fitted._outcome, fitted._gene_positions
    return other
