"""Importing the package costs next to nothing, and every public name is there all the same."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import skenigma

HEAVY = ("scipy", "scipy.stats", "sklearn", "pandas", "matplotlib", "anndata", "numba")
LAZY = ("skenigma", "skenigma.io")


def loaded_by(code):
    """Which of the heavy packages a fresh interpreter has loaded after some code."""
    check = f"import sys; print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stderr.strip())


@pytest.mark.parametrize(
    "code",
    [
        "import skenigma",
        "import skenigma.io, skenigma.cli",
        "from skenigma.cli import main\nmain(['--help'])",
        "from skenigma.cli import main\nmain(['--version'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_used(code):
    assert loaded_by(code) == []


@pytest.mark.slow
def test_what_is_used_is_loaded():
    assert "sklearn" in loaded_by("import skenigma\nskenigma.L2MaxDeconvolver")


@pytest.mark.parametrize("name", LAZY)
def test_public_names_are_there(name):
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for public in package.__all__:
        assert getattr(package, public) is getattr(package, public)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'no_such_name'"):
        package.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", LAZY)
def test_type_checkers_see_the_same_names(name):
    """What is imported for type checkers is what is imported when it is used."""
    package = importlib.import_module(name)
    tree = ast.parse(pathlib.Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(seen) == set(package.__all__) - {"__version__"}
    for public, module in seen.items():
        assert getattr(importlib.import_module(f"{name}.{module}"), public) is getattr(package, public)


def test_submodules_are_attributes():
    folder = pathlib.Path(skenigma.__file__).parent
    public = {path.stem for path in folder.glob("[a-z]*.py")} | {
        path.parent.name for path in folder.glob("[a-z]*/__init__.py")
    }
    for name in public - {"core", "checks"}:
        assert getattr(skenigma, name) is importlib.import_module(f"skenigma.{name}")
    assert public - {"core", "checks"} <= set(dir(skenigma))
