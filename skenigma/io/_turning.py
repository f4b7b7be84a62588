"""Tables genes × samples of what is built by blocks of samples: turned on the disk, where it does not fit."""

import numpy as np
import pandas as pd

from ._writing import write_table, write_table_parts


def write_turned(build, samples, genes, path, *, max_bytes):
    """Write a table of genes × samples whose values are built by samples.

    Parameters
    ----------
    build : callable
        Values of some samples, given as a slice: samples × genes.
    samples, genes : Index
        Their names.
    path : Path
        Of the table. A file of the size of the values lies beside it meanwhile, where these take more than
        ``max_bytes``.
    max_bytes : int
        About as much as the values that are in memory may take.
    """
    shape, dtype = (len(samples), len(genes)), build(slice(0, 1)).dtype
    if shape[0] * shape[1] * dtype.itemsize <= max_bytes:
        frame = pd.DataFrame(build(slice(None)).T, genes.rename("gene"), samples)
        write_table(frame, path)
        return
    scratch = path.with_name(f".{path.name}.turned")
    try:
        with open(scratch, "wb") as file:
            for rows in _slices(shape[0], shape[1] * dtype.itemsize, max_bytes):
                file.write(np.ascontiguousarray(build(rows)).view(np.uint8).data)
        columns = _slices(shape[1], shape[0] * dtype.itemsize, max_bytes)
        write_table_parts((_part(scratch, dtype, some, samples, genes) for some in columns), path)
    finally:
        scratch.unlink(missing_ok=True)


def _part(scratch, dtype, some, samples, genes):
    """Some of the genes of all samples, genes × samples."""
    values = np.empty((len(samples), some.stop - some.start), dtype=dtype)
    # not mapped: pages of a map count as memory of the process
    with open(scratch, "rb", buffering=0) as file:
        for row, place in zip(values, range(len(samples)), strict=True):
            file.seek((place * len(genes) + some.start) * dtype.itemsize)
            file.readinto(row.view(np.uint8).data)
    return pd.DataFrame(np.ascontiguousarray(values.T), genes[some].rename("gene"), samples)


def _slices(count, size, max_bytes):
    step = max(1, int(max_bytes / size))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
