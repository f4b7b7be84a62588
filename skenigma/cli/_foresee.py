"""What would end a run when its results are written, found before they are computed."""

import shutil

from ..checks.memory import readable
from ..checks.optional import import_optional
from ..io._writing import check_layers

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

# Bytes of a number of double precision by format: the fewest that are possible, and what expression usually takes
# (measured on simulated cohorts). Compressed, zeros take next to nothing.
SIZES = {"h5ad": (8, 8), "parquet": (0, 8), "tsv": (4, 18), "csv": (4, 18), "gzip": (0, 8), "zarr": (0, 8)}
PACKAGES = {"h5ad": ("anndata", "anndata"), "parquet": ("pyarrow.parquet", "cli"), "zarr": ("zarr", "zarr")}


def foresee(job, names, cell_types, count):
    """Refuse a format whose package is missing, names that no file can have, and a disk without room.

    Parameters
    ----------
    job : Job
    names : list of str
        Files of the expression, in the folder of the job. They are made, empty, if they are no stores.
    cell_types : list of str
        All that appear in them.
    count : int
        Numbers in each file.
    """
    form = job.options["format"]
    if form in PACKAGES:
        import_optional(*PACKAGES[form], f"Writing .{form}")
    if form in ("h5ad", "zarr"):
        check_layers(cell_types, names[0])
    for name in names if form != "zarr" else ():
        path = job.folder / name
        path.parent.mkdir(exist_ok=True)
        # a name that the file system refuses ends the run here, and not after the fit
        path.touch()
    _check_room(job, len(names), count, form)


def _check_room(job, files, count, form):
    least, usual = SIZES["gzip" if job.options.get("gzip") else form]
    if job.options.get("float32") and form == "h5ad":
        least, usual = least // 2, usual // 2
    free = shutil.disk_usage(job.folder).free
    largest = float("inf") if form == "zarr" else _largest_file()  # a store is many files
    for size, room, what in (
        (files * count, free, f"{job.options['out']} has {readable(free)} left on its disk"),
        (count, largest, f"a file may have {readable(largest)} at most here (ulimit -f)"),
    ):
        advice = "choose another --out or a smaller --format, or fewer --cell-types"
        if size * least > room:
            raise ValueError(f"The expression takes {readable(size * least)} or more, but {what}: {advice}.")
        if size * usual > room:
            job.console.warn(f"The expression takes about {readable(size * usual)}, but {what}: {advice}.")


def _largest_file():
    if resource is None:
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit
