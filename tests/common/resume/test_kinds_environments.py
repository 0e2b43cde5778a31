"""Spaces, and environments that were made in another way."""

import gymnasium as gym
import pytest
from gymnasium import spaces
from held_values import World, round_trip
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_mirl.common.resume.state import capture, restore

pytestmark = pytest.mark.filterwarnings(
    "ignore:builtin type (Swig|swig)", "ignore:torch.quantize", "ignore:`torch.jit:DeprecationWarning"
)


def test_generators_of_spaces_continue_identically():
    space = spaces.Dict({"a": spaces.Discrete(100), "b": spaces.Box(0, 1, (2,))})
    space.seed(1)
    other = spaces.Dict({"a": spaces.Discrete(100), "b": spaces.Box(0, 1, (2,))})
    new = round_trip(space, other)
    assert new is other
    assert new.sample()["a"] == space.sample()["a"]


def test_changed_space_is_named():
    state = capture(World(spaces.Discrete(3)))
    restore(World(spaces.Discrete(4)), state)
    assert "there was the space Discrete(3)" in state.missing[0]


def test_another_environment_is_refused():
    state = capture(make_vec_env("CartPole-v1", 1))
    with pytest.raises(ValueError, match=r"at envs\[0\].*MountainCarEnv"):
        restore(make_vec_env("MountainCar-v0", 1), state)
    with pytest.raises(ValueError, match=r"at envs\[1\] the state has a .*Monitor"):
        restore(make_vec_env("CartPole-v1", 1), capture(make_vec_env("CartPole-v1", 2)))
    with pytest.raises(ValueError, match=r"the state has a .*Monitor, the object a .*TimeLimit"):
        restore(DummyVecEnv([lambda: gym.make("CartPole-v1")]), capture(make_vec_env("CartPole-v1", 1)))
