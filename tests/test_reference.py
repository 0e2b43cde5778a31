"""The API reference: every public name is described, and has a docstring."""

import importlib
import inspect
import re

import pytest
from pages import DOCS, PAGES, ROOT, blocks

import sb3_mirl

#: Modules of which all functions, classes and described constants are public
PUBLIC_MODULES = ["mirl.operators", "mirl.loss", "mirl.callbacks", "mirl.views", "mirl.state_priors", "mirl.skills"]
PUBLIC_MODULES += ["common.munchausen", "tabular.solvers", "tabular.mdp", "tabular.learners", "zoo.register", "bench.scores"]
PUBLIC_MODULES += ["envs.gridworld", "envs.atari", "envs.minatar", "envs.useless_actions", "bench.suites"]


def find(dotted):
    """The object of a dotted name, and a key that is equal for all of its names."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            owner = getattr(owner, part)
        if inspect.ismodule(owner) or not hasattr(owner, "__qualname__"):
            return owner, dotted
        return owner, f"{owner.__module__}.{owner.__qualname__}"
    raise AssertionError(f"{dotted} does not exist")


def members(module):
    """Names of what a module defines itself: functions, classes, and constants with a comment ``#:``."""
    source = inspect.getsource(module)
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        own = getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__qualname__")
        if own or re.search(rf"^#:.*\n{name}\b", source, re.MULTILINE):
            yield f"{module.__name__}.{name}"


def described():
    """Keys of everything that the pages describe, with autodoc's rules."""
    found = set()
    for page in DOCS.rglob("*.md"):
        directives = re.findall(r"^\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", page.read_text("utf-8"), re.MULTILINE)
        for kind, name, options in directives:
            thing, key = find(name)
            found.add(key)
            if kind == "module" and ":members:" in options:
                excluded = re.findall(r":exclude-members: (.*)", options)
                names = set(members(thing)) - {f"{name}.{one.strip()}" for listed in excluded for one in listed.split(",")}
                found |= {find(one)[1] for one in names}
    return found


def used():
    """Names of the package that examples and pages import or mention, also in files of hyper-parameters."""
    texts = [block.text for page in PAGES for block in blocks(page) if block.language == "python"]
    texts += [file.read_text("utf-8") for file in sorted((ROOT / "examples").glob("*.py"))]
    for text in texts:
        for module, names in re.findall(r"^\s*from (sb3_mirl[\w.]*) import \(?([^()\n]+)", text, re.MULTILINE):
            yield from (f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(","))
    texts = [(ROOT / page).read_text("utf-8") for page in PAGES]
    texts += [file.read_text("utf-8") for file in sorted((ROOT / "hyperparams").glob("*.yml"))]
    for text in texts:
        yield from re.findall(r"\bsb3_mirl(?:\.[a-z_]+)+\.[A-Z]\w+|\bsb3_mirl\.[A-Z]\w+", text)


PUBLIC = {f"sb3_mirl.{name}" for name in sb3_mirl.__all__ if name != "__version__"} | set(used())
PUBLIC |= {name for module in PUBLIC_MODULES for name in members(importlib.import_module(f"sb3_mirl.{module}"))}
PUBLIC = sorted(name for name in PUBLIC if not inspect.ismodule(find(name)[0]))
DESCRIBED = described()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_in_the_reference_and_has_a_docstring(name):
    thing, key = find(name)
    home = {key, *(one for one in DESCRIBED if find(one)[0] is thing)}
    assert home & DESCRIBED, f"{name} is missing from docs/api"
    if callable(thing):
        assert thing.__doc__ and thing.__doc__.strip(), name
    if inspect.isclass(thing):
        own = {attribute: member for attribute, member in vars(thing).items() if not attribute.startswith("_")}
        methods = {name: one for name, one in own.items() if inspect.isroutine(one) or isinstance(one, property)}
        # What only overrides a method of Gymnasium or SB3 is described there
        overrides = {name for name in methods if any(hasattr(base, name) for base in thing.__mro__[1:])}
        assert not [name for name, method in methods.items() if not inspect.getdoc(method) and name not in overrides]


def test_what_is_not_public_is_not_in_the_reference():
    assert find("sb3_mirl.common.files.write_whole")[1] not in DESCRIBED
