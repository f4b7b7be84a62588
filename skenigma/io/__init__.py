"""Tables in and out: the file formats of the field, turned to samples × genes, and written whole or not at all.

Files of bulk expression are genes × samples and references genes × cell types; in AnnData files it is the other way
round. The readers know both, and return what the estimators take.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._checksums import file_checksum
    from ._lengths import read_gene_lengths
    from ._orientation import check_orientation
    from ._reading import (
        read_bulk,
        read_cells,
        read_phenotype,
        read_proportions,
        read_reference,
    )
    from ._runs import read_run
    from ._staging import staged_file, staged_folder
    from ._writing import write_anndata, write_table

__all__ = [
    "check_orientation",
    "file_checksum",
    "read_bulk",
    "read_cells",
    "read_gene_lengths",
    "read_phenotype",
    "read_proportions",
    "read_reference",
    "read_run",
    "staged_file",
    "staged_folder",
    "write_anndata",
    "write_table",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "check_orientation": "_orientation",
        "file_checksum": "_checksums",
        "read_bulk": "_reading",
        "read_cells": "_reading",
        "read_gene_lengths": "_lengths",
        "read_phenotype": "_reading",
        "read_proportions": "_reading",
        "read_reference": "_reading",
        "read_run": "_runs",
        "staged_file": "_staging",
        "staged_folder": "_staging",
        "write_anndata": "_writing",
        "write_table": "_writing",
    },
)
