"""Files of the project that repeat each other agree: hooks and tox, examples and tox, citation and version."""

import configparser
import re
from pathlib import Path

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


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_recipe_asks_for_what_the_package_needs():
    recipe = (ROOT / ".ci/conda/meta.yaml").read_text(encoding="utf-8")
    run = recipe.partition("  run:\n")[2].partition("\ntest:")[0]
    needed = [line.replace(">=", " >=") for line in setup()["options"]["install_requires"].split()]
    assert re.findall(r"    - (.*)", run) == ["python >={{ python_min }}", *needed]


def test_workflows_run_environments_and_supported_versions():
    workflow = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    asked = set(re.findall(r"env: \[?(\w+)", workflow)) | set(re.findall(r"tox -e (\w+)", workflow))
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    assert asked
    assert asked <= {name.strip() for name in tox["tox"]["env_list"].split(",")}
    oldest = setup()["options"]["python_requires"].removeprefix(">=")
    assert min(re.findall(r'"(3\.\d+)"', workflow), key=lambda text: int(text[2:])) == oldest
