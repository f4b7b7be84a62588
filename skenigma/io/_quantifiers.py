"""Output of programs that count reads: recognised by its columns; one file or many become one table."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..checks.names import listing
from ..checks.numbers import is_written_number
from ._layout import Layout, is_corner
from ._tables import parse

# Rows of a table of counts that are not genes, by the exact names that the programs give them.
_SUMMARIES = """
N_unmapped N_multimapping N_noFeature N_ambiguous
__no_feature __ambiguous __too_low_aQual __not_aligned __alignment_not_unique
"""
SUMMARIES = frozenset(_SUMMARIES.split())
STRANDS = ("unstranded", "forward", "reverse")
# Part of the stranded counts that are forward: in between, libraries are neither stranded nor unstranded.
REVERSE, MIXED, FORWARD = 0.2, (0.35, 0.65), 0.8
TRANSCRIPT = re.compile(r"(ENS[A-Z]*T\d{6,}|[NX][MR]_\d+)", re.IGNORECASE)
GENE = re.compile(r"ENS[A-Z]*G\d{6,}", re.IGNORECASE)
# Ends of names of such files, and whole names that say nothing about the sample.
ENDS = re.compile(
    r"(\.(gz|bz2|xz))?$|(\.(sf|tsv|txt|tab|csv|results|counts|count|out|htseq|genes|isoforms|featureCounts|"
    r"rna_seq|augmented_star_gene_counts))$|[._-]?ReadsPerGene$|[._-](abundance|quant)$",
    re.IGNORECASE,
)
NAMELESS = re.compile(
    r"(abundance|quant|readspergene|counts|genes|isoforms|gene_abund|t_data)?", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class Quantifier:
    """A program's output for genes or transcripts.

    Attributes
    ----------
    name : str
    columns : tuple of str
        What its header holds; empty where it has none.
    genes : str or int
        The column of identifiers.
    quantities : dict
        Column by quantity.
    level : str or None
        "gene" or "transcript", None where the identifiers must tell.
    """

    name: str
    columns: tuple
    genes: str
    quantities: dict
    level: str | None = None


FEATURE_COUNTS = Quantifier(
    "featureCounts", ("Geneid", "Chr", "Start", "End", "Strand", "Length"), "Geneid", {}, "gene"
)
STAR = Quantifier("STAR (ReadsPerGene)", (), "", {"counts": STRANDS}, "gene")
HTSEQ = Quantifier("htseq-count", (), "", {"counts": 1}, "gene")
SALMON = Quantifier(
    "salmon",
    ("Name", "Length", "EffectiveLength", "TPM", "NumReads"),
    "Name",
    {"counts": "NumReads", "tpm": "TPM"},
)
WITH_HEADER = (
    FEATURE_COUNTS,
    SALMON,
    Quantifier(
        "kallisto",
        ("target_id", "length", "eff_length", "est_counts", "tpm"),
        "target_id",
        {"counts": "est_counts", "tpm": "tpm"},
        "transcript",
    ),
    Quantifier(
        "RSEM",
        ("gene_id", "transcript_id(s)", "length", "effective_length", "expected_count", "TPM"),
        "gene_id",
        {"counts": "expected_count", "tpm": "TPM"},
        "gene",
    ),
    Quantifier(
        "RSEM",
        ("transcript_id", "gene_id", "length", "effective_length", "expected_count", "TPM"),
        "transcript_id",
        {"counts": "expected_count", "tpm": "TPM"},
        "transcript",
    ),
    Quantifier(
        "STAR at the GDC",
        (
            "gene_id",
            "gene_name",
            "gene_type",
            "unstranded",
            "stranded_first",
            "stranded_second",
            "tpm_unstranded",
        ),
        "gene_id",
        {"counts": ("unstranded", "stranded_first", "stranded_second"), "tpm": "tpm_unstranded"},
        "gene",
    ),
    Quantifier(
        "StringTie",
        ("Gene ID", "Gene Name", "Reference", "Strand", "Start", "End", "Coverage", "FPKM", "TPM"),
        "Gene ID",
        {"tpm": "TPM"},
        "gene",
    ),
)


@dataclass(frozen=True)
class Output:
    """A file that a quantifier wrote, looked at."""

    look: object
    tool: Quantifier

    @property
    def path(self):
        """Of the file."""
        return self.look.path


def find_output(look):
    """The output of a quantifier that a text is, None if it is none."""
    names = set(look.header)
    for tool in WITH_HEADER:
        if names.issuperset(tool.columns):
            return Output(look, tool)
    tool = _without_header(look)
    return None if tool is None else Output(look, tool)


def _without_header(look):
    header, rows = look.header, look.rows
    numbers = all(map(is_written_number, header[1:])) and len(header) > 1
    if not numbers or header[0] == "" or is_corner(header[0]):
        return None
    # neither program writes a header: STAR begins with its summaries, htseq-count ends with them
    if len(header) == 4 and header[0] in SUMMARIES:
        return STAR
    whole = len(header) == 2 and all(len(row) == 2 and row[1].isdecimal() for row in [header, *rows])
    return HTSEQ if whole and _has_summaries(look) else None


def _has_summaries(look):
    """Whether counts without a header end as htseq-count ends them."""
    if look.rows and look.rows[-1][0].startswith("__"):
        return True
    names = parse(look.text, replace(_bare_layout(look), columns=[])).index
    return bool(len(names) and names[-1] in SUMMARIES)


def _bare_layout(look):
    width = len(look.header)
    names = ["", *map(str, range(1, width))]
    return Layout(look.delimiter, len(look.preamble), False, names, 0, list(range(1, width)))


def read_outputs(outputs, choices, notes):
    """One table genes × samples from the output of a quantifier for one sample each, or for several."""
    tool = _one_tool(outputs)
    choices.refuse(outputs[0].path, f"the output of {tool.name}", "layer")
    columns = _columns(outputs, tool, choices)
    frames = [_read(output, columns, choices) for output in outputs]
    # counts for each strandedness: which are right is seen from all samples together
    if not isinstance(columns, (str, int)) and tool is not FEATURE_COUNTS:
        column = _strand(frames, columns, outputs, choices, notes)
        frames = [frame.iloc[:, [column]] for frame in frames]
        columns = columns[column]
    elif choices.strandedness != "auto":
        choices.refuse(outputs[0].path, f"the output of {tool.name}", "strandedness")
    frames = [
        _with_samples(frame, output, tool, notes) for frame, output in zip(frames, outputs, strict=True)
    ]
    notes.append(_described(frames[0].index, tool, columns, outputs, choices))
    return _joined(frames, outputs)


def _one_tool(outputs):
    tools = {output.tool for output in outputs}
    if len(tools) > 1:
        named = [f"{tool.name}{f', {tool.level}s' if tool.level else ''}" for tool in tools]
        raise ValueError(
            f"These files are the output of different programs: {listing(sorted(named))}; "
            f"'{outputs[0].path}' is of {outputs[0].tool.name}. Give the files of one."
        )
    return outputs[0].tool


def _columns(outputs, tool, choices):
    """Column that holds the quantity, or several to choose from."""
    if tool is FEATURE_COUNTS:
        if choices.quantity == "tpm":
            raise ValueError(f"{outputs[0].path}: featureCounts has counts only, and no TPM.")
        return ()
    quantity = choices.quantity or "counts"
    if quantity not in tool.quantities:
        other = next(iter(tool.quantities))
        raise ValueError(f"{outputs[0].path}: {tool.name} gives no {quantity}. Choose quantity '{other}'.")
    return tool.quantities[quantity]


def _read(output, columns, choices):
    """The columns of one file, genes as rows."""
    look, tool = output.look, output.tool
    if not tool.columns:
        layout = _bare_layout(look)
        if tool is HTSEQ:
            layout = replace(layout, columns=[1])
    else:
        layout = _layout(look, tool, columns, choices)
    frame = parse(look.text, layout)
    return frame.loc[~frame.index.isin(SUMMARIES)]


def _layout(look, tool, columns, choices):
    header = look.header
    genes = choices.gene_column or tool.genes
    if genes not in header:
        raise ValueError(f"{look.path} has no column '{genes}'; it has {listing(header)}.")
    if tool is FEATURE_COUNTS:
        last = header.index("Length")
        # with extra attributes there are more of the genes' own columns, which hold text
        taken = [i for i in range(last + 1, len(header)) if is_written_number(look.rows[0][i])]
    else:
        taken = [header.index(name) for name in ([columns] if isinstance(columns, str) else columns)]
    return Layout(look.delimiter, len(look.preamble), True, header, header.index(genes), taken)


def _with_samples(frame, output, tool, notes):
    """The frame with names of samples: those of a table of several stay as they are."""
    if tool is FEATURE_COUNTS:
        return frame
    name = sample_name(output.path)
    by_folder = f"named samples by their folders: '{output.path}' is '{name}'"
    if name not in output.path.name and not any(note.startswith(by_folder[:30]) for note in notes):
        notes.append(by_folder)
    return frame.set_axis([name], axis=1)


def sample_name(path):
    """Name of a sample by its file, or by the folder of the file where all files have one name."""
    name = before = Path(path).name
    while (name := ENDS.sub("", name, count=1)) != before:
        before = name
    if not NAMELESS.fullmatch(name):
        return name
    folder = Path(path).absolute().parent
    return folder.parent.name if folder.name in ("outs", "quant", "results") else folder.name


def _strand(frames, columns, outputs, choices, notes):
    """Position of the column for the libraries' strandedness, by the rule that the note states."""
    if choices.strandedness != "auto":
        column = STRANDS.index(choices.strandedness)
        notes.append(f"took column '{columns[column]}' for {choices.strandedness} libraries, as asked for")
        return column
    shares = [_forward_share(frame) for frame in frames]
    found = [_strandedness(share) for share in shares]
    named = Counter(found)
    # one cohort is of one protocol: samples that disagree are mixed up, or neither
    if len(named) > 1 or None in named:
        shown = [
            f"{sample_name(output.path)} {share:.0%}" for output, share in zip(outputs, shares, strict=True)
        ]
        raise ValueError(
            f"Whether the libraries are stranded cannot be told: of the stranded counts, forward are "
            f"{listing(shown)}. Say it: strandedness 'unstranded', 'forward' or 'reverse'."
        )
    (strandedness,) = named
    low, high = min(shares), max(shares)
    notes.append(
        f"took column '{columns[STRANDS.index(strandedness)]}': forward are {low:.0%}"
        f"{'' if f'{low:.0%}' == f'{high:.0%}' else f' to {high:.0%}'} of the stranded counts, so the libraries are "
        f"{strandedness} (forward from {FORWARD:.0%}, reverse up to {REVERSE:.0%}, unstranded from {MIXED[0]:.0%} to "
        f"{MIXED[1]:.0%})"
    )
    return STRANDS.index(strandedness)


def _forward_share(frame):
    forward, reverse = (float(frame.iloc[:, i].sum()) for i in (1, 2))
    return forward / (forward + reverse) if forward + reverse else 0.5


def _strandedness(share):
    if share >= FORWARD:
        return "forward"
    if share <= REVERSE:
        return "reverse"
    return "unstranded" if MIXED[0] <= share <= MIXED[1] else None


def _described(genes, tool, column, outputs, choices):
    """What was read, for a note."""
    level = tool.level or _level(genes, outputs[0].path)
    what = f"read the output of {tool.name}, {level} level"
    if len(outputs) > 1:
        what += f", {len(outputs)} files"
    quantity = choices.quantity or "counts"
    if isinstance(column, str):
        others = [name for name in tool.quantities if name != quantity]
        what += f": {quantity} are column '{column}'" + (
            f" (quantity '{others[0]}' takes another)" if others else ""
        )
    if level == "transcript":
        what += ". A reference of genes needs sums over the transcripts of each gene, as tximport gives them"
    return what


def _level(genes, path):
    some = [str(name) for name in genes[:100]]
    transcripts, named_genes = (sum(bool(kind.match(name)) for name in some) for kind in (TRANSCRIPT, GENE))
    # by the identifiers where these tell, else by the name of the file
    if transcripts != named_genes:
        return "transcript" if transcripts > named_genes else "gene"
    return "gene" if "genes" in Path(path).name else "transcript"


def _joined(frames, outputs):
    """Tables of the same genes side by side."""
    first = frames[0].index
    for frame, output in zip(frames[1:], outputs[1:], strict=True):
        if frame.index.equals(first):
            continue
        missing = first.difference(frame.index, sort=False).union(
            frame.index.difference(first, sort=False), sort=False
        )
        if len(missing) or first.has_duplicates or frame.index.has_duplicates:
            raise ValueError(
                f"{output.path} has other genes than {outputs[0].path}: only one of them has "
                f"{listing(list(missing))}. Count all samples with one annotation."
            )
    # the same genes in another order are the same genes
    values = [frame if frame.index.equals(first) else frame.loc[first] for frame in frames]
    names = [name for frame in frames for name in frame.columns]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(
            f"Several files are of one sample, by their names: {listing(repeated)}. Name each file, or its folder, "
            f"by the sample."
        )
    if len(values) == 1:
        return values[0]
    return pd.DataFrame(np.column_stack([frame.to_numpy() for frame in values]), index=first, columns=names)
