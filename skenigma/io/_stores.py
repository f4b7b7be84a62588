"""Expression as an AnnData in a Zarr store, written and read by blocks of samples."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .._version import __version__
from ..checks.names import numbered, refuse_repeats
from ..checks.optional import import_optional
from ._checksums import CHANGED
from ._fingerprint import fingerprint
from ._formats import layer_name
from ._journal import BEGUN, Remedies, progress_of, resumable, unfinished
from ._writing import check_layers, write_element

VALUES, STD = "cse_", "cse_std_"
MARK = "skenigma"  # among the attributes of a store
# Files at the root of a store that hold its attributes.
ROOTS = (".zattrs", ".zgroup", ".zmetadata", "zarr.json")
PARTIAL = ".partial"  # how files end that zarr had not written to their end
# Numbers in a chunk, a file of its own, of one layer.
CHUNK = 2**20


@dataclass(frozen=True)
class Plan:
    """What goes into a store.

    Attributes
    ----------
    expression : CellTypeExpression
    cell_types : list of str
        Which of them.
    samples : Index
        Names of the samples.
    bulk : matrix of shape (n_samples, n_genes), or None
        X, read by slices of rows.
    tables : dict of str to DataFrame
        Further entries of ``obsm``, samples × cell types.
    about : dict of str to str
        What is known of the fit: ``model``, its name, and ``shares_of``, what proportions are shares of.
    reference : DataFrame of shape (n_cell_types, n_genes), or None
        Profiles on the scale of the values, where all cell types are written.
    """

    expression: object
    cell_types: list
    samples: pd.Index
    bulk: object = None
    tables: Mapping | None = None
    about: Mapping = field(default_factory=dict)
    reference: pd.DataFrame | None = None

    @property
    def shape(self):
        """Numbers of samples and genes."""
        return self.expression.shape[0], self.expression.shape[2]

    def key(self):
        """Checksum of what decides the result: names of the model and the like describe it, and do not count."""
        found = self.expression
        names = found.cell_types, found.gene_names, self.samples, self.cell_types
        return fingerprint(
            *(__version__, names, found.proportions, found.scale, found.level),
            *(dict(self.tables or {}), self.bulk, found.source),
        )

    def arrays(self):
        """Names of the arrays that are written by blocks, and their types."""
        one = {"samples": slice(0, 1), "cell_types": self.cell_types[:1]}
        found = {} if self.bulk is None else {"X": self.bulk.dtype}
        for prefix, build in self._quantities():
            names = self.layers(prefix)
            found |= dict.fromkeys((f"layers/{name}" for name in names), build(**one).dtype)
        return found

    def block(self, rows):
        """Values of some samples, in the order of the arrays."""
        if self.bulk is not None:
            yield np.asarray(self.bulk[rows])
        for _, build in self._quantities():
            values = build(samples=rows, cell_types=self.cell_types)
            yield from (np.ascontiguousarray(values[:, k]) for k in range(values.shape[1]))

    def layers(self, prefix):
        """Names of the layers of a quantity."""
        return [prefix + layer_name(kind) for kind in self.cell_types]

    def _quantities(self):
        found = [(VALUES, self.expression.values)]
        return found + ([(STD, self.expression.std)] if self.expression.has_std else [])

    def annotation(self):
        """What is small: the elements of an AnnData by name."""
        found = self.expression
        samples = pd.Index(self.samples, dtype=object)
        obs = pd.DataFrame(index=samples)
        if found.level is not None:
            obs["level"] = found.level
        shares = pd.DataFrame(found.proportions, samples, list(found.cell_types))
        tables = {"proportions": shares, **(self.tables or {})}
        profiles = {}
        if self.reference is not None:
            profiles["reference"] = self.reference.T.set_axis(found.gene_names).rename(columns=layer_name)
        return {
            "obs": obs,
            "var": pd.DataFrame(index=pd.Index(found.gene_names, dtype=object)),
            "obsm": {
                name: table.rename(columns=layer_name).rename_axis(None) for name, table in tables.items()
            },
            "varm": {name: table.rename_axis(None, axis=1) for name, table in profiles.items()},
            "uns": {
                MARK: {
                    # under the names, and with the texts for what is not known, of skenigma.anndata.deconvolve
                    **{"model": "", "shares_of": "", **self.about},
                    "params": {"preprocess": str(found.source.std_scale)},
                    "bulk_layer": "None",
                    "version": __version__,
                    "cell_types": np.array(self.cell_types, dtype=object),
                    "layers": np.array(self.layers(VALUES), dtype=object),
                    "std_layers": np.array(self.layers(STD) if found.has_std else [], dtype=object),
                }
            },
            "layers": {},
        }


def plan_of(expression, *, sample_names=None, bulk=None, cell_types=None, **others):
    """Plan of a store, its names and shapes checked."""
    names = expression.sample_names if sample_names is None else sample_names
    n_samples, _, n_genes = expression.shape
    if names is None:
        names = numbered("sample", n_samples, start=1)
    names = pd.Index([str(name) for name in names], dtype=object)
    if len(names) != n_samples:
        raise ValueError(f"sample_names has {len(names)} names, but there are {n_samples} samples.")
    refuse_repeats(names, "Samples", "Give sample_names that differ.")
    refuse_repeats(expression.gene_names, "Genes", "Rename or sum the repeated ones before the fit.")
    cell_types = list(expression.cell_types) if cell_types is None else list(cell_types)
    check_layers(list(expression.cell_types), "Zarr store")
    if bulk is not None:
        bulk = _matched_bulk(bulk, (n_samples, n_genes), expression)
    return Plan(expression, cell_types, names, bulk, **others)


def _matched_bulk(bulk, shape, expression):
    if isinstance(bulk, pd.DataFrame):
        if list(bulk.columns) != list(expression.gene_names):
            raise ValueError("bulk must have the genes of the expression, in their order: bulk[gene_names].")
        bulk = bulk.to_numpy()
    elif not hasattr(bulk, "shape"):
        bulk = np.asarray(bulk)
    if tuple(bulk.shape) != shape:
        raise ValueError(f"bulk must be of shape {shape}, samples × genes, got {tuple(bulk.shape)}.")
    return bulk


def write_store(plan, store, *, max_bytes, same="keep", other="refuse", progress=None, remedies=None):
    """Write a plan as a Zarr store, going on where an earlier process ended.

    Parameters
    ----------
    plan : Plan
    store : str or path-like
    max_bytes : int
        About as much as the values of one block may take.
    same : {"keep", "replace"}
    other : {"refuse", "replace"}
        What to do with what is there: see :func:`~skenigma.io._journal.resumable`.
    progress : callable, default=None
        Called with the number of blocks that are complete, and of all.
    remedies : Remedies, default=None
        How to go on, for messages.
    """
    zarr = import_optional("zarr", "zarr", "A Zarr store")
    import_optional("anndata", "zarr", "A Zarr store")
    path = check_store_path(store)
    if not max_bytes > 0:
        raise ValueError(f"max_bytes must be a positive number of bytes, got {max_bytes!r}.")
    n_samples, n_genes = plan.shape
    rows = _rows_of_block(max_bytes, len(plan.cell_types), n_genes)
    facts = {"rows": rows, "n_blocks": -(-n_samples // rows), "format": _zarr_format(zarr)}
    how = {"is_own": own_key, "same": same, "other": other, "remedies": remedies}
    with resumable(path, plan.key(), facts, **how) as work:
        if work is None:
            return
        _check_rows(work, rows, remedies or Remedies())
        _begin(work, plan)
        _write_blocks(work, plan, progress)
        _complete(work)


def _rows_of_block(max_bytes, n_cell_types, n_genes):
    return max(1, int(max_bytes / (8 * n_cell_types * n_genes)))


def _check_rows(work, rows, remedies):
    """Refuse to go on with blocks that are larger than asked for."""
    if work.facts["rows"] > rows:
        raise ValueError(
            f"{work.folder} was begun with blocks of {work.facts['rows']:,} samples, which take more memory than the "
            f"{rows:,} asked for now: allow as much as before, or begin anew with {remedies.anew}."
        )


def check_store_path(store):
    """Path of a store; refused if it is none of a folder of this machine."""
    if not isinstance(store, str | os.PathLike) or "://" in str(store):
        raise ValueError(
            f"store must be the path of a folder, got {store!r}: write it to a disk here, and copy it to its place."
        )
    return Path(store)


def _zarr_format(zarr):
    """Format that AnnData writes with what is installed, so that it reads it, too."""
    if int(zarr.__version__.split(".")[0]) < 3:
        return 2
    anndata = import_optional("anndata", "zarr", "A Zarr store")
    return int(getattr(getattr(anndata, "settings", None), "zarr_write_format", 2))


def open_group(path, mode="r", form=None):
    """Group of Zarr in a folder."""
    zarr = import_optional("zarr", "zarr", f"Opening {path}")
    format_of = {} if form is None or int(zarr.__version__.split(".")[0]) < 3 else {"zarr_format": form}
    return zarr.open_group(str(path), mode=mode, **format_of)


def _begin(work, plan):
    """Write what is small, and the arrays without their values; or tidy up what was begun."""
    if BEGUN in work.done:
        for left in work.path.rglob(f"*{PARTIAL}"):
            left.unlink()
        return
    group = open_group(work.path, "w", work.facts["format"])
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    with warnings.catch_warnings():
        # what AnnData will do by default some day makes no difference to what is small
        warnings.filterwarnings("ignore", message=".*autosharding", category=UserWarning)
        for name, element in plan.annotation().items():
            write_element(group, name, element)
    n_genes = plan.shape[1]
    chunks = (work.facts["rows"], max(1, min(n_genes, CHUNK // work.facts["rows"])))
    for name, dtype in plan.arrays().items():
        create = getattr(group, "create_array", None) or group.create_dataset
        array = create(name, shape=plan.shape, chunks=chunks, dtype=dtype, fill_value=0)
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    work.note(BEGUN, "")


def _write_blocks(work, plan, progress):
    """Write the blocks that are not there, or not as they were written."""
    group = open_group(work.path, "r+")
    arrays = [group[name] for name in plan.arrays()]
    size, n_blocks = work.facts["rows"], work.facts["n_blocks"]
    for number in range(n_blocks):
        rows, part = slice(number * size, min((number + 1) * size, plan.shape[0])), str(number)
        if part in work.done and not _is_there(arrays, rows, work.done[part]):
            del work.done[part]
        if part not in work.done:
            work.note(part, _checksum(_written(arrays, rows, plan.block(rows))))
        if progress is not None:
            progress(number + 1, n_blocks)


def _is_there(arrays, rows, checksum):
    """Whether a block is as it was written."""
    try:
        return _checksum(array[rows] for array in arrays) == checksum
    except Exception:  # what the libraries of each way of packing raise for damaged files is of many kinds
        return False


def _written(arrays, rows, blocks):
    """The blocks of arrays, each as soon as it is written."""
    for array, block in zip(arrays, blocks, strict=True):
        array[rows] = block
        yield block


def _checksum(blocks):
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(np.ascontiguousarray(block).view(np.uint8).data)
    return digest.hexdigest()


def _complete(work):
    """Mark a store as complete."""
    zarr = import_optional("zarr", "zarr", "A Zarr store")
    files, size = _extent(work.path)
    mark = {"key": work.facts["key"], "files": files, "bytes": size}
    open_group(work.path, "r+").attrs[MARK] = mark
    with warnings.catch_warnings():
        # format 3 has consolidated metadata as an extension, which every reader may ignore
        warnings.filterwarnings("ignore", message=".*onsolidated metadata")
        zarr.consolidate_metadata(str(work.path))


def own_key(folder):
    """Key of a complete store that this package wrote and nobody changed since; None of anything else."""
    mark = (_root_attributes(folder) or {}).get(MARK)
    if not isinstance(mark, dict) or (mark.get("files"), mark.get("bytes")) != _extent(folder):
        return None
    return mark.get("key")


def _root_attributes(folder):
    """Attributes of a group of Zarr in a folder, None where there is none."""
    try:
        if (folder / "zarr.json").is_file():
            return json.loads((folder / "zarr.json").read_text("utf-8")).get("attributes", {})
        return json.loads((folder / ".zattrs").read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _extent(folder):
    """Number of files and bytes in a store, without what its root says of itself."""
    counted = [path for path in store_files(folder) if path.parent != folder or path.name not in ROOTS]
    sizes = [path.stat().st_size for path in counted]
    return len(sizes), sum(sizes)


def is_store(path):
    """Whether a folder is an AnnData in Zarr."""
    return (_root_attributes(Path(path)) or {}).get("encoding-type") == "anndata"


def store_files(folder):
    """All files in a folder, sorted by name."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def read_store(path):
    """The AnnData in a store, in memory."""
    import_optional("zarr", "zarr", f"Reading {path}")
    anndata = import_optional("anndata", "zarr", f"Reading {path}")
    before = _states(path)
    try:
        found = anndata.read_zarr(path)
    except Exception as error:  # zarr and anndata raise many kinds for what is damaged
        raise ValueError(f"{path} cannot be read as AnnData: {error}") from error
    if _states(path) != before:
        raise ValueError(CHANGED.format(path))
    return found


def _states(folder):
    return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in store_files(folder)]


def check_complete(path):
    """Refuse a store that is being written, or whose writing was cut short."""
    folder = unfinished(path)
    if folder is None or Path(path).exists():
        return
    raise ValueError(
        f"{path} is not complete: {progress_of(folder)} are written in {folder}. Go on with what wrote it: "
        f"they are kept."
    )


class StoredLayers(Mapping):
    """Layers of a store as tables samples × genes by cell type, each read when it is asked for.

    Parameters
    ----------
    path : str or path-like
    prefix : {"cse_", "cse_std_"}
    """

    def __init__(self, path, prefix=VALUES):
        check_complete(path)
        import_optional("anndata", "zarr", f"Reading {path}")
        self._group, self._prefix = open_group(path), prefix
        self._samples, self.genes = (read_element(self._group[name]).index for name in ("obs", "var"))
        self._kinds = [str(kind) for kind in read_element(self._group["uns"][MARK])["cell_types"]]

    def __getitem__(self, kind):
        if kind not in self._kinds:
            raise KeyError(kind)
        values = self._group["layers"][self._prefix + layer_name(kind)][:]
        return pd.DataFrame(values, self._samples, self.genes)

    def __iter__(self):
        return iter(self._kinds)

    def __len__(self):
        return len(self._kinds)


def read_element(element):
    """What an element of an AnnData in HDF5 or Zarr holds."""
    try:
        from anndata.io import read_elem
    except ImportError:  # before version 0.11
        from anndata.experimental import read_elem
    return read_elem(element)
