"""Imports point down: plotting, command line → estimators → flow → checks → arrays → numpy and scipy."""

import ast
import functools
import pathlib
import sys

import pytest

import skenigma

PACKAGE = pathlib.Path(skenigma.__file__).parent

# A module may import modules of lower rank; equal ranks do not know each other.
RANKS = {
    "skenigma": 10,
    "skenigma.__main__": 10,
    "skenigma.cli": 9,
    "skenigma.report": 8,
    "skenigma.anndata": 7,
    "skenigma.plotting": 7,
    "skenigma.model_selection": 6,
    "skenigma.differential": 5,
    "skenigma.presets": 5,
    "skenigma.batch": 4,
    "skenigma.deconvolution": 4,
    "skenigma.reliability": 4,
    "skenigma.proportions": 3,
    "skenigma._stored": 1.75,
    "skenigma._library_size": 1.25,
    "skenigma.progress": 1.1,
    "skenigma.reference": 2.5,
    "skenigma.datasets": 2,
    "skenigma.io": 1.4,
    "skenigma._transformers": 1.5,
    "skenigma.baselines": 1.5,
    "skenigma.expression": 1.5,
    "skenigma._parameters": 1.25,
    "skenigma._docstrings": 0,
    "skenigma._fitted": 1,
    "skenigma._by_genes": 1.25,
    "skenigma.cohort": 1.25,
    "skenigma.metrics": 1.5,
    "skenigma._dask": 1.15,
    "skenigma.checks": 1,
    "skenigma.normalization": 1,
    "skenigma._pickles": 0.5,
    "skenigma._typing": 0,
    "skenigma._repr": 0,
    "skenigma._version": 0,
    "skenigma.exceptions": 0,
    "skenigma._lazy": 0,
    "skenigma.core": 0,
    "skenigma.core.optimize": 0,
    "skenigma.core.posterior": 0.5,
    "skenigma.core.regress": 0,
    "skenigma.core.blocks": -1,
    "skenigma.core.optimize.compiled": -1,
}
# Modules in one folder may import each other.
FOLDERS = {
    "skenigma._dask",
    "skenigma.anndata",
    "skenigma.batch",
    "skenigma.checks",
    "skenigma.cli",
    "skenigma.cohort",
    "skenigma.core",
    "skenigma.core.optimize",
    "skenigma.core.posterior",
    "skenigma.core.regress",
    "skenigma.datasets",
    "skenigma.deconvolution",
    "skenigma.differential",
    "skenigma.expression",
    "skenigma.io",
    "skenigma.metrics",
    "skenigma.model_selection",
    "skenigma.plotting",
    "skenigma.presets",
    "skenigma.proportions",
    "skenigma.reference",
    "skenigma.reliability",
    "skenigma.report",
}
THIRD_PARTIES = {"numpy", "scipy", "pandas", "sklearn", "joblib"}
# What only an extra installs, and the only modules that may import it.
OPTIONAL = {
    "matplotlib": {"skenigma.plotting"},
    "anndata": {"skenigma.reference._cells", "skenigma.anndata", "skenigma.io"},
    "tqdm": {"skenigma.progress"},
    "numba": {"skenigma.core.optimize.compiled"},
    "zarr": {"skenigma.io", "skenigma.cohort"},
    "dask": {"skenigma._dask"},
    "distributed": {"skenigma._dask"},
}


def module_name(path, root=PACKAGE):
    parts = ["skenigma", *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source, module, is_package=False):
    """Full names that a source imports, wherever in it: "package.module.name" for ``from`` imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(node, module, is_package)
            found.update(f"{origin}.{alias.name}" for alias in node.names)
    return found


def absolute(node, module, is_package):
    """What a ``from`` statement imports from, with leading dots resolved."""
    if not node.level:
        return node.module
    parts = module.split(".")
    climb = node.level - is_package
    parts = parts[: len(parts) - climb]
    return ".".join(parts + ([node.module] if node.module else []))


def layer(name):
    """The longest listed module that ``name`` is, or is part of; a name of the package itself is its."""
    parts = name.split(".")
    candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in RANKS), None)


def violations(source, module, is_package=False):
    """Imports of a module that break a rule, each with the rule."""
    own = layer(module)
    # a module that nobody has given a rank yet must not pass as part of the package's root
    broken = [f"{module} has no rank"] if own == "skenigma" != module else []
    for name in sorted(imports(source, module, is_package)):
        broken += [f"{module} imports {name}: {rule}" for rule in broken_rules(own, module, name)]
    return broken


def broken_rules(own, module, name):
    top = name.split(".")[0]
    if top == "skenigma":
        within_folder = own == layer(name) and own in FOLDERS
        if not within_folder and RANKS[layer(name)] >= RANKS[own]:
            yield "not below it"
        return
    if top not in THIRD_PARTIES and top not in OPTIONAL and top not in sys.stdlib_module_names:
        yield "not a dependency"
    if own.startswith("skenigma.core") and top in core_forbids(module):
        yield "core knows numpy and scipy only"
    if top == "sklearn" and is_private(name) and module != "skenigma.checks.validation":
        yield "private to scikit-learn, whose private names are imported in checks.validation only"
    if top in OPTIONAL and not {own, module} & OPTIONAL[top]:
        yield f"{top} is optional, and known to {', '.join(sorted(OPTIONAL[top]))} only"


def core_forbids(module):
    allowed = {"numpy", "scipy"} | {extra for extra, knowing in OPTIONAL.items() if module in knowing}
    return (THIRD_PARTIES | OPTIONAL.keys()) - allowed


def is_private(name):
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def sources():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_down(path):
    assert violations(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py") == []


def test_every_module_of_the_layout_is_walked():
    walked = {module_name(path) for path in sources()}
    assert {
        "skenigma",
        "skenigma.deconvolution._flow",
        "skenigma.checks.validation",
        "skenigma.core.optimize.solvers",
    } <= walked


@functools.cache
def handed_on(module):
    """Names of this package that a module, which is no door of a folder, has imported itself."""
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if module == "skenigma" or not path.exists():
        return frozenset()
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    inner = [node for node in nodes if absolute(node, module, False).split(".")[0] == "skenigma"]
    return frozenset(alias.asname or alias.name for node in inner for alias in node.names)


def test_names_are_imported_from_where_they_live():
    found = {
        (module_name(path), name)
        for path in sources()
        for name in imports(path.read_text(), module_name(path), path.name == "__init__.py")
        if name.rpartition(".")[2] in handed_on(name.rpartition(".")[0])
    }
    assert not found


def test_what_is_handed_on_is_seen():
    assert "BaseDeconvolver" in handed_on("skenigma.deconvolution._l2max") | handed_on(
        "skenigma.deconvolution._factor"
    )
    assert not handed_on("skenigma.deconvolution")


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        (
            "skenigma.core.optimize.solvers",
            "from ...deconvolution._flow import BaseDeconvolver",
            "not below it",
        ),
        ("skenigma.core.optimize.solvers", "from ... import proportions", "not below it"),
        ("skenigma.core.optimize.solvers", "import skenigma", "not below it"),
        ("skenigma.core.optimize.solvers", "import skenigma.plotting as p", "not below it"),
        (
            "skenigma.core.optimize.solvers",
            "def late():\n    from ...proportions import ProportionEstimator",
            "not below it",
        ),
        ("skenigma.core.optimize.solvers", "import pandas as pd", "numpy and scipy only"),
        ("skenigma.core.optimize.solvers", "from joblib import Parallel", "numpy and scipy only"),
        ("skenigma.core.optimize.solvers", "from sklearn.svm import NuSVR", "numpy and scipy only"),
        ("skenigma.checks.validation", "from .._transformers import ReferenceTransformer", "not below it"),
        ("skenigma.checks.validation", "from ..deconvolution import _callbacks", "not below it"),
        ("skenigma._transformers", "from .proportions import ProportionEstimator", "not below it"),
        ("skenigma.deconvolution._flow", "from sklearn.base import _fit_context", "private to scikit-learn"),
        ("skenigma.deconvolution._flow", "import sklearn.utils._param_validation", "private to scikit-learn"),
        ("skenigma.proportions._estimator", "from ..deconvolution import L2MaxDeconvolver", "not below it"),
        ("skenigma.deconvolution._optimised", "from ..plotting import LossCurveDisplay", "not below it"),
        ("skenigma.deconvolution", "from matplotlib import pyplot", "is optional"),
        ("skenigma.metrics", "from ._transformers import ReferenceTransformer", "not below it"),
        ("skenigma.reference._profiles", "import anndata", "is optional"),
        ("skenigma.deconvolution", "import requests", "not a dependency"),
        ("skenigma.novelty", "import numpy", "has no rank"),
    ],
)
def test_planted_violations_are_caught(module, source, rule):
    (found,) = violations(source, module)
    assert rule in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "skenigma.core.optimize.solvers",
            "import numpy as np\nfrom scipy import linalg\nfrom .basis import SpanBasis",
        ),
        ("skenigma.checks.validation", "from sklearn.base import _fit_context\nimport pandas"),
        (
            "skenigma.deconvolution._flow",
            "from ..core.optimize.basis import SpanBasis\nfrom .. import checks, normalization",
        ),
        ("skenigma.plotting", "import matplotlib.pyplot as plt"),
        ("skenigma", "from .deconvolution import L2MaxDeconvolver\nfrom ._version import __version__"),
    ],
)
def test_allowed_imports_pass(module, source):
    assert violations(source, module, is_package=module == "skenigma") == []
