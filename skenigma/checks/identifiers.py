"""Identifiers of genes: of what kind they are, how their spelling differs, and which ones Excel has changed."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .names import listing
from .warning import warn

IDENTIFIERS = {
    "Ensembl gene identifiers": r"(?i)ENS[A-Z]*G\d{6,}(\.\d+)?",
    "Ensembl transcript identifiers": r"(?i)ENS[A-Z]*T\d{6,}(\.\d+)?",
    "numbers as of Entrez": r"\d+",
}
# Identifiers that are looked at to tell of what kind they are.
LOOKED_AT = 2000


@dataclass(frozen=True)
class Spelling:
    """A way in which identifiers of one kind differ.

    Attributes
    ----------
    what : str
        What differs.
    pattern : str
        Regular expression of what evens it out; None evens out case.
    kept : str
        What takes its place.
    in_files : str
        How to do so in a file, from a shell.
    """

    what: str
    pattern: str | None
    kept: str = ""
    in_files: str = ""

    def even(self, names):
        """The names without what differs."""
        if self.pattern is None:
            return names.str.upper()
        return names.str.replace(self.pattern, self.kept, regex=True)

    @property
    def remedy(self):
        """How to do so in pandas, with genes as columns."""
        if self.pattern is None:
            return ".columns.str.upper()"
        return f".columns.str.replace(r{self.pattern!r}, r{self.kept!r}, regex=True)".replace("\\\\", "\\")


SPELLINGS = (
    Spelling("spaces around the names", r"^\s+|\s+$"),
    Spelling(
        "version suffixes such as '.12'",
        r"\.\d+$",
        in_files=r"""sed -E 's/^("?ENS[A-Z]*[0-9]+)\.[0-9]+/\1/'""",
    ),
    Spelling("case", None),
    Spelling("genome prefixes such as 'GRCh38_'", r"^(GRCh\d+|GRCm\d+|hg\d+|mm\d+)_+"),
    Spelling("what follows '|'", r"\|.*$"),
    Spelling("what precedes '|'", r"^.*\|"),
    Spelling("what stands in brackets, as in 'CD4 (920)'", r"\s*\(.*\)$"),
    Spelling("what stands around Ensembl identifiers", r"^.*?(ENS[A-Z]*[GT]\d{6,}).*$", r"\1"),
    Spelling("Ensembl identifiers behind the symbols", r"[_|. -]ENS[A-Z]*G\d{6,}(\.\d+)?$"),
    Spelling("dots that R puts in place of dashes and other signs", r"[^A-Za-z0-9_]", "."),
    Spelling("the X that R puts before digits", r"^X(?=\d)"),
    Spelling("the b'…' of bytes", r"^b'(.*)'$", r"\1"),
)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DATE = re.compile(
    r"(?P<day>\d{1,2})[-./ ](?P<month>[A-Za-z]{3})|(?P<month2>[A-Za-z]{3})[-./ ]\d{1,2}"
    r"|(19|20)\d\d-(?P<number>\d\d)-\d\d( 00:00:00)?"
)
# Days that Excel counts from 1900 on, of March, September and other months of the years in which people type symbols.
FIRST_DAY, LAST_DAY = 36_526, 51_501


def kind_of(names):
    """What most of some gene identifiers are."""
    names = pd.Index(names)
    some = names if len(names) <= LOOKED_AT else names[np.linspace(0, len(names) - 1, LOOKED_AT).astype(int)]
    for kind, pattern in IDENTIFIERS.items():
        if np.mean(some.str.fullmatch(pattern)) > 0.5:
            return kind
    return "gene symbols"


def why_unlike(names, genes, n_shared):
    """The likely reason why gene identifiers do not match, and how to mend it, as a sentence; or nothing.

    Parameters
    ----------
    names : array-like of str
        Genes of the bulk.
    genes : array-like of str
        Genes of the reference.
    n_shared : int
        How many match as they stand.
    """
    names, genes = pd.Index(names).unique(), pd.Index(genes).unique()
    spelling, number = _likeliest(names, genes)
    # twice as many is not chance
    if number > 2 * n_shared:
        return _advice(spelling, names, genes, number)
    kinds = kind_of(names), kind_of(genes)
    if kinds[0] == kinds[1]:
        return ""
    return (
        f"X seems to have {kinds[0]}, but reference {kinds[1]}: translate one of them. A file may have both "
        f"(gene_column, --gene-column). "
    )


def _likeliest(names, genes):
    """The spelling without regard to which most names are shared, and their number."""
    found = []
    for spelling in SPELLINGS:
        evened, others = spelling.even(names), spelling.even(genes)
        # what makes different genes one is no difference in spelling
        distinct = min(evened.nunique() / len(names), others.nunique() / len(genes)) > 0.5
        found.append(len(evened.unique().intersection(others)) if distinct else 0)
    best = int(np.argmax(found))
    return SPELLINGS[best], found[best]


def _advice(spelling, names, genes, number):
    sides = [
        f"{side} = {side}.set_axis({side}{spelling.remedy}, axis=1)"
        for side, found in (("X", names), ("reference", genes))
        if not spelling.even(found).equals(found)
    ]
    species = (
        " If one is from mouse and the other from human, map orthologues instead: their symbols differ, too."
        if spelling.pattern is None and _is_of_mouse(names) != _is_of_mouse(genes)
        else ""
    )
    in_files = f" In a file with a gene per row: {spelling.in_files} FILE > NEW." if spelling.in_files else ""
    same = f"make the spelling the same, {'; '.join(sides)}.{in_files}{species} "
    return f"Ignoring {spelling.what}, they share {number}: {same}"


def _is_of_mouse(names):
    """Whether most symbols begin with one capital, as those of mouse and rat do."""
    return bool(np.mean(names.str.fullmatch(r"[A-Z][a-z]+[A-Za-z0-9-]*")) > 0.5)


def excel_dates(names):
    """Names that are dates, as Excel makes them of symbols such as SEPT2 and MARCH3.

    Parameters
    ----------
    names : array-like of str
        Of genes.

    Returns
    -------
    found : list of str
        Empty if most names are numbers or dates: these are no symbols.
    """
    found = [name for name in names if _is_date(name) or _is_day(name)]
    return found if len(found) < 0.5 * len(names) and kind_of(names) != "numbers as of Entrez" else []


def _is_date(name):
    match = DATE.fullmatch(name)
    if match is None:
        return False
    month = match["month"] or match["month2"]
    return month.lower() in MONTHS if month else 1 <= int(match["number"]) <= 12


def _is_day(name):
    return name.isdecimal() and len(name) == 5 and FIRST_DAY <= int(name) <= LAST_DAY


def warn_of_dates(names, what):
    """Warn of names of genes that Excel has made dates."""
    found = excel_dates(names)
    if found:
        warn(
            f"{what} has {len(found)} gene(s) named by dates: {listing(found)}. Excel changes symbols to dates "
            f"(SEPT2 to 2-Sep, MARCH3 to 3-Mar, DEC1 to 1-Dec), which match no gene. Take the table as it was before "
            f"Excel, or rename them: 2-Sep to SEPTIN2 (formerly SEPT2), 3-Mar to MARCHF3 (MARCH3), 1-Dec to DELEC1 "
            f"(DEC1). Only the original table tells whether 1-Mar was MARCH1 or MARC1."
        )
