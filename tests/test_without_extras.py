"""
An installation without extras: what works, and what is said of the rest.

Where extras are installed, their packages are hidden from a process. In CI the same runs in an environment without extras.
"""

import json
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from sb3_mirl.cli.commands import OUR_COMMANDS, ZOO_COMMANDS
from sb3_mirl.cli.main import EXTRAS

LEARN = """
from sb3_mirl import MIRL
model = MIRL("MlpPolicy", "CartPole-v1", learning_starts=50, verbose=1)
model.learn(200)
model.save("model")
model.export("model")
"""
# Runs commands one after the other, and writes what they print
RUN = """
import contextlib, io, json, sys

hidden, commands, learn = json.load(sys.stdin)
sys.modules.update(dict.fromkeys(hidden))  # None: not found
printed = []
exec(learn)
from sb3_mirl.cli.main import main
for command in commands:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(command.split())
        except SystemExit as stop:
            status = stop.code
    printed.append([command, [status, out.getvalue(), err.getvalue()]])
json.dump(printed, open("printed.json", "w"))
"""
HELP = ["--help", "bench run --help", "bench status --help", "bench report --help"]
HELP += [f"{command} --help" for command in OUR_COMMANDS]
WORKING = ["--version", "inspect model.zip", "inspect model.safetensors", "prior model.zip", "prior model.safetensors --json"]
MISSING = {
    **{f"{command} --algo mirl": "zoo" for command in ZOO_COMMANDS},
    "train --help": "zoo",
    "gridworld": "bench",
    "prior model.zip --out prior.png": "bench",
    "export-onnx model.zip model.onnx": "onnx",
}


def needed_without_extras():
    """The distributions that come with `pip install sb3-mirl`."""
    found, waiting = set(), ["sb3-mirl"]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            requirements = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:  # of another system, say
            continue
        waiting += [one.name for one in requirements if not one.marker or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Exit status, output and errors of each command."""
    folder, needed = tmp_path_factory.mktemp("bare"), needed_without_extras()
    packages = metadata.packages_distributions().items()
    hidden = [name for name, owners in packages if not needed & {owner.lower().replace("_", "-") for owner in owners}]
    hidden += EXTRAS  # Python 3.10 does not know the owners of all packages
    request = json.dumps([hidden, [*HELP, *WORKING, *MISSING], LEARN])
    subprocess.run([sys.executable, "-c", RUN], cwd=folder, input=request, text=True, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads((folder / "printed.json").read_text()))


@pytest.mark.parametrize("command", HELP)
def test_help_works(command, printed):
    status, out, err = printed[command]
    assert status == 0 and out.startswith("usage: sb3-mirl") and not err


@pytest.mark.parametrize("command", WORKING)
def test_commands_that_need_no_extra_work(command, printed):
    status, out, err = printed[command]
    assert status == 0 and out and not err


@pytest.mark.parametrize("command", MISSING)
def test_missing_package_is_reported_with_its_extra(command, printed):
    status, out, err = printed[command]
    assert status in (1, 2) and not out and f"pip install 'sb3-mirl[{MISSING[command]}]'" in err
    assert err.count("\n") == 1


def test_extras_table_matches_pyproject():
    extras = {name: set() for name in set(EXTRAS.values())}
    for line in metadata.requires("sb3-mirl"):
        requirement = Requirement(line)
        for extra in extras:
            if requirement.marker and requirement.marker.evaluate({"extra": extra}):
                extras[extra].add(requirement.name.lower())
    assert all(extras.values())
    # Whatever is imported under its own name; the others come with one of these
    for package, extra in EXTRAS.items():
        owners = {name for name, required in extras.items() if package.lower() in {one.replace("-", "_") for one in required}}
        assert not owners or extra in owners, package
