"""The page in headless Chromium: what a reader does with it, at two widths, and what it must never do."""

import csv
import http.server
import io
import itertools
import json
import threading
import time

import numpy as np
import pandas as pd
import pytest

from skenigma import EmpiricalBayesDeconvolver, ProportionEstimator
from skenigma.differential import differential_expression
from skenigma.report import build_report, show
from skenigma.report._contents import Contents, Findings, Groups
from skenigma.report._expression import summarise
from skenigma.report._page import page as write_page
from skenigma.report._sources import TableSource

from .browser import Browser, find_chromium
from .support import NASTY, counts_cohort

pytestmark = pytest.mark.slow
TOOLS = "#explorer > .tools ~ .tools"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium is installed: Debian's package is chromium")
    browser = Browser(path, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def cohort():
    return counts_cohort(n_samples=24, n_genes=400)


@pytest.fixture(scope="module")
def table(cohort):
    bulk, reference, phenotype = cohort
    model = EmpiricalBayesDeconvolver(reference).fit(bulk)
    return model, differential_expression(model, phenotype, X=bulk)


@pytest.fixture(scope="module")
def page(cohort, table, tmp_path_factory):
    bulk, _, phenotype = cohort
    model, found = table
    path = tmp_path_factory.mktemp("page") / "report.html"
    source = build_report(model, X=bulk, phenotype=phenotype, differential=found, title=NASTY)
    path.write_text(source, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, page):
    browser.open(page)
    return browser


def rows(browser, place):
    """Texts of the rows of a table."""
    script = (
        f"[...document.querySelectorAll('{place} tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    return browser.run(script)


def problems(browser):
    """Exceptions, messages of errors, and requests for anything but the page itself and its own data."""
    found = []
    for event in browser.events:
        if event["method"] == "Runtime.exceptionThrown":
            found.append(event["params"]["exceptionDetails"])
        elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            found.append(event["params"]["entry"])
        elif event["method"] == "Network.requestWillBeSent":
            address = event["params"]["request"]["url"]
            if not address.startswith(("file:", "data:", "blob:")):
                found.append(address)
        elif event["method"] == "Page.javascriptDialogOpening":
            found.append(event["params"])
    return found


def test_nothing_goes_wrong_and_nothing_is_asked_of_a_network(opened):
    opened.run("new Promise(resolve => setTimeout(resolve, 200))")
    assert problems(opened) == []
    loaded = [
        e["params"]["request"]["url"] for e in opened.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert [address for address in loaded if address.startswith("file:")] == loaded
    assert len(loaded) == 1


@pytest.fixture
def server():
    """A server on this machine, and the addresses that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def test_the_policy_stops_what_would_reach_outside(opened, server):
    address, asked = server
    script = f"fetch('{address}/data', {{mode: 'no-cors'}}).then(() => 'sent', () => 'refused')"
    assert opened.run(script) == "refused"
    loaded = (
        "new Promise(done => document.body.append(Object.assign(new Image(), "
        f"{{src: '{address}/picture', onload: () => done('loaded'), onerror: () => done('refused')}})))"
    )
    assert opened.run(loaded) == "refused"
    assert asked == []
    script = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hit = 1'}))"
    opened.run(script)
    assert opened.run("window.hit") is None


def test_names_are_text(opened):
    assert opened.run("document.title") == NASTY
    assert opened.run("document.querySelector('h1').textContent") == NASTY
    assert opened.run("document.scripts.length") == 2
    kinds = opened.run("[...document.querySelectorAll('#explorer select option')].map(o => o.textContent)")
    assert any(text.startswith(NASTY) for text in kinds)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_screen(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    # whatever is wider lies in a region that scrolls, and can be reached by keyboard
    outside = browser.run(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 "
        "&& !e.closest('.scroll[tabindex=\"0\"]') && !e.closest('svg')).map(e => e.outerHTML.slice(0, 90))"
    )
    assert outside == []
    # text is legible in both: contrast of WCAG, 4.5 to 1
    assert contrast(browser, "main p") >= 4.5
    assert contrast(browser, "thead button") >= 4.5
    assert contrast(browser, ".note") >= 4.5
    for badge in browser.run("[...document.querySelectorAll('.verdict li')].map((e, i) => i + 1)"):
        assert contrast(browser, f".verdict li:nth-child({badge}) .badge") >= 4.5


def contrast(browser, selector):
    """Contrast of an element's text and the nearest background, by the formula of WCAG."""
    ink, paper = browser.run(
        f"(() => {{ let e = document.querySelector({json.dumps(selector)}); const ink = getComputedStyle(e).color;"
        "const bare = (c) => c === 'rgba(0, 0, 0, 0)' || c === 'transparent';"
        "while (e && bare(getComputedStyle(e).backgroundColor)) e = e.parentElement;"
        "return [ink, getComputedStyle(e ?? document.body).backgroundColor]; })()"
    )

    def luminance(colour):
        parts = np.array([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_search_finds_a_gene(opened):
    opened.click(f"{TOOLS} input[type=search]")
    opened.type("gene39")
    found = [row[0] for row in rows(opened, "#explorer")]
    assert sorted(found) == sorted(["GENE39", *(f"GENE39{digit}" for digit in range(8))])
    opened.run(f"document.querySelector('{TOOLS} input[type=search]').select()")
    opened.type("no such gene")
    assert (
        opened.run("document.querySelector('#explorer .pager [role=status]').textContent")
        == "No row matches."
    )


def test_hostile_names_can_be_searched(opened):
    opened.click(f"{TOOLS} input[type=search]")
    opened.type("<script>")
    assert [row[0] for row in rows(opened, "#explorer")] == [NASTY]


def test_findings_are_those_of_the_test(opened, table):
    _, found = table
    called = found[found.q_value < 0.05]
    assert len(called) >= 5
    kind = called.cell_type.value_counts().index[0]
    expected = found[found.cell_type == kind].sort_values("p_value", kind="stable").head(5)
    shown = rows(opened, "#explorer")[:5]
    assert [row[0] for row in shown] == expected.gene.tolist()
    # effects have three digits, and the interval is that of the standard error
    np.testing.assert_allclose([float(row[1].replace("−", "-")) for row in shown], expected.effect, rtol=6e-3)
    low = expected.effect - 1.96 * expected.standard_error
    np.testing.assert_allclose([float(row[2].replace("−", "-")) for row in shown], low, rtol=6e-3, atol=5e-3)


def test_sorting_by_pointer_and_by_keyboard(opened):
    head = "document.querySelector('#explorer thead th:nth-child(2)')"
    assert opened.run(f"{head}.getAttribute('aria-sort')") is None
    opened.click("#explorer thead th:nth-child(2) button")
    assert opened.run(f"{head}.getAttribute('aria-sort')") == "descending"
    effects = [float(row[1].replace("−", "-")) for row in rows(opened, "#explorer")]
    assert effects == sorted(effects, reverse=True)
    opened.run(f"{head}.firstChild.focus()")
    opened.press("Enter", 13)
    assert opened.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    effects = [float(row[1].replace("−", "-")) for row in rows(opened, "#explorer")]
    assert effects == sorted(effects)


def test_sorting_samples_puts_numbers_in_order(opened):
    caption = "Proportions of every sample"
    opened.run(
        f"[...document.querySelectorAll('caption')].find(c => c.textContent === '{caption}')"
        ".closest('.scroll').id = 'samples-table'"
    )
    opened.click("#samples-table thead th:nth-child(3) button")
    shares = [float(row[2].rstrip("%")) for row in rows(opened, "#samples-table")]
    assert len(shares) == 24
    assert shares == sorted(shares, reverse=True)


def test_pages_and_filter(opened, table):
    _, found = table
    first = rows(opened, "#explorer")
    opened.click("#explorer .pager button:nth-child(2)")
    second = rows(opened, "#explorer")
    assert len(first) == len(second) == 20
    assert not {row[0] for row in first} & {row[0] for row in second}
    opened.click(f"{TOOLS} input[type=checkbox]")
    kind = found[found.q_value < 0.05].cell_type.value_counts()
    assert opened.run("document.querySelector('#explorer .pager [role=status]').textContent").endswith(
        f"of {kind.iloc[0]}"
    )


def test_pointing_at_a_dot_names_its_gene(opened, table):
    _, found = table
    best = found[found.cell_type == found[found.q_value < 0.05].cell_type.value_counts().index[0]].iloc[0]
    # the dot of the smallest p-value is the highest: where the mark goes when it is chosen by keyboard
    opened.run("document.querySelector('.volcano svg').focus()")
    opened.press("ArrowRight", 39)
    line = "document.querySelector('#explorer .plotline').textContent"
    assert opened.run(line).startswith(f"{best.gene}: log2 fold change")
    x, y = opened.run(
        "['cx', 'cy'].map(n => Number(document.querySelector('.volcano .mark').getAttribute(n)))"
    )
    width, height = opened.run(
        "[...document.querySelector('.volcano svg').getAttribute('viewBox').split(' ')].slice(2).map(Number)"
    )
    opened.press("ArrowRight", 39)
    assert not opened.run(line).startswith(f"{best.gene}:")
    opened.point(".volcano svg", x / width, y / height)
    assert opened.run(line).startswith(f"{best.gene}: log2 fold change")


def test_pointing_at_a_bar_names_its_sample(opened, cohort):
    opened.point("#bars svg", 0.02, 0.5)
    text = opened.run("document.querySelector('#bars .plotline').textContent")
    assert text.startswith("donor")
    assert "(healthy)" in text
    assert text.count("%") == 3


def test_a_gene_is_shown_over_the_samples(opened, cohort, table):
    bulk, _, _ = cohort
    model, _ = table
    opened.click("#gene input[type=search]")
    opened.type("GENE17")
    opened.press("Enter", 13)
    assert opened.run("document.querySelector('#gene-name').textContent") == "GENE17"
    panels = opened.run("[...document.querySelectorAll('#gene figcaption b')].map(b => b.textContent)")
    assert panels == [*model.cell_types_, "bulk, as measured"]
    for part, step in (("dots", "h0"), ("band", "V")):
        moves = opened.run(
            f"[...document.querySelectorAll('#gene figure:first-child .{part}')].map(p => p.getAttribute('d'))"
        )
        assert "".join(moves).count(step) == 24
    opened.point("#gene figure:nth-child(4) svg", 0.5, 0.5)
    name, value = opened.run("document.querySelector('#gene .plotline').textContent").split(
        ": bulk, as measured "
    )
    sample = name.split(",")[0]
    # three digits on the page, and seven bits of rounding
    np.testing.assert_allclose(float(value.replace(",", "")), bulk.loc[sample, "GENE17"], rtol=1e-2)


def test_a_gene_of_the_table_leads_to_its_expression(opened):
    gene = rows(opened, "#explorer")[0][0]
    opened.click("#explorer tbody tr:first-child button")
    assert opened.run("document.querySelector('#gene-name').textContent") == gene
    assert opened.run("document.activeElement.id") == "gene-name"


def test_all_genes_are_downloaded(opened, table, tmp_path):
    _, found = table
    opened.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened.click(f"{TOOLS} > button")
    end = time.monotonic() + 20
    while not list(tmp_path.glob("*.csv")):
        assert time.monotonic() < end, "nothing was downloaded"
        time.sleep(0.05)
    (path,) = tmp_path.glob("*.csv")
    written = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    kind = found[found.q_value < 0.05].cell_type.value_counts().index[0]
    own = found[found.cell_type == kind].set_index("gene")
    assert len(written) == len(own) == 400
    names = [row["gene"] for row in written]
    assert NASTY in names
    assert "'=1+1" in names  # text to a spreadsheet, too
    read = pd.DataFrame(written).replace({"gene": {"'=1+1": "=1+1"}}).set_index("gene").loc[own.index]
    p_values = pd.to_numeric(read["p"])
    # twelve significant bits of a number
    np.testing.assert_allclose(p_values, own.p_value, rtol=5e-4)
    assert path.name.replace("_", "").startswith("Tscript")


def test_a_screen_reader_finds_its_way(opened):
    landmarks = opened.run(
        "['main', 'header', 'nav', 'footer'].map(n => document.querySelectorAll(n).length)"
    )
    assert landmarks == [1, 1, 1, 1]
    levels = opened.run("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels.count(1) == 1
    assert all(second - first <= 1 for first, second in itertools.pairwise(levels))
    unnamed = opened.run(
        "[...document.querySelectorAll('section, [role=region], svg, nav')].filter(e => "
        "!e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')).length"
    )
    assert unnamed == 0
    assert opened.run("[...document.querySelectorAll('thead th')].every(h => h.scope === 'col')")
    assert opened.run("[...document.querySelectorAll('tbody th')].every(h => h.scope === 'row')")
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    for role in ("button", "searchbox", "combobox", "checkbox", "link"):
        names = [
            node.get("name", {}).get("value") for node in tree if node.get("role", {}).get("value") == role
        ]
        assert names, role
        assert all(names), role


def test_everything_is_reached_by_keyboard_and_shows_the_focus(opened):
    opened.run("document.activeElement.blur()")
    seen = []
    for _ in range(12):
        opened.press("Tab", 9)
        seen.append(opened.run("document.activeElement.textContent.trim().slice(0, 30)"))
    assert seen[0] == "Skip to the verdict"
    assert "Proportions" in seen
    assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_print_has_what_matters_and_no_controls(browser, page, table):
    _, found = table
    browser.open(page)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        controls = "[...document.querySelectorAll('.tools, .pager button, nav, #explorer')]"
        assert browser.run(f"{controls}.every(control => !control.checkVisibility())")
        lists = browser.run(
            "document.querySelector('#lists').checkVisibility() && document.querySelector('#lists').textContent"
        )
        assert found.gene.iloc[0] in lists
        assert browser.run("document.querySelector('#verdict').checkVisibility()")
        data = browser.call("Page.printToPDF", paperWidth=8.3, paperHeight=11.7)["data"]
        assert len(data) > 50_000
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_without_the_script_the_page_can_still_be_read(browser, page, table):
    _, found = table
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=page.as_uri())
        time.sleep(0.5)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.querySelector('#lists').checkVisibility()")
    assert found.gene.iloc[0] in browser.run("document.querySelector('#lists').textContent")


def test_in_a_frame_of_a_notebook(browser, cohort, table, tmp_path):
    bulk, _, phenotype = cohort
    report = show(table[0], X=bulk, phenotype=phenotype, title=NASTY)
    path = tmp_path / "notebook.html"
    ready = "<script>addEventListener('load', () => document.documentElement.dataset.ready = 'yes')</script>"
    path.write_text(f"<!DOCTYPE html><title>notebook</title>{report._repr_html_()}{ready}", encoding="utf-8")
    browser.open(path)
    inner = "document.querySelector('iframe').contentDocument"
    browser.wait(f"{inner}.documentElement.dataset.ready === 'yes'")
    assert browser.run(f"{inner}.querySelector('h1').textContent") == NASTY
    assert browser.run(f"{inner}.querySelectorAll('#trust tbody tr').length") == 20
    # a link of the page leads to its part of it, not to the notebook once more in the frame
    browser.run(f"{inner}.querySelector('nav a[href=\"#repeat\"]').click()")
    browser.wait(f"Math.abs({inner}.querySelector('#repeat').getBoundingClientRect().top) < 500")
    assert browser.run(f"{inner}.querySelector('h1').textContent") == NASTY
    assert problems(browser) == []


def test_a_table_longer_than_the_page_is_searched_and_sorted_as_a_whole(browser, tmp_path):
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([2, 3], 700)
    names = [f"s{number:03d}" for number in range(700)]
    reference = pd.DataFrame(rng.gamma(1, 50, (2, 30)), ["a", "b"])
    model = ProportionEstimator(reference.to_numpy(), method="nnls").fit(shares @ reference.to_numpy())
    path = tmp_path / "report.html"
    path.write_text(
        build_report(model, X=pd.DataFrame(shares @ reference.to_numpy(), names)), encoding="utf-8"
    )
    browser.open(path)
    place = (
        "[...document.querySelectorAll('caption')].find(c => c.textContent === 'Proportions of every sample')"
    )
    browser.run(f"{place}.closest('.scroll').parentElement.id = 'whole'")
    browser.click("#whole input[type=search]")
    browser.type("s699")
    ((name, *found),) = rows(browser, "#whole")
    assert name == "s699"
    order = np.argsort(-shares.mean(axis=0))
    # two digits in percent
    np.testing.assert_allclose(
        [float(text.rstrip("%")) / 100 for text in found], shares[699, order], atol=6e-3
    )
    assert problems(browser) == []


def test_the_largest_page_is_below_5_mb_and_starts(browser, tmp_path):
    """20,000 genes, 300 samples, 8 cell types, of numbers that hardly can be compressed."""
    rng = np.random.default_rng(0)
    types, samples = [f"type {k}" for k in range(8)], [f"sample{j}" for j in range(300)]
    genes = [f"ENSG{number:011d}" for number in np.sort(rng.choice(300_000, 20_000, replace=False))]
    profiles = rng.lognormal(2, 2, (8, 20_000))
    spread = rng.lognormal(0, 0.3, (300, 20_000))

    def read(kind, cell_type):
        factor = profiles[types.index(cell_type)] * (0.3 if kind == "std" else 1)
        return pd.DataFrame(spread * factor, samples, genes)

    shares = pd.DataFrame(rng.dirichlet(np.arange(1, 9), 300), samples, types)
    p_values = rng.uniform(0, 1, 160_000) ** 4
    table = pd.DataFrame(
        {
            "cell_type": np.repeat(types, 20_000),
            "gene": genes * 8,
            "effect": rng.normal(0, 1, 160_000),
            "standard_error": rng.lognormal(-1, 0.5, 160_000),
            "p_value": p_values,
            "q_value": np.minimum(1, 3 * p_values),
            "flag": "",
            "contrast": "log2(sick / healthy)",
        }
    )
    expression = summarise(
        TableSource(read, types, "log"),
        shares,
        bulk=pd.DataFrame(shares.to_numpy() @ profiles * spread, samples, genes),
        reference=pd.DataFrame(profiles, types, genes),
        reliability=pd.DataFrame(rng.uniform(0, 1, (8, 20_000)), types, genes),
        differential=table,
    )
    contents = Contents(
        shares,
        expression=expression,
        test=Findings(table, "log_fold_change", contrast="log2(sick / healthy)"),
        groups=Groups("state", pd.Series(["healthy", "sick"] * 150, samples), ["healthy", "sick"]),
        model="EmpiricalBayesDeconvolver",
    )
    source = write_page(contents, title="The largest", top=10)
    assert len(source.encode("utf-8")) < 5e6
    path = tmp_path / "report.html"
    path.write_text(source, encoding="utf-8")
    browser.open(path)
    assert (
        browser.run("document.querySelector('#explorer .pager [role=status]').textContent")
        == "1 to 20 of 20,000"
    )
    assert problems(browser) == []
