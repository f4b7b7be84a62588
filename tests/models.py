"""Every model of cell-type-specific expression, for the tests that hold for all of them: a new one is added here."""

import importlib.util
import pathlib
import sys

from skenigma import (
    EmpiricalBayesDeconvolver,
    FactorDeconvolver,
    L2MaxDeconvolver,
    L2MaxDeconvolverCV,
    TraceNormDeconvolver,
)

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def documented(name):
    """A module of the documentation, importable by its name, so that what it defines can be pickled."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


# With settings that fit quickly and converge on small cohorts. The last one is what the page "Add a model" adds.
MODELS = {
    "l2max": L2MaxDeconvolver(renorm_size="auto"),
    "l2max, admm": L2MaxDeconvolver(solver="admm"),
    "l2max, accelerated": L2MaxDeconvolver(solver="accelerated"),
    "l2max, cv": L2MaxDeconvolverCV(alphas=[0.1], betas=[20.0, 50.0], renorm_sizes=["auto"], random_state=0),
    "tracenorm": TraceNormDeconvolver(),
    "empirical bayes": EmpiricalBayesDeconvolver(),
    "factor": FactorDeconvolver(),
    "gaussian": documented("model_example").GaussianDeconvolver(),
}
