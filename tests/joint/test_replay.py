"""Stacked buffers store and sample as SB3's ReplayBuffer does."""

import numpy as np
import pytest
import torch as th
from joint_runs import SAME, make_models
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_mirl.joint.random_numbers import RunGenerator
from sb3_mirl.joint.replay import OwnBuffers, StackedBuffers


def make(n_envs=2, **settings):
    env = lambda: make_vec_env("CartPole-v1", n_envs)  # noqa: E731
    return make_models(SAME, env, "MlpPolicy", **{"buffer_size": 20, "batch_size": 8, **settings})


def transition(random, n_envs):
    observations, next_observations = random.normal(size=(2, 3, n_envs, 4)).astype(np.float32)
    actions, rewards = random.integers(0, 2, (3, n_envs)), random.normal(size=(3, n_envs)).astype(np.float32)
    dones = random.random((3, n_envs)) < 0.5
    return observations, next_observations, actions, rewards, dones, dones & (random.random((3, n_envs)) < 0.5)


def fill(buffers, random, steps, n_envs, rows=(0, 1, 2)):
    """The same transitions for stacked buffers and for a list of SB3's."""
    stacked, own = buffers
    for _ in range(steps):
        new = transition(random, n_envs)
        stacked.add(list(rows), *new)
        for row in rows:
            *values, timeouts = (array[row] for array in new)
            own[row].add(*values, [{"TimeLimit.truncated": bool(timeout)} for timeout in timeouts])


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("steps", [(4, 3), (9, 9), (25, 2)])
def test_stores_and_samples_as_each_buffer_does(n_envs, steps):
    random = np.random.default_rng(0)
    models, others = make(n_envs), make(n_envs)
    own = [model.replay_buffer for model in others]
    for model, other in zip(models, others, strict=True):  # of an earlier training
        for buffer in (model.replay_buffer, other.replay_buffer):
            buffer.add(
                np.ones((n_envs, 4)), np.ones((n_envs, 4)), np.zeros(n_envs), np.ones(n_envs), np.ones(n_envs), [{}] * n_envs
            )
    generators = [RunGenerator(np.random.RandomState(seed).get_state(legacy=False)) for seed in range(3)]
    stacked = StackedBuffers(models, generators)
    fill((stacked, own), random, steps[0], n_envs)
    stacked.release(1)  # its run has ended
    fill((stacked, own), random, steps[1], n_envs, rows=(0, 2))
    batch = stacked.sample([0, 2])
    assert batch.discounts is None
    for row in (0, 2):
        np.random.seed(row)
        expected = own[row].sample(8)
        given = (
            batch.observations[""][row],
            *(tensor[row] for tensor in batch.transitions[:1]),
            batch.next_observations[""][row],
        )
        for tensor, other in zip((*given, batch.transitions[2][row], batch.transitions[1][row]), expected[:5], strict=True):
            assert th.equal(tensor, other) and tensor.dtype == other.dtype
    stacked.release(0)
    for row, model in enumerate(models):
        assert (model.replay_buffer.pos, model.replay_buffer.full) == (own[row].pos, own[row].full)
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
            np.testing.assert_array_equal(getattr(model.replay_buffer, name), getattr(own[row], name))
    assert models[0].replay_buffer.observations.base is None


class Counting(ReplayBuffer):
    """Counts how often it is asked."""

    calls = 0

    def sample(self, batch_size, env=None):
        self.calls += 1
        assert batch_size == 8
        return super().sample(batch_size, env)


def test_what_is_stacked():
    assert all(map(StackedBuffers.fits, make()))
    assert not any(map(StackedBuffers.fits, make(replay_buffer_class=Counting)))
    no_timeouts = {"handle_timeout_termination": False}
    assert not any(map(StackedBuffers.fits, make(optimize_memory_usage=True, replay_buffer_kwargs=no_timeouts)))
    env = lambda: VecNormalize(make_vec_env("CartPole-v1", 2))  # noqa: E731
    assert not any(map(StackedBuffers.fits, make_models(SAME, env, "MlpPolicy")))
    assert not any(map(StackedBuffers.fits, make(n_steps=3)))


def test_own_buffers_are_asked_once_with_their_generator():
    models = make(replay_buffer_class=Counting)
    for model in models:
        for number in range(5):
            array = np.full((2, 4), number)
            model.replay_buffer.add(array, array, np.zeros(2), np.ones(2), np.zeros(2), [{}] * 2)
    generators = [RunGenerator(np.random.RandomState(seed).get_state(legacy=False)) for seed in range(3)]
    batch = OwnBuffers(models, generators).sample([0, 2])
    assert [model.replay_buffer.calls for model in models] == [1, 0, 1]
    for row in (0, 2):
        np.random.seed(row)
        assert th.equal(batch.observations[""][row], models[row].replay_buffer.sample(8).observations)
