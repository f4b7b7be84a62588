"""The page: sections around their headings, styles, data and the script, in one file."""

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd

from .._typing import Column, PathLike, Table
from .._version import __version__
from ._colours import colour_rules
from ._data import script_data
from ._end import fit_section, repeat_section
from ._findings import findings_section
from ._gather import gather
from ._markup import Markup, breakable, joined, markup
from ._proportions import proportions_section
from ._reading import how_to_read
from ._reliability import expression_section, reliability_section
from ._rules import verdict
from ._tables import table
from ._verdict import verdict_section

# Parts of the script, each using those before it.
SCRIPTS = (
    "base.js", "table.js", "charts.js", "curves.js", "gene.js", "volcano.js", "findings.js", "trust.js", "start.js"
)  # fmt: skip


def build_report(
    source: Any,
    *,
    X: Table | None = None,
    phenotype: Column | str | None = None,
    differential: pd.DataFrame | PathLike | None = None,
    title: str | None = None,
    top: int = 10,
    key: str = "skenigma",
) -> str:
    """A self-contained web page on a run, a fitted model or an AnnData.

    It says in words what can be relied on, compares proportions between groups, shows the genes that differ and how
    certain that is, every gene's expression, which genes deserve trust, and all that repeats the run.

    Parameters
    ----------
    source : str, path-like, RunFolder, fitted estimator or AnnData
        Folder that ``skenigma deconvolve`` or ``skenigma proportions`` wrote; any fitted deconvolver or
        :class:`~skenigma.ProportionEstimator`; or what :func:`skenigma.anndata.deconvolve` returned.
    X : array-like or DataFrame of shape (n_samples, n_genes), default=None
        The bulk that a model was fitted to: with it, the page has the quality and the names of the samples, the level
        of the expression, and the bulk beside each gene. A run's folder knows where its bulk is, an AnnData holds it.
    phenotype : Series, array-like or str, default=None
        Groups of the samples, or a quantity, for the proportions by group: matched by name where both are named; the
        name of a column of ``obs`` for an AnnData. None takes what ``skenigma differential`` tested in a run.
    differential : DataFrame, str or path-like, default=None
        Result of a test of differential expression (columns ``cell_type``, ``gene``, ``p_value``, ``q_value`` and
        others), or the folder that ``skenigma differential`` wrote. None takes the folder ``differential`` in that
        of the run, if there is one.
    title : str, default=None
        Heading.
    top : int, default=10
        Number of genes per cell type that are printed, and shown without JavaScript. On a screen all can be searched.
    key : str, default="skenigma"
        The key that :func:`skenigma.anndata.deconvolve` was given.

    Returns
    -------
    html : str
        The page. It refers to nothing outside itself.

    Raises
    ------
    ValueError
        If the folder is not that of a run, or phenotype, X and differential do not fit it.
    OSError
        If it cannot be read.

    See Also
    --------
    show : The same in a notebook.

    Notes
    -----
    Names are text, never markup, and a content security policy in the page forbids every request and every script but
    its own. Numbers for the script are rounded to about three digits. Every gene has its mean, share, reliability and
    test; values for every sample are there for as many genes as some 1.5 MB hold, those that differ and those that
    deserve most trust first. 20,000 genes of 8 cell types in 300 samples make a page below 5 MB.

    Cell types are read one at a time: memory is that of a few matrices as large as the bulk.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.report import build_report
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk)
    >>> page = build_report(model, X=cohort.bulk, phenotype=cohort.phenotype)
    >>> "Quality of each sample" in page
    True
    """
    contents = gather(source, X=X, phenotype=phenotype, differential=differential, key=key)
    return page(contents, title=title or "Cell types in bulk RNA-seq", top=top)


def page(contents, *, title, top):
    """The page of contents."""
    statements = verdict(contents)
    sections = [
        ("verdict", "Verdict", verdict_section(contents, statements)),
        ("proportions", "Proportions", proportions_section(contents)),
        (
            "findings",
            "Genes that differ",
            findings_section(contents, top) if contents.expression or contents.test else None,
        ),
        ("expression", "Expression of a gene", expression_section(contents)),
        ("reliability", "Which genes deserve trust", reliability_section(contents)),
        ("samples", "Quality of each sample", _quality(contents.quality)),
        ("fit", "How the fit went", fit_section(contents.history)),
        ("repeat", "Parameters, versions and how to repeat this run", repeat_section(contents)),
    ]
    sections = [section for section in sections if section[2]]
    folder = files("skenigma.report")
    script = _script(folder / "script")
    # the policy names the script by its hash: no other one runs, wherever it came from
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    links = [
        markup('<li><a href="#{place}">{heading}</a></li>', place=place, heading=heading)
        for place, heading, _ in sections
    ]
    return str(
        markup(
            (folder / "template.html").read_text(encoding="utf-8"),
            title=title,
            version=__version__,
            digest=digest,
            style=Markup((folder / "style.css").read_text(encoding="utf-8") + colour_rules(contents)),
            facts=_facts(contents.facts),
            links=links,
            sections=joined((_section(*section) for section in sections), Markup("\n")),
            data=Markup(script_data(contents)),
            script=Markup(script),
        )
    )


def _script(folder):
    """The parts of the script as one, whose names are nobody else's."""
    parts = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _section(place, heading, body):
    return markup(
        '<section id="{place}" aria-labelledby="{place}-heading"><h2 '
        'id="{place}-heading">{heading}</h2>{body}</section>',
        place=place,
        heading=heading,
        body=body,
    )


def _facts(facts):
    cells = [
        markup("<div><dt>{name}</dt><dd>{text}</dd></div>", name=name, text=breakable(text))
        for name, text in facts.items()
    ]
    return markup('<dl class="facts">{cells}</dl>', cells=cells)


def _quality(quality):
    if quality is None:
        return None
    shown = quality.sort_values("correlation", kind="stable")
    return joined(
        [
            how_to_read("samples"),
            table(shown, "sample", "Quality of each sample, the worst first", sortable=True),
        ]
    )


class Report:
    """A page, shown by notebooks.

    Parameters
    ----------
    html : str
        The page.
    height : int, default=800
        Of the frame in a notebook, in pixels.
    """

    def __init__(self, html, height=800):
        self.html, self.height = html, height

    def __repr__(self):
        return f"Report({len(self.html):,} characters; save(path) writes it)"

    def _repr_html_(self):
        """The page in a frame of its own: its styles do not touch the notebook, nor the notebook's the page."""
        return (
            f'<iframe title="Report of skenigma" srcdoc="{escape(self.html)}" width="100%" height="{self.height}" '
            f'style="border:0"></iframe>'
        )

    def save(self, path):
        """Write the page to a file.

        Parameters
        ----------
        path : str or path-like
            A file there is replaced.
        """
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.html)


def show(source: Any, *, height: int = 800, **options: Any) -> Report:
    """The report of a fitted model, an AnnData or a run, in a notebook.

    Parameters
    ----------
    source : fitted estimator, AnnData, str, path-like or RunFolder
        As for :func:`build_report`.
    height : int, default=800
        Of the frame, in pixels.
    **options : dict
        ``X``, ``phenotype``, ``differential``, ``title``, ``top`` and ``key`` of :func:`build_report`.

    Returns
    -------
    report : Report
        Which notebooks show; ``report.save(path)`` writes the page, and ``report.html`` is it.

    Raises
    ------
    ValueError
        As :func:`build_report`.

    See Also
    --------
    build_report : The page as a str.

    Examples
    --------
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.report import show
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0, as_frame=True)
    >>> model = L2MaxDeconvolver(cohort.reference, renorm_size="auto").fit(cohort.bulk)
    >>> show(model, X=cohort.bulk, phenotype=cohort.phenotype).html[:15]
    '<!DOCTYPE html>'
    """
    return Report(build_report(source, **options), height)
