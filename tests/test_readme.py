"""The README and the pages of the site: length, links, places in the site, and tables."""

import fnmatch
import importlib
import os
import re
import subprocess

import pytest
from gymnasium import Env, spaces
from pages import DOCS, PAGES, ROOT
from probes import NamedActions

import sb3_mirl

README = (ROOT / "README.md").read_text("utf-8")
SITE = sorted(file for file in DOCS.rglob("*.md") if "_build" not in file.parts)
#: Pages with links: also notebooks and the list of changes
LINKED = sorted({ROOT / "CHANGELOG.md", *(ROOT / page for page in PAGES), *SITE})


def name_of(file):
    return file.relative_to(ROOT).as_posix()


def without_code(text):
    return re.sub(r"^```(?!\{eval-rst\}).*?^```$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """Of the headings of a page, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_readme_is_short():
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("file", LINKED, ids=name_of)
def test_links_lead_to_pages_and_headings(file):
    text = file.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^()\s]+)\)", without_code(text)):
        path, _, anchor = target.partition("#")
        if anchor.startswith("sb3_mirl."):
            assert not path and resolves(anchor), target
            continue
        goal = file.parent / path if path else file
        assert goal.exists(), target
        assert not anchor or anchor in anchors(goal.read_text("utf-8")), target


def resolves(dotted):
    """Whether a dotted name exists in the package."""
    module, _, rest = dotted, "", ""
    while module:
        try:
            thing = importlib.import_module(module)
        except ImportError:
            module, _, last = module.rpartition(".")
            rest = f"{last}.{rest}".strip(".")
        else:
            for part in filter(None, rest.split(".")):
                thing = getattr(thing, part, None)
            return thing is not None
    return False


def test_every_page_has_a_place_in_the_site():
    found = {"index"}
    for page in SITE:
        for body in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            entries = [line for line in body.splitlines() if line and not line.startswith(":")]
            folder = page.parent.relative_to(DOCS)
            patterns = [os.path.normpath(folder / re.sub(r".*<(.*)>", r"\1", entry)) for entry in entries]
            pages = [file.relative_to(DOCS).with_suffix("").as_posix() for file in SITE]
            if ":glob:" not in body:
                assert set(patterns) <= set(pages), patterns
            found |= {name for name in pages if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    assert found == {file.relative_to(DOCS).with_suffix("").as_posix() for file in SITE}


def cells():
    """(what, classes, tick or cross) of the table of the README."""
    rows = re.findall(r"^\|(.*)\|$", README.split("## Can I use?")[1].split("\n## ")[0], re.MULTILINE)
    header, _, *rows = [[cell.strip() for cell in row.split("|")] for row in rows]
    columns = [re.findall(r"`(\w+)`", column) for column in header[1:]]
    for what, *marks in rows:
        for names, mark in zip(columns, marks, strict=True):
            yield from ((what, getattr(sb3_mirl, name), mark == "✔") for name in names)


class Spaces(Env):
    """An environment with given spaces, which ends at each step."""

    def __init__(self, action_space, observation_space=None):
        self.action_space, self.observation_space = action_space, observation_space or spaces.Box(0, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, True, False, {}


OBSERVATIONS = [spaces.Box(0, 1, (2,)), spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)]
OTHER_ACTIONS = [spaces.Box(0, 1, (2,)), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)]


def trains(algorithm, env, **settings):
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    try:
        algorithm(policy, env, learning_starts=2, policy_kwargs={"net_arch": [4]}, **settings).learn(8)
    except (ValueError, TypeError, AssertionError):
        return False
    return True


#: What is tried for a row: its beginning, and environments with settings
TRIED = {
    "discrete actions": lambda: [(Spaces(spaces.Discrete(2)), {})],
    "other actions": lambda: [(Spaces(space), {}) for space in OTHER_ACTIONS],
    "observations": lambda: [
        (Spaces(spaces.Discrete(2), space), {})
        for space in [*OBSERVATIONS, spaces.Dict({str(i): one for i, one in enumerate(OBSERVATIONS)})]
    ],
    "[action masks]": lambda: [(masked(), {})],
}


def masked():
    from sb3_contrib.common.envs import InvalidActionEnvDiscrete

    return InvalidActionEnvDiscrete(dim=4, n_invalid_actions=2)


@pytest.mark.parametrize(
    ("what", "algorithm", "usable"),
    [pytest.param(*cell, id=f"{cell[0][:20]}-{cell[1].__name__}") for cell in cells() if cell[0].startswith(tuple(TRIED))],
)
def test_what_can_be_used(what, algorithm, usable):
    (tried,) = (make for name, make in TRIED.items() if what.startswith(name))
    assert [trains(algorithm, env, **settings) for env, settings in tried()] == [usable] * len(tried())


def test_priors_that_see_something_are_for_the_algorithms_of_the_table():
    able = {algorithm for what, algorithm, usable in cells() if what.startswith("[priors") and usable}
    for algorithm in able:
        model = algorithm("MlpPolicy", NamedActions(), prior_type="conditional", prior_observation="all", prior_lr=0.1)
        assert model.policy.state_prior is not None
    assert able == {sb3_mirl.MIRL, sb3_mirl.SQLm}  # SQL accepts one, but learns none


def test_code_table_lists_all_packages():
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `((?:sb3_mirl/)?\w+/)`", page, re.MULTILINE))
    packages = {f"sb3_mirl/{file.parent.name}/" for file in (ROOT / "sb3_mirl").glob("*/__init__.py")}
    assert packages | {"hyperparams/", "benchmarks/", "results/", "docs/", "examples/", "tests/"} == listed


def test_no_local_paths_in_tracked_files():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in tracked:
        text = (ROOT / name).read_text(errors="ignore")
        assert "/work" + "/" not in text and "/root" + "/" not in text, name
