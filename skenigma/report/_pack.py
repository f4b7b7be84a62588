"""Numbers for the script of a page, small: rounded, their bytes sorted, deflated, as text."""

import base64
import json
import zlib

import numpy as np

# What a browser's HTML parser or JavaScript could take for an end, escaped inside JSON.
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def rounded(values, bits):
    """Single-precision numbers with so many bits of mantissa: relative errors of at most 2^-(bits + 1).

    Parameters
    ----------
    values : array-like of float
        NaN and infinities stay.
    bits : int in [1, 22]

    Returns
    -------
    rounded : ndarray of float32
    """
    values = np.array(values, dtype=np.float32, order="C")
    dropped = 23 - bits
    finite = np.isfinite(values)
    whole = values.view(np.uint32)
    # half of the last bit that stays is added, so that numbers are rounded, not cut
    nearest = (whole + np.uint32(1 << (dropped - 1))) & np.uint32(0xFFFFFFFF ^ ((1 << dropped) - 1))
    # the largest numbers must not become infinite
    keep = finite & np.isfinite(nearest.view(np.float32))
    whole[keep] = nearest[keep]
    # one NaN, whatever bits it came with: equal numbers give equal pages
    values[np.isnan(values)] = np.nan
    return values


def pack_numbers(values, bits=11):
    """Numbers for the script: every bit of a number less saves a byte in some six of them."""
    numbers = rounded(np.ravel(values), bits)
    # all signs and exponents together are alike, and deflate to little
    planes = numbers.astype("<f4").view(np.uint8).reshape(-1, 4).T
    return {
        "kind": "numbers",
        "length": len(numbers),
        "data": _deflated(np.ascontiguousarray(planes).tobytes()),
    }


def pack_codes(values):
    """Whole numbers from 0 to 255."""
    codes = np.ravel(values).astype(np.uint8)
    return {"kind": "codes", "length": len(codes), "data": _deflated(codes.tobytes())}


def pack_names(names):
    """Texts."""
    return {"kind": "names", "length": len(names), "data": _deflated(to_json(list(names)).encode("utf-8"))}


def to_json(value):
    """JSON that can stand in a page."""
    # NaN is no JSON, and would stop the script
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escaped in UNSAFE.items():
        text = text.replace(character, escaped)
    # what UTF-8 has no bytes for
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _deflated(content):
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")
