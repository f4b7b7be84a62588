"""How to read each part of the page, in plain words, with the limits where they matter."""

from ._markup import joined, markup

TEXTS = {
    "verdict": (
        "Each line is a rule applied to figures of this run. “Fine” means that the rule found nothing against the "
        "result, not that the result is right: no rule can see a wrong label or a wrong reference.",
    ),
    "proportions": (
        "A proportion is the share of a sample that comes from one cell type, estimated by mixing the profiles of "
        "the reference until they resemble the sample. The shares of a sample add up to 100%.",
        "A cell type that the reference lacks is not shown as missing: its share goes to its nearest relatives. "
        "Cell types that resemble each other (CD4 and CD8 T cells, say) can be exchanged for one another.",
    ),
    "findings": (
        "Each dot of the volcano plot is a gene in one cell type. Dots on the right and on the left differ in "
        "opposite directions, which are named below the plot. The higher a dot, the less likely such a difference "
        "would be by chance. A log2 fold change of 1 is twice as much, of −1 half as much.",
        "q is the false discovery rate: of the genes with q below 0.05, at most about one in twenty is expected to "
        "be a false call, if the assumptions of the test hold. The interval says how large the difference may be.",
        "A gene without a p-value was not tested. This means neither that it changes nor that it does not. A "
        "gene with a large q may still differ: there may be too few samples to show it.",
        "The bulk is a mixture: a change in one cell type can look like one in another that expresses the same gene. "
        "Confirm important findings in sorted or single cells.",
    ),
    "expression": (
        "Each panel is one cell type, each dot one sample: what the cell type is estimated to express in it. The "
        "band holds the true value with 95% probability, according to the model. The panel “bulk” is what was "
        "measured.",
        "Where the band is wider than the differences between the dots, the order of the samples is not known, and "
        "differences should not be read. Where there is no band, the model does not say how certain it is.",
    ),
    "reliability": (
        "Share: how much of a gene's bulk comes from the cell type, by reference and proportions. What varies in the "
        "bulk can only tell of the cell types that it comes from: a gene of which a cell type gives a few "
        "percent says nothing about that cell type.",
        "Reliability: the correlation with the truth over samples that the model expects. 1 would be perfect, 0 is "
        "nothing. It is what the model predicts, and holds if its assumptions do.",
    ),
    "samples": (
        "How well the profiles, mixed by the proportions, reproduce each sample over the genes in use. r2: share of "
        "the variance over genes that the scaled mixture explains. scale: the factor that fits best, about 1 if bulk "
        "and reference are on one scale. poor fit: a correlation more than three robust standard deviations below "
        "the median of the cohort.",
        "These figures find samples that fit worse than the others. They do not show that the others are right.",
    ),
    "fit": (
        "For the person who ran the analysis. All axes are logarithmic; zeros up to rounding are left out. The "
        "loss terms are those that the model records: unweighted by L2MaxDeconvolver, weighted by "
        "TraceNormDeconvolver.",
    ),
}


def how_to_read(part):
    """The text beside a part of the page."""
    paragraphs = joined(markup("<p>{text}</p>", text=text) for text in TEXTS[part])
    return markup(
        '<details class="how" open><summary>How to read this</summary><div>{paragraphs}</div></details>',
        paragraphs=paragraphs,
    )
