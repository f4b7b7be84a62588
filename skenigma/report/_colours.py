"""Colours of cell types and groups: the page's own, which fit light and dark, or those that an AnnData came with."""

import re

from ..checks.names import listing
from ..checks.warning import warn
from ..plotting._style import as_hex

N_COLOURS = 12
HEX = re.compile("#[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?")


def checked(colours):
    """Colours by name as a style sheet can hold them: nothing else of a file gets into it. None if there are none."""
    if colours is None:
        return None
    try:
        return {name: text if HEX.fullmatch(text) else as_hex(text) for name, text in colours.items()}
    except (ValueError, ImportError) as error:
        warn(f"The colours {listing(list(colours.values()))} are not used: {error}")
        return None


def type_slots(contents):
    """Number of the colour of each cell type, in the order of the proportions."""
    return _slots(len(contents.proportions.columns), N_COLOURS if contents.type_colours else None)


def group_slots(contents):
    """Number of the colour of each group, in their order."""
    groups = contents.groups
    return _slots(len(groups.classes), N_COLOURS + contents.proportions.shape[1] if groups.colours else None)


def _slots(count, first):
    return [number % N_COLOURS if first is None else first + number for number in range(count)]


def colour_rules(contents):
    """Rules that give the parts of charts their colours, by number."""
    rules = {number: f"var(--c{number})" for number in range(N_COLOURS)}
    if contents.type_colours:
        own = [contents.type_colours[name] for name in contents.proportions.columns]
        rules |= dict(zip(type_slots(contents), own, strict=True))
    if contents.groups is not None and contents.groups.colours:
        own = [contents.groups.colours[label] for label in contents.groups.classes]
        rules |= dict(zip(group_slots(contents), own, strict=True))
    return "".join(
        f".fill{n}{{fill:{c}}}.line{n}{{stroke:{c}}}.dot{n}{{fill:{c}}}.key{n}{{background:{c}}}"
        for n, c in rules.items()
    )
