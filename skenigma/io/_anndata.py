"""Matrices with annotation: AnnData, what 10x and loom write, each as AnnData; and expression in them as a frame."""

import gzip
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import io as scipy_io
from scipy import sparse

from ..checks.names import listing
from ..checks.optional import import_optional
from ._checksums import unchanged_input

# Columns of a loom file that name its rows and columns, the first that is there.
LOOM_GENES = ("Gene", "gene_names", "var_names", "Accession", "gene_ids")
LOOM_CELLS = ("CellID", "cell_names", "obs_names", "Cell", "barcodes")
GENE_EXPRESSION = "Gene Expression"
# Files of a folder that cellranger wrote, without what packing adds.
MATRIX, BARCODES, FEATURES = "matrix.mtx", "barcodes.tsv", ("features.tsv", "genes.tsv")


def read_annotated(path, kind, notes):
    """AnnData in a file of a kind that holds it, or can be one."""
    if kind.name == "10x":
        return _read_10x(path, notes)
    if kind.name == "loom":
        return _read_loom(path, notes)
    return read_anndata(path)


@unchanged_input
def read_anndata(path):
    """The AnnData in an ``.h5ad`` file."""
    anndata = import_optional("anndata", "anndata", f"Reading {path}")
    try:
        with warnings.catch_warnings():
            # names that repeat are refused by name where they matter
            warnings.filterwarnings("ignore", message="(Observation|Variable) names are not unique")
            return anndata.read_h5ad(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except Exception as error:  # h5py and anndata raise many kinds for a file that is not theirs
        raise ValueError(f"{path} cannot be read as AnnData: {error}") from error


def expression_of(data, path, choices, notes):
    """Expression in an AnnData, as a frame samples × genes with the names that were asked for."""
    frame = _layer(data, path, choices.layer)
    if choices.gene_column is None:
        return frame
    var = data.raw.var if choices.layer == "raw" else data.var
    if choices.gene_column not in var:
        others = listing([str(name) for name in var]) or "none"
        raise ValueError(f"{path}: var has no column '{choices.gene_column}'. It has {others}.")
    names = var[choices.gene_column].astype(object)
    named = (names.notna() & (names.astype(str).str.strip() != "")).to_numpy()
    notes.append(f"took the names of genes from var column '{choices.gene_column}'")
    if not named.all():
        notes.append(f"left out {int((~named).sum()):,} genes without a name there")
        frame, names = frame.loc[:, named], names[named]
    frame = frame.copy(deep=False)  # set_axis copies the values in pandas before 3.0
    frame.columns = pd.Index(names.astype(str), dtype=object)
    return frame


def _layer(data, path, layer):
    """One matrix of an AnnData as a frame; a ValueError where there is none, or X is known to be a logarithm."""
    layers = [str(name) for name in data.layers if name is not None]
    others = listing([*layers, *([] if data.raw is None else ["raw"])]) or "no layer, and no raw"
    if layer == "raw" and data.raw is not None and "raw" not in layers:
        return pd.DataFrame(_dense(data.raw.X), index=data.obs_names, columns=data.raw.var_names)
    if layer not in (None, "X"):
        if layer not in layers:
            raise ValueError(f"{path} has no layer '{layer}'. It has: {others}.")
        return data.to_df(layer=layer)
    if data.X is None:
        raise ValueError(f"{path} has no X. Choose a layer; it has: {others}.")
    frame = data.to_df()
    refusal = layer_refusal(path, layer, "log1p" in data.uns, others)
    if refusal is not None and not _are_whole(frame.to_numpy()):
        raise ValueError(refusal)
    return frame


def layer_refusal(path, layer, logged, others):
    """What speaks against X where nobody chose it and ``uns`` says that it holds logarithms; None if nothing does."""
    if layer is not None or not logged:
        return None
    return (
        f"{path}: uns['log1p'] says that X holds logarithms, and mixtures add up before the logarithm. Choose a "
        f"layer of counts or untransformed values, or 'X' to take X as it is; the file has: {others}."
    )


def _dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def _are_whole(values):
    return values.dtype.kind in "iu" or bool(np.array_equal(values, np.rint(values)))


@unchanged_input
def _read_10x(path, notes):
    """Counts of cells in the ``.h5`` file of cellranger, version 2 or later."""
    h5py = import_optional("h5py", "anndata", f"Reading {path}")
    with h5py.File(path, "r") as file:
        groups = [name for name in file if "barcodes" in file[name]]
        if len(groups) > 1:
            raise ValueError(
                f"{path} holds cells of several genomes: {listing(groups)}. Write one of them as .h5ad."
            )
        group = file[groups[0]]
        matrix = sparse.csc_matrix(
            (group["data"][:], group["indices"][:], group["indptr"][:]), shape=tuple(group["shape"][:])
        )
        features = group.get("features", group)
        ids, symbols = ("id", "name") if "features" in group else ("genes", "gene_names")
        var = pd.DataFrame({"gene_ids": _texts(features[ids])}, index=_texts(features[symbols]))
        if "feature_type" in features:
            var["feature_types"] = _texts(features["feature_type"])
        return _cells(matrix, _texts(group["barcodes"]), var, "a 10x file", notes)


def read_10x_folder(folder, notes):
    """Counts of cells in a folder of cellranger, or None if the folder is none."""
    parts = mtx_files(folder)
    if parts is None:
        return None
    matrix, barcodes, features = parts
    names, genes = _read_names(barcodes), _read_names(features)
    values = _read_mtx(matrix)
    if values.shape != (len(genes), len(names)):
        raise ValueError(
            f"{matrix} is of {values.shape[0]} × {values.shape[1]}, but {features.name} names {len(genes)} genes and "
            f"{barcodes.name} {len(names)} cells: these files do not belong to one matrix."
        )
    var = pd.DataFrame({"gene_ids": genes[0].to_numpy()}, index=genes[min(1, genes.shape[1] - 1)].to_numpy())
    if genes.shape[1] > 2:
        var["feature_types"] = genes[2].to_numpy()
    return _cells(values, names[0].to_numpy(), var, "a 10x folder", notes)


def mtx_files(folder):
    """Matrix, barcodes and features in a folder, or None."""
    found = [_packed_or_not(folder, names) for names in ((MATRIX,), (BARCODES,), FEATURES)]
    return None if None in found else found


def _packed_or_not(folder, names):
    paths = (Path(folder, name + end) for name in names for end in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


@unchanged_input
def _read_mtx(path):
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            return sparse.csc_matrix(scipy_io.mmread(file))
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read as MatrixMarket: {error}") from error


@unchanged_input
def _read_names(path):
    return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)


def _cells(matrix, barcodes, var, what, notes):
    """AnnData of cells × genes from a matrix genes × cells."""
    anndata = import_optional("anndata", "anndata", "Reading cells")
    notes.append(f"read as {what}, genes by symbol (gene column 'gene_ids' has their identifiers)")
    if "feature_types" in var:
        genes = (var["feature_types"] == GENE_EXPRESSION).to_numpy()
        if not genes.all():
            kinds = listing(list(var["feature_types"][~genes].unique()))
            notes.append(f"left out {int((~genes).sum()):,} features that are not genes: {kinds}")
            matrix, var = matrix[genes], var[genes]
    return anndata.AnnData(sparse.csr_matrix(matrix.T), obs=pd.DataFrame(index=barcodes), var=var)


@unchanged_input
def _read_loom(path, notes):
    """A loom file: a matrix genes × cells, with attributes of both, and layers."""
    anndata = import_optional("anndata", "anndata", f"Reading {path}")
    h5py = import_optional("h5py", "anndata", f"Reading {path}")
    with h5py.File(path, "r") as file:
        var, obs = _attributes(file["row_attrs"]), _attributes(file["col_attrs"])
        layers = {name: sparse.csr_matrix(file["layers"][name][:].T) for name in file.get("layers", ())}
        matrix = sparse.csr_matrix(file["matrix"][:].T)
    var, genes = _named_by(var, LOOM_GENES, path, "rows")
    obs, cells = _named_by(obs, LOOM_CELLS, path, "columns")
    notes.append(f"read as loom, genes by '{genes}', columns by '{cells}'")
    return anndata.AnnData(matrix, obs=obs, var=var, layers=layers)


def _attributes(group):
    return pd.DataFrame({name: _texts(group[name]) for name in group if group[name].ndim == 1})


def _named_by(frame, names, path, what):
    name = next((name for name in names if name in frame), None)
    if name is None:
        raise ValueError(
            f"{path} is a loom file whose {what} have no names: none of {listing(list(names))} is there."
        )
    return frame.set_index(frame[name].astype(str).rename(None)), name


def _texts(dataset):
    """Values of an HDF5 data set, bytes as texts."""
    values = dataset[:]
    if values.dtype.kind in "SO":
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=object)
    return values
