"""What a report shows, gathered from a fitted model or from the folder of a run."""

import platform
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from sklearn.utils.validation import check_is_fitted

from .._parameters import fitted_values
from .._transformers import proportions_std, reference_frame, shares_of
from .._version import __version__
from ..io import read_run
from ..io._reading import read_result
from ..io._runs import (
    DIFFERENTIAL,
    HISTORY,
    NAME_COLUMNS,
    PROPORTIONS,
    PROPORTIONS_STD,
    QUALITY,
    UNCERTAINTY,
)
from ..proportions import fit_quality

LOSSES = ("reconstruction", "reference", "penalty")
GRADIENTS = ("gradient reconstruction", "gradient reference")
CHANGE = "change "
# What proportions are shares of, as it is said to readers.
SHARES = {"RNA": "shares of RNA, not of cells, if the profiles have equal totals", "cells": "shares of cells"}
FLAG = "flag"
CONTRAST = "contrast"
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass
class Contents:
    """What a report shows.

    Attributes
    ----------
    proportions : DataFrame of shape (n_samples, n_cell_types)
    proportions_std, history, quality, uncertainty, differential : DataFrame or None
        None where there is none.
    shares_of : {"RNA", "cells"} or None
        What the proportions are shares of. None where it is not known.
    facts : dict of str to str
        The run in a few words.
    parameters, versions, inputs : dict of str to str
    warnings : list of str
    converged : bool or None
        None where nothing was iterated.
    """

    proportions: pd.DataFrame
    proportions_std: pd.DataFrame | None = None
    shares_of: str | None = None
    history: pd.DataFrame | None = None
    quality: pd.DataFrame | None = None
    uncertainty: pd.DataFrame | None = None
    differential: pd.DataFrame | None = None
    facts: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    inputs: dict = field(default_factory=dict)
    warnings: list = field(default_factory=list)
    converged: bool | None = None


def history_frame(model):
    """Losses, gradient norms and changes of a fit: a row per iteration.

    Parameters
    ----------
    model : fitted deconvolver
        With histories; which ones there are depends on the model and its solver.

    Returns
    -------
    history : DataFrame
        Columns ``reconstruction``, ``reference`` and ``penalty`` (``loss_history_``; numbered losses where a model
        has other than three), ``gradient reconstruction`` and ``gradient reference`` (``gradient_norm_``; the last
        update is not applied, so its row is NaN), and ``change`` of every cell type (``delta_history_``).

    Raises
    ------
    ValueError
        If the model has no history, because it is not fitted by iteration.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.report import history_frame
    >>> cohort = make_cohort(n_samples=40, n_genes=200, n_cell_types=2, random_state=0, as_frame=True)
    >>> history_frame(L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk)).columns[3:5].tolist()
    ['gradient reconstruction', 'gradient reference']
    """
    check_is_fitted(model)
    histories = fitted_values(model, "history")
    if not histories:
        raise ValueError(f"{type(model).__name__} has no history: it is not fitted by iteration.")
    names = {
        "loss_history_": LOSSES,
        "gradient_norm_": GRADIENTS,
        "delta_history_": [CHANGE + str(kind) for kind in model.cell_types_],
    }
    parts = [_history(values, names[name]) for name, values in histories.items()]
    return pd.concat(parts, axis=1).rename_axis("iteration")


def _history(values, names):
    """One history as a table; its columns are numbered if there are other than the usual ones."""
    values = np.asarray(values)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape[1] != len(names):
        names = [f"loss {number}" for number in range(1, values.shape[1] + 1)]
    return pd.DataFrame(values, pd.RangeIndex(1, len(values) + 1), names)


def uncertainty_frame(expression):
    """How certain a model is of the expression of each cell type.

    Parameters
    ----------
    expression : CellTypeExpression
        With standard deviations.

    Returns
    -------
    uncertainty : DataFrame
        A row per cell type: ``median expression`` and ``median standard deviation`` over samples and genes, and
        ``genes that vary``, the share of genes whose estimates vary over samples by more than their median standard
        deviation: of the others the model does not claim to know how samples differ.

    Raises
    ------
    ValueError
        If the model estimates no standard deviations.
    """
    rows = []
    for k in range(len(expression.cell_types)):
        # one cell type at a time: the tensor need not exist
        values, std = expression.values(cell_types=[k]), expression.std(cell_types=[k])
        varies = values.std(axis=0, ddof=1) > np.median(std, axis=0)
        rows.append((np.median(values), np.median(std), varies.mean()))
    columns = ["median expression", "median standard deviation", "genes that vary"]
    return pd.DataFrame(rows, pd.Index(expression.cell_types, name="cell_type"), columns)


def flag_samples(quality):
    """Quality of the proportions with a column that says which samples to distrust.

    Parameters
    ----------
    quality : DataFrame
        As :func:`skenigma.proportions.fit_quality` returns it.

    Returns
    -------
    flagged : DataFrame
        With a further column ``flag``: "constant" where a sample is the same in all genes, "worse than a constant"
        where the mixture explains nothing (r2 at most 0), "poor fit" where the correlation lies far below those of
        the other samples: by more than three robust standard deviations, after Fisher's transformation; else empty.

    Examples
    --------
    >>> import pandas as pd
    >>> from skenigma.report import flag_samples
    >>> quality = pd.DataFrame({"r2": [0.8, 0.81, 0.79, 0.3], "correlation": [0.9, 0.905, 0.895, 0.6]})
    >>> flag_samples(quality).flag.tolist()
    ['', '', '', 'poor fit']
    """
    correlation = quality["correlation"].to_numpy(dtype=float)
    # a perfect fit, on data without noise, must not become infinite
    level = np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
    middle = np.nanmedian(level) if np.isfinite(level).any() else np.nan
    spread = MAD_TO_DEVIATION * np.nanmedian(np.abs(level - middle)) if np.isfinite(middle) else np.nan
    rules = {
        "constant": quality["r2"].isna(),
        "worse than a constant": quality["r2"] <= 0,
        "poor fit": level < middle - 3 * spread,
    }
    return quality.assign(**{FLAG: np.select(list(rules.values()), list(rules), default="")})


def gather(source, differential, X=None):
    """Contents from a run's folder, its path, or a fitted model."""
    if isinstance(source, (str, Path)):
        source = read_run(source)
    if isinstance(differential, (str, Path)):
        differential = _stored_differential(Path(differential))
    if hasattr(source, "record"):
        return _from_run(source, differential)
    return _from_model(source, differential, X)


def _from_run(run, differential):
    record = run.record
    result, understood = record["result"], record["understood"]
    proportions, quality = run.table(PROPORTIONS), run.table(QUALITY)
    if proportions is None:
        raise ValueError(f"{run.path} lists no {PROPORTIONS}: there is nothing to report on.")
    stored = run.path / "differential" / DIFFERENTIAL
    if differential is None and stored.is_file():
        differential = _read_differential(stored)
    options = {name: value for name, value in record["options"].items() if name not in record["inputs"]}
    own = options.pop("parameters", {})
    parameters = {**options, **own}
    facts = {
        "samples": f"{understood['n_samples']:,}",
        "shared genes": f"{understood['n_genes_shared']:,}",
        "cell types": f"{len(understood['cell_types']):,}",
        "model": result.get("model", f"proportions by {result.get('method')}"),
        **_iterations(result.get("n_iter")),
        "date": record["date"][:10],
    }
    return Contents(
        proportions=proportions,
        proportions_std=run.table(PROPORTIONS_STD),
        shares_of=result.get("shares_of"),
        history=run.table(HISTORY),
        quality=quality,
        uncertainty=run.table(UNCERTAINTY),
        differential=differential,
        facts=facts,
        parameters=_texts(parameters) | _texts(result.get("resolved", {})),
        versions=_texts(record["versions"]),
        inputs={
            name: f"{entry['path']} (SHA-256 {entry['sha256']})" for name, entry in record["inputs"].items()
        },
        warnings=record["warnings"],
        converged=result.get("converged"),
    )


def _from_model(model, differential, X):
    check_is_fitted(model)
    proportions = pd.DataFrame(model.proportions_, columns=[str(kind) for kind in model.cell_types_])
    quality = getattr(model, "quality_", None)
    if X is not None:
        quality = fit_quality(X, reference_frame(model), model.proportions_)
    if quality is not None:
        quality = flag_samples(quality)
        proportions.index = quality.index
    std = proportions_std(model)
    if std is not None:
        std = pd.DataFrame(std, proportions.index, proportions.columns)
    expression = getattr(model, "expression_", None)
    converged = getattr(model, "converged_", None)
    parameters = {
        name: value
        for name, value in model.get_params(deep=False).items()
        if not hasattr(value, "shape") and name != "reference"
    }
    return Contents(
        proportions=proportions,
        proportions_std=std,
        shares_of=shares_of(model),
        history=history_frame(model) if fitted_values(model, "history") else None,
        quality=quality,
        uncertainty=uncertainty_frame(expression) if getattr(expression, "has_std", False) else None,
        differential=differential,
        facts={
            "samples": f"{len(proportions):,}",
            "shared genes": f"{len(model.gene_names_):,}",
            "cell types": f"{len(model.cell_types_):,}",
            "model": type(model).__name__,
            **_iterations(getattr(model, "n_iter_", None)),
        },
        parameters=_texts(parameters),
        versions={
            "skenigma": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "sklearn": sklearn.__version__,
        },
        converged=None if converged is None else bool(converged),
    )


def _iterations(number):
    """The fact of how many iterations there were, if there were any to count."""
    return {} if number is None else {"iterations": f"{number:,}"}


def _stored_differential(path):
    path = path / DIFFERENTIAL if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}: give the folder that 'skenigma differential' wrote."
        )
    return _read_differential(path)


def _read_differential(path):
    """The table of 'skenigma differential': a row per cell type and gene."""
    frame = read_result(path, NAME_COLUMNS).reset_index()
    missing = {"cell_type", "gene", "p_value", "q_value"} - set(frame.columns)
    if missing:
        raise ValueError(
            f"{path} is no table of 'skenigma differential': it lacks {', '.join(sorted(missing))}."
        )
    texts = [name for name in ("p_value", "q_value") if not pd.api.types.is_numeric_dtype(frame[name])]
    if texts:
        raise ValueError(f"{path} is no table of 'skenigma differential': its {texts[0]} are not numbers.")
    return frame


def _texts(values):
    return {name: "none" if value is None else str(value) for name, value in values.items()}
