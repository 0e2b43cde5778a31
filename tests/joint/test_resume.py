"""Interrupted joint trainings go on exactly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gymnasium import spaces
from joint_runs import SAME, run_jointly
from probes import ConstantReward
from resuming import IGNORED_WARNINGS, Interrupt, cartpole, content, interrupt_at
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import DQNMSE, MIRL, resume_jointly

pytestmark = IGNORED_WARNINGS
RUNS = [*SAME[:2], (DQNMSE, {"seed": 3, "learning_rate": 1e-3})]


def contents(models, folder):
    found = []
    for number, model in enumerate(models):
        own = content(model, folder / str(number))
        state = model.random_state["state"]
        found.append({**own, "random": [state["key"].tolist(), state["pos"]]})
    return found


def test_interrupted_training_equals_an_uninterrupted_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    expected = contents(run_jointly(whole, cartpole, 220, 40, RUNS), whole)
    for at in (95, 130):
        with pytest.raises(Interrupt):
            run_jointly(broken, cartpole, 220, 40, RUNS, lambda run, at=at: [interrupt_at(at)] if run == 1 else [])
    assert contents(run_jointly(broken, cartpole, 220, 40, RUNS), broken) == expected


class OneSpace(ConstantReward):
    """All environments have one object as their action space, with whose generator DQN explores."""

    SPACE = spaces.Discrete(2)

    def __init__(self):
        super().__init__()
        self.action_space = self.SPACE


def test_exploration_goes_on_where_environments_share_their_action_space(tmp_path):
    def make_env(folder):
        return make_vec_env(OneSpace, 1, seed=5, monitor_dir=str(folder))

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    runs = [(DQNMSE, {"seed": seed, "exploration_final_eps": 0.5}) for seed in (3, 4)]
    for folder in (whole, broken):
        folder.mkdir()
    expected = contents(run_jointly(whole, make_env, 220, 40, runs), whole)
    with pytest.raises(Interrupt):
        run_jointly(broken, make_env, 220, 40, runs, lambda run: [interrupt_at(95)] if run == 1 else [])
    assert contents(run_jointly(broken, make_env, 220, 40, runs), broken) == expected


def test_runs_with_a_newer_checkpoint_go_back_to_the_common_step(tmp_path):
    with pytest.raises(Interrupt):
        run_jointly(tmp_path, cartpole, 220, 40, RUNS, lambda run: [interrupt_at(130)] if run == 2 else [])
    (
        tmp_path / "2" / "checkpoints" / "rl_model_120_steps.json"
    ).unlink()  # as if killed before the last run had written its checkpoint
    envs = [cartpole(tmp_path / str(run)) for run in range(3)]
    folders = [tmp_path / str(run) / "checkpoints" for run in range(3)]
    models = resume_jointly([MIRL, MIRL, DQNMSE], folders, envs)
    assert [model.num_timesteps for model in models] == [80, 80, 80]


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"have the same length, got \{'algorithms': 1, 'folders': 2, 'envs': 1\}"):
        resume_jointly([MIRL], [tmp_path, tmp_path], ["CartPole-v1"])
    with pytest.raises(FileNotFoundError, match="holds none"):
        resume_jointly([MIRL], [tmp_path], ["CartPole-v1"])
    with pytest.raises(Interrupt):
        run_jointly(tmp_path, cartpole, 220, 40, SAME[:2], lambda run: [interrupt_at(130)] if run == 1 else [])
    for path in (tmp_path / "0" / "checkpoints").glob("rl_model_[48]0_steps.json"):
        path.unlink()
    for path in (tmp_path / "1" / "checkpoints").glob("rl_model_120_steps.json"):
        path.unlink()
    folders = [tmp_path / str(run) / "checkpoints" for run in range(2)]
    with pytest.raises(ValueError, match=r"checkpoints of one common step, got steps .*\[120\].*\[40, 80\]"):
        resume_jointly([MIRL, MIRL], folders, ["CartPole-v1"] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("kills", ["3", "100"])
def test_killed_training_equals_an_uninterrupted_one(kills):
    script = Path(__file__).parents[1] / "helpers" / "killed_run.py"
    arguments = ["random", "--run", "joint", "--kills", kills, "--total", "400", "--longest", "1.2"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["failures"] == 0 and summary["equal"] == summary["runs"] > 0
    assert summary["kills"] == int(kills)
