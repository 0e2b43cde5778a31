"""What learn() does after resume()."""

import pytest
import torch as th
from resuming import SETTINGS
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_mirl import MIRL, CheckpointCallback


@pytest.fixture
def folder(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=5))
    MIRL("MlpPolicy", env, **SETTINGS).learn(96, CheckpointCallback(20, tmp_path))
    return tmp_path


def test_resuming_a_finished_run_changes_nothing(folder):
    model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
    before = model.policy.state_dict()["q_net.q_net.0.weight"].clone()
    model.learn(96, CheckpointCallback(20, folder))
    assert model.num_timesteps == 96
    assert th.equal(before, model.policy.state_dict()["q_net.q_net.0.weight"])


@pytest.mark.parametrize(("total", "reset", "end"), [(152, True, 152), (152, False, 248)])
def test_resumed_run_can_be_extended(folder, total, reset, end):
    model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
    model.learn(total, reset_num_timesteps=reset)
    assert model.num_timesteps == end


def test_second_learn_is_a_new_training(folder):
    model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
    model.learn(120)
    model.learn(30)
    assert model.num_timesteps == 32
