"""An iteration over samples in several partitions: the same numbers, however they are cut and called."""

from dataclasses import replace

import numpy as np
import pytest

from skenigma.cohort import lazy_matrix
from skenigma.core.blocks import RowSource
from skenigma.core.optimize import frame, part, passes
from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.part import ASKING, Part
from skenigma.core.optimize.partitions import Serial, Threads, cut, in_one_piece, in_threads, stretches, total
from skenigma.core.optimize.penalties import MaxL2Norm
from skenigma.core.optimize.problem import Problem
from skenigma.core.optimize.solvers import Settings, solve_framed
from skenigma.core.optimize.start import Start
from tests.core.optimize.cohorts import assert_same, draw

COHORT = draw(170, 400, 5)
SETTINGS = Settings(parameter=1.0, epsilon=0.0, max_iter=40)


def fit(settings, X=None):
    bulk, R, theta = COHORT
    basis = SpanBasis(bulk if X is None else X, R, compress=False)
    basis.by_rows = True
    problem = Problem(basis.samples, R, theta, 0.1, MaxL2Norm(50.0))
    return solve_framed(problem, basis, settings, lambda delta: False)


@pytest.fixture(scope="module", params=[None, 50.0], ids=["plain", "renormalised"])
def in_memory(request):
    settings = replace(SETTINGS, renorm_size=request.param)
    return settings, fit(settings)


def assert_same_fit(found, expected):
    bulk = COHORT[0]
    assert_same(found.state(bulk).expand(), expected.state(bulk).expand(), 1e-12)
    np.testing.assert_allclose(found.loss[1:], expected.loss[1:], rtol=1e-11)
    np.testing.assert_allclose(found.gradient_norm[1:], expected.gradient_norm[1:], rtol=1e-10)
    # far below the first change, what rounding leaves decides
    np.testing.assert_allclose(found.delta, expected.delta, rtol=1e-8, atol=1e-20 * expected.delta[0].max())
    replayed = found.fitted_map().replay(bulk, COHORT[2]).expand()
    assert_same(replayed, expected.state(bulk).expand(), 1e-10)


def three_parts(make, rows, proportions, asking=()):
    """Of very different sizes, one after the other."""
    pieces = [slice(0, 1), slice(1, 90), slice(90, 170)]
    return Serial(make, [(cut(rows.values, some), proportions[some]) for some in pieces], asking)


@pytest.mark.parametrize("place", [three_parts, in_threads(4)], ids=["serial", "threads"])
@pytest.mark.parametrize("ahead", [(), (3, 8)], ids=["at once", "ahead"])
def test_partitions_equal_one_piece(in_memory, place, ahead):
    settings, expected = in_memory
    assert_same_fit(fit(replace(settings, place=place, ahead=ahead)), expected)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("ahead", [(), (3, 8)], ids=["at once", "ahead"])
def test_an_expression_that_moves_where_it_is(in_memory, ahead, compiled, monkeypatch):
    """Large ones are not held twice: steps are found for the caps, and found again to be taken."""
    settings, expected = in_memory
    monkeypatch.setattr(part, "TWICE", 0)
    if not compiled:
        monkeypatch.setattr(passes, "fastest", lambda: passes)
    monkeypatch.setattr(frame, "FIRST_REDUCTION", 12)
    for place in (in_one_piece, three_parts):
        assert_same_fit(fit(replace(settings, place=place, ahead=ahead)), expected)


def test_an_expression_that_outgrows_being_held_twice(in_memory, monkeypatch):
    settings, expected = in_memory
    monkeypatch.setattr(part, "TWICE", 170 * 6 * 20)
    assert_same_fit(fit(settings), expected)


def test_what_is_handed_on_has_no_room_to_grow():
    bulk, R, theta = COHORT
    found = frame.Frame(bulk, R, theta, Start())
    _, outside = found.look()
    found.widen(outside, 1.0, 1.0)
    rows = found.part.expression.rows
    assert rows.base.size > rows.size
    expected = rows.copy()
    del rows
    ((_, expression),) = found.parts.all("held")
    np.testing.assert_array_equal(expression.rows, expected)
    assert expression.rows.base is None or expression.rows.base.size == expression.rows.size


def test_the_longest_of_all_parts_are_told():
    bulk, R, theta = COHORT
    found = frame.Frame(RowSource(bulk), R, theta, Start(), place=three_parts)
    look, _ = found.look()
    norms = found.step(0.5, np.zeros_like(look.offset))
    _, square, longest = found.cut(2 * norms.max(axis=0))
    np.testing.assert_allclose(longest, norms.max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(square, np.sum(norms**2), rtol=1e-12)


@pytest.mark.parametrize("renorm_size", [None, 50.0])
def test_frames_that_grow_and_are_reduced(monkeypatch, renorm_size):
    monkeypatch.setattr(frame, "FIRST_REDUCTION", 12)
    settings = replace(SETTINGS, renorm_size=renorm_size)
    expected = fit(settings)
    assert_same_fit(fit(replace(settings, place=three_parts, ahead=(2, 5))), expected)


def test_a_frame_that_is_the_whole_space_has_nothing_to_look_ahead_for(monkeypatch):
    monkeypatch.setattr(frame, "WHOLE", 400)
    settings = replace(SETTINGS, ahead=(3, 8))
    assert_same_fit(fit(replace(settings, place=three_parts)), fit(SETTINGS))


def test_looking_ahead_saves_readings(in_memory):
    """Every time that directions join takes two readings."""
    settings, _ = in_memory
    readings = []
    for ahead in ((), (10, 30)):
        matrix = lazy_matrix(COHORT[0], block_bytes=8 * 400 * 50)
        fit(replace(settings, ahead=ahead, known=COHORT[0].mean(axis=0)[None]), matrix)
        readings.append(round(matrix.readings))
    assert 2 * readings[1] < readings[0]


def test_a_known_mean_leaves_the_first_step_nothing_outside():
    bulk, R, theta = COHORT
    known = frame.Frame(bulk, R, theta, Start(), known=bulk.mean(axis=0)[None])
    _, outside = known.look()
    assert outside.length(0.0) < 1e-12 * np.linalg.norm(bulk.mean(axis=0))
    _, outside = frame.Frame(bulk, R, theta, Start()).look()
    assert outside.length(0.0) > 0.01 * np.linalg.norm(bulk.mean(axis=0))


def test_methods_that_ask_change_nothing():
    """One that is made again need not follow them."""
    bulk, R, theta = COHORT
    found = frame.Frame(bulk, R, theta, Start())
    part = found.part
    found.look()
    part.save()
    arguments = {
        "outside_of": (part.weights,),
        "triangle": (2,),
        "combine_ahead": (np.ones((2, 5)),),
    }
    before = {name: np.copy(value) for name, value in vars(part).items() if isinstance(value, np.ndarray)}
    rows = part.expression.rows.copy()
    for name in ASKING:
        getattr(part, name)(*arguments.get(name, ()))
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(part, name), value)
    np.testing.assert_array_equal(part.expression.rows, rows)
    assert set(ASKING) <= set(vars(Part))


def test_stretches_are_of_whole_blocks():
    matrix = lazy_matrix(COHORT[0], block_bytes=8 * 400 * 50)  # 50, 50, 50 and 20 rows
    assert stretches(matrix, 2) == [slice(0, 100), slice(100, 170)]
    assert len(stretches(matrix, 9)) == 4
    assert stretches(COHORT[0], 2) == [slice(0, 85), slice(85, 170)]
    stretch = cut(matrix, slice(100, 170))
    assert matrix.readings == 0
    np.testing.assert_array_equal(stretch[:], COHORT[0][100:])


class Number:
    def __init__(self, value):
        self.value = value

    def plus(self, other):
        return self.value + other, np.array([self.value])


@pytest.mark.parametrize("executor", [Serial, Threads])
def test_executors_answer_in_the_order_of_the_sources(executor):
    parts = executor(Number, [3, 1, 2])
    assert [value for value, _ in parts.all("plus", 10)] == [13, 11, 12]
    value, array = total(parts.all("plus", 10))
    assert value == 36
    assert array.tolist() == [6]
    parts.close()
    assert parts.parts == []


def test_all_samples_may_be_one_partition():
    executor = in_one_piece(lambda source: source, "rows", "proportions")
    assert executor.parts == [("rows", "proportions")]


@pytest.mark.parametrize("place", [three_parts, in_threads(4)], ids=["serial", "threads"])
def test_a_run_in_the_frame_of_the_one_before(place):
    """It starts anew there, has the same result, and reads nothing: the first has looked ahead for it."""
    bulk, R, theta = COHORT
    matrix = lazy_matrix(bulk, block_bytes=8 * 400 * 50)
    problem = Problem(matrix, R, theta, 0.1, MaxL2Norm(50.0))
    settings = replace(SETTINGS, renorm_size=50.0, known=bulk.mean(axis=0)[None], place=place, ahead=(10, 60))
    first = fit(replace(settings, renorm_size=None, followed_by=lambda norms: (problem, settings)), matrix)
    before = matrix.readings
    found = fit(replace(settings, frame=first.frame), matrix)
    assert matrix.readings == before
    assert_same_fit(found, fit(replace(SETTINGS, renorm_size=50.0)))
