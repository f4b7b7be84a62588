"""Charts as SVG in the page: they take the colours of its theme, need no network, and their text can be selected."""

from html import escape

import numpy as np

from ._colours import N_COLOURS
from ._markup import Markup

WIDTH, HEIGHT = 440, 260
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 10, 40
MOST_TICKS = 7
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NEGLIGIBLE = 1e-12  # below this share of the largest, a loss is zero up to rounding


def line_chart(series, title, x_label, y_label):
    """Lines over iterations, on a logarithmic axis.

    Parameters
    ----------
    series : dict of str to array
        By name; values that are not positive, or rounding noise, are left out.
    title, x_label, y_label : str
    """
    cleaned = {name: _visible(np.asarray(values, dtype=float)) for name, values in series.items()}
    everything = np.concatenate([values[np.isfinite(values)] for values in cleaned.values()])
    if not len(everything):
        return Markup('<p class="note">Nothing was recorded that could be drawn.</p>')
    length = max(len(values) for values in cleaned.values())
    low, high = np.log10(everything.min()), np.log10(everything.max())
    if high - low < 0.1:  # a flat line in the middle
        low, high = low - 0.5, high + 0.5

    def x(iteration):
        return LEFT + (WIDTH - LEFT - RIGHT) * (iteration - 1) / max(length - 1, 1)

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - np.log10(value)) / (high - low)

    parts = [_axis_y(tick, y(tick)) for tick in _decades(low, high)]
    parts += [_tick_x(int(tick), x(tick)) for tick in _whole_ticks(length)]
    parts += [_line(number, values, x, y) for number, values in enumerate(cleaned.values())]
    parts.append(f'<text class="label" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 5}">{escape(x_label)}</text>')
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
    caption = f"<figcaption><b>{escape(title)}</b> {escape(y_label)}</figcaption>"
    return Markup(f"<figure>{caption}{picture}{legend(cleaned)}</figure>")


def stacked_bars(proportions, title, x_label, colours):
    """A bar per sample, with a part per cell type: one path per cell type, whatever the number of samples.

    Parameters
    ----------
    proportions : DataFrame of shape (n_samples, n_cell_types)
        In the order to draw.
    title, x_label : str
    colours : list of int
        Number of the colour of each cell type.
    """
    n_samples, heights = len(proportions), proportions.to_numpy(dtype=float).T
    tops = 1 - np.cumsum(heights, axis=0)
    bottoms = tops + heights
    paths = [
        f'<path class="fill{number}" d="{_steps(top, bottom)}"/>'
        for number, top, bottom in zip(colours, tops, bottoms, strict=True)
    ]
    picture = (
        f'<svg class="bars" viewBox="0 0 {n_samples} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{"".join(paths)}</svg>'
    )
    scale = '<div class="scale"><span>100%</span><span>50%</span><span>0%</span></div>'
    return Markup(
        f'<figure id="bars"><figcaption><b>{escape(title)}</b> {escape(x_label)}</figcaption>'
        f'<div class="stack">{scale}{picture}</div>{legend(proportions.columns, colours)}</figure>'
    )


def strips(proportions, labels, classes, colours):
    """A panel per cell type: a dot per sample in the column of its group, and the mean of the group as a line.

    Parameters
    ----------
    proportions : DataFrame of shape (n_samples, n_cell_types)
    labels : Series
        Group of each sample.
    classes : list
        Groups in order.
    colours : list of int
        Number of the colour of each.
    """
    panels = "".join(_strip(str(kind), proportions[kind], labels, classes, colours) for kind in proportions)
    return Markup(f'<div class="strips">{panels}</div>')


def _strip(name, shares, labels, classes, colours):
    width, height, left, bottom = 60 + 60 * len(classes), 170, 46, 26
    top = max(float(shares.max()), 0.01) * 1.05

    def y(share):
        return 8 + (height - bottom - 8) * (1 - share / top)

    parts = []
    for share in (0.0, top / 2.1, top / 1.05):
        parts.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        digits = 0 if top > 0.1 else 1
        parts.append(
            f'<text class="tick end" x="{left - 5}" y="{y(share) + 4:.1f}">{100 * share:.{digits}f}%</text>'
        )
    for number, (label, colour) in enumerate(zip(classes, colours, strict=True)):
        middle = left + 30 + 60 * number
        values = shares[(labels == label).to_numpy()].to_numpy(dtype=float)
        # spread sideways by position, so that equal values can be told apart
        aside = 18 * (np.modf(np.arange(len(values)) * 0.618)[0] - 0.5)
        parts += [
            f'<circle class="dot{colour}" cx="{middle + x:.1f}" cy="{y(value):.1f}" r="2.6"/>'
            for x, value in zip(aside, values, strict=True)
        ]
        if len(values):
            at = y(values.mean())
            parts.append(
                f'<line class="mean" x1="{middle - 16}" x2="{middle + 16}" y1="{at:.1f}" y2="{at:.1f}"/>'
            )
        shown = str(label) if len(str(label)) <= 9 else str(label)[:8] + "…"
        parts.append(f'<text class="tick" x="{middle}" y="{height - 8}">{escape(shown)}</text>')
    picture = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)} by group; the table has '
        f'the means">'
        f"{''.join(parts)}</svg>"
    )
    caption = f"<figcaption><b>{escape(name)}</b></figcaption>"
    return f'<figure style="flex-basis:{0.9 * width:.0f}px;max-width:{1.2 * width:.0f}px">{caption}{picture}</figure>'


def legend(names, colours=None):
    """Names with their colours, counted where none are given."""
    colours = [number % N_COLOURS for number in range(len(names))] if colours is None else colours
    keys = "".join(
        f'<li><span class="key key{number}"></span>{escape(str(name))}</li>'
        for number, name in zip(colours, names, strict=True)
    )
    return Markup(f'<ul class="legend">{keys}</ul>')


def _visible(values):
    positive = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    if np.isnan(positive).all():
        return positive
    return np.where(positive > NEGLIGIBLE * np.nanmax(positive), positive, np.nan)


def _line(number, values, x, y):
    """One series: a path, and a marker so that colour is not the only difference."""
    points = [(x(i), y(value)) for i, value in enumerate(values, start=1) if np.isfinite(value)]
    if not points:
        return ""
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
    every = max(1, len(points) // 8)
    marks = "".join(
        f'<circle class="dot{number % N_COLOURS}" cx="{px:.1f}" cy="{py:.1f}" r="2.4"/>'
        for px, py in points[::every]
    )
    return f'<path class="line line{number % N_COLOURS} dash{number % 4}" d="{path}"/>{marks}'


def _axis_y(value, position):
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{position:.1f}" y2="{position:.1f}"/>'
    return f'{line}<text class="tick end" x="{LEFT - 6}" y="{position + 4:.1f}">{_number(value)}</text>'


def _tick_x(value, position):
    return f'<text class="tick" x="{position:.1f}" y="{HEIGHT - BOTTOM + 16}">{value:,}</text>'


def _decades(low, high):
    """Round values between two exponents: as many as there is room for."""
    exponents = np.arange(np.floor(low), np.ceil(high) + 1)
    # the finest steps that still leave room between the texts
    for steps, stride in (
        ((1, 1.5, 2, 3, 5, 7), 1),
        ((1, 2, 5), 1),
        ((1, 3), 1),
        ((1,), 1),
        ((1,), 2),
        ((1,), 5),
    ):
        ticks = [step * 10.0**exponent for exponent in exponents[::stride] for step in steps]
        ticks = [tick for tick in ticks if low - 1e-9 <= np.log10(tick) <= high + 1e-9]
        if len(ticks) <= MOST_TICKS:
            break
    return ticks


def _number(value):
    """A tick's text: a power of ten where digits would be many."""
    exponent = int(np.floor(np.log10(value) + 1e-9))
    if -3 <= exponent <= 3:
        return f"{value:.4g}"
    factor = value / 10.0**exponent
    power = "10" + str(exponent).translate(SUPERSCRIPT)
    return power if abs(factor - 1) < 1e-6 else f"{factor:.2g}·{power}"


def _whole_ticks(length):
    return np.unique(np.linspace(1, length, min(length, 5)).round())


def _steps(tops, bottoms):
    """Outline of a row of bars."""
    # relative moves across, which need no position: there may be thousands of samples
    there = "".join(f"V{top:.4f}h1" for top in tops)
    back = "".join(f"V{bottom:.4f}h-1" for bottom in bottoms[::-1])
    return f"M0 {bottoms[0]:.4f}{there}{back}Z"
