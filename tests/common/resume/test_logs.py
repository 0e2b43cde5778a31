"""Log files and TensorBoard show each step once."""

import gymnasium as gym
import numpy as np
import pytest
from resuming import IGNORED_WARNINGS, SETTINGS, cartpole, run
from stable_baselines3.common.callbacks import (
    ConvertCallback,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from sb3_mirl import MIRL, CheckpointCallback

pytestmark = IGNORED_WARNINGS


def test_log_files_hold_each_entry_once(tmp_path):
    options = {"make_env": lambda: cartpole(tmp_path), "total": 600, "save_freq": 100, "settings": SETTINGS}
    run(tmp_path, **options, interrupted_at=350)
    model = run(tmp_path, **options)
    steps = [int(line.split(",")[1]) for line in (tmp_path / "0.monitor.csv").read_text().splitlines()[2:]]
    log = (tmp_path / "progress.csv").read_text().splitlines()
    column = log[0].split(",").index("time/total_timesteps")
    assert np.cumsum(steps).tolist() == [int(line.split(",")[column]) for line in log[1:]]
    assert 550 < sum(steps) <= 600 == model.num_timesteps


def test_tensorboard_shows_each_step_once(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def begin_or_go_on(interrupted_at):
        env = make_vec_env("CartPole-v1", 1, seed=5)
        folder = tmp_path / "checkpoints"
        settings = {**SETTINGS, "tensorboard_log": str(tmp_path)}
        model = MIRL.resume(folder, env) if folder.exists() else MIRL("MlpPolicy", env, **settings)
        stop = ConvertCallback(lambda local, _: local["self"]._n_calls != interrupted_at)
        return model.learn(600, [CheckpointCallback(100, folder), stop], log_interval=1)

    begin_or_go_on(350)
    (tmp_path / "MIRL_2").mkdir()  # another run's, begun in the meantime
    begin_or_go_on(None)
    events = event_accumulator.EventAccumulator(str(tmp_path / "MIRL_1"))
    events.Reload()
    steps = [event.step for event in events.Scalars("rollout/ep_len_mean")]
    assert steps == sorted(set(steps)) and steps[-1] > 500
    assert not list((tmp_path / "MIRL_2").iterdir())


def test_log_files_without_a_writer_are_named_in_a_warning(tmp_path):
    env = gym.make("CartPole-v1")
    model = MIRL("MlpPolicy", env, **SETTINGS)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(100, CheckpointCallback(20, tmp_path))
    with pytest.warns(UserWarning, match=r"wrote \['progress.csv'\], but this run does not"):
        MIRL.resume(tmp_path, env).learn(120)
