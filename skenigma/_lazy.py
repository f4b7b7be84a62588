"""Public names that are imported when they are first used, so that importing the package costs next to nothing."""

import sys
from importlib import import_module


def lazy_names(package, names, submodules=()):
    """Module-level ``__getattr__`` and ``__dir__`` of a package whose names live in modules below it.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    names : dict of str to str
        Module below the package that each public name comes from.
    submodules : tuple of str, default=()
        Modules that are attributes of the package, too.

    Returns
    -------
    getter, lister : callable
    """

    def getter(name):
        if name in submodules:
            return import_module(f"{package}.{name}")
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{names[name]}"), name)
        setattr(sys.modules[package], name, value)  # found there from now on
        return value

    def lister():
        return sorted({*vars(sys.modules[package]), *names, *submodules})

    return getter, lister
