"""What a release consists of agrees with itself: versions, dates, and the files that services read."""

import pathlib
import re

import pytest

import skenigma

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def newest_heading():
    """Version and date of the changelog's first part."""
    return re.search(r"^## (\S+) \((.*)\)$", text("CHANGELOG.md"), flags=re.MULTILINE).groups()


def test_all_files_name_one_version():
    said = {
        "CITATION.cff": re.findall(r"^version: (.*)$", text("CITATION.cff"), flags=re.MULTILINE),
        "meta.yaml": re.findall(r'set version = "(.*)"', text(".ci/conda/meta.yaml")),
        "CHANGELOG.md": [newest_heading()[0]],
    }
    release = skenigma.__version__.partition(".dev")[0]
    # the recipe and the changelog speak of the release that a development version leads to
    expected = {"CITATION.cff": skenigma.__version__, "meta.yaml": release, "CHANGELOG.md": release}
    assert said == {name: [version] for name, version in expected.items()}


def test_a_release_has_its_date_everywhere():
    _, date = newest_heading()
    released = re.findall(r'^date-released: "?([\d-]+)"?$', text("CITATION.cff"), flags=re.MULTILINE)
    if ".dev" in skenigma.__version__:
        assert date == "unreleased"
    else:
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", date)
        assert released == [date]


def test_the_changelog_has_each_topic_once():
    newest = text("CHANGELOG.md").split("\n## ")[1]
    topics = re.findall(r"^### (.*)$", newest, flags=re.MULTILINE)
    assert len(topics) == len(set(topics))
    # lines of two versions of it, which a merge puts together, repeat what they are about
    begun = [line.split(":")[0] for line in newest.splitlines() if line.startswith("- `")]
    assert sorted(set(begun)) == sorted(begun)
    assert not re.search(r"^[<=>]{7}", text("CHANGELOG.md"), flags=re.MULTILINE)


def test_the_address_of_the_repository_is_set_in_one_place_and_its_copies_agree():
    address = re.findall(r"^url = (.*)$", text("setup.cfg"), flags=re.MULTILINE)
    assert re.findall(r"^repository-code: (.*)$", text("CITATION.cff"), flags=re.MULTILINE) == address
    assert re.findall(r"^  home: (.*)$", text(".ci/conda/meta.yaml"), flags=re.MULTILINE) == address
    # no other file contains it, or an address that somebody made up
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("skenigma/**/*.py")]
    pattern = r"(github|gitlab)\.com/[\w.-]+/skenigma|skenigma\.(readthedocs\.io|org)"
    assert [path.name for path in pages if re.search(pattern, path.read_text(encoding="utf-8"))] == []


def test_the_policies_are_where_the_others_send_to():
    assert "FutureWarning" in text("CONTRIBUTING.md")
    assert "Report a vulnerability" in text(".github/SECURITY.md")


class TestFilesOfServices:
    """They parse, and hold what their services ask for."""

    @pytest.fixture(autouse=True)
    def yaml(self):
        return pytest.importorskip("yaml")

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_workflows(self, yaml, path):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        # YAML 1.1 reads the key "on" as True
        assert {"name", True, "permissions", "jobs"} <= set(workflow)
        assert workflow["permissions"] == {"contents": "read"}  # more is asked for by the job that needs it
        for job in workflow["jobs"].values():
            assert job["runs-on"]
            assert set([job.get("needs", [])] if isinstance(job.get("needs"), str) else []) <= set(
                workflow["jobs"]
            )
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step)
                # an action without a version is whatever it is that day
                assert "uses" not in step or re.fullmatch(r"[\w./-]+@\S+", step["uses"])

    def test_a_release_is_published_by_its_tag_alone_and_after_its_checks(self, yaml):
        jobs = yaml.safe_load(text(".github/workflows/release.yml"))["jobs"]
        steps = " ".join(step.get("run", "") for step in jobs["build"]["steps"])
        for needed in ("python -m build", "twine check --strict", "tests/project/test_installed.py"):
            assert needed in steps
        assert jobs["publish"]["needs"] == "build"
        assert jobs["publish"]["if"] == "startsWith(github.ref, 'refs/tags/')"
        assert jobs["publish"]["permissions"] == {"id-token": "write"}

    def test_documentation(self, yaml):
        service = yaml.safe_load(text(".readthedocs.yaml"))
        assert service["version"] == 2
        assert (ROOT / service["sphinx"]["configuration"]).is_file()
        (install,) = service["python"]["install"]
        extras = re.findall(
            r"^(\w+) =$", text("setup.cfg").partition("[options.extras_require]")[2], flags=re.MULTILINE
        )
        assert set(install["extra_requirements"]) <= set(extras)

    def test_citation(self, yaml):
        citation = yaml.safe_load(text("CITATION.cff"))
        assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
        assert citation["preferred-citation"]["type"] == "article"

    @pytest.mark.parametrize(
        "path", sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")), ids=lambda path: path.name
    )
    def test_templates_of_issues(self, yaml, path):
        template = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name == "config.yml":
            assert "blank_issues_enabled" in template
            return
        assert {"name", "description", "body"} <= set(template)
        assert all(
            "label" in field["attributes"] for field in template["body"] if field["type"] != "markdown"
        )
