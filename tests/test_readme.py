"""What the README shows is so."""

import re
import subprocess
from pathlib import Path

from sb3_mirl.zoo import COMMANDS, OUR_COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, grid_world = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(first.replace("20_000", "1_200"), names)
    assert names["model"].num_timesteps == 1200 and (tmp_path / "mirl_cartpole.zip").exists()
    exec(grid_world, names)
    assert names["best"].converged and names["best"].prior[4:].sum() < 0.01


def test_the_commands_exist():
    commands = re.findall(r"^(?:\w+=\w+ )?sb3-mirl (\S+)", README, re.MULTILINE)
    assert set(commands) == {*COMMANDS, *OUR_COMMANDS}
    targets = re.findall(r"`?make ([a-z-]+)", README)
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in makefile for target in targets)


def test_the_map_of_the_code_is_complete():
    listed = set(re.findall(r"`(sb3_mirl/\w+\.py|sb3_mirl/\w+/|\w+/)`", README))
    modules = {f"sb3_mirl/{file.name}" for file in (ROOT / "sb3_mirl").glob("*.py") if not file.name.startswith("__")}
    packages = {f"sb3_mirl/{file.parent.name}/" for file in (ROOT / "sb3_mirl").glob("*/__init__.py")}
    assert modules | packages | {"hyperparams/", "benchmarks/", "results/", "docs/", "examples/"} == listed


def test_the_project_speaks_of_itself_only():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in tracked:
        text = (ROOT / name).read_text(errors="ignore")
        assert "/work" + "/" not in text and "/root" + "/" not in text, name
