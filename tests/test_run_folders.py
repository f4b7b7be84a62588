"""Run folders: what is replaced, what is refused, what stays, whatever happens when."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import skenigma
from skenigma import io
from skenigma.cli import main
from skenigma.io import _renames, _staging
from skenigma.io._records import load_record

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
    options = ["--samples", "12", "--genes", "60", "--cell-types", "2", "--quiet"]
    assert main(["simulate", *options, "--out", str(folder / "cohort")]) == 0
    data = ["--bulk", str(folder / "cohort/bulk.tsv"), "--reference", str(folder / "cohort/reference.tsv")]
    assert main(["deconvolve", *data, "--max-iter", "3", "--out", str(folder / "run"), "--quiet"]) == 0
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

        with pytest.raises(FileExistsError, match="no folder any more"):
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
