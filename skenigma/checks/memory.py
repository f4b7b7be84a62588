"""How much memory there is, and whether what is asked for fits."""

import math
from pathlib import Path

UNITS = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"))
# A group of processes without a limit shows a number like this one, of pages below 2**63.
UNLIMITED = 2**60
# Bytes for which nothing is asked: to look at the limits takes as long as a small fit.
SMALL = 2**26
# What to do where expression does not fit.
SMALLER = (
    "Fit with materialize=False and ask for parts of expression_, pass float32, or ask for fewer cell types "
    "(output_cell_types), genes or samples."
)


def check_memory(size, what, remedy):
    """Refuse, before the work, what cannot fit.

    Parameters
    ----------
    size : int
        Bytes that are needed at once.
    what : str
        What needs them: the subject of the message.
    remedy : str
        What to do: a sentence.

    Raises
    ------
    MemoryError
        If there is less memory; the message says how much is needed and how much there is.
    """
    if size <= SMALL:
        return
    free = available_memory()
    if free is not None and size > free:
        raise MemoryError(f"{what} needs {readable(size)}, but {readable(free)} are available. {remedy}")


def check_result(shape, itemsize, what="The expression", remedy=SMALLER):
    """Refuse expression, of shape (n_samples, n_cell_types, n_genes), that cannot be held."""
    n_samples, n_cell_types, n_genes = shape
    check_memory(
        math.prod(shape) * itemsize,
        f"{what} of {n_samples:,} samples, {n_cell_types:,} cell types and {n_genes:,} genes",
        remedy,
    )


def readable(size):
    """A number of bytes for a message."""
    for unit, name in UNITS:
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 2**10:,.1f} kB"


def available_memory(root="/"):
    """Bytes that this process may still take: the least of what the machine and each limit leave.

    Parameters
    ----------
    root : str or path-like, default="/"
        Where the system shows itself.

    Returns
    -------
    size : int or None
        None where the system does not tell.
    """
    root = Path(root)
    found = [_free(root / "proc"), *_left_to_groups(root), _left_of_addresses(root / "proc")]
    return min((size for size in found if size is not None), default=None)


def _free(proc):
    """Memory that can be had without swapping."""
    return _table(proc / "meminfo").get("MemAvailable")


def _left_to_groups(root):
    """What the limits of each control group that the process is in, of either version, leave."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        mount = root / "sys/fs/cgroup"
        if number == "0":
            # beside groups of the first version those of the second have a folder of their own
            for place in (mount, mount / "unified"):
                yield from _left(place, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            yield from _left(
                mount / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
            )


def _left(mount, path, limit, used, prefix):
    """Limits minus use of a group and of all above it: each of them holds."""
    # within a container the path is that of the host, and the group is what is mounted
    parts = [part for part in path.split("/") if part]
    for length in range(len(parts), -1, -1):
        group = mount.joinpath(*parts[:length])
        largest, taken = _number(group / limit), _number(group / used)
        if largest is not None and taken is not None and largest < UNLIMITED:
            # files that were read count as use, and make room when it is needed
            files = _table(group / "memory.stat", unit=1)
            cached = sum(files.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
            yield max(largest - taken + cached, 0)


def _left_of_addresses(proc):
    """What ``ulimit -v`` leaves."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _text(proc / "self/statm").split()
    if limit in (resource.RLIM_INFINITY, -1) or not pages:
        return None
    return max(limit - int(pages[0]) * resource.getpagesize(), 0)


def _table(path, unit=2**10):
    """Numbers by name, of a file of lines "name number"."""
    rows = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) * unit for row in rows if len(row) > 1 and row[1].isdigit()}


def _number(path):
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path):
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
