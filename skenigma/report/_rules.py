"""Rules that turn figures of a run into sentences, each with what to do about it."""

from dataclasses import dataclass

import numpy as np

from ._contents import FLAG
from ._findings import compares, counts_by_type
from ._texts import counted, named, percent

GOOD, CARE, BAD, OPEN = "good", "care", "bad", "open"

# Level of the expression, as a share of the bulk, that is taken for right, and beyond which it is of no use.
RIGHT_LEVEL, USELESS_LEVEL = (0.8, 1.25), (0.5, 2.0)
# Share of flagged samples above which the reference, and not the samples, is to be doubted.
MANY_FLAGGED = 0.2
# Correlation with a free baseline above which an estimate tells nothing else.
SAME = 0.95
# Variation relative to the bulk's below which an estimate is a profile, the same for all samples.
FLAT = 0.1
# Mean proportion below which a cell type is rare.
RARE = 0.01
RELIABLE = 0.5
# Samples of a group below which findings rest on single ones.
FEW = 5


@dataclass(frozen=True)
class Statement:
    """One line of the verdict.

    Attributes
    ----------
    topic : str
        What it is about.
    state : {"good", "care", "bad", "open"}
    text : str
        What is the case.
    advice : str
        What to do about it; empty where there is nothing to do.
    """

    topic: str
    state: str
    text: str
    advice: str = ""


def verdict(contents):
    """All statements on a run, in the order of the page.

    Parameters
    ----------
    contents : Contents

    Returns
    -------
    statements : list of Statement
    """
    rules = (_level, _convergence, _samples, _rare_types, _baselines, _reliability, _tests)
    return [statement for rule in rules for statement in rule(contents)]


def _level(contents):
    topic, expression = "Level of the expression", contents.expression
    if expression is None:
        return
    if expression.level is None or expression.level.isna().all():
        yield Statement(
            topic,
            OPEN,
            "Whether the expression adds up to the bulk is not known, because the bulk, or the expression of some "
            "cell types, is not at hand.",
            "Give the bulk (X) to the report, or put the file back where the run read it; have all cell types "
            "written.",
        )
        return
    yield _known_level(topic, expression.level)


def _known_level(topic, levels):
    level = float(levels.median())
    adds = (
        f"Mixed by the proportions, the expression makes up {percent(level)} of the bulk in the median sample"
    )
    if RIGHT_LEVEL[0] <= level <= RIGHT_LEVEL[1]:
        # a median that is right may hide single samples that are not
        outside = levels[(levels < USELESS_LEVEL[0]) | (levels > USELESS_LEVEL[1])]
        if not len(outside):
            return Statement(topic, GOOD, f"{adds}. It is on the scale of the bulk.")
        return Statement(
            topic,
            CARE,
            f"{adds}, but in {named(outside.index)} it is {percent(outside.min())} to {percent(outside.max())}.",
            "Look at these samples: a different depth or another tissue can be the reason.",
        )
    if USELESS_LEVEL[0] <= level <= USELESS_LEVEL[1]:
        return Statement(
            topic,
            CARE,
            f"{adds}: its level is off.",
            "Compare samples within a gene and a cell type. Do not compare amounts with the bulk, or between genes.",
        )
    little = "next to nothing" if level < 0.1 else "far too little" if level < 1 else "far too much"
    return Statement(
        topic,
        BAD,
        f"{adds}: {little}. The values cannot be read as amounts; which samples have more of a gene than others may "
        f"still be right.",
        "Fit EmpiricalBayesDeconvolver (--model bayes) to values like counts per million. Of signed or centred "
        "values take FactorDeconvolver (--model factor).",
    )


def _convergence(contents):
    topic = "Convergence"
    if contents.converged is None:
        if contents.model is not None:
            yield Statement(
                topic,
                GOOD,
                f"{contents.model} is computed directly, without iterations that could end too early.",
            )
    elif contents.converged:
        steps = "" if contents.history is None else f" after {counted(len(contents.history), 'iteration')}"
        yield Statement(
            topic,
            GOOD,
            f"The fit converged{steps}. That says that the computation ended, not that the result is right.",
        )
    else:
        yield Statement(
            topic,
            BAD,
            "The fit did not converge: its result may be far from the solution.",
            "Increase max_iter, or use tao_k='auto' without renormalisation; the plots at the end show whether the "
            "changes were still decreasing.",
        )


def _samples(contents):
    topic, quality = "Samples", contents.quality
    if quality is None:
        yield Statement(
            topic, OPEN, "How well the reference describes each sample is not known: the bulk is not at hand."
        )
        return
    flagged = quality[quality[FLAG] != ""]
    worse = quality.r2 <= 0
    # flags compare a sample with its cohort: where most are bad, they find none
    if worse.mean() > 0.5:
        yield Statement(
            topic,
            BAD,
            f"In {counted(int(worse.sum()), 'sample')} of {len(quality):,} the profiles, mixed, reproduce the bulk "
            f"worse than a single number for all genes would.",
            "Check that bulk and reference are on one scale (both counts per million, neither logarithms), and that "
            "the reference has the cell types of this tissue.",
        )
    elif len(flagged):
        yield _flagged_samples(topic, flagged, len(quality))
    else:
        middle = quality.correlation.median()
        yield Statement(
            topic,
            GOOD,
            f"None of {counted(len(quality), 'sample')} falls behind the others: over genes, the mixed profiles "
            f"correlate with the samples at {middle:.2f} (median).",
        )


def _flagged_samples(topic, flagged, n_samples):
    advice = "Do not trust their proportions and expression, or leave them out and run again."
    if len(flagged) > MANY_FLAGGED * n_samples:
        advice = (
            "With so many, suspect the reference first: a cell type may be missing, or it may come from another "
            "platform."
        )
    text = (
        f"{len(flagged):,} of {n_samples:,} samples do not look like mixtures of the profiles: "
        f"{named(flagged.index)}."
    )
    return Statement(topic, CARE, text, advice)


def _rare_types(contents):
    mean = contents.proportions.mean()
    rare = [kind for kind in mean.index if mean[kind] < RARE]
    if rare:
        yield Statement(
            "Rare cell types",
            CARE,
            f"{named(rare, 8)} make{'s' if len(rare) == 1 else ''} up less than {RARE:.0%} of the samples on "
            f"average.",
            "The bulk contains hardly any information on their expression. If a cell type should not be in "
            "this tissue, leave it out of the reference; if it is a subtype, merge it with its relatives.",
        )


def _baselines(contents):
    topic, expression = "What the bulk alone would tell", contents.expression
    if expression is None:
        return
    follows = expression.follows
    if follows is None:
        yield Statement(
            topic,
            OPEN,
            "Whether the estimates differ from the bulk itself is not known: the bulk is not at hand.",
        )
        return
    flat = list(follows.index[follows.variation < FLAT])
    # what hardly varies correlates by chance
    same = [kind for kind in follows.index[follows["bulk"] > SAME] if kind not in flat]
    if flat:
        yield Statement(
            topic,
            CARE,
            f"In {named(flat, 8)} the expression hardly differs between samples (relative to its mean, by less than "
            f"{FLAT:.0%} of what the bulk does): it is one profile for all samples.",
            "Read it as a profile. It cannot show differences between samples.",
        )
    if same:
        yield _same_as_bulk(topic, named(same, 8), follows["bulk"][same].min())
    alike = follows["other types"].dropna() if "other types" in follows else ()
    if len(alike) and alike.median() > SAME:
        yield _same_in_all_types(topic, alike.median())
    elif not flat and not same:
        between = _between(follows["bulk"].min(), follows["bulk"].max())
        yield Statement(
            topic,
            GOOD,
            f"The estimates differ from the bulk: over samples, the estimate of the median gene "
            f"correlates with the bulk at {between}, by cell type. That they differ does not prove them better: on "
            f"real cohorts with known truth the gain over the bulk is small.",
        )


def _same_as_bulk(topic, types, correlation):
    return Statement(
        topic,
        CARE,
        f"In {types} the estimate of the median gene follows the bulk of that gene from sample to sample "
        f"(correlation {correlation:.2f} or more).",
        "What differs between samples there is what differs in the bulk. The estimate does not tell which cell type "
        "it comes from, except where nearly all of the gene's bulk is from one (see Reliability).",
    )


def _same_in_all_types(topic, correlation):
    return Statement(
        topic,
        CARE,
        f"The estimates of a gene rise and fall together in all cell types (correlation over samples "
        f"{correlation:.2f} for the median gene). The bulk does not tell which cell type such a difference comes "
        f"from; the model divides it by proportions and reference.",
        "Do not put a difference between samples down to a single cell type on the strength of these estimates. The "
        "test under “Genes that differ” asks which cell type it comes from.",
    )


def _between(low, high):
    """As "0.79", or "0.79 to 0.83" where they differ."""
    first, second = f"{low:.2f}", f"{high:.2f}"
    return first if first == second else f"{first} to {second}"


def _reliability(contents):
    expression = contents.expression
    if expression is None or expression.reliability is None:
        return
    share = (expression.reliability >= RELIABLE).mean(axis=1)
    best, worst = int(np.argmax(share)), int(np.argmin(share))
    state = GOOD if share[best] >= 0.1 else CARE
    yield Statement(
        "Differences between samples",
        state,
        f"The model expects a correlation with the truth of {RELIABLE} or more for {percent(share[best])} of the "
        f"genes in {expression.cell_types[best]} and {percent(share[worst])} in {expression.cell_types[worst]}.",
        "Look at the reliability of a gene in a cell type before you read its differences between samples.",
    )


def _tests(contents):
    topic = "Genes that differ"
    if contents.test is not None:
        yield from _few_samples(contents)
        yield _tested(topic, counts_by_type(contents.test, contents.proportions.columns))
    elif contents.model is not None:
        yield Statement(
            topic,
            OPEN,
            "No test was run: this page cannot say which genes differ between groups.",
            "Run skenigma differential with a phenotype, and write the report again.",
        )


def _tested(topic, counts):
    none = list(counts.index[counts.tested == 0])
    called = counts.up + counts.down
    if len(none) == len(counts):
        return Statement(
            topic,
            BAD,
            "Nothing could be tested in any cell type. The empty lists are not an answer.",
            "See the reasons under Findings: more samples per group, or fewer groups, are the usual remedy.",
        )
    found = ", ".join(f"{kind} {number:,}" for kind, number in called.items() if counts.tested[kind])
    text = f"Genes with q < 0.05: {found}."
    # an empty list of what was never tested would read as "nothing changes"
    if none:
        return Statement(
            topic,
            CARE,
            f"{text} Nothing could be tested in {named(none, 8)}.",
            "Do not conclude that these cell types are unchanged: nothing is known about them.",
        )
    if called.any():
        return Statement(topic, GOOD, text)
    return Statement(
        topic,
        GOOD,
        "Every cell type was tested, and no gene has q < 0.05 in any. That does not show that nothing differs: small "
        "differences may be beyond these samples.",
    )


def _few_samples(contents):
    groups = contents.groups
    if not compares(contents.test, groups) or groups.classes is None:
        return
    sizes = {str(label): int((groups.values == label).sum()) for label in groups.classes}
    few = [f"{name} ({size:,})" for name, size in sizes.items() if size < FEW]
    if few:
        yield Statement(
            "Size of the groups",
            CARE,
            f"Few samples in {named(few, 8)}: single samples decide what is found there.",
            "Treat findings as hints, and draw no conclusions from their absence.",
        )
