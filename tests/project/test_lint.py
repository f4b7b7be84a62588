"""Files of the project that repeat each other agree: hooks and tox, examples and tox, citation and version."""

import configparser
import re
from pathlib import Path

import skenigma

ROOT = Path(__file__).resolve().parents[2]


def tox_commands(environment):
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    return tox[f"testenv:{environment}"]["commands"].strip().splitlines()


def test_hooks_equal_tox():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"entry: (.*)", hooks) == tox_commands("lint")


def test_tox_runs_every_example():
    found = sorted(path.name for path in ROOT.glob("examples/*.py"))
    assert [command.rpartition("/")[2] for command in tox_commands("examples")] == found


def test_citation_names_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (.*)$", citation, flags=re.MULTILINE)
    assert version == skenigma.__version__
