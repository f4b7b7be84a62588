"""Models that minimise a squared error with a penalty: what they share, whatever penalty and solver."""

from dataclasses import dataclass

from sklearn.exceptions import ConvergenceWarning

from .._parameters import documented
from ..checks.scales import SCALES
from ..checks.warning import warn
from ..core.optimize.basis import SpanBasis
from ..core.optimize.states import objective
from ._callbacks import iteration_monitor
from ._flow import BaseDeconvolver, Estimate
from ._solving import Trace, solve


@dataclass(frozen=True)
class MinimisedMap:
    """The map of a minimised objective, which can tell its value at any samples.

    Attributes
    ----------
    iteration : object
        Repeats the iterations of the fit, see :mod:`skenigma.core.optimize.solvers`.
    alpha : float
    penalty : object
    """

    iteration: object
    alpha: float
    penalty: object

    def replay(self, bulk, proportions):
        """State of samples, each moved exactly as the fitted cohort was."""
        return self.iteration.replay(bulk, proportions)

    def objective(self, state, reference):
        """Value of the objective at a state."""
        return objective(state, reference, self.alpha, self.penalty)


@documented
class OptimisedDeconvolver(BaseDeconvolver):
    """Base of the models that minimise a squared error with a penalty.

    A subclass provides ``_setting(cohort, basis)``, which returns a :class:`~skenigma.deconvolution._solving.Setting`
    and the fitted values that it found for "auto" parameters, ``_trace_weights()``, which make the printed objective
    of a row of losses, and the sentences of ``_divergence_remedy()`` and ``_convergence_remedy()``.
    """

    # what to turn when proximal steps are too long
    _steps, _safe_if = "tao_k", ""

    def _estimate(self, cohort):
        basis = SpanBasis(cohort.bulk, cohort.reference)
        setting, found = self._setting(cohort, basis)
        report, finish = iteration_monitor(self, cohort.X, self.max_iter * self._n_runs())
        trace = Trace(self.verbose)
        setting, more = self._preliminary(setting, lambda first: self._run(first, basis, cohort, report))
        solution = self._run(setting, basis, cohort, report, trace)
        finish()
        trace.end(solution, self._trace_weights())
        self._warn_unless_converged(solution)
        self._judge(setting, solution)
        return Estimate(
            map=MinimisedMap(solution.fitted_map(), setting.alpha, setting.penalty),
            state=solution.state,
            record={**_histories(solution), **found, **more},
        )

    def _run(self, setting, basis, cohort, report, trace=None):
        """Run the solver once, each iteration reported, and shown by ``trace``."""

        def monitor(loss, delta):
            if trace is not None:
                trace.iteration(delta)
            return report()

        try:
            return solve(setting, basis, cohort.proportions, monitor)
        except FloatingPointError as error:
            raise ValueError(
                f"{type(self).__name__} diverged: {error}. {self._divergence_remedy()}"
            ) from error

    def _n_runs(self):
        """Number of runs that a fit takes."""
        return 1

    def _preliminary(self, setting, run):
        """The setting of the run that counts, and what was found; ``run(setting)`` makes one before it."""
        return setting, {}

    def _judge(self, setting, solution):
        """Warn of a fit that went through but cannot be meant."""

    def _warn_unless_converged(self, solution):
        if not solution.converged:
            warn(
                f"{type(self).__name__} did not converge in {len(solution.loss)} iterations: the largest squared "
                f"change of the last was {solution.delta[-1].max():.3g}. {self._convergence_remedy()}",
                ConvergenceWarning,
            )

    def _divergence_remedy(self):
        if self.solver == "proximal":
            return f"Use a smaller {self._steps} (tao_k='auto' is safe{self._safe_if})."
        return "Use a larger gamma or solver='admm'."

    def _convergence_remedy(self):
        setting = f"a smaller {self._steps}" if self.solver == "proximal" else "another gamma"
        return f"Use a larger beta, {setting}, or a larger max_iter or epsilon."

    def score(self, X, y=None, *, proportions=None):
        """Minus the model's objective per entry of X, on any samples: larger is better.

        The objective depends on alpha, beta and preprocess, not on how it is minimised: compare scores
        across solver, tao_k, renorm_size, epsilon and max_iter only.

        Parameters
        ----------
        {X_new}
        {y}
        {proportions}

        Returns
        -------
        score : float
            Minus F over the number of entries of X.
        """
        bulk = self._new_bulk(X)
        reference = SCALES[self.preprocess].apply(
            self.reference_, "reference", self.cell_types_, self.gene_names_
        )
        with self._few_threads(bulk):
            state, _ = self._predict_state(X, bulk, proportions)
        return -self._outcome.map.objective(state, reference) / bulk.size


def _histories(solution):
    """Fitted values that tell how an iteration went."""
    record = {
        "loss_history_": solution.loss,
        "delta_history_": solution.delta,
        "n_iter_": len(solution.loss),
        "converged_": solution.converged,
    }
    if solution.gradient_norm is not None:
        record["gradient_norm_"] = solution.gradient_norm
    return record
