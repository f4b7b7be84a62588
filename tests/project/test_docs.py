"""The Python code that the documentation shows: every ``python`` block of a page runs, in the order of the page."""

import ast
import doctest
import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/user_guide/**/*.md")])
INCLUDE = re.compile(r"^```\{include\} (\S+)\n:start-after: (.*)\n:end-before: (.*)\n```", flags=re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(page):
    """Blocks of a page, those of included parts of other files among them."""
    return BLOCK.findall(INCLUDE.sub(lambda match: included(page, *match.groups()), page.read_text("utf-8")))


def included(page, name, start, end):
    return (page.parent / name).read_text("utf-8").split(start)[1].split(end)[0]


def run(code, names, page):
    """Run a block; one that shows a dialogue with Python must also get the answers it shows."""
    if not code.startswith(">>>"):
        exec(compile(code, str(page), "exec"), names)
        return
    report = []
    dialogue = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed, _ = runner.run(dialogue, out=report.append, clear_globs=False)
    names.update(dialogue.globs)
    assert not failed, "".join(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: f"{page.parent.name}-{page.stem}"
)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if any("import scanpy" in code for code in blocks(page)):
        pytest.importorskip("scanpy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {}
    for code in blocks(page):
        run(code, names, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_no_line_of_text_is_a_comment_to_the_parser(page):
    """MyST drops lines that begin with a per-cent sign, such as the second half of "5 %" where a line was broken."""
    assert [line for line in page.read_text("utf-8").splitlines() if re.match(r"\s*%(\s|$)", line)] == []


def test_a_wrong_answer_is_noticed():
    names = {}
    run(">>> a = 1\n>>> a + 1\n2\n", names, ROOT)
    with pytest.raises(AssertionError, match=r"Expected:\s+3"):
        run(">>> a + 1\n3\n", names, ROOT)


def test_included_blocks_are_run():
    assert any("make_counts" in code for code in blocks(ROOT / "docs" / "get_started.md"))


def test_picture_of_the_landing_page_shows_its_code(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    picture = importlib.import_module("overview_picture")
    code = (ROOT / "docs" / "overview_picture.py").read_text("utf-8")
    (shown,) = blocks(ROOT / "docs" / "index.md")
    fits = [line for line in shown.splitlines() if line.startswith(("cohort =", "model ="))]
    assert len(fits) == 2
    assert all(line in code for line in fits)
    figure = picture.draw(*picture.cohort_and_model())
    assert sum(bool(ax.images) for ax in figure.axes) == 7  # the bulk, three cell types estimated and true
    picture.plt.close(figure)


QUESTIONS = ROOT / "docs" / "user_guide" / "questions.md"
QUOTED = re.findall(r"^> (.*)$", QUESTIONS.read_text("utf-8"), flags=re.MULTILINE)


def strings_of_the_package():
    """Every text in the code of the package, values that it formats as …."""
    for path in (ROOT / "skenigma").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_that_the_guide_explains_are_those_of_the_package():
    messages = list(strings_of_the_package())
    assert len(QUOTED) > 8
    assert [quoted for quoted in QUOTED if not any(quoted in message for message in messages)] == []
