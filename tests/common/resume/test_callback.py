"""When checkpoints are written, and what the callback refuses."""

import numpy as np
import pytest
import torch as th
from probes import ConstantReward
from resuming import IGNORED_WARNINGS, SETTINGS
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import MIRL, CheckpointCallback

pytestmark = IGNORED_WARNINGS


@pytest.mark.parametrize("arguments", [{"save_freq": 0}, {"save_freq": 1.5}, {"save_freq": 5, "keep": 0}])
def test_arguments_are_checked(tmp_path, arguments):
    with pytest.raises(ValueError, match="must be a positive integer, got"):
        CheckpointCallback(save_path=tmp_path, **arguments)


def test_two_callbacks_cannot_share_a_folder(tmp_path):
    both = [CheckpointCallback(10, tmp_path), CheckpointCallback(20, tmp_path / ".", "other")]
    with pytest.raises(ValueError, match="save_path must be another folder for each CheckpointCallback"):
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, both)


class Forwards(BaseCallback):
    """Calls another callback, which nobody else knows."""

    def __init__(self, inner):
        super().__init__()
        self.held = {"inner": inner}

    def _init_callback(self):
        self.held["inner"].init_callback(self.model)

    def _on_training_start(self):
        self.held["inner"].on_training_start(self.locals, self.globals)

    def _on_rollout_start(self):
        self.held["inner"].on_rollout_start()

    def _on_rollout_end(self):
        self.held["inner"].on_rollout_end()

    def _on_step(self):
        return self.held["inner"].on_step()


def test_callback_that_another_one_calls_writes_checkpoints(tmp_path):
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(80, Forwards(CheckpointCallback(20, tmp_path)))
    assert {path.stem for path in tmp_path.glob("*.zip")} == {f"rl_model_{step}_steps" for step in (20, 40, 60)}


def test_callback_works_inside_event_callbacks(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    model.learn(210, EveryNTimesteps(50, CheckpointCallback(1, tmp_path)))
    steps = [52, 100, 152, 200, 212]  # between rollouts of 4 steps
    assert {path.stem for path in tmp_path.glob("*.zip")} <= {f"rl_model_{step}_steps" for step in steps}
    assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == model.num_timesteps


def test_error_if_the_folder_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        MIRL("MlpPolicy", "CartPole-v1").learn(10, CheckpointCallback(10, tmp_path / "file"))


def test_no_checkpoint_where_a_callback_stops_the_training(tmp_path):
    # SB3 does not store the transition at which a callback stops the training: no checkpoint there
    env = make_vec_env("CartPole-v1", 1)
    MIRL("MlpPolicy", env, **SETTINGS).learn(500, [CheckpointCallback(20, tmp_path), StopTrainingOnMaxEpisodes(3)])
    assert MIRL.resume(tmp_path, env).num_timesteps % 4 == 0


class Breaks(ConstantReward):
    """Its observation at one step is not a number."""

    breaks = True

    def __init__(self):
        super().__init__(length=1000)

    def step(self, action):
        obs, *rest = super().step(action)
        return np.full_like(obs, np.nan) if self.breaks and self.steps == 150 else obs, *rest


def test_last_checkpoint_is_intact_after_a_nan_observation(tmp_path, monkeypatch):
    model = MIRL("MlpPolicy", Breaks(), **SETTINGS)
    with pytest.raises(ValueError, match="nan"):
        model.learn(300, CheckpointCallback(40, tmp_path))
    monkeypatch.setattr(Breaks, "breaks", False)
    resumed = MIRL.resume(tmp_path, Breaks())
    assert resumed.num_timesteps == 120
    resumed.learn(300)
    assert resumed.num_timesteps == 300
    assert all(th.isfinite(value).all() for value in resumed.policy.state_dict().values())


def test_other_algorithms_are_refused(tmp_path):
    with pytest.raises(TypeError, match="works with the algorithms of sb3_mirl, not with DQN"):
        DQN("MlpPolicy", "CartPole-v1", buffer_size=10).learn(10, CheckpointCallback(10, tmp_path))


@pytest.mark.parametrize("name_prefix", ["sub/a", "/a"])
def test_prefix_with_a_folder_is_refused(tmp_path, name_prefix):
    with pytest.raises(ValueError, match=f"name_prefix must be a part of a file name, without /, got '{name_prefix}'"):
        CheckpointCallback(10, tmp_path, name_prefix)


def test_written_checkpoints_are_printed_in_the_events_of_the_callback(tmp_path, capsys):
    class Labelled(CallbackList):
        def _on_rollout_start(self):
            print("begin")
            super()._on_rollout_start()
            print("end")

    callback = CheckpointCallback(8, tmp_path, verbose=1)
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(12, Labelled([callback]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line in ("begin", "end") or "Checkpoint" in line]
    written = [f"Checkpoint {tmp_path / f'rl_model_{step}_steps.json'}" for step in (8, 12)]
    assert lines == ["begin", "end", "begin", "end", "begin", written[0], "end", written[1]]
