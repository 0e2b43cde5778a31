"""What the README shows is so: its Python, and its commands, in their order and in one folder, with fewer steps."""

import re
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_mirl.bench.suites import TUNINGS, Tuning
from sb3_mirl.cli.commands import OUR_COMMANDS, ZOO_COMMANDS
from sb3_mirl.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
#: Commands as they stand there, without remarks
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
COMMANDS = [command for line in COMMANDS if (command := line.partition(" #")[0].strip()).startswith("sb3-mirl")]
#: What needs the network, or a cluster
ELSEWHERE = ("sb3-mirl push-to-hub", "sb3-mirl bench run atari19")
#: What is put in place of what, in commands that match
SHORTER = [
    ("train", "10000", "150"),
    ("train .*CartPole-v1 --eval-freq", "$", " -n 450"),
    ("train .*--resume", "80000", "600"),
    ("train .*--seeds", "0-9", "0-1"),
    ("train .*-optimize", "--n-trials 50", "--n-trials 2 -n 60 --n-evaluations 1 --eval-episodes 1"),
    ("train .*--trial-id", "--trial-id 7", "--trial-id 1 -n 100"),
    ("train .*(MinAtar|Pong)", "$", " -n 60 --eval-freq -1 -params buffer_size:100 learning_starts:50"),
    ("(train|enjoy|benchmark)", "$", " --num-threads 1"),
    ("(enjoy|record-video)", r"-n \d+", "-n 20"),
    ("record-training", "$", " -n 20"),
    ("benchmark", "$", " -n 600"),
    ("plot-train", "$", " -w 2"),
    ("gridworld", "--seeds 50", ""),
    ("gridworld", "$", " --steps 1000 --seeds 2 --worlds corridor --no-plots"),
    ("bench run classic", "$", " --seeds 1 --steps 200"),
    ("bench run classic --jobs", "--jobs 4", "--algos mirl --envs CartPole-v1"),
    ("bench tune", "--jobs 2", "--algos dqn"),
]
#: Of these it is enough that all is there that they need
CHECKED = ("sb3-mirl bench run classic --algos", "sb3-mirl bench run minatar")


def shortened(command):
    for pattern, old, new in SHORTER:
        if re.match(f"sb3-mirl {pattern}", command):
            command = re.sub(old, new, command, count=0 if old != "$" else 1)
    return shlex.split(command)[1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run, after the Python."""
    folder = tmp_path_factory.mktemp("readme")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(re.sub(r"learn\([\d_]+", "learn(1_200", PYTHON[0]).replace("eval_freq=2500", "eval_freq=1150"), names)
        names["model"].export("mirl_cartpole")
    assert names["model"].num_timesteps == 1150 and (folder / "mirl_cartpole.zip").exists()
    # Names that stand for any file
    for name in ("model.zip", "a.zip"):
        shutil.copy(folder / "mirl_cartpole.zip", folder / name)
    shutil.copy(folder / "mirl_cartpole.safetensors", folder / "b.safetensors")
    return folder


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith(ELSEWHERE)])
def test_commands_run_in_order(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(TUNINGS, "classic-actions", Tuning(("CartPole-v1",), share=0.002, seeds=(1000,), trials=1, episodes=1))
    if command.startswith(CHECKED):
        monkeypatch.setattr("sb3_mirl.bench.command.run_locally", lambda *args, **kwargs: iter(()))
    assert main(shortened(command)) == command.startswith(CHECKED), capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "finished: nothing to resume" not in printed and "nothing to draw" not in printed and "Skipping" not in printed
    if "record-training" in command:
        assert len(list(folder.glob("logs/mirl/CartPole-v1_1/videos/checkpoint-*.mp4"))) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", (20, 21, 22))
def test_quick_start_solves_cartpole(seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(PYTHON[0].replace("verbose=1", f"seed={seed}"), names)
    # 475 is what Gymnasium takes for solved
    mean, _ = evaluate_policy(names["model"], make_vec_env("CartPole-v1", seed=0), n_eval_episodes=30)
    assert mean >= 475


def test_example_of_joint_training_runs():
    names = {}
    exec(PYTHON[1].replace("range(10)", "range(2)").replace("20_000", "120"), names)
    assert [model.num_timesteps for model in names["models"]] == [120] * 4


def test_solver_example_runs():
    names = {}
    exec(PYTHON[2], names)
    assert len(PYTHON) == 4 and names["best"].converged and names["best"].prior[4:].sum() < 0.01


def test_example_of_useless_actions_runs():
    names = {}
    exec(PYTHON[3], names)
    assert names["env"].action_space.n == 66


def test_install_command_lists_all_extras():
    (extras,) = re.findall(r'pip install -c constraints.txt "\.\[(\S+,\S+)\]"', README)
    # Ray is for clusters, track for an account elsewhere; the others are for developers
    others = {"ray", "track", "test", "dev"}
    assert set(extras.split(",")) == set(metadata.metadata("sb3-mirl").get_all("Provides-Extra")) - others


def test_the_commands_exist():
    commands = re.findall(r"^(?:\w+=\w+ )?sb3-mirl (\S+)", README, re.MULTILINE)
    assert set(commands) == {*ZOO_COMMANDS, *OUR_COMMANDS}
    targets = re.findall(r"`?make ([a-z-]+)", README)
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in makefile for target in targets)


def test_code_table_lists_all_packages():
    listed = set(re.findall(r"^\| `((?:sb3_mirl/)?\w+/)`", README, re.MULTILINE))
    packages = {f"sb3_mirl/{file.parent.name}/" for file in (ROOT / "sb3_mirl").glob("*/__init__.py")}
    assert packages | {"hyperparams/", "benchmarks/", "results/", "docs/", "examples/"} == listed


def test_no_local_paths_in_tracked_files():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in tracked:
        text = (ROOT / name).read_text(errors="ignore")
        assert "/work" + "/" not in text and "/root" + "/" not in text, name
