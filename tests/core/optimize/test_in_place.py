"""Iterations that are one compiled call each, against those that are made of passes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma.core.optimize import passes
from skenigma.core.optimize.in_place import InPlace
from skenigma.core.optimize.penalties import MaxL2Norm
from skenigma.core.optimize.problem import Problem
from skenigma.core.optimize.solvers import Settings, proximal_gradient
from skenigma.core.optimize.start import Start

N_SAMPLES, N_CELL_TYPES, N_DIMENSIONS = 30, 4, 35


def problem(beta=5.0, start=None, penalty=MaxL2Norm):
    rng = np.random.default_rng(0)
    bulk, reference = (rng.standard_normal((count, N_DIMENSIONS)) for count in (N_SAMPLES, N_CELL_TYPES))
    proportions = rng.dirichlet(np.ones(N_CELL_TYPES), N_SAMPLES)
    proportions[:, -1], proportions[0, 0] = 0.0, 0.0  # an absent cell type; and one in a sample
    return Problem(bulk, reference, proportions, 0.3, penalty(beta), start)


@pytest.fixture(autouse=True)
def _compiled():
    if passes.fastest() is passes:
        pytest.skip("numba is not there, or switched off")


class OtherCaps(MaxL2Norm):
    """A penalty of its own caps, of which the compiled loops know nothing."""

    def caps(self, norms, step):
        return 0.5 * super().caps(norms, step)


class Monitor:
    """Keeps what it is told, and ends the iteration after ``last``; one that never does says so."""

    def __init__(self, last=None):
        self.told, self._last, self.only_watches = [], last, last is None

    def __call__(self, delta):
        self.told.append(delta)
        return len(self.told) == self._last


def run(monkeypatch, problem, settings, *, compiled, monitor=None):
    """A run, and which kind of iterations it took."""
    kinds = []

    def suits(frame, steps):
        kinds.append(before(frame, steps))
        return kinds[-1]

    before = InPlace.suits
    with monkeypatch.context() as patch:
        patch.setattr(InPlace, "suits", suits)
        if not compiled:
            patch.setattr(passes, "fastest", lambda: passes)
        found = proximal_gradient(problem, settings, monitor or Monitor())
    return found, kinds == [True]


@pytest.mark.parametrize("size", [None, 5.0])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"beta": 0.0},
        {"start": Start(0.0)},
        {"start": Start(0.5, np.random.default_rng(1).standard_normal((N_CELL_TYPES, N_DIMENSIONS)))},
    ],
    ids=["bulk", "no penalty", "zero", "profiles"],
)
def test_the_same_as_by_passes(monkeypatch, given, size):
    settings = Settings(0.5, 1e-7, 15, size)
    found, in_place = run(monkeypatch, problem(**given), settings, compiled=True)
    expected, by_passes = run(monkeypatch, problem(**given), settings, compiled=False)
    assert in_place
    assert not by_passes
    (frame, trajectory, progress, losses, norms), (other, path, steps, known, sizes) = found, expected
    # roundings of 15 iterations, in each of which sums of 140 terms are added up in another order; a rescaled
    # gradient may be small, which makes its rounding large
    close = {"rtol": 1e-10, "atol": 1e-10}
    assert_allclose(frame.parts.all("held")[0][1].rows, other.parts.all("held")[0][1].rows, **close)
    for name in ("factors", "shifts", "caps", "vectors"):
        assert_allclose(getattr(trajectory, name), getattr(path, name), err_msg=name, **close)
    assert_allclose(progress.delta, steps.delta, **close)
    assert_allclose(losses.values, known.values, **close)
    assert_allclose(norms, sizes, **close)
    assert progress.converged == steps.converged
    assert len(norms) > 3  # there was something to compare


def test_the_update_of_the_last_is_not_applied(monkeypatch):
    posed = problem()
    (frame, *_), in_place = run(monkeypatch, posed, Settings(0.5, 0.0, 1), compiled=True)
    assert in_place
    expression = frame.part.expression
    assert_array_equal(expression.inside, np.repeat(posed.bulk[:, None], N_CELL_TYPES, axis=1))


def test_a_gradient_of_rounding_is_zero(monkeypatch):
    """Mixed from the bulk itself there is no residual to rescale."""
    posed = problem()
    posed.proportions[0] = 1 / N_CELL_TYPES
    posed.proportions[:] /= posed.proportions.sum(axis=1, keepdims=True)
    (_, trajectory, *_, norms), in_place = run(monkeypatch, posed, Settings(0.5, 0.0, 3, 5.0), compiled=True)
    assert in_place
    assert 0 < norms[0][0] < 1e-12 < norms[1][0]
    assert trajectory.factors[0] == 0 < trajectory.factors[1]


@pytest.mark.parametrize("together", [1, 4, 100])
@pytest.mark.parametrize("ended", ["converged", "at the last", "told to"])
def test_several_together(monkeypatch, together, ended):
    """However many are made in a call, a run ends after the same one and in the same state."""
    settings = Settings(0.5, 1e-3, 10 if ended == "at the last" else 1000, 5.0)
    last = 10 if ended == "told to" else None
    known, _ = run(monkeypatch, problem(), settings, compiled=False, monitor=Monitor(last))
    rows = known[0].part.expression.rows
    monkeypatch.setattr("skenigma.core.optimize.in_place.TOGETHER", together * rows.size)
    monitor = Monitor(last)
    (frame, trajectory, progress, losses, norms), in_place = run(
        monkeypatch, problem(), settings, compiled=True, monitor=monitor
    )
    assert in_place
    assert len(monitor.told) == len(progress.delta) == len(known[2].delta) == len(losses.values)
    assert progress.converged == known[2].converged == (ended == "converged")
    assert_array_equal(monitor.told, progress.delta)
    assert len(trajectory.factors) == len(norms) == len(monitor.told) - 1
    # roundings of some tens of iterations, as above
    assert_allclose(frame.part.expression.rows, rows, rtol=1e-9, atol=1e-9)
    assert_allclose(losses.values, known[3].values, rtol=1e-9)


def test_divergence_is_told(monkeypatch):
    with pytest.raises(FloatingPointError, match=r"the change (became infinite|kept growing)"):
        run(monkeypatch, problem(0.0), Settings(1e3, 1e-7, 1000), compiled=True)


def test_short_steps_keep_their_digits(monkeypatch):
    """Changes far below the square root of a rounding of the squared norms, which a subtraction would not tell."""
    (_, _, progress, *_), _ = run(monkeypatch, problem(), Settings(0.9, 1e-24, 2000), compiled=True)
    assert progress.converged
    last = progress.delta[-10:].max(axis=1)
    assert np.all(last > 0)
    assert np.all(np.diff(last) < 0)


def test_who_does_not_suit(monkeypatch):
    """Another penalty's caps are its own."""
    settings = Settings(0.5, 1e-4, 20)
    (*_, norms), in_place = run(monkeypatch, problem(penalty=OtherCaps), settings, compiled=True)
    (*_, known), _ = run(monkeypatch, problem(penalty=OtherCaps), settings, compiled=False)
    assert not in_place
    assert_allclose(norms, known, rtol=1e-10)
