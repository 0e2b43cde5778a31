"""Spaces, and environments that were made in another way."""

import random

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from held_values import World, round_trip
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

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


class Draws(gym.Env):
    """Its observations are drawn with the global generators of its process; its reset has an info."""

    observation_space, action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(2)

    def _draw(self):
        return np.array([random.random(), np.random.random()], np.float32)

    def reset(self, *, seed=None, options=None):
        obs = self._draw()
        return obs, {"first": float(obs[0])}

    def step(self, action):
        return self._draw(), 0.0, False, False, {}


class Counts(SubprocVecEnv):
    def __init__(self, makers):
        super().__init__(makers, start_method="fork")
        self.steps = 0

    def step_wait(self):
        self.steps += 1
        return super().step_wait()


def test_worker_processes_continue_with_their_global_generators_and_attributes():
    one, two = (Counts([Draws, Draws]) for _ in range(2))
    one.reset(), two.reset()
    one.step([0, 1])
    state = capture(one)
    restore(two, state)
    assert state.missing == []
    assert two.steps == one.steps == 1 and two.reset_infos == one.reset_infos
    assert (one.step([0, 1])[0] == two.step([0, 1])[0]).all()
    one.close(), two.close()


def test_infos_of_the_latest_reset_are_restored():
    one, two = (DummyVecEnv([Draws]) for _ in range(2))
    one.reset(), two.reset()
    assert one.reset_infos != two.reset_infos
    restore(two, capture(one))
    assert one.reset_infos == two.reset_infos
