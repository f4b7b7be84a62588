"""Output of a quantifier for many samples: in a folder, or in files that are listed."""

import re
from pathlib import Path

from ..checks.names import listing
from ._checksums import check_file
from ._formats import Text
from ._kinds import find_kind
from ._layout import look_at
from ._quantifiers import SALMON, find_output

# Files of a folder that may be such output, and how deep they may lie.
CANDIDATES = re.compile(r".*\.(sf|tsv|txt|tab|results|counts|count)(\.gz)?", re.IGNORECASE)
DEPTH = 3


def find_outputs(folder, notes):
    """Output of a quantifier in a folder and the folders in it; of genes, where it has that of transcripts too."""
    found, others = [], []
    for path in candidates(folder):
        output = _try_output(path)
        if output is None:
            others.append(str(path.relative_to(folder)))
        else:
            found.append(output)
    if not found:
        raise ValueError(
            f"{folder} is a folder without the output of a quantifier: of STAR (ReadsPerGene), htseq-count, "
            f"featureCounts, salmon, kallisto, RSEM or StringTie. Give a file."
        )
    if others:
        notes.append(f"left out {len(others)} other files in the folder: {listing(others)}")
    return _of_genes(found, notes)


def _of_genes(outputs, notes):
    """The files of genes, where the same program wrote files of genes and of transcripts."""
    of_genes = [output for output in outputs if _is_of_genes(output)]
    kinds = {output.tool.name for output in outputs}
    # which of two programs is meant, only the user knows: refused later, by name
    if len(kinds) > 1 or not of_genes or len(of_genes) == len(outputs):
        return outputs
    notes.append(f"left out {len(outputs) - len(of_genes)} files of transcripts: there are files of genes")
    return of_genes


def _is_of_genes(output):
    return output.tool.level == "gene" or (output.tool is SALMON and ".genes" in output.path.name)


def candidates(folder):
    """Files that may be the output of a quantifier, in the order of their names."""
    folder = Path(folder)
    return sorted(
        path
        for depth in range(DEPTH)
        for path in folder.glob("*/" * depth + "*")
        if CANDIDATES.fullmatch(path.name)
        and path.is_file()
        # what is hidden is of the system or of an editor
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _try_output(path):
    try:
        kind = find_kind(path)
        if kind.name != "text":
            return None
        return find_output(look_at(Text(path, kind.packing, kind.encoding)))
    # a folder may hold anything: what is no such output is listed, not refused
    except ValueError:
        return None


def given_outputs(paths):
    """Output of a quantifier in files that were listed, each of which must be such output."""
    found = []
    for path in map(Path, paths):
        check_file(path)
        kind = find_kind(path)
        text = Text(path, kind.packing, kind.encoding)
        output = find_output(look_at(text)) if kind.name == "text" else None
        if output is None:
            raise ValueError(f"{path} is not the output of a quantifier: of several files, each must be.")
        found.append(output)
    if not found:
        raise ValueError("The list of files is empty.")
    return found
