"""The sections on expression and on which genes deserve trust."""

import numpy as np
import pandas as pd

from ._markup import Markup, joined, markup
from ._reading import how_to_read
from ._sources import DOUBTED
from ._tables import table
from ._texts import counted, percent

STEPS = (0.7, 0.5, 0.3)  # of the reliability, in the overview
OWN = 0.5  # share of a gene's bulk from which on it is called a cell type's own


def expression_section(contents):
    """A place for the script to show a gene, and what there is of it."""
    expression = contents.expression
    if expression is None:
        return None
    curves = expression.curves
    n_curves, n_genes = len(curves.genes), len(expression.genes)
    if n_curves == n_genes:
        text = f"All {counted(n_genes, 'gene')} can be chosen."
    else:
        text = (
            f"All {n_genes:,} genes can be chosen. {n_curves:,} of them have values for every sample in this page: "
            f"those that differ, and those that deserve most trust. Of the others it holds means, shares and "
            f"reliability; the files of the run hold all values."
        )
    band = (
        ""
        if curves.low is not None
        else " This model estimates no standard deviations, so that there is no band."
    )
    return joined(
        [
            how_to_read("expression"),
            markup("<p>{text}{band}</p>", text=text, band=band),
            Markup(
                '<div id="gene" hidden></div><noscript><p class="note">This part needs JavaScript.</p></noscript>'
            ),
        ]
    )


def reliability_section(contents):
    """Counts of genes by what can be known of them, and the best of each cell type."""
    expression = contents.expression
    if expression is None or (expression.share is None and expression.reliability is None):
        return None
    types = expression.cell_types
    overview = pd.DataFrame(index=pd.Index(types))
    if expression.reliability is not None:
        for step in STEPS:
            overview[f"reliability ≥ {step}"] = (expression.reliability >= step).sum(axis=1)
    if expression.share is not None:
        overview[f"share ≥ {OWN:.0%}"] = (np.nan_to_num(expression.share) >= OWN).sum(axis=1)
    overview["genes"] = len(expression.genes)
    parts = [
        how_to_read("reliability"),
        markup("<p>{text}</p>", text=_best(expression)),
        table(overview, "cell type", "Number of genes by what can be known of them"),
        Markup('<div id="trust" hidden></div>'),
    ]
    if expression.uncertainty is not None:
        parts += [
            Markup("<h3>Uncertainty of the expression</h3>"),
            table(expression.uncertainty, "cell type", _medians(expression)),
            Markup(
                '<p class="note">genes that vary: share of the genes whose estimates vary over samples by more than '
                "their median standard deviation; of the others the model does not claim to know how samples "
                "differ.</p>"
            ),
        ]
    return joined(parts)


def _medians(expression):
    n_genes = len(expression.genes)
    return f"Medians over samples and {f'{DOUBTED:,} evenly spaced genes' if n_genes > DOUBTED else 'genes'}"


def _best(expression):
    if expression.reliability is None:
        return (
            "This model does not say how reliable a gene is. Trust genes first whose bulk is mostly from one cell "
            "type: their share is near 100%."
        )
    own = (expression.reliability >= STEPS[1]).any(axis=0)
    return (
        f"{counted(int(own.sum()), 'gene')} of {len(expression.genes):,} ({percent(own.mean())}) "
        f"{'has' if own.sum() == 1 else 'have'} a reliability of {STEPS[1]} or more in at least one cell type. Read "
        f"differences between samples in these first."
    )
