"""What contents need, wherever they come from: groups, tests, and tables that fit each other."""

import platform
from functools import partial

import numpy as np
import pandas as pd
import sklearn

from .._version import __version__
from ..checks.names import listing
from ..differential._study import Options, Study
from ..io import read_phenotype, read_run
from ..io._inputs import read_as_recorded
from ..io._records import RECORD
from ..io._runs import DIFFERENTIAL, NAME_COLUMNS
from ..io._written import read_result
from ._contents import Findings, Groups


def read_test(path):
    """Findings in the folder that 'skenigma differential' wrote, or in its table."""
    folder = path if path.is_dir() else path.parent
    path = path / DIFFERENTIAL if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}: give the folder that 'skenigma differential' wrote."
        )
    table = check_differential(read_result(path, NAME_COLUMNS).reset_index(), str(path))
    test = test_of(table)
    if (folder / RECORD).is_file():
        record = read_run(folder).record
        test.method = record["result"].get("method")
        test.covariates = list(record["understood"].get("covariates", ()))
    return test


def check_differential(table, name):
    """A table of a test, checked; a ValueError that says what it lacks."""
    missing = {"cell_type", "gene", "p_value", "q_value"} - set(table.columns)
    if missing:
        raise ValueError(
            f"{name} is not a table of 'skenigma differential': it lacks {', '.join(sorted(missing))}."
        )
    texts = [column for column in ("p_value", "q_value") if not pd.api.types.is_numeric_dtype(table[column])]
    if texts:
        raise ValueError(f"{name} is not a table of 'skenigma differential': its {texts[0]} are not numbers.")
    return table


def test_of(table):
    table = table.assign(**{name: table[name].astype(str) for name in ("cell_type", "gene")})
    contrast = str(table["contrast"].iloc[0]) if "contrast" in table and len(table) else ""
    return Findings(table, contrast=contrast)


def recorded_phenotype(folder, samples, missing):
    """Groups of a test, as it compared them."""
    record = read_run(folder).record
    options, entry = record["options"], record["inputs"].get("phenotype")
    column = record["result"].get("column")
    if entry is None or column is None:
        return None
    named = {*(options.get("levels") or ()), *(options.get("exclude") or ()), options.get("reference_level")}
    path = entry["path"]
    # words that else stand for a missing value are groups where the test named them
    read = partial(read_phenotype, groups=sorted(named - {None}))
    refusal = f"{path} is not the phenotype of the test any more: its SHA-256 differs."
    table = read_if_there(
        partial(read_as_recorded, read, path, entry["sha256"], refusal), path, "phenotype", missing
    )
    if table is None:
        return None
    table.index = table.index.map(str)
    values = table[column].reindex(samples)
    # options name levels by their texts
    shown = values.map(
        lambda value: f"{value:g}" if isinstance(value, float) else str(value), na_action="ignore"
    )
    if options.get("levels"):
        values = values.where(shown.isin(options["levels"]))
    if options.get("exclude"):
        values = values.where(~shown.isin(options["exclude"]))
    first = options.get("reference_level")
    levels = options.get("levels")
    return grouped(values, levels, first)


def grouped(values, levels=None, first=None):
    """Groups in the order in which a test compares them."""
    there = {
        f"{value:g}" if isinstance(value, float) else str(value): value for value in values.dropna().unique()
    }
    options = Options(
        levels=None if levels is None else [there[name] for name in levels if name in there],
        reference_level=there.get(first),
        missing="drop",
    )
    study = Study(values, None, len(values), values.index, options)
    used = pd.Series(False, index=values.index)
    used.iloc[study.used] = True
    if isinstance(
        values.dtype, pd.CategoricalDtype
    ):  # classes have the order, and a map of categories its own type
        values = values.astype(object)
    return Groups(study.name, values.where(used), study.classes)


def read_groups(phenotype, samples):
    """Groups of the samples from what a caller gave: a Series, an array, or groups already."""
    if phenotype is None or isinstance(phenotype, Groups):
        return phenotype
    if isinstance(phenotype, pd.DataFrame):
        if phenotype.shape[1] != 1:
            raise ValueError(
                f"phenotype has the columns {listing(list(phenotype.columns))}: give the one that divides "
                f"the samples."
            )
        phenotype = phenotype.iloc[:, 0]
    if isinstance(phenotype, pd.Series):
        values = phenotype.set_axis(phenotype.index.map(str))
        lacking = samples.map(str).difference(values.index, sort=False)
        if len(lacking) == len(samples) == len(values):
            values = values.set_axis(samples)  # numbered rows on one side
        elif len(lacking):
            raise ValueError(f"phenotype lacks the samples {listing(list(lacking))}.")
        else:
            values = values.reindex(samples.map(str)).set_axis(samples)
    else:
        if len(phenotype) != len(samples):
            raise ValueError(f"phenotype has {len(phenotype)} entries for {len(samples)} samples.")
        values = pd.Series(np.asarray(phenotype), samples, name="phenotype")
    return grouped(values)


def read_if_there(read, path, name, missing):
    """What a reader makes of an input of a run; None, and a note in ``missing``, where that cannot be."""
    try:
        return read()
    except OSError:
        missing.append(
            f"The {name} is not at {path} any more, so that what needs it is left out of this page."
        )
    except ValueError as error:
        missing.append(f"What needs the {name} is left out of this page. {error}")
    return None


def matched(bulk, samples, genes, what):
    """A bulk with the samples and genes of the expression."""
    if bulk is None:
        return None
    bulk = bulk if isinstance(bulk, pd.DataFrame) else pd.DataFrame(np.asarray(bulk), samples, genes)
    bulk = bulk.rename(index=str, columns=str)
    lacking = [name for name in genes if name not in bulk.columns]
    if lacking or len(samples.difference(bulk.index)):
        lacking = lacking or list(samples.difference(bulk.index))
        raise ValueError(f"{what} is not the bulk that was deconvolved: it lacks {listing(lacking)}.")
    return bulk.loc[samples, genes]


def own_versions():
    return {
        "skenigma": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "scikit-learn": sklearn.__version__,
    }


def texts(values):
    return {str(name): "none" if value is None else str(value) for name, value in values.items()}
