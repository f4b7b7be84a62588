"""One checksum of objects by what they hold, whatever their arrays look like in memory, and where they lie."""

import functools
import hashlib
import types
from pathlib import PurePath

import numpy as np
import pandas as pd

# Bytes of an array that are looked at together.
BLOCK_BYTES = 2**24
PLAIN = (type(None), bool, int, float, complex, str, bytes, PurePath)
NAMED = (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc)


def fingerprint(*values):
    """SHA-256 of values: arrays by type, shape and entries, other objects by their class and what they hold.

    Equal values have equal fingerprints, in any process. A matrix that is read by slices of its rows counts as the
    array that these make up, and is read once. What a ``cached_property`` keeps does not count.

    Parameters
    ----------
    *values : object
        Numbers, texts, arrays, and objects that hold such.

    Returns
    -------
    checksum : str
        In hexadecimal digits.

    Raises
    ------
    TypeError
        If one of them holds what nobody can look into; the message names its class.
    """
    return _Digests().of(values).hex()


class _Digests:
    """Digests of objects, each looked at once."""

    def __init__(self):
        # the object is kept beside its digest: another one could get its identity
        self._known = {}

    def of(self, value):
        """Digest of a value."""
        if isinstance(value, PLAIN):
            return _hashed(type(value).__name__, repr(value))
        if id(value) not in self._known:
            # what holds itself meets this instead
            self._known[id(value)] = (value, _hashed("within itself"))
            self._known[id(value)] = (value, self._look_into(value))
        return self._known[id(value)][1]

    def _look_into(self, value):
        if isinstance(value, np.generic | np.dtype):
            return _hashed("number", str(getattr(value, "dtype", value)), repr(value))
        if _is_matrix(value):
            return self._array(value)
        if isinstance(value, list | tuple):
            return _hashed("sequence", *map(self.of, value))
        if isinstance(value, set | frozenset):
            return _hashed("set", *sorted(map(self.of, value)))
        if isinstance(value, dict):
            return _hashed("dict", *sorted(self.of(key) + self.of(entry) for key, entry in value.items()))
        if isinstance(value, NAMED):
            return _hashed("named", _name(value))
        return _hashed("object", _name(type(value)), self.of(self._content(value)))

    def _array(self, value):
        if value.dtype.kind == "O":
            return _hashed("objects", str(value.shape), *map(self.of, np.asarray(value).ravel().tolist()))
        digest = hashlib.sha256(f"array {value.dtype.str} {value.shape}".encode())
        if not value.shape:
            digest.update(np.asarray(value).tobytes())
        elif 0 not in value.shape:
            row = int(np.prod(value.shape[1:])) * value.dtype.itemsize
            step = max(1, BLOCK_BYTES // row)
            for start in range(0, value.shape[0], step):
                digest.update(np.ascontiguousarray(value[start : start + step]).view(np.uint8).data)
        return digest.digest()

    def _content(self, value):
        """What an object of some class holds, as other values."""
        if isinstance(value, pd.DataFrame):
            return value.to_numpy(), value.index, value.columns
        if isinstance(value, pd.Series):
            return value.to_numpy(), value.index, value.name
        if isinstance(value, pd.Index):
            return value.to_numpy(), list(value.names)
        if isinstance(value, functools.partial):
            return value.func, value.args, value.keywords
        if isinstance(value, types.MethodType):
            return value.__self__, value.__func__
        if hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            return _attributes(value)
        try:
            return value.__reduce_ex__(2)
        except TypeError as error:
            raise TypeError(
                f"There is no checksum of a {_name(type(value))}, which the state of the model holds: let it hold "
                f"arrays, numbers and texts."
            ) from error


def _attributes(value):
    kinds = type(value).__mro__
    slots = [name for kind in kinds for name in _slots(kind) if hasattr(value, name)]
    found = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    cached = {name for kind in kinds for name in vars(kind) if _is_cached(vars(kind)[name])}
    return {name: entry for name, entry in found.items() if name not in cached}


def _slots(kind):
    slots = vars(kind).get("__slots__", ())
    return [
        name
        for name in ([slots] if isinstance(slots, str) else slots)
        if name not in ("__dict__", "__weakref__")
    ]


def _is_cached(attribute):
    return isinstance(attribute, functools.cached_property)


def _is_matrix(value):
    """Whether a value is an array, or a matrix that gives arrays for slices of its rows."""
    if isinstance(value, np.ndarray):
        return True
    if isinstance(value, pd.Series | pd.Index):
        return False
    return hasattr(value, "__getitem__") and isinstance(getattr(value, "dtype", None), np.dtype)


def _name(thing):
    name = getattr(thing, "__qualname__", None) or repr(thing)
    return f"{getattr(thing, '__module__', None)}.{name}"


def _hashed(*parts):
    """Digest of texts and of digests, each with its length, so that no two lists of parts run into one."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()
