"""Where the iteration of an optimised model starts: the parameter ``init``."""

from numbers import Real

import numpy as np
import pandas as pd

from .._transformers import gene_positions
from ..checks.entries import check_finite
from ..checks.labels import column_labels, match_cell_types, match_labels, row_labels
from ..checks.scales import SCALES
from ..core.optimize.start import Start


def starting_point(model, cohort):
    """The start that a model asks for, over genes and on its scale.

    Parameters
    ----------
    model : OptimisedDeconvolver
    cohort : Cohort

    Returns
    -------
    start : Start or None
        None leaves it to the solver.
    own : OwnStart or None
        What gives every sample a start of its own.
    """
    init = model.init
    if init is None:
        return None, None
    if has_own_starts(init):
        own = OwnStart(init)
        return Start(own=own.of_cohort(model, cohort)), own
    if isinstance(init, str):
        return (Start(0.0), None) if init == "zero" else (Start(0.0, cohort.reference), None)
    if isinstance(init, Real):
        return Start(float(init)), None
    return Start(0.0, _profiles(model, init)), None


def has_own_starts(init):
    """Whether an ``init`` gives every sample a start of its own."""
    return callable(init) or not (init is None or isinstance(init, (str, Real)) or np.ndim(init) == 2)


def _profiles(model, init):
    """A start per cell type, the same for all samples."""
    if isinstance(init, pd.DataFrame):
        init = init.iloc[match_cell_types(row_labels(init), model.cell_types_, "rows of init", superset=True)]
    genes = column_labels(init)
    if isinstance(genes, np.ndarray):
        init = init.iloc[:, match_labels(genes, model.gene_names_, "columns of init", "gene", superset=True)]
    values = _on_genes(model, np.asarray(init, dtype=np.float64))
    if len(values) != len(model.cell_types_):
        raise ValueError(
            f"init has {len(values)} rows, but there are {len(model.cell_types_)} cell types: a table must have "
            f"one row per cell type."
        )
    check_finite(values, "init", model.cell_types_, model.gene_names_)
    return SCALES[model.preprocess].apply(values, "init", model.cell_types_, model.gene_names_)


def _on_genes(model, values):
    """Values of all genes of X, or of those in use, as those in use."""
    n_given, n_used = values.shape[-1], len(model.gene_names_)
    if n_given == n_used:
        return values
    if n_given == model.n_features_in_:
        return values[..., gene_positions(model)]
    raise ValueError(
        f"init has {n_given} genes, but X has {model.n_features_in_}, of which {n_used} are in use: it must have "
        f"the genes of X."
    )


class OwnStart:
    """A start for every sample: a tensor of the fitted cohort, or a function of any samples.

    Parameters
    ----------
    init : array-like of shape (n_samples, n_cell_types, n_genes), or callable
    """

    def __init__(self, init):
        self._init = init

    def of_cohort(self, model, cohort):
        """Where the samples of the cohort start, on the scale of the model."""
        if callable(self._init):
            bulk = np.array(cohort.bulk)
            SCALES[model.preprocess].backward(bulk)
            return self.of(model, bulk, cohort.proportions)
        return self._checked(model, np.asarray(self._init, dtype=np.float64), len(cohort.bulk))

    def of(self, model, bulk, proportions):
        """Where any samples start, from their bulk and proportions, on the scale of the model."""
        if not callable(self._init):
            raise ValueError(
                "This model was fitted with an init that holds a start for every sample of its cohort, which does "
                "not define a start for other samples. Fit with a function as init, init(bulk, proportions), which "
                "gives the start of any samples, to transform or score others."
            )
        return self._checked(model, np.asarray(self._init(bulk, proportions), dtype=np.float64), len(bulk))

    def _checked(self, model, values, n_samples):
        expected = (n_samples, len(model.cell_types_))
        if values.ndim != 3 or values.shape[:2] != expected:
            raise ValueError(
                f"init has the shape {values.shape}: a start for every sample must have the shape {expected} × genes."
            )
        values = _on_genes(model, values)
        flat = values.reshape(-1, values.shape[2])
        rows = [f"{kind} of sample {j}" for j in range(n_samples) for kind in model.cell_types_]
        check_finite(flat, "init", rows, model.gene_names_)
        scaled = SCALES[model.preprocess].apply(flat, "init", rows, model.gene_names_)
        return np.asarray(scaled).reshape(values.shape)
