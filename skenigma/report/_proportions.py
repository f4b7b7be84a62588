"""The section on proportions: by group with a test and an interval, and per sample."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ._charts import stacked_bars, strips
from ._colours import group_slots, type_slots
from ._markup import Markup, joined, markup
from ._reading import how_to_read
from ._sources import LEVEL
from ._tables import table
from ._texts import counted, named, p_text, percent

# What proportions are shares of, as it is said to readers.
SHARES = {
    "RNA": "Shares of RNA, not of cells, if the profiles have equal totals. A cell type with much RNA per "
    "cell counts for more than its number of cells.",
    "cells": "Shares of cells.",
    None: "The run does not say whether these are shares of RNA or of cells.",
}
LOWER_BOUND = (
    "The standard errors are a lower bound of the uncertainty: they hold the noise of the genes and a factor by "
    "which a profile may be off as a whole, and nothing else that may be wrong with the reference."
)
MIN_PER_GROUP = 3


@dataclass
class Comparison:
    """Proportions compared between groups.

    Attributes
    ----------
    table : DataFrame
        A row per cell type with ``p_value`` and ``q_value``; NaN where there is no test.
    test : str
        Name of the test.
    effect : str or None
        What ``effect``, ``low`` and ``high`` are; None with more than two groups, whose means have a ``reach`` each,
        half the length of their intervals.
    sizes : dict of str to int
        Samples by group, empty for a quantity.
    """

    table: pd.DataFrame
    test: str
    effect: str | None
    sizes: dict


def compare_groups(proportions, groups):
    """Test for each cell type whether its proportion goes with the groups.

    Welch's t-test with its interval for two groups; the test of Alexander and Govern for more, with the interval of
    each group's mean; neither takes variances for equal. For a quantity the slope of a least-squares line. False
    discovery rates are Benjamini–Hochberg over the cell types.

    Parameters
    ----------
    proportions : DataFrame of shape (n_samples, n_cell_types)
    groups : Groups

    Returns
    -------
    comparison : Comparison
    """
    used = groups.values.notna().to_numpy()
    values, labels = proportions[used], groups.values[used]
    if groups.classes is None:
        quantity = labels.to_numpy(dtype=float)
        rows = [_slope(values[kind].to_numpy(dtype=float), quantity) for kind in values]
        how = "slope of a least-squares line", f"change per unit of {groups.name}", {}
    else:
        members = [values[(labels == label).to_numpy()] for label in groups.classes]
        sizes = {str(label): len(part) for label, part in zip(groups.classes, members, strict=True)}
        compare = _difference if len(members) == 2 else _any_difference
        rows = [
            compare([part[kind].to_numpy(dtype=float) for part in members], list(sizes)) for kind in values
        ]
        two = f"{groups.classes[-1]} − {groups.classes[0]}" if len(members) == 2 else None
        how = "Welch's t-test" if two else "Alexander and Govern's test", two, sizes
    found = pd.DataFrame(rows, values.columns)
    found["q_value"] = np.nan
    there = found.p_value.notna()
    if there.any():
        found.loc[there, "q_value"] = stats.false_discovery_control(found.p_value[there])
    return Comparison(found, *how)


def _difference(parts, names):
    first, second = parts
    row = {f"mean {name}": part.mean() for name, part in zip(names, parts, strict=True)}
    row |= {"effect": second.mean() - first.mean(), "low": np.nan, "high": np.nan, "p_value": np.nan}
    # one group may be constant: the variance is then that of the other
    if min(map(len, parts)) >= MIN_PER_GROUP and _varies(first) + _varies(second):
        test = stats.ttest_ind(second, first, equal_var=False)
        limits = test.confidence_interval(LEVEL)
        row |= {"low": limits.low, "high": limits.high, "p_value": test.pvalue}
    return row


def _any_difference(parts, names):
    row = {}
    for name, part in zip(names, parts, strict=True):
        reach = np.nan
        if len(part) >= MIN_PER_GROUP:
            reach = stats.t.ppf(0.5 + LEVEL / 2, len(part) - 1) * part.std(ddof=1) / np.sqrt(len(part))
        row |= {f"mean {name}": part.mean(), f"reach {name}": reach}
    # groups are weighted by their variances, so that each must have one
    able = all(len(part) >= MIN_PER_GROUP and _varies(part) for part in parts)
    return {**row, "p_value": stats.alexandergovern(*parts).pvalue if able else np.nan}


def _slope(values, quantity):
    row = {"effect": np.nan, "low": np.nan, "high": np.nan, "p_value": np.nan}
    if len(values) <= MIN_PER_GROUP or not _varies(values) or not _varies(quantity):
        return row
    line = stats.linregress(quantity, values)
    reach = stats.t.ppf(0.5 + LEVEL / 2, len(values) - 2) * line.stderr
    return {
        "effect": line.slope,
        "low": line.slope - reach,
        "high": line.slope + reach,
        "p_value": line.pvalue,
    }


def _varies(values):
    """Whether values differ by more than rounding."""
    return np.ptp(values) > 1e-12


def proportions_section(contents):
    """The section as HTML."""
    proportions, std = contents.proportions, contents.proportions_std
    order = proportions.mean().sort_values(ascending=False).index
    # a cell type has one colour in all charts
    slots = type_slots(contents)
    colours = [slots[proportions.columns.get_loc(kind)] for kind in order]
    arranged, text = arrange(proportions, contents.groups, order)
    chart = stacked_bars(arranged, "Proportions", text, colours)
    notes = [SHARES.get(contents.shares_of, SHARES[None])] + ([LOWER_BOUND] if std is not None else [])
    parts = [
        how_to_read("proportions"),
        markup("<p>{notes}</p>", notes=" ".join(notes)),
        chart,
        _comparison(contents, order),
        _summary(proportions, std, order),
        _per_sample(contents, order),
    ]
    return joined(parts)


def arrange(proportions, groups, order):
    """Samples in the order of the chart, and the order in words."""
    arranged = proportions[order].sort_values(list(order[:1]), ascending=False, kind="stable")
    text = f"one bar per sample, sorted by {order[0]}, the most abundant cell type"
    if groups is None:
        return arranged, text
    place = groups.values[arranged.index]
    if groups.classes is None:
        return arranged.iloc[
            np.argsort(place.to_numpy(dtype=float), kind="stable")
        ], f"one bar per sample, sorted by {groups.name}"
    rank = place.map({label: number for number, label in enumerate(groups.classes)}).fillna(
        len(groups.classes)
    )
    inner = ", then ".join(str(label) for label in groups.classes)
    # stable, so that the order within a group stays
    arranged = arranged.iloc[np.argsort(rank.to_numpy(dtype=float), kind="stable")]
    return arranged, f"one bar per sample: {inner}; within these sorted by {order[0]}"


def _comparison(contents, order):
    """Charts and the table of the test, or what to do to get them."""
    proportions, groups = contents.proportions, contents.groups
    if groups is None:
        return markup(
            '<h3>By group</h3><p class="note">No groups were given, so that there is nothing to compare: '
            "run <code>skenigma differential</code> with a phenotype first, or give the phenotype to the report.</p>"
        )
    found = compare_groups(proportions, groups)
    shown, able = _comparison_table(found, order)
    sizes = ", ".join(f"{name} {counted(size, 'sample')}" for name, size in found.sizes.items())
    left_out = int(groups.values.isna().sum())
    sentence = _called(found, able)
    extra = (
        f" {counted(left_out, 'sample')} without a group, or of another one, take no part."
        if left_out
        else ""
    )
    what = "the mean of a group" if found.effect is None else "the difference or slope"
    intervals = f"intervals are of {what}, and cover {LEVEL:.0%}; "
    how = (
        f"{found.test}, without adjustment for anything else; {intervals}q is the false discovery "
        f"rate over the cell types. Shares add up to 100%: where one rises, others must fall."
    )
    charts = Markup("")
    if groups.classes is not None:
        charts = strips(proportions[order], groups.values, groups.classes, group_slots(contents))
    return joined(
        [
            markup("<h3>By {name}</h3><p>{sizes}{dot}{sentence}{extra}</p>", name=groups.name, sizes=sizes,
                   dot=". " if sizes else "", sentence=sentence, extra=extra),
            charts,
            table(shown, "cell type", f"Proportions by {groups.name}", sortable=True),
            markup('<p class="note">{how}</p>', how=how),
        ]
    )  # fmt: skip


def _comparison_table(found, order):
    """The table as it is shown, and the cell types that could be tested."""
    rows = found.table.loc[order]
    shown = pd.DataFrame(index=rows.index)
    for name in rows:
        if name.startswith("mean "):
            reach = rows.get(name.replace("mean ", "reach ", 1))
            shown[name] = [_share_cell(value) for value in rows[name]]
            if reach is not None:
                shown[f"{name}, {LEVEL:.0%} interval"] = [
                    "–"
                    if np.isnan(around)
                    else f"{100 * max(value - around, 0):.1f} to {100 * (value + around):.1f}%"
                    for value, around in zip(rows[name], reach, strict=True)
                ]
    if found.effect is not None:
        shown[found.effect] = [_share_cell(value, signed=True) for value in rows.effect]
        shown[f"{LEVEL:.0%} interval"] = [
            "–" if np.isnan(low) else f"{100 * low:+.1f} to {100 * high:+.1f} points".replace("-", "−")
            for low, high in zip(rows.low, rows.high, strict=True)
        ]
    for name, heading in (("p_value", "p"), ("q_value", "q")):
        shown[heading] = [_p_cell(value) for value in rows[name]]
    return shown, list(rows.index[rows.p_value.notna()])


def _called(found, able):
    if not able:
        return (
            f"Nothing could be tested: a test needs at least {MIN_PER_GROUP} samples in each group, and shares that "
            f"vary."
        )
    called = [kind for kind in able if found.table.q_value[kind] < 0.05]
    if not called:
        return f"None of {counted(len(able), 'tested cell type')} differs with q < 0.05."
    return f"{named(called, 8)} {'differs' if len(called) == 1 else 'differ'} with q < 0.05, of {len(able)} tested."


def _share_cell(value, signed=False):
    text = (
        "–"
        if np.isnan(value)
        else (f"{100 * value:+.1f} points".replace("-", "−") if signed else percent(value))
    )
    return markup('<span data-value="{exact}">{text}</span>', exact=f"{value:.6g}", text=text)


def _p_cell(value):
    exact = "" if np.isnan(value) else f"{value:.6g}"
    return markup('<span data-value="{exact}">{text}</span>', exact=exact, text=p_text(value))


def _summary(proportions, std, order):
    summary = pd.DataFrame(
        {
            "mean": proportions.mean(),
            "standard deviation": proportions.std(),
            "smallest": proportions.min(),
            "median": proportions.median(),
            "largest": proportions.max(),
            "samples with none": (proportions == 0).sum(),
        }
    )
    if std is not None:
        summary["median standard error"] = std.median()
    return joined(
        [
            Markup("<h3>Over all samples</h3>"),
            table(
                summary.loc[order], "cell type", "Proportions over all samples", sortable=True, shares=True
            ),
        ]
    )


def _per_sample(contents, order):
    """Every sample, with its group and its flag."""
    shown = contents.proportions[order].astype(float)
    if contents.groups is not None:
        shown.insert(
            0,
            contents.groups.name,
            contents.groups.values.map(lambda v: "" if v is None or v != v else f"{v}"),
        )
    parts = [
        Markup("<h3>Per sample</h3>"),
        table(shown, "sample", "Proportions of every sample", sortable=True, shares=True),
    ]
    if contents.proportions_std is not None:
        parts += [
            Markup("<details><summary>Standard errors of all samples, a lower bound</summary>"),
            table(
                contents.proportions_std[order].astype(float),
                "sample",
                "Standard errors of the proportions",
                sortable=True,
                shares=True,
            ),
            Markup("</details>"),
        ]
    return joined(parts)
