"""``run.json``: what a record must hold, so that whatever reads one can rely on it."""

import json
import os
import re
import stat
from pathlib import PurePosixPath, PureWindowsPath

from ._checksums import note_content

RECORD = "run.json"
RECORD_VERSION = 1
# A record has a few lines per file and cell type: what is larger or deeper is something else.
MOST_BYTES, MOST_LEVELS = 2**25, 32
SHOWN = 60
COMMANDS = (
    "reference",
    "batch",
    "proportions",
    "deconvolve",
    "transform",
    "reliability",
    "differential",
    "simulate",
)


def load_record(path):
    """Read a ``run.json`` and check it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    record : dict

    Raises
    ------
    ValueError
        If it is not a record of skenigma, or a damaged one; the message names the first entry that cannot be.
    OSError
        If it cannot be read.
    """
    return parse_record(_content(path), path)


def parse_record(content, path):
    """Record in the bytes of a file; ``path`` is for messages."""
    try:
        record = json.loads(
            content.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError(f"{path} is not a record of skenigma: it is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict) or "skenigma_run" not in record:
        raise ValueError(f"{path} was not written by skenigma: it has no entry skenigma_run.")
    version = record["skenigma_run"]
    if type(version) is not int or version != RECORD_VERSION:
        raise ValueError(
            f"{path} is a record of version {_shown(version)}, and this skenigma reads version {RECORD_VERSION}: use "
            f"the version of skenigma that wrote it."
        )
    if _levels(record) > MOST_LEVELS:
        raise ValueError(f"{path} is not a record of skenigma: it is nested too deeply.")
    try:
        _check_record(record, "")
    except MismatchError as error:
        raise ValueError(f"{path} is damaged, or no record of skenigma: {error}.") from None
    return record


def _content(path):
    # a pipe by that name would wait for ever
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a regular file.")
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is not a record of skenigma: it is larger than {MOST_BYTES:,} bytes.")
    note_content(path, status, content)
    return content


def _distinct(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the entry {_shown(repeated)} is there twice")
    return found


def _refuse_constant(name):
    raise ValueError(f"{name} is not a number in JSON")


def _levels(value):
    """How deep a value is nested, counted without a call per level."""
    level, values = 0, [value]
    while values and level <= MOST_LEVELS:
        level += 1
        inner = [entry.values() if isinstance(entry, dict) else entry for entry in values]
        values = [entry for entries in inner for entry in entries if isinstance(entry, (dict, list))]
    return level


class MismatchError(Exception):
    """An entry is not what it must be."""


def _shown(value):
    """A value, shortened for a message."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


# A rule is a function of a value and of the name of its place; it raises MismatchError.


def one(what, holds):
    """Rule: a value for which ``holds`` is true."""

    def rule(value, place):
        if not holds(value):
            raise MismatchError(f"'{place}' is {_shown(value)}, not {what}")

    return rule


def list_of(entry):
    """Rule: a list whose entries meet a rule."""

    def rule(value, place):
        _a_list(value, place)
        for position, inner in enumerate(value):
            entry(inner, f"{place}[{position}]")

    return rule


def dict_of(entry, name=None):
    """Rule: an object whose values meet a rule, and whose names another."""

    def rule(value, place):
        _an_object(value, place)
        for key, inner in value.items():
            if name is not None:
                name(key, place)
            entry(inner, f"{place}.{key}".lstrip("."))

    return rule


def entries(required=None, optional=None):
    """Rule: an object with entries of these names, and possibly others."""
    required, optional = required or {}, optional or {}

    def rule(value, place):
        _an_object(value, place)
        for key, inner in {**required, **optional}.items():
            at = f"{place}.{key}".lstrip(".")
            if key in value:
                inner(value[key], at)
            elif key in required:
                raise MismatchError(f"it has no entry '{at}'")

    return rule


def either(first, second):
    """Rule: one of two; the message is of the second."""

    def rule(value, place):
        try:
            first(value, place)
        except MismatchError:
            second(value, place)

    return rule


def _is_natural(value):
    return type(value) is int and 0 <= value < 2**63


def _is_path(value):
    return isinstance(value, str) and value != "" and "\0" not in value


def is_inside(name):
    """Whether the name of a file leads nowhere but into the folder that it is given in."""
    if not _is_path(name) or PureWindowsPath(name).drive or "\\" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name != "."


_an_object = one("an object", lambda value: isinstance(value, dict))
_a_list = one("a list", lambda value: isinstance(value, list))
ANYTHING = entries()
TEXT = one("a text", lambda value: isinstance(value, str))
TEXTS = list_of(TEXT)
NATURAL = one("a whole number", _is_natural)
PATH = one("a path", _is_path)
INSIDE = one("the name of a file in the folder", is_inside)
FLAG = one("true, false or null", lambda value: value is None or isinstance(value, bool))
CHECKSUM = one(
    "a SHA-256 checksum",
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
)
FILE = {"size": NATURAL, "sha256": CHECKSUM}
INPUT = entries({"path": PATH, **FILE})
FILLED = one("names of files", lambda value: len(value) > 0)
DATA = entries({"bulk": INPUT, "reference": INPUT})
TOTAL = one(
    "a positive number or null",
    lambda value: value is None or (type(value) in (int, float) and 0 < value < float("inf")),
)
UNDERSTOOD = entries(
    {"n_samples": NATURAL, "n_genes_shared": NATURAL, "cell_types": TEXTS},
    {"one_scale": entries(optional={"total": TOTAL})},
)
ROWS = {
    "bulk_rows": one("genes or samples", lambda value: value in ("genes", "samples")),
    "reference_rows": one("genes or cell-types", lambda value: value in ("genes", "cell-types")),
}
OR_NULL = one("a text or null", lambda value: value is None or isinstance(value, str))
FITTED = {
    "model": TEXT,
    "method": TEXT,
    "proportion_method": OR_NULL,
    "length_column": OR_NULL,
    "float32": FLAG,
    "threads": NATURAL,
}
# What differs between the commands: what the other commands and the report take from their records.
BY_COMMAND = {
    "proportions": entries(
        {
            "inputs": DATA,
            "understood": UNDERSTOOD,
            "options": entries(ROWS, FITTED),
            "result": entries({"method": TEXT}, {"n_iter": NATURAL, "shares_of": TEXT}),
        }
    ),
    "deconvolve": entries(
        {
            "inputs": DATA,
            "understood": UNDERSTOOD,
            "options": entries({**ROWS, "parameters": ANYTHING}, FITTED),
            # not every model iterates, and not every one has deviations
            "result": entries(
                {"model": TEXT},
                {"n_iter": NATURAL, "converged": FLAG, "resolved": ANYTHING, "shares_of": TEXT},
            ),
            "files": entries(
                {"expression": FILLED}, {"expression_normalized": FILLED, "expression_std": FILLED}
            ),
        }
    ),
}
GENERAL = entries(
    {
        "command": one("a command of skenigma", lambda value: value in COMMANDS),
        "date": TEXT,
        "argv": TEXTS,
        "versions": dict_of(TEXT),
        "options": entries(optional={"parameters": ANYTHING}),
        "seeds": ANYTHING,
        "inputs": dict_of(INPUT),
        "understood": ANYTHING,
        "result": ANYTHING,
        "warnings": TEXTS,
        "files": dict_of(either(INSIDE, dict_of(INSIDE))),
        "outputs": dict_of(entries(FILE), INSIDE),
    },
    # of tables of numbers; records of older versions know of pandas only
    {"writer": one("polars or pandas", lambda value: value in ("polars", "pandas"))},
)


def _check_record(record, place):
    """Rule: a whole record."""
    GENERAL(record, place)
    BY_COMMAND.get(record["command"], ANYTHING)(record, place)
    listed = record["outputs"]
    for kind, files in record["files"].items():
        for name in [files] if isinstance(files, str) else files.values():
            if name not in listed:
                raise MismatchError(f"'files.{kind}' names {_shown(name)}, which 'outputs' does not list")
