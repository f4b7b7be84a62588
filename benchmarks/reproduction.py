"""How close skenigma comes to recorded runs of the original R code: ``python -m benchmarks.reproduction [folder]``.

Prints the table of the README, of the published scripts, and that of the page on the package's editions. The folder
holds the recorded runs; without it, they are looked for in ``../shared/reference``, or in the folder ``reference`` of
what ``SKENIGMA_DATA`` says, as the tests do.
"""

import inspect
import json
import pathlib
import sys
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone

from skenigma import L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver
from skenigma.io._tables import EXACT
from skenigma.presets import enigma_l2_max_norm, enigma_losses, enigma_trace_norm

from .data import data_folder

ALPHA = 0.1  # of every recorded run but those that name another

L2MAX = L2MaxDeconvolver(alpha=ALPHA, positive=False)
TRACE = TraceNormDeconvolver(alpha=ALPHA, positive=False)


class Run(NamedTuple):
    """A recorded run, and the estimator with which skenigma repeats it."""

    what: str
    name: str
    model: object
    parameters: dict
    decimals: int | None = None  # to which the proportions are rounded


# Factors of two: solvers of the original whose data terms have 1/2, see "The method" in the documentation.
RUNS = [
    Run("maximum L2 norm, the published trace", "l2max_none", L2MAX, {"renorm_size": None}),
    *(
        Run(f"renormalised to {size}", f"l2max_renorm{size}", L2MAX, {"renorm_size": size})
        for size in (50, 100, 200)
    ),
    Run("renormalised, without rounding noise", "l2max_renorm200_theta2dp", L2MAX, {"renorm_size": 200}, 2),
    *(
        Run(f"ADMM, β = {b}", f"admm_l2max_beta{b}", L2MAX, {"solver": "admm", "beta": 2 * b})
        for b in (1, 50)
    ),
    Run("trace norm, `admm`", "trace_admm", TRACE, {"solver": "admm"}),
    Run("trace norm, `admm_fast`", "trace_admm_fast", TRACE, {"solver": "admm_fast"}),
    Run(
        "trace norm, `proximalpoint`",
        "trace_proximalpoint",
        TRACE,
        {"solver": "proximal", "beta": 0.5, "tao_k": 2.0},
    ),
]


# Recorded runs of the package's version 0.1.5; "zero" and a number are starts other than the bulk.
PACKAGE_RUNS = [
    *(
        (f"L2, {settings}, `{scale}`, {method}", f"l2_{settings}_{scale}_{method}", None)
        for scale in ("sqrt", "log")
        for settings in ("default", "mild")
        for method in ("frac", "PC", "quantile")
    ),
    *(
        (f"L2, mild, `{scale}`, from 0.9 bulk", f"l2_mild_{scale}_frac_xint09", 0.9)
        for scale in ("sqrt", "log")
    ),
    *(
        (f"trace norm, `{solver}`, `{scale}`, from {start}", f"trace_{solver}_{scale}_init_{start}", x_int)
        for solver in ("admm", "admm_fast", "proximalpoint")
        for scale, start, x_int in (("log", "bulk", None), ("log", "zero", False), ("sqrt", "zero", False))
    ),
]


def table(folder, name):
    return pd.read_csv(folder / name, index_col=0, **EXACT)


def repeat(run, bulk, reference, proportions):
    """The fitted model, and the seconds of processor time that it took."""
    if run.decimals is not None:
        proportions = proportions.round(run.decimals)
    start = time.process_time()
    model = clone(run.model).set_params(reference=reference, **run.parameters)
    model.fit(bulk, proportions=proportions)
    return model, time.process_time() - start


def relative_difference(model, recorded):
    """Norm of the difference of the expression over the norm of the recorded one, on the recorded genes."""
    whole = "X_k" in recorded
    expected = recorded["X_k" if whole else "X_k_sub"]
    got = model.cse_ if whole else model.cse_[:, :, recorded["X_gene_index"]]
    return norm_of_difference(got, expected)


def report_package(folder):
    """Print the table of the page on the package's editions."""
    folder = folder / "package"
    bulk = table(folder, "outputs/bmode_bulk_corrected.csv.gz").T
    reference = table(folder, "inputs/reference_cpm.csv.gz").T
    proportions = table(folder, "outputs/theta_rlr_bmode.csv.gz")
    entries = json.loads((folder / "manifest.json").read_text())["runs"]
    print("| run of version 0.1.5 | iterations in R | here | expression | normalised | losses | R itself |")
    print("|---|---|---|---|---|---|---|")
    for what, name, x_int in PACKAGE_RUNS:
        function = enigma_l2_max_norm if name.startswith("l2") else enigma_trace_norm
        given = {
            key: entries[name][key] for key in inspect.signature(function).parameters if key in entries[name]
        }
        model = function(reference, **(given | {"X_int": x_int})).fit(bulk, proportions=proportions)
        with np.load(folder / "runs" / f"{name}.npz") as arrays:
            recorded = dict(arrays)
        differences = [norm_of_difference(model.cse_, recorded["CSE"])]
        differences.append(norm_of_difference(model.cse_normalized_, recorded["CSE_norm"]))
        losses = ""
        if function is enigma_l2_max_norm:
            # at the start the residual is rounding
            found = enigma_losses(model, bulk, proportions=proportions)[1:]
            losses = f"{np.abs(found / recorded['loss_history'][1:] - 1).max():.0e}"
        moved = entries[name].get("rounding_spread", {}).get("CSE_rel_fro")
        print(
            f"| {what} | {len(recorded['ratio'])} | {model.n_iter_} | "
            + " | ".join(f"{difference:.0e}" for difference in differences)
            + f" | {losses} | {'' if moved is None else f'{moved:.0e}'} |"
        )


def norm_of_difference(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def report(folder):
    """Print the table of the README."""
    folder = folder / "vignette"
    bulk, reference = table(folder, "bulk.csv.gz").T, table(folder, "reference.csv.gz").T
    proportions = table(folder, "theta.csv.gz")
    timings = json.loads((folder / "manifest.json").read_text())["runs"]

    estimated = ProportionEstimator(reference).fit(bulk).proportions_
    repeat(RUNS[0], bulk, reference, proportions)  # numba is loaded by the first fit, and not to be counted
    print("| run | iterations in R | here | difference | seconds in R | here |\n|---|---|---|---|---|---|")
    difference = np.abs(estimated - proportions).to_numpy().max()
    print(f"| proportions, robust regression | | | {difference:.0e} | | |")
    for run in RUNS:
        with np.load(folder / "runs" / f"{run.name}.npz") as arrays:
            recorded = dict(arrays)
        model, seconds = repeat(run, bulk, reference, proportions)
        print(
            f"| {run.what} | {len(recorded['loss_history'])} | {model.n_iter_} "
            f"| {relative_difference(model, recorded):.0e} "
            f"| {timings[run.name]['solver_user_s']:.1f} | {seconds:.2f} |"
        )
        if run.parameters.get("renorm_size", 0) is None:
            norms = recorded["gradient_norm"].mean(), model.gradient_norm_.mean()
            print("| its mean gradient norm | {:.4f} | {:.4f} | | | |".format(*norms))


if __name__ == "__main__":
    recorded_folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else data_folder() / "reference"
    report(recorded_folder)
    print()
    report_package(recorded_folder)
