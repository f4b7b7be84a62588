"""The wheel, not the checkout, as a newcomer gets it: a fresh environment, the README's code, the command line.

Takes minutes and the package index, so it runs where SKENIGMA_TEST_WHEEL is set, as ``.ci/run`` does.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)
COMMANDS = ("proportions", "deconvolve", "differential", "simulate", "report")
SWITCH = "SKENIGMA_TEST_WHEEL"
UNREACHABLE = re.compile("NewConnectionError|NameResolutionError|name resolution|ProxyError|ConnectTimeout")

pytestmark = pytest.mark.skipif(
    not os.environ.get(SWITCH), reason=f"builds and installs the wheel, which takes minutes: set {SWITCH}=1"
)


def environment():
    """Without PYTHONPATH and the like: a checkout on it would pass for what is installed."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command, folder, fails=False):
    """Run a command outside the checkout; returns what it printed on stdout."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == fails, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def install(python, *command, folder):
    """Run pip; where the package index cannot be reached, the tests are skipped, but not in CI."""
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, command)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode and UNREACHABLE.search(done.stderr) and os.environ.get("CI") != "true":
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, f"pip {command}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def scripts(folder):
    """Folder of the programs of an environment that holds the wheel and what it depends on."""
    install(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, folder=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install(scripts / "python", "install", wheel, folder=folder)
    return scripts


def test_what_is_released_passes_a_strict_check(folder):
    """An sdist with the tests and the documentation, a wheel made from it, and metadata that the index takes."""
    venv.create(folder / "release", with_pip=True)
    python = folder / "release" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install(python, "install", "build", "twine", folder=folder)
    run(python, "-m", "build", "--outdir", folder / "dist", ROOT, folder=folder)
    built = sorted((folder / "dist").iterdir())
    assert [path.name.partition("-")[0] for path in built] == ["skenigma", "skenigma"]
    run(python, "-m", "twine", "check", "--strict", *built, folder=folder)
    with tarfile.open(next(path for path in built if path.suffix == ".gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"CHANGELOG.md", "docs/index.md", "tests/conftest.py", "tests/data/README.md", "tox.ini"} <= names
    assert not [name for name in names if name.endswith(".pyc") or "_build" in name]


def test_it_is_the_wheel(scripts, folder):
    place = run(scripts / "python", "-c", "import skenigma; print(skenigma.__file__)", folder=folder)
    assert Path(place.strip()).is_relative_to(folder / "venv")


@pytest.mark.parametrize("code", BLOCKS)
def test_code_of_the_readme(scripts, folder, code):
    if "anndata" in code:  # the README's first command installs this extra
        install(scripts / "python", "install", "anndata", folder=folder)
    run(scripts / "python", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code, folder=folder)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help(scripts, folder, command):
    assert "usage: skenigma" in run(scripts / "skenigma", *command, "--help", folder=folder)
    assert "usage: skenigma" in run(scripts / "python", "-m", "skenigma", *command, "--help", folder=folder)


def test_first_run_of_the_help(scripts, folder):
    """The commands that ``skenigma --help`` ends with, as they stand there."""
    shown = run(scripts / "skenigma", "--help", folder=folder)
    commands = re.findall(r"^  skenigma (.*)$", shown[shown.index("a first run") :], flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        "simulate",
        "deconvolve",
        "differential",
        "report",
    ]
    for command in commands:
        summary = run(scripts / "skenigma", *command.split(), "--json", folder=folder)
        assert json.loads(summary)["command"] == command.split()[0]
    assert "Genes that differ" in (folder / "run" / "report.html").read_text(encoding="utf-8")
    run(scripts / "skenigma", "deconvolve", "--from", "run/run.json", "--out", "again", folder=folder)


def test_extras_are_asked_for_in_one_line(scripts, folder):
    """Without extras, what needs one says which."""
    run(
        scripts / "skenigma", "simulate", "--out", "parquet", "--format", "parquet", folder=folder, fails=True
    )
    assert not (folder / "parquet").exists()
