"""Tables as HTML: headings with their scope, numbers aligned, wide ones in a region that scrolls."""

import numpy as np
import pandas as pd

from ._markup import Markup, joined, markup
from ._pack import pack_names, pack_numbers, to_json
from ._texts import counted, number, percent

MOST_ROWS = 500  # of a table in the page; the files hold all


def table(frame, corner, caption, *, sortable=False, shares=False, most=MOST_ROWS):
    """A DataFrame as a table.

    Parameters
    ----------
    frame : DataFrame
        Texts and numbers; markup stays markup.
    corner : str
        Heading of the names of the rows.
    caption : str
        What the table shows, for readers and for screen readers.
    sortable : bool, default=False
        Whether the script offers search and sorting, of all rows.
    shares : bool, default=False
        Whether numbers with decimals are shares, to be shown in percent.
    most : int
        Number of rows in the page; of a sortable table the rest is there for the script.

    Returns
    -------
    html : Markup
    """
    shown = frame.head(most)
    # texts stand on the left, numbers on the right
    words = [False, *(_is_text(shown.iloc[:, column]) for column in range(shown.shape[1]))]
    head = joined(
        markup('<th scope="col"{kind}>{name}</th>', name=name, kind=Markup(' class="text"' if text else ""))
        for name, text in zip((corner, *shown.columns), words, strict=True)
    )
    rows = joined(
        markup(
            '<tr><th scope="row">{name}</th>{cells}</tr>',
            name=name,
            cells=[cell(value, shares) for value in row],
        )
        for name, row in zip(shown.index, shown.itertuples(index=False, name=None), strict=True)
    )
    whole = markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table{kind}>'
        "<caption><span>{caption}</span></caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{rest}</div>",
        kind=Markup(' class="sortable"' if sortable else ""),
        caption=caption,
        head=head,
        rows=rows,
        # search and sorting must not be of the first rows alone
        rest=_packed(frame, shares) if sortable and len(frame) > most else "",
    )
    if len(frame) <= most:
        return whole
    return joined(
        [
            whole,
            markup(
                '<p class="note">The first {most:,} of {all}.</p>', most=most, all=counted(len(frame), "row")
            ),
        ]
    )


def _packed(frame, shares):
    """All rows of a table that has only its first ones in the page."""
    columns = [
        pack_names([str(value) for value in column])
        if _is_text(column)
        else pack_numbers(column.to_numpy(dtype=float))
        for _, column in frame.items()
    ]
    names = pack_names([str(name) for name in frame.index])
    data = to_json({"shares": shares, "columns": [names, *columns]})
    return markup('<script type="application/json" class="rows">{data}</script>', data=Markup(data))


def _is_text(column):
    return any(isinstance(value, str) and not isinstance(value, Markup) for value in column)


def cell(value, shares=False):
    """One value; the script sorts numbers by their full value."""
    if isinstance(value, Markup):
        return markup("<td>{value}</td>", value=value)
    if isinstance(value, (bool, np.bool_)):
        return markup('<td class="text">{value}</td>', value="yes" if value else "")
    if isinstance(value, str) or value is None:
        return markup('<td class="text">{value}</td>', value=value or "")
    if pd.isna(value):
        return Markup('<td data-value="">–</td>')
    shown = percent(value) if shares and isinstance(value, (float, np.floating)) else number(value)
    return markup('<td data-value="{exact}">{value}</td>', exact=f"{value:.6g}", value=shown)


def pairs(values, caption):
    """Names and texts."""
    rows = [
        markup('<tr><th scope="row">{name}</th><td class="text">{text}</td></tr>', name=name, text=text)
        for name, text in values.items()
    ]
    return markup(
        '<table class="pairs"><caption><span>{caption}</span></caption><tbody>{rows}</tbody></table>',
        caption=caption,
        rows=rows,
    )
