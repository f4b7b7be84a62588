"""Processes that are interrupted or killed, or whose streams are closed or full: what they say is true."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import skenigma
from skenigma.cli import main
from skenigma.cli._console import Console
from skenigma.cli._streams import visible
from skenigma.io import staged_folder
from skenigma.io._records import load_record
from skenigma.io._signals import Terminated, ending_signals, held_signals, raise_lost_signal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and shells are those of POSIX")

SIMULATE = ["simulate", "--samples", "6", "--genes", "20", "--cell-types", "2"]
PROGRAM = "import sys; from skenigma.cli import main; sys.exit(main())"
# says when it is ready for signals, that is when the imports are done
READY = """
import sys
import skenigma.cli._main as program
known = program._run
def run(*args):
    print("ready", file=sys.stderr, flush=True)
    return known(*args)
program._run = run
sys.exit(program.main())
"""


def start(code, *argv, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(skenigma.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, argv)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, **options},
    )


def shell(command, **options):
    """A shell command in which ``skenigma`` is the program."""
    program = f"{sys.executable} -m skenigma"
    environment = {**os.environ, "PYTHONPATH": str(Path(skenigma.__file__).parents[1])}
    return subprocess.run(
        ["bash", "-c", command.replace("skenigma", program)],
        capture_output=True,
        text=True,
        env=environment,
        **options,
    )


class TestHeld:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals_wait(self, number):
        steps, error = [], KeyboardInterrupt if number == signal.SIGINT else Terminated
        with pytest.raises(error), ending_signals():  # noqa: PT012
            with held_signals():
                with held_signals():
                    signal.raise_signal(number)
                steps.append("inner")
            steps.append("never")
        assert steps == ["inner"]

    def test_without_the_command_line(self):
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), held_signals():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before

    def test_an_error_comes_first(self):
        with ending_signals():
            with pytest.raises(ValueError, match="odd"), held_signals():  # noqa: PT012
                signal.raise_signal(signal.SIGINT)
                raise ValueError("odd")
            with held_signals():
                pass  # what waited then is not delivered now

    def test_second_signal_of_one_request(self):
        with pytest.raises(Terminated), ending_signals():  # noqa: PT012
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)  # must not cut what tidies up
                steps = "done"
        assert steps == "done"

    def test_lost_signal_is_raised_again(self):
        with pytest.raises(KeyboardInterrupt), ending_signals() as raised:  # noqa: PT012
            with contextlib.suppress(KeyboardInterrupt):  # as a callback of a library may do
                signal.raise_signal(signal.SIGINT)
            assert raised() == signal.SIGINT
            raise_lost_signal()
        raise_lost_signal()  # and is forgotten after the command

    def test_result_in_place_is_called_written(self, tmp_path, monkeypatch, capsys):
        """A signal between the last rename and the end of the process."""
        from skenigma.io import _staging

        settle = _staging._settle

        def signalled(*args):
            signal.raise_signal(signal.SIGINT)
            return settle(*args)

        monkeypatch.setattr(_staging, "_settle", signalled)
        assert main([*SIMULATE, "--out", str(tmp_path / "run"), "--quiet"]) == 130
        err = capsys.readouterr().err
        assert (
            err
            == f"skenigma: error: interrupted: the results were complete by then, and are in {tmp_path}/run\n"
        )
        load_record(tmp_path / "run" / "run.json")

    @pytest.mark.parametrize(
        ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
    )
    @pytest.mark.parametrize("error", [ValueError("Error tokenizing data"), SystemError("odd"), None])
    def test_signal_in_a_reader(self, tmp_path, monkeypatch, capsys, number, code, word, error):
        """Libraries make other exceptions of the one that a signal raises, or lose it."""

        def make(**options):
            try:
                signal.raise_signal(number)
            except BaseException:
                if error is not None:
                    raise error from None
            return cohort(**options)

        from skenigma.cli import _simulate

        cohort = _simulate.make_cohort
        monkeypatch.setattr(_simulate, "make_cohort", make)
        assert main([*SIMULATE, "--out", str(tmp_path / "run"), "--quiet"]) == code
        assert capsys.readouterr().err == f"skenigma: error: {word}: nothing was written\n"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [25])
@pytest.mark.parametrize("force", [False, True])
def test_signals_at_many_moments(tmp_path, number, force):
    """Whatever the moment: the message is true, and what was there before or the new result is there."""
    rng, faults = random.Random(number), []
    run = tmp_path / "run"
    if force:
        assert main([*SIMULATE, "--seed", "1", "--quiet", "--out", str(run)]) == 0
    for attempt in range(number):
        sent, delay = rng.choice((signal.SIGINT, signal.SIGTERM)), rng.uniform(0, 0.08)
        options = ["--seed", 2 + attempt, "--out", run, *(["--force"] if force else [])]
        process = start(READY, *SIMULATE, *options)
        assert process.stderr.readline() == "ready\n"
        before = load_record(run / "run.json")["seeds"] if run.exists() else None
        time.sleep(delay)
        process.send_signal(sent)
        if attempt % 3 == 0:
            process.send_signal(sent)
        out, err = process.communicate(timeout=60)
        seeds = load_record(run / "run.json")["seeds"]["random_state"] if run.exists() else None
        new = seeds == 2 + attempt
        last = err.splitlines()[-1] if err else ""
        ended = {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
        true = {
            True: process.returncode == 0 or (process.returncode == ended and "were complete" in last),
            False: process.returncode == ended and last.endswith("nothing was written"),
        }[new]
        left = sorted(path.name for path in tmp_path.iterdir())
        kept = seeds == (before or {}).get("random_state") or new
        if not true or not kept or "Traceback" in err or out or left not in ([], ["run"]):
            faults.append((attempt, sent, delay, process.returncode, err[-300:], left))
        if not force and run.exists():
            for path in sorted(run.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            run.rmdir()
    assert faults == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [25])
def test_killed_at_many_moments(tmp_path, number):
    """After ``kill -9`` at any call of the system, ``run`` is whole, old or new, and leftovers are named rightly."""
    run, rng, faults = tmp_path / "run", random.Random(number), []
    assert main([*SIMULATE, "--seed", "1", "--quiet", "--out", str(run)]) == 0
    calls = ("rename", "mkdir", "unlink", "rmdir", "fsync", "open", "lstat")
    code = """
import os, signal, sys
from skenigma.cli import main
from skenigma.io import _renames, _staging
name, count = sys.argv.pop(1), int(sys.argv.pop(1))
def counted(real):
    def call(*args, **more):
        global count
        count -= 1
        if not count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    return call
if name == "exchange":
    _staging.exchange = counted(_staging.exchange)
elif name == "after":
    real = _staging.exchange
    def exchange(*args):
        done = real(*args)
        os.kill(os.getpid(), signal.SIGKILL)
    _staging.exchange = exchange
else:
    setattr(os, name, counted(getattr(os, name)))
sys.exit(main())
"""
    for attempt in range(number):
        name = rng.choice((*calls, "exchange", "after"))
        old = load_record(run / "run.json")["seeds"]["random_state"]
        process = start(
            code, name, rng.randint(1, 12), *SIMULATE, "--seed", 2 + attempt, "--out", run, "--force", "-q"
        )
        process.communicate(timeout=60)
        seed = load_record(run / "run.json")["seeds"]["random_state"]
        if seed not in (old, 2 + attempt):
            faults.append((attempt, name, seed))
        for left in tmp_path.iterdir():
            if left.name.endswith(".complete"):  # one of the two, whole
                other = load_record(left / "run.json")
                listed = all((left / file).is_file() for file in other["outputs"])
                if {other["seeds"]["random_state"], seed} != {old, 2 + attempt} or not listed:
                    faults.append((attempt, name, left.name))
            elif left.name.endswith((".unfinished", ".replaced")):  # may be removed: the other is in place
                if left.name.endswith(".replaced") and seed != 2 + attempt:
                    faults.append((attempt, name, left.name))
            elif left != run:
                faults.append((attempt, name, left.name))
            if left != run:
                subprocess.run(["rm", "-r", left], check=True)
    assert faults == []


@pytest.mark.slow
class TestStreams:
    """stdout and stderr that are closed, full or read by nobody cost no result and bring no traceback."""

    @pytest.mark.parametrize(
        ("redirection", "code"),
        [
            ("2>&-", 0),
            pytest.param("2>/dev/full", 0, marks=pytest.mark.slow),
            pytest.param(">&-", 0, marks=pytest.mark.slow),
            pytest.param(">&- 2>&-", 0, marks=pytest.mark.slow),
            ("--json >/dev/full", 1),
            ("--json >&-", 2),
            ("--json 2>&-", 0),
            pytest.param("--json 2>/dev/full", 0, marks=pytest.mark.slow),
            pytest.param("--json 2>&- >/dev/full", 1, marks=pytest.mark.slow),
            ("<&- >&- 2>&-", 0),
            ("2>&1 | head -n 1", 0),
            pytest.param("2>&1 | true", 0, marks=pytest.mark.slow),
            pytest.param("--json | true", 0, marks=pytest.mark.slow),
            ("--json 2>&1 | head -n 1", 0),
        ],
    )
    def test_redirections(self, tmp_path, redirection, code):
        if "/dev/full" in redirection and not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        words = " ".join(SIMULATE)
        done = shell(f"set -o pipefail; skenigma {words} --out run {redirection}", cwd=tmp_path)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        if code != 2:
            record = load_record(tmp_path / "run" / "run.json")
            for name, entry in record["outputs"].items():  # nothing that was said has gone into a file
                assert (tmp_path / "run" / name).stat().st_size == entry["size"]
        if "--json 2>" in redirection and code == 0 and "|" not in redirection:
            assert json.loads(done.stdout)["command"] == "simulate"
        if redirection == "--json >/dev/full":
            assert "the summary cannot be written to stdout: No space left on device" in done.stderr
            assert f"The results are complete, and are in {tmp_path}/run" in done.stderr

    @pytest.mark.parametrize("redirection", [">/dev/full", "| true", ">&-"])
    def test_help(self, tmp_path, redirection):
        done = shell(f"skenigma --help {redirection}", cwd=tmp_path)
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr

    def test_json_of_few_letters(self, tmp_path):
        done = shell(f"PYTHONIOENCODING=ascii skenigma {' '.join(SIMULATE)} --out α --json", cwd=tmp_path)
        assert json.loads(done.stdout)["out"] == str(tmp_path / "α")


class TestVisible:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("B cell, α/β", "B cell, α/β"),
            ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
            ("\x9b2J", r"\x9b2J"),
            ("a\rb\nc", r"a\rb\nc"),
            ("\u202eevil", r"\u202eevil"),
            ("\udcff", r"\udcff"),
        ],
    )
    def test_control_characters_are_shown(self, text, shown, capsys):
        assert visible(text) == shown
        console = Console()
        console.facts([("cell types", text)])
        assert capsys.readouterr().err == f"  cell types  {shown}\n"

    NAMES = (
        "\x1b]0;owned\x07\x1b[2J",
        "\x9b31m",
        "\u202ebad",
        '=HYPERLINK("http://x")',
        "+1",
        "@SUM(A1)",
        "-2+3",
    )

    @pytest.mark.parametrize("name", NAMES)
    def test_names_from_files(self, tmp_path, name, capsys):
        """Shown on the terminal, kept in tables as they are, text in the report."""
        assert main([*SIMULATE, "--out", str(tmp_path / "c"), "--quiet"]) == 0
        for table, old in (("reference.tsv", "celltype1"), ("bulk.tsv", "sample1")):
            path = tmp_path / "c" / table
            quoted = '"' + name.replace('"', '""') + '"'
            path.write_text(path.read_text().replace(f"{old}\t", f"{quoted}\t", 1), encoding="utf-8")
        data = ["--bulk", str(tmp_path / "c/bulk.tsv"), "--reference", str(tmp_path / "c/reference.tsv")]
        assert (
            main(
                [
                    "deconvolve",
                    *data,
                    "--model",
                    "l2max",
                    "--max-iter",
                    "2",
                    "--out",
                    str(tmp_path / "run"),
                    "--json",
                ]
            )
            == 0
        )
        assert main(["deconvolve", *data, "--cell-types", f"x{name}", "--out", str(tmp_path / "b")]) == 1
        assert main(["deconvolve", f"--{name}"]) == 2
        out, err = capsys.readouterr()
        for text in (out, err, (tmp_path / "run/run.json").read_text(encoding="utf-8")):
            assert not set(text) & set("\x1b\x07\x9b\u202e")
        assert name in json.loads(out)["understood"]["cell_types"]
        assert name in (tmp_path / "run/proportions.tsv").read_text(encoding="utf-8").replace('""', '"')
        assert main(["report", str(tmp_path / "run"), "--quiet"]) == 0
        page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
        assert name not in page or not set('<>"&') & set(name)


def test_folder_of_python_users_waits_for_signals_too(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        staged_folder(tmp_path / "run", done=lambda _: signal.raise_signal(2)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
