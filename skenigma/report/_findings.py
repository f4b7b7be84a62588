"""The section on genes that differ: what could be tested, what was found, and every gene for the script."""

import re

import numpy as np
import pandas as pd

from ..differential import untested
from ._expression import SIGNIFICANT
from ._markup import Markup, joined, markup
from ._reading import how_to_read
from ._sources import LEVEL
from ._tables import table
from ._texts import counted, number, p_text

Z = 1.959964  # half the width of a 95% interval, in standard errors
METHODS = {
    "log_fold_change": "test of log fold changes on the bulk, with the reference as its design",
    "factor": "test on the bulk by the factor model, with the reference as its design",
    "interaction": "regression of the bulk on proportions and their products with the phenotype",
    "marginal": "regression of the estimated expression, cell type by cell type",
    "joint": "regression of the phenotype on the estimated expression of all cell types",
}
REASONS = {
    "constant": "the values do not vary",
    "singular": "the samples do not tell the cell types apart",
    "rare": "the cell type is too rare",
    "low_share": "the cell type contributes too little of the gene's bulk",
    "not computed": "no reason was recorded",
}
CAREFUL = {
    "separated": "the groups are told apart without an error: the p-value says nothing",
    "zero_mean": "a mean is 0: the ratio is not finite",
}
LOGARITHMS = re.compile(r"log2\((.+) / (.+)\)$")
DIFFERENCE = re.compile(r"(.+) [-/] (.+)$")


def compares(test, groups):
    """Whether a test compared these groups, and not others that a page was given besides."""
    if groups is None:
        return False
    if groups.classes is not None and len(groups.classes) == 2:
        # contrasts are written by the tests: on logarithms, as differences and as ratios
        first, second = groups.classes
        return test.contrast in (f"log2({second} / {first})", f"{second} - {first}", f"{second} / {first}")
    return test.contrast.endswith((f" over {groups.name}", f" of {groups.name}"))


def classes_of(test, groups):
    """The two groups that a test compares, that of reference first; None for more, a quantity, or where not known."""
    if compares(test, groups):
        return (
            [str(label) for label in groups.classes] if groups.classes and len(groups.classes) == 2 else None
        )
    found = LOGARITHMS.match(test.contrast) or DIFFERENCE.match(test.contrast)
    # the contrast of more than two groups names none of them
    return [found[2], found[1]] if found and "largest" not in found[1] else None


def effect_name(test):
    """What the effect is, in words."""
    if test.contrast.startswith("log2"):
        return "log2 fold change"
    return "fold change" if DIFFERENCE.match(test.contrast) and " / " in test.contrast else "effect"


def directions(test, groups):
    """What a positive and what a negative effect mean."""
    pair = classes_of(test, groups)
    if pair:
        return f"higher in {pair[1]}", f"lower in {pair[1]}"
    if " per unit of " in f" {test.contrast}":
        name = test.contrast.split("per unit of ", 1)[1]
        return f"rises with {name}", f"falls with {name}"
    return "differs", "differs"


def counts_by_type(test, cell_types):
    """Per cell type, how many genes were tested, found up and down, and why others were not tested.

    Returns
    -------
    counts : DataFrame
        ``genes``, ``tested``, ``up``, ``down``, and ``reasons``, a dict.
    """
    rows = {}
    for kind in types_of(test, cell_types):
        genes = test.table[test.table.cell_type == kind]
        called = genes.q_value < SIGNIFICANT
        effect = genes["effect"] if "effect" in genes else pd.Series(np.nan, genes.index)
        # a ratio of 1 is no change, nor is a difference of 0
        neutral = 1 if effect_name(test) == "fold change" else 0
        down = int((called & (effect < neutral)).sum())
        flagged = "flag" in genes
        rows[kind] = {
            "genes": len(genes),
            "tested": int(genes.p_value.notna().sum()),
            "up": int(called.sum()) - down,
            "down": down,
            "reasons": untested(genes) if flagged else {},
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["genes", "tested", "up", "down", "reasons"])


def types_of(test, cell_types):
    """Cell types of a test, those of the run first and in its order."""
    there = list(dict.fromkeys(test.table.cell_type))
    return [kind for kind in cell_types if kind in there] + [kind for kind in there if kind not in cell_types]


def said(kind, row, test, groups):
    """What was found in a cell type: nothing tested, nothing found, or how much."""
    reasons = "; ".join(f"{REASONS.get(flag, flag)} ({count:,})" for flag, count in row.reasons.items())
    if not row.tested:
        why = f": {reasons}" if reasons else ""
        return f"Nothing could be tested in {kind}{why}. That is neither a yes nor a no."
    # a gene that was not tested is no gene without a difference
    rest = (
        f" {counted(row.genes - row.tested, 'gene')} could not be tested: {reasons}."
        if row.tested < row.genes and reasons
        else ""
    )
    if not row.up + row.down:
        return (
            f"Nothing was found in {kind}: none of {counted(row.tested, 'tested gene')} has q < "
            f"{SIGNIFICANT}. That is no "
            f"proof that nothing differs: smaller differences may be there that these samples cannot show.{rest}"
        )
    up, down = directions(test, groups)
    parts = [f"{count:,} {word}" for count, word in ((row.up, up), (row.down, down)) if count]
    if up == down:
        parts = [f"{row.up + row.down:,}"]
    return f"{' and '.join(parts)}, with q < {SIGNIFICANT}, of {counted(row.tested, 'tested gene')} in {kind}.{rest}"


def findings_section(contents, top):
    """The section as HTML; the script makes the lists an explorer of all genes."""
    test = contents.test
    if test is None:
        return joined(
            [
                how_to_read("findings"),
                markup(
                    "<p>No test was run, so that this page cannot say which genes differ. "
                    "<code>skenigma differential RUN --phenotype FILE</code> makes one, and the next report "
                    "has it.</p>"
                ),
            ]
        )
    counts = counts_by_type(test, contents.proportions.columns)
    return joined(
        [
            how_to_read("findings"),
            _how(test, contents.groups),
            _overview(counts, test, contents.groups),
            Markup('<div id="explorer" hidden></div>'),
            Markup('<div class="lists" id="lists">'),
            *(_list(kind, row, test, contents.groups, top) for kind, row in counts.iterrows()),
            Markup("</div>"),
        ]
    )


def _how(test, groups):
    facts = {
        "Test": METHODS.get(test.method, test.method or "not recorded: a table was given"),
        "Contrast": test.contrast or "not recorded",
    }
    pair = classes_of(test, groups)
    if pair:
        facts["Direction"] = (
            f"above 0 is higher in {pair[1]}, below 0 is lower in {pair[1]}, compared with {pair[0]}"
        )
    facts["Adjusted for"] = (
        ", ".join(test.covariates) if test.covariates else "nothing else" if test.method else "not recorded"
    )
    cells = joined(
        markup("<div><dt>{name}</dt><dd>{text}</dd></div>", name=name, text=text)
        for name, text in facts.items()
    )
    return markup('<dl class="facts wide">{cells}</dl>', cells=cells)


def _overview(counts, test, groups):
    up, down = directions(test, groups)
    # a test of several groups, or by F, has no direction
    shown = pd.DataFrame({"genes tested": counts.tested}, index=counts.index)
    if up == down:
        shown[f"{up} (q < {SIGNIFICANT})"] = counts.up + counts.down
    else:
        shown[f"{up} (q < {SIGNIFICANT})"], shown[f"{down} (q < {SIGNIFICANT})"] = counts.up, counts.down
    shown["not tested"] = counts.genes - counts.tested
    shown["why not"] = [
        "; ".join(REASONS.get(flag, flag) for flag in reasons) if reasons else ""
        for reasons in counts.reasons
    ]
    return table(shown, "cell type", "What was tested and what was found, by cell type")


def _list(kind, row, test, groups, top):
    """The best genes of a cell type, for print and for browsers without a script."""
    genes = test.table[test.table.cell_type == kind].sort_values("p_value", kind="stable").head(top)
    body = Markup("")
    if row.tested:
        body = table(listing_of(genes, test), "gene", f"The genes with the smallest p-values in {kind}")
    return markup(
        "<h3>{kind}</h3><p>{text}</p>{body}", kind=kind, text=said(kind, row, test, groups), body=body
    )


def listing_of(genes, test):
    """Rows of a test as they are shown."""
    shown = pd.DataFrame(index=pd.Index(genes.gene, name="gene"))
    if "effect" in genes:
        shown[effect_name(test)] = genes.effect.to_numpy()
    if "standard_error" in genes:
        reach = Z * genes.standard_error
        shown[f"{LEVEL:.0%} interval"] = [
            f"{number(low)} to {number(high)}" if np.isfinite(low) else "–"
            for low, high in zip(genes.effect - reach, genes.effect + reach, strict=True)
        ]
    shown["p"], shown["q"] = [p_text(p) for p in genes.p_value], [p_text(q) for q in genes.q_value]
    if "flag" in genes and genes.flag.astype(bool).any():
        shown["note"] = [{**REASONS, **CAREFUL}.get(flag, flag) for flag in genes.flag]
    return shown
