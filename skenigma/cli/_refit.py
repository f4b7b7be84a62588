"""The model of an earlier run, fitted again from what its record names: a run folder holds no model."""

from functools import partial

import numpy as np

from .._version import __version__
from ..io import read_proportions
from ..io._fitted import as_recorded
from ..io._runs import PROPORTIONS
from ..proportions import ProportionEstimator
from ._deconvolve import make_model
from ._proportions import read_gene_list
from ._understood import counted
from ._usage import UsageError

# Proportions of a refit that differ more from those of the run are not its own.
SAME = 1e-6


def check_own_model(run, given):
    """A UsageError if a run names a class as its model, and the command line does not name the same."""
    model = str(run.record["options"].get("model", ""))
    if ":" in model and given != model:
        raise UsageError(
            f"{run.path} names the class {model}, and a record must not decide what code is run: if you trust "
            f"it, pass --model {model}"
        )
    if given and ":" not in model:
        raise UsageError("--model is for models of your own: the run says which of the others it is")


def refit(job, folder, bulk, reference):
    """The model or estimator of a run, fitted again; a warning if it is not the same."""
    ran, inputs = {**folder.record["options"], "threads": job.options["threads"]}, folder.record["inputs"]
    markers = known = None
    if "markers" in inputs:
        marked = as_recorded(folder, "markers", None, read_gene_list)
        markers = reference.columns.intersection(marked, sort=False)
    if folder.record["command"] == "proportions":
        profiles = reference if markers is None else reference[markers]
        model = ProportionEstimator(profiles, method=ran["method"], n_jobs=ran["threads"]).fit(bulk)
    else:
        if "proportions" in inputs:
            known = as_recorded(folder, "proportions", None, partial(read_proportions, notes=[]))
        model = make_model(ran, reference, markers)
        with job.console.progress():
            model.fit(bulk, proportions=known)
    difference = np.abs(model.proportions_ - folder.table(PROPORTIONS).to_numpy()).max()
    if not difference <= SAME:
        then = folder.record["versions"].get("skenigma")
        job.console.warn(
            f"Fitted again, the proportions differ from those of the run by up to {difference:.2g}, "
            f"so this is not the same model. The run was made by skenigma {then}, and this is {__version__}."
        )
    job.console.facts([("fit", f"{type(model).__name__} of {counted(len(bulk), 'sample')}, again")])
    return model
