"""Run folders: what is replaced, what is refused, what stays, whatever happens when."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import skenigma
from skenigma import io
from skenigma.cli import _job, main
from skenigma.io import _renames, _staging
from skenigma.io._checksums import watched_readings
from skenigma.io._records import load_record

from .support import small_run

POSIX = pytest.mark.skipif(os.name == "nt", reason="rights, links and signals are those of POSIX")
SIMULATE = ["simulate", "--samples", "6", "--genes", "20", "--cell-types", "2", "--quiet"]


def simulate(folder, *options):
    return main([*SIMULATE, "--out", str(folder), *map(str, options)])


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def tree(folder):
    """Every path in a folder, with the bytes of files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def error_of(capsys):
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error: " in line]
    assert len(lines) == 1
    assert "unexpected" not in err
    assert "Traceback" not in err
    return lines[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cohort, a run of it, and what the other commands leave in the run's folder."""
    folder = tmp_path_factory.mktemp("made")
    small_run(folder, max_iter=3)
    phenotype = ["--phenotype", str(folder / "cohort/phenotype.tsv"), "--quiet"]
    assert main(["differential", str(folder / "run"), *phenotype]) == 0
    assert main(["report", str(folder / "run"), "--quiet"]) == 0
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run that a test may change."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


class TestRenames:
    @pytest.fixture(params=["system", "portable"])
    def how(self, request, monkeypatch):
        if request.param == "portable":
            monkeypatch.setattr(_renames, "_call", lambda: None)
        return request.param

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_new_name(self, how, tmp_path, kind):
        source, target = tmp_path / "a", tmp_path / "b"
        source.write_text("x") if kind == "file" else source.mkdir()
        _renames.rename_new(source, target)
        assert names(tmp_path) == ["b"]

    @pytest.mark.parametrize("kind", ["file", "folder"])
    @pytest.mark.parametrize("there", ["file", "folder", "empty", "dangling link"])
    def test_nothing_is_replaced(self, how, tmp_path, kind, there):
        source, target = tmp_path / "a", tmp_path / "b"
        source.write_text("x") if kind == "file" else source.mkdir()
        if there == "file":
            target.write_text("mine")
        elif there == "dangling link":
            target.symlink_to("nowhere")
        else:
            target.mkdir()
            if there == "folder":
                (target / "mine").write_text("mine")
        before = tree(tmp_path)
        with pytest.raises(FileExistsError):
            _renames.rename_new(source, target)
        assert tree(tmp_path) == before
        assert os.path.lexists(target)

    def test_file_systems_without_hard_links(self, tmp_path, monkeypatch):
        def refuse(source, target):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(_renames, "_call", lambda: None)
        monkeypatch.setattr(os, "link", refuse)
        (tmp_path / "a").write_text("x")
        _renames.rename_new(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_text() == "x"
        (tmp_path / "a").write_text("y")
        with pytest.raises(FileExistsError):
            _renames.rename_new(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_text() == "x"

    def test_exchange(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").write_text("file")
        done = _renames.exchange(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "a").is_file() == done
        assert done or sys.platform not in _renames.CALLS

    def test_other_refusals_of_the_system_are_raised(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            _renames.rename_new(tmp_path / "absent", tmp_path / "b")


class TestReplaced:
    """What ``--force`` may replace: what runs wrote, as they wrote it."""

    @pytest.fixture(params=["exchange", "two renames"], autouse=True)
    def how(self, request, monkeypatch):
        if request.param == "two renames":
            monkeypatch.setattr(_renames, "_call", lambda: None)

    def test_whole_run_with_all_that_commands_left_in_it(self, run, tmp_path):
        assert simulate(run, "--force") == 0
        assert names(tmp_path) == ["run"]
        assert "differential" not in names(run)
        assert load_record(run / "run.json")["command"] == "simulate"

    def test_not_without_force(self, run, tmp_path, capsys):
        before = tree(tmp_path)
        assert simulate(run) == 1
        assert "exists already" in error_of(capsys)
        assert tree(tmp_path) == before

    @pytest.mark.parametrize(
        "mine",
        [
            "notes.txt",
            "expression/notes.txt",
            "differential/notes.txt",
            "figures/a.pdf",
            "other.html",
            ".hidden",
        ],
    )
    def test_files_that_no_run_wrote_are_named(self, run, capsys, mine):
        (run / mine).parent.mkdir(exist_ok=True)
        (run / mine).write_text("years of work")
        before = tree(run)
        assert simulate(run, "--force") == 1
        message = error_of(capsys)
        assert "holds what no run wrote" in message
        assert Path(mine).parts[0] in message
        assert tree(run) == before

    @pytest.mark.parametrize("changed", ["quality.tsv", "differential/differential.tsv", "report.html"])
    def test_files_that_were_changed_are_named(self, run, capsys, changed):
        path = run / changed
        content = path.read_bytes()
        path.write_bytes(content.replace(b"0", b"1", 1))
        assert path.read_bytes() != content
        assert simulate(run, "--force") == 1
        assert changed in error_of(capsys)
        assert path.exists()

    @POSIX
    def test_links_are_never_followed(self, run, tmp_path, capsys):
        (run / "expression").rename(tmp_path / "elsewhere")
        (run / "expression").symlink_to(tmp_path / "elsewhere")
        assert simulate(run, "--force") == 1
        assert "'expression'" in error_of(capsys)
        assert names(tmp_path / "elsewhere")

    @pytest.mark.parametrize(
        "content",
        ['{"wandb": 1}', "not json", '{"skenigma_run": 1}', "[" * 100_000, '{"skenigma_run": 2}', ""],
    )
    def test_record_of_something_else(self, tmp_path, capsys, content):
        (tmp_path / "project").mkdir()
        (tmp_path / "project/run.json").write_text(content)
        before = tree(tmp_path)
        assert simulate(tmp_path / "project", "--force") == 1
        assert "never replaced" in error_of(capsys)
        assert tree(tmp_path) == before

    def test_folder_without_a_record(self, tmp_path, capsys):
        (tmp_path / "project").mkdir()
        (tmp_path / "project/thesis.tex").write_text("years of work")
        assert simulate(tmp_path / "project", "--force") == 1
        assert "holds no run.json" in error_of(capsys)

    def test_missing_files_do_not_matter(self, run, tmp_path):
        (run / "quality.tsv").unlink()
        assert simulate(run, "--force") == 0
        assert names(tmp_path) == ["run"]

    def test_old_run_survives_an_error(self, run):
        before = tree(run)
        with pytest.raises(OSError, match="odd"), io.staged_folder(run, force=True):
            raise OSError("odd")
        assert tree(run) == before

    def test_what_is_read_is_not_replaced(self, run, capsys, tmp_path):
        with pytest.raises(FileExistsError, match="which is read here"):
            io.staged_folder(run, force=True, keep=[run / "run.json"]).__enter__()
        assert simulate(tmp_path / "a") == 0
        again = ["simulate", "--from", str(tmp_path / "a/run.json"), "--out", str(tmp_path / "a"), "--force"]
        assert main([*again, "--quiet"]) == 1
        assert "which is read here" in error_of(capsys)

    def test_working_folder_is_not_replaced(self, run, monkeypatch, capsys):
        monkeypatch.chdir(run)
        assert simulate(".", "--force") == 1
        assert "is the working folder" in error_of(capsys)


class TestMeanwhile:
    """What appears at ``--out`` while a run computes is not replaced, and the results are not lost."""

    @pytest.fixture(params=["system", "portable"], autouse=True)
    def how(self, request, monkeypatch):
        if request.param == "portable":
            monkeypatch.setattr(_renames, "_call", lambda: None)

    def stage(self, path, appear, **options):
        with io.staged_folder(path, **options) as staged:
            (staged / "result").write_text("result")
            appear(path)

    @pytest.mark.parametrize("force", [False, True])
    @pytest.mark.parametrize("empty", [False, True])
    @pytest.mark.parametrize("there", ["nothing", "empty folder"])
    def test_folder(self, tmp_path, force, empty, there):
        path = tmp_path / "run"
        if there != "nothing":
            path.mkdir()

        def appear(path):
            path.mkdir(exist_ok=True)
            if not empty:
                (path / "thesis.tex").write_text("years of work")

        if empty and (force or there != "nothing"):
            self.stage(path, appear, force=force)  # there is nothing to lose
            assert names(path) == ["result"]
            return
        with pytest.raises(FileExistsError, match=r"The results are complete, and are in .*run\.2"):
            self.stage(path, appear, force=force)
        assert names(tmp_path) == ["run", "run.2"]
        assert names(path) == ([] if empty else ["thesis.tex"])
        assert names(tmp_path / "run.2") == ["result"]

    @pytest.mark.parametrize("force", [False, True])
    def test_file(self, tmp_path, force):
        with pytest.raises(OSError, match="The results are complete"):
            self.stage(tmp_path / "run", lambda path: path.write_text("thesis"), force=force)
        assert (tmp_path / "run").read_text() == "thesis"
        assert names(tmp_path / "run.2") == ["result"]

    def test_file_of_the_user_in_the_run_that_is_replaced(self, run, tmp_path):
        with pytest.raises(FileExistsError, match=r"run holds what no run wrote.*'thesis.tex'.*run\.2"):
            self.stage(run, lambda path: (path / "thesis.tex").write_text("years of work"), force=True)
        assert "thesis.tex" in names(run)
        assert "run.json" in names(run)
        assert names(tmp_path) == ["run", "run.2"]

    def test_another_run_is_replaced_by_force(self, run, made, tmp_path):
        def appear(path):
            shutil.rmtree(path)
            shutil.copytree(made / "cohort", path)

        self.stage(run, appear, force=True)
        assert names(tmp_path) == ["run"]
        assert names(run) == ["result"]

    def test_that_what_is_replaced_is_gone_does_not_matter(self, run, tmp_path):
        self.stage(run, shutil.rmtree, force=True)
        assert names(run) == ["result"]

    @POSIX
    def test_link_in_the_place_of_the_run(self, run, tmp_path, made):
        shutil.copytree(made / "cohort", tmp_path / "other")

        def appear(path):
            shutil.rmtree(path)
            path.symlink_to(tmp_path / "other")

        with pytest.raises(FileExistsError, match="no longer a folder"):
            self.stage(run, appear, force=True)
        assert "run.json" in names(tmp_path / "other")
        assert run.is_symlink()

    def test_place_that_cannot_be_given(self, tmp_path, monkeypatch):
        def refuse(source, target):
            raise OSError(errno.EBUSY, "Device or resource busy")

        monkeypatch.setattr(_staging, "rename_new", refuse)
        with pytest.raises(OSError, match=r"busy.*complete, and are in .*\.complete"):
            self.stage(tmp_path / "run", lambda path: None)
        (kept,) = tmp_path.iterdir()
        assert names(kept) == ["result"]
        assert _staging.hidden_complete(tmp_path / "run") == [kept]

    @pytest.mark.slow
    def test_runs_at_once(self, tmp_path):
        """Of unforced runs one gets the name, and none loses its results."""
        code = "import sys; from skenigma.cli import main; sys.exit(main(sys.argv[1:]))"
        processes = [start(code, *SIMULATE, "--seed", seed, "--out", tmp_path / "run") for seed in range(4)]
        ends = [(process.communicate()[1], process.returncode) for process in processes]
        assert sorted(code for _, code in ends) == [0, 1, 1, 1]
        seeds = {load_record(path / "run.json")["seeds"]["random_state"] for path in tmp_path.iterdir()}
        kept = sum("The results are complete" in err for err, _ in ends)
        assert len(seeds) == len(list(tmp_path.iterdir())) == 1 + kept


def start(code, *argv, **options):
    """A process that runs this code."""
    environment = {**os.environ, "PYTHONPATH": str(Path(skenigma.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, argv)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, **options},
    )


class TestPlace:
    """Where ``--out`` leads, and what can be known before the computation."""

    @POSIX
    def test_link_stays_and_leads_to_the_results(self, tmp_path):
        (tmp_path / "scratch").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "scratch")
        assert simulate(tmp_path / "run") == 0
        assert (tmp_path / "run").is_symlink()
        assert simulate(tmp_path / "run", "--force", "--seed", "5") == 0
        assert (tmp_path / "run").is_symlink()
        assert load_record(tmp_path / "scratch" / "run.json")["seeds"]["random_state"] == 5
        assert names(tmp_path) == ["run", "scratch"]

    @POSIX
    def test_links_that_lead_nowhere(self, tmp_path, capsys):
        (tmp_path / "run").symlink_to(tmp_path / "later")
        assert simulate(tmp_path / "run") == 0
        assert "run.json" in names(tmp_path / "later")
        (tmp_path / "lost").symlink_to(tmp_path / "unmounted" / "run")
        (tmp_path / "circle").symlink_to(tmp_path / "circle")
        for name in ("lost", "circle"):
            assert simulate(tmp_path / name) == 1
            assert "is not there" in error_of(capsys)
        assert names(tmp_path) == ["circle", "later", "lost", "run"]

    @pytest.mark.parametrize("name", ["x" * 300, "x" * 250, "α" * 120, "a/" * 3000 + "b"])
    def test_long_names(self, tmp_path, capsys, monkeypatch, name):
        monkeypatch.setattr("skenigma.cli._simulate.make_cohort", lambda **more: pytest.fail("was computed"))
        fits = len(os.fsencode(name)) <= 255
        if fits:
            monkeypatch.undo()
        assert simulate(tmp_path / name) == (0 if fits else 1)
        if not fits:
            assert "File name too long" in error_of(capsys)
            assert names(tmp_path) == []

    @POSIX
    def test_name_that_is_no_text(self, tmp_path):
        """Bytes that are no UTF-8 are a name like any other, and come back from the record."""
        path = os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")
        assert simulate(path) == 0
        assert main(["simulate", "--from", path + "/run.json", "--out", path + "2", "--quiet"]) == 0
        assert len(names(tmp_path)) == 2

    def test_file_in_the_place_of_a_folder_above(self, tmp_path, capsys):
        (tmp_path / "file").write_text("x")
        assert simulate(tmp_path / "file" / "run") == 1
        assert "Not a directory" in error_of(capsys) or os.name == "nt"

    @POSIX
    def test_mounted_file_system(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "run").mkdir()
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "run")
        assert simulate(tmp_path / "run") == 1
        assert "mounted" in error_of(capsys)

    @POSIX
    def test_folder_that_may_not_be_written_to(self, run, monkeypatch, capsys):
        # root may write everywhere, so the refusal of the system is imitated
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "expression")
        assert simulate(run, "--force") == 1
        assert "choose a place where you have permission to read and write" in error_of(capsys)
        assert "expression" in names(run)

    @POSIX
    def test_rights_and_group_of_the_place_are_kept(self, tmp_path):
        (tmp_path / "run").mkdir(mode=0o750)
        (tmp_path / "run").chmod(0o2750)
        mode = (tmp_path / "run").stat().st_mode
        assert simulate(tmp_path / "run") == 0
        assert (tmp_path / "run").stat().st_mode == mode

    @pytest.mark.parametrize(("form", "parts"), [("tsv", []), ("h5ad", ["cannot be a layer"])])
    @pytest.mark.parametrize("name", ["", "."])
    def test_cell_types_whose_names_are_none(self, made, tmp_path, capsys, monkeypatch, form, parts, name):
        pytest.importorskip("anndata")
        text = (made / "cohort/reference.tsv").read_text().replace("celltype1\t", f"{name}\t", 1)
        (tmp_path / "r.tsv").write_text(text)
        data = ["--bulk", str(made / "cohort/bulk.tsv"), "--reference", str(tmp_path / "r.tsv")]
        if form == "h5ad":
            forbid_fit(monkeypatch)
        options = ["--format", form, "--model", "l2max", "--max-iter", "2", "--quiet"]
        options += ["--out", str(tmp_path / "run")]
        code = main(["deconvolve", *data, *options])
        if code:
            assert any(part in error_of(capsys) for part in [*parts, "without a name"])
            assert names(tmp_path) == ["r.tsv"]
        else:
            assert form == "tsv"

    @pytest.mark.parametrize("limit", ["disk", "file"])
    def test_room(self, made, tmp_path, capsys, monkeypatch, limit):
        data = ["--bulk", str(made / "cohort/bulk.tsv"), "--reference", str(made / "cohort/reference.tsv")]
        options = ["--model", "l2max", "--max-iter", "2", "--out", str(tmp_path / "run"), "--quiet"]
        count = 12 * 60

        def leave(size):
            usage = (10**12, 0, 2 * size if limit == "disk" else 10**12)
            monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(*usage))
            monkeypatch.setattr("skenigma.cli._foresee._largest_file", lambda: size)

        leave(10 * count)  # more than the least, less than usual
        assert main(["deconvolve", *data, *options]) == 0
        assert "The expression takes about" in capsys.readouterr().err
        leave(3 * count)
        forbid_fit(monkeypatch)
        assert main(["deconvolve", *data, *options, "--force"]) == 1
        assert "or more, but" in error_of(capsys)

    def test_usual_sizes(self, made):
        """What is said of text: between the least that is possible and a few bytes more than there are."""
        from skenigma.cli._foresee import SIZES

        for path in (made / "run/expression").iterdir():
            per_number = path.stat().st_size / (12 * 60)
            assert SIZES["tsv"][0] < per_number < SIZES["tsv"][1] + 4

    def test_missing_package_is_found_first(self, made, tmp_path, capsys, monkeypatch):
        data = ["--bulk", str(made / "cohort/bulk.tsv"), "--reference", str(made / "cohort/reference.tsv")]
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        forbid_fit(monkeypatch)
        assert main(["deconvolve", *data, "--format", "parquet", "--out", str(tmp_path / "run"), "-q"]) == 1
        assert "needs pyarrow" in error_of(capsys)


def forbid_fit(monkeypatch):
    monkeypatch.setattr(skenigma.L2MaxDeconvolver, "fit", lambda *args, **more: pytest.fail("was computed"))


@pytest.mark.parametrize(
    ("cell_types", "expected"),
    [
        (["CON", "aux.1", "lpt1"], ["_CON.tsv", "_aux.1.tsv", "_lpt1.tsv"]),
        (["\u00e9", "e\u0301", "ﬁ", "fi"], ["\u00e9.tsv", "e.tsv", "ﬁ.tsv", "fi_2.tsv"]),
        (
            ["", ".", "..", "/", "a/../b"],
            [f"unnamed{n}.tsv" for n in ("", "_2", "_3", "_4")] + ["a_.._b.tsv"],
        ),
    ],
)
def test_files_of_odd_names(cell_types, expected):
    assert list(_job.file_names(cell_types, ".tsv").values()) == expected


def test_files_of_long_names(tmp_path):
    found = _job.file_names(["T" * 400, "T" * 401, "α" * 400], ".parquet").values()
    assert len(set(found)) == 3
    for name in found:
        (tmp_path / name).touch()


class TestRepeat:
    def test_out_and_force_are_never_taken_from_a_record(self, tmp_path, capsys):
        for name in ("a", "mine"):
            assert simulate(tmp_path / name) == 0
        record = json.loads((tmp_path / "a/run.json").read_text())
        record["options"].update(out=str(tmp_path / "mine"), force=True)
        (tmp_path / "r.json").write_text(json.dumps(record))
        before = tree(tmp_path / "mine")
        again = ["simulate", "--from", str(tmp_path / "r.json"), "--quiet"]
        assert main(again) == 2
        assert "needed: --out" in error_of(capsys)
        assert main([*again, "--out", str(tmp_path / "mine")]) == 1
        assert "exists already" in error_of(capsys)
        assert main([*again, "--out", str(tmp_path / "new")]) == 0
        assert tree(tmp_path / "mine") == before

    def test_default_out_of_differential_is_not_either(self, made, capsys):
        assert main(["differential", "--from", str(made / "run/differential/run.json"), "--quiet"]) == 2
        assert "needed: --out" in error_of(capsys)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("samples", -3),
            ("samples", "many"),
            ("samples", 10**400),
            ("samples", 2.5),
            ("samples", True),
            ("noise", []),
            ("format", "exe"),
            ("gzip", "yes"),
            ("shell", "rm"),
            ("seed", None),
        ],
    )
    def test_options_are_checked(self, tmp_path, capsys, option, value):
        assert simulate(tmp_path / "a") == 0
        record = json.loads((tmp_path / "a/run.json").read_text())
        record["options"][option] = value
        (tmp_path / "r.json").write_text(json.dumps(record))
        assert main(["simulate", "--from", str(tmp_path / "r.json"), "--out", str(tmp_path / "b"), "-q"]) == 1
        assert f"'{option}'" in error_of(capsys)
        assert names(tmp_path) == ["a", "r.json"]


class TestRead:
    """What is recorded of an input is what was read of it."""

    def test_input_that_changes_before_it_is_read(self, made, tmp_path, monkeypatch):
        bulk, reader = tmp_path / "bulk.tsv", io.read_bulk
        shutil.copy(made / "cohort/bulk.tsv", bulk)

        def changed(path, **options):
            text = bulk.read_text()
            bulk.write_text(text.replace("gene1\t", "other\t"))
            found = reader(path, **options)
            bulk.write_text(text)
            return found

        monkeypatch.setattr("skenigma.cli._large.read_bulk", changed)
        options = [
            "--reference",
            str(made / "cohort/reference.tsv"),
            "--out",
            str(tmp_path / "run"),
            "--quiet",
        ]
        assert main(["proportions", "--bulk", str(bulk), *options]) == 0
        recorded = load_record(tmp_path / "run/run.json")["inputs"]["bulk"]["sha256"]
        assert recorded != io.file_checksum(bulk)
        bulk.write_text(bulk.read_text().replace("gene1\t", "other\t"))
        assert recorded == io.file_checksum(bulk)

    @pytest.mark.parametrize("end", ["tsv", "tsv.gz", "parquet", "h5ad"])
    def test_checksum_of_every_format(self, made, tmp_path, end):
        pytest.importorskip({"parquet": "pyarrow", "h5ad": "anndata"}.get(end, "pandas"))
        bulk, path = io.read_bulk(made / "cohort/bulk.tsv"), tmp_path / f"bulk.{end}"
        if end == "h5ad":
            import anndata

            anndata.AnnData(bulk).write_h5ad(path)
        else:
            io.write_table(bulk.T.rename_axis("gene"), path)
        with watched_readings() as outer, watched_readings() as readings:
            io.read_bulk(path)
        expected = {"path": str(path), "size": path.stat().st_size, "sha256": io.file_checksum(path)}
        assert readings.entry(path) == outer.entry(path) == expected

    @pytest.mark.parametrize("end", ["tsv", "parquet", "h5ad"])
    def test_input_that_changes_while_it_is_read(self, made, tmp_path, monkeypatch, end):
        pytest.importorskip({"parquet": "pyarrow", "h5ad": "anndata"}.get(end, "pandas"))
        import anndata

        bulk, path = io.read_bulk(made / "cohort/bulk.tsv"), tmp_path / f"bulk.{end}"
        if end == "h5ad":
            anndata.AnnData(bulk).write_h5ad(path)
        else:
            io.write_table(bulk.T.rename_axis("gene"), path)
        owner, name = {
            "tsv": (pd, "read_csv"),
            "parquet": (pd, "read_parquet"),
            "h5ad": (anndata, "read_h5ad"),
        }[end]
        reader = getattr(owner, name)

        def changed(*args, **options):
            if end == "tsv":  # between the header and the rest
                path.write_text(path.read_text() + "\n")
                return reader(*args, **options)
            found = reader(*args, **options)
            path.write_bytes(path.read_bytes() + b" ")
            return found

        monkeypatch.setattr(owner, name, changed)
        with watched_readings(), pytest.raises(ValueError, match=r"changed while it was read"):
            io.read_bulk(path)

    @POSIX
    @pytest.mark.parametrize("name", ["bulk.tsv", "bulk"])
    def test_pipes_are_refused_by_their_name(self, made, tmp_path, capsys, name):
        os.mkfifo(tmp_path / name)
        options = [
            "--reference",
            str(made / "cohort/reference.tsv"),
            "--out",
            str(tmp_path / "run"),
            "--quiet",
        ]
        assert main(["proportions", "--bulk", str(tmp_path / name), *options]) == 1
        message = error_of(capsys)
        assert f"{name} is a pipe (FIFO)" in message
        with pytest.raises(ValueError, match="is a pipe"):
            io.read_bulk(tmp_path / name)

    @pytest.mark.slow
    @pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="no /dev/stdin here")
    def test_stdin_is_refused_by_its_name(self, made, tmp_path):
        code = "import sys; from skenigma.cli import main; sys.exit(main(sys.argv[1:]))"
        options = ["--reference", made / "cohort/reference.tsv", "--out", tmp_path / "run", "--quiet"]
        process = start(code, "proportions", "--bulk", "/dev/stdin", *options, stdin=subprocess.PIPE)
        err = process.communicate("gene\ta\n")[1]
        assert process.returncode == 1
        assert err.startswith("skenigma: error: /dev/stdin is a pipe (FIFO)")
