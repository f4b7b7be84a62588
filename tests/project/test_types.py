"""Every public function outside estimators says what it takes and gives, in types that a checker can read."""

import importlib
import inspect
import pathlib
import pkgutil

import pytest

import skenigma
from skenigma._docstrings import filled
from skenigma._parameters import documented

# Every package and module that a user imports from; private ones are behind these.
DOORS = sorted(
    f"skenigma.{module.name}"
    for module in pkgutil.iter_modules(skenigma.__path__)
    if not module.name.startswith("_") and module.name not in ("checks", "core")
)


def public_functions(door):
    module = importlib.import_module(door)
    found = ((name, getattr(module, name)) for name in getattr(module, "__all__", ()))
    return [(name, inspect.unwrap(function)) for name, function in found if inspect.isfunction(function)]


def unannotated(function):
    """Parameters without a type, and "return"."""
    signature = inspect.signature(function)
    missing = [name for name, one in signature.parameters.items() if one.annotation is one.empty]
    return missing + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("door", DOORS)
def test_public_functions_have_types(door):
    assert {
        name: unannotated(function) for name, function in public_functions(door) if unannotated(function)
    } == {}


def test_functions_are_found_behind_their_doors():
    """Or nothing is tested."""
    assert {name for name, _ in public_functions("skenigma.metrics")} > {"recovery_score", "concordance"}
    assert unannotated(lambda given: given) == ["given", "return"]


@pytest.mark.parametrize("decorator", [filled, documented])
def test_decorators_have_types(decorator):
    """Or what they decorate has none for a type checker, whatever its own annotations say."""
    assert unannotated(decorator) == []


def test_type_checkers_are_told_that_there_are_types():
    assert (pathlib.Path(skenigma.__file__).parent / "py.typed").is_file()
