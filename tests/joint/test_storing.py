"""Transitions are checked and stored, and the models see them."""

import numpy as np
import pytest
from joint_runs import SAME, make_models

from sb3_mirl.joint.environments import Environments
from sb3_mirl.joint.random_numbers import RunGenerator
from sb3_mirl.joint.replay import OwnBuffers, StackedBuffers
from sb3_mirl.joint.storing import store_transitions


def make(kind):
    models = make_models(SAME, lambda: "CartPole-v1", "MlpPolicy")
    for model in models:
        model._setup_learn(100)
    generators = [RunGenerator(model.random_state) for model in models]
    return models, Environments(models, generators), kind(models, generators)


@pytest.mark.parametrize("kind", [StackedBuffers, OwnBuffers])
def test_transitions_of_all_runs(kind):
    models, environments, replay = make(kind)
    begun = {key: array.copy() for key, array in environments.observations.items()}
    transitions = environments.step([0, 1, 2], np.ones((3, 1), int))
    last = np.full(4, 7.0, np.float32)
    transitions.dones[1, 0] = transitions.timeouts[1, 0] = True
    transitions.infos[1][0] |= {"terminal_observation": last, "TimeLimit.truncated": True}
    transitions.ended.append((1, 0))
    failed = store_transitions(models, [0, 1, 2], environments, replay, np.ones((3, 1), int), transitions)
    assert failed == []
    for row, model in enumerate(models):
        buffer = model.replay_buffer
        assert buffer.pos == 1 and buffer.actions[0, 0, 0] == 1 and buffer.rewards[0, 0] == 1
        np.testing.assert_array_equal(buffer.observations[0], begun[""][row])
        expected = last if row == 1 else transitions.observations[""][row, 0]
        np.testing.assert_array_equal(buffer.next_observations[0, 0], expected)
        assert buffer.dones[0, 0] == buffer.timeouts[0, 0] == (row == 1)
        np.testing.assert_array_equal(model._last_obs, transitions.observations[""][row])


@pytest.mark.parametrize("kind", [StackedBuffers, OwnBuffers])
@pytest.mark.parametrize("wrong", ["reward", "observation", "last observation"])
def test_invalid_values_end_their_run_only(kind, wrong):
    models, environments, replay = make(kind)
    transitions = environments.step([0, 1, 2], np.ones((3, 1), int))
    if wrong == "reward":
        transitions.rewards[2, 0] = np.nan
    elif wrong == "observation":
        transitions.observations[""][2, 0, 1] = np.inf
    else:
        transitions.dones[2, 0] = True
        transitions.infos[2][0]["terminal_observation"] = np.full(4, np.nan, np.float32)
        transitions.ended.append((2, 0))
    ((row, error),) = store_transitions(models, [0, 1, 2], environments, replay, np.ones((3, 1), int), transitions)
    assert row == 2 and wrong in str(error)
    assert [model.replay_buffer.pos for model in models] == [1, 1, 0]
