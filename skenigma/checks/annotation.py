"""Columns of tables of expression that describe genes, and are neither samples nor cell types.

A column is recognised by its name, and by whether its values can be what the name says. Names that a sample or a cell
type may bear, too ("Start", "mean", "B"), need values that no expression has.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .names import Noted, listing

# Genes below which values say too little about a name that may be a sample's.
FEWEST_GENES = 10
# Other columns that are looked at, evenly spaced, to tell if a column is expression like them.
LOOKED_AT = 64
# Rank correlation with the others up to which a column is no expression. Samples of one cohort have .8 and more,
# profiles of cell types mostly .5 and more; coordinates about 0. Long genes collect more reads than short ones.
UNLIKE = 0.4
UNLIKE_LENGTH = 0.6
# Most chromosomes and scaffolds that are numbers.
MOST_CHROMOSOMES = 100

IDENTIFIER, LENGTH, PLACE = "identifiers of genes", "lengths of genes", "positions in the genome"
CHROMOSOME, STRAND, TEXT = "chromosomes", "strands", "descriptions of genes"
TEST, AGGREGATE, NUMBERED, CONTENT = (
    "results of a test",
    "summaries of other columns",
    "row numbers",
    "GC content",
)

# Spelt as _key leaves them. No sample or cell type is called so, if the values fit, too.
CLEAR = {
    IDENTIFIER: "entrez entrezid entrezgene entrezgeneid entrezgeneids entrezids ncbi ncbiid ncbigene ncbigeneid "
    "geneid hgncid hgnc locusid locuslink probeid probesetid rowid taxid ensembl ensemblid ensemblgeneid ensg gene",
    LENGTH: "genelength exonlength exoniclength transcriptlength efflength effectivelength mergedlength lengthbp "
    "unionlength cdslength",
    PLACE: "chromstart chromend chromosomestart chromosomeend genestart geneend startposition endposition txstart "
    "txend startbp endbp genestartbp geneendbp",
    CHROMOSOME: "chr chrom chromosome chromosomename seqname seqnames chromosomescaffoldname",
    STRAND: "strand",
    TEST: "padj pvalue pval pvals pvaladj pvalueadj adjpval adjpvalue adjustedpvalue qvalue qval fdr log2foldchange "
    "logfoldchange logfc log2fc avglog2fc foldchange lfcse logcpm",
    AGGREGATE: "basemean basevar aveexpr avgexpr rowmean rowmeans rowsum rowsums rowmedian rowmedians rowsd rowvar "
    "meanexpression averageexpression",
    CONTENT: "gccontent gcpercent percentagegccontent percentagegenegccontent genegccontent",
}
DOUBTFUL = {
    LENGTH: "length width size len bp",
    PLACE: "start end stop position pos",
    TEST: "stat t b z lr f p lfc fc tstatistic wald score",
    AGGREGATE: "mean average avg median sum total sd std stdev var variance min max minimum maximum",
    NUMBERED: "unnamed0 unnamed x id index rank order number no row rownumber rownames",
}
# Only where they hold text.
TEXTS = (
    "genename genenames genesymbol genesymbols symbol symbols hgncsymbol genetype genebiotype biotype description "
    "genedescription transcriptid transcriptids transcript transcripts uniprot refseq refseqid name names genes "
    "alias aliases synonyms source feature featureid featuretype locus cytoband band geneshortname unigene "
    "accession function annotation class type family note notes"
)
# Results of a test that are no probabilities.
UNBOUNDED = frozenset(
    ("log2foldchange", "logfoldchange", "logfc", "log2fc", "avglog2fc", "foldchange", "lfcse", "logcpm")
)
# A decimal comma does not make a text of a number.
NUMBER = re.compile(r"\s*[+-]?[\d.,]+(e[+-]?\d+)?\s*", re.IGNORECASE)
AGGREGATES = {
    "mean average avg": lambda values: values.mean(axis=1),
    "median": lambda values: np.median(values, axis=1),
    "sum total": lambda values: values.sum(axis=1),
    "sd std stdev": lambda values: values.std(axis=1, ddof=1),
    "var variance": lambda values: values.var(axis=1, ddof=1),
    "min minimum": lambda values: values.min(axis=1),
    "max maximum": lambda values: values.max(axis=1),
}


def _by_key(kinds):
    return {key: kind for kind, keys in kinds.items() for key in keys.split()}


CLEAR_KINDS, DOUBTFUL_KINDS, TEXT_KEYS = _by_key(CLEAR), _by_key(DOUBTFUL), frozenset(TEXTS.split())
AGGREGATE_OF = {key: function for keys, function in AGGREGATES.items() for key in keys.split()}


def annotation_columns(table):
    """Columns of a table that describe its genes.

    Parameters
    ----------
    table : DataFrame of shape (n_genes, n_columns)
        Samples or cell types as columns, and whatever else the file holds: text, missing values.

    Returns
    -------
    found : list of Noted
        Name of the column, as it stands, and what it seems to hold, in the order of the table.
    """
    return _found(list(table.columns), lambda position: table.iloc[:, position])


def refuse_annotation(names, values, what, kind):
    """Refuse rows of expression that describe genes.

    Parameters
    ----------
    names : ndarray of str, or None
        Of the rows.
    values : ndarray of shape (n_rows, n_genes)
    what, kind : str
        What the table is, and what its rows are, for the message: "X", "sample".

    Raises
    ------
    ValueError
        If there is one; the message names them and says what to do.
    """
    found = [] if names is None else _found(list(names), lambda position: pd.Series(values[position]))
    if found:
        dropped = ", ".join(repr(str(note.name)) for note in found)
        raise ValueError(
            f"{what} has {len(found)} row(s) that seem to annotate genes and are not {kind}s: {listing(found)}. "
            f"Drop them ({what}.drop(index=[{dropped}])), or rename those that really are {kind}s."
        )


def _found(names, column):
    """Noted names of annotation; ``column(position)`` is a Series."""
    keys = [_key(name) for name in names]
    known = [position for position, key in enumerate(keys) if _is_known(key)]
    if not known:
        return []
    columns = {position: _Column(keys[position], column(position)) for position in known}
    others = _Others([position for position in range(len(names)) if position not in columns], column)
    kinds = {position: _clear_kind(found) for position, found in columns.items()}
    clear = set(kinds.values())
    for position, found in columns.items():
        kinds[position] = kinds[position] or _doubtful_kind(found, others, clear)
    return [Noted(names[position], kind) for position, kind in kinds.items() if kind]


def _key(name):
    """A name without case, separators and what a merge in R or pandas adds."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[._][xy]$", "", str(name).strip().lower()))


def _is_known(key):
    return key in CLEAR_KINDS or key in DOUBTFUL_KINDS or key in TEXT_KEYS


@dataclass
class _Column:
    """A column whose name is known, and its numbers: NaN where it has none."""

    key: str
    given: pd.Series

    def __post_init__(self):
        self.numbers = _numbers(self.given)
        self.present = self.numbers[np.isfinite(self.numbers)]
        entries = self.given[np.isnan(self.numbers) & self.given.notna().to_numpy()]
        texts = sum(NUMBER.fullmatch(str(entry)) is None for entry in entries)
        self.is_text = texts > len(self.given) / 2

    @property
    def whole(self):
        """Whether the numbers are whole, and not negative."""
        return bool(len(self.present) and (self.present >= 0).all() and not (self.present % 1).any())


def _clear_kind(column):
    """What a column holds whose name is no sample's, None if its values are not such."""
    kind = CLEAR_KINDS.get(column.key)
    if column.is_text:
        other = DOUBTFUL_KINDS.get(column.key)
        return kind or (other if other in (LENGTH, PLACE, NUMBERED) else TEXT if other is None else None)
    if kind is None or column.given.isna().all():
        return kind
    fits = {
        IDENTIFIER: lambda: column.whole,
        LENGTH: lambda: (column.present >= 0).all(),
        PLACE: lambda: column.whole,
        CHROMOSOME: lambda: column.whole and column.present.max() <= MOST_CHROMOSOMES,
        STRAND: lambda: np.isin(column.present, (-1, 0, 1, 2)).all(),
        TEST: lambda: column.key in UNBOUNDED or _within(column.present, 0, 1),
        AGGREGATE: lambda: True,
        CONTENT: lambda: _within(column.present, 0, 100),
    }
    return kind if len(column.present) and fits[kind]() else None


def _doubtful_kind(column, others, clear):
    """What a column holds whose name may be a sample's, None if it may be one; ``clear`` is what stands beside it."""
    kind = DOUBTFUL_KINDS.get(column.key)
    if kind is None or len(column.present) < FEWEST_GENES or column.is_text:
        return None
    places = bool(clear & {CHROMOSOME, STRAND, PLACE})
    fits = {
        LENGTH: lambda: column.whole and column.present.min() > 0
        and (places or others.unlike(column, UNLIKE_LENGTH)),
        PLACE: lambda: column.whole and column.present.min() > 0 and (places or others.unlike(column, UNLIKE)),
        TEST: lambda: TEST in clear and (column.key != "p" or _within(column.present, 0, 1))
        and others.unlike(column, UNLIKE),
        AGGREGATE: lambda: others.summed_up_by(column),
        NUMBERED: lambda: column.whole and len(np.unique(column.present)) == len(column.given)
        and others.unlike(column, UNLIKE),
    }  # fmt: skip
    return kind if fits[kind]() else None


def _numbers(column):
    """A column of any type as floats, NaN where it has no number."""
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _within(values, low, high):
    return bool(values.min() >= low and values.max() <= high)


class _Others:
    """Columns of a table whose names say nothing: samples or cell types."""

    def __init__(self, positions, column):
        self._positions, self._column = positions, column

    def unlike(self, column, most):
        """Whether a column does not go with the others, gene by gene."""
        chosen = self._positions
        if not chosen:
            return False
        if len(chosen) > LOOKED_AT:
            chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, LOOKED_AT).astype(int)]
        middle = np.median(self._values(chosen), axis=1)
        both = np.isfinite(column.numbers) & np.isfinite(middle)
        if both.sum() < FEWEST_GENES:
            return False
        ranks = rankdata(column.numbers[both]), rankdata(middle[both])
        if any(np.ptp(rank) == 0 for rank in ranks):
            return True
        return bool(np.corrcoef(*ranks)[0, 1] <= most)

    def summed_up_by(self, column):
        """Whether a column is what its name says of the others."""
        if len(self._positions) < 2:
            return False
        summary = AGGREGATE_OF[column.key](self._values(self._positions))
        # tables are written with some digits only
        rounding = 1e-6 * np.abs(summary).max(initial=0)
        return bool(np.allclose(column.numbers, summary, rtol=1e-3, atol=rounding))

    def _values(self, positions):
        return np.column_stack([_numbers(self._column(position)) for position in positions])
