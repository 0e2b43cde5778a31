"""Environments give to joint training what their vector environments give."""

import gymnasium as gym
import numpy as np
import pytest
from joint_runs import SETTINGS
from probes import ConstantReward, Mixed
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_mirl import MIRL
from sb3_mirl.joint.environments import Environments, own_observations
from sb3_mirl.joint.random_numbers import RunGenerator


class Mountain(ConstantReward):
    """Ends by a time limit, and reuses the array of its observations."""

    def __init__(self):
        super().__init__(observation_space=gym.spaces.Box(0, 100, (2,), np.float32))
        self.array = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.array[:] = 50
        return self.array, {"begun": True}

    def step(self, action):
        self.steps += 1
        self.array[:] = self.steps
        return self.array, 0.1 * self.steps, self.steps % 7 == 0, self.steps % 5 == 0, {"steps": self.steps}


class OwnVecEnv(DummyVecEnv):
    """Not an exact ``DummyVecEnv``: its step must be called."""

    def step_wait(self):
        observations, rewards, dones, infos = super().step_wait()
        return observations, rewards + 1, dones, infos


KINDS = {
    "exact": lambda: DummyVecEnv([Mountain, Mountain]),
    "dictionary": lambda: DummyVecEnv([Mixed, Mixed]),
    "subclass": lambda: OwnVecEnv([Mountain, Mountain]),
    "frames": lambda: VecFrameStack(make_vec_env(Mountain, 2), 2),
    "categories": lambda: make_vec_env("FrozenLake-v1", 2),
}


def make(kind):
    policy = "MultiInputPolicy" if kind == "dictionary" else "MlpPolicy"
    models = [MIRL(policy, KINDS[kind](), **{**SETTINGS, "buffer_size": 10, "seed": seed}) for seed in range(2)]
    for model in models:
        model._setup_learn(10)
    return models


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_those_of_the_vector_environment(kind):
    models, others = make(kind), make(kind)
    environments = Environments(models, [RunGenerator(model.random_state) for model in models])
    for step in range(20):
        actions = np.full((2, 2), step % 2)
        transitions = environments.step([0, 1], actions)
        for row, other in enumerate(others):
            observations, rewards, dones, infos = other.env.step(actions[row])
            given, given_rewards = transitions.of_row(row)
            np.testing.assert_equal(given, observations)
            np.testing.assert_equal(own_observations(transitions.observations, row), observations)
            np.testing.assert_array_equal(given_rewards, rewards)
            np.testing.assert_array_equal(transitions.dones[row], dones)
            assert transitions.timeouts[row].tolist() == [info["TimeLimit.truncated"] for info in infos]
            assert [(row, number) in transitions.ended for number in (0, 1)] == dones.tolist()
            assert not dones.any() or row in transitions.eventful
            for info, expected in zip(transitions.infos[row], infos, strict=True):
                assert info.keys() == expected.keys()
                if "terminal_observation" in expected and kind != "exact":
                    np.testing.assert_equal(info["terminal_observation"], expected["terminal_observation"])
            assert models[row].env.reset_infos == other.env.reset_infos
        environments.observations = transitions.observations


def test_runs_that_have_ended_are_left_alone():
    models = make("exact")
    environments = Environments(models, [RunGenerator(model.random_state) for model in models])
    transitions = environments.step([1], np.zeros((2, 2), int))
    assert transitions.infos[0] == [] and len(transitions.infos[1]) == 2
    assert models[0].env.envs[0].steps == 0 and models[1].env.envs[0].steps == 1
