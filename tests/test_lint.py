"""The hooks before a commit are what ``tox -e lint`` runs; the citation names the version."""

import configparser
import re
from pathlib import Path

import skenigma

ROOT = Path(__file__).resolve().parents[1]


def test_hooks_equal_tox():
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    commands = tox["testenv:lint"]["commands"].strip().splitlines()
    assert re.findall(r"entry: (.*)", hooks) == commands


def test_citation_names_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (.*)$", citation, flags=re.MULTILINE)
    assert version == skenigma.__version__
