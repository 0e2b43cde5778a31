"""Exploration draws what each model would draw alone."""

import numpy as np
import pytest
import torch as th
from joint_runs import DIFFERENT, make_models
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl.joint.acting import Acting
from sb3_mirl.joint.networks import StackedNetworks
from sb3_mirl.joint.random_numbers import RunGenerator

ROWS = [DIFFERENT[0], DIFFERENT[1], DIFFERENT[2]]


def make():
    models = make_models(ROWS, lambda: make_vec_env("CartPole-v1", 3), "MlpPolicy")
    for model in models:
        model._setup_learn(100)
        model.action_space.seed(5)
    models[0].policy.prior.copy_(th.tensor([0.1, 0.9]))
    return models


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [0, 100])
def test_actions_and_random_numbers_of_each_model(epsilon, steps):
    models, others = make(), make()
    generators = [RunGenerator(np.random.RandomState(seed).get_state(legacy=False)) for seed in range(3)]
    acting = Acting(StackedNetworks(models), generators)
    states = [np.random.RandomState(seed).get_state(legacy=False) for seed in range(3)]
    random = np.random.default_rng(1)
    for model in (*models, *others):
        model.num_timesteps, model.exploration_rate = steps, epsilon
    for _ in range(10):
        observations = random.normal(size=(3, 3, 4)).astype(np.float32)
        actions, network_actions = acting.choose([0, 1, 2], {"": observations})
        assert (acting.probabilities is None) == (steps == 0)
        np.testing.assert_array_equal(actions, network_actions)
        for row, other in enumerate(others):
            np.random.set_state(states[row])
            other._last_obs = observations[row]
            expected, _ = other._sample_action(other.learning_starts, None, 3)
            states[row] = np.random.get_state(legacy=False)
            np.testing.assert_array_equal(actions[row], expected)
    for generator, state in zip(generators, states, strict=True):
        assert generator.state["state"]["pos"] == state["state"]["pos"]
