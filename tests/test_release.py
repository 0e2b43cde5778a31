"""What a release needs: versions that agree, bounds of dependencies that are tested, and a workflow that publishes."""

import re
import runpy
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sb3_mirl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest needs

ROOT = Path(__file__).parents[1]
CITATION = "version: {}\ndate-released: {}\n"
WHEEL = "dist/sb3_mirl-1.2.0-py3-none-any.whl"
differences = runpy.run_path(str(ROOT / ".ci" / "release_version.py"))["differences"]


def pinned(name):
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return {canonicalize_name(one.name): Version(str(one.specifier).removeprefix("==")) for one in requirements}


def lower_bounds():
    """The smallest version that ``pyproject.toml`` allows of each package, without those of the extras for development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: listed for name, listed in project["optional-dependencies"].items() if name not in ("dev", "docs")}
    bounds = {}
    for listed in [project["dependencies"], *extras.values()]:
        for one in map(Requirement, listed):
            if one.name == "sb3-mirl" or (one.extras and not one.specifier):
                continue
            versions = [Version(bound.version) for bound in one.specifier if bound.operator in (">=", "==")]
            assert versions, f"{one} needs a lower bound"
            bounds.setdefault(canonicalize_name(one.name), versions[0])
    return bounds


def test_oldest_versions_are_the_bounds_of_pyproject():
    assert pinned("constraints-oldest.txt") == lower_bounds()


def test_version_is_that_of_the_installed_package():
    assert sb3_mirl.__version__ == metadata.version("sb3-mirl")


def test_checkout_that_is_not_installed_can_be_imported(tmp_path, run_script):
    script = tmp_path / "script.py"
    script.write_text(
        "from importlib import metadata\n"
        "def version(name):\n"
        "    raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = version\n"
        "import sb3_mirl\n"
        "print(sb3_mirl.__version__)\n"
    )
    # The package may not have been imported before
    ran = run_script(script)
    assert ran.stdout == "0+unknown\n", ran.stderr


def test_citation_and_changelog_have_the_same_version(run_script):
    assert differences(WHEEL, "") == []
    assert run_script(ROOT / ".ci" / "release_version.py", WHEEL, "").returncode == 0
    assert run_script(ROOT / ".ci" / "release_version.py", WHEEL, "v9.9.9").returncode == 1


def release(folder, version="1.2.0", date="2027-01-02", changelog="## 1.2.0 (2027-01-02)"):
    (folder / "CITATION.cff").write_text(CITATION.format(version, date))
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog}\n\n## 1.1.0 (2026-01-01)\n")


def test_complete_release_has_no_differences(tmp_path):
    release(tmp_path)
    assert differences(WHEEL, "v1.2.0", tmp_path) == []


@pytest.mark.parametrize(
    ("tag", "changed", "word"),
    [
        ("v1.2.1", {}, "the wheel has version 1.2.0"),
        ("v1.2.0", {"version": "1.1.0"}, "CITATION.cff has version 1.1.0"),
        ("v1.2.0", {"changelog": "## 1.2.0 (unreleased)"}, "unreleased"),
        ("v1.2.0", {"date": "2027-01-01"}, "date-released 2027-01-01"),
        ("v1.2.0", {"version": "1.3.0", "changelog": "## 1.3.0 (2027-01-02)"}, "newest version in CHANGELOG.md 1.3.0"),
    ],
)
def test_differences_stop_a_release(tag, changed, word, tmp_path):
    release(tmp_path, **changed)
    assert any(word in line for line in differences(WHEEL, tag, tmp_path))


def test_tags_are_checked_and_then_published_without_a_password():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text())
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    # YAML reads the key `on` as True
    assert workflow[True] == {"push": {"tags": ["v*"]}} and workflow["permissions"] == {"contents": "read"}
    assert "make release-check" in [step.get("run") for step in check["steps"]] and "permissions" not in check
    assert publish["needs"] == "check" and publish["permissions"] == {"id-token": "write"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@") and "with" not in publish["steps"][-1]


def test_security_page_names_files_that_exist():
    text = (ROOT / "SECURITY.md").read_text()
    assert all((ROOT / name).is_file() for name in re.findall(r"\]\(([^)]+)\)", text))
