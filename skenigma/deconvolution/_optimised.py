"""Models that minimise a squared error with a penalty: what they share, whatever penalty and solver."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._parameters import documented
from ..checks.warning import warn
from ..cohort import is_lazy, open_bulk
from ..core.optimize.registry import SOLVERS
from ..core.optimize.start import Start
from ..core.optimize.states import objective
from ._callbacks import iteration_monitor
from ._flow import BaseDeconvolver
from ._model import Estimate
from ._predict import few_threads
from ._rows import Sums, parts
from ._scores import ScoreOnOwnScale
from ._solving import Setting, Trace, basis_of, pose, solve, solver_parameter, suited
from ._standing import PUBLISHED_SAMPLES, SETTINGS, standing_for
from ._start import has_own_starts, starting_point

# How many times more or fewer samples than in the published cohort are another size.
OTHER_SIZE = 2.0


@dataclass(frozen=True)
class MinimisedMap:
    """The map of a minimised objective, which can tell its value at any samples.

    Attributes
    ----------
    iteration : object
        Repeats the iterations of the fit, see :mod:`skenigma.core.optimize.solvers`.
    alpha : float
    penalty : object
    own_start : OwnStart or None
        What gives every sample a start of its own.
    """

    iteration: object
    alpha: float
    penalty: object
    own_start: object = None

    def replay(self, bulk, proportions, own=None):
        """State of samples, each moved exactly as the fitted cohort was, from their ``own`` start if any."""
        return self.iteration.replay(bulk, proportions, own)

    def objective(self, state, reference):
        """Value of the objective at a state."""
        return objective(state, reference, self.alpha, self.penalty)


@documented
class OptimisedDeconvolver(ScoreOnOwnScale, BaseDeconvolver):
    """Base of the models that minimise a squared error with a penalty.

    A subclass provides

    - ``_penalty_type``, the class of its penalty, if it has one: what it offers decides which solvers read X by rows;
    - ``_posed_penalty(cohort, basis, params)``, its penalty (see :mod:`skenigma.core.optimize.penalties`) and the
      fitted values that it found for "auto" parameters;
    - ``_tolerance(cohort, solver, params)``, when the solver stops, and the fitted values of that;
    - ``_trace_weights()``, which make the printed objective of a row of losses.

    Everything about the solver is what its entry in :data:`skenigma.core.optimize.registry.SOLVERS` says.
    """

    # what decides the length of a step, and when "auto" cannot diverge: for the remedies of solvers
    _steps, _safe_if = "tao_k", ""
    _penalty_type: object = None
    _score_depends_on = ("alpha", "beta", "preprocess", "n_samples_of_settings")
    # how settings depend on the number of samples: arguments of standing_for
    _growth = {"growth": 0.0, "summed": True}  # noqa: RUF012 - never changed

    @property
    def _masked(self):
        """Whether the expression is held at 0 where the bulk is 0."""
        return False

    def _estimate(self, cohort):
        start, own_start = starting_point(self, cohort)
        basis = basis_of(cohort.bulk, cohort.reference, start, self._masked)
        n_samples = len(cohort.bulk)
        first = self._posed_penalty(cohort, basis, self._meant(n_samples))
        basis = suited(basis, self.solver, first[0], start, self._masked, self._n_runs())

        def posed(**changed):
            params = self._meant(n_samples, **changed)
            penalty = self._posed_penalty(cohort, basis, params) if changed else first
            return self._setting(cohort, basis, start, params, *penalty)

        trace = Trace(self.verbose)
        with iteration_monitor(self, cohort.X, self.max_iter * self._n_runs()) as report:
            setting, found = self._chosen(
                posed, lambda first: self._run(first, basis, cohort, report), n_samples
            )
            solution = self._run(setting, basis, cohort, report, trace)
        trace.end(solution, self._trace_weights())
        self._warn_unless_converged(solution, n_samples)
        return Estimate(
            map=MinimisedMap(solution.fitted_map(), setting.alpha, setting.penalty, own_start),
            state=solution.state,
            record={**_histories(solution), **found},
        )

    @property
    def loss_history_(self):
        """Losses of every iteration, a row each; some solvers form them only when they are asked for."""
        if not hasattr(self, "_losses"):
            raise AttributeError(f"This {type(self).__name__} is not fitted: it has no loss_history_ yet.")
        return self._losses.values

    @property
    def _solver(self):
        """What there is to know of the solver."""
        return SOLVERS[self.solver]

    def _meant(self, n_samples, **changed):
        """The settings for a cohort of so many samples."""
        given = {name: getattr(self, name) for name in (*SETTINGS, "solver") if hasattr(self, name)} | changed
        if self.n_samples_of_settings is None:
            return given
        if not self._solver.rescales:
            given["renorm_size"] = None
        return standing_for(self.n_samples_of_settings / n_samples, given, **self._growth)

    def _setting(self, cohort, basis, start, params, penalty, found):
        """What is minimised and how with these settings, and the fitted values that were found for it."""
        alpha = params["alpha"]
        problem = pose(basis, cohort.proportions, alpha, penalty, start, self._masked)
        parameter, of_solver = solver_parameter(self._solver, params, problem, cohort.bulk.shape)
        tolerance, of_stopping = self._tolerance(cohort, self._solver, params)
        setting = Setting(
            alpha, penalty, self.solver, parameter, tolerance, self.max_iter, None, start, self._masked
        )
        if self.n_samples_of_settings is not None:
            translated = {f"{name}_": params[name] for name in ("alpha", "beta", "epsilon")}
            found = {**translated, **found}
        return setting, {**found, **of_solver, **of_stopping}

    def _run(self, setting, basis, cohort, report, trace=None):
        """Run the solver once, each iteration reported, and shown by ``trace``."""

        def monitor(delta):
            if trace is not None:
                trace.iteration(delta)
            return report()

        monitor.only_watches = getattr(report, "only_watches", False)
        try:
            return solve(setting, basis, cohort.proportions, monitor)
        except FloatingPointError as error:
            raise ValueError(
                f"{type(self).__name__} diverged: {error}. {self._remedy(self._solver.if_diverged)}"
            ) from error

    def _opened(self, X):
        opened = super()._opened(X)
        if not is_lazy(opened) or self._reads_rows(self.solver):
            return opened
        if isinstance(X, np.ndarray):  # a memory map is an array as well
            return X
        able = [repr(name) for name in SOLVERS if self._reads_rows(name)]
        remedy = f"Use solver={' or '.join(able)}" if able else "Use L2MaxDeconvolver, without such an init"
        raise ValueError(
            f"solver={self.solver!r} of {type(self).__name__} needs all of X in memory, and this X is read by rows. "
            f"{remedy}, or pass X as an array, if it fits."
        )

    def reads_rows(self):
        """Whether the bulk of a fit may be read by blocks of rows.

        Returns
        -------
        able : bool
            True if the solver and the start can do with blocks.
        """
        return self._reads_rows(self.solver)

    def _reads_rows(self, solver):
        """Whether a solver reads the bulk by blocks of rows."""
        own = Start(own=True) if has_own_starts(self.init) else None
        engine = SOLVERS[solver].engine(self._penalty_type, own, self._masked)
        return engine is not None and engine.by_rows

    def _n_runs(self):
        """Number of runs that a fit takes."""
        return 1

    def _chosen(self, posed, run, n_samples):
        """The setting of the run that counts, and what was found for it.

        ``posed(**changed)`` makes a setting with other parameters, and ``run(setting)`` a run before the one that
        counts.
        """
        return posed()

    def _warn_unless_converged(self, solution, n_samples):
        if not solution.converged:
            warn(
                f"{type(self).__name__} did not converge in {len(solution.delta)} iterations with "
                f"{self._named_settings()}: the largest squared change of the last was "
                f"{solution.delta[-1].max():.3g}. {self._remedy(self._solver.if_slow)}"
                f"{self._size_remedy(n_samples)}",
                ConvergenceWarning,
            )

    def _named_settings(self):
        """The settings, for a message."""
        names = ["solver", "alpha", "beta", self._solver.parameter]
        if self._solver.rescales and hasattr(self, "renorm_size"):
            names.append("renorm_size")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names if name)

    def _size_remedy(self, n_samples):
        """What to do where the number of samples is far from that of the settings; empty if it is not."""
        ratio = n_samples / PUBLISHED_SAMPLES
        if self.n_samples_of_settings is not None or 1 / OTHER_SIZE <= ratio <= OTHER_SIZE:
            return ""
        return (
            f" Published settings are for {PUBLISHED_SAMPLES} samples, and here are {n_samples}: "
            f"n_samples_of_settings={PUBLISHED_SAMPLES} translates them."
        )

    def _level_remedy(self):
        calibrate = "calibrate=True brings every cell type to the total of the bulk, a"
        if self.calibrate or not self.positive_:
            calibrate = "A"
        return (
            f"{calibrate} smaller beta shrinks less, and EmpiricalBayesDeconvolver keeps the level."
            f"{self._size_remedy(len(self.proportions_))}"
        )

    def _prepare(self, X, bulk, proportions):
        cohort, conversion = super()._prepare(X, bulk, proportions)
        if self.calibrate and not conversion.positive:
            raise ValueError(
                "calibrate=True compares totals, which negative values do not have: it needs positive=True, or a "
                "bulk and a reference without negative values."
            )
        return cohort, conversion

    def _calibrated(self, expression, cohort, conversion):
        """Conversion that brings the mean total of every cell type to that of the bulk."""
        self.__dict__.pop("calibration_", None)
        if not self.calibrate:
            return conversion
        totals = sum(values.sum(axis=(0, 2), dtype=np.float64) for _, values in expression.blocks())
        found = np.ones(len(totals))
        target = cohort.raw.sum(dtype=np.float64)
        np.divide(target, totals, out=found, where=(totals > 0) & ~conversion.absent)
        self.calibration_ = found
        return replace(conversion, factors=found)

    def _remedy(self, text):
        return text.format(steps=self._steps, safe=self._safe_if)

    def _predict_state(self, X, bulk, proportions):
        """State of new samples on the scale of the model, and their proportions."""
        fitted = self._outcome.map
        if fitted.own_start is None:
            return super()._predict_state(X, bulk, proportions)
        proportions = self._new_proportions(X, bulk, proportions)
        theta = proportions.astype(np.float64, copy=False)
        own = fitted.own_start.of(self, bulk, proportions)
        return fitted.replay(self._to_model_scale(X, bulk), theta, own), proportions

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
        self._warn_of_incomparable_scores()
        X = open_bulk(X)
        reference = self._reference_on_model_scale()
        if is_lazy(X):
            state, size = Sums(len(X)), len(X) * reference.shape[1]
            for _, *part, _ in parts(self, X, proportions, {}):
                state.add(self._predict_state(*part)[0])
        else:
            bulk = self._new_bulk(X)
            size = bulk.size
            with few_threads(self, bulk):
                state, _ = self._predict_state(X, bulk, proportions)
        return -self._outcome.map.objective(state, reference) / size


def _histories(solution):
    """Fitted values that tell how an iteration went."""
    record = {
        "_losses": solution.losses,
        "delta_history_": solution.delta,
        "n_iter_": len(solution.delta),
        "converged_": solution.converged,
    }
    if solution.gradient_norm is not None:
        record["gradient_norm_"] = solution.gradient_norm
    return record
