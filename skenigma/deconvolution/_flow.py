"""The one flow of every estimator that stands on a reference.

Fit: validate, align genes, proportions, preprocess, compress, solve, expand, attributes. Transform replays
the fitted trajectory for each row on its own.
"""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from .._transformers import ProportionsTransformer
from ..checks.scales import SCALES
from ..checks.validation import (
    check_selection,
    fit_context,
    limit_blas_threads,
    listing,
    row_names,
)
from ..checks.warning import warn
from ..core.blocks import row_blocks
from ..core.optimize.basis import SpanBasis
from ..core.optimize.mixture import lipschitz_constant
from ..core.optimize.registry import find_solver
from ..core.optimize.solvers import Settings
from ..core.optimize.splitting import Problem
from ..core.optimize.states import ALL, objective
from ..normalization import apply_normalization, fit_normalization
from ._callbacks import CallbackSupportMixin, iteration_monitor

# A gradient counts as zero up to this multiple of the rounding error of the proportions' type.
ROUNDING_MARGIN = 128

# Numbers up to which threads of the BLAS cost more than they give. Of a cohort, in an iteration: its matrices are
# small and many, and where other work runs, waiting for a thread takes longer than the work. Of a result, in a whole
# fit: the threads of a product spin for a while after it, and where two share a core they slow down what follows.
SMALL_PROBLEM, SMALL_RESULT = 2**19, 2**24


@dataclass(frozen=True)
class PreparedCohort:
    """A cohort ready to be solved.

    Attributes
    ----------
    basis : SpanBasis
    bulk : ndarray of shape (n_samples, n_genes)
        On the scale of the model.
    proportions : ndarray of shape (n_samples, n_cell_types)
    """

    basis: SpanBasis
    bulk: np.ndarray
    proportions: np.ndarray


class BaseDeconvolver(CallbackSupportMixin, ProportionsTransformer):
    """Fit and transform of every model of cell-type-specific expression.

    A subclass names its parameters and provides

    - ``_resolve(basis, bulk)``, which sets the fitted values of "auto" parameters,
    - ``_penalty(proportions)``, ``_solver_parameter(proportions)``, ``_tolerance(bulk)``, ``_trace_weights()``,
    - ``_default_proportion_estimator()``.
    """

    # fitted attributes that not every configuration sets: a refit must not keep old ones
    _optional_attributes = (
        "cse_",
        "cse_normalized_",
        "gradient_norm_",
        "renorm_size_",
        "tao_k_",
        "gamma_",
        "_normalization",
    )

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, proportions=None):
        """Estimate the cell-type-specific expression of a cohort.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, samples as rows.
        y : Ignored
            Present for API consistency; in a Pipeline it is the phenotype.
        proportions : array-like or DataFrame of shape (n_samples, n_cell_types), default=None
            Known proportions, rows summing to 1 (up to 0.05, then used as given). None estimates them
            with ``proportion_estimator``.

        Returns
        -------
        self : object
            Fitted estimator.
        """
        bulk = self._fit_genes(X, min_samples=2)
        return self._calmly(self._fit_aligned, bulk)(X, bulk, proportions)

    def _fit_aligned(self, X, bulk, proportions):
        """The rest of a fit, on a bulk of the genes in use."""
        return self._fit_prepared(X, self._prepare_cohort(X, bulk, proportions))

    def _calmly(self, function, bulk):
        """``function`` on one thread of the BLAS if the expression of ``bulk`` is small."""
        return _calm(function, bulk.size * len(self.cell_types_), SMALL_RESULT)

    def _fit_prepared(self, X, cohort):
        """The rest of a fit, on a prepared cohort."""
        for name in self._optional_attributes:
            self.__dict__.pop(name, None)
        problem, settings = self._problem(cohort)
        solution = self._solve(X, problem, cohort.basis, settings)
        self._store(solution)
        self._judge()
        self._keep_expression(solution, cohort.bulk)
        return self

    def _prepare_cohort(self, X, bulk, proportions):
        """All of a fit that does not depend on alpha, beta and the solver: many of these can follow."""
        self._name_axes(X)
        proportions = self._fit_proportions(X, bulk, proportions)
        self.proportions_ = proportions.astype(bulk.dtype, copy=False)
        self._absent = self._find_absent(proportions)
        self.positive_ = self._resolve_positive(bulk)
        model_bulk, model_reference = self._to_model_scale(X, bulk)
        return PreparedCohort(SpanBasis(model_bulk, model_reference), model_bulk, proportions)

    def _problem(self, cohort):
        """The problem of a prepared cohort, and the settings of its solver."""
        self._resolve(cohort.basis, cohort.bulk)
        self._fitted_penalty = self._penalty(cohort.proportions)
        theta = cohort.proportions.astype(np.float64, copy=False)
        coordinates = cohort.basis.bulk, cohort.basis.reference
        problem = Problem(*coordinates, theta, self.alpha, self._fitted_penalty)
        return problem, self._settings(cohort.bulk, cohort.proportions)

    def fit_transform(self, X, y=None, *, proportions=None):
        """Fit to a cohort and return its expression, flattened; equal to ``fit`` and then ``transform``.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, samples as rows.
        y : Ignored
            Present for API consistency.
        proportions : array-like or DataFrame of shape (n_samples, n_cell_types), default=None
            Known proportions, see :meth:`fit`.

        Returns
        -------
        cse : ndarray of shape (n_samples, n_cell_types * n_genes)
            Columns are "cell type:gene", the cell type slowest; of ``output_cell_types`` only, if given. A view of
            ``cse_`` or ``cse_normalized_`` where it is the whole of it: copy it before you write into it.
        """
        self.fit(X, y, proportions=proportions)
        cse = self._output(self._output_types)
        return cse.reshape(len(cse), -1)

    def transform(self, X, *, proportions=None):
        """Cell-type-specific expression of any samples, each mapped on its own as the cohort was.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, with the genes of the fit.
        proportions : array-like or DataFrame of shape (n_samples, n_cell_types), default=None
            Known proportions, see :meth:`fit`.

        Returns
        -------
        cse : ndarray of shape (n_samples, n_cell_types * n_genes)
            Columns are "cell type:gene", the cell type slowest; of ``output_cell_types`` only, if given.
        """
        bulk = self._new_bulk(X)
        return self._calmly(self._transform_aligned, bulk)(X, bulk, proportions)

    def _transform_aligned(self, X, bulk, proportions):
        """The rest of ``transform``, on a bulk of the genes of the fit."""
        proportions = self._new_proportions(X, bulk, proportions)
        model_bulk, _ = self._to_model_scale(X, bulk)
        cse = self._expand(self._replay(model_bulk, proportions), cell_types=self._output_types)
        cse = self._normalize(cse, proportions, self._output_types)
        return cse.reshape(len(cse), -1)

    def cell_type_expression(self, cell_type, *, samples=None, genes=None):
        """Expression of one cell type in the fitted cohort, or a part of it.

        After a fit with ``materialize=False`` only what is asked for is built.

        Parameters
        ----------
        cell_type : str or int
            Name of a cell type, or its position in ``cell_types_``.
        samples, genes : None, slice, or array-like of str, int or bool, default=None
            Which of them: names, positions or a mask; None is all. Samples have names if X was a DataFrame with
            named rows.

        Returns
        -------
        expression : DataFrame of shape (n_samples, n_genes)
            On the scale of X; before ``normalize``, like ``cse_``.

        Raises
        ------
        ValueError
            If a cell type, sample or gene is not there; the message names the first.
        """
        check_is_fitted(self)
        (position,) = np.arange(len(self.cell_types_))[self._type_positions([cell_type])]
        n_samples, n_genes = len(self.proportions_), len(self.gene_names_)
        rows = check_selection(samples, self._sample_names, n_samples, "sample")
        columns = check_selection(genes, self.gene_names_, n_genes, "gene")
        values = self._expression(rows, slice(position, position + 1), columns)[:, 0]
        index = pd.RangeIndex(n_samples) if self._sample_names is None else pd.Index(self._sample_names)
        return pd.DataFrame(values, index=index[rows], columns=pd.Index(self.gene_names_)[columns])

    def _name_axes(self, X):
        """Names of the samples, and the positions of the cell types that ``transform`` returns."""
        self._sample_names = row_names(X)
        self._output_types = self._type_positions(self.output_cell_types)

    def _type_positions(self, cell_types):
        return check_selection(cell_types, self.cell_types_, len(self.cell_types_), "cell type")

    def _keep_expression(self, solution, model_bulk):
        """Keep the expression of the cohort, as a tensor or in its compact form."""
        if self.materialize:
            self._compact = None
            self.cse_ = self._expand(solution.state(model_bulk))
        else:
            # with samples of its own: X is the caller's
            self._compact = solution.state(np.array(model_bulk))
        if self.normalize is not None:
            by_type = (
                self._expression(cell_types=slice(k, k + 1))[:, 0] for k in range(len(self.cell_types_))
            )
            self._normalization = fit_normalization(self.normalize, by_type, self.proportions_)
            if self.materialize:
                self.cse_normalized_ = self._normalize(np.array(self.cse_), self.proportions_)

    def _output(self, cell_types=ALL):
        """Expression of the cohort in these cell types as ``transform`` returns it, normalised if asked for."""
        if self.normalize is not None and self._compact is None:
            return self.cse_normalized_[:, cell_types]
        return self._normalize(self._expression(cell_types=cell_types), self.proportions_, cell_types)

    def _expression(self, samples=ALL, cell_types=ALL, genes=ALL):
        """A part of the expression of the cohort."""
        if self._compact is None:
            return self.cse_[samples][:, cell_types][:, :, genes]
        return self._expand(self._compact, samples, cell_types, genes)

    def score(self, X, y=None, *, proportions=None):
        """Minus the model's objective per entry of X, on any samples: larger is better.

        The objective depends on alpha, beta and preprocess, not on how it is minimised: compare scores
        across solver, tao_k, renorm_size, epsilon and max_iter only.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_genes)
            Bulk expression, with the genes of the fit.
        y : Ignored
            Present for API consistency.
        proportions : array-like or DataFrame of shape (n_samples, n_cell_types), default=None
            Known proportions, see :meth:`fit`.

        Returns
        -------
        score : float
            Minus F over the number of entries of X.
        """
        bulk = self._new_bulk(X)
        proportions = self._new_proportions(X, bulk, proportions)
        model_bulk, reference = self._to_model_scale(X, bulk)
        state = self._calmly(self._replay, bulk)(model_bulk, proportions)
        return -objective(state, reference, self.alpha, self._fitted_penalty) / bulk.size

    def _replay(self, bulk, proportions):
        return self._fitted_map.replay(bulk, proportions.astype(np.float64, copy=False))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of ``transform``: "cell type:gene", the cell type slowest.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Gene names; only used to check that they are those of the fit.

        Returns
        -------
        names : ndarray of str
            One name per column.
        """
        genes = self._genes_out(input_features)
        cell_types = self.cell_types_[self._output_types]
        return np.array([f"{kind}:{gene}" for kind in cell_types for gene in genes], dtype=object)

    def _find_absent(self, proportions):
        absent = ~np.any(proportions > 0, axis=0)
        if absent.any():
            warn(
                f"The proportion of {listing(self.cell_types_[absent])} is 0 in every sample: the bulk holds no "
                f"information on it, and its expression is the reference profile.",
            )
        return absent

    def _resolve_positive(self, bulk):
        if self.positive == "auto":
            return bool(bulk.min() >= 0 and self.reference_.min() >= 0)
        return bool(self.positive)

    def _to_model_scale(self, X, bulk):
        """Bulk and reference on the scale on which the model is fitted."""
        scale = SCALES[self.preprocess]
        return (
            scale.apply(bulk, "X", row_names(X), self.gene_names_),
            scale.apply(self.reference_, "reference", self.cell_types_, self.gene_names_),
        )

    def _expand(self, state, samples=ALL, cell_types=ALL, genes=ALL):
        """Expression on the scale of X: clipped, transformed back, absent cell types filled in."""
        cse = state.expand(samples, cell_types, genes)
        backward = SCALES[self.preprocess].backward
        for rows in row_blocks(cse):
            block = cse[rows]
            if self.positive_:
                np.maximum(block, 0, out=block)
            backward(block)
        absent = self._absent[cell_types]
        cse[:, absent] = self.reference_[cell_types][absent][:, genes]
        return cse

    def _normalize(self, cse, proportions, cell_types=ALL):
        """``cse`` of these cell types, normalised in place if that is asked for."""
        if self.normalize is None:
            return cse
        fitted = [self._normalization[k] for k in np.arange(len(self.cell_types_))[cell_types]]
        return apply_normalization(fitted, cse, proportions[:, cell_types])

    def _settings(self, bulk, proportions):
        return Settings(
            parameter=self._solver_parameter(proportions),
            epsilon=self._tolerance(bulk),
            max_iter=self.max_iter,
            resolution=ROUNDING_MARGIN * np.finfo(proportions.dtype).eps,
        )

    def _solve(self, X, problem, basis, settings):
        """Run the solver, after as many runs as ``_prepare`` needs for its settings."""
        report, finish = iteration_monitor(self, X, self.max_iter * self._n_runs())
        trace = _Trace(self.verbose)
        run = partial(self._run, problem, basis)
        settings = self._prepare(settings, lambda first: run(first, lambda loss, delta: report()))
        solution = run(settings, lambda loss, delta: trace.iteration(delta) or report())
        finish()
        trace.end(solution, self._trace_weights())
        return solution

    def _n_runs(self):
        """Number of runs that a fit takes."""
        return 1

    def _prepare(self, settings, run):
        """Settings of the run that counts; ``run(settings)`` makes one before it."""
        return settings

    def _run(self, problem, basis, settings, monitor):
        solve = _calm(find_solver(self.solver, problem.penalty), problem.bulk.size, SMALL_PROBLEM)
        try:
            return solve(problem, basis, settings, monitor)
        except FloatingPointError as error:
            raise ValueError(
                f"{type(self).__name__} diverged: {error}. {self._divergence_remedy()}"
            ) from error

    def _judge(self):
        """Warn of a fit that went through but cannot be meant."""

    def _automatic_step(self, proportions):
        """Inverse Lipschitz constant of the gradient of the smooth terms."""
        curvature = self._fitted_penalty.curvature
        return float(2.0 / (curvature * lipschitz_constant(proportions, self.alpha)))

    def _store(self, solution):
        self.loss_history_ = solution.loss
        self.delta_history_ = solution.delta
        if solution.gradient_norm is not None:
            self.gradient_norm_ = solution.gradient_norm
        self.n_iter_ = len(solution.loss)
        self.converged_ = solution.converged
        self._fitted_map = solution.fitted_map()
        if not self.converged_:
            warn(
                f"{type(self).__name__} did not converge in {self.n_iter_} iterations: the largest squared change "
                f"of the last was {self.delta_history_[-1].max():.3g}. {self._convergence_remedy()}",
                ConvergenceWarning,
            )


def _calm(function, size, small):
    """``function`` on one thread of the BLAS up to a ``size`` of ``small``."""
    return limit_blas_threads(limits=1)(function) if size <= small else function


class _Trace:
    """The printed trace of a fit, in the form of the published one."""

    def __init__(self, verbose):
        self.verbose = verbose
        self._print("{now} Optimizing cell type specific expression profile...")

    def _print(self, line, **values):
        if self.verbose:
            print(line.format(now=time.ctime(), **values))

    def iteration(self, delta):
        if self.verbose:  # nor are the extremes looked for where nobody reads them
            self._print("Ratio ranges from: {low:.6f} - {high:.6f}", low=delta.min(), high=delta.max())

    def end(self, solution, weights):
        first, last = solution.loss[0], solution.loss[-1]
        self._print("Total delta_loss: {change:.6f}, {now}", change=abs(last @ weights - first @ weights))
        self._print("part1:{loss[0]:.15g} part2:{loss[1]:.15g} part3:{loss[2]:.15g}", loss=last)
        self._print("Done!")
        outcome = "Converge in" if solution.converged else "Not converged in"
        self._print(outcome + " {steps} steps", steps=len(solution.loss))
