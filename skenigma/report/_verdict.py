"""The verdict: a headline, and a line for every rule."""

from ._markup import Markup, joined, markup
from ._reading import how_to_read
from ._rules import BAD, CARE, GOOD, OPEN
from ._texts import named

WORDS = {GOOD: "Fine", CARE: "Take care", BAD: "Do not rely on it", OPEN: "Not known"}


def headline(contents, statements):
    """The verdict in a sentence."""
    bad = {statement.topic for statement in statements if statement.state == BAD}
    care = list(dict.fromkeys(statement.topic for statement in statements if statement.state == CARE))
    # the gravest first: where a fit has not ended, what other rules say means nothing
    if contents.expression is not None and "Convergence" in bad:
        return (
            BAD,
            "Do not use the expression of this run: the fit did not come to an end. What to do stands below.",
        )
    if contents.expression is not None and "Level of the expression" in bad:
        return (
            BAD,
            "Do not read the expression of this run as amounts: its level is wrong. What to do stands below.",
        )
    if "Samples" in bad:
        return (
            BAD,
            "The reference does not describe these samples: trust neither proportions nor expression until "
            "that is fixed.",
        )
    if bad:
        return (
            CARE,
            f"Parts of this run cannot be relied on: {named([f'“{topic}”' for topic in sorted(bad)])}.",
        )
    what = "The estimates" if contents.expression is not None else "The proportions"
    if care:
        return CARE, f"{what} can be used with care: see {named([f'“{topic}”' for topic in care])} below."
    return (
        GOOD,
        f"{what} can be used. No rule below speaks against them; that is no proof that they are right.",
    )


def verdict_section(contents, statements):
    """The section as HTML."""
    state, sentence = headline(contents, statements)
    items = [
        markup(
            '<li class="{state}"><span '
            'class="badge">{word}</span><div><h3>{topic}</h3><p>{text}</p>{advice}</div></li>',
            state=statement.state,
            word=WORDS[statement.state],
            topic=statement.topic,
            text=statement.text,
            advice=markup('<p class="advice"><b>What to do:</b> {text}</p>', text=statement.advice)
            if statement.advice
            else "",
        )
        for statement in statements
    ]
    return joined(
        [
            markup('<p class="headline {state}">{sentence}</p>', state=state, sentence=sentence),
            markup('<ol class="verdict">{items}</ol>', items=items),
            how_to_read("verdict"),
            _notes(contents),
        ]
    )


def _notes(contents):
    parts = []
    for heading, notes in (
        ("Warnings of the run", contents.warnings),
        ("Left out of this page", contents.missing),
    ):
        if notes:
            items = [markup("<li>{note}</li>", note=note) for note in notes]
            parts.append(
                markup(
                    '<div class="warnings"><h3>{heading}</h3><ul>{items}</ul></div>',
                    heading=heading,
                    items=items,
                )
            )
    return joined(parts) if parts else Markup("")
