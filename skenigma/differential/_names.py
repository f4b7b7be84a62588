"""Names of cell types and genes, and what is refused under them."""

import numpy as np

from ..checks.validation import listing, numbered


def names_or_count(given, count, prefix, what):
    """Names as an array of strings, counted where none are given."""
    if given is None:
        return numbered(prefix, count)
    names = np.array([str(name) for name in given], dtype=object)
    if len(names) != count:
        raise ValueError(f"{what} has {len(names)} names for {count} of them.")
    return names


def refuse_nonfinite(bad, names, what, kind):
    if np.any(bad):
        raise ValueError(
            f"{what} contains NaN or infinity in {kind} {listing(names[bad])}. Impute or drop these first."
        )
