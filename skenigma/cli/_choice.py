"""``deconvolve --choose``: parameters by recovery of a known truth, on a cohort simulated like the bulk."""

import pandas as pd

from ..model_selection import L2MaxDeconvolverCV
from ..model_selection._tuning import SEARCHED
from ._options import natural_number
from ._usage import UsageError

DEFAULTS = {"choose": False, "seed": 0}
CHOICE = "choice.tsv"
MODEL = "l2max"


def add_choose(group):
    """Options on the choice of parameters."""
    group.add_argument(
        "--choose",
        action="store_true",
        help="with --model l2max: choose the alpha, beta and renorm-size that best recover the truth of a cohort "
        "simulated like the bulk; choice.tsv lists all that were tried",
    )
    group.add_argument(
        "--seed",
        type=natural_number,
        metavar="N",
        help="seed of that cohort: the same seed gives the same choice (default: 0)",
    )


def check_choose(options, given):
    """A UsageError if there is nothing to choose; ``given`` are parameters on the command line."""
    if not options["choose"]:
        return
    if options["model"] != MODEL:
        raise UsageError(f"--choose is for --model {MODEL}")
    named = [name for name in SEARCHED if name in given]
    if named:
        raise UsageError(f"--choose finds --{named[0].replace('_', '-')} itself")


def fit_choice(job, model, bulk, proportions):
    """Choose parameters, say and record them; returns a model fitted by them, and writes what was tried."""
    fixed = {name: value for name, value in model.get_params(deep=False).items() if name not in SEARCHED}
    search = L2MaxDeconvolverCV(**fixed, random_state=job.options["seed"])
    search.fit(bulk, proportions=proportions)
    chosen, scores = search.best_params_, {**search.baseline_scores_, "model": search.best_score_}
    job.seeds = {"random_state": job.options["seed"]}
    # what was chosen is recorded as if it were given: a repeat does not search again
    job.options["parameters"] = {**job.options["parameters"], **chosen}
    tried = pd.DataFrame(search.cv_results_).drop(columns="params")
    tried.insert(0, "setting", range(1, len(tried) + 1))
    # as the option takes it
    tried["param_renorm_size"] = ["none" if size is None else size for size in tried["param_renorm_size"]]
    job.write(tried.set_index("setting"), CHOICE)
    described = ", ".join(f"{name}={value}" for name, value in chosen.items())
    compared = ", ".join(f"{name} {score:.3g}" for name, score in scores.items())
    job.console.facts([("choice", described), ("scores", compared)])
    # a choice among settings says nothing about whether any of them is worth it
    better = [name for name, score in search.baseline_scores_.items() if score >= search.best_score_]
    if better:
        job.console.warn(
            f"On a cohort simulated like this bulk, no setting follows genes over samples better than "
            f"{' and '.join(better)} (correlation per gene: {compared})."
        )
    job.files["choice"] = CHOICE
    return search.best_estimator_, {"parameters": chosen, "scores": scores}
