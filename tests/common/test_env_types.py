"""What is accepted as an environment, wherever one is given."""

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import MIRL
from sb3_mirl.common.env_types import check_env_type

SETTINGS = {"learning_starts": 10, "buffer_size": 20, "policy_kwargs": {"net_arch": [4]}}


@pytest.mark.parametrize("make", [lambda: None, lambda: "CartPole-v1", lambda: gym.make("CartPole-v1")])
def test_accepted_environments(make):
    check_env_type(make())
    check_env_type(make_vec_env("CartPole-v1", 2))


@pytest.mark.parametrize("env", [gym.Env, len, ["CartPole-v1"]], ids=["class", "function", "list"])
def test_others_are_named(env):
    with pytest.raises(ValueError, match=r"env must be a gymnasium\.Env, an SB3 VecEnv or the id of an environment, got "):
        MIRL("MlpPolicy", env, **SETTINGS)


def test_vector_environments_of_gymnasium_are_refused_with_a_remedy():
    envs = gym.make_vec("CartPole-v1", 2)
    with pytest.raises(ValueError, match=r"env must be .*got Gymnasium's .*VectorEnv.*make_vec_env\(id, n_envs\)"):
        MIRL("MlpPolicy", envs, **SETTINGS)
    envs.close()


def test_an_id_is_accepted_wherever_an_environment_is(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    model.save(tmp_path / "model")
    model.export(tmp_path / "model")
    assert MIRL.load(tmp_path / "model", "CartPole-v1").env.num_envs == 1
    assert MIRL.load_exported(tmp_path / "model", "CartPole-v1").env.num_envs == 1
    model.set_env("CartPole-v1")
    with pytest.raises(ValueError, match="env must be "):
        model.set_env(gym.Env)
