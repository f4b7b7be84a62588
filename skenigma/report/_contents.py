"""What a report shows, whatever it is on: the folder of a run, a fitted model or an AnnData."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from .._fitted import fitted_values
from .._typing import Estimator
from ..core.blocks import spaced
from ._expression import Expression, uncertainty_figures

LOSSES = ("reconstruction", "reference", "penalty")
GRADIENTS = ("gradient reconstruction", "gradient reference")
CHANGE = "change "
# What proportions are shares of, as it is said to readers.
SHARES = {"RNA": "shares of RNA, not of cells, if the profiles have equal totals", "cells": "shares of cells"}
FLAG = "flag"
# Values of a cell type, of evenly spaced samples, that tell how certain they are.
MOST_VALUES = 2**22
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass
class Groups:
    """The phenotype of the samples.

    Attributes
    ----------
    name : str
    values : Series
        By sample; NaN or None where a sample takes no part.
    classes : list or None
        The one that others are compared with comes first. None for a quantity.
    colours : dict of str to str, or None
        Colour of each class, "#rrggbb". None takes those of the page.
    """

    name: str
    values: pd.Series
    classes: list | None
    colours: dict | None = None


@dataclass
class Findings:
    """How findings were made.

    Attributes
    ----------
    table : DataFrame
        Columns ``cell_type``, ``gene``, ``effect``, ``p_value``, ``q_value`` and others.
    method : str or None
        Name of the test, None where it is not known.
    covariates : list of str
    contrast : str
        What an effect compares.
    """

    table: pd.DataFrame
    method: str | None = None
    covariates: list = field(default_factory=list)
    contrast: str = ""


@dataclass
class Contents:
    """What a report shows.

    Attributes
    ----------
    proportions : DataFrame of shape (n_samples, n_cell_types)
    proportions_std, history, quality : DataFrame or None
        None where there is none.
    shares_of : {"RNA", "cells"} or None
        What the proportions are shares of. None where it is not known.
    type_colours : dict of str to str, or None
        Colour of each cell type, "#rrggbb". None takes those of the page.
    groups : Groups or None
    expression : Expression or None
    test : Findings or None
    facts : dict of str to str
        The run in a few words.
    model : str or None
        Name of the model, None where proportions alone were estimated.
    parameters, versions, inputs : dict of str to str
    commands : list of str
        What repeats it.
    warnings : list of str
        Of the run.
    missing : list of str
        What could not be shown, and why.
    converged : bool or None
        None where nothing was iterated.
    """

    proportions: pd.DataFrame
    proportions_std: pd.DataFrame | None = None
    shares_of: str | None = None
    type_colours: dict | None = None
    groups: Groups | None = None
    expression: Expression | None = None
    test: Findings | None = None
    history: pd.DataFrame | None = None
    quality: pd.DataFrame | None = None
    facts: dict = field(default_factory=dict)
    model: str | None = None
    parameters: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    inputs: dict = field(default_factory=dict)
    commands: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    converged: bool | None = None


def history_frame(model: Estimator) -> pd.DataFrame:
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
    return history_table(histories, model.cell_types_)


def history_table(histories, cell_types):
    """The table of :func:`history_frame` from ``loss_history_`` and the like, by name."""
    names = {
        "loss_history_": LOSSES,
        "gradient_norm_": GRADIENTS,
        "delta_history_": [CHANGE + str(kind) for kind in cell_types],
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
        A row per cell type: ``median expression`` and ``median standard deviation`` over samples and genes (of a
        large cohort, evenly spaced samples with 4 million values), and
        ``genes that vary``, the share of genes whose estimates vary over samples by more than their median standard
        deviation: of the others the model does not claim to know how samples differ.

    Raises
    ------
    ValueError
        If the model estimates no standard deviations.
    """
    rows = []
    n_samples, n_cell_types, n_genes = expression.shape
    samples = spaced(n_samples, max(2, MOST_VALUES // n_genes))
    for k in range(n_cell_types):
        # one cell type at a time: the tensor need not exist
        values, std = (build(samples, [k])[:, 0] for build in (expression.values, expression.std))
        rows.append(uncertainty_figures(values, std))
    return pd.DataFrame(rows, pd.Index(expression.cell_types, name="cell_type"))


def reliability_frame(model):
    """Reliability of the expression as a table, cell types × genes, None where a model does not know it.

    It is the correlation of estimate and truth over samples that the model expects.
    """
    found = getattr(model, "reliability_", None)
    if found is None:
        return None
    names = [[str(name) for name in axis] for axis in (model.cell_types_, model.gene_names_)]
    return pd.DataFrame(found, pd.Index(names[0], name="cell_type"), pd.Index(names[1], name="gene"))


def flag_samples(quality: pd.DataFrame) -> pd.DataFrame:
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
