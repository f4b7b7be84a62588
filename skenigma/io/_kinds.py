"""What a file is, by its first bytes: the end of a name says what was meant, the bytes say what is there."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..checks.names import listing
from ..checks.optional import import_optional

# Bytes at the start that tell kinds apart.
HEAD = 4096
PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
OPENERS = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
# What unpacking raises where the bytes are damaged.
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, OSError)
ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
HDF5 = b"\x89HDF\r\n\x1a\n"
WRITE_FROM_R = (
    "write the table from R: write.table(x, 'table.tsv', sep = '\\t', quote = FALSE, col.names = NA)"
)
# Formats that are known and not read, by the bytes at their start, each with what to do.
REFUSED = {
    b"X\n\x00\x00\x00": f"an R object (.rds): {WRITE_FROM_R}",
    b"RDX": f"R data (.RData): {WRITE_FROM_R}",
    b"RDA": f"R data (.RData): {WRITE_FROM_R}",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls): save it as .xlsx, or better as text with tabs",
    b"ARROW1": "a Feather file (Arrow IPC): write it as Parquet, pandas.read_feather(…).to_parquet(…)",
    b"%%MatrixMarket": "a MatrixMarket matrix (.mtx), which has no names: give the folder that holds it with "
    "barcodes.tsv and features.tsv",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it first, zstd -d",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive: unpack it first",
    b"BAM\x01": "a BAM file of alignments: count the reads of each gene first, with featureCounts for example",
    b"%PDF": "a PDF document: give the table itself",
    b"<!doctype html": "a web page, not a table: the download went wrong",
    b"<html": "a web page, not a table: the download went wrong",
}
TAR = "a tar archive: unpack it, and give the folder"
# Kinds of HDF5 files, by names that they hold at their root.
HDF5_REFUSED = {
    "est_counts": "kallisto's abundance.h5: give the abundance.tsv beside it",
    "mod": "a MuData file (.h5mu): write one modality as .h5ad, mudata.read(…).mod['rna'].write_h5ad(…)",
    "meta": "an HDF5 file of ARCHS4: write the samples that you need as a table, with archs4py for instance",
}
# Ends of names whose formats are no text; a text by such a name is a mistake.
BINARY = {
    ".h5ad": "AnnData",
    ".parquet": "Parquet",
    ".xlsx": "an Excel workbook",
    ".loom": "loom",
    ".h5": "HDF5",
}


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Attributes
    ----------
    name : {"text", "parquet", "h5ad", "10x", "loom", "xlsx"}
    packing : {None, "gzip", "bzip2", "xz"}
        Of a text.
    encoding : str
        Of a text.
    """

    name: str
    packing: str | None = None
    encoding: str = "utf-8-sig"


def find_kind(path):
    """Kind of a file; a ValueError says which known format is not read, and what to do."""
    path = Path(path)
    with open(path, "rb") as raw:
        head = raw.read(HEAD)
    if not head:
        raise ValueError(f"{path} is empty.")
    if head.startswith(HDF5):
        return Kind(_hdf5_kind(path))
    if head.startswith(b"PAR1"):
        return Kind("parquet")
    if head.startswith(b"PK\x03\x04"):
        return Kind(_zip_kind(path))
    packing = next((name for start, name in PACKINGS.items() if head.startswith(start)), None)
    if packing is None:
        _refuse_binary_name(path, head)
    else:
        head = _unpacked_head(path, packing)
    _refuse_known(path, head)
    return Kind("text", packing, _encoding(head))


def _refuse_binary_name(path, head):
    """Refuse a file whose name is that of a binary or packed format, if its bytes are not."""
    suffix = path.suffix.lower()
    if suffix in BINARY:
        raise ValueError(f"{path} cannot be read as {BINARY[suffix]}: its bytes are those of no such file.")
    if suffix == ".gz" and b"\0" in head:
        raise ValueError(f"{path} is not a complete gzip file: it does not begin as one.")


def _unpacked_head(path, packing):
    with open(path, "rb") as raw:
        try:
            return OPENERS[packing](raw).read(HEAD)
        except DAMAGED as error:
            raise ValueError(f"{path} is not a complete {packing} file: {error}") from error


def _refuse_known(path, head):
    lowered = head.lstrip()[:20].lower()
    for start, what in REFUSED.items():
        if head.startswith(start) or (start.islower() and lowered.startswith(start)):
            raise ValueError(f"{path} is {what}.")
    if head[257:262] == b"ustar":
        raise ValueError(f"{path} is {TAR}.")


def _encoding(head):
    return next((name for start, name in ENCODINGS.items() if head.startswith(start)), "utf-8-sig")


def _zip_kind(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is a damaged zip archive or workbook: {error}.") from error
    if "xl/workbook.xml" in names:
        return "xlsx"
    what = "an OpenDocument table" if "content.xml" in names else "a zip archive"
    remedy = "save it as .xlsx, or better as text with tabs" if "content.xml" in names else "unpack it first"
    raise ValueError(f"{path} is {what}: {remedy}.")


def _hdf5_kind(path):
    h5py = import_optional("h5py", "anndata", f"Reading {path}")
    try:
        with h5py.File(path, "r") as file:
            names = set(file)
            groups = {name for name in names if isinstance(file[name], h5py.Group)}
            inside = {name: set(file[name]) for name in groups}
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from error
    if {"obs", "var"} <= names:
        return "h5ad"
    if {"matrix", "row_attrs", "col_attrs"} <= names:
        return "loom"
    if any({"barcodes", "data", "indptr"} <= found for found in inside.values()):
        return "10x"
    for name, what in HDF5_REFUSED.items():
        if name in names:
            raise ValueError(f"{path} is {what}.")
    raise ValueError(
        f"{path} cannot be read as AnnData, 10x or loom: its HDF5 file holds {listing(sorted(names))}. Write "
        f"it as .h5ad, or as a table."
    )
