"""Tables of expression as portals and other programs hand them out, and where in them the values are."""

import re
from dataclasses import dataclass, replace

from ..checks.names import listing
from ..checks.numbers import quoted
from ._errors import clear_errors
from ._layout import Layout, find_layout, look_at

GCT = re.compile(r"#1\.[23]\s*")
SERIES_BEGIN, SERIES_END = "!series_matrix_table_begin", "!series_matrix_table_end"
# How the lines begin that describe a series, in its matrix or its family file.
DESCRIPTION = ("!Series_", "!Sample_", '"!Series_', "^")
# Lines of description that a series matrix can have, and characters.
MOST_DESCRIPTION = 10_000
# What tximport calls its matrices, in a frame made of its list.
TXIMPORT = {"counts": "counts.", "tpm": "abundance."}
TXIMPORT_OTHERS = ("length.", "countsFromAbundance", "variance.")
# What CIBERSORT and its kin write beside the proportions: tests and measures of the fit.
FIT_COLUMNS = {
    "pvalue",
    "correlation",
    "pearsoncorrelation",
    "rmse",
    "absolutescore",
    "absolutescoresigscore",
}


@dataclass(frozen=True)
class Table:
    """Where the values of a table of expression are.

    Attributes
    ----------
    layout : Layout
    end : str or None
        Name of a last row that is no gene.
    rows : int or None
        How many genes there must be.
    unnamed : bool
        Whether genes without a name are left out: other columns name them.
    """

    layout: Layout
    end: str | None = None
    rows: int | None = None
    unnamed: bool = False


def look_at_expression(text):
    """Look at a text in which description may come before the table."""
    first = _first_line(text)
    if GCT.fullmatch(first):
        return look_at(text, preamble=2)
    if first.startswith(DESCRIPTION):
        return look_at(text, preamble=_description_length(text))
    return look_at(text)


def table_of(look, choices, notes):
    """Where the values are, by what the text begins with."""
    first = look.preamble[0] if look.preamble else ""
    columns = _tximport_columns(look.header)
    what = "no output of a quantifier that leaves this choice"
    choices.refuse(look.path, what, "strandedness", *([] if columns else ["quantity"]))
    if columns:
        return _tximport(look, columns, choices, notes)
    if GCT.fullmatch(first):
        return _gct(look, choices, notes)
    if first.startswith(DESCRIPTION):
        return _series(look, notes)
    if look.header[:2] == ["Hugo_Symbol", "Entrez_Gene_Id"]:
        return _cbioportal(look, notes)
    if look.header[0] == "Hybridization REF" and look.rows:
        return _firehose(look, notes)
    return Table(find_layout(look, notes, values=True))


def _first_line(text):
    with clear_errors(text), text.open() as file:
        for line in file:
            if line.strip():
                return line
    return ""


def _description_length(text):
    """Number of lines up to the table of a series matrix."""
    with clear_errors(text), text.open() as file:
        for number, line in enumerate(file, start=1):
            if line.startswith(SERIES_BEGIN):
                return number
            if number > MOST_DESCRIPTION:
                break
    raise ValueError(
        f"{text.path} begins as a GEO series matrix, and has no table (no line {SERIES_BEGIN}). A family file (SOFT) "
        f"is not read: give the series matrix."
    )


def _gct(look, choices, notes):
    """GCT 1.2 and 1.3 of the Broad: two lines before the header, and columns that describe rows."""
    version = look.preamble[0].strip()[1:]
    sizes = look.preamble[1].split()
    if not all(size.isdecimal() for size in sizes) or len(sizes) != (2 if version == "1.2" else 4):
        raise ValueError(
            f"{look.path} is GCT {version} by its first line, but its second is {quoted(look.preamble[1])}."
        )
    n_rows, n_columns, *more = map(int, sizes)
    row_fields, column_rows = more or (1, 0)
    header = look.header
    if len(header) != 1 + row_fields + n_columns:
        raise ValueError(
            f"{look.path} is GCT {version} and says that it has {n_columns} columns, and {row_fields} that describe "
            f"rows, but its header has {len(header)} fields: it is damaged or truncated."
        )
    notes.append(f"read as GCT {version}")
    taken = list(range(1 + row_fields, len(header)))
    described = [name for name in header[1 : 1 + row_fields] if name != choices.gene_column]
    if described:
        notes.append(f"left out columns that describe genes: {listing(described)}")
    if column_rows:
        notes.append(
            f"left out rows that describe samples: {listing([row[0] for row in look.rows[:column_rows]])}"
        )
    layout = Layout(look.delimiter, 3 + column_rows, False, header, 0, taken)
    return Table(layout, rows=n_rows)


def _series(look, notes):
    """Series matrix of GEO."""
    if not look.rows or look.header[0].startswith(SERIES_END) or look.rows[0][0].startswith(SERIES_END):
        raise ValueError(
            f"{look.path} is a GEO series matrix without values, as RNA-seq series are: the expression is in "
            f"the series' supplementary files (suppl/)."
        )
    notes.append(f"read as GEO series matrix, {len(look.preamble):,} lines of description left out")
    rows = [row for row in look.rows if not row[0].startswith(SERIES_END)]
    return Table(
        find_layout(replace(look, preamble=[""] * len(look.preamble), rows=rows), notes, values=True),
        end=SERIES_END,
    )


def _cbioportal(look, notes):
    layout = find_layout(look, notes, values=True)
    notes.append("read as cBioPortal's: genes by 'Hugo_Symbol', column 'Entrez_Gene_Id' left out")
    return Table(replace(layout, columns=[i for i in layout.columns if i > 1]), unnamed=True)


def _firehose(look, notes):
    """Firehose and FireBrowse of the Broad: a second line says what each column holds."""
    quantities = {quantity.strip() for quantity in look.rows[0][1:]}
    if len(quantities) > 1:
        raise ValueError(
            f"{look.path} is a table of Firehose with several columns for a sample: {listing(sorted(quantities))}. "
            f"Take the file with one of them (…__RSEM_genes_normalized__data)."
        )
    notes.append(f"read as a table of Firehose, which holds '{quantities.pop()}'")
    layout = find_layout(replace(look, preamble=[], rows=look.rows[1:]), notes, values=True)
    return Table(replace(layout, skipped=len(look.preamble) + 2, has_header=False))


def _tximport_columns(header):
    """Columns of a frame made of tximport's list, by quantity; empty if the header is not of one."""
    names = header[1:] if header and not header[0].startswith(tuple(TXIMPORT.values())) else header
    known = (*TXIMPORT.values(), *TXIMPORT_OTHERS)
    if not names or not all(name.startswith(known) for name in names):
        return {}
    found = {kind: [name for name in names if name.startswith(start)] for kind, start in TXIMPORT.items()}
    return found if all(found.values()) else {}


def _tximport(look, columns, choices, notes):
    layout = find_layout(look, [], values=True)
    quantity = choices.quantity or "counts"
    taken = [i for i in layout.columns if layout.names[i] in columns[quantity]]
    start = TXIMPORT[quantity]
    names = [name.removeprefix(start) if i in taken else name for i, name in enumerate(layout.names)]
    other = "counts" if quantity == "tpm" else "tpm"
    notes.append(
        f"read as tximport's list: {quantity} are columns '{start}…' (quantity '{other}' takes '{TXIMPORT[other]}…')"
    )
    return Table(replace(layout, names=names, columns=taken))


def fit_columns(names):
    """Columns of a table of proportions that measure the fit, as CIBERSORT writes them."""
    found = [name for name in names if re.sub(r"[^a-z]", "", str(name).lower()) in FIT_COLUMNS]
    # a cell type may be called anything: one such name alone is no sign
    return found if len(found) > 1 else []
