"""Damaged, foreign and hostile records: each ends in one clear error, or in a result."""

import copy
import json
import random
import shutil

import pytest

from skenigma import io
from skenigma.cli import main
from skenigma.io._records import is_inside

from .support import small_run

HOSTILE = [
    None,
    True,
    -1,
    0,
    1,
    2**63,
    10**400,
    1.5,
    1e308,
    "",
    "x",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\windows",
    "a\0b",
    "\ud800",
    "\x1b[2J",
    "=1+1",
    "x" * 10_000,
    [],
    {},
    [[]],
    {"": {}},
    ["a", 1],
    {"path": "/etc/passwd", "size": 1, "sha256": "0" * 64},
]
TEXTS = [
    "",
    "null",
    "[]",
    "{}",
    "3",
    '"x"',
    "not json",
    '{"skenigma_run": 1}',
    '{"skenigma_run": true}',
    '{"skenigma_run": 2}',
    '{"skenigma_run": "1"}',
    '{"skenigma_run": 1, "skenigma_run": 1}',
    '{"skenigma_run": 1, "command": "deconvolve"}',
    '{"skenigma_run": 1, "command": "deconvolve", "options": {"parameters": []}}',
    "[" * 100_000,
    '{"skenigma_run": 1, "options": ' + '{"a":' * 500 + "1" + "}" * 500 + "}",
    '{"skenigma_run": ' + "9" * 5_000 + "}",
    '{"skenigma_run": NaN}',
    "\ufeff{}",
    '{"wandb": 1}',
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cohort, a run of it, and a differential test of that."""
    folder = tmp_path_factory.mktemp("made")
    data = small_run(folder, max_iter=2)
    assert main(["proportions", *data, "--out", str(folder / "proportions"), "--quiet"]) == 0
    phenotype = ["--phenotype", str(folder / "cohort/phenotype.tsv"), "--quiet"]
    assert main(["differential", str(folder / "run"), *phenotype]) == 0
    return folder


@pytest.fixture
def work(made, tmp_path):
    shutil.copytree(made, tmp_path / "work")
    return tmp_path / "work"


def commands(work, kind):
    """Everything that reads a record."""
    record, data = work / kind / "run.json", work / "cohort"
    moved = ["--bulk", data / "bulk.tsv", "--reference", data / "reference.tsv"]
    phenotype = ["--phenotype", data / "phenotype.tsv"]
    yield ["report", work / kind, "--out", work / "page.html", "--quiet"]
    if kind == "run":
        yield ["differential", work / kind, *phenotype, "--out", work / "new", "--quiet"]
        yield ["deconvolve", "--from", record, *moved, "--out", work / "again", "--quiet"]
    elif kind == "cohort":
        yield ["simulate", "--from", record, "--out", work / "again", "--quiet"]
    else:
        yield ["proportions", "--from", record, *moved, "--out", work / "again", "--quiet"]
    yield ["simulate", "--samples", "4", "--genes", "5", "--out", work / kind, "--force", "--quiet"]


def try_all(work, kind, capsys):
    """Run each command on the record; returns what was wrong with any of them, and leaves the folder as it was."""
    faults, record = [], (work / kind / "run.json").read_bytes()
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    for argv in commands(work, kind):
        code = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        if code not in (0, 1, 2, 3):
            faults.append((argv[0], code))
        if "unexpected" in err or "Traceback" in err or "\x1b" in err or out:
            faults.append((argv[0], err[-300:]))
        if err.count("skenigma: error: ") != (code in (1, 2)):
            faults.append((argv[0], code, err[-300:]))
        replaced = argv[-2] == "--force" and code == 0
        for name in ("page.html", "new", "again"):
            path = work / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if replaced:
            shutil.rmtree(work / kind)
            for path, content in before.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    after = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    if after != before:
        faults.append(("changed", sorted(map(str, after.keys() ^ before.keys()))))
        assert (work / kind / "run.json").read_bytes() == record
    return faults


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_foreign_and_broken_records(work, capsys, text):
    (work / "run/run.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert try_all(work, "run", capsys) == []
    with pytest.raises(ValueError, match=r"run\.json"):
        io.read_run(work / "run")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{}", b"\x00" * 100, b'{"skenigma_run": "\xe9"}', b"\x1f\x8b\x08"]
)
def test_records_that_are_no_text(work, capsys, content):
    (work / "run/run.json").write_bytes(content)
    assert try_all(work, "run", capsys) == []


def test_huge_record(work, monkeypatch):
    monkeypatch.setattr("skenigma.io._records.MOST_BYTES", 1_000)
    with pytest.raises(ValueError, match=r"larger than 1,000 bytes"):
        io.read_run(work / "run")


def places(value, place=()):
    """Every place in a record."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*place, key)
        yield from places(inner, (*place, key))


def mutated(record, rng):
    """A record with one to three places changed, removed, renamed or repeated at a deeper level."""
    record = copy.deepcopy(record)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *above, key = rng.choice(list(places(record)))
        owner = record
        for step in above:
            owner = owner[step]
        kind = rng.choice(("change", "change", "change", "remove", "rename", "nest"))
        if kind == "remove":
            del owner[key]
        elif kind == "rename" and isinstance(owner, dict):
            owner[rng.choice(("", "../x", "/etc/passwd", "a\0", key + "x", "\x1b[2J"))] = owner.pop(key)
        elif kind == "nest":
            owner[key] = [owner[key]]
        else:
            owner[key] = rng.choice(HOSTILE)
    return record


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "cohort", "proportions"])
@pytest.mark.parametrize("number", [200])
def test_tampered_records(work, capsys, kind, number):
    """Reproducible: ``number`` records for each kind, each read by all commands that read one."""
    rng, faults = random.Random(kind), []
    path = work / kind / "run.json"
    record = json.loads(path.read_text())
    for attempt in range(number):
        path.write_text(json.dumps(mutated(record, rng)))
        faults += [(attempt, *fault) for fault in try_all(work, kind, capsys)]
    assert faults == []


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.tsv", True),
        ("expression/a b.tsv", True),
        ("..a", True),
        ("../a", False),
        ("a/../../b", False),
        ("/a", False),
        ("C:/a", False),
        ("C:\\a", False),
        ("\\\\server\\a", False),
        ("a\\..\\b", False),
        ("a\0", False),
        ("", False),
        (".", False),
        ("./a", False),
        ("a//b", False),
        (3, False),
    ],
)
def test_files_lie_in_the_folder(name, inside):
    assert is_inside(name) == inside


def test_files_outside_are_not_read_through_links(work, tmp_path, capsys):
    (work / "run/expression").rename(tmp_path / "elsewhere")
    (work / "run/expression").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of the folder"):
        io.read_run(work / "run").expression()


def test_files_that_changed_are_not_read(work):
    run = io.read_run(work / "run")
    (work / "run/quality.tsv").write_bytes((work / "run/quality.tsv").read_bytes() + b"\n")
    with pytest.raises(ValueError, match=r"quality\.tsv was changed"):
        run.table("quality.tsv")
    (work / "run/proportions.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"proportions\.tsv is missing"):
        run.table("proportions.tsv")
    assert run.table("phenotype.tsv") is None


class TestReport:
    @pytest.mark.parametrize(
        "name",
        ["run/run.json", "run/proportions.tsv", "cohort/bulk.tsv", "run/differential/differential.tsv"],
    )
    @pytest.mark.parametrize("way", ["itself", "link", "dots"])
    def test_what_is_read_is_not_written_over(self, work, made, capsys, name, way):
        # the record names the cohort of the first run
        path = made / name if name.startswith("cohort") else work / name
        out = path
        if way == "link":
            out = work / "link.html"
            out.symlink_to(path)
        elif way == "dots":
            out = path.parent / ".." / path.parent.name / path.name
        before = path.read_bytes()
        assert main(["report", str(work / "run"), "--out", str(out), "--force", "--quiet"]) == 1
        assert "belongs to the run" in capsys.readouterr().err
        assert path.read_bytes() == before

    def test_only_a_page_that_nobody_changed_is_replaced(self, work, capsys):
        page = work / "run/report.html"
        argv = ["report", str(work / "run"), "--force", "--quiet"]
        assert main(argv) == 0
        first = page.read_bytes()
        assert main(argv) == 0
        assert page.read_bytes() == first
        page.write_bytes(first.replace(b"Proportions", b"My remarks"))
        assert main(argv) == 1
        assert "never replaced" in capsys.readouterr().err
        assert b"My remarks" in page.read_bytes()
        page.unlink()
        (work / "thesis.html").write_text("years of work")
        assert main([*argv, "--out", str(work / "thesis.html")]) == 1
        assert (work / "thesis.html").read_text() == "years of work"
