"""What a reader of expression is asked for where a file leaves a choice."""

from dataclasses import dataclass

QUANTITIES = ("counts", "tpm")
STRANDS = ("auto", "unstranded", "forward", "reverse")
# Choices that readers take, by what they read, beside the rows.
CHOICES = {
    "bulk": ("layer", "gene_column", "quantity", "strandedness", "duplicates"),
    "reference": ("duplicates",),
}
DUPLICATES = ("refuse", "sum", "largest")


@dataclass(frozen=True)
class Choices:
    """Choices of one reading; what is None was left open.

    Attributes
    ----------
    rows : str
        What the rows of a table are: "genes", "samples" or "cell types".
    layer : str or None
        Of an AnnData or loom file.
    gene_column : str or None
        Column with the names of the genes.
    quantity : {None, "counts", "tpm"}
        Of the output of a quantifier.
    strandedness : {"auto", "unstranded", "forward", "reverse"}
        Of the libraries, where a file has a column for each.
    duplicates : {"refuse", "sum", "largest"}
        What to do with genes named more than once.
    """

    rows: str = "genes"
    layer: str | None = None
    gene_column: str | None = None
    quantity: str | None = None
    strandedness: str = "auto"
    duplicates: str = "refuse"

    def __post_init__(self):
        _check_choice("rows", self.rows, ("genes", "samples", "cell types"))
        _check_choice("quantity", self.quantity, (None, *QUANTITIES))
        _check_choice("strandedness", self.strandedness, STRANDS)
        _check_choice("duplicates", self.duplicates, DUPLICATES)

    def refuse(self, path, what, *names):
        """Refuse choices that a kind of file does not leave."""
        given = [name for name in names if getattr(self, name) not in (None, "auto")]
        if given:
            raise ValueError(f"{path} is {what}: '{given[0]}' has nothing to choose there.")


def _check_choice(name, value, allowed):
    if value not in allowed:
        shown = ", ".join(map(repr, allowed))
        raise ValueError(f"'{name}' must be one of {shown}, not {value!r}.")
