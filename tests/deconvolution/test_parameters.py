"""Shared parameters and fitted values stand once: docstrings, constraints and signatures agree, for every model."""

import inspect
import re
import subprocess
import sys

import pytest

from skenigma._parameters import PARAMETERS, documented
from tests.models import MODELS

# in the order of the table, so that every worker of a parallel run collects the same
CLASSES = list(dict.fromkeys(map(type, MODELS.values())))
CLASSES = [cls for cls in CLASSES if cls.__module__.startswith("skenigma")]


def section(cls, name):
    """Names of the entries of a section of a docstring."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.getdoc(cls), flags=re.MULTILINE)
    entries = re.findall(r"^(\w+(?:, \w+)*) : ", parts[parts.index(name) + 1], flags=re.MULTILINE)
    return [entry for group in entries for entry in group.split(", ")]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_parameter_is_documented_and_constrained(cls):
    signature = list(inspect.signature(cls).parameters)
    assert section(cls, "Parameters") == signature
    assert set(cls._parameter_constraints) == set(signature)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_placeholder_is_left(cls):
    methods = [method for _, method in inspect.getmembers(cls, inspect.isfunction)]
    for thing in (cls, *methods):
        assert not re.search(r"^ *\{\w+\}$", inspect.getdoc(thing) or "", flags=re.MULTILINE)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_defaults_in_docstrings_are_those_of_the_signature(cls):
    text = inspect.getdoc(cls)
    for name, parameter in inspect.signature(cls).parameters.items():
        if name in PARAMETERS and name != "verbose":
            shown = f'"{parameter.default}"' if isinstance(parameter.default, str) else str(parameter.default)
            stated = re.search(rf"^{name} : .*default=(.*)$", text, flags=re.MULTILINE)[1]
            assert stated.replace("1e-3", "0.001") == shown


@documented
class Example:
    r"""Example with \frac{a}{b}.

    Parameters
    ----------
    {reference}
    {common}
    positive : bool, default=True
        Its own text.
    """

    def __init__(self, reference=None, *, n_components=5, positive=True):
        pass


def test_own_entries_and_formulas_stay():
    text = inspect.getdoc(Example)
    assert r"\frac{a}{b}" in text
    assert section(Example, "Parameters") == ["reference", "n_components", "positive"]
    assert "n_components : int, default=5\n" in text
    assert "Its own text." in text


@pytest.mark.slow
def test_works_where_python_drops_docstrings():
    code = "import skenigma; skenigma.L2MaxDeconvolver(); print(skenigma.L2MaxDeconvolver.__doc__)"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
