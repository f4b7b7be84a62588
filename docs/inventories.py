"""Where the documentation of other projects describes the names that these pages mention.

Intersphinx usually fetches lists of names from those projects. The documentation is built without network access, so
the few that are needed are written here, in the format that intersphinx reads.
"""

import zlib

HEADER = """\
# Sphinx inventory version 2
# Project: {project}
# Version:
# The remainder of this file is compressed using zlib.
"""
CLASS, DATA, EXCEPTION, FUNCTION = "py:class", "py:data", "py:exception", "py:function"
LABEL, TERM = "std:label", "std:term"

ADDRESSES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "sklearn": "https://scikit-learn.org/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "anndata": "https://anndata.readthedocs.io/en/stable/",
}

# "$" stands for the name
NAMES = {
    "python": [
        (CLASS, "library/functions.html#$", ["float", "int"]),
        (CLASS, "library/stdtypes.html#$", ["dict", "list", "str", "tuple"]),
        (DATA, "library/constants.html#$", ["False", "None", "True"]),
        (EXCEPTION, "library/exceptions.html#$", ["ImportError", "TypeError", "ValueError"]),
        (FUNCTION, "library/functions.html#$", ["callable"]),
        (LABEL, "library/stdtypes.html#boolean-type-bool", ["bltin-boolean-values"]),
        (TERM, "glossary.html#term-$", ["generator", "iterable", "sequence"]),
    ],
    "numpy": [
        (CLASS, "reference/generated/$.html#$", ["numpy.ndarray"]),
        (CLASS, "reference/random/legacy.html#$", ["numpy.random.RandomState"]),
        (LABEL, "reference/arrays.scalars.html", ["arrays.scalars"]),
        (TERM, "glossary.html#term-$", ["array_like"]),
    ],
    "pandas": [
        (CLASS, "reference/api/$.html#$", ["pandas.DataFrame", "pandas.Series"]),
        (FUNCTION, "reference/api/$.html#$", ["pandas.read_csv"]),
    ],
    "sklearn": [
        (
            CLASS,
            "modules/generated/$.html#$",
            [
                "sklearn.exceptions.ConvergenceWarning",
                "sklearn.exceptions.NotFittedError",
                "sklearn.model_selection.GridSearchCV",
                "sklearn.pipeline.Pipeline",
                "sklearn.utils.Bunch",
            ],
        ),
    ],
    "matplotlib": [
        (CLASS, "api/_as_gen/$.html#$", ["matplotlib.axes.Axes", "matplotlib.figure.Figure"]),
    ],
    "anndata": [
        (CLASS, "generated/$.html#$", ["anndata.AnnData"]),
    ],
}

# What docstrings call by its last name alone.
ALIASES = {
    "AnnData": "anndata.AnnData",
    "Axes": "matplotlib.axes.Axes",
    "Bunch": "sklearn.utils.Bunch",
    "DataFrame": "pandas.DataFrame",
    "Figure": "matplotlib.figure.Figure",
    "RandomState": "numpy.random.RandomState",
    "Series": "pandas.Series",
    "ndarray": "numpy.ndarray",
}


def write_inventories(folder):
    """Write one inventory per project, and return what ``intersphinx_mapping`` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, address in ADDRESSES.items():
        path = folder / f"{project}.inv"
        body = "".join(entries(project))
        path.write_bytes(HEADER.format(project=project).encode() + zlib.compress(body.encode()))
        mapping[project] = (address, str(path))
    return mapping


def entries(project):
    for role, place, names in NAMES[project]:
        for name in names:
            yield f"{name} {role} 1 {place.replace('$', name)} -\n"
