"""From figures to sentences: every rule at both sides of its threshold."""

import numpy as np
import pandas as pd
import pytest

from skenigma.report._contents import Contents, Findings, Groups, flag_samples
from skenigma.report._expression import Expression
from skenigma.report._rules import BAD, CARE, GOOD, OPEN, verdict
from skenigma.report._verdict import headline

TYPES = ["B", "T"]
SAMPLES = [f"s{number}" for number in range(10)]


def contents(level=1.0, follows=(0.5, 0.5), alike=0.5, variation=1.0, reliability=None, **more):
    """A run of a posterior in which nothing is wrong but what is asked for."""
    proportions = pd.DataFrame({"B": np.linspace(0.2, 0.4, 10)}, SAMPLES)
    proportions["T"] = 1 - proportions.B
    expression = Expression(
        TYPES,
        ["g1", "g2"],
        np.ones((2, 2)),
        level=None if level is None else pd.Series(level, SAMPLES),
        follows=pd.DataFrame(
            {"bulk": follows, "other types": [alike] * 2, "variation": [variation] * 2},
            pd.Index(TYPES, name="cell_type"),
        ),
        reliability=reliability,
    )
    quality = flag_samples(pd.DataFrame({"r2": 0.8, "correlation": np.linspace(0.89, 0.91, 10)}, SAMPLES))
    given = {"expression": expression, "quality": quality, "model": "EmpiricalBayesDeconvolver", **more}
    return Contents(proportions=proportions, **given)


def states(found, topic):
    return [statement.state for statement in verdict(found) if statement.topic == topic]


@pytest.mark.parametrize(
    ("level", "state"),
    [
        (1.0, GOOD),
        (0.81, GOOD),
        (1.24, GOOD),
        (0.79, CARE),
        (1.26, CARE),
        (0.51, CARE),
        (0.49, BAD),
        (2.1, BAD),
        (0.0003, BAD),
        (None, OPEN),
    ],
)
def test_level(level, state):
    found = contents(level)
    assert states(found, "Level of the expression") == [state]
    if state == BAD:
        assert headline(found, verdict(found))[0] == BAD


def test_level_of_next_to_nothing_is_called_that():
    text = next(s.text for s in verdict(contents(0.0003)) if s.topic == "Level of the expression")
    assert "0.03% of the bulk" in text
    assert "next to nothing" in text


def test_level_of_single_samples():
    level = np.ones(10)
    level[3] = 0.1
    (statement,) = [s for s in verdict(contents(level)) if s.topic == "Level of the expression"]
    assert statement.state == CARE
    assert "in s3 it is 10%" in statement.text


@pytest.mark.parametrize(("converged", "state"), [(None, GOOD), (True, GOOD), (False, BAD)])
def test_convergence(converged, state):
    found = contents(converged=converged)
    assert states(found, "Convergence") == [state]
    assert (headline(found, verdict(found))[0] == BAD) == (converged is False)


def test_converged_does_not_outweigh_the_level():
    found = contents(0.001, converged=True)
    state, sentence = headline(found, verdict(found))
    assert state == BAD
    assert "Do not read the expression of this run as amounts" in sentence


@pytest.mark.parametrize(
    ("flagged", "state", "word"), [(0, GOOD, "None of 10"), (1, CARE, "s0"), (3, CARE, "reference")]
)
def test_samples(flagged, state, word):
    quality = pd.DataFrame(
        {"r2": 0.8, "correlation": 0.9, "flag": ["poor fit"] * flagged + [""] * (10 - flagged)}, SAMPLES
    )
    (statement,) = [s for s in verdict(contents(quality=quality)) if s.topic == "Samples"]
    assert statement.state == state
    assert word in statement.text + statement.advice


def test_samples_that_are_no_mixtures_at_all():
    quality = pd.DataFrame({"r2": -0.1, "correlation": 0.1, "flag": "worse than a constant"}, SAMPLES)
    found = contents(quality=quality)
    assert states(found, "Samples") == [BAD]
    assert "does not describe these samples" in headline(found, verdict(found))[1]


@pytest.mark.parametrize(
    ("figures", "state", "word"),
    [
        ({}, GOOD, "at 0.50, by cell type"),
        ({"follows": (0.4, 0.6)}, GOOD, "at 0.40 to 0.60"),
        ({"follows": (0.96, 0.5)}, CARE, "In B the estimate of the median gene follows the bulk"),
        ({"alike": 0.99}, CARE, "rise and fall together in all cell types (correlation over samples 0.99"),
        ({"variation": 0.05}, CARE, "it is one profile for all samples"),
    ],
)
def test_baselines(figures, state, word):
    found = [s for s in verdict(contents(**figures)) if s.topic == "What the bulk alone would tell"]
    assert [s.state for s in found] == [state]
    assert word in found[0].text


def test_rare_types():
    found = contents()
    assert not states(found, "Rare cell types")
    found.proportions["B"] = 0.005
    assert states(found, "Rare cell types") == [CARE]


def test_reliability():
    assert states(
        contents(reliability=np.array([[0.9, 0.2], [0.1, 0.2]])), "Differences between samples"
    ) == [GOOD]
    assert states(contents(reliability=np.full((2, 2), 0.2)), "Differences between samples") == [CARE]
    assert not states(contents(), "Differences between samples")


def table(p_values, q_values):
    rows = {"cell_type": np.repeat(TYPES, 2), "gene": ["g1", "g2"] * 2, "effect": [1.0, -1.0] * 2}
    return pd.DataFrame(
        {
            **rows,
            "p_value": p_values,
            "q_value": q_values,
            "flag": ["rare" if np.isnan(p) else "" for p in p_values],
        }
    )


@pytest.mark.parametrize(
    ("p_values", "q_values", "state", "word"),
    [
        ([0.001] * 4, [0.01, 0.2, 0.3, 0.4], GOOD, "Genes with q < 0.05: B 1, T 0."),
        ([0.5] * 4, [0.5] * 4, GOOD, "no gene has q < 0.05"),
        ([0.001, 0.1, np.nan, np.nan], [0.01, 0.1, np.nan, np.nan], CARE, "Nothing could be tested in T."),
        ([np.nan] * 4, [np.nan] * 4, BAD, "Nothing could be tested in any cell type."),
    ],
)
def test_nothing_tested_is_told_apart_from_nothing_found(p_values, q_values, state, word):
    (statement,) = [
        s
        for s in verdict(contents(test=Findings(table(p_values, q_values))))
        if s.topic == "Genes that differ"
    ]
    assert statement.state == state
    assert word in statement.text


def test_small_groups():
    values = pd.Series(["a"] * 7 + ["b"] * 3, SAMPLES)
    test = Findings(table([0.1] * 4, [0.1] * 4), contrast="log2(b / a)")
    found = contents(groups=Groups("state", values, ["a", "b"]), test=test)
    (statement,) = [s for s in verdict(found) if s.topic == "Size of the groups"]
    assert "b (3)" in statement.text
    test.contrast = "log2(sick / healthy)"  # which are others
    assert not states(found, "Size of the groups")


def test_a_good_run_is_no_proof():
    found = contents(test=Findings(table([0.001] * 4, [0.01] * 4)))
    state, sentence = headline(found, verdict(found))
    assert state == GOOD
    assert "no proof" in sentence
