"""Which format a file has, by the end of its name."""

import gzip
from dataclasses import dataclass
from pathlib import Path

DELIMITERS = {".tsv": "\t", ".tab": "\t", ".txt": "\t", ".csv": ","}
NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "spaces", "|": "bars"}
KNOWN = ".tsv, .txt, .tab or .csv (each also .gz), .h5ad or .parquet"


@dataclass(frozen=True)
class Format:
    """What the end of a file's name says.

    Attributes
    ----------
    kind : {"text", "h5ad", "parquet"}
    delimiter : str or None
        Of a text.
    compressed : bool
        Whether a text is in gzip.
    """

    kind: str
    delimiter: str | None = None
    compressed: bool = False


def file_format(path):
    """Format of a file; a ValueError if the end of its name tells none."""
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compressed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if compressed else suffixes)[-1:]
    suffix = suffix[0] if suffix else ""
    if suffix in DELIMITERS:
        return Format("text", DELIMITERS[suffix], compressed)
    if suffix in (".h5ad", ".parquet") and not compressed:
        return Format(suffix[1:])
    raise ValueError(f"{path}: the end of the name does not tell the format. Let it be {KNOWN}.")


def open_text(path, form):
    """A text file opened for reading, unpacked if it is compressed."""
    opener = gzip.open if form.compressed else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def layer_name(cell_type):
    """Name of a cell type's layer: HDF5 takes a slash in a name for a folder in the file."""
    return cell_type.replace("/", "|")
