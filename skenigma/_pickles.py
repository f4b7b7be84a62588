"""Pickles that say which version wrote them. This module must stay where it is: every pickle names it."""

import importlib

from ._version import __version__


class VersionedPickle:
    """Objects whose pickles say which version wrote them, before anything else in them is looked up.

    A pickle names modules and attributes, which other versions have elsewhere or not at all: what such a pickle fails
    at otherwise can be anything, or nothing but a wrong result.
    """

    def __reduce_ex__(self, protocol):
        _, _, *state = super().__reduce_ex__(protocol)
        kind = type(self)
        return unpickled, (__version__, *_address(kind)), *state


def unpickled(version, module, name, kind=None):
    """A bare object of the class of that name, if this is the version that wrote it."""
    if version != __version__:
        raise ValueError(
            f"This {name} was saved by skenigma {version}, and this is {__version__}: fit it again, or install "
            f"skenigma=={version}."
        )
    if kind is None:
        kind = importlib.import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
    return kind.__new__(kind)


def _address(kind):
    """Where a class is found: by its names, or by itself where it has none that lead to it."""
    if "<" in kind.__qualname__ or kind.__module__ == "__main__":
        return kind.__module__, kind.__qualname__, kind
    return kind.__module__, kind.__qualname__
