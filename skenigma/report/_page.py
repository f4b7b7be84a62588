"""The page: sections of HTML around tables and charts."""

from html import escape
from importlib.resources import files
from string import Template

import numpy as np
import pandas as pd

from .._version import __version__
from ..differential import untested
from ._charts import N_COLOURS, line_chart, stacked_bars
from ._contents import CHANGE, CONTRAST, FLAG, GRADIENTS, SHARES, gather

MOST_ROWS = 500  # of a table in the page; the files hold all


def build_report(source, *, X=None, differential=None, title=None, top=10):
    """One self-contained page of HTML on a run or a fitted model.

    Parameters
    ----------
    source : str, path-like, RunFolder or fitted estimator
        Folder that ``skenigma deconvolve`` or ``skenigma proportions`` wrote, or any fitted deconvolver or
        :class:`~skenigma.ProportionEstimator`.
    X : array-like or DataFrame of shape (n_samples, n_genes), default=None
        The bulk that a model was fitted to: with it, the page has the quality of each sample, and their names. The
        folder of a run holds both.
    differential : DataFrame, str or path-like, default=None
        Result of a test of differential expression (columns ``cell_type``, ``gene``, ``p_value``, ``q_value`` and
        others), or the folder that ``skenigma differential`` wrote. None takes the folder ``differential`` in that
        of the run, if there is one.
    title : str, default=None
        Heading.
    top : int, default=10
        Number of differential genes to show per cell type.

    Returns
    -------
    html : str
        The page. It refers to nothing outside itself.

    Raises
    ------
    ValueError
        If the folder is not that of a run.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.report import build_report
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk)
    >>> page = build_report(model, X=cohort.bulk)
    >>> "Quality of each sample" in page
    True
    """
    contents = gather(source, differential, X)
    folder = files("skenigma.report")
    sections = [
        _proportions(contents.proportions, contents.proportions_std, contents.shares_of),
        _quality(contents.quality),
        _uncertainty(contents.uncertainty),
        _convergence(contents),
        _differential(contents.differential, contents.proportions.columns, top),
        _settings(contents),
    ]
    return Template((folder / "template.html").read_text(encoding="utf-8")).substitute(
        title=escape(title or "Cell types in bulk RNA-seq"),
        version=escape(__version__),
        style=(folder / "style.css").read_text(encoding="utf-8") + _colour_rules(),
        state=_state(contents.converged),
        facts=_facts(contents.facts),
        warnings=_warnings(contents.warnings),
        sections="\n".join(section for section in sections if section),
    )


def _colour_rules():
    """Rules that give the parts of charts their colours."""
    return "".join(
        f".fill{n}{{fill:var(--c{n})}}.line{n}{{stroke:var(--c{n})}}.dot{n}{{fill:var(--c{n})}}"
        f".key{n}{{background:var(--c{n})}}"
        for n in range(N_COLOURS)
    )


def _state(converged):
    if converged is None:
        return ""
    if converged:
        return '<p class="state good">The fit converged.</p>'
    return (
        '<p class="state bad">The fit did not converge: its result may be far from where it would have ended. '
        "See the warnings.</p>"
    )


def _facts(facts):
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items()
    )
    return f'<dl class="facts">{cells}</dl>'


def _warnings(warnings):
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="warnings"><b>Warnings of the run</b><ul>{items}</ul></div>'


def _proportions(proportions, std, shares_of):
    order = proportions.mean().sort_values(ascending=False).index
    sorted_samples = proportions[order].sort_values(list(order[:1]), ascending=False, kind="stable")
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
    details = f"<details><summary>All samples</summary>{_table(proportions, 'sample')}</details>"
    note = [f"{SHARES[shares_of][0].upper() + SHARES[shares_of][1:]}."] if shares_of in SHARES else []
    if std is not None:
        summary["median standard error"] = std.median()
        note.append(
            "The standard errors are a lower bound of the uncertainty: they hold the noise of the genes and a factor "
            "by which a profile may be off as a whole, and nothing else that may be wrong with the reference."
        )
        heading = "Standard errors of all samples, a lower bound"
        details += f"<details><summary>{heading}</summary>{_table(std, 'sample')}</details>"
    summary = summary.loc[order]
    note = f'<p class="note">{" ".join(note)}</p>' if note else ""
    text = f"one bar per sample, sorted by {order[0]}, the most abundant cell type"
    # a cell type has one colour in all charts
    colours = [proportions.columns.get_loc(kind) for kind in order]
    chart = stacked_bars(sorted_samples, "Proportions", text, colours)
    return f"<section><h2>Proportions</h2>{chart}{_table(summary, 'cell type')}{note}{details}</section>"


def _quality(quality):
    if quality is None:
        return ""
    flagged = quality[quality[FLAG] != ""]
    if len(flagged):
        intro = (
            f"<p>{len(flagged):,} of {len(quality):,} samples are flagged: they are no good mixtures of profiles, "
            f"so distrust their proportions and expression.</p>{_table(flagged, 'sample')}"
        )
    else:
        intro = f"<p>None of {len(quality):,} samples is flagged.</p>"
    note = (
        '<p class="note">How well the profiles, mixed by the proportions, reproduce each sample over the shared '
        "genes. r2: share of the variance over genes that the scaled mixture explains. scale: the factor that fits "
        "best, about 1 if bulk and reference are on one scale. poor fit: a correlation more than three robust "
        "standard deviations below the median of the cohort.</p>"
    )
    rest = f"<details><summary>All samples</summary>{_table(quality, 'sample')}</details>"
    return f"<section><h2>Quality of each sample</h2>{intro}{note}{rest}</section>"


def _uncertainty(table):
    if table is None:
        return ""
    note = (
        '<p class="note">Medians over samples and genes. genes that vary: share of the genes whose estimates vary '
        "over samples by more than their median standard deviation; of the others the model does not claim to know "
        "how samples differ.</p>"
    )
    return f"<section><h2>Uncertainty of the expression</h2>{_table(table, 'cell type')}{note}</section>"


def _convergence(contents):
    history = contents.history
    if history is None:
        return ""
    # what is neither a gradient nor a change is a loss, whatever the model calls it
    losses = {
        name: history[name] for name in history if name not in GRADIENTS and not name.startswith(CHANGE)
    }
    charts = []
    if losses:
        charts.append(line_chart(losses, "Loss terms", "iteration", "squared expression units"))
    if set(GRADIENTS) <= set(history.columns):
        norms = {name.removeprefix("gradient "): history[name] for name in GRADIENTS}
        charts.append(line_chart(norms, "Gradient norms", "iteration", "before renormalisation"))
    changes = {name.removeprefix(CHANGE): history[name] for name in history if name.startswith(CHANGE)}
    if changes:
        unit = "squared, summed over samples and genes"
        charts.append(line_chart(changes, "Change per cell type", "iteration", unit))
    text = (
        '<p class="note">All axes are logarithmic; zeros but for rounding are left out. The loss terms '
        "are those that the model records: unweighted by L2MaxDeconvolver, weighted by TraceNormDeconvolver.</p>"
    )
    return f'<section><h2>How the fit went</h2>{text}<div class="grid2">{"".join(charts)}</div></section>'


def _differential(table, cell_types, top):
    if table is None:
        return ""
    parts = []
    for kind in [kind for kind in cell_types if (table.cell_type == kind).any()]:
        genes = table[table.cell_type == kind]
        best = (
            genes.sort_values("p_value", kind="stable")
            .head(top)
            .set_index("gene")
            .drop(columns=["cell_type", CONTRAST], errors="ignore")
        )
        note = _called(genes)
        heading = f'<h3>{escape(str(kind))}</h3><p class="note">{note}</p>'
        if FLAG in best and not best[FLAG].any():
            best = best.drop(columns=FLAG)
        parts.append(f"<div>{heading}{_table(best, 'gene')}</div>")
    effect = ""
    if CONTRAST in table and len(table):
        effect = f'<p class="note">Effect: {escape(str(table[CONTRAST].iloc[0]))}.</p>'
    return f'<section><h2>Differential genes</h2>{effect}<div class="grid2 wide">{"".join(parts)}</div></section>'


def _called(genes):
    """How many genes of a cell type are called, of how many that could be tested, and why others could not."""
    tested = int(genes.p_value.notna().sum())
    if not tested:
        note = f"none of {len(genes):,} genes could be tested"
    else:
        note = f"{int((genes.q_value < 0.05).sum()):,} of {tested:,} tested genes with q &lt; 0.05"
    if FLAG not in genes or tested == len(genes):
        return note
    reasons = ", ".join(f"{escape(str(flag))} {count:,}" for flag, count in untested(genes).items())
    return f"{note}; without a test: {reasons}"


def _settings(contents):
    parts = [
        f"<h3>{heading}</h3>{_pairs(values)}"
        for heading, values in (
            ("Parameters", contents.parameters),
            ("Inputs", contents.inputs),
            ("Versions", contents.versions),
        )
        if values
    ]
    return f"<section><h2>Parameters and versions</h2>{''.join(parts)}</section>"


def _pairs(values):
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in values.items()
    )
    return f'<table class="text">{rows}</table>'


def _table(frame, corner):
    """A DataFrame as a table that scrolls sideways where the screen is narrow."""
    shown = frame.head(MOST_ROWS)
    head = "".join(f"<th>{escape(str(name).replace('_', ' '))}</th>" for name in (corner, *shown.columns))
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td>{''.join(map(_cell, row))}</tr>"
        for name, row in zip(shown.index, shown.itertuples(index=False), strict=True)
    )
    more = (
        f'<p class="note">The first {MOST_ROWS:,} of {len(frame):,} rows.</p>'
        if len(frame) > MOST_ROWS
        else ""
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{more}'
    )


def _cell(value):
    if isinstance(value, (bool, np.bool_)):
        return f'<td class="flag">{"yes" if value else ""}</td>'
    if isinstance(value, str) or value is None:
        return f'<td class="flag">{escape(value or "")}</td>'
    if pd.isna(value):
        return "<td>–</td>"
    if isinstance(value, (int, np.integer)):
        return f"<td>{value:,}</td>"
    return f"<td>{value:.3g}</td>"
