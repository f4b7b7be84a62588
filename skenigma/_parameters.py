"""Parameters that estimators have in common, told once: what they may be, their texts, and their options.

Signatures stay written out in each class, because scikit-learn and readers look there. Everything else about a shared
parameter (what it may be, its text in docstrings, its option on the command line) stands here, what fits leave in
:mod:`._fitted`.
"""

import inspect
import re
import textwrap
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeVar

from ._docstrings import entry, with_entries
from ._fitted import ALWAYS_FITTED, FITTED
from .checks.validation import HasMethods, Interval, StrOptions
from .normalization import NORMALIZATIONS

Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Parameter:
    """A parameter that several estimators have.

    Attributes
    ----------
    type : str
        Its type as numpydoc writes it; "{default}" stands for the default of the class.
    text : str
        What it means.
    constraint : list
        What scikit-learn's validation allows.
    option : str or None
        Its help on the command line; None where it has no option.
    """

    type: str
    text: str
    constraint: list
    option: str | None = None


POSITIVE = Interval(Real, 0, None, closed="neither")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
COUNT = Interval(Integral, 1, None, closed="left")

PARAMETERS = {
    "reference": Parameter(
        "DataFrame or array-like of shape (n_cell_types, n_genes), default={default}",
        """Expression profile of every cell type, on the scale of X. Genes are matched by name if both X and
        reference have string column names, otherwise by position. None learns ``n_components`` profiles from X:
        the purest samples, by successive projection.""",
        ["array-like", None],
    ),
    "n_components": Parameter(
        "int, default={default}", "Number of profiles to learn if ``reference`` is None.", [COUNT]
    ),
    "proportion_estimator": Parameter(
        "transformer, default={default}",
        """Estimates the proportions if none are given; fitted to the untransformed X. If its ``reference`` is
        None, it gets the one of this model. None is ``ProportionEstimator()``. Anything with ``fit(X)`` and
        ``transform(X)`` or ``predict(X)`` can be used, see "Proportions of your own" in the user guide.""",
        [HasMethods(["fit", "transform"]), HasMethods(["fit", "predict"]), None],
    ),
    "preprocess": Parameter(
        '{{None, "sqrt", "log"}}, default={default}',
        """Scale on which bulk and reference enter the model: as they are, square root, or log2(x + 1). Results are
        returned on the scale of X.""",
        [StrOptions({"sqrt", "log"}), None],
        "scale on which bulk and reference enter the model; results are on that of the bulk",
    ),
    "positive": Parameter(
        'bool or "auto", default={default}',
        """Whether to clip negative expression to 0 at the end. "auto": if neither X nor reference has a negative
        entry.""",
        ["boolean", StrOptions({"auto"})],
        "whether to clip negative expression to 0",
    ),
    "normalize": Parameter(
        '{{None, "frac", "pc", "quantile"}}, default={default}',
        """What to remove from the expression of each cell type at the end, on the scale of X; the result is
        ``cse_normalized_``, and what ``transform`` returns. "frac" removes, per gene, the linear effect of the cell
        type's proportion. "pc" removes the principal component that follows the proportion best. "quantile" gives
        all samples the same distribution over genes. Formulas stand in "The method", section "Normalisation".""",
        [StrOptions(set(NORMALIZATIONS)), None],
        "write a second, normalised expression as well",
    ),
    "materialize": Parameter(
        "bool, default={default}",
        """Whether ``fit`` builds ``cse_``. False keeps the expression in its compact form, from which
        ``cell_type_expression`` builds what is asked for, together with X itself, which is not copied: expression of
        an X that was changed after the fit is refused.""",
        ["boolean"],
    ),
    "output_cell_types": Parameter(
        "array-like of str, default={default}",
        "Cell types that ``transform`` returns, in this order; the others are not built. None returns all.",
        ["array-like", None],
    ),
    "verbose": Parameter("int, default={default}", "1 prints the trace of the iteration.", ["verbose"]),
    # of the models that minimise a penalised squared error
    "alpha": Parameter(
        "float in [0, 1], default={default}",
        "Weight of reconstructing the bulk; the weight of staying near the reference is 1 − alpha.",
        [Interval(Real, 0, 1, closed="both")],
        "weight of reconstructing the bulk; staying near the reference has the rest to 1",
    ),
    "tao_k": Parameter(
        'float or "auto", default={default}',
        """Step length of ``solver="proximal"``. "auto" is the inverse of the smooth terms' Lipschitz constant, which
        cannot diverge unless gradients are renormalised.""",
        [POSITIVE, StrOptions({"auto"})],
        "step length of the solver 'proximal'",
    ),
    "max_iter": Parameter(
        "int, default={default}", "Largest number of iterations.", [COUNT], "largest number of iterations"
    ),
}

PARAMETERS["mean_only"] = Parameter(
    "bool, default={default}",
    """Shift every gene and leave it its variance. Measured samples vary more than mixed ones, because not only
    their proportions differ, and correcting variances removes that difference.""",
    ["boolean"],
)

PARAMETERS["init"] = Parameter(
    '{{"zero", "reference"}}, float, array-like or callable, default={default}',
    """Where the iteration starts. None is the bulk in every cell type, as published, and for
        ``solver="accelerated"`` where a step from zero leads. "zero" and "reference" start there, and a number
        is that multiple of the bulk on the scale of the model. A table of shape (n_cell_types, n_genes) is one start
        per cell type. A tensor of shape (n_samples, n_cell_types, n_genes), the original's ``X_int``, gives every
        sample of the cohort its own start; other samples then have none, and cannot be transformed. A function
        ``init(bulk, proportions)`` returns such a tensor for any samples. Tensors and functions are solved without
        compression. Arrays are on the scale of X.""",
    [StrOptions({"zero", "reference"}), Real, "array-like", callable, None],
)

PARAMETERS["calibrate"] = Parameter(
    "bool, default={default}",
    """Whether to bring every cell type to the level of the bulk at the end, as a later edition of the original does:
    its expression times mean_j(Σ_g x_jg) / mean_j(Σ_g p_jkg), one factor per cell type, after clipping and on the
    scale of X. New samples get the factors of the cohort, ``calibration_``. Needs values of at least 0, and profiles
    of equal totals to be right. Losses and ``score`` are those before.""",
    ["boolean"],
    "whether to bring the total of every cell type to that of the bulk",
)
PARAMETERS["n_samples_of_settings"] = Parameter(
    "int, default={default}",
    """Number of samples for which the settings were made. ``alpha``, ``beta``, ``epsilon``, ``tao_k``, ``gamma`` and
    ``renorm_size`` mean something else in a cohort of another size, because some terms are sums over samples and
    others are not; they are converted as if every sample of X stood for ``n_samples_of_settings`` / n_samples equal
    samples. The published settings are for 100. Values in use are ``alpha_``, ``beta_`` and so on. None takes the
    settings as they are.""",
    [COUNT, None],
    "number of samples that the settings were made for, 100 for published ones: they are translated to the cohort",
)

# of the editions of the R package
PARAMETERS["edition"] = Parameter(
    '{{"0.1.5", "0.1.6"}}, default={default}',
    "Edition of the R package, see the notes of :class:`~skenigma.presets.PackageL2MaxDeconvolver`.",
    [StrOptions({"0.1.5", "0.1.6"})],
)
PARAMETERS["do_cpm"] = Parameter(
    "bool, default={default}",
    """Whether edition 0.1.6 scales every sample and every profile, over the genes in use, to a total of 1e5 before
    ``preprocess``. Without ``calibrate`` the expression is on that scale; what ``init`` holds always is.""",
    ["boolean"],
)

# of what is made of annotated cells
PARAMETERS["min_cells"] = Parameter(
    "int, default={default}",
    "Cell types with fewer cells are left out, with a warning that names them.",
    [COUNT],
)

# Options on the command line of parameters that mean something else in every model that has them.
OWN_OPTIONS = {
    "beta": "weight of the penalty",
    "renorm_size": "norm to which both gradients are rescaled in every iteration",
    "solver": "how the objective is minimised",
    "epsilon": "when to stop: see the documentation of the model for its unit",
    "gamma": "penalty parameter of the ADMM solvers",
    "n_factors": "number of directions in which samples differ, shared by the cell types",
    "tol": "when to stop: relative change of the variances",
}

# Parameters that every model of cell-type-specific expression has.
COMMON = (
    "reference",
    "n_components",
    "proportion_estimator",
    "preprocess",
    "positive",
    "normalize",
    "materialize",
    "output_cell_types",
    "verbose",
)

# Texts of the arguments and results that methods share.
ARGUMENTS = {
    "X": """array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, samples as rows. What is not in memory (a memory map, a matrix of h5py or Zarr, a dask array,
        an AnnData that is backed by a file) is read by blocks of samples where the method can, see
        :func:`skenigma.cohort.lazy_matrix`; others refuse it by name.""",
    "X_new": """array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression, with the genes of the fit; in memory or read by rows, as in ``fit``.""",
    "X_named": """array-like or DataFrame of shape (n_samples, n_genes)
        Bulk expression. A named table has the genes of the fit in any order, others are left out; an array has them
        in the order of the fit.""",
    "y": """Ignored
        Present for API consistency; in a Pipeline it is the phenotype.""",
    "proportions": """array-like or DataFrame of shape (n_samples, n_cell_types), default=None
        Known proportions, rows summing to 1 (up to 0.05, then used as given). None estimates them
        with ``proportion_estimator``.""",
    "input_features": """array-like of str or None, default=None
        Gene names; only used to check that they are those of the fit.""",
    "cse": """ndarray of shape (n_samples, n_cell_types * n_genes)
        Columns are "cell type:gene", the cell type slowest; of ``output_cell_types`` only, if given.""",
    "cse_fitted": """ndarray of shape (n_samples, n_cell_types * n_genes)
        Columns are "cell type:gene", the cell type slowest; of ``output_cell_types`` only, if given. A view of
        ``cse_`` or ``cse_normalized_`` where it is the whole of it: copy it before you write into it.""",
    "covariates": """DataFrame or array-like of shape (n_samples, n_covariates), default=None
        What else is known of the samples: numbers, or categories. Rows of a named table are matched by name.""",
}

# What all of some estimators refuse and warn of.
WARNINGS = {
    "optimised_errors": """
    ValueError
        If X, reference or proportions do not fit together (the message names the first offenders), or the
        iteration diverges.
    """,
    "model_warnings": """
    ReferenceWarning
        If ``reference`` is None, or profiles are zero, flat, or the same up to a factor.
    SampleWarning
        If a sample is zero in every gene, or unlike all others, as a column that describes genes. From 100 genes on.
    ScaleWarning
        If bulk and reference seem to be in different units, or either to be logarithms, library sizes differ more
        than threefold, or single values are negative. From 20 genes on.
    LevelWarning
        If ``level_`` is outside 0.5 to 2.
    """,
}
WARNINGS["edition_warnings"] = """
    ConvergenceWarning
        If ``max_iter`` ends the iteration.
    UserWarning
        As the model itself; and if ``normalize="pc"`` finds no component that follows the proportions.
    """
WARNINGS["optimised_warnings"] = f"""
    ConvergenceWarning
        If ``max_iter`` ends the iteration.
    UserWarning
        If the proportion of a cell type is 0 in every sample, or X and reference share few genes.
    {WARNINGS["model_warnings"].strip()}
    """


def constraints(*names):
    """Constraints of shared parameters, for ``_parameter_constraints``."""
    return {name: PARAMETERS[name].constraint for name in names}


def entries(**defaults):
    """Entries of shared parameters by name, for the docstrings of functions, which have these defaults."""
    return {name: _parameter_entry(name, default) for name, default in defaults.items()}


def set_parameters(estimator, given):
    """Keep what ``__init__`` was given, unchanged: ``set_parameters(self, locals())`` is its whole body."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def documented(cls: Class) -> Class:
    """Class decorator: fill the texts of shared parameters and fitted values into docstrings.

    A line of a docstring that holds nothing but "{name}" becomes the entry of that name: of a parameter in a class,
    of an argument in a method; a name with a trailing underscore is a fitted value. "{common}" stands for all common
    parameters of the class, "{fitted}" for what every fit leaves, "{model_warnings}" for what all models warn of;
    entries that the docstring has itself stay as they are. Nothing happens where Python has dropped the docstrings
    (``-OO``).
    """
    defaults = inspect.signature(cls).parameters
    if cls.__doc__:
        groups = {"common": [name for name in COMMON if name in defaults], "fitted": ALWAYS_FITTED}
        text = cls.__doc__
        for group, names in groups.items():
            text = _with_group(text, group, names)
        cls.__doc__ = with_entries(text, lambda name: _class_entry(name, defaults))
    for method in vars(cls).values():
        if inspect.isfunction(method) and method.__doc__:
            method.__doc__ = with_entries(method.__doc__, lambda name: entry(name, ARGUMENTS[name]))
    return cls


def _with_group(text, group, names):
    """A docstring with a line "{name}" for each name of a group that it does not document already."""
    own = re.findall(r"^ *(?:\{(\w+)\}$|(\w+) : )", text, flags=re.MULTILINE)
    missing = [name for name in names if name not in {one or other for one, other in own}]
    lines = [f"{{{name}}}" for name in missing]
    return with_entries(text, lambda name: "\n".join(lines) if name == group else f"{{{name}}}")


def _class_entry(name, defaults):
    if name in WARNINGS:
        return textwrap.dedent(WARNINGS[name]).strip()
    if name.endswith("_"):
        return entry(name, FITTED[name].text)
    return _parameter_entry(name, defaults[name].default)


def _parameter_entry(name, default):
    shared = PARAMETERS[name]
    shown = f'"{default}"' if isinstance(default, str) else default
    return entry(name, f"{shared.type.format(default=shown)}\n{shared.text}")
