"""Texts that several docstrings share, filled into them when they are defined."""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import TypeVar

Target = TypeVar("Target")

# What every cohort that is made or loaded is described by.
COHORT = {
    "cohort_names": """sample_names, gene_names, cell_types : ndarray of str
    The names along the axes.""",
}


# typed, or what it decorates would have no types for those who use it
def filled(entries: Mapping[str, str]) -> Callable[[Target], Target]:
    """Decorator: fill whole entries into the docstring of a function, or into those of a class and its methods.

    A line that holds nothing but "{name}" becomes the entry of that name, in which "{class}" stands for the class.
    """

    def fill(target):
        members = (
            [getattr(one, "__func__", one) for one in vars(target).values()]
            if inspect.isclass(target)
            else []
        )
        for one in [target, *filter(inspect.isfunction, members)]:
            if one.__doc__:
                one.__doc__ = with_entries(
                    one.__doc__, lambda name: entries[name].replace("{class}", target.__name__)
                )
        return target

    return fill


def with_entries(text, entry_of):
    """A docstring with the entries in place of the lines that name them, indented like these."""
    # whole lines only: formulas are full of braces
    return re.sub(
        r"^( *)\{(\w+)\}$",
        lambda found: textwrap.indent(entry_of(found[2]), found[1]),
        text,
        flags=re.MULTILINE,
    )


def entry(name, text):
    """An entry of a docstring; what an argument is of (new samples, the fitted ones) is no part of its name."""
    kind, *lines = [line.strip() for line in text.splitlines()]
    name = name.removesuffix("_new").removesuffix("_named").removesuffix("_fitted")
    return "\n".join([f"{name} : {kind}", *(f"    {line}" for line in lines)])
